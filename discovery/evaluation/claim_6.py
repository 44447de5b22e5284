"""Claim 6, *which part of the search matters*: asked in review of TA-LPG, and never run.

How scores become weights (pairs or centred ranks), whether all pairs live on one task, whether
partners share their random stream: every combination, for TA-LPG and for its horizon-blind twin.
What a combination does to the worth of the clock is a difference of differences. Beside them the
forms of the clock. No JAX.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from discovery.config import PRESETS, Config, HorizonConfig
from discovery.evaluation.cells import AWARE, BLIND, GATES, within
from discovery.evaluation.claims import Conclusion, Grid, Levelled, Searched
from discovery.evaluation.contest import (
    AHEAD,
    BEHIND,
    EFFECT,
    NO_DIFFERENCE,
    UNTOLD,
    Book,
    Estimate,
    Reach,
    Where,
    judged,
    listed,
    million,
    minutes,
    number,
    ranges,
    spent,
    told,
)
from discovery.evaluation.contest import TABLES as TABLES
from discovery.evaluation.papers import Job
from discovery.evaluation.statistics import FEWEST_SEEDS, RESAMPLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = Any


class Setting(NamedTuple):
    """A combination of what may matter."""

    shaping: Literal["pair", "centred_rank"]
    one_task: bool
    shared_stream: bool

    @property
    def name(self) -> str:
        """In a table."""
        shaping = "pairs" if self.shaping == "pair" else "ranks"
        tasks = "one task" if self.one_task else "a task each"
        return f"{shaping}, {tasks}, stream {'shared' if self.shared_stream else 'apart'}"


_SHAPINGS: tuple[Literal["pair", "centred_rank"], ...] = ("pair", "centred_rank")
SETTINGS = tuple(
    Setting(shaping, one_task, stream)
    for one_task in (False, True)
    for shaping in _SHAPINGS
    for stream in (True, False)
)
"""Every combination; the first is ours, and the second the published one."""
OURS = SETTINGS[0]
CLOCKS = (
    "fraction_log",
    "fraction_scaled",
    "raw_scaled",
    "remaining",
    "horizon",
    "fraction",
)
"""Forms of the clock: four that know both n and N, then N alone and the share of life alone. The
first is TA-LPG's own."""
FACTORS, FORMS = "factors", "clocks"
"""Groups."""
SIGNALS = 8
"""Generations in which the signal of a pair is measured, about."""


class Size(NamedTuple):
    """How large everything is."""

    base: Config
    budget: float
    """Environment steps of a search: training, and scores up to their step limit. Generations that
    are repeated to measure their signal are not counted: no search learns from them."""
    law: HorizonConfig
    reach: Reach


def _base(preset: str) -> Config:
    config = PRESETS[preset][1]
    evolution = replace(config.evolution, start="init", fitness="final")
    return replace(config, preset="claim-6", evolution=evolution)


_CPU, _FULL = _base("quickstart"), _base("ta-lpg")
SIZES = {
    "cpu": Size(
        base=replace(
            _CPU,
            validation_levels=64,
            evolution=replace(
                _CPU.evolution, pairs=16, group=16, sigma=0.2, rate=0.02, rate_decay=1.0
            ),
        ),
        budget=1.5e7,
        law=HorizonConfig(5, 80),
        reach=Reach((5, 20, 80), 256),
    ),
    "full": Size(
        base=_FULL,
        budget=2.8e11,
        law=HorizonConfig(10, 250),
        reach=Reach((10, 25, 50, 100, 250), 256),
    ),
}
"""Every number of the entry; the rest follows."""


def jobs(size: str, seeds: Sequence[int]) -> list[Job]:
    """All searches of a size, seed by seed.

    Args:
      size: a key of :data:`SIZES`.
      seeds: of the searches; one seed gives one stream of tasks to all of them.

    Returns:
      The jobs.
    """
    chosen = SIZES[size]
    sweep = (chosen.reach,)
    found = []
    for seed in seeds:
        for setting, objective in itertools.product(SETTINGS, GATES):
            config = configured(chosen, setting, seed, gate=GATES[objective])
            found.append(Job(FACTORS, setting.name, objective, seed, config, sweep))
        for clock in CLOCKS[1:]:
            config = configured(chosen, OURS, seed, clock)
            found.append(Job(FORMS, clock, AWARE, seed, config, sweep))
    return found


def configured(
    size: Size, setting: Setting, seed: int, clock: str = CLOCKS[0], gate: float = 1.0
) -> Config:
    """The search of one combination.

    Args:
      size: numbers.
      setting: what may matter.
      seed: of the search.
      clock: what the objective sees of time.
      gate: 0 for the horizon-blind twin, in the same program.

    Returns:
      A configuration that ``config.check`` accepts.
    """
    base = size.base
    config = replace(
        base,
        seed=seed,
        horizon=size.law,
        objective=replace(base.objective, clock=clock, clock_gate=gate),
        evolution=replace(
            base.evolution,
            shaping=setting.shaping,
            shared_stream=setting.shared_stream,
            shared_task=setting.one_task,
        ),
    )
    config = within(config, size.budget)
    every = max(1, config.generations // SIGNALS)
    return replace(config, evolution=replace(config.evolution, signal_every=every))


# --- what the tables say ----------------------------------------------------------------------


class Part(NamedTuple):
    """What the tables say of one combination, or of one form of the clock."""

    name: str
    scores: dict[str, Estimate]
    """Objective -> mean over horizons of the interquartile mean of the normalised final score."""
    gain: Estimate | None
    """TA-LPG less its twin: what the clock is worth."""
    interaction: Estimate | None
    """That gain less the gain of our combination: a difference of differences."""
    signal: dict[str, float]
    """Objective -> correlation of the pairs' differences over two streams, mean over searches."""


class Numbers(NamedTuple):
    """What the tables say."""

    size: str
    settings: tuple[Part, ...]
    clocks: tuple[Part, ...]
    """Their gain is over the blind twin of our combination, and their interaction the difference
    to TA-LPG's own clock."""
    effects: dict[str, dict[str, Estimate]]
    """What is compared -> of which objectives -> mean difference over all that else may matter."""
    searches: tuple[Searched, ...]
    seeds: tuple[int, ...]


EFFECTS: dict[str, Callable[[Setting], bool]] = {
    "pairs less ranks": lambda setting: setting.shaping == "pair",
    "a task each less one task": lambda setting: not setting.one_task,
    "stream shared less apart": lambda setting: setting.shared_stream,
}
"""What is compared -> which settings have it."""


def gather(size: str, tables: Mapping[str, Sequence[Any]], resamples: int = RESAMPLES) -> Numbers:
    """Every number of the page and the picture, from the rows.

    Args:
      size: of the entry.
      tables: rows of :data:`TABLES`, by name.
      resamples: of the intervals.

    Returns:
      The numbers.
    """
    where = [Where(n) for n in SIZES[size].reach.horizons]
    searches = tuple(tables["searches"])
    book = Book(tables["levels"], resamples, _name)
    settings = tuple(
        part for each in SETTINGS if (part := _part(book, each.name, where, searches)).scores
    )
    twin = (OURS.name, BLIND)
    clocks = []
    for clock in CLOCKS:
        cell = OURS.name if clock == CLOCKS[0] else clock
        score = book.at(_key(cell, AWARE), where)
        if score is not None:
            own = _key(OURS.name, AWARE)
            part = Part(
                name=clock,
                scores={AWARE: score},
                gain=book.compare(_key(cell, AWARE), _key(*twin), where),
                interaction=None
                if cell == OURS.name
                else book.compare(_key(cell, AWARE), own, where),
                signal=_signals(searches, cell, (AWARE,)),
            )
            clocks.append(part)
    seeds = tuple(sorted({row.seed for row in tables["levels"]}))
    return Numbers(size, settings, tuple(clocks), _main(book, where), searches, seeds)


def _main(book: Book, where: Sequence[Where]) -> dict[str, dict[str, Estimate]]:
    """Main effects of each objective, where every combination is there."""
    found: dict[str, dict[str, Estimate]] = {}
    for name, has in EFFECTS.items():
        for objective in (AWARE, BLIND):
            plus, minus = (
                [_key(each.name, objective) for each in SETTINGS if has(each) == want]
                for want in (True, False)
            )
            if (effect := book.contrast(plus, minus, where)) is not None:
                found.setdefault(name, {})[objective] = effect
    return found


def _key(cell: str, objective: str) -> str:
    return cell + objective


def _name(row: Levelled) -> str:
    return _key(row.cell, row.objective)


def _part(book: Book, cell: str, where: Sequence[Where], searches: Sequence[Searched]) -> Part:
    """One combination."""
    mine, ours = ((_key(each, AWARE), _key(each, BLIND)) for each in (cell, OURS.name))
    scores = {
        objective: found
        for objective, name in zip((AWARE, BLIND), mine, strict=True)
        if (found := book.at(name, where))
    }
    interaction = None if mine == ours else book.interaction(mine, ours, where)
    return Part(
        cell,
        scores,
        book.compare(mine[0], mine[1], where),
        interaction,
        _signals(searches, cell, (AWARE, BLIND)),
    )


def _signals(
    searches: Sequence[Searched], cell: str, objectives: Sequence[str]
) -> dict[str, float]:
    found = {}
    for objective in objectives:
        values = [
            row.signal
            for row in searches
            if (row.cell, row.objective) == (cell, objective) and math.isfinite(row.signal)
        ]
        if values:
            found[objective] = math.fsum(values) / len(values)
    return found


def conclude(size: str, tables: Mapping[str, Sequence[Any]]) -> Conclusion:
    """What the tables of one size say.

    Args:
      size: of the entry.
      tables: rows of :data:`TABLES`, by name.

    Returns:
      Tables for people, words and figure.
    """
    numbers = gather(size, tables)

    def draw() -> Figure:
        from discovery.evaluation.figures_contest import claim_6

        return claim_6(numbers)

    return Conclusion(_grids(numbers), verdict(numbers), draw, _facts(numbers))


def _facts(numbers: Numbers) -> dict[str, str]:
    chosen, base = SIZES[numbers.size], SIZES[numbers.size].base
    claimed = len(numbers.seeds) >= FEWEST_SEEDS
    return {
        "size": f"{numbers.size}: {base.env} grid worlds, GRU {base.objective.width}, agents of "
        f"{base.life.environments} x {base.life.rollout} steps an update, "
        f"{base.evolution.pairs} pairs",
        "trained horizons": f"{chosen.law.shortest} to {chosen.law.longest} updates",
        "budget of a search": f"{million(chosen.budget)} million environment steps, training and "
        f"scores (took {spent(numbers.searches)})",
        "search seeds": ranges(numbers.seeds),
        "levels": f"{chosen.reach.levels} held out (stream test), "
        f"N = {', '.join(map(str, chosen.reach.horizons))}, sampled actions",
        "intervals": f"95 %, bootstrap of {RESAMPLES:,} resamples over search seeds, then levels, "
        "widened for few seeds"
        if claimed
        else f"none claimed of fewer than {FEWEST_SEEDS} search seeds",
        "searches took": f"{minutes(numbers.searches) / 60:.1f} h",
    }


def _signal(part: Part, objective: str) -> str:
    return number(part.signal[objective]) if objective in part.signal else ""


def _grids(numbers: Numbers) -> tuple[Grid, ...]:
    settings = [
        (
            part.name,
            *(told(part.scores.get(objective), "") for objective in (AWARE, BLIND)),
            told(part.gain),
            told(part.interaction),
            *(_signal(part, objective) for objective in (AWARE, BLIND)),
        )
        for part in numbers.settings
    ]
    clocks = [
        (
            part.name,
            told(part.scores[AWARE], ""),
            told(part.gain),
            told(part.interaction),
            _signal(part, AWARE),
        )
        for part in numbers.clocks
    ]
    return (
        Grid(
            "shaping, tasks and streams",
            ("search", AWARE, BLIND, "gain of the clock", "less ours", "signal", "signal, blind"),
            settings,
            (
                "scores: normalised, final, interquartile mean over seeds and levels, mean over N",
                f"gain of the clock: {AWARE} less {BLIND}; less ours: that gain less the gain of "
                "the first row",
                "signal: correlation of the pairs' differences over two random streams (0: luck)",
            ),
        ),
        Grid(
            "main effects: mean difference over all that else may matter",
            ("effect", AWARE, BLIND),
            [
                (name, *(told(by.get(objective)) for objective in (AWARE, BLIND)))
                for name, by in numbers.effects.items()
            ],
        ),
        Grid(
            f"forms of the clock ({OURS.name})",
            ("clock", "score", f"less {BLIND}", f"less {CLOCKS[0]}", "signal"),
            clocks,
        ),
    )


def verdict(numbers: Numbers) -> str:
    """What the numbers say.

    Args:
      numbers: from :func:`gather`.

    Returns:
      Paragraphs.
    """
    said = [
        f"Size {numbers.size}, search seeds {ranges(numbers.seeds)}."
        + (
            ""
            if len(numbers.seeds) >= FEWEST_SEEDS
            else f" With fewer than {FEWEST_SEEDS} no interval is claimed."
        )
        + f" What counts is {number(EFFECT)} of normalised score."
    ]
    gains = [(part.name, part.gain) for part in numbers.settings if part.gain]
    if gains:
        said.append(_sorted(f"{AWARE} against {BLIND}, search by search:", gains, f"{AWARE} is"))
    changes = [(part.name, part.interaction) for part in numbers.settings if part.interaction]
    if changes:
        said.append(
            _sorted(
                "Difference of differences, the gain of the clock less the gain under "
                f"'{OURS.name}':",
                changes,
                "the gain is",
            )
        )
    mains = [
        (f"{name}, {objective}", found)
        for name, by in numbers.effects.items()
        for objective, found in by.items()
    ]
    if mains:
        said.append(_sorted("Over all that else may matter:", mains, "the first is"))
    forms = [(part.name, part.gain) for part in numbers.clocks if part.gain]
    if forms:
        said.append(_sorted(f"Forms of the clock against {BLIND}:", forms, "it is"))
    return "\n\n".join(said)


def _sorted(title: str, found: Sequence[tuple[str, Estimate]], subject: str) -> str:
    """Which are ahead, behind, no different, not told."""
    words = {
        AHEAD: f"{subject} ahead in",
        BEHIND: f"{subject} behind in",
        NO_DIFFERENCE: "no practical difference in",
        UNTOLD: "not told in",
    }
    by = {
        kind: [
            f"'{name}' ({number(each.estimate, '+')})"
            for name, each in found
            if judged(each) == kind
        ]
        for kind in words
    }
    return f"{title} " + "; ".join(f"{words[k]} {listed(v)}" for k, v in by.items() if v) + "."
