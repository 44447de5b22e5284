"""One agent's life: born, updated until its horizon, scored.

Everything here is about *one* agent; ``cohort.py`` runs many at once. Lives of different horizons
share one compiled program: the horizon is data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from discovery.inner.rollout import episode_return, rollout
from discovery.inner.scaling import OFF, Scales, Statistics, begin, renew, scale
from envs.base import Environment
from learned_objectives.base import Experience, Key, Learner, Network, Objective, Report, Time
from learned_objectives.clock import BASE_STEPS
from learned_objectives.scheduled import sharpened

POINTS = 10
"""Most points of a life, besides its start, at which an agent can be scored."""
DISCOUNT = 0.99
"""gamma of the returns that rewards are scaled by, for a rule that has none."""


@dataclass(frozen=True)
class World:
    """What is static about a life: who lives where, under which rule, at which sizes."""

    env: Environment
    objective: Objective
    network: Network
    environments: int
    """B, parallel environments of one agent."""
    steps: int
    """T, steps of one rollout."""
    episodes: int
    """E, fresh episodes that score an agent."""
    bootstrap: bool = True
    """Keep truncations apart from terminations; else an update sees both as terminations."""
    scales: Scales = OFF
    """Which of observations and rewards an agent meets in units of its own statistics."""


class Task(NamedTuple):
    """Where an agent lives, and how long."""

    level: PyTree
    horizon: Int[Array, ""]
    """N, in updates."""


class Life(NamedTuple):
    """One agent in the middle of its life."""

    learner: Learner
    observation: PyTree
    """Of its environments, ``[B, ...]``; carried on from update to update."""
    state: PyTree
    n: Int[Array, ""]
    """Updates completed."""
    key: Key
    """Root of the randomness of this life."""
    scaling: Statistics = ()
    """Statistics of what it has met; ``()`` if nothing is scaled."""


class Measure(NamedTuple):
    """When a life is scored; traced, so that asking for more compiles nothing."""

    points: Int[Array, ""]
    """1: at the end of life only; k > 1: at birth and after each k-th part, ``k <= POINTS``."""
    modes: Int[Array, ""]
    """1: sampled actions; 2: greedy ones as well."""
    temperature: Float[Array, ""] = np.float32(1)  # type: ignore[assignment]
    """Of a policy over discrete actions while it is scored, see
    :func:`learned_objectives.scheduled.sharpened`."""


class Outcome(NamedTuple):
    """What is told of a life."""

    returns: Float[Array, "2 points"]
    """Score by mode (sampled, greedy) at each point; the entry ``points`` is the end of life."""
    final: Float[Array, " 2"]
    """Return of the trained agent, by mode."""
    area: Float[Array, " 2"]
    """Mean return along the life (trapezoid over n, over N), by mode."""
    finite: Bool[Array, ""]
    """Every parameter of the agent and its return are finite."""
    metrics: dict[str, Float[Array, ""]]
    """Means over the life of what the updates reported."""


def birth(world: World, theta: PyTree, hyper: Any, task: Task, key: Key) -> Life:
    """An agent with fresh parameters in freshly reset environments; consumes ``key``."""
    params_key, reset_key, life_key = jax.random.split(key, 3)
    params = world.network.init(params_key)
    observation, state = jax.vmap(world.env.reset, (0, None))(
        jax.random.split(reset_key, world.environments), task.level
    )
    return Life(
        learner=world.objective.birth(theta, hyper, world.network, params),
        observation=observation,
        state=state,
        n=jnp.zeros((), jnp.int32),
        key=life_key,
        scaling=begin(
            world.scales,
            world.env.spec.observation_shape,
            world.environments,
            getattr(hyper, "discount", DISCOUNT),
        ),
    )


def next_keys(life: Life) -> tuple[Key, Key]:
    """Of a life's next update: for its rollout, and for what the objective makes of it."""
    # Asked for once: a compiler does not see that two loops of a generator are the same.
    act_key, update_key = jax.random.split(jax.random.fold_in(life.key, life.n))
    return act_key, update_key


def collect(world: World, task: Task, life: Life, key: Key) -> tuple[Life, Experience]:
    """A rollout; of the life, only its environments and its statistics go on.

    What is seen is scaled by the statistics of before the rollout, for acting and for learning.
    Constants for whoever differentiates: no gradient passes through what was done and seen.
    """
    seen = rollout(
        world.env,
        world.network,
        jax.lax.stop_gradient(life.learner.params),
        task.level,
        life.observation,
        life.state,
        key,
        world.steps,
        life.scaling,
    )
    observation, state, raw = jax.lax.stop_gradient(seen)
    experience = scale(life.scaling, raw)
    if not world.bootstrap:
        ended = experience.terminated | experience.truncated
        experience = experience._replace(terminated=ended, truncated=jnp.zeros_like(ended))
    after = life._replace(observation=observation, state=state, scaling=renew(life.scaling, raw))
    return after, experience


def learn(
    world: World,
    theta: PyTree,
    hyper: Any,
    task: Task,
    life: Life,
    experience: Experience,
    key: Key,
) -> tuple[Learner, Report]:
    """What the objective makes of a rollout: update ``n + 1`` of the life."""
    unit = jnp.asarray(world.environments * world.steps / BASE_STEPS, jnp.float32)
    return world.objective.update(
        theta,
        hyper,
        world.network,
        life.learner,
        experience,
        Time(n=life.n, N=task.horizon, unit=unit),
        key,
    )


def grow(
    world: World, theta: PyTree, hyper: Any, task: Task, life: Life
) -> tuple[Life, Experience, Report]:
    """One update, whatever the horizon: a rollout, then what the objective makes of it."""
    act_key, update_key = next_keys(life)
    after, experience = collect(world, task, life, act_key)
    learner, report = learn(world, theta, hyper, task, life, experience, update_key)
    return after._replace(learner=learner, n=life.n + 1), experience, report


def advance(
    world: World, theta: PyTree, hyper: Any, task: Task, life: Life
) -> tuple[Life, Experience, Report]:
    """One update of a living agent; a life past its horizon stays as it is.

    The experience and the report of a finished life are of an update that did not take place:
    callers mask them by ``life.n < task.horizon``.
    """
    grown, experience, report = grow(world, theta, hyper, task, life)
    return where(life.n < task.horizon, grown, life), experience, report


def where(condition: Bool[Array, ""], new: PyTree, old: PyTree) -> PyTree:
    """One of two trees, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def is_finite(params: PyTree) -> Bool[Array, ""]:
    """Every parameter of an agent is finite."""
    return jnp.isfinite(ravel_pytree(params)[0]).all()


def live(
    world: World, theta: PyTree, hyper: Any, task: Task, key: Key, measure: Measure
) -> Outcome:
    """A whole life, scored on fresh episodes.

    Under ``vmap`` the loop runs to the longest horizon of the batch, and a life past its own is
    frozen; so a batch should hold lives of similar length.

    Args:
      world: who lives where.
      theta: the objective's parameters.
      hyper: numbers of the agent's updates.
      task: level and horizon.
      key: consumed; two lives with one key share every random number.
      measure: when to score; ``points`` is traced, so more than ``POINTS`` are not refused here.

    Returns:
      The outcome.
    """
    birth_key, score_key = jax.random.split(key)
    life = birth(world, theta, hyper, task, birth_key)

    @jax.jit  # its shapes are asked for before it is run: traced once for both
    def grown(theta: PyTree, hyper: Any, task: Task, life: Life) -> tuple[Life, Any]:
        life, _, report = grow(world, theta, hyper, task, life)
        return life, report.metrics

    zero = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
        jax.eval_shape(grown, theta, hyper, task, life)[1],
    )

    def update(carry: tuple[Life, Any]) -> tuple[Life, Any]:
        life, sums = carry
        life, metrics = grown(theta, hyper, task, life)
        return life, jax.tree.map(jnp.add, sums, metrics)

    network = world.network
    if world.env.spec.num_actions is not None:
        network = sharpened(network, jnp.asarray(measure.temperature))

    def score(life: Life, point: Array) -> Float[Array, " 2"]:
        def mode(greedy: Array, scores: Array) -> Array:
            value = episode_return(
                world.env,
                network,
                life.learner.params,
                task.level,
                # Counted from the end: the last episodes are the same however many points.
                jax.random.fold_in(score_key, measure.points - point),
                world.episodes,
                greedy > 0,
                life.scaling,
            )
            return scores.at[greedy].set(value)

        return jax.lax.fori_loop(0, measure.modes, mode, jnp.full(2, jnp.nan))

    def part(point: Array, carry: Any) -> Any:
        life, sums, returns, times = carry
        until = jnp.round(point * task.horizon / measure.points).astype(jnp.int32)
        life, sums = jax.lax.while_loop(lambda carry: carry[0].n < until, update, (life, sums))
        returns = returns.at[:, point].set(score(life, point))
        return life, sums, returns, times.at[point].set(life.n)

    first = jnp.where(measure.points > 1, 0, 1)
    returns = jnp.full((2, POINTS + 1), jnp.nan)
    times = jnp.zeros(POINTS + 1, jnp.int32)
    life, sums, returns, times = jax.lax.fori_loop(
        first, measure.points + 1, part, (life, zero, returns, times)
    )

    final = returns[:, measure.points]
    spans = jnp.arange(POINTS) < measure.points
    trapezoid = (returns[:, 1:] + returns[:, :-1]) / 2 * jnp.diff(times)
    area = jnp.sum(jnp.where(spans, trapezoid, 0), axis=1) / task.horizon
    return Outcome(
        returns=returns,
        final=final,
        area=jnp.where(measure.points > 1, area, jnp.nan),
        finite=jnp.isfinite(final[0]) & is_finite(life.learner.params),
        metrics=jax.tree.map(lambda total: total / task.horizon, sums),
    )
