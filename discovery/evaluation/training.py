"""One agent, one life, with a curve."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from discovery.config import ConfigError, check_minutes, check_seed, check_sizes
from discovery.evaluation import figures, horizons, table
from discovery.inner.build import make_environment
from discovery.inner.lifetime import Life, Task, World, birth, grow
from discovery.inner.rollout import episode_return
from discovery.requests import TrainConfig
from discovery.runs.folders import check_writable
from learned_objectives.library import Saved, load

PARTS = 50
"""Points of a curve, besides its start, at most."""


class Curve(NamedTuple):
    """What was seen along a life, after each part of it."""

    updates: Int[np.ndarray, " K"]
    """Updates done, from 0."""
    sampled: Float[np.ndarray, " K"]
    """Return of fresh episodes, sampled actions."""
    greedy: Float[np.ndarray, " K"]
    """Return of fresh episodes, most likely actions."""
    metrics: dict[str, Float[np.ndarray, " K"]]
    """Means of what the updates of each part reported; NaN at the start."""


class Trained(NamedTuple):
    """A life that was lived."""

    curve: Curve
    params: Any
    """Parameters of the agent at its end."""
    folder: Path
    level: Any
    """Where it lived: a level of the environment."""


def follow(
    saved: Saved,
    env: str,
    how: horizons.Setting,
    horizon: int,
    seed: int,
    tell: Callable[[int], bool] = lambda n: True,
) -> tuple[Curve, Any, Any]:
    """Live one life, stopping to score it.

    Args:
      saved: the objective.
      env: name of an environment.
      how: agent, sizes, rival.
      horizon: N.
      seed: root of every random number.
      tell: given the updates done after each part; false ends the life early.

    Returns:
      The curve, the agent's parameters and the level.
    """
    who = horizons.enter(saved, env, how)
    world, hyper = who.world, who.hyper
    level_key, birth_key, score_key = jax.random.split(jax.random.key(seed), 3)
    task = Task(world.env.sample_level(level_key), jnp.asarray(horizon, jnp.int32))
    begin, go_on, score = _programs(world)

    life = begin(saved.theta, hyper, task, birth_key)
    parts = min(PARTS, horizon)
    until = np.unique(np.round(np.arange(parts + 1) * horizon / parts).astype(int))
    seen: list[tuple[int, Array, dict[str, Any]]] = []
    for k, n in enumerate(until):
        life, sums = go_on(saved.theta, hyper, task, life, jnp.int32(n))
        before = until[k - 1] if k else 0
        means = {name: total / max(n - before, 1) for name, total in sums.items()}
        returns = score(life, task.level, jax.random.fold_in(score_key, k))
        seen.append((int(n), returns, means if k else dict.fromkeys(means, jnp.nan)))
        if not tell(int(n)):
            break
    both = np.asarray([returns for _, returns, _ in seen])
    metrics = {name: np.asarray([m[name] for _, _, m in seen]) for name in seen[0][2]}
    updates = np.asarray([n for n, _, _ in seen])
    curve = Curve(updates, both[:, 0], both[:, 1], metrics)
    return curve, life.learner.params, task.level


@functools.lru_cache(maxsize=8)
def _programs(world: World) -> tuple[Any, Any, Any]:
    """Birth, life until an update, and score: compiled once for lives of any horizon and seed."""

    @jax.jit
    def begin(theta: Any, hyper: Any, task: Task, key: Array) -> Life:
        return birth(world, theta, hyper, task, key)

    @jax.jit
    def go_on(theta: Any, hyper: Any, task: Task, life: Life, until: Array) -> tuple[Life, Any]:
        shapes = jax.eval_shape(lambda: grow(world, theta, hyper, task, life)[2].metrics)
        zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        def update(carry: tuple[Life, Any]) -> tuple[Life, Any]:
            life, sums = carry
            life, _, report = grow(world, theta, hyper, task, life)
            return life, jax.tree.map(jnp.add, sums, report.metrics)

        return jax.lax.while_loop(lambda carry: carry[0].n < until, update, (life, zero))

    @jax.jit
    def score(life: Life, level: Any, key: Array) -> Float[Array, " 2"]:
        def one(greedy: Array) -> Array:
            return episode_return(
                world.env,
                world.network,
                life.learner.params,
                level,
                key,
                world.episodes,
                greedy,
                life.scaling,
            )

        return jax.lax.map(one, jnp.array([False, True]))

    return begin, go_on, score


def train(request: TrainConfig, report: Callable[[str], None] = print) -> Trained:
    """One agent, one life: a curve as a table and as a figure.

    Args:
      request: what to train; see its fields.
      report: told what happens, a line at a time.

    Returns:
      The life, which is also in its folder.

    Raises:
      ConfigError: the parts do not go together, or the folder is taken; nothing was started.

    Example:
      >>> from discovery.requests import TrainConfig
      >>> train(TrainConfig("a2c", env="small", horizon=50)).curve.sampled[-1]  # doctest: +SKIP
    """
    horizons.check_horizons([request.horizon])
    check_minutes(request.max_minutes)
    check_seed(request.seed)
    check_sizes(environments=request.environments, rollout=request.rollout)
    saved = load(request.objective)
    how = horizons.setting([saved], make_environment(request.env))
    if request.environments:
        how = how._replace(life=replace(how.life, environments=request.environments))
    if request.rollout:
        how = how._replace(life=replace(how.life, rollout=request.rollout))
    stem = f"train-{saved.name}-{Path(request.env).stem}-{request.seed}"
    folder = Path(request.out or Path("runs") / stem)
    if (folder / "curve.csv").exists() and not request.overwrite:
        raise ConfigError(f"{folder} holds a curve already: --overwrite, or another --out")
    check_writable(folder)

    batch = how.life.environments * how.life.rollout
    report(
        f"{saved.name} in {request.env}: {request.horizon} updates of {batch:,} environment steps "
        f"({how.source})"
    )
    report("compiling ...")
    began, said = time.monotonic(), [time.monotonic()]

    def tell(n: int) -> bool:
        now = time.monotonic()
        if n == 0:
            report(f"compiled in {now - began:.1f} s")
        elif now - said[0] > 5:
            said[0] = now
            report(f"update {n} of {request.horizon}")
        return request.max_minutes is None or now - began < 60 * request.max_minutes

    curve, params, level = follow(saved, request.env, how, request.horizon, request.seed, tell)
    columns = (curve.updates, curve.updates * batch, curve.sampled, curve.greedy)
    table.write_numbers(
        folder / "curve.csv",
        ["update", "steps", "sampled", "greedy", *curve.metrics],
        zip(*(c.tolist() for c in (*columns, *curve.metrics.values())), strict=True),
    )
    panels: dict[str, Any] = {
        "return": {"sampled actions": curve.sampled, "greedy actions": curve.greedy}
    }
    if "entropy" in curve.metrics:
        panels["entropy of the policy (nats)"] = {saved.name: curve.metrics["entropy"]}
    figure = figures.life_curve(
        curve.updates,
        panels,
        title=f"{saved.name} in {request.env}, N = {request.horizon}, seed {request.seed}",
        steps_per_update=batch,
    )
    picture, _ = figures.save(figure, folder / "curve")
    if curve.updates[-1] < request.horizon:
        report(f"stopped after {curve.updates[-1]} of {request.horizon} updates (--max-minutes)")
    report(
        f"return {curve.sampled[0]:.3f} at birth, {curve.sampled[-1]:.3f} at the end "
        f"({curve.greedy[-1]:.3f} with greedy actions)"
    )
    report(f"curve: {folder / 'curve.csv'}, {picture}")
    return Trained(curve, params, folder, level)
