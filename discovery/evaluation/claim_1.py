"""Claim 1, *a horizon-aware objective beats the horizon-blind one over a range of horizons*.

TA-LPG meets LPG, the controls of its clock and rivals whose agents follow schedules. All searches
share the law of tasks and the budget in environment steps; all objectives meet the same held-out
levels at horizons inside the trained range, below and above it. No JAX.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from discovery.config import PRESETS, Config, HorizonConfig
from discovery.evaluation.cells import within
from discovery.evaluation.claims import Conclusion, Grid, Searched
from discovery.evaluation.contest import (
    AHEAD,
    BEHIND,
    EFFECT,
    FEWER,
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
from discovery.evaluation.statistics import FEWEST_SEEDS, RESAMPLES, Interval, holm

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = Any

OURS = "TA-LPG"
BLIND = "LPG"
CONTROLS = ("constant", "elapsed")
"""What TA-LPG has to be above, beside LPG, if horizons are to be what it knows."""
QUIET = "quiet TA-LPG"
"""TA-LPG whose clock is turned down: chosen on validation levels alone, see :data:`CONTENDERS`."""
QUIET_RIVALS = (BLIND, "quiet constant", "elapsed", OURS)
"""What that is compared with: the blind twin, an input as loud that stands still, age, itself."""


UNIT = 1280
"""Environment steps that the clock's logarithms count in, see ``learned_objectives.clock``."""


class Contender(NamedTuple):
    """An objective that is searched for."""

    line: str
    """What it is, in a few words."""
    rule: str = "lpg"
    clock: str = "none"
    gate: float = 1.0
    own_ends: bool = False
    """The scaled log of the horizon is -1 and 1 at the ends of the law of this entry."""
    apart: bool = False
    """Searched apart at each of some horizons, instead of once over their range; each of them
    has its share of one search's budget, unless ``whole``."""
    whole: bool = False
    """Each of the searches at one horizon has the budget of one over the range."""

    @property
    def handwritten(self) -> bool:
        """Whether the search tunes the numbers of a hand-written rule."""
        return self.rule.startswith("a2c")


CONTENDERS: dict[str, Contender] = {
    OURS: Contender("sees n/N and ln N", clock="fraction_log"),
    "LPG": Contender("the same program, its clock times zero", clock="fraction_log", gate=0.0),
    "constant": Contender("a clock that stands still: same network, same noise", clock="constant"),
    "elapsed": Contender("sees its age alone", clock="elapsed"),
    "annealed LPG": Contender(
        "blind; its agents' rates follow an evolved schedule", "lpg-annealed"
    ),
    "A2C scheduled_N": Contender("A2C on schedules over n/N and N", "a2c-scheduled-n"),
    "A2C constant": Contender("A2C, one set of numbers", "a2c-constant"),
    "A2C oracle": Contender("A2C, constant, tuned for each N apart", "a2c-constant", apart=True),
    "scaled TA-LPG": Contender("sees n/N and ln N scaled to [-1, 1]", clock="fraction_scaled"),
    # Noise on a weight moves what an objective says by as much as the weight's input is large, so a
    # loud clock is a noisy search. Of 1, .3 and .1 times the features, .3 and .1 did best on the
    # search's own validation levels (three seeds, before any of these was searched for).
    QUIET: Contender(
        "sees n/N and ln N scaled to [-1, 1] over its own horizons, both times .3",
        clock="fraction_scaled",
        gate=0.3,
        own_ends=True,
    ),
    # (1/2, ln 50) times this has the mean square of the features above.
    "quiet constant": Contender("as loud a clock that stands still", clock="constant", gate=0.06),
    "specialist": Contender("LPG searched at one N", apart=True, whole=True),
}
"""Name -> contender, in the order in which they are shown."""


class Size(NamedTuple):
    """How large everything is."""

    base: Config
    """Networks, agents, rates: what all searches share."""
    budget: float
    """Environment steps of a search: training, and scores up to their step limit."""
    law: HorizonConfig
    trained: tuple[int, ...]
    """Horizons of the primary endpoint, inside the law."""
    below: tuple[int, ...]
    """Horizons shorter than any that is trained on."""
    above: tuple[int, ...]
    """Horizons longer than any that is trained on."""
    special: tuple[int, ...]
    """Horizons that have a specialist."""
    levels: int
    fewer: int
    """Levels of what costs most: horizons above, and scores along the life."""
    reference: tuple[float, float]
    """A2C's rates of policy and value around which its numbers are tuned: the best of random
    draws on validation levels."""


def _base(preset: str) -> Config:
    """A preset with what all contenders share."""
    config = PRESETS[preset][1]
    evolution = replace(config.evolution, start="init", shaping="pair", fitness="final")
    return replace(config, preset="claim-1", evolution=evolution)


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
        budget=4e7,
        law=HorizonConfig(5, 80),
        trained=(5, 10, 20, 40, 80),
        below=(2,),
        above=(160, 320),
        special=(5, 20, 80),
        levels=256,
        fewer=64,
        reference=(90.0, 0.22),
    ),
    "full": Size(
        base=_FULL,
        budget=2.8e11,
        law=HorizonConfig(10, 250),
        trained=(10, 25, 50, 100, 250),
        below=(5,),
        above=(500, 1000),
        special=(10, 50, 250),
        levels=256,
        fewer=256,
        reference=(40.0, 4.0),
    ),
}
"""Every number of the entry; the rest follows."""

RANGE = "range"
"""Group of the searches over the whole law; the others are called ``N=20`` and the like."""
TUNING = 0.1
"""Sigma of a search for the numbers of a hand-written rule: a factor 1.35 in each."""


def jobs(size: str, seeds: Sequence[int]) -> list[Job]:
    """All searches of a size, seed by seed; specialists, which cost most, for the first five.

    Args:
      size: a key of :data:`SIZES`.
      seeds: of the searches; one seed gives one stream of tasks to all contenders.

    Returns:
      The jobs.
    """
    chosen = SIZES[size]
    found = []
    for seed in seeds:
        for name, who in CONTENDERS.items():
            if who.whole and seed >= FEWEST_SEEDS:
                continue
            horizons = chosen.special if who.whole else chosen.trained
            for n in horizons if who.apart else (0,):
                config, sweep = configured(chosen, who, seed, n)
                found.append(Job(f"N={n}" if n else RANGE, name, who.rule, seed, config, sweep))
    return found


def configured(size: Size, who: Contender, seed: int, n: int) -> tuple[Config, tuple[Reach, ...]]:
    """The search for one contender, and how what it finds is scored.

    Args:
      size: numbers.
      who: what is searched for.
      seed: of the search.
      n: the one horizon that is searched at, or 0 for the whole law.

    Returns:
      A configuration that ``config.check`` accepts, and the reaches.
    """
    base = size.base
    config = replace(
        base,
        seed=seed,
        horizon=HorizonConfig(n, n) if n else size.law,
        objective=replace(base.objective, rule=who.rule, clock=who.clock, clock_gate=who.gate),
    )
    if who.own_ends:
        unit = base.life.environments * base.life.rollout / UNIT
        ends = size.law.shortest * unit, size.law.longest * unit
        config = replace(config, objective=replace(config.objective, log_ends=ends))
    if who.handwritten:
        policy, value = size.reference
        config = replace(
            config,
            agent=replace(config.agent, policy_rate=policy, prediction_rate=value),
            # The start of a schedule is its reference, whatever is asked for.
            evolution=replace(config.evolution, sigma=TUNING, start="zero"),
        )
    share = len(size.trained) if who.apart and not who.whole else 1
    config = within(config, size.budget / share)
    if n:
        return config, (Reach((n,), size.levels, greedy=True), Reach((n,), size.fewer, area=True))
    return config, (
        Reach(size.trained, size.levels, greedy=True),
        Reach(size.below, size.levels),
        Reach(size.above, size.fewer),
        Reach(size.trained, size.fewer, area=True),
    )


# --- what the tables say ----------------------------------------------------------------------


class Versus(NamedTuple):
    """TA-LPG against one rival."""

    rival: str
    primary: Estimate
    """Difference of the primary endpoint: inside the trained horizons, final, sampled."""
    improvement: Interval
    """Probability of improvement there."""
    greedy: Estimate | None
    secondary: dict[str, Estimate]
    """Each horizon, inside and outside, and the area: final and sampled scores."""
    adjusted: dict[str, float]
    """Their p-values by Holm's correction, over all of this rival."""


class Numbers(NamedTuple):
    """What the tables say."""

    size: str
    names: tuple[str, ...]
    """Contenders that have any scores."""
    curves: dict[str, dict[int, Estimate]]
    """Contender -> horizon -> interquartile mean, sampled actions."""
    primary: dict[str, Estimate]
    """Contender -> primary endpoint, of those that have every trained horizon."""
    versus: dict[str, Versus]
    quiet: dict[str, Estimate]
    """Rival -> how far TA-LPG with a quiet clock is above it, inside the trained horizons."""
    searches: tuple[Searched, ...]


def gather(size: str, tables: Mapping[str, Sequence[Any]], resamples: int = RESAMPLES) -> Numbers:
    """Every number of the page and the picture, from the rows.

    Args:
      size: of the entry.
      tables: rows of :data:`TABLES`, by name.
      resamples: of the intervals.

    Returns:
      The numbers.
    """
    chosen = SIZES[size]
    book = Book(tables["levels"], resamples)
    cells = {row.cell for row in tables["levels"]}
    names = tuple(name for name in CONTENDERS if name in cells)
    horizons = (*chosen.below, *chosen.trained, *chosen.above)
    curves = {
        name: {n: found for n in horizons if (found := book.at(name, [Where(n)]))} for name in names
    }
    inside = [Where(n) for n in chosen.trained]
    primary = {name: found for name in names if (found := book.at(name, inside))}
    rivals = [name for name in names if name != OURS]
    versus = {name: each for name in rivals if (each := _against(book, chosen, name))}
    quiet = {name: less for name in QUIET_RIVALS if (less := book.compare(QUIET, name, inside))}
    return Numbers(size, names, curves, primary, versus, quiet, tuple(tables["searches"]))


def _against(book: Book, size: Size, rival: str) -> Versus | None:
    """TA-LPG against one rival, where it has been searched: a specialist, at its horizons."""
    trained = tuple(n for n in size.trained if book.seeds([OURS, rival], [Where(n)]))
    if not trained:
        return None
    inside = [Where(n) for n in trained]
    primary, improvement = book.compare(OURS, rival, inside), book.improvement(OURS, rival, inside)
    if primary is None or improvement is None:
        return None
    places = {f"N={n}": [Where(n)] for n in (*trained, *size.below, *size.above)}
    places["area"] = [Where(n, measure="area") for n in trained]
    secondary = {
        name: found for name, where in places.items() if (found := book.compare(OURS, rival, where))
    }
    p = holm(np.array([each.p for each in secondary.values()]))
    adjusted = dict(zip(secondary, p.tolist(), strict=True))
    greedy = book.compare(OURS, rival, [Where(n, "greedy") for n in trained])
    return Versus(rival, primary, improvement, greedy, secondary, adjusted)


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
        from discovery.evaluation.figures_contest import claim_1

        return claim_1(numbers, SIZES[size])

    return Conclusion(_grids(numbers), verdict(numbers), draw, _facts(numbers))


def _facts(numbers: Numbers) -> dict[str, str]:
    chosen, base = SIZES[numbers.size], SIZES[numbers.size].base
    by = {name: found.seeds for name, found in numbers.primary.items()}
    whole = sorted({ranges(seeds) for seeds in by.values()}, key=len)
    return {
        "size": f"{numbers.size}: {base.env} grid worlds, GRU {base.objective.width}, agents of "
        f"{base.life.environments} x {base.life.rollout} steps an update",
        "trained horizons": f"{chosen.law.shortest} to {chosen.law.longest} updates",
        "budget of a search": f"{million(chosen.budget)} million environment steps, training and "
        "scores, for every contender",
        "search seeds": " or ".join(whole),
        "levels": f"{chosen.levels} held out (stream test), {chosen.fewer} of them above the "
        "trained horizons and for the area",
        "intervals": _intervals(numbers),
        "searches took": f"{minutes(numbers.searches) / 60:.1f} h",
    }


def _intervals(numbers: Numbers) -> str:
    few = min((len(found.seeds) for found in numbers.primary.values()), default=0)
    if few < FEWEST_SEEDS:
        return f"none claimed of fewer than {FEWEST_SEEDS} search seeds"
    return (
        f"95 %, bootstrap over search seeds, then levels, {RESAMPLES:,} resamples ({FEWER:,} of "
        "greedy actions, areas and probabilities), widened for few seeds"
    )


def _grids(numbers: Numbers) -> tuple[Grid, ...]:
    size = SIZES[numbers.size]
    horizons = (*size.below, *size.trained, *size.above)
    inside = f"N {size.trained[0]}-{size.trained[-1]}"
    scores = []
    for name in numbers.names:
        curve = numbers.curves[name]
        each = (number(curve[n].estimate) if n in curve else "" for n in horizons)
        mine = [row for row in numbers.searches if row.cell == name]
        scores.append((name, *each, told(numbers.primary.get(name), ""), spent(mine)))
    against = [
        (
            v.rival,
            told(v.primary),
            judged(v.primary),
            told(v.improvement, ""),
            told(v.greedy),
        )
        for v in numbers.versus.values()
    ]
    places = [*(f"N={n}" for n in (*size.below, *size.above)), "area"]
    outside = [
        (v.rival, *(told(v.secondary.get(place)) for place in places))
        for v in numbers.versus.values()
    ]
    blind = numbers.versus.get(BLIND)
    seconds = (
        [
            (name, told(found), f"{found.p:.3f}", f"{blind.adjusted[name]:.3f}")
            for name, found in blind.secondary.items()
        ]
        if blind
        else []
    )
    return (
        Grid(
            "normalised final score, sampled actions: interquartile mean over seeds and levels",
            ("contender", *(f"N={n}" for n in horizons), f"primary: {inside}", "Msteps"),
            scores,
            (
                "0 is random, 1 optimal; primary: mean over the trained horizons; "
                "specialists (a whole budget each) and the oracle (one in all) were searched "
                "at each N apart",
                "Msteps: million environment steps of a search, training + scores",
            ),
        ),
        Grid(
            f"{OURS} less each rival, paired by search seed and level",
            ("rival", "primary", "so it is", "P(better)", "greedy"),
            against,
            (
                "primary, greedy: mean over the trained horizons (of a specialist: its own)",
                f"what counts: {number(EFFECT)}; P(better): probability of improvement",
            ),
        ),
        Grid(
            f"{OURS} less each rival, outside the trained horizons, and area along the life inside",
            ("rival", *places),
            outside,
        ),
        Grid(
            f"secondary endpoints: {OURS} less {BLIND}",
            ("endpoint", "difference", "p", "p, Holm"),
            seconds,
        ),
    )


def verdict(numbers: Numbers) -> str:
    """What the numbers say of the claim, and what they do not say.

    Args:
      numbers: from :func:`gather`.

    Returns:
      Paragraphs.
    """
    if BLIND not in numbers.versus:
        return f"{OURS} and {BLIND} are not both in the tables yet."
    size, blind = SIZES[numbers.size], numbers.versus[BLIND]
    seeds = blind.primary.seeds
    first = (
        f"Size {numbers.size}, search seeds {ranges(seeds)}. Inside the trained horizons "
        f"(N from {size.law.shortest} to {size.law.longest}) {OURS} less {BLIND} is "
        f"{told(blind.primary)} in normalised final score, greedy {told(blind.greedy)}; a search "
        f"for {OURS} is the better one on a level with probability {told(blind.improvement, '')}. "
    )
    first += {
        AHEAD: f"So {OURS} is ahead of {BLIND}.",
        BEHIND: f"So {OURS} is behind {BLIND}: the claim does not hold at this size.",
        NO_DIFFERENCE: "That is no practical difference: the claim does not hold at this size.",
        UNTOLD: "That does not tell them apart."
        if len(seeds) >= FEWEST_SEEDS
        else f"With fewer than {FEWEST_SEEDS} search seeds no interval is claimed.",
    }[judged(blind.primary)]
    said = [first, _outside(size, blind), _controls(numbers), _rivals(numbers), _quiet(numbers)]
    return "\n\n".join(filter(None, said))


def _outside(size: Size, blind: Versus) -> str:
    """Horizons never trained on."""
    said = []
    for place, horizons in (("Below", size.below), ("Above", size.above)):
        found = [
            f"N={n}: {told(blind.secondary[f'N={n}'])}"
            for n in horizons
            if f"N={n}" in blind.secondary
        ]
        said.append(f"{place} the trained horizons {OURS} less {BLIND} is {listed(found)}.")
    if not all(found.claimed for found in blind.secondary.values()):
        return " ".join(said)
    counts = [
        f"{name} ({number(found.estimate, '+')})"
        for name, found in blind.secondary.items()
        if blind.adjusted[name] < 0.05
    ]
    said.append(
        f"By Holm's correction at .05, of {len(blind.secondary)} secondary endpoints "
        + (f"these differ from zero: {listed(counts)}." if counts else "none differs from zero.")
    )
    return " ".join(said)


def _controls(numbers: Numbers) -> str:
    """Is it the horizon?"""
    needed = [name for name in (BLIND, *CONTROLS) if name in numbers.versus]
    above = [name for name in needed if judged(numbers.versus[name].primary) == AHEAD]
    each = ", ".join(f"{name} {told(numbers.versus[name].primary)}" for name in needed)
    is_aware = len(above) == len((BLIND, *CONTROLS))
    return (
        f"To speak of horizon awareness, {OURS} has to be above {listed((BLIND, *CONTROLS))}: "
        f"it is ahead of them by {each}. "
        + ("It is above all of them." if is_aware else "It is not above all of them.")
    )


def _quiet(numbers: Numbers) -> str:
    """The same with less noise on the clock."""
    if not numbers.quiet:
        return ""
    each = [f"{name} {told(found)} ({judged(found)})" for name, found in numbers.quiet.items()]
    needed = QUIET_RIVALS[:3]
    above = all(name in numbers.quiet and judged(numbers.quiet[name]) == AHEAD for name in needed)
    return (
        "Noise on a weight tells the more, the larger its input is. With the clock's features "
        f"scaled to the trained horizons and turned down to {CONTENDERS[QUIET].gate:g} of that "
        f"(chosen on validation levels), {QUIET} is, less each rival: {'; '.join(each)}. "
        + (
            f"So with a quiet clock horizon awareness is worth something: it is above "
            f"{listed(needed)}."
            if above
            else f"It is not above all of {listed(needed)}."
        )
    )


def _rivals(numbers: Numbers) -> str:
    """Everybody else."""
    by: dict[str, list[str]] = {}
    for name, versus in numbers.versus.items():
        if name not in (BLIND, *CONTROLS):
            by.setdefault(judged(versus.primary), []).append(
                f"{name} ({number(versus.primary.estimate, '+')})"
            )
    words = {
        AHEAD: f"{OURS} is ahead of",
        BEHIND: f"{OURS} is behind",
        NO_DIFFERENCE: "There is no practical difference to",
        UNTOLD: "Not told apart from it are",
    }
    return " ".join(f"{words[kind]} {listed(by[kind])}." for kind in words if kind in by)
