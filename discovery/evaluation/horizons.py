"""A sweep over objectives, levels, horizons and seeds, to a tidy table.

One agent for each (objective, level, horizon, seed); the same levels and the same random numbers
for every objective, so that rows compare in pairs. Lives of one horizon run together.
"""

from __future__ import annotations

import functools
import hashlib
import math
import re
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from discovery.config import (
    MINATAR_AGENT,
    MINATAR_LIFE,
    AgentConfig,
    Config,
    ConfigError,
    LifeConfig,
    RivalConfig,
    UpdateConfig,
    brax_agent,
    brax_life,
    check_minutes,
    check_sizes,
    from_dict,
)
from discovery.evaluation import table
from discovery.evaluation.false_clock import CLOCKS, HALF, FalseClock, Lied, length, told
from discovery.evaluation.table import TRUE, Row
from discovery.inner.build import (
    is_mirror,
    make_environment,
    make_hyper,
    make_world,
    static,
    with_optimizer,
)
from discovery.inner.cohort import Cohort, Lives, make_cohort
from discovery.inner.lifetime import POINTS, Measure, Outcome, Task, World
from discovery.report.folder import EVALUATION
from discovery.report.page import renew
from discovery.requests import EvaluateConfig
from discovery.runs.errors import Interrupted
from discovery.runs.folders import CONFIG, check_writable
from discovery.screen import say
from envs.base import Environment
from envs.levels import level_hash, level_set
from learned_objectives.base import Objective
from learned_objectives.handwritten import A2C, Random
from learned_objectives.library import Saved, load

if TYPE_CHECKING:
    from discovery.evaluation.clock_use import Study
else:  # it stands on this module
    Study = Any

ACTIONS = ("sampled", "greedy")
SAVE_SECONDS = 20.0
"""A sweep saves its table about this often."""
SHORT = 12
"""Hexadecimal digits of a digest that a table keeps."""
SHARPENING = 64
"""Validation levels on which a temperature is chosen, at most."""
CAPACITY = 256
"""Lives of one call, about."""
GROUP = 32
"""Lives computed together."""


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
    clock: int = 0
    """Longest life that can be told a false clock; 0: the program knows the true one only."""
    temperature: float = 1.0
    """Of the policies of its agents while they are scored."""


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
    # A backend of Brax is another task: a table says which.
    name = environment.spec.name if env.startswith("brax/") else env
    return Levels(name, chosen.levels, digest, low, high, chosen.redraws)


def default_agent(environment: Environment, objective: Objective | None = None) -> AgentConfig:
    """The published agent for this kind of environment and of objective.

    Tables: SGD 40 and 4, clip .5. Small planes: MLP 32, Adam 1e-3, clip .5. MinAtar: MLP 256-256,
    Adam 5e-4, clip 1. Others: MLP 64-64, Adam 5e-4, clip 1 (public code of the TA-LPG paper).
    Continuous actions: policy 4 x 32, value 5 x 256, swish, Adam 3e-4, observations scaled (LPO).

    Of mirror learning (PPO, DPO, LPO, TA-LPO), tables: Adam .05, 4 epochs of 4 minibatches. Brax:
    :func:`discovery.config.brax_agent`. Others: :data:`discovery.config.MINATAR_AGENT`, with
    observations and rewards scaled where actions are continuous.

    Args:
      environment: where it lives.
      objective: that it lives under; ``None`` for A2C or LPG.

    Returns:
      The agent.
    """
    spec = environment.spec
    if objective is not None and is_mirror(objective):
        return _mirror_agent(environment)
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
    if spec.num_actions is None:
        return AgentConfig(
            network="mlp",
            hidden=(32,) * 4,
            value_hidden=(256,) * 5,
            activation="swish",
            initialisation="lecun_uniform",
            normalise_observations=True,
            optimizer="adam",
            policy_rate=3e-4,
            prediction_rate=3e-4,
            clip=math.inf,
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


def _mirror_agent(environment: Environment) -> AgentConfig:
    """The agent of mirror learning."""
    spec = environment.spec
    if spec.num_states is not None:
        return AgentConfig(
            network="table",
            optimizer="adam",
            policy_rate=0.05,
            prediction_rate=0.05,
            update=UpdateConfig(epochs=4, minibatches=4),
        )
    if spec.num_actions is not None:
        return MINATAR_AGENT
    if spec.name.startswith("brax/"):
        return brax_agent(_brax_kind(environment))
    return replace(MINATAR_AGENT, normalise_observations=True, normalise_rewards=True)


def default_life(environment: Environment, objective: Objective) -> LifeConfig:
    """The published sizes of a life for this kind of environment and of objective.

    64 environments x 20 steps an update; for mirror learning x 128 unless agents are tables, and
    2,048 environments in Brax (:func:`discovery.config.brax_life`).
    """
    spec = environment.spec
    if not is_mirror(objective) or spec.num_states is not None:
        return LifeConfig()
    if spec.name.startswith("brax/"):
        return brax_life(_brax_kind(environment))
    return MINATAR_LIFE


def _brax_kind(environment: Environment) -> str:
    """``ant`` of ``brax/ant/spring``."""
    return environment.spec.name.removeprefix("brax/").partition("/")[0]


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
    clock: int = 0,
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
      clock: longest life that shall be told a false clock, see
        :func:`discovery.evaluation.false_clock.length`; 0 if none is.
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
    key: Any = FalseClock(objective) if clock else objective
    world, cohort = _cohort(key, env, static(agent), life, group, capacity)
    # A table must not take rows for these that were lived with other rates or sizes.
    text = repr((agent, life, numbers))
    if is_mirror(objective):
        text += repr(agent.update)
    how = hashlib.sha256(text.encode()).hexdigest()
    digest = f"{saved.digest[:SHORT]}-{how[:4]}"
    return Contestant(saved.name, digest, world, cohort, saved.theta, numbers, clock)


def score(
    who: Contestant,
    levels: PyTree,
    horizon: int,
    seed: int,
    points: int = 1,
    greedy: bool = True,
    clock: str = TRUE,
) -> Outcome:
    """Lives of one horizon, one on every level.

    Args:
      who: the objective.
      levels: leaves ``[count, ...]``.
      horizon: N.
      seed: of the agents; the random numbers of a life are a function of (seed, level) alone.
      points: 1 for the end of life only, more for the score along it.
      greedy: score greedy actions too.
      clock: what the objective is told of time; the random numbers do not depend on it.

    Returns:
      Outcomes, leaves ``[count, ...]`` as NumPy arrays.

    Raises:
      ValueError: this contestant cannot be told that clock for so long.
    """
    hyper = who.hyper
    if who.clock:
        hyper = Lied(hyper, told(clock, horizon, who.clock, seed))
    elif clock != TRUE:
        raise ValueError(f"{who.name} was entered with the true clock alone")
    count = jax.tree.leaves(levels)[0].shape[0]
    root = jax.random.fold_in(jax.random.key(zlib.crc32(b"evaluation")), seed)
    keys = jax.vmap(lambda i: jax.random.fold_in(root, i))(jnp.arange(count))
    measure = Measure(
        points=jnp.int32(points),
        modes=jnp.int32(2 if greedy else 1),
        temperature=jnp.float32(who.temperature),
    )
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
        outcome = who.cohort.run(who.source, hyper, lives, measure)
        pieces.append(jax.tree.map(np.asarray, outcome))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *pieces)


TEMPERATURES = (0.03, 0.1, 0.3, 0.5, 0.7, 1.0)
"""Of which a sharpened policy has the best on validation levels."""


def sharpen(who: Contestant, env: str, horizons: Sequence[int], count: int) -> Contestant:
    """The same objective, whose agents act by a sharper policy once they are trained.

    One temperature for all horizons: that of the highest mean return on validation levels, the mean
    over horizons; of equal ones the highest.

    Args:
      who: the objective.
      env: where its agents live; actions are discrete.
      horizons: N, in updates.
      count: validation levels.

    Returns:
      The contestant, under another name.

    Raises:
      ConfigError: actions are continuous.
    """
    if who.world.env.spec.num_actions is None:
        raise ConfigError(f"sharpen is for discrete actions, and {env} has continuous ones")
    levels = held_out(env, "validation", count).levels

    def worth(temperature: float) -> tuple[float, float]:
        at = who._replace(temperature=temperature)
        finals = [score(at, levels, n, 0, greedy=False).final[:, 0] for n in horizons]
        return float(np.nan_to_num(np.mean(finals), nan=-np.inf)), temperature

    _, best = max(map(worth, TEMPERATURES))
    name, digest = f"{who.name}, sharpened", f"{who.digest}-T{best:g}"
    return who._replace(name=name, digest=digest, temperature=best)


def sweep(
    contestants: Sequence[Contestant],
    levels: Levels,
    horizons: Sequence[int],
    life: LifeConfig,
    seeds: Iterable[int] = (0,),
    *,
    clocks: Sequence[str] = (TRUE,),
    points: int = 1,
    greedy: bool = True,
    times: bool = True,
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
      clocks: what the objectives are told of time, those that can be told lies.
      points: 1 for final scores, ``POINTS`` for the area as well.
      greedy: greedy actions too.
      times: keep wall times, the only column that is not the same whoever computes a row and in
        however many pieces.
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
    cells = [
        (who, n, clock, seed)
        for who in contestants
        for n, clock in lengths(horizons, _told(who, clocks))
        for seed in seeds
    ]
    total = float(sum(n * count * batch for _, n, _, _ in cells))
    done = 0.0
    rows: list[Row] = []
    try:
        for who, horizon, clock, seed in cells:
            if until is not None and time.monotonic() > until:
                break
            if report:
                lie = "" if clock == TRUE else f", clock {clock}"
                report(Progress(f"{who.name}, N = {horizon}{lie}", done, total))
            name, digest, steps = who.name, who.digest, horizon * batch
            wanted = [
                (name, digest, levels.env, levels.hash, i, horizon, steps, seed, mode, clock)
                for i in range(count)
                for mode in modes
            ]
            found = [known[key] for key in wanted if key in known]
            done += steps * count
            if len(found) == len(wanted) and all(points == 1 or r.area is not None for r in found):
                rows += found
                continue
            start = time.perf_counter()
            outcome = score(who, levels.levels, horizon, seed, points, greedy, clock)
            seconds = round(time.perf_counter() - start, 3) if times else None
            fresh = _rows(who, levels, horizon, clock, seed, life, outcome, modes, points, seconds)
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


def lengths(horizons: Iterable[int], clocks: Iterable[str]) -> list[tuple[int, str]]:
    """Lengths of lives with what each is told: ``half`` goes with a true life of its length.

    Args:
      horizons: N, in updates.
      clocks: what the objectives are told.

    Returns:
      Lengths ascending, the clocks of each in their order.

    Example:
      >>> lengths([5], ["true", "half"])
      [(2, 'true'), (2, 'half'), (5, 'true')]
    """
    clocks = list(clocks)
    wanted = {(n, clock) for n in horizons for clock in clocks if clock != HALF}
    if HALF in clocks:
        wanted |= {(n // 2, clock) for n in horizons if n > 1 for clock in (TRUE, HALF)}
    return sorted(wanted, key=lambda life: (life[0], [TRUE, *clocks].index(life[1])))


def _told(who: Contestant, clocks: Sequence[str]) -> Sequence[str]:
    """The clocks that a contestant can be told."""
    return clocks if who.clock else (TRUE,)


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(getattr(row, name) for name in table.KEY)


def _rows(
    who: Contestant,
    levels: Levels,
    horizon: int,
    clock: str,
    seed: int,
    life: LifeConfig,
    outcome: Outcome,
    modes: Sequence[str],
    points: int,
    seconds: float | None,
) -> list[Row]:
    """A cell as rows."""
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
                    clock=clock,
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
    others: Mapping[type, AgentConfig] = {}
    """Agents of the objectives, by class, that would not learn as ``agent`` does."""


def setting(chosen: Sequence[Saved], environment: Environment) -> Setting:
    """How agents live in a comparison: as under the first objective whose card tells.

    Sizes of a life are the same for all: at equal horizons all see as many steps. Where that
    objective's agents cannot live in this environment (a table needs a state index), they are the
    published ones for its kind. An objective of another kind (one gradient step a rollout, or the
    epochs of mirror learning) has an agent of its own: as its card tells, else the published one.

    Args:
      chosen: the objectives, at least one.
      environment: where they are compared.

    Returns:
      The setting.
    """
    told = [saved for saved in chosen if saved.card.get("config")]
    first = (told or chosen)[0]
    config = _config(first) if told else None
    fits = config is not None and _fits(config, environment)
    mirror = is_mirror(first.objective)
    others: dict[type, AgentConfig] = {}
    for saved in (*told, *chosen):
        # A rival with rates for the first one's agents lives as they do, and so may who never
        # learns.
        at_home = isinstance(saved.objective, Random) or (
            isinstance(saved.objective, A2C) and (fits or not mirror)
        )
        if is_mirror(saved.objective) != mirror and not at_home:
            others.setdefault(type(saved.objective), _own_agent(saved, environment))
    agent = _own_agent(first, environment)
    if config is None:
        lives = [default_life(environment, saved.objective) for saved in chosen]
        life = max(lives, key=lambda life: life.environments * life.rollout)
        return Setting(agent, life, _published_rates(environment), "the published sizes", others)
    life, rival = config.life, config.rival
    if not fits:
        rival = _published_rates(environment)
        life = default_life(environment, first.objective) if mirror else life
    return Setting(agent, life, rival, f"as {first.name} was trained", others)


def _published_rates(environment: Environment) -> RivalConfig:
    """A2C's, for the published agent."""
    agent = default_agent(environment)
    return RivalConfig(agent.policy_rate, agent.prediction_rate)


def _config(saved: Saved) -> Config:
    return from_dict(saved.card["config"], source=f"card of {saved.name}")


def _own_agent(saved: Saved, environment: Environment) -> AgentConfig:
    """The agent that an objective was found with, if it could live here; else the published one."""
    if saved.card.get("config") and _fits(config := _config(saved), environment):
        return config.agent
    return default_agent(environment, saved.objective)


def _fits(config: Config, environment: Environment) -> bool:
    """Whether the agents of a search could live in an environment of another kind."""
    spec, network = environment.spec, config.agent.network
    if (network == "table") != (spec.num_states is not None):
        return False
    if network == "cnn" and len(spec.observation_shape) != 3:
        return False
    brax = config.env.startswith("brax/")
    if spec.num_actions is None:
        return brax == spec.name.startswith("brax/") and (brax or config.env == spec.name)
    return not brax


def enter(
    saved: Saved,
    env: str,
    how: Setting,
    group: int = GROUP,
    capacity: int = CAPACITY,
    clock: int = 0,
) -> Contestant:
    """An objective in a comparison; the hand-written rival brings its own rates.

    Args:
      saved: the objective with its parameters.
      env: name of an environment.
      how: how its agents live.
      group: lives computed together.
      capacity: lives of one call.
      clock: longest life that shall be told a false clock; 0 if none is.

    Returns:
      The contestant.

    Raises:
      ConfigError: the objective and the environment do not go together.
    """
    rates = (
        {"policy_rate": how.rival.a2c_policy_rate, "value_rate": how.rival.a2c_value_rate}
        if isinstance(saved.objective, A2C)
        else {}
    )
    agent = how.others.get(type(saved.objective), how.agent)
    return contestant(saved, env, agent, how.life, group, capacity, clock, **rates)


def evaluate(request: EvaluateConfig, report: Callable[[str], None] = say) -> list[Row]:
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
    if request.nulls and not request.false_clocks:
        raise ConfigError("--nulls goes with --false-clocks")
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
    chosen = named_apart([load(name) for name in (*request.objectives, *request.nulls)])
    # Whatever does not go together is told before anything is lived.
    plans = [_plan(request, env, chosen, report) for env in request.envs or (request.env,)]
    minutes = request.max_minutes
    until = None if minutes is None else time.monotonic() + 60 * minutes
    found: list[Row] = []
    asked = 0
    try:
        for plan in plans:
            rows = _lived(request, plan, out, report, until)
            asked += _asked(request, plan)
            if rows:
                _report_scores(request, chosen, rows, report)
            found += rows
        if len(found) < asked:
            done = f"{len(found):,} of {asked:,} rows"
            report(f"stopped after {done}; the same command goes on from here")
        report(f"table: {out}")
        if request.profiles:
            _draw_profiles(out, chosen, found, report)
        told = [plan for plan in plans if plan.study.told]
        for plan in told:
            mine = [row for row in found if row.environment == plan.levels.env]
            _report_clocks(request, plan, mine, report, until, apart=len(told) > 1)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; {out} has what is done, the same command goes on") from None
    if out.name == EVALUATION and (out.parent / CONFIG).is_file():
        renew(out.parent, report)
    return found


class Plan(NamedTuple):
    """What is asked for in one environment."""

    env: str
    how: Setting
    study: Study
    contestants: list[Contestant]
    levels: Levels


def _plan(
    request: EvaluateConfig, env: str, chosen: list[Saved], report: Callable[[str], None]
) -> Plan:
    """Who lives in an environment, how and where."""
    how = setting(chosen, make_environment(env))
    life = replace(
        how.life,
        environments=request.environments or how.life.environments,
        rollout=request.rollout or how.life.rollout,
    )
    how = how._replace(life=life)
    study = _study(request, env, chosen, how, report)
    clock = length(max(request.horizons))
    capacity = request.group * max(1, CAPACITY // request.group)
    contestants = [
        enter(saved, env, how, request.group, capacity, clock * (saved.name in study.told))
        for saved in study.saved
    ]
    report(
        f"{env}: agents of {how.life.environments} environments x {how.life.rollout} steps an "
        f"update ({how.source}), {how.life.evaluation_environments} episodes a score"
    )
    for who in contestants[: len(request.objectives)] if request.sharpen else ():
        count = min(request.levels, SHARPENING)
        contestants.append(sharpen(who, env, request.horizons, count))
        report(f"{contestants[-1].name}: temperature {contestants[-1].temperature:g}")
    levels = held_out(env, request.stream, request.levels)
    report(
        f"{request.levels} {request.stream} levels of {env} ({levels.hash}), "
        f"{levels.redraws} passed over"
    )
    if request.reference:
        from discovery.evaluation import references

        out = _table_path(request)
        path = out.with_name(f"{out.stem}-references.csv")
        longest = max(request.horizons)
        levels = references.on_scale(levels, env, how.life, longest, path, report)
    return Plan(env, how, study, contestants, levels)


def _lived(
    request: EvaluateConfig,
    plan: Plan,
    out: Path,
    report: Callable[[str], None],
    until: float | None,
) -> list[Row]:
    """The rows of one environment."""

    def tell(line: str) -> None:
        report(f"{plan.env}: {line}" if request.envs else line)

    return sweep(
        plan.contestants,
        plan.levels,
        request.horizons,
        plan.how.life,
        range(request.seeds),
        clocks=CLOCKS,
        points=POINTS if request.area else 1,
        greedy=request.actions != "sampled",
        times=request.times,
        out=out,
        report=narrator(tell),
        until=until,
    )


def _asked(request: EvaluateConfig, plan: Plan) -> int:
    """Rows that are asked for in one environment."""
    modes = 2 if request.actions != "sampled" else 1
    cells = sum(len(lengths(request.horizons, _told(who, CLOCKS))) for who in plan.contestants)
    return cells * request.seeds * request.levels * modes


def _study(
    request: EvaluateConfig,
    env: str,
    chosen: list[Saved],
    how: Setting,
    report: Callable[[str], None],
) -> Study:
    """Who is lied to about time, and beside whom."""
    from discovery.evaluation import clock_use

    if not request.false_clocks:
        return clock_use.Study(chosen, {}, {}, frozenset())
    count = len(request.objectives)
    study = clock_use.study(chosen[:count], chosen[count:], env, how)
    if blind := [saved.name for saved in chosen if saved.name not in study.told]:
        report(f"no false clocks for {', '.join(blind)}: an update there reads no clock")
    return study


def _report_scores(
    request: EvaluateConfig,
    chosen: Sequence[Saved],
    rows: Sequence[Row],
    report: Callable[[str], None],
) -> None:
    """A table of what was asked for, under the true clock."""
    names = {saved.name for saved in chosen}
    names |= {f"{name}, sharpened" for name in names}
    wanted = [
        row
        for row in rows
        if row.objective in names
        and row.horizon in request.horizons
        and row.clock == TRUE
        and request.actions in ("both", row.actions)
    ]
    if not wanted:
        return
    report(table.render(table.summary(wanted)))  # type: ignore[arg-type]
    if standings := table.standings(wanted):
        report(table.render_standings(standings))  # type: ignore[arg-type]


def _draw_profiles(
    out: Path, chosen: Sequence[Saved], rows: Sequence[Row], report: Callable[[str], None]
) -> None:
    """Performance profiles of every environment and horizon, beside the table."""
    from discovery.evaluation import figures, figures_profiles

    names = {saved.name for saved in chosen}
    mine = [row for row in rows if row.objective in names and row.clock == TRUE]
    for (env, actions), panels in table.profiles(mine).items():
        name = re.sub(r"[^A-Za-z0-9_.]+", "-", f"{out.stem}-profile-{env}-{actions}")
        figure = figures_profiles.profiles(panels, title=f"{env}, {actions} actions")
        report(f"picture: {figures.save(figure, out.with_name(name))[0]}")


def _report_clocks(
    request: EvaluateConfig,
    plan: Plan,
    rows: Sequence[Row],
    report: Callable[[str], None],
    until: float | None,
    apart: bool,
) -> None:
    """What was lost under false clocks and how far words follow the clock, beside the table."""
    from discovery.evaluation import clock_use

    out = _table_path(request)
    actions = "greedy" if request.actions == "greedy" else "sampled"
    count = min(request.levels, clock_use.LEVELS)
    uses = clock_use.conclude(
        plan.study,
        [row for row in rows if row.actions == actions],
        plan.env,
        plan.how,
        held_out(plan.env, "validation", count).levels,
        request.horizons,
        0,
        report,
        until,
    )
    if not uses:
        return
    # A table of uses names no environment.
    where = f"-{re.sub(r'[^A-Za-z0-9_.]+', '-', plan.env)}" if apart else ""
    path = out.with_name(f"{out.stem}-clock{where}.csv")
    table.write_clock_uses(path, uses)
    report(f"table: {path}")


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


def named_apart(chosen: Sequence[Saved]) -> list[Saved]:
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
    return first / EVALUATION if first.is_dir() else Path(EVALUATION)


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
    "default_life",
    "enter",
    "evaluate",
    "held_out",
    "narrator",
    "score",
    "setting",
    "sweep",
]
