"""Objectives in environments that they were not found in: the table that claims 2 and 4 share.

An objective is taken as it is; its agents are new in every environment, and so is the rate at which
they learn: one value for a whole suite, chosen on one environment that is then no test, for each
objective alike. A row holds the score of every agent, so that all that is said can be computed
again. No JAX.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from discovery.config import AgentConfig, LifeConfig
from discovery.evaluation.claims import Table
from discovery.evaluation.papers import Job

CHOICE, TEST = "choice", "test"
"""Stages of a row: on validation levels, to choose a rate; on test levels."""
UNIT = "unit"
"""Stage of the row that holds the unit of a suite's rewards."""
PERCENTILE = 95
"""Of returns without learning, all environments of a suite together: the unit of its rewards."""


class Place(NamedTuple):
    """An environment, and how it is lived in."""

    env: str
    agent: AgentConfig
    life: LifeConfig
    horizons: tuple[int, ...]
    """N, in updates."""
    levels: int
    """Levels; where an environment has one, agents."""


class Suite(NamedTuple):
    """Environments that share a rate."""

    name: str
    places: tuple[Place, ...]
    rates: tuple[float, ...] = ()
    """Of agents, to choose from; none: they keep their own."""
    chosen_on: Place | None = None
    """Where one is chosen, by the mean score over its horizons; ``None``: for each environment and
    horizon apart."""
    value_rate: float | None = None
    """Of the value (or prediction) head; ``None``: as the policy's."""
    scaled: bool = False
    """Agents meet rewards divided by a percentile of the absolute returns of agents that never
    learn, one unit for the suite; scores stay as they are."""


class Played(NamedTuple):
    """What agents under one objective score in one environment at one horizon."""

    size: str
    group: str
    cell: str
    objective: str
    seed: int
    suite: str
    environment: str
    horizon: int
    stage: str
    """``choice``, ``test`` or ``unit``."""
    rate: float
    """Of the agents; 0: their own."""
    value: str
    """``normalised`` or ``score``."""
    levels: str
    """Which set of levels: its hash."""
    digest: str
    scores: tuple[float, ...]
    """A number an agent; minus infinity where one is not finite."""

    @property
    def asked(self) -> float:
        """The rate, where all are asked for; which of them a test is at, a choice tells."""
        return self.rate if self.stage == CHOICE else 0.0

    @property
    def agents(self) -> int:
        """Number of agents."""
        return len(self.scores)


def _played(job: Job) -> set[tuple[Any, ...]]:
    wanted: set[tuple[Any, ...]] = set()
    for suite in job.sweep:
        for place in suite.places:
            wanted |= {(suite.name, place.env, n, TEST, 0.0, place.levels) for n in place.horizons}
        places = suite.places if suite.chosen_on is None else (suite.chosen_on,)
        wanted |= {
            (suite.name, place.env, n, CHOICE, rate, place.levels)
            for place in places
            for n in place.horizons
            for rate in suite.rates
        }
        if suite.scaled:
            wanted.add((suite.name, "", 0, UNIT, 0.0, 1))
    return wanted


PLAYED = Table(
    name="games",
    kind=Played,
    key=("suite", "environment", "horizon", "stage", "asked", "agents"),
    wanted=_played,
    measure="discovery.evaluation.transfer_trials:played",
)
"""Scores of every agent."""


class Task(NamedTuple):
    """Where something is compared."""

    group: str
    suite: str
    environment: str
    horizon: int


Scores = dict[str, dict[Task, dict[int, float]]]
"""Cell -> task -> search seed -> mean score over agents."""


def tested(rows: Iterable[Played]) -> Scores:
    """Mean scores of the test rows; an agent that is not finite makes a mean minus infinity."""
    found: Scores = {}
    for row in rows:
        if row.stage == TEST:
            task = Task(row.group, row.suite, row.environment, row.horizon)
            mean = math.fsum(row.scores) / len(row.scores)
            found.setdefault(row.cell, {}).setdefault(task, {})[row.seed] = mean
    return found


def relative(
    scores: Scores, reference: str, nothing: str, least: float = 0.1
) -> tuple[Scores, list[Task]]:
    r"""Scores on a scale where ``nothing`` is 0 and ``reference`` is 1, task by task.

    Args:
      scores: of all cells; both of these have one seed.
      reference: a cell, such as A2C.
      nothing: another, which learns nothing.
      least: tasks where the reference is above nothing by less than this share of the sum of both
        their sizes tell nothing, and are left out.

    Returns:
      The other cells on that scale, and the tasks that are left out.
    """
    above, below = (_single(scores.get(cell, {})) for cell in (reference, nothing))
    told: dict[Task, tuple[float, float]] = {}
    silent = []
    for task in above.keys() & below.keys():
        gap = above[task] - below[task]
        if gap > least * (abs(above[task]) + abs(below[task])):
            told[task] = below[task], gap
        else:
            silent.append(task)
    scaled = {
        cell: {
            task: {seed: (x - told[task][0]) / told[task][1] for seed, x in by_seed.items()}
            for task, by_seed in by_task.items()
            if task in told
        }
        for cell, by_task in scores.items()
        if cell not in (reference, nothing)
    }
    return scaled, sorted(silent)


def _single(by_task: Mapping[Task, Mapping[int, float]]) -> dict[Task, float]:
    return {task: next(iter(by_seed.values())) for task, by_seed in by_task.items()}


def by_seed(tasks: Mapping[Task, Mapping[int, float]], chosen: Sequence[Task]) -> dict[int, float]:
    """Mean over tasks, of the seeds that all of them have."""
    each = [tasks[task] for task in chosen if task in tasks]
    if not each:
        return {}
    seeds = set.intersection(*(set(values) for values in each))
    return {s: math.fsum(values[s] for values in each) / len(each) for s in sorted(seeds)}


def less(a: Mapping[int, float], b: Mapping[int, float]) -> dict[int, float]:
    """Seed by seed; where the other has one number alone, it is taken from each."""
    if len(b) == 1:
        (only,) = b.values()
        return {seed: value - only for seed, value in a.items()}
    return {seed: a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())}
