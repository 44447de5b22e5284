"""Objectives that meet on the same held-out levels: the tables that claims 1 and 6 share. No JAX.

A row of the table ``levels`` holds the normalised score of one objective on every level at one
horizon, so that every interval can be computed again from the table, level by level and seed by
seed.

Shape legend: ``S`` search seeds, ``L`` levels, ``H`` horizons.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from discovery.evaluation.claims import Levelled, Searched, Table
from discovery.evaluation.papers import Job
from discovery.evaluation.statistics import (
    FEWEST_SEEDS,
    RESAMPLES,
    Cell,
    Interval,
    cell,
    mean_of,
    probability_of_improvement,
)

EFFECT = 0.02
"""Normalised score below which a difference is of no practical importance; set before any run."""


class Reach(NamedTuple):
    """Some horizons at which an objective is scored level by level."""

    horizons: tuple[int, ...]
    levels: int
    """Held-out levels, of the stream ``test``."""
    greedy: bool = False
    """Greedy actions too."""
    area: bool = False
    """Scores averaged along the life, instead of those at its end."""

    @property
    def actions(self) -> tuple[str, ...]:
        """How trained agents act when they are scored."""
        return ("sampled", "greedy") if self.greedy else ("sampled",)

    @property
    def measure(self) -> str:
        """As a row of the table has it."""
        return "area" if self.area else "final"


def _searched(job: Job) -> set[tuple[Any, ...]]:
    return {(0 if job.is_start or job.source else job.config.generations,)}


def _levelled(job: Job) -> set[tuple[Any, ...]]:
    return {
        (n, actions, reach.measure, reach.levels)
        for reach in job.sweep
        for n in reach.horizons
        for actions in reach.actions
    }


TABLES = (
    Table(
        name="searches",
        kind=Searched,
        key=("generations",),
        wanted=_searched,
        measure="discovery.evaluation.trials:searched",
    ),
    Table(
        name="levels",
        kind=Levelled,
        key=("horizon", "actions", "measure", "width"),
        wanted=_levelled,
        measure="discovery.evaluation.trials:levelled",
    ),
)
"""What each search took, and what was found is worth on each level."""

# --- what the tables hold ---------------------------------------------------------------------

FEWER = 2_000
"""Resamples of what is neither the primary endpoint nor a part of it: greedy actions, areas,
probabilities of improvement."""


class Where(NamedTuple):
    """What of an objective is compared."""

    horizon: int
    actions: str = "sampled"
    measure: str = "final"


class Book:
    """Scores of a table, and the statistics of each cell, computed once."""

    def __init__(
        self,
        rows: Iterable[Levelled],
        resamples: int = RESAMPLES,
        name: Callable[[Levelled], str] = lambda row: row.cell,
    ) -> None:
        self.resamples = resamples
        self._scores: dict[tuple[str, Where], dict[int, tuple[float, ...]]] = defaultdict(dict)
        for row in rows:
            where = Where(row.horizon, row.actions, row.measure)
            self._scores[name(row), where][row.seed] = row.scores
        self._cells: dict[tuple[str, Where, tuple[int, ...]], Cell] = {}

    def seeds(self, names: Iterable[str], where: Iterable[Where]) -> tuple[int, ...]:
        """Search seeds that all of these objectives have everywhere."""
        where = list(where)
        each = [set(self._scores.get((name, at), {})) for name in names for at in where]
        return tuple(sorted(set.intersection(*each))) if each else ()

    def scores(self, name: str, at: Where, seeds: Sequence[int]) -> Float[np.ndarray, "S L"]:
        """Normalised scores, search seeds by levels."""
        by = self._scores[name, at]
        return np.array([by[seed] for seed in seeds], float)

    def cell(self, name: str, where: Sequence[Where], seeds: tuple[int, ...]) -> Cell:
        """Mean over places of the interquartile mean there, with its resamples."""
        found = []
        for at in where:
            key = (name, at, seeds)
            if key not in self._cells:
                main = (at.actions, at.measure) == ("sampled", "final")
                count = self.resamples if main else min(self.resamples, FEWER)
                self._cells[key] = cell(self.scores(name, at, seeds), count)
            found.append(self._cells[key])
        return mean_of(found)

    def at(self, name: str, where: Sequence[Where]) -> Estimate | None:
        """How good an objective is, by all search seeds it has there."""
        seeds = self.seeds([name], where)
        return _claimed(self.cell(name, where, seeds), seeds) if seeds else None

    def compare(self, ours: str, other: str, where: Sequence[Where]) -> Estimate | None:
        """How far one objective is above another, by the seeds that both have, in pairs."""
        seeds = self.seeds([ours, other], where)
        if not seeds:
            return None
        found = self.cell(ours, where, seeds).less(self.cell(other, where, seeds))
        return _claimed(found, seeds)

    def contrast(
        self, plus: Sequence[str], minus: Sequence[str], where: Sequence[Where]
    ) -> Estimate | None:
        """How far the mean of some objectives is above the mean of others."""
        seeds = self.seeds([*plus, *minus], where)
        if not seeds:
            return None
        high, low = (
            mean_of([self.cell(name, where, seeds) for name in names]) for names in (plus, minus)
        )
        return _claimed(high.less(low), seeds)

    def interaction(
        self, ours: tuple[str, str], others: tuple[str, str], where: Sequence[Where]
    ) -> Estimate | None:
        """How far one difference is above another: (a - b) - (c - d)."""
        seeds = self.seeds([*ours, *others], where)
        if not seeds:
            return None
        (a, b), (c, d) = (
            [self.cell(name, where, seeds) for name in pair] for pair in (ours, others)
        )
        return _claimed(a.less(b).less(c.less(d)), seeds)

    def improvement(self, ours: str, other: str, where: Sequence[Where]) -> Interval | None:
        """Chance that a search for one beats a search for the other on a level, mean over places.

        The ends are means of the ends: places share their seeds and levels, so that this is as
        wide as if they said all the same.
        """
        seeds = self.seeds([ours, other], where)
        if not seeds:
            return None
        each = [
            probability_of_improvement(
                self.scores(ours, at, seeds), self.scores(other, at, seeds), resamples=FEWER
            )
            for at in where
        ]
        means = np.mean(each, axis=0).tolist()
        return (
            Interval(*means) if len(seeds) >= FEWEST_SEEDS else Interval(means[0], *[math.nan] * 2)
        )


class Estimate(NamedTuple):
    """A number, its interval (NaN where none is claimed), its p-value, and its search seeds."""

    estimate: float
    low: float
    high: float
    p: float
    seeds: tuple[int, ...]

    @property
    def claimed(self) -> bool:
        """Whether there are seeds enough for an interval."""
        return math.isfinite(self.low) and math.isfinite(self.high)


def _claimed(found: Cell, seeds: tuple[int, ...]) -> Estimate:
    if len(seeds) < FEWEST_SEEDS:
        return Estimate(found.estimate, math.nan, math.nan, math.nan, seeds)
    return Estimate(*found.interval(), seeds)


# --- in words ---------------------------------------------------------------------------------

AHEAD, BEHIND, NO_DIFFERENCE, UNTOLD = "ahead", "behind", "no practical difference", "not told"


def judged(found: Estimate) -> str:
    """What an interval says of a difference, where :data:`EFFECT` is what counts.

    Ahead or behind: the interval leaves out zero, and the estimate counts. No practical
    difference: the whole interval is within what does not count, or it leaves out zero and the
    estimate does not count. Else the seeds that there are do not tell.

    Example:
      >>> judged(Estimate(0.05, 0.01, 0.09, 0.02, (0, 1, 2, 3, 4)))
      'ahead'
    """
    if not found.claimed:
        return UNTOLD
    if found.low > 0 or found.high < 0:
        if abs(found.estimate) < EFFECT:
            return NO_DIFFERENCE
        return AHEAD if found.low > 0 else BEHIND
    within = found.low > -EFFECT and found.high < EFFECT
    return NO_DIFFERENCE if within else UNTOLD


def number(value: float, sign: str = "") -> str:
    """Three digits after the point: ``+.051``."""
    if not math.isfinite(value):
        return str(value)
    text = f"{round(value, 3) + 0.0:{sign}.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 0.9995 else text


def told(found: Estimate | Interval | None, sign: str = "+") -> str:
    """An estimate with its interval: ``+.051 [+.010, +.092]``."""
    if found is None:
        return ""
    if not math.isfinite(found.low):
        return number(found.estimate, sign)
    ends = f"[{number(found.low, sign)}, {number(found.high, sign)}]"
    return f"{number(found.estimate, sign)} {ends}"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def ranges(seeds: Iterable[int]) -> str:
    """Search seeds, short.

    Example:
      >>> ranges([0, 1, 2, 5])
      '0-2, 5'
    """
    parts: list[list[int]] = []
    for seed in sorted(seeds):
        if parts and parts[-1][-1] == seed - 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    return ", ".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)


def million(steps: float) -> str:
    """Environment steps, in millions.

    Example:
      >>> million(2.04e7)
      '20'
    """
    return f"{steps / 1e6:,.0f}"


def spent(rows: Iterable[Searched]) -> str:
    """What a search took: million environment steps of training, and of scores at most."""
    found = [(row.steps, row.evaluation_steps) for row in rows if row.generations]
    if not found:
        return ""
    steps, scores = (math.fsum(column) / len(found) for column in zip(*found, strict=True))
    return f"{million(steps)}+{million(scores)}"


def minutes(rows: Iterable[Searched]) -> float:
    """Wall time of all searches."""
    return math.fsum(row.minutes for row in rows)
