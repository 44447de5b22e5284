"""Claim 2, *a horizon-aware objective generalises to environments it was never trained on*.

The objectives of claim 1 and those that come with the package, as they are, in suites of
environments they never saw, at horizons inside the trained range and, apart, at each suite's own.
Nothing is searched for it but claim 1's objectives. No JAX.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from discovery.config import AgentConfig, LifeConfig
from discovery.evaluation import claim_1, statistics, transfer
from discovery.evaluation.claims import Conclusion, Grid
from discovery.evaluation.papers import Job
from discovery.evaluation.statistics import FEWEST_SEEDS
from discovery.evaluation.transfer import PLAYED, Place, Suite, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = Any

TABLES = (PLAYED,)
AWARE = claim_1.OURS
RIVALS = ("LPG", "elapsed", "constant")
"""Of claim 1's contenders: (a) the blind twin, (b) controls of the clock."""
SHIPPED = {"shipped TA-LPG": "ta-lpg", "shipped LPG": "lpg"}
REFERENCE, NOTHING = "A2C", "random"
"""1 and 0 of the scale: A2C tuned for each environment and horizon, and no learning at all."""
SHARE = 0.75
"""Of A2C's score: (c) counts the tasks where an objective has at least this."""
INSIDE, OWN = "inside the trained horizons", "at their own long horizons"
SCALED = ", scaled"
"""After the name of a suite whose agents meet rewards in units of the suite."""
RATES = (1e-4, 5e-4, 1e-3, 5e-3)
"""Of agents that are networks, from which one is chosen for a suite."""


class Size(NamedTuple):
    """How large everything is."""

    life: LifeConfig
    inside: tuple[int, ...]
    fixed: tuple[str, ...]
    bsuite: tuple[str, ...]
    """The first is where the rate is chosen, here and below."""
    control: tuple[str, ...]
    minatar: tuple[str, ...]
    own: dict[str, int]
    """Suite -> its own long horizon."""
    levels: int
    """Drawn levels of a family of grid worlds."""
    agents: int
    """Agents of an environment that has one level."""
    tables: tuple[float, ...]
    """Rates of A2C's policy, from which it is tuned, where agents are tables."""
    table_value_rate: float


SIZES = {
    "cpu": Size(
        life=LifeConfig(environments=8, rollout=20, evaluation_environments=16),
        inside=(10, 40, 80),
        fixed=("dense", "sparse", "longer"),
        # Where a tuned A2C learns in lives as short as these. In Acrobot, MountainCar, Pendulum,
        # DiscountingChain, MemoryChain and SimpleBandit it does not, so nothing can be told there.
        bsuite=(
            "Catch-bsuite",
            "DeepSea-bsuite",
            "UmbrellaChain-bsuite",
            "BernoulliBandit-misc",
        ),
        control=("Catch-bsuite", "CartPole-v1"),
        minatar=(),
        own={"fixed": 320, "mazes": 320, "bsuite": 100, "control": 200, "MinAtar": 0},
        levels=16,
        agents=8,
        tables=(20.0, 90.0, 400.0),
        table_value_rate=0.22,
    ),
    "full": Size(
        life=LifeConfig(environments=64, rollout=20, evaluation_environments=64),
        inside=(10, 50, 250),
        fixed=("dense", "sparse", "long", "longer", "long_dense"),
        bsuite=(
            "Catch-bsuite",
            "DeepSea-bsuite",
            "DiscountingChain-bsuite",
            "UmbrellaChain-bsuite",
            "MNISTBandit-bsuite",
            "SimpleBandit-bsuite",
        ),
        control=("CartPole-v1", "Acrobot-v1", "MountainCar-v0"),
        minatar=(
            "SpaceInvaders-MinAtar",
            "Asterix-MinAtar",
            "Breakout-MinAtar",
            "Freeway-MinAtar",
        ),
        own={"fixed": 2500, "mazes": 2500, "bsuite": 100, "control": 1000, "MinAtar": 100_000},
        levels=256,
        agents=64,
        tables=(5.0, 10.0, 20.0, 40.0, 80.0, 160.0),
        table_value_rate=4.0,
    ),
}
"""Every number of the entry; the rest follows."""


def _network(hidden: tuple[int, ...]) -> AgentConfig:
    """The published agent where observations are not counted."""
    return AgentConfig(
        network="mlp",
        hidden=hidden,
        optimizer="adam",
        policy_rate=5e-4,
        prediction_rate=5e-4,
        clip=1.0,
        prediction_weight=0.5,
    )


def suites(size: Size, table: AgentConfig) -> tuple[Suite, ...]:
    """All suites, with rates as a learned objective's agents have them.

    Args:
      size: numbers.
      table: the agent that the objectives were found with.

    Returns:
      Tables keep their own rates; networks have one a suite. Their suites stand there twice, with
      rewards as they are and in units of the suite; those of grid worlds are the search's own.
    """

    def place(env: str, suite: str, agent: AgentConfig, levels: int) -> Place:
        ns = tuple(sorted({*size.inside, size.own[suite]}))
        return Place(env, agent, size.life, ns, levels)

    found = [
        Suite(name, tuple(place(env, name, table, size.levels) for env in envs))
        for name, envs in (("fixed", size.fixed), ("mazes", ("mazes",)))
    ]
    networks = (
        ("bsuite", size.bsuite, (64, 64)),
        ("control", size.control, (64, 64)),
        ("MinAtar", size.minatar, (256, 256)),
    )
    for name, envs, hidden in networks:
        if envs:
            first, *others = (place(env, name, _network(hidden), size.agents) for env in envs)
            middle = first._replace(horizons=(size.inside[len(size.inside) // 2],))
            raw = Suite(name, tuple(others), RATES, middle)
            found += [raw, raw._replace(name=name + SCALED, scaled=True)]
    return tuple(found)


def _tuned(size: Size, learned: Sequence[Suite]) -> tuple[Suite, ...]:
    """The same for A2C, with rates chosen for each environment and horizon apart.

    It is what scores are measured by, so its rewards are as they are.
    """
    return tuple(
        suite._replace(chosen_on=None)
        if suite.rates
        else suite._replace(rates=size.tables, value_rate=size.table_value_rate)
        for suite in learned
        if not suite.scaled
    )


def jobs(size: str, seeds: Sequence[int]) -> list[Job]:
    """What is played: A2C and nothing, what is shipped, then claim 1's objectives.

    Args:
      size: a key of :data:`SIZES`.
      seeds: of the searches.

    Returns:
      The jobs.
    """
    chosen = SIZES[size]
    home = "claim-1" if size == next(iter(SIZES)) else f"claim-1-{size}"
    theirs = claim_1.jobs(size, seeds)
    if not theirs:
        return []
    config = replace(theirs[0].config, seed=0)
    learned = suites(chosen, config.agent)
    still = tuple(s._replace(rates=(), chosen_on=None) for s in learned if not s.scaled)
    found = [
        Job("", REFERENCE, "a2c", 0, config, _tuned(chosen, learned), source="a2c"),
        Job("", NOTHING, "random", 0, config, still, source="random"),
    ]
    found += [
        Job("", cell, "lpg", 0, config, learned, source=source) for cell, source in SHIPPED.items()
    ]
    wanted = (AWARE, *RIVALS)
    found += [
        job._replace(sweep=learned, home=home)
        for job in theirs
        if job.group == claim_1.RANGE and job.cell in wanted
    ]
    return found


# --- what the tables say ----------------------------------------------------------------------

BySeed = dict[int, float]
Part = tuple[str, str]
"""A suite, and inside the trained horizons or at its own."""


class Numbers(NamedTuple):
    """What the tables say, on the scale where A2C is 1 and no learning is 0."""

    scores: transfer.Scores
    silent: list[Task]
    """Tasks that tell nothing: A2C learns (next to) nothing there."""
    parts: dict[Part, list[Task]]


def gather(size: str, rows: Sequence[Any]) -> Numbers:
    """Scores of all tasks, and which part each belongs to.

    Args:
      size: a key of :data:`SIZES`.
      rows: of the table, of that size.

    Returns:
      The numbers.
    """
    # Claim 1's objectives carry its group, which says nothing here.
    scores = transfer.tested(row._replace(group="") for row in rows)
    for cell in (REFERENCE, NOTHING):  # 1 and 0 are the same in both units
        known = scores.get(cell, {})
        known |= {task._replace(suite=task.suite + SCALED): by for task, by in known.items()}
    scaled, silent = transfer.relative(scores, REFERENCE, NOTHING)
    parts: dict[Part, list[Task]] = {}
    tasks = sorted({task for by_task in scaled.values() for task in by_task})
    for task in tasks:
        where = INSIDE if task.horizon in SIZES[size].inside else OWN
        parts.setdefault((task.suite, where), []).append(task)
    return Numbers(scaled, silent, parts)


def ahead(numbers: Numbers, part: Part, rival: str, ours: str = AWARE) -> BySeed:
    """How far one cell is above another in a part, seed by seed."""
    a, b = (
        transfer.by_seed(numbers.scores.get(cell, {}), numbers.parts[part])
        for cell in (ours, rival)
    )
    return transfer.less(a, b)


def enough(numbers: Numbers, part: Part, cell: str) -> float:
    """Share of tasks and search seeds with at least :data:`SHARE` of A2C's score."""
    tasks = numbers.scores.get(cell, {})
    found = [x for task in numbers.parts[part] for x in tasks.get(task, {}).values()]
    return sum(x >= SHARE for x in found) / len(found) if found else math.nan


def verdict(size: str, numbers: Numbers) -> str:
    """What the numbers say of the claim, and what they do not say.

    Args:
      size: of the entry.
      numbers: from :func:`gather`.

    Returns:
      Paragraphs.
    """
    seeds = {s for by in numbers.scores.get(AWARE, {}).values() for s in by}
    few = len(seeds) < FEWEST_SEEDS
    chosen = SIZES[size]
    said = [
        f"Size {size}, {len(seeds)} search seed{'s' * (len(seeds) != 1)} of claim 1"
        f"{': points, and no interval is claimed' if few else ''}; horizons "
        f"{_listed(chosen.inside)} are inside the trained range. Scores are on a scale where A2C, "
        "tuned for each "
        "environment and horizon, is 1 and no learning is 0; a difference is a mean over tasks, "
        "paired by search seed. Rates of agents that are networks are chosen for a whole suite on "
        f"{_first(chosen)}, which is no test. Where a suite is told as scaled, its agents met "
        f"rewards divided by the {transfer.PERCENTILE}th percentile of its absolute returns "
        "without learning."
    ]
    for part, tasks in numbers.parts.items():
        suite, where = part
        ns = sorted({task.horizon for task in tasks})
        told = [
            f"{AWARE} less {rival} {_difference(ahead(numbers, part, rival))}" for rival in RIVALS
        ]
        told = [each for each in told if not each.endswith("not in the tables")]
        shipped = ahead(numbers, part, "shipped LPG", "shipped TA-LPG")
        if shipped:
            told.append(f"the shipped pair {_mean(shipped):+.2f} (one search each)")
        counted = [
            f"{cell} {enough(numbers, part, cell):.0%}"
            for cell in (AWARE, *RIVALS, *SHIPPED)
            if not math.isnan(enough(numbers, part, cell))
        ]
        said.append(
            f"{suite}, {where} (N = {_listed(ns)}; {len(tasks)} tasks): "
            f"{'; '.join(told) or 'no objective is in the tables yet'}. "
            f"At least {SHARE:.0%} of A2C's score: {', '.join(counted) or 'nobody'}."
        )
    if numbers.silent:
        found = (f"{task.environment} at {task.horizon}" for task in numbers.silent)
        names = ", ".join(dict.fromkeys(found))
        said.append(f"Left out, since A2C itself learns next to nothing there: {names}.")
    return "\n\n".join(said)


def _first(size: Size) -> str:
    firsts = [envs[0] for envs in (size.bsuite, size.control, size.minatar) if envs]
    return " and ".join(dict.fromkeys(firsts))


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(f"{n:,}" for n in numbers)


def _difference(values: BySeed) -> str:
    """A mean with its interval, where there are seeds enough."""
    if not values:
        return "not in the tables"
    if len(values) < FEWEST_SEEDS:
        return f"{_mean(values):+.2f} (seeds {' '.join(f'{x:+.2f}' for x in values.values())})"
    found = statistics.student_interval([*values.values()])
    return f"{found.estimate:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def _mean(values: BySeed) -> float:
    return math.fsum(values.values()) / len(values) if values else math.nan


def grids(numbers: Numbers) -> tuple[Grid, ...]:
    """Score of every objective in every part, and the rates that were chosen."""
    cells = [cell for cell in (AWARE, *RIVALS, *SHIPPED) if cell in numbers.scores]
    rows = [
        (
            f"{suite}, {where}",
            *(
                " ".join(f"{x:.2f}" for x in transfer.by_seed(numbers.scores[cell], tasks).values())
                for cell in cells
            ),
        )
        for (suite, where), tasks in numbers.parts.items()
    ]
    title = "score, a number for each search seed (A2C 1, no learning 0)"
    return (Grid(title, ("suite", *cells), rows),)


def conclude(size: str, tables: Mapping[str, Sequence[Any]]) -> Conclusion:
    """What the tables of one size say.

    Args:
      size: of the entry.
      tables: rows of :data:`TABLES`, by name.

    Returns:
      Tables for people, words and figure.
    """
    numbers = gather(size, tables[PLAYED.name])

    def draw() -> Figure:
        from discovery.evaluation.figures_transfer import claim_2

        return claim_2(numbers)

    return Conclusion(grids(numbers), verdict(size, numbers), draw, _facts(size, numbers))


def _facts(size: str, numbers: Numbers) -> dict[str, str]:
    chosen = SIZES[size]
    seeds = {s for by in numbers.scores.get(AWARE, {}).values() for s in by}
    return {
        "size": f"{size}: agents of {chosen.life.environments} x {chosen.life.rollout} steps an "
        f"update, {chosen.life.evaluation_environments} episodes a score",
        "search seeds": str(len(seeds)),
        "agents": f"one on each of {chosen.levels} drawn levels (stream test), or {chosen.agents} "
        "where an environment has one level",
        "intervals": "95 %, Student's over search seeds, of means over tasks; none of fewer than "
        f"{FEWEST_SEEDS} seeds",
        "rates": f"of networks, from {', '.join(f'{rate:g}' for rate in RATES)}; tables keep those "
        "of the search",
        "searches": "those of claim 1",
    }
