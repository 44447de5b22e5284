r"""Evolution over windows: agents live on, and candidates are compared by a part of their lives.

One generation: the two partners of each pair live K updates of a life under their candidates
:math:`m \pm \sigma z_j`, and are scored by fresh episodes where they stand. With the strategy
``paired`` both begin a window as the same agent, one of the two that the last window made
(truncated evolution: what happened before is forgotten). With ``PersistentES`` each goes on as
itself, and is credited with all the perturbations of its life (unbiased over whole lives, if
scores are not shaped).

Shape legend: ``M`` pairs, ``L = 2 M`` lives in the order pair 0 +, pair 0 -, pair 1 +.

Source: Metz et al. 2019 (truncated evolution of learned optimisers); Vicol et al. 2021 (persistent
evolution strategies).
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PyTree

from discovery.config import AgentConfig, Config, LifeConfig
from discovery.devices import home, put
from discovery.inner.build import make_hyper, make_objective, make_world, static
from discovery.inner.cohort import Candidate, Cohort, bytes_of, make_cohort, population_mesh
from discovery.inner.lifetime import Life, Task, World, birth, grow, is_finite, where
from discovery.inner.rollout import episode_return
from discovery.outer.evolution import make_strategy, strongly_typed
from discovery.outer.low_rank import check_products
from discovery.outer.persistent import (
    Agents,
    Newborn,
    draw_births,
    first_cut,
    over_groups,
    placeholders,
    placement,
)
from discovery.outer.scoring import LivedOn, make_validation, witness
from discovery.outer.search import (
    Search,
    SearchState,
    beginning,
    evaluation_steps,
    example_task,
    judge,
    moved,
    of_pairs,
    reported,
    root_key,
    shapes,
)
from discovery.outer.teaching import known_returns, make_teacher
from learned_objectives.base import Key, Objective, Theta

PERSISTENT = ("PersistentES",)
"""Strategies whose partners go on as themselves."""
_SCORE = 2**31
"""Folded into a life's key for the episodes that score it; no update has this number."""


class Told(NamedTuple):
    """What one agent tells of a window."""

    score: Float[Array, ""]
    """Mean return of fresh episodes after the window; NaN if the agent is not finite."""
    updates: Int[Array, ""]
    """How many took place."""
    metrics: dict[str, Float[Array, ""]]
    """Means over these of what the updates reported."""


class Who(NamedTuple):
    """Which candidates live, ``[L]``."""

    pair: Int[Array, " L"]
    sign: Float[Array, " L"]
    heir: Int[Array, " L"]
    """Which partner of the last window both go on as, 0 or 1, by a coin a pair."""


def window(
    world: World,
    updates: int,
    theta: Theta,
    hyper: Any,
    agent: Agents,
    newborn: Newborn,
) -> tuple[Agents, Told]:
    """Live through K updates of one life, from its birth if the one before has ended.

    Args:
      world: who lives where.
      updates: K.
      theta: the candidate.
      hyper: numbers of the agent's updates.
      agent: one agent.
      newborn: what it begins with if its life has ended.

    Returns:
      The agent after the window, and what is told of it.
    """
    new = birth(world, theta, hyper, newborn.task, newborn.key)
    life = where(agent.ended, new, agent.life)
    task, until = where(agent.ended, (newborn.task, newborn.until), (agent.task, agent.until))

    def step(life: Life, _: None) -> tuple[Life, Any]:
        alive = life.n < until
        grown, _experience, report = grow(world, theta, hyper, task, life)
        told = {name: jnp.where(alive, value, 0) for name, value in report.metrics.items()}
        return where(alive, grown, life), (told, alive)

    life, (told, alive) = jax.lax.scan(step, life, None, length=updates)
    key = jax.random.fold_in(jax.random.fold_in(life.key, _SCORE), life.n)
    params, sampled = life.learner.params, jnp.zeros((), bool)
    value = episode_return(
        world.env, world.network, params, task.level, key, world.episodes, sampled, life.scaling
    )
    good = is_finite(life.learner.params) & jnp.isfinite(value)
    gone_on = Agents(life, (), task, until, (life.n >= until) | ~good, agent.slot)
    metrics = {name: values.sum() / alive.sum() for name, values in told.items()}
    return gone_on, Told(jnp.where(good, value, jnp.nan), alive.sum(), metrics)


def from_heirs(agents: Agents, who: Who) -> Agents:
    """Both partners of a pair as one agent, the heir of the last window."""
    index = jnp.arange(who.heir.shape[0])
    begin = index - index % 2 + who.heir
    return agents._replace(life=jax.tree.map(lambda leaf: leaf[begin], agents.life))


@functools.lru_cache(maxsize=8)
def _programs(
    objective: Objective,
    env: str,
    agent: AgentConfig,
    life: LifeConfig,
    candidate: Candidate,
    group: int,
    population: int,
    updates: int,
    persistent: bool,
) -> tuple[World, Cohort, Any, Mesh]:
    """The programs of all searches of these sizes."""
    world = make_world(objective, env, agent, life)
    cohort = make_cohort(world, candidate, group, population)

    def of_group(
        source: PyTree, hyper: Any, mine: Agents, newborn: Newborn, who: Who
    ) -> tuple[tuple[Agents, Told], None]:
        if not persistent:
            mine = from_heirs(mine, who)

        def one(pair: Array, sign: Array, agent: Agents, newborn: Newborn) -> Any:
            theta = candidate(source, pair, sign)
            return window(world, updates, theta, hyper, agent, newborn)

        return jax.vmap(one)(who.pair, who.sign, mine, newborn), None

    mesh = population_mesh(population // group)
    return world, cohort, jax.jit(over_groups(mesh, group, of_group, shared=2)), mesh


@functools.partial(jax.jit, static_argnames=("end_only", "by_life"))
def votes(
    horizon: Int[Array, " L"],
    n: Int[Array, " L"],
    updates: Int[Array, " L"],
    end_only: bool,
    by_life: bool,
) -> tuple[Bool[Array, " M"], Float[Array, " M"]]:
    """Whose window counts, and how much.

    Args:
      horizon: of the lives.
      n: updates that they have behind them.
      updates: how many of them took place in this window.
      end_only: only where the life has come to its horizon; that is one window of each life.
      by_life: a window counts as much as it is of its life, so that a life has one vote.

    Returns:
      ``[M]``: whether it counts; and its vote, of mean one over those that do, zero elsewhere.
    """
    at_end = (n >= horizon)[::2]
    counts = at_end if end_only else jnp.ones_like(at_end)
    share = (updates / horizon)[::2] if by_life and not end_only else 1.0
    vote = jnp.where(counts, share, 0.0)
    return counts, vote * counts.sum() / jnp.maximum(vote.sum(), jnp.finfo(vote.dtype).tiny)


@jax.jit
def weighed(weights: Float[Array, "M 2"], vote: Float[Array, " M"]) -> Float[Array, "M 2"]:
    """Weights of which the difference of each pair counts as its vote."""
    middle = weights.mean(axis=1, keepdims=True)
    return middle + (weights - middle) * vote[:, None]


@jax.jit
def closed(agents: Agents) -> tuple[Agents, Bool[Array, " M"], Bool[Array, " M"]]:
    """Agents of which a pair's life ends for both partners; whose did, and whose at its horizon."""
    ended = agents.ended.reshape(-1, 2).any(axis=1)
    at_end = (agents.life.n >= agents.task.horizon).reshape(-1, 2).all(axis=1)
    return agents._replace(ended=jnp.repeat(ended, 2)), ended, ended & at_end


@functools.partial(jax.jit, static_argnames="pairs")
def candidates(key: Key, pairs: int) -> Who:
    """Both sides of every pair, and a coin for each."""
    pair = jnp.repeat(jnp.arange(pairs, dtype=jnp.int32), 2)
    sign = jnp.tile(jnp.asarray([1.0, -1.0], jnp.float32), pairs)
    coin = jax.random.bernoulli(key, shape=(pairs,)).astype(jnp.int32)
    return Who(pair, sign, jnp.repeat(coin, 2))


@jax.jit
def both(tree: PyTree) -> PyTree:
    """What a pair has, for each of its partners: ``[M, ...]`` to ``[L, ...]``."""
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, 2, axis=0), tree)


def make_window_search(config: Config) -> Search:
    """A search by evolution over windows.

    Partners share every random number of their lives, whatever ``evolution.shared_stream`` says:
    a truncated window is compared between two continuations of one agent.

    Args:
      config: checked with ``config.check``.

    Returns:
      Its functions, as of :func:`discovery.outer.search.make_search`.

    Raises:
      ConfigError: the parts do not go together, or there is nothing to search over.
    """
    e, w = config.evolution, config.window
    objective: Any = make_objective(config.objective, config.agent)
    like = shapes(objective, config)
    strategy = make_strategy(e, like, windows=True)
    world, cohort, everyone, mesh = _programs(
        objective,
        config.env,
        static(config.agent),
        config.life,
        strategy.candidate,
        e.group,
        2 * e.pairs,
        w.window,
        e.strategy in PERSISTENT,
    )
    hyper = make_hyper(objective, config.agent, config.objective.clock_gate)
    check_products(config, world, strategy, like, hyper)
    validation = make_validation(world.env, config.horizon, config.validation_levels, cohort, hyper)
    teacher = make_teacher(config, known_returns)
    shared, split = placement(mesh)
    end_only, by_life = w.score == "end", w.vote == "life"
    batch = float(config.life.environments * config.life.rollout)

    def init() -> SearchState:
        key, first = beginning(objective, config)
        task = example_task(world.env)

        def born(task: Task, key: Key) -> tuple[Life, tuple[()]]:
            return birth(world, first, hyper, task, key), ()

        state = SearchState(
            strategy=strategy.init(key, first),
            key=root_key(config.seed),
            generation=jnp.zeros((), jnp.int32),
            curriculum=teacher.begin(task, jnp.zeros(())),
        )
        state = put(strongly_typed(state), home())
        agents = strongly_typed(placeholders(born, task, 2 * e.pairs))
        return state._replace(agents=put(agents, split))

    def step(state: SearchState) -> tuple[SearchState, dict[str, Array]]:
        born, slots = put((state.agents.ended[::2], state.agents.slot[::2]), home())
        fresh, life_keys, teach_key, cut_key = draw_births(
            state.key, state.generation, world.env.sample_level, config.horizon, e.pairs
        )
        noise_key, coin_key, judge_key, end_key, task_key = jax.random.split(teach_key, 5)
        curriculum, tasks, slots, taught = teacher.assign(
            state.curriculum, task_key, born, fresh, slots
        )
        until = first_cut(state.generation, cut_key, tasks.horizon)
        newborn, slots = both((Newborn(tasks, until, life_keys), slots))
        source, asked = strategy.ask(state.strategy, noise_key)
        who = candidates(coin_key, e.pairs)
        agents, told = everyone(
            *put((source, hyper), shared),
            state.agents._replace(slot=put(slots, split)),
            *put((newborn, who), split),
        )[0]
        agents, ended, at_end = closed(agents)
        told, lived = put((told, (agents.task, agents.life.n)), home())
        tasks, n = lived
        witness(lambda: watched_window(state, source, newborn, who, told))

        counts, vote = votes(tasks.horizon, n, told.updates, end_only, by_life)
        weights, metrics = judge(told.score, tasks.horizon, e.shaping, judge_key)
        after = strategy.tell(asked, source, weighed(weights, vote))
        after = strategy.forget(after, put(ended, home()))

        metrics |= reported(told.metrics)
        metrics |= moved(strategy.mean(state.strategy), strategy.mean(after))
        metrics |= strategy.numbers(state.strategy) | taught
        scored = jnp.where(both(counts), evaluation_steps(world, tasks), 0)
        metrics |= {
            "ended": put(at_end, home()).sum(),
            # Counted as what is needed: a group plays the episodes of all its agents.
            "steps": told.updates.sum() * batch,
            "evaluation_steps": scored.sum(),
        }
        if curriculum:
            of_lives = put((ended, at_end, agents.slot[::2]), home())
            curriculum, learned = teacher.finish(
                curriculum, end_key, *of_lives, of_pairs(told.score)
            )
            metrics |= learned
        return SearchState(after, state.key, state.generation + 1, agents, curriculum), metrics

    def watched_window(
        state: SearchState, source: PyTree, newborn: Newborn, who: Who, told: Told
    ) -> LivedOn:
        before = put(state.agents, home())
        before = before if e.strategy in PERSISTENT else from_heirs(before, who)
        finite = jnp.isfinite(told.score)
        return LivedOn(cohort, source, hyper, who.pair, who.sign, before, newborn, w.window, finite)

    def memory(state: SearchState) -> int:
        fresh, life_keys, _, key = draw_births(
            state.key, state.generation, world.env.sample_level, config.horizon, e.pairs
        )
        newborn = both(Newborn(fresh, fresh.horizon, life_keys))
        return bytes_of(
            everyone,
            *put((strategy.still(theta(state)), hyper), shared),
            state.agents,
            *put((newborn, candidates(key, e.pairs)), split),
        )

    def theta(state: SearchState) -> Theta:
        return strategy.mean(state.strategy)

    return Search(
        init=init,
        step=step,
        validate=lambda state: validation(strategy.still(theta(state))),
        theta=theta,
        objective=objective,
        world=world,
        cohort=cohort,
        still=strategy.still,
        hyper=hyper,
        memory=memory,
        columns=lambda state: teacher.columns(state.curriculum),
    )
