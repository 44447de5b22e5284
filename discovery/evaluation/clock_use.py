"""Does an objective use its clock: what it loses under a false one, and how far its words follow.

Three measures, from the strongest: the score that is *lost* when the same theta lives on the same
levels with the same random numbers and is lied to about time (what was learned depends on the
clock), the *sensitivity* of its words when only the clock is moved (its words depend on it), and
both less those of a null that learned nothing (random weights follow a clock too).

Shape legend: ``H`` horizons, ``L`` levels, ``K`` ages of a life, ``U`` times told, ``T`` steps,
``B`` environments, ``D`` numbers of a word (1, or Y classes), ``S`` search seeds, ``A`` agents,
``R`` resamples, ``M = 3 + D`` moments of a cell.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from discovery.config import ConfigError
from discovery.evaluation import horizons as sweeps
from discovery.evaluation import statistics, table
from discovery.evaluation.false_clock import CLOCKS, HALF, length
from discovery.evaluation.horizons import Levels, Progress, Setting
from discovery.evaluation.slopes import AGES, TENTHS
from discovery.evaluation.table import TRUE, ClockUse, Row, TableError, Value
from discovery.inner.lifetime import Life, Task, World, birth, grow
from learned_objectives.base import Objective, Time
from learned_objectives.clock import BASE_STEPS
from learned_objectives.library import Saved

SHARES = TENTHS
HORIZONS = (10, 25, 50, 100, 250)
"""Horizons that are told, one after another, of one experience."""
LEVELS = 64
"""Validation levels on which the command measures sensitivities, at most."""
GROUP = 16
"""Lives recorded together."""
MEASURES = ("S_pi_fraction", "S_pi_horizon", "S_y_fraction", "S_y_horizon")
"""Sensitivities of the two words to the share of life and to the horizon that are told."""
_MOMENTS_RESAMPLES = 2_000


# --- what is lost under a false clock ---------------------------------------------------------


def losses(
    saved: Saved,
    env: str,
    how: Setting,
    levels: Levels,
    horizons: Sequence[int],
    seeds: Iterable[int] = (0,),
    clocks: Sequence[str] = CLOCKS,
    *,
    greedy: bool = False,
    out: Path | None = None,
    report: Callable[[Progress], None] | None = None,
    until: float | None = None,
    group: int = sweeps.GROUP,
) -> list[Row]:
    """Scores of one objective under the true clock and under false ones, in one program.

    Args:
      saved: the objective.
      env: name of an environment.
      how: how its agents live.
      levels: where.
      horizons: N, in updates.
      seeds: of the agents.
      clocks: what the objective is told, of :data:`CLOCKS`; the truth is always among them.
      greedy: score greedy actions too.
      out: table that grows cell by cell, and is taken up where it stopped.
      report: called before each cell and at the end.
      until: stop before the first cell that would begin after this time (``time.monotonic``).
      group: lives computed together.

    Returns:
      Rows, for :func:`summarise`. Those of the clock ``half`` lived ``N // 2`` updates, and stand
      beside rows of the true clock that lived as long.

    Raises:
      ConfigError: the objective and the environment do not go together.
    """
    capacity = group * max(1, sweeps.CAPACITY // group)
    who = sweeps.enter(saved, env, how, group, capacity, length(max(horizons)))
    return sweeps.sweep(
        [who],
        levels,
        horizons,
        how.life,
        seeds,
        clocks=list(dict.fromkeys((TRUE, *clocks))),
        greedy=greedy,
        out=out,
        report=report,
        until=until,
    )


def reads_clock(world: World, theta: PyTree, hyper: Any) -> bool:
    """Whether an update reads where it stands in its life.

    One update is traced and none is run; the time is read if anything is computed from it, even
    if that is then multiplied by a clock gate of zero.

    Args:
      world: who lives where.
      theta: the objective's parameters.
      hyper: numbers of an agent's update.

    Returns:
      ``False`` if no clock could make a difference.
    """
    key, n, N, unit = jax.eval_shape(
        lambda: (jax.random.key(0), jnp.int32(0), jnp.int32(1), jnp.float32(1))
    )
    task = Task(jax.eval_shape(world.env.sample_level, key), N)
    life = jax.eval_shape(lambda *a: birth(world, theta, hyper, *a), task, key)
    experience = jax.eval_shape(lambda *a: grow(world, theta, hyper, *a)[1], task, life)

    def update(time: Time, learner: Any, experience: Any, key: Any) -> Any:
        objective = world.objective
        return objective.update(theta, hyper, world.network, learner, experience, time, key)

    traced = jax.make_jaxpr(update)(Time(n, N, unit), life.learner, experience, key).jaxpr
    read = [v for line in traced.eqns for v in line.invars] + list(traced.outvars)
    return any(v is told for v in read for told in traced.invars[: len(Time._fields)])


# --- how far its words follow the clock -------------------------------------------------------


class Sensitivity(NamedTuple):
    """Moments of an objective's words when only its clock is moved, ``[H, L, K, M]``.

    A cell is one level at one age of a life of one horizon. Its moments over steps and
    environments: its weight (0 if it is not finite, or there already), how far words follow the
    clock, how far they differ between experiences, and the mean word, ``[D]``.
    """

    horizons: tuple[int, ...]
    """N of the recorded lives."""
    pi_fraction: Float[np.ndarray, "H L K M"]
    """Of ``pi_hat``, when the share of life is moved."""
    pi_horizon: Float[np.ndarray, "H L K M"]
    """Of ``pi_hat``, when the horizon is."""
    y_fraction: Float[np.ndarray, "H L K W"]
    """Of ``y_hat``, when the share of life is; weights are 0 where an objective says none."""
    y_horizon: Float[np.ndarray, "H L K W"]

    def values(self) -> dict[str, Float[np.ndarray, " H"]]:
        """The sensitivities by name, of all levels and ages at each horizon."""
        return {
            measure: np.array(
                [_ratio(measure)(cells[None, None])[0] for cells in self.cells(measure)]
            )
            for measure in MEASURES
        }

    def cells(self, measure: str) -> Float[np.ndarray, "H L M"]:
        """Moments of a measure, with the ages of a level taken together."""
        found: np.ndarray = getattr(self, measure.removeprefix("S_"))
        return _together(found, _apart(measure))


def sensitivity(
    world: World,
    theta: PyTree,
    hyper: Any,
    levels: PyTree,
    horizons: Sequence[int],
    seed: int,
    *,
    shares: Sequence[float] | np.ndarray = SHARES,
    told: Sequence[int] = HORIZONS,
) -> Sensitivity:
    r"""Record lives under the true clock, and ask the objective again at other times.

    The whole backward pass is redone with the share of life told as u in 0, .1, ..., .9, and with
    the horizon told as N' at the share where the experience was recorded. With
    :math:`\bar y = \mathrm{mean}_u \hat y_u`,

    .. math::
        S_\pi = \sqrt{\mathrm{mean}\,\mathrm{Var}_u[\hat\pi_u] /
                      \mathrm{Var}(\mathrm{mean}_u\,\hat\pi_u)}, \quad
        S_y = \frac{\mathrm{mean}\,\mathrm{mean}_u\,\mathrm{KL}(\hat y_u \| \bar y)}
                   {\mathrm{mean}\,\mathrm{KL}(\bar y \| \mathrm{mean}\,\bar y)}

    where means without index are over levels, ages, steps and environments; 0/0 is 0.

    Args:
      world: who lives where; its objective is told the truth.
      theta: the objective's parameters.
      hyper: numbers of an agent's update.
      levels: leaves ``[L, ...]``.
      horizons: N of the recorded lives.
      seed: root of every random number.
      shares: shares of life that are told.
      told: horizons that are told.

    Returns:
      Moments, from which the sensitivities follow.

    Raises:
      ConfigError: the objective says no ``pi_hat``.
    """
    count = jax.tree.leaves(levels)[0].shape[0]
    root = jax.random.fold_in(jax.random.key(zlib.crc32(b"sensitivity")), seed)
    keys = jax.vmap(lambda i: jax.random.fold_in(root, i))(jnp.arange(count))
    record = _recorder(world)
    chosen = tuple(sorted(set(horizons)))
    found: list[list[np.ndarray]] = []
    for n in chosen:
        ages = np.array([min(int(age * n), n - 1) for age in AGES], np.int32)
        cells = record(
            theta,
            hyper,
            levels,
            keys,
            np.int32(n),
            ages,
            np.asarray(shares, np.float32),
            np.asarray(told, np.float32),
        )
        # A short life has fewer ages: none counts twice.
        first = np.append(True, ages[1:] > ages[:-1])
        found.append([_weighed(np.asarray(cell, float), first) for cell in cells])
    return Sensitivity(chosen, *(np.stack(cells) for cells in zip(*found, strict=True)))


@functools.lru_cache(maxsize=16)
def _recorder(world: World) -> Callable[..., tuple[Array, ...]]:
    """A program that lives on every level, and tells the moments of words at each age.

    Horizon, ages and times told are data. Returns four ``[L, K, M - 1]``: words moved by the
    share of life and by the horizon, pi_hat and then y_hat.
    """

    def record(
        theta: Any,
        hyper: Any,
        levels: Any,
        keys: Array,
        horizon: Array,
        ages: Array,
        shares: Array,
        told: Array,
    ) -> tuple[Array, ...]:
        def one(started: tuple[Any, Array]) -> tuple[Array, ...]:
            level, key = started
            task = Task(level, horizon)

            def at(life: Life, age: Array) -> tuple[Life, tuple[Array, ...]]:
                life = jax.lax.while_loop(
                    lambda life: life.n < age,
                    lambda life: grow(world, theta, hyper, task, life)[0],
                    life,
                )
                experience = grow(world, theta, hyper, task, life)[1]

                def says(share: Array, believed: Array) -> dict[str, Array]:
                    unit = jnp.asarray(world.environments * world.steps / BASE_STEPS, jnp.float32)
                    time = Time(share * believed, believed, unit)
                    words = world.objective.signals(
                        theta, hyper, world.network, life.learner, experience, time
                    )
                    if "pi_hat" not in words:
                        raise ConfigError(
                            "this objective says no pi_hat, whose clock is moved here"
                        )
                    return {name: words[name] for name in ("pi_hat", "log_y_hat") if name in words}

                n = horizon.astype(jnp.float32)
                by_share = jax.lax.map(lambda share: says(share, n), shares)
                by_horizon = jax.lax.map(lambda believed: says(age / n, believed), told)
                moved = (by_share, by_horizon)
                return life, (*map(_pi_moments, moved), *map(_y_moments, moved))

            life = birth(world, theta, hyper, task, key)
            return jax.lax.scan(at, life, ages)[1]

        return jax.lax.map(one, (levels, keys), batch_size=GROUP)

    return jax.jit(record)


def _pi_moments(words: Mapping[str, Array]) -> Float[Array, "3"]:
    """Mean variance over times told, variance between experiences, mean."""
    pi = words["pi_hat"]
    # From the first time on, so that words that never move vary by exactly nothing.
    mean = pi[0] + jnp.mean(pi - pi[0], axis=0)
    centre = jnp.mean(mean)
    within = jnp.mean(jnp.square(pi - mean))
    return jnp.stack([within, jnp.mean(jnp.square(mean - centre)), centre])


def _y_moments(words: Mapping[str, Array]) -> Float[Array, " W"]:
    """Mean divergence over times told, divergence between experiences, mean prediction."""
    if "log_y_hat" not in words:
        return jnp.full(3, jnp.nan)
    y = jnp.exp(words["log_y_hat"])
    mean = y[0] + jnp.mean(y - y[0], axis=0)
    centre = jnp.mean(mean, axis=tuple(range(mean.ndim - 1)))
    within = jnp.mean(_divergence(y, mean))
    return jnp.concatenate([jnp.stack([within, jnp.mean(_divergence(mean, centre))]), centre])


def _divergence(p: Array, q: Array) -> Array:
    r""":math:`\mathrm{KL}(p \| q) = \sum_i q_i ((1 + r_i) \ln(1 + r_i) - r_i)`, r = p/q - 1.

    In this form nothing is lost where p is close to q, and p = q gives exactly 0.
    """
    r = jnp.where(q > 0, (p - q) / jnp.where(q > 0, q, 1), 0)
    return jnp.sum(q * (jax.scipy.special.xlog1py(1 + r, r) - r), axis=-1)


def _weighed(
    cells: Float[np.ndarray, "L K m"], counts: Bool[np.ndarray, " K"]
) -> Float[np.ndarray, "L K M"]:
    """Cells with their weight in front: 0 if not finite, or not to be counted."""
    weight = np.isfinite(cells).all(axis=-1) & counts
    return np.concatenate([weight[..., None], np.where(weight[..., None], cells, 0)], axis=-1)


_Apart = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _apart(measure: str) -> _Apart:
    """How far a mean word is from another: of numbers the square, of predictions the KL."""
    return _square if "pi" in measure else _kl


def _square(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.square(a - b).sum(axis=-1)


def _kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(p > 0, p * (np.log(p) - np.log(q)), 0).sum(axis=-1)


def _together(cells: Float[np.ndarray, "*more C M"], apart: _Apart) -> Float[np.ndarray, "*more M"]:
    """Cells as one, on their last axis but one: what differs between them joins the spread."""
    weight = cells[..., :1].sum(axis=-2)
    share = np.divide(
        cells[..., :1],
        weight[..., None, :],
        out=np.zeros_like(cells[..., :1]),
        where=weight[..., None, :] > 0,
    )
    one = np.sum(share * cells, axis=-2)
    between = apart(cells[..., 3:], one[..., None, 3:])
    one[..., 2] += np.sum(share[..., 0] * between, axis=-1)
    one[..., 0] = weight[..., 0]
    return one


def _ratio(measure: str) -> statistics.Statistic:
    """The statistic of a sensitivity, mean over search seeds: ``[R, S, L, M] -> [R]``."""
    apart = _apart(measure)

    def statistic(cells: np.ndarray) -> np.ndarray:
        pooled = _together(cells, apart)
        within, between = pooled[..., 1], pooled[..., 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            found = np.where(within == 0, 0.0, within / between)
        found = np.where(pooled[..., 0] > 0, found, np.nan)
        if "pi" in measure:
            found = np.sqrt(found)
        return np.asarray(found.mean(axis=-1))

    return statistic


# --- summaries --------------------------------------------------------------------------------

Sensitivities = Mapping[str, Sequence[Sensitivity]]
"""Objective -> the sensitivities of each of its thetas, all on the same levels and horizons."""


def summarise(
    rows: Iterable[Row],
    sensitivities: Sensitivities | None = None,
    *,
    nulls: Collection[str] = (),
    horizons: Iterable[int] | None = None,
    value: Value | None = None,
    confidence: float = 0.95,
    resamples: int = statistics.RESAMPLES,
    seed: int = 0,
) -> list[ClockUse]:
    """Losses and sensitivities of each objective at each horizon.

    A loss is the interquartile mean under the true clock less that under the false one, on the
    same levels and agents. Several thetas under one name are its search seeds.

    Args:
      rows: under the true clock and false ones, in one environment, on one set of levels, of one
        kind of actions.
      sensitivities: of the same objectives, or of some.
      nulls: names of objectives that nothing was learned by; marked as such.
      horizons: N; by default all at which somebody was lied to.
      value: which number of a row; by default ``normalised`` where known, else ``score``.
      confidence: of the intervals, which are over levels for one theta, over search seeds and
        levels for at least five, and not claimed in between.
      resamples: of the bootstrap.
      seed: of the resampling.

    Returns:
      Objectives in the order of the rows, then measures, then horizons ascending.

    Raises:
      TableError: rows of several environments, levels or actions.
    """
    rows = list(rows)
    told = sensitivities or {}
    options = {"confidence": confidence, "resamples": resamples, "seed": seed}
    scored = _Scores(rows, horizons, value)
    found: list[ClockUse] = []
    for name in dict.fromkeys([*(row.objective for row in rows), *told]):
        digests = {row.digest for row in rows if row.objective == name}
        for measure, horizon, statistic, (array,) in _measured(scored, told, [name]):
            interval = statistics.interval(
                array,
                statistic,
                **_fewer(options, measure),  # type: ignore[arg-type]
            )
            claimed = len(array) == 1 or len(array) >= statistics.FEWEST_SEEDS
            found.append(
                ClockUse(
                    objective=name,
                    digest=next(iter(digests)) if len(digests) == 1 else "",
                    null=name in nulls,
                    measure=measure,
                    horizon=horizon,
                    value=interval.estimate,
                    low=interval.low if claimed else math.nan,
                    high=interval.high if claimed else math.nan,
                    levels=array.shape[1],
                    search_seeds=array.shape[0],
                )
            )
    return found


def against(
    rows: Iterable[Row],
    sensitivities: Sensitivities | None,
    name: str,
    null: str,
    *,
    horizons: Iterable[int] | None = None,
    value: Value | None = None,
    confidence: float = 0.95,
    resamples: int = statistics.RESAMPLES,
    seed: int = 0,
) -> list[ClockUse]:
    """The same numbers of an objective, less those of a null: what its claim is about.

    Args:
      rows: as for :func:`summarise`, of both and of whatever else.
      sensitivities: of both.
      name: an objective.
      null: another, which learned nothing.
      horizons: N; by default all at which somebody was lied to.
      value: as for :func:`summarise`.
      confidence: of the intervals: search seeds of each side drawn apart, levels shared.
      resamples: of the bootstrap.
      seed: of the resampling.

    Returns:
      Differences; an interval is claimed only where both have at least five search seeds.
    """
    options = {"confidence": confidence, "resamples": resamples, "seed": seed}
    scored = _Scores(list(rows), horizons, value)
    found = []
    for measure, horizon, statistic, (a, b) in _measured(scored, sensitivities or {}, [name, null]):
        difference = statistics.paired_difference(
            a,
            b,
            statistic,
            paired_seeds=False,
            **_fewer(options, measure),  # type: ignore[arg-type]
        )
        fewest = min(len(a), len(b))
        claimed = fewest >= statistics.FEWEST_SEEDS
        found.append(
            ClockUse(
                objective=f"{name} less {null}",
                digest="",
                null=False,
                measure=measure,
                horizon=horizon,
                value=difference.estimate,
                low=difference.low if claimed else math.nan,
                high=difference.high if claimed else math.nan,
                levels=a.shape[1],
                search_seeds=fewest,
            )
        )
    return found


def _fewer(options: dict[str, float], measure: str) -> dict[str, float]:
    """Sensitivities take a resample longer, and are no test."""
    if measure not in MEASURES:
        return options
    return options | {"resamples": min(options["resamples"], _MOMENTS_RESAMPLES)}


class _Scores:
    """Rows by objective, what it was told, and how long it lived."""

    def __init__(
        self, rows: Sequence[Row], horizons: Iterable[int] | None, value: Value | None
    ) -> None:
        if len({(row.environment, row.level_hash, row.actions) for row in rows}) > 1:
            raise TableError("losses are of one environment, set of levels and kind of actions")
        lied = [row for row in rows if row.clock != TRUE]
        self.clocks = [c for c in CLOCKS if any(row.clock == c for row in lied)]
        if horizons is None:
            horizons = {row.horizon for row in lied if row.clock != HALF}
            horizons = horizons or {2 * row.horizon for row in lied}
        self.horizons = sorted(set(horizons))
        known = all(row.normalised is not None for row in rows)
        value = value or ("normalised" if known else "score")
        self._cells: dict[tuple[str, str, int], dict[str, dict[tuple[int, int], float]]] = {}
        for row in rows:
            number = table.value_of(row, value)
            if number is None:
                raise TableError(f"not every row has a {value} value")
            thetas = self._cells.setdefault((row.objective, row.clock, row.horizon), {})
            thetas.setdefault(row.digest, {})[row.level, row.seed] = number

    def pairs(self, names: Sequence[str], clock: str, lived: int) -> list[np.ndarray]:
        """True and false scores, ``[S, L, A, 2]`` for each objective; nothing if one has none.

        Only levels and agents that every theta has under both clocks.
        """
        thetas: list[list[_Pair]] = []
        for name in names:
            true, false = (self._cells.get((name, c, lived), {}) for c in (TRUE, clock))
            thetas.append([(true[digest], false[digest]) for digest in sorted(true.keys() & false)])
        if not all(thetas):
            return []
        shared = set.intersection(
            *(set(cells) for pairs in thetas for pair in pairs for cells in pair)
        )
        levels = sorted({level for level, _ in shared})
        seeds = sorted({seed for _, seed in shared})
        seeds = [seed for seed in seeds if all((level, seed) in shared for level in levels)]
        if not levels or not seeds:
            return []
        return [
            np.array(
                [
                    [[[cells[n, s] for cells in pair] for s in seeds] for n in levels]
                    for pair in pairs
                ]
            )
            for pairs in thetas
        ]


_Pair = tuple[dict[tuple[int, int], float], dict[tuple[int, int], float]]
_Measured = tuple[str, int, statistics.Statistic, list[np.ndarray]]


def _measured(
    scored: _Scores, sensitivities: Sensitivities, names: Sequence[str]
) -> Iterator[_Measured]:
    """Measure, horizon, statistic, and an array ``[S, L, ...]`` for each of these objectives."""
    for clock in scored.clocks:
        for n in scored.horizons:
            arrays = scored.pairs(names, clock, n // 2 if clock == HALF else n)
            if arrays:
                yield clock, n, _loss, arrays
    for measure in MEASURES:
        told = [[each.cells(measure) for each in sensitivities.get(name, ())] for name in names]
        if not all(told):
            continue
        for i, n in enumerate(sensitivities[names[0]][0].horizons):
            arrays = [np.stack([cells[i] for cells in each]) for each in told]
            if all(array[..., 0].any() for array in arrays):
                yield measure, n, _ratio(measure), arrays


def _loss(scores: np.ndarray) -> np.ndarray:
    """The statistic of a loss: ``[R, S, L, A, 2] -> [R]``, 0 where both are infinitely bad."""
    true, false = (statistics.pooled(scores[..., i]) for i in range(2))
    with np.errstate(invalid="ignore"):
        return np.where(true == false, 0.0, true - false)


# --- what the command does --------------------------------------------------------------------


class Study(NamedTuple):
    """Objectives, and the nulls that they are compared with."""

    saved: list[Saved]
    """All of them, their names distinct."""
    search: dict[str, str]
    """Name -> the search that it is a seed of."""
    nulls: dict[str, list[str]]
    """Search -> those searches and initialisations that it is compared with."""
    told: frozenset[str]
    """Names of those that read a clock and so can be lied to."""


def study(objectives: Sequence[Saved], nulls: Sequence[Saved], env: str, how: Setting) -> Study:
    """Find out who reads a clock, which runs are seeds of one search, and make the nulls.

    Args:
      objectives: with distinct names.
      nulls: the same, of searches that could learn nothing.
      env: name of an environment.
      how: how agents live.

    Returns:
      The study; for each search that reads a clock, its rule as it is initialised is among the
      nulls, as many times as the search has seeds.

    Raises:
      ConfigError: an objective and the environment do not go together.
    """
    given = [*objectives, *nulls]
    told = {saved.name for saved in given if _reads(saved, env, how)}
    search = searches(objectives)
    taken = set(search.values())
    search |= {n: f"{s} as a null" if s in taken else s for n, s in searches(nulls).items()}
    others = list(dict.fromkeys(search[s.name] for s in nulls if s.name in told))
    learned: dict[str, list[Saved]] = {}
    for saved in objectives:
        if saved.name in told:
            learned.setdefault(search[saved.name], []).append(saved)
    # Searches for the same rule are compared with the same initialisations.
    rules: dict[Objective, list[str]] = {}
    for name, seeds in learned.items():
        rules.setdefault(seeds[0].objective, []).append(name)
    compared: dict[str, list[str]] = {}
    born: list[Saved] = []
    for rule, names in rules.items():
        made = initialised(rule, names[0], max(len(learned[name]) for name in names))
        search |= dict.fromkeys((saved.name for saved in made), made[0].name)
        compared |= {name: [made[0].name, *others] for name in names}
        born += made
    told |= {saved.name for saved in born}
    return Study([*given, *born], search, compared, frozenset(told))


def _reads(saved: Saved, env: str, how: Setting) -> bool:
    who = sweeps.enter(saved, env, how)
    return reads_clock(who.world, who.source, who.hyper)


def initialised(objective: Objective, name: str, count: int) -> list[Saved]:
    """A rule as it is initialised, under several keys: the null of no search at all.

    Args:
      objective: the rule.
      name: what the nulls are called after.
      count: how many.

    Returns:
      ``untrained <name>``, ``untrained <name> (2)``, ...
    """
    root = jax.random.key(zlib.crc32(b"initialisation"))
    made = []
    for i in range(count):
        theta = objective.init(jax.random.fold_in(root, i))
        data = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(theta))
        label = f"untrained {name}" if i == 0 else f"untrained {name} ({i + 1})"
        digest = hashlib.sha256(repr(objective).encode() + data).hexdigest()
        made.append(Saved(label, objective, theta, {}, digest))
    return made


def searches(chosen: Sequence[Saved]) -> dict[str, str]:
    """Runs whose configurations differ in the seed alone are seeds of one search.

    Args:
      chosen: objectives with distinct names.

    Returns:
      Name -> name of the search; an objective without a card is on its own, and so is one that is
      there a second time.
    """
    found: dict[str, list[str]] = {}
    seen: set[str] = set()
    for saved in chosen:
        config = {k: v for k, v in (saved.card.get("config") or {}).items() if k != "seed"}
        alone = not config or saved.digest in seen
        key = saved.name if alone else json.dumps(config, sort_keys=True)
        found.setdefault(key, []).append(saved.name)
        seen.add(saved.digest)
    named: dict[str, str] = {}
    for names in found.values():
        stems = {re.sub(r"-\d+$", "", name) for name in names}
        label = stems.pop() if len(stems) == 1 and len(names) > 1 else names[0]
        named |= dict.fromkeys(names, label)
    return named


def conclude(
    plan: Study,
    rows: Iterable[Row],
    env: str,
    how: Setting,
    levels: PyTree,
    horizons: Sequence[int],
    seed: int,
    report: Callable[[Any], None],
    until: float | None = None,
) -> list[ClockUse]:
    """Measure sensitivities, and say what was lost and how far words follow the clock.

    Args:
      plan: who is compared with whom.
      rows: under true and false clocks, of one environment, set of levels and kind of actions.
      env: name of an environment.
      how: how agents live.
      levels: where sensitivities are measured, leaves ``[L, ...]``.
      horizons: N.
      seed: of the lives that are recorded.
      report: told what happens, a line or a table at a time.
      until: measure no sensitivities after this time (``time.monotonic``).

    Returns:
      Losses and sensitivities of every theta.
    """
    rows = [row for row in rows if row.objective in plan.told]
    told: dict[str, Sequence[Sensitivity]] = {}
    for saved in plan.saved:
        if saved.name not in plan.told:
            continue
        if until is not None and time.monotonic() > until:
            report("stopped before the sensitivities; the same command goes on from here")
            told = {}
            break
        report(f"{saved.name}: how far its words follow the clock ...")
        who = sweeps.enter(saved, env, how)
        try:
            found = sensitivity(who.world, who.source, who.hyper, levels, horizons, seed)
        except ConfigError as error:  # what was lost can be told all the same
            report(f"{saved.name}: no sensitivities: {error}")
            continue
        told[saved.name] = [found]
    nulls = {name for names in plan.nulls.values() for name in names}
    each = summarise(
        rows,
        told,
        nulls=[name for name, search in plan.search.items() if search in nulls],
        horizons=horizons,
    )
    if not each:
        return []
    together = [row._replace(objective=plan.search[row.objective]) for row in rows]
    by_search: dict[str, list[Sensitivity]] = {}
    for name, each_of in told.items():
        by_search.setdefault(plan.search[name], []).extend(each_of)
    single = len(set(plan.search.values())) == len(plan.search)
    uses = each if single else summarise(together, by_search, horizons=horizons)
    title = ": score lost when told a false clock; S, how far words follow it"
    report(table.render_clock_uses(uses, title))
    for search, others in plan.nulls.items():
        for null in others:
            uses = against(together, by_search, search, null, horizons=horizons)
            report(table.render_clock_uses(uses, ": the same, as differences", signed=True))
    return each


__all__ = [
    "CLOCKS",
    "MEASURES",
    "Sensitivity",
    "Study",
    "against",
    "conclude",
    "initialised",
    "losses",
    "reads_clock",
    "searches",
    "sensitivity",
    "study",
    "summarise",
]
