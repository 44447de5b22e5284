"""A sweep over objectives, levels, horizons and seeds, to a tidy table.

One agent for each (objective, level, horizon, seed); the same levels and the same random numbers
for every objective, so that rows compare in pairs. Lives of one horizon run together.
"""

from __future__ import annotations

import functools
import hashlib
import math
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from discovery.config import (
    AgentConfig,
    ConfigError,
    LifeConfig,
    RivalConfig,
    check_minutes,
    check_sizes,
    from_dict,
)
from discovery.evaluation import table
from discovery.evaluation.table import Row
from discovery.inner.build import (
    make_environment,
    make_hyper,
    make_world,
    static,
    with_optimizer,
)
from discovery.inner.cohort import Cohort, Lives, make_cohort
from discovery.inner.lifetime import POINTS, Measure, Outcome, Task, World
from discovery.requests import EvaluateConfig
from discovery.runs.errors import Interrupted
from discovery.runs.folders import check_writable
from envs.base import Environment
from envs.levels import level_hash, level_set
from learned_objectives.base import Objective
from learned_objectives.handwritten import A2C
from learned_objectives.library import Saved, load

ACTIONS = ("sampled", "greedy")
SAVE_SECONDS = 20.0
"""A sweep saves its table about this often."""
SHORT = 12
"""Hexadecimal digits of a digest that a table keeps."""
CAPACITY = 256
"""Lives of one call, about."""


class Contestant(NamedTuple):
    """An objective ready to be lived under."""

    name: str
    digest: str
    """Of theta, then of the agent, the sizes and the rates that it is lived with."""
    world: World
    cohort: Cohort
    source: PyTree
    """What the cohort's program reads: here one theta."""
    hyper: Any


class Levels(NamedTuple):
    """The levels of a comparison."""

    env: str
    levels: PyTree
    """Leaves ``[count, ...]``."""
    hash: str
    random: np.ndarray | None
    """``R_rand`` of each, where known."""
    optimal: np.ndarray | None
    """``R_opt`` of each, where known."""
    redraws: int
    """Levels passed over because nothing can be told on them."""


class Progress(NamedTuple):
    """How far a sweep is, in environment steps of training."""

    line: str
    done: float
    total: float


def held_out(env: str, stream: str, count: int) -> Levels:
    """The first levels of a named stream, with their exact bounds where there are any.

    Args:
      env: name of an environment.
      stream: ``train``, ``validation`` or ``test``.
      count: number of levels.

    Returns:
      The levels.
    """
    environment = make_environment(env)
    chosen = level_set(environment, stream, count)
    bounds = chosen.bounds
    if bounds is None and environment.bounds is not None:
        bounds = jax.jit(jax.vmap(environment.bounds))(chosen.levels)
    low, high = (None, None) if bounds is None else (np.asarray(b, float) for b in bounds)
    digest = level_hash(chosen.levels)[:SHORT]
    return Levels(env, chosen.levels, digest, low, high, chosen.redraws)


def default_agent(environment: Environment) -> AgentConfig:
    """The published agent for this kind of environment.

    Tables: SGD 40 and 4, clip .5. Small planes: MLP 32, Adam 1e-3, clip .5. MinAtar: MLP 256-256,
    Adam 5e-4, clip 1. Others: MLP 64-64, Adam 5e-4, clip 1 (public code of the TA-LPG paper).
    """
    spec = environment.spec
    if spec.num_states is not None:
        return AgentConfig(
            network="table",
            hidden=(),
            optimizer="sgd",
            policy_rate=40.0,
            prediction_rate=4.0,
            clip=0.5,
            prediction_weight=0.5,
        )
    hidden: tuple[int, ...] = (64, 64)
    rate, clip = 5e-4, 1.0
    if spec.name.startswith("rand_"):
        hidden, rate, clip = (32,), 1e-3, 0.5
    elif spec.name.endswith("-MinAtar"):
        hidden = (256, 256)
    return AgentConfig(
        network="mlp",
        hidden=hidden,
        optimizer="adam",
        policy_rate=rate,
        prediction_rate=rate,
        clip=clip,
        prediction_weight=0.5,
    )


@functools.lru_cache(maxsize=32)
def _cohort(
    objective: Objective,
    env: str,
    agent: AgentConfig,
    life: LifeConfig,
    group: int,
    capacity: int,
) -> tuple[World, Cohort]:
    """One program for every theta of a rule in an environment."""
    world = make_world(objective, env, agent, life)
    return world, make_cohort(world, lambda theta, pair, sign: theta, group, capacity)


def contestant(
    saved: Saved,
    env: str,
    agent: AgentConfig,
    life: LifeConfig,
    group: int = 16,
    capacity: int = 256,
    **hyper: float,
) -> Contestant:
    """An objective from disk or from the library, in an environment.

    Args:
      saved: the objective with its parameters.
      env: name of an environment.
      agent: who lives under it.
      life: at which sizes.
      group: lives computed together.
      capacity: lives of one call.
      **hyper: numbers of the agent's update that differ from the agent's own.

    Returns:
      The contestant.

    Raises:
      ConfigError: the objective and the environment do not go together.
    """
    objective = with_optimizer(saved.objective, agent)
    numbers = make_hyper(objective, agent)
    if hyper:
        numbers = objective.hyper(**{**numbers._asdict(), **hyper})
    # The agent's rates are data: two agents that differ in them alone share a program.
    key: Any = objective
    world, cohort = _cohort(key, env, static(agent), life, group, capacity)
    # A table must not take rows for these that were lived with other rates or sizes.
    how = hashlib.sha256(repr((agent, life, numbers)).encode()).hexdigest()
    digest = f"{saved.digest[:SHORT]}-{how[:4]}"
    return Contestant(saved.name, digest, world, cohort, saved.theta, numbers)


def score(
    who: Contestant,
    levels: PyTree,
    horizon: int,
    seed: int,
    points: int = 1,
    greedy: bool = True,
) -> Outcome:
    """Lives of one horizon, one on every level.

    Args:
      who: the objective.
      levels: leaves ``[count, ...]``.
      horizon: N.
      seed: of the agents; the random numbers of a life are a function of (seed, level) alone.
      points: 1 for the end of life only, more for the score along it.
      greedy: score greedy actions too.

    Returns:
      Outcomes, leaves ``[count, ...]`` as NumPy arrays.
    """
    count = jax.tree.leaves(levels)[0].shape[0]
    root = jax.random.fold_in(jax.random.key(zlib.crc32(b"evaluation")), seed)
    keys = jax.vmap(lambda i: jax.random.fold_in(root, i))(jnp.arange(count))
    measure = Measure(points=jnp.int32(points), modes=jnp.int32(2 if greedy else 1))
    pieces = []
    for start in range(0, count, who.cohort.capacity):
        part = slice(start, min(start + who.cohort.capacity, count))
        size = part.stop - part.start
        lives = Lives(
            id=jnp.zeros(size, jnp.int32),
            sign=jnp.zeros(size, jnp.float32),
            task=Task(
                jax.tree.map(lambda leaf, part=part: leaf[part], levels),
                jnp.full(size, horizon, jnp.int32),
            ),
            key=keys[part],
        )
        outcome = who.cohort.run(who.source, who.hyper, lives, measure)
        pieces.append(jax.tree.map(np.asarray, outcome))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *pieces)


def sweep(
    contestants: Sequence[Contestant],
    levels: Levels,
    horizons: Sequence[int],
    life: LifeConfig,
    seeds: Iterable[int] = (0,),
    *,
    points: int = 1,
    greedy: bool = True,
    out: Path | None = None,
    report: Callable[[Progress], None] | None = None,
    until: float | None = None,
) -> list[Row]:
    """Every objective on every level at every horizon; rows already in ``out`` are not run again.

    Args:
      contestants: objectives of one environment, at one size of life.
      levels: where they live.
      horizons: N, in updates.
      life: sizes of a life, for the table's environment steps.
      seeds: of the agents.
      points: 1 for final scores, ``POINTS`` for the area as well.
      greedy: greedy actions too.
      out: table that grows cell by cell, and is taken up where it stopped.
      report: called before each cell and at the end.
      until: stop before the first cell that would begin after this time (``time.monotonic``).

    Returns:
      All rows asked for (until then), those found in the table included.
    """
    seeds = list(seeds)
    count = jax.tree.leaves(levels.levels)[0].shape[0]
    modes = ACTIONS if greedy else ACTIONS[:1]
    batch = life.environments * life.rollout
    known: dict[tuple[Any, ...], Row] = {}
    if out and out.exists():
        known = {_key(row): row for row in table.read(out, strict=True)}
    written = time.monotonic()
    cells = [(c, n, s) for c in contestants for n in sorted(set(horizons)) for s in seeds]
    total = float(sum(n * count * batch for _, n, _ in cells))
    done = 0.0
    rows: list[Row] = []
    try:
        for who, horizon, seed in cells:
            if until is not None and time.monotonic() > until:
                break
            if report:
                report(Progress(f"{who.name}, N = {horizon}", done, total))
            name, digest, steps = who.name, who.digest, horizon * batch
            wanted = [
                (name, digest, levels.env, levels.hash, i, horizon, steps, seed, mode)
                for i in range(count)
                for mode in modes
            ]
            found = [known[key] for key in wanted if key in known]
            done += steps * count
            if len(found) == len(wanted) and all(points == 1 or r.area is not None for r in found):
                rows += found
                continue
            start = time.perf_counter()
            outcome = score(who, levels.levels, horizon, seed, points, greedy)
            fresh = _rows(who, levels, horizon, seed, life, outcome, modes, points, start)
            rows += fresh
            known |= {_key(row): row for row in fresh}
            # Writing a large table takes a second: not after every short cell.
            if out and time.monotonic() - written > SAVE_SECONDS:
                table.write(out, known.values())
                written = time.monotonic()
    finally:  # stopped by Ctrl-C too
        if out:
            table.write(out, known.values())
    if report:
        report(Progress("done", total, total))
    return rows


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(getattr(row, name) for name in table.KEY)


def _rows(
    who: Contestant,
    levels: Levels,
    horizon: int,
    seed: int,
    life: LifeConfig,
    outcome: Outcome,
    modes: Sequence[str],
    points: int,
    start: float,
) -> list[Row]:
    """A cell as rows."""
    seconds = round(time.perf_counter() - start, 3)
    count = outcome.finite.shape[0]
    rows = []
    for i in range(count):
        low = None if levels.random is None else float(levels.random[i])
        high = None if levels.optimal is None else float(levels.optimal[i])
        for mode, actions in enumerate(modes):
            value = float(outcome.final[i, mode])
            rows.append(
                Row(
                    objective=who.name,
                    digest=who.digest,
                    environment=levels.env,
                    level_hash=levels.hash,
                    level=i,
                    horizon=horizon,
                    steps=horizon * life.environments * life.rollout,
                    seed=seed,
                    actions=actions,
                    score=value,
                    normalised=table.normalise(value, low, high),
                    random=low,
                    optimal=high,
                    area=None if points == 1 else float(outcome.area[i, mode]),
                    episodes=life.evaluation_environments,
                    finite=bool(outcome.finite[i]),
                    wall_seconds=seconds,
                    versions=versions(),
                )
            )
    return rows


@functools.cache
def versions() -> str:
    """What computed a row, in a few characters."""
    from importlib.metadata import version

    return f"kairos-rl {version('kairos-rl')}, jax {jax.__version__}, {jax.default_backend()}"


class Setting(NamedTuple):
    """Agent, sizes of a life and rival of a comparison."""

    agent: AgentConfig
    life: LifeConfig
    rival: RivalConfig
    source: str
    """Where they come from."""


def setting(chosen: Sequence[Saved], environment: Environment) -> Setting:
    """How agents live in a comparison: as under the first objective whose card tells.

    Where that objective's agents cannot live in this environment (a table needs a state index),
    agents are the published ones for its kind.
    """
    fallback = default_agent(environment)
    rates = RivalConfig(fallback.policy_rate, fallback.prediction_rate)
    for saved in chosen:
        configuration = saved.card.get("config")
        if configuration:
            config = from_dict(configuration, source=f"card of {saved.name}")
            fits = config.agent.network == fallback.network
            agent, rival = (config.agent, config.rival) if fits else (fallback, rates)
            return Setting(agent, config.life, rival, f"as {saved.name} was trained")
    return Setting(fallback, LifeConfig(), rates, "the published sizes")


def enter(
    saved: Saved, env: str, how: Setting, group: int = 32, capacity: int = CAPACITY
) -> Contestant:
    """An objective in a comparison; the hand-written rival brings its own rates.

    Raises:
      ConfigError: the objective and the environment do not go together.
    """
    rates = (
        {"policy_rate": how.rival.a2c_policy_rate, "value_rate": how.rival.a2c_value_rate}
        if isinstance(saved.objective, A2C)
        else {}
    )
    return contestant(saved, env, how.agent, how.life, group, capacity, **rates)


def evaluate(request: EvaluateConfig, report: Callable[[str], None] = print) -> list[Row]:
    """Objectives at several horizons, on fixed held-out levels, to a tidy table.

    Args:
      request: what to compare; see its fields.
      report: told what happens, a line at a time.

    Returns:
      The rows, which are also in the table that ``request.out`` names.

    Raises:
      ConfigError: the parts do not go together; nothing was started.
      Interrupted: Ctrl-C; the table has what is done.

    Example:
      >>> from discovery.requests import EvaluateConfig
      >>> evaluate(EvaluateConfig(("a2c", "random"), levels=8))  # doctest: +SKIP
    """
    check_horizons(request.horizons)
    check_minutes(request.max_minutes)
    check_sizes(
        seeds=request.seeds,
        levels=request.levels,
        environments=request.environments,
        rollout=request.rollout,
        group=request.group,
    )
    out = _table_path(request)
    table.check_path(out)
    check_writable(out.parent)
    chosen = [load(name) for name in request.objectives]
    environment = make_environment(request.env)
    how = setting(chosen, environment)
    life = replace(
        how.life,
        environments=request.environments or how.life.environments,
        rollout=request.rollout or how.life.rollout,
    )
    how = how._replace(life=life)
    capacity = request.group * max(1, CAPACITY // request.group)
    contestants = [
        enter(saved, request.env, how, request.group, capacity) for saved in _named_apart(chosen)
    ]
    report(
        f"agents of {how.life.environments} environments x {how.life.rollout} steps an update "
        f"({how.source}), {how.life.evaluation_environments} episodes a score"
    )
    levels = held_out(request.env, request.stream, request.levels)
    report(
        f"{request.levels} {request.stream} levels of {request.env} ({levels.hash}), "
        f"{levels.redraws} passed over"
    )
    minutes = request.max_minutes
    try:
        rows = sweep(
            contestants,
            levels,
            request.horizons,
            how.life,
            range(request.seeds),
            points=POINTS if request.area else 1,
            greedy=request.actions != "sampled",
            out=out,
            report=narrator(report),
            until=None if minutes is None else time.monotonic() + 60 * minutes,
        )
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; {out} has what is done, the same command goes on") from None
    wanted = [r for r in rows if request.actions in ("both", r.actions)]
    if wanted:
        report(table.render(table.summary(wanted)))  # type: ignore[arg-type]
    modes = 2 if request.actions != "sampled" else 1
    asked = len(contestants) * len(set(request.horizons)) * request.seeds * request.levels * modes
    if len(rows) < asked:
        report(f"stopped after {len(rows):,} of {asked:,} rows; the same command goes on from here")
    report(f"table: {out}")
    return rows


def narrator(report: Callable[[str], None], every: float = 5.0) -> Callable[[Progress], None]:
    """A sweep's progress as lines, every few seconds, with the time that is left."""
    began = time.monotonic()
    said = [-math.inf]

    def tell(progress: Progress) -> None:
        now = time.monotonic()
        if progress.total <= 0 or now - said[0] < every:
            return
        said[0] = now
        share = progress.done / progress.total
        left = f", about {(now - began) * (1 / share - 1):.0f} s left" if share > 0.02 else ""
        report(f"{progress.line}: {100 * share:.0f} % of the environment steps{left}")

    return tell


def _named_apart(chosen: Sequence[Saved]) -> list[Saved]:
    """Two objectives of one name in a comparison are told apart by number."""
    seen: dict[str, int] = {}
    named = []
    for saved in chosen:
        seen[saved.name] = seen.get(saved.name, 0) + 1
        count = seen[saved.name]
        named.append(saved if count == 1 else saved._replace(name=f"{saved.name} ({count})"))
    return named


def _table_path(request: EvaluateConfig) -> Path:
    if request.out:
        return Path(request.out)
    first = Path(request.objectives[0])
    return first / "evaluation.csv" if first.is_dir() else Path("evaluation.csv")


def check_horizons(horizons: Sequence[int]) -> None:
    """Refuse an empty list and horizons below 1.

    Raises:
      ConfigError: with the offending number.
    """
    if not horizons:
        raise ConfigError("no horizons given: try --horizons 10 50 250")
    for n in horizons:
        check_sizes(horizon=n)


__all__ = [
    "POINTS",
    "Contestant",
    "Levels",
    "Progress",
    "Setting",
    "contestant",
    "default_agent",
    "enter",
    "evaluate",
    "held_out",
    "narrator",
    "score",
    "setting",
    "sweep",
]
