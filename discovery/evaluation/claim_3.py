"""What the tables of claim 3 say: numbers of each cell, a page, and words. No JAX.

A number of a cell is a mean over horizons; its sample is the search seeds. From five seeds on it
has Student's interval over them (the tables hold means over levels, not levels), and a cell is said
to do something if the whole interval is above zero and the mean above :data:`EFFECT`. With fewer
seeds no interval is claimed, and a cell has to do it in every seed, by more than that.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from discovery.evaluation.cells import (
    AWARE,
    BLIND,
    CELLS,
    FLIPS,
    GATES,
    LONG,
    SHORT,
    SIZES,
    START,
    Cell,
)
from discovery.evaluation.cells import jobs as jobs
from discovery.evaluation.claims import (
    FALSE_CLOCKS,
    SENSITIVITIES,
    Clocked,
    Conclusion,
    Grid,
    Scored,
    Table,
)
from discovery.evaluation.papers import Job
from discovery.evaluation.statistics import FEWEST_SEEDS, Interval, student_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = Any

EFFECT = 0.02
"""Normalised score below which a difference is of no practical importance; set before any run."""


def _scored(job: Job) -> set[tuple[Any, ...]]:
    generations = 0 if job.is_start else job.config.generations
    return {(n, job.sweep.levels, generations) for n in job.sweep.horizons}


def _clocked(job: Job) -> set[tuple[Any, ...]]:
    if not job.sees_clock:
        return set()
    return {
        (measure, n, job.sweep.clock_levels)
        for measure in (*FALSE_CLOCKS, *SENSITIVITIES)
        for n in job.sweep.clock_horizons
    }


TABLES = (
    Table(
        name="scores",
        kind=Scored,
        key=("horizon", "levels", "generations"),
        wanted=_scored,
        measure="discovery.evaluation.trials:scored",
    ),
    Table(
        name="clock",
        kind=Clocked,
        key=("measure", "horizon", "levels"),
        wanted=_clocked,
        measure="discovery.evaluation.trials:clocked",
    ),
)
"""What each search found is worth, and what it makes of its clock."""

BySeed = dict[int, float]
"""Search seed -> mean over horizons."""


class CellNumbers(NamedTuple):
    """What the tables say of one cell."""

    group: str
    name: str
    line: str
    null: str
    gain: dict[str, BySeed]
    """Objective -> interquartile mean of the normalised score, less that of the start."""
    ahead: BySeed
    """TA-LPG less its twin of the same seed."""
    losses: dict[str, BySeed]
    """False clock -> what it costs TA-LPG."""
    sensitivities: dict[str, BySeed]
    """Measure -> sensitivity of TA-LPG's words."""
    steps: float
    """Environment steps of training, mean over searches."""
    evaluation_steps: float
    minutes: float
    """Of a search, mean."""
    generations: int


def gather(scores: Iterable[Scored], clocks: Iterable[Clocked]) -> list[CellNumbers]:
    """Numbers of every cell that the tables have, in the order of :data:`CELLS`.

    Args:
      scores: of one size.
      clocks: of the same.

    Returns:
      A cell each.
    """
    scores, clocks = list(scores), list(clocks)
    found = []
    for group, cells in CELLS.items():
        for name, cell in cells.items():
            rows = [row for row in scores if (row.group, row.cell) == (group, name)]
            uses = [use for use in clocks if (use.group, use.cell) == (group, name)]
            if rows:
                found.append(_numbers(group, name, cell, rows, uses))
    return found


def _numbers(
    group: str, name: str, cell: Cell, rows: Sequence[Scored], uses: Sequence[Clocked]
) -> CellNumbers:
    """Numbers of one cell from its rows."""
    gain, score = {}, {}
    for objective in GATES:
        mine = [row for row in rows if row.objective == objective]
        gain[objective] = _by_seed((row.seed, row.iqm - row.start_iqm) for row in mine)
        score[objective] = _by_seed((row.seed, row.iqm) for row in mine)
    ahead = {
        seed: value - score[BLIND][seed]
        for seed, value in score[AWARE].items()
        if seed in score[BLIND]
    }
    losses, sensitivities = (
        {
            measure: _by_seed((use.seed, use.value) for use in uses if use.measure == measure)
            for measure in measures
            if any(use.measure == measure for use in uses)
        }
        for measures in (FALSE_CLOCKS, SENSITIVITIES)
    )
    searches = {(row.objective, row.seed): row for row in rows}.values()
    return CellNumbers(
        group=group,
        name=name,
        line=cell.line,
        null=cell.null,
        gain=gain,
        ahead=ahead,
        losses=losses,
        sensitivities=sensitivities,
        steps=_mean(row.steps for row in searches),
        evaluation_steps=_mean(row.evaluation_steps for row in searches),
        minutes=_mean(row.minutes for row in searches),
        generations=max(row.generations for row in searches),
    )


def _by_seed(pairs: Iterable[tuple[int, float]]) -> BySeed:
    values: dict[int, list[float]] = defaultdict(list)
    for seed, value in pairs:
        values[seed].append(value)
    return {seed: _mean(values[seed]) for seed in sorted(values)}


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return math.fsum(listed) / len(listed) if listed else math.nan


def mean_loss(cell: CellNumbers) -> BySeed:
    """Seed -> mean over the false clocks of what they cost."""
    return _by_seed(pair for by in cell.losses.values() for pair in by.items())


# --- in words ---------------------------------------------------------------------------------


def claimed(values: Mapping[int, float]) -> Interval | None:
    """Mean over search seeds with its interval; ``None`` of too few seeds, or not finite ones."""
    if len(values) < FEWEST_SEEDS or not all(map(math.isfinite, values.values())):
        return None
    return student_interval(list(values.values()))


def counts(values: Mapping[int, float]) -> bool:
    """Whether something is so, by an effect that counts: of few seeds, in every single one."""
    if len(values) < FEWEST_SEEDS:
        return bool(values) and all(value > EFFECT for value in values.values())
    found = claimed(values)
    return found is not None and found.low > 0 and found.estimate > EFFECT


def uses_clock(cell: CellNumbers, nulls: Sequence[CellNumbers]) -> bool:
    """Whether false clocks cost more than they cost either null, paired by search seed.

    A search moves every weight, and so changes what a clock does, even if it learns nothing: what
    counts is the difference to an objective that was not searched, and to one that was searched on
    coin flips.
    """
    mine = mean_loss(cell)
    others = [mean_loss(null) for null in nulls]
    return bool(others) and all(
        counts({seed: mine[seed] - other[seed] for seed in mine.keys() & other.keys()})
        for other in others
    )


def verdict(size: str, cells: Sequence[CellNumbers]) -> str:
    """What the numbers say of the claim, and what they do not say.

    Args:
      size: of the entry.
      cells: from :func:`gather`.

    Returns:
      A paragraph.
    """
    seeds = {seed for cell in cells for by in cell.gain.values() for seed in by}
    many = f"{len(seeds)} search seed{'s' * (len(seeds) != 1)}"
    if len(seeds) < FEWEST_SEEDS:
        many += ": points, and no interval is claimed"
        rule = f"it is above {number(EFFECT)} in every seed"
    else:
        many += ", 95 % intervals over them (Student's)"
        rule = f"its interval is above 0 and its mean above {number(EFFECT)}"
    said = [
        f"Size {size}, {many}. Scores are interquartile means over held-out levels, averaged over "
        f"horizons; something counts if {rule}."
    ]
    for group in CELLS:
        mine = [cell for cell in cells if cell.group == group]
        searched = [cell for cell in mine if not cell.null]
        if searched:
            law = SIZES[size].laws[group]
            words = " ".join(_of_group(searched, [cell for cell in mine if cell.null], group))
            said.append(f"N from {law.shortest} to {law.longest}. {words}")
    return "\n\n".join(said)


def _of_group(
    searched: Sequence[CellNumbers], nulls: Sequence[CellNumbers], group: str
) -> list[str]:
    """Sentences on one group of horizons."""
    said = []
    for objective in (AWARE, BLIND):
        gains = {cell.name: cell.gain[objective] for cell in searched if cell.gain[objective]}
        said.append(f"{objective} improves on its untrained start: {_split(gains)}.")
    ahead = {cell.name: cell.ahead for cell in searched if cell.ahead}
    said.append(f"TA-LPG is ahead of its horizon-blind twin: {_split(ahead)}.")
    behind = {name: {s: -v for s, v in by.items()} for name, by in ahead.items()}
    if worse := [f"{name} ({_signed(ahead[name])})" for name in ahead if counts(behind[name])]:
        said.append(f"It is behind in {_names(worse)}.")
    if {null.null for null in nulls if null.losses} != {START, FLIPS}:
        return [*said, "The nulls of the clock are not in the tables yet."]
    users = [cell.name for cell in searched if cell.losses and uses_clock(cell, nulls)]
    others = [cell.name for cell in searched if cell.losses and cell.name not in users]
    costs = ", ".join(f"{null.line}: {_signed(mean_loss(null))}" for null in nulls)
    said.append(
        f"False clocks cost more than in both nulls ({costs}) "
        f"in {_names(users) or 'no cell'}" + (f", and not in {_names(others)}." if others else ".")
    )
    if not any(map(counts, ahead.values())):
        return [
            *said,
            "In no cell is TA-LPG ahead of its twin by what counts, so the effect that the claim "
            "is about is absent at this size: "
            "that a cell does not use its clock says nothing about the claim.",
        ]
    said.append(_explained({cell.name: cell for cell in searched}, {*users}, group))
    return said


class Pattern(NamedTuple):
    """What is to be seen if one thing keeps objectives from using their clock."""

    cause: str
    uses: frozenset[str]
    """Cells whose objectives use it."""
    does_not: frozenset[str]


_TRUNCATION, _ALONG = "truncation of lives", "a score along the life"
_PATTERNS = {
    LONG: (
        Pattern(_TRUNCATION, frozenset({"E1"}), frozenset({"E3", "G3"})),
        Pattern(_ALONG, frozenset({"E1", "E3", "G3"}), frozenset({"E2", "E4", "G4"})),
    ),
    SHORT: (
        Pattern(_TRUNCATION, frozenset({"E1s", "G1"}), frozenset({"E3s"})),
        Pattern(_ALONG, frozenset({"E1s", "E3s", "G1"}), frozenset({"E2s", "E4s", "G2"})),
    ),
}
"""Group of horizons -> explanations."""


def _explained(cells: Mapping[str, CellNumbers], users: set[str], group: str) -> str:
    """Which of the explanations the cells fit, if it can be told."""
    patterns = _PATTERNS[group]
    needed = frozenset().union(*(p.uses | p.does_not for p in patterns))
    missing = [
        name
        for name in sorted(needed)
        if name not in cells or not cells[name].losses or not counts(cells[name].gain[AWARE])
    ]
    if missing:
        return (
            f"Which explanation fits cannot be told: {_names(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing or did not improve on the start."
        )
    fits = [p.cause for p in patterns if p.uses <= users and not p.does_not & users]
    if not fits:
        return f"That fits neither explanation, {_TRUNCATION} or {_ALONG}."
    return f"That is what is to be expected if {' or '.join(fits)} keeps the clock from being used."


def _split(by_cell: Mapping[str, BySeed]) -> str:
    """Cells where something is so, where it is in some seeds only, and where in none."""
    every = {name: values for name, values in by_cell.items() if counts(values)}
    some = [
        name
        for name, values in by_cell.items()
        if name not in every and any(value > EFFECT for value in values.values())
    ]
    none = [name for name in by_cell if name not in every and name not in some]
    numbers = [f"{name} ({_signed(values)})" for name, values in every.items()]
    parts = (("in ", numbers), ("in some seeds only in ", some), ("not in ", none))
    return "; ".join(word + _names(names) for word, names in parts if names) or "no numbers yet"


def _names(names: Sequence[str]) -> str:
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _signed(values: Mapping[int, float]) -> str:
    """The mean over seeds, with its interval if one is claimed."""
    text = number(_mean(values.values()), "+")
    found = claimed(values)
    return f"{text} [{number(found.low, '+')}, {number(found.high, '+')}]" if found else text


def number(value: float, sign: str = "") -> str:
    """Two digits: ``+.05``."""
    # Rounded first, and no minus before a zero.
    text = f"{round(value, 2) + 0.0:{sign}.2f}"
    return text.replace("0.", ".", 1) if abs(value) < 0.995 else text


# --- as a page --------------------------------------------------------------------------------


def grids(cells: Sequence[CellNumbers]) -> tuple[Grid, Grid]:
    """Two tables: scores, and clocks; of few seeds, every seed's number is shown."""
    scores, clocks = [], []
    for cell in cells:
        steps = f"{cell.steps / 1e6:.0f}+{cell.evaluation_steps / 1e6:.0f}"
        told = [steps, *(_seeds(cell.gain[objective]) for objective in GATES)]
        if cell.null == START:  # of itself: no search, no gain
            told = [""] * len(told)
        scores.append((cell.name, *told, _seeds(cell.ahead)))
        if cell.losses:
            words = [_spread(cell.sensitivities.get(name, {})) for name in SENSITIVITIES]
            clocks.append((cell.name, _seeds(mean_loss(cell)), *words))
    return (
        Grid(
            "score on held-out levels, a number for each search seed or their mean and interval",
            ("cell", "Msteps", "TA-LPG gains", "LPG gains", "TA-LPG less LPG"),
            scores,
            ("Msteps: million environment steps, training + scores; gains: over the start",),
        ),
        Grid(
            "TA-LPG and its clock",
            ("cell", "false clock", "S_pi n/N", "S_pi N", "S_y n/N", "S_y N"),
            clocks,
            (
                "false clock: what one costs, mean over them all",
                "S: how far its words follow a told share of life (n/N), a told horizon (N); "
                "a number a seed, or median and range",
            ),
        ),
    )


def _spread(values: Mapping[int, float]) -> str:
    """Numbers that are positive and far from normal: of many, their median and their range."""
    if len(values) < FEWEST_SEEDS:
        return " ".join(map(number, values.values()))
    ordered = sorted(values.values())
    return f"{number(median(ordered))} ({number(ordered[0])} to {number(ordered[-1])})"


def _seeds(values: Mapping[int, float], sign: str = "+") -> str:
    found = claimed(values)
    if found is None:
        return " ".join(number(value, sign) for value in values.values())
    ends = f"[{number(found.low, sign)}, {number(found.high, sign)}]"
    return f"{number(found.estimate, sign)} {ends}"


def conclude(size: str, tables: Mapping[str, Sequence[Any]]) -> Conclusion:
    """What the tables of one size say.

    Args:
      size: of the entry.
      tables: rows of :data:`TABLES`, by name.

    Returns:
      Tables for people, words and figure.
    """
    cells = gather(tables["scores"], tables["clock"])

    def draw() -> Figure:
        from discovery.evaluation.figures_claims import claim_3

        return claim_3(cells, {group: _label(size, group) for group in CELLS})

    return Conclusion(grids(cells), verdict(size, cells), draw, _facts(size, cells))


def _facts(size: str, cells: Sequence[CellNumbers]) -> dict[str, str]:
    chosen = SIZES[size]
    base, sweep = chosen.base, chosen.sweeps[LONG]
    seeds = {seed for cell in cells for by in cell.gain.values() for seed in by}
    budgets = " or ".join(f"{steps / 1e6:,.0f}" for steps in chosen.budget.values())
    return {
        "size": f"{size}: {base.env} grid worlds, GRU {base.objective.width}, agents of "
        f"{base.life.environments} x {base.life.rollout} steps an update",
        "trained horizons": " or ".join(
            f"{law.shortest} to {law.longest} updates" for law in chosen.laws.values()
        ),
        "budget of a search": f"{budgets} million environment steps, training and scores",
        "search seeds": ", ".join(map(str, sorted(seeds))),
        "levels": f"{sweep.levels} held out (stream test), {sweep.clock_levels} for clocks",
        "intervals": "95 %, Student's over search seeds"
        if len(seeds) >= FEWEST_SEEDS
        else f"none claimed of fewer than {FEWEST_SEEDS} search seeds",
    }


def _label(size: str, group: str) -> str:
    law = SIZES[size].laws[group]
    return f"N from {law.shortest} to {law.longest}"
