"""What an objective does, in numbers: its response to reward, probability and clock; its lives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from discovery.config import ConfigError, check_seed, check_sizes
from discovery.evaluation import figures, horizons, table
from discovery.inner.build import make_environment
from discovery.inner.lifetime import Life, Task, World, advance, birth
from discovery.requests import InspectConfig
from discovery.runs.folders import check_writable
from learned_objectives import descent
from learned_objectives.base import Experience, Learner, Network, Time
from learned_objectives.clock import BASE_STEPS
from learned_objectives.library import load

TRAIL = 8
"""Steps of the trajectory that is shown to an objective."""
REWARDS = np.linspace(-1, 1, 21)
PROBABILITIES = np.array([0.05, 0.2, 0.5, 0.8, 0.95])
SHARES = np.array([0.0, 0.25, 0.5, 0.75, 0.95])
ACTIONS = 5
Line: TypeAlias = tuple[int | float, ...]
"""Of a table."""


class Response(NamedTuple):
    """What an objective says of the step that was rewarded."""

    pi_hat: Float[np.ndarray, "K R P"]
    """By share of life, reward and probability; it acts as minus an advantage."""


class Along(NamedTuple):
    """Means over agents along lives of one horizon, ``[N]`` by update."""

    entropy: Float[np.ndarray, " N"]
    """Of the policy before the update, in nats."""
    change: Float[np.ndarray, " N"]
    """KL of the policy before the update from the one after it, in nats."""
    reward: Float[np.ndarray, " N"]
    """Per step of the rollout."""


def respond(world: World, theta: Any, hyper: Any, horizon: int) -> Response:
    """Show the objective a short episode whose last step is rewarded, at several times of life.

    The action of the last step had the given probability, all others a uniform one; predictions
    are uniform. Everything goes through the protocol, so any objective that says a ``pi_hat`` can
    be asked.

    Args:
      world: for its objective and sizes.
      theta: the objective's parameters.
      hyper: numbers of an agent's update.
      horizon: the N that is told.

    Returns:
      The response.

    Raises:
      ConfigError: the objective has no such signal.
    """
    heads = world.objective.heads
    actions = world.env.spec.num_actions or ACTIONS
    fixed: dict[str, Array] = {
        name: jnp.zeros((TRAIL, 1, actions if head.size == "actions" else head.size))
        for name, head in heads.items()
    }

    def said(share: Array, reward: Array, probability: Array) -> Array:
        other = (1 - probability) / (actions - 1)
        logits = jnp.full(actions, jnp.log(other)).at[0].set(jnp.log(probability))
        outputs = {**fixed, "policy": fixed["policy"].at[-1, 0].set(logits)}
        last = jnp.arange(TRAIL)[:, None] == TRAIL - 1
        experience = Experience(
            observation=(),
            action=jnp.zeros((TRAIL, 1), jnp.int32),
            reward=jnp.where(last, reward, 0.0),
            terminated=last,
            truncated=jnp.zeros_like(last),
            next_observation=(),
            behaviour=outputs,
        )
        network = _recorded(world.network, outputs)
        time = Time(
            # A life of N updates never sees n = N.
            n=jnp.minimum(jnp.round(share * horizon), horizon - 1).astype(jnp.int32),
            N=jnp.asarray(horizon, jnp.int32),
            unit=jnp.asarray(world.environments * world.steps / BASE_STEPS, jnp.float32),
        )
        signals = world.objective.signals(theta, hyper, network, Learner((), ()), experience, time)
        if "pi_hat" not in signals:
            raise ConfigError("this objective says no pi_hat, which is what is drawn here")
        return signals["pi_hat"][-1, 0]

    over = jax.vmap(jax.vmap(jax.vmap(said, (None, None, 0)), (None, 0, None)), (0, None, None))
    axes = (jnp.asarray(x, jnp.float32) for x in (SHARES, REWARDS, PROBABILITIES))
    return Response(np.asarray(jax.jit(over)(*axes)))


def _recorded(network: Network, outputs: dict[str, Array]) -> Network:
    """A network that puts out what was recorded."""
    return network._replace(unroll=lambda params, experience: (outputs, outputs))


def along_lives(
    world: World, theta: Any, hyper: Any, levels: Any, horizon: int, seed: int
) -> Along:
    """Live whole lives on several levels, and watch the policy at every update.

    Args:
      world: who lives where.
      theta: the objective's parameters.
      hyper: numbers of an agent's update.
      levels: leaves ``[count, ...]``.
      horizon: N.
      seed: root of every random number.

    Returns:
      Means over the agents, ``[N]``.
    """
    count = jax.tree.leaves(levels)[0].shape[0]
    keys = jax.random.split(jax.random.key(seed), count)

    def one(level: Any, key: Array) -> tuple[Array, Array, Array]:
        task = Task(level, jnp.asarray(horizon, jnp.int32))

        def step(life: Life, _: None) -> tuple[Life, tuple[Array, Array, Array]]:
            after, experience = advance(world, theta, hyper, task, life)[:2]
            old = world.network.unroll(life.learner.params, experience)[0]
            new = world.network.unroll(after.learner.params, experience)[0]
            seen = (
                world.network.entropy(old).mean(),
                world.network.kl(old, new).mean(),
                experience.reward.mean(),
            )
            return after, seen

        life = birth(world, theta, hyper, task, key)
        return jax.lax.scan(step, life, None, length=horizon)[1]

    lives = jax.jit(jax.vmap(one))(levels, keys)
    return Along(*(np.asarray(x, float).mean(axis=0) for x in lives))


def inspect(request: InspectConfig, report: Callable[[str], None] = print) -> list[Path]:
    """What an objective does over a life, as tables and pictures.

    Args:
      request: which objective, and where it is watched.
      report: told what happens, a line at a time.

    Returns:
      The pictures.

    Raises:
      ConfigError: the objective cannot be used in that environment.
    """
    horizons.check_horizons(request.horizons)
    check_sizes(levels=request.levels)
    check_seed(request.seed)
    saved = load(request.objective)
    how = horizons.setting([saved], make_environment(request.env))
    who = horizons.enter(saved, request.env, how)
    run = Path(request.objective)
    folder = Path(request.out or (run / "figures" if run.is_dir() else f"inspect-{saved.name}"))
    check_writable(folder)
    report(f"{saved.name}: {describe(saved.card, saved.theta)}")

    middle = sorted(request.horizons)[len(request.horizons) // 2]
    report(f"its response, told N = {middle} ...")
    response = respond(who.world, who.source, who.hyper, middle)
    table.write_numbers(folder / "response.csv", *_response_table(response, middle))
    half = list(PROBABILITIES).index(0.5)
    pictures = [
        figures.save(
            figures.response(
                REWARDS,
                SHARES,
                response.pi_hat[:, :, half],
                title=f"{saved.name}: the word for a rewarded action, pi(a|s) = 0.5, N = {middle}",
            ),
            folder / "response",
        )[0]
    ]

    levels = horizons.held_out(request.env, "validation", request.levels).levels
    lives = {}
    for n in sorted(set(request.horizons)):
        report(f"{request.levels} lives of {n} updates ...")
        lives[n] = along_lives(who.world, who.source, who.hyper, levels, n, request.seed)
    table.write_numbers(folder / "lives.csv", *_lives_table(lives))
    curves: Sequence[tuple[str, str, str]] = (
        ("entropy", "entropies", "entropy of the policy (nats)"),
        ("change", "changes", "change of the policy at an update, KL (nats)"),
        ("reward", "rewards", "reward per step"),
    )
    for field, name, label in curves:
        data = {n: getattr(along, field) for n, along in lives.items()}
        title = f"{saved.name} in {request.env}: {request.levels} lives of each horizon"
        figure = figures.entropies(data, ylabel=label, title=title)
        pictures.append(figures.save(figure, folder / name)[0])
    for picture in pictures:
        report(f"picture: {picture}")
    return pictures


def describe(card: dict[str, Any], theta: Any) -> str:
    """An objective in a line."""
    size = sum(leaf.size for leaf in jax.tree.leaves(theta))
    if not size:
        return "hand-written, nothing learned"
    trained = card.get("config", {})
    where = f", trained in {trained['env']}" if "env" in trained else ""
    return f"{size:,} parameters{where}, norm {float(descent.norm(theta)):.2f}"


def _response_table(response: Response, horizon: int) -> tuple[list[str], list[tuple[float, ...]]]:
    lines: list[tuple[float, ...]] = [
        (horizon, t, r, p, response.pi_hat[i, j, k].item())
        for i, t in enumerate(SHARES.tolist())
        for j, r in enumerate(REWARDS.tolist())
        for k, p in enumerate(PROBABILITIES.tolist())
    ]
    return ["horizon", "share", "reward", "probability", "pi_hat"], lines


def _lives_table(lives: dict[int, Along]) -> tuple[list[str], list[Line]]:
    lines: list[Line] = [
        (n, update, *(float(column[update]) for column in along))
        for n, along in lives.items()
        for update in range(n)
    ]
    return ["horizon", "update", *Along._fields], lines
