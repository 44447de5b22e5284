"""Claim 5, *a learned schedule goes from optimistic to pessimistic and stretches with the horizon*.

Nothing is searched for it: the objectives are those of claims 1 and 4. The evidence is causal.
Agent and experience are frozen and only the share of life that is told is moved; the claim holds
where the slope has the stated sign in at least four of five search seeds. Curves of lives stand
beside it as description: entropy falls under any rule. No JAX.

Shape legend: ``U`` shares of life told, ``N`` updates of a life.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from discovery.config import AgentConfig, UpdateConfig
from discovery.evaluation import claim_1, claim_4, slopes
from discovery.evaluation.claims import Conclusion, Grid, Table
from discovery.evaluation.papers import Job
from discovery.evaluation.statistics import FEWEST_SEEDS

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = Any

ENOUGH = 0.8
"""Share of search seeds in which a slope must have the stated sign."""
UNTRAINED, PPO = "untrained", "PPO"
AWARE = claim_1.OURS
BLIND = "LPG"
CHOSEN = (AWARE, "scaled TA-LPG", "elapsed", "constant", BLIND)
"""Of claim 1's contenders."""
STATIC = ("constant", BLIND)
"""Of these, those that could say nothing else whatever share of life they are told."""
DRIFTS = (claim_4.AWARE, claim_4.BLIND)
"""Of claim 4's contenders."""
SIGNS = (1.0, -1.0)
"""Advantages at which a drift is examined."""
THOUSANDTHS = 1e3
"""Changes of entropy and KL are kept in thousandths of a nat."""


class Look(NamedTuple):
    """What is looked at of one objective."""

    levels: int
    """Validation levels."""
    told: tuple[int, ...] = ()
    """Horizons of the lives from which experience is recorded, to be told other times."""
    lived: tuple[int, ...] = ()
    """Horizons of the lives that are watched."""
    drift: int = 0
    """Horizon that a drift is told; 0 for an objective that has none."""


class Moved(NamedTuple):
    """What one update does, by the share of life that it is told; mean over levels."""

    size: str
    group: str
    cell: str
    objective: str
    seed: int
    horizon: int
    age: int
    """Updates truly done when agent and experience were recorded."""
    measure: str
    """``entropy``, the change of the policy's entropy, or ``kl``, the size of the update; both in
    thousandths of a nat."""
    levels: int
    digest: str
    values: tuple[float, ...]
    """At the shares of :func:`discovery.evaluation.slopes.shares`."""


class Turned(NamedTuple):
    """Where a drift turns the policy away, by the share of life that it is told."""

    size: str
    group: str
    cell: str
    objective: str
    seed: int
    horizon: int
    advantage: float
    measure: str
    """``half``: past this ratio less than half of the push is left; ``back``: it points back."""
    digest: str
    ratios: tuple[float, ...]
    """At the shares of :func:`discovery.evaluation.slopes.shares`; NaN: nowhere within reach."""


class Lived(NamedTuple):
    """What happens along lives of one horizon, mean over levels."""

    size: str
    group: str
    cell: str
    objective: str
    seed: int
    horizon: int
    measure: str
    """``entropy`` of the policy before an update, in nats, or ``kl`` of it from the one after, in
    thousandths of a nat."""
    levels: int
    digest: str
    values: tuple[float, ...]
    """At every update."""


class Surface(NamedTuple):
    """The push that a drift leaves, over ratios: a row of a heat map."""

    size: str
    group: str
    cell: str
    objective: str
    seed: int
    horizon: int
    share: float
    """Of life, told."""
    advantage: float
    digest: str
    pushes: tuple[float, ...]
    """A - dD/dp at :data:`RATIOS`."""


MEASURES = ("entropy", "kl")
RATIOS = np.geomspace(0.25, 4, 41)
"""At which surfaces are told, with 1 in the middle."""
ADVANTAGES = tuple(np.linspace(-2, 2, 9).tolist())
TIMES = (0.0, 0.5, 0.95)
"""Shares of life at which surfaces are told."""


def _moved(job: Job) -> set[tuple[Any, ...]]:
    look: Look = job.sweep
    return {
        (n, age, measure, look.levels)
        for n in look.told
        for age in slopes.ages(n)
        for measure in MEASURES
    }


def _turned(job: Job) -> set[tuple[Any, ...]]:
    look: Look = job.sweep
    if not look.drift:
        return set()
    return {(look.drift, sign, measure) for sign in SIGNS for measure in ("half", "back")}


def _surfaces(job: Job) -> set[tuple[Any, ...]]:
    look: Look = job.sweep
    return {(look.drift, t, a) for t in TIMES for a in ADVANTAGES} if look.drift else set()


def _lived(job: Job) -> set[tuple[Any, ...]]:
    look: Look = job.sweep
    return {(n, measure, look.levels) for n in look.lived for measure in MEASURES}


_MEASURES = "discovery.evaluation.schedule_trials"
TABLES = (
    Table(
        name="moved",
        kind=Moved,
        key=("horizon", "age", "measure", "levels"),
        wanted=_moved,
        measure=f"{_MEASURES}:moved",
    ),
    Table(
        name="turns",
        kind=Turned,
        key=("horizon", "advantage", "measure"),
        wanted=_turned,
        measure=f"{_MEASURES}:turned",
    ),
    Table(
        name="drifts",
        kind=Surface,
        key=("horizon", "share", "advantage"),
        wanted=_surfaces,
        measure=f"{_MEASURES}:surfaces",
    ),
    Table(
        name="lives",
        kind=Lived,
        key=("horizon", "measure", "levels"),
        wanted=_lived,
        measure=f"{_MEASURES}:lived",
    ),
)
"""One update told other times, where drifts turn, what they leave of the push, and lives."""


class Size(NamedTuple):
    """How large everything is."""

    told: tuple[int, ...]
    """Horizons of recorded lives, inside the trained ones."""
    lived: tuple[int, ...]
    """Horizons of watched lives, each four times the one before."""
    levels: int


SIZES = {
    "cpu": Size(told=(10, 40, 80), lived=(10, 40, 160), levels=32),
    "full": Size(told=(10, 50, 250), lived=(25, 100, 400), levels=64),
}
"""Every number of the entry; the rest follows."""


def jobs(size: str, seeds: Sequence[int]) -> list[Job]:
    """What is looked at: objectives of claims 1 and 4, one that was never trained, and PPO.

    Args:
      size: a key of :data:`SIZES`.
      seeds: of the searches.

    Returns:
      The jobs, seed by seed.
    """
    chosen = SIZES[size]
    home = "claim-1" if size == next(iter(SIZES)) else f"claim-1-{size}"
    look = Look(chosen.levels, chosen.told, chosen.lived)
    found = []
    for seed in seeds:
        searched = {
            job.cell: job for job in claim_1.jobs(size, [seed]) if job.group == claim_1.RANGE
        }
        ours = searched[AWARE]._replace(sweep=look)
        found.append(ours._replace(cell=UNTRAINED, start=UNTRAINED, sweep=look._replace(lived=())))
        for name in CHOSEN:
            seen = look if name not in STATIC else look._replace(told=())
            found.append(searched[name]._replace(sweep=seen, home=home))
    for seed in seeds[:1]:
        config = replace(found[0].config, agent=_PPO_AGENT)
        seen = look._replace(told=())
        found.append(Job(claim_1.RANGE, PPO, "ppo", seed, config, seen, source="ppo"))
    home = "claim-4" if size == next(iter(SIZES)) else f"claim-4-{size}"
    for job in claim_4.jobs(size, seeds):
        if job.cell in DRIFTS:
            n = job.config.horizon.longest
            # Where rates fall, the clock moves them too: of updates this says nothing of the drift.
            alone = job.cell == claim_4.AWARE and job.config.agent.update.anneal == 0
            seen = Look(chosen.levels, told=(n,) if alone else (), drift=n)
            found.append(job._replace(sweep=seen, home=home))
        elif job.source and job.config.agent.update.anneal == 0:
            look = Look(chosen.levels, drift=job.config.horizon.longest)
            found.append(job._replace(sweep=look))
    return found


_PPO_AGENT = AgentConfig(
    network="table",
    optimizer="adam",
    policy_rate=0.05,
    prediction_rate=0.05,
    update=UpdateConfig(epochs=4, minibatches=4),
)
"""PPO's in a table, not tuned: it is there to be looked at."""


# --- what the tables say ----------------------------------------------------------------------

BySeed = dict[int, float]
"""Search seed -> a number."""
Curves = dict[int, dict[int, Float[np.ndarray, "..."]]]
"""Horizon -> search seed -> values."""
Ratios = dict[float, dict[int, Float[np.ndarray, "..."]]]
"""Advantage -> search seed -> ratios by the share of life told."""


class Numbers(NamedTuple):
    """What the tables say, by cell."""

    entropy: dict[str, Curves]
    """Change of entropy by one update, in nats, by the share told; mean over levels and ages."""
    kl: dict[str, Curves]
    """Size of one update, in nats, likewise."""
    lives: dict[str, Curves]
    """Entropy at every update of lives, in nats."""
    half: dict[str, Ratios]
    """Where half of a drift's push is gone; cells are named with their group."""
    back: dict[str, Ratios]
    """Where it points back."""
    drift: int
    """Horizon that drifts were told."""
    maps: dict[str, dict[float, Float[np.ndarray, "A R"]]]
    """Push that is left by the share told, at :data:`ADVANTAGES` and :data:`RATIOS`, mean over
    search seeds."""


def gather(tables: Mapping[str, Sequence[Any]]) -> Numbers:
    """Rows of one size, by cell, horizon and search seed.

    Args:
      tables: rows of :data:`TABLES`, by name.

    Returns:
      The numbers.
    """
    told: dict[str, dict[str, dict[int, dict[int, list[np.ndarray]]]]] = {}
    for row in sorted(tables["moved"], key=_place):
        by_seed = told.setdefault(row.measure, {}).setdefault(row.cell, {})
        ages = by_seed.setdefault(row.horizon, {}).setdefault(row.seed, [])
        ages.append(np.array(row.values) / THOUSANDTHS)
    mean = {
        measure: {
            cell: {
                n: {seed: np.mean(ages, axis=0) for seed, ages in sorted(by_seed.items())}
                for n, by_seed in sorted(by_horizon.items())
            }
            for cell, by_horizon in cells.items()
        }
        for measure, cells in told.items()
    }
    lives: dict[str, Curves] = {}
    for row in sorted(tables["lives"], key=_place):
        if row.measure == "entropy":
            by_horizon = lives.setdefault(row.cell, {})
            by_horizon.setdefault(row.horizon, {})[row.seed] = np.array(row.values)
    turns: dict[str, dict[str, Ratios]] = {"half": {}, "back": {}}
    for row in sorted(tables["turns"], key=_place):
        by_sign = turns[row.measure].setdefault(f"{row.cell}, {row.group}", {})
        by_sign.setdefault(row.advantage, {})[row.seed] = np.array(row.ratios)
    drift = max((row.horizon for row in tables["turns"]), default=0)
    pushes: dict[str, dict[float, dict[float, list[tuple[float, ...]]]]] = {}
    for row in sorted(tables["drifts"], key=_place):
        by_time = pushes.setdefault(f"{row.cell}, {row.group}", {}).setdefault(row.share, {})
        by_time.setdefault(row.advantage, []).append(row.pushes)
    maps = {
        cell: {
            share: np.array([np.mean(by_advantage[a], axis=0) for a in sorted(by_advantage)])
            for share, by_advantage in sorted(by_time.items())
        }
        for cell, by_time in pushes.items()
    }
    empty: dict[str, Curves] = {}
    told_by = mean.get("entropy", empty), mean.get("kl", empty)
    return Numbers(*told_by, lives, turns["half"], turns["back"], drift, maps)


def _place(row: Any) -> tuple[int, Any]:
    """Of a row, in the order in which cells are shown."""
    order = [*CHOSEN, *DRIFTS, UNTRAINED, PPO, "DPO"]
    return (order.index(row.cell) if row.cell in order else len(order)), row[:6]


def entropy_slopes(curves: Curves) -> dict[int, BySeed]:
    """Slopes of the change of entropy over the share of life told, in nats a life."""
    return {
        n: {seed: float(slopes.slope(slopes.shares(n), x)) for seed, x in by_seed.items()}
        for n, by_seed in curves.items()
    }


def size_slopes(curves: Curves) -> dict[int, BySeed]:
    """Slopes of the logarithm of the size of an update; NaN where one changes nothing at all."""

    def of(n: int, x: np.ndarray) -> float:
        if not (x > 0).all():
            return math.nan
        return float(slopes.slope(slopes.shares(n), np.log(x)))

    return {n: {seed: of(n, x) for seed, x in by.items()} for n, by in curves.items()}


def turn_slopes(ratios: Ratios, horizon: int) -> dict[float, BySeed]:
    """Slopes of the logarithm of the ratio at which half of the push is gone."""
    times = slopes.shares(horizon)
    return {
        sign: {
            seed: float(slopes.slope(times, slopes.reached(half, sign)))
            for seed, half in ratios[sign].items()
        }
        for sign in SIGNS
        if sign in ratios
    }


def mean_over(by: Mapping[Any, BySeed]) -> BySeed:
    """Mean over the outer key, of the seeds that all have."""
    every = list(by.values())
    seeds = set.intersection(*(set(each) for each in every)) if every else set()
    return {s: math.fsum(each[s] for each in every) / len(every) for s in sorted(seeds)}


def stretches(curves: Curves) -> dict[int, slopes.Stretch]:
    """Distances of the curves of several horizons, by the seeds that all horizons have."""
    if not len(curves) > 1:  # one curve has no distance
        return {}
    seeds = set.intersection(*(set(by_seed) for by_seed in curves.values()))
    return {s: slopes.stretch({n: by[s] for n, by in curves.items()}) for s in sorted(seeds)}


# --- in words ---------------------------------------------------------------------------------


def verdict(size: str, numbers: Numbers) -> str:
    """What the numbers say of the claim, and what they do not say.

    Args:
      size: of the entry.
      numbers: from :func:`gather`.

    Returns:
      Paragraphs.
    """
    seeds = {s for c in numbers.entropy.values() for by in c.values() for s in by}
    seeds |= {s for c in numbers.half.values() for by in c.values() for s in by}
    few = len(seeds) < FEWEST_SEEDS
    said = [
        f"Size {size}, {len(seeds)} search seed{'s' * (len(seeds) != 1)}"
        f"{', too few to decide anything' if few else ''}. The objectives are those of claims 1 "
        "and 4; nothing was searched for this. Agent and experience are frozen as recorded in "
        "lives under the true clock; only the share of life that is told is moved. A schedule is "
        f"said to have a direction if its slope has that sign in {ENOUGH:.0%} of the search seeds."
    ]
    if numbers.entropy:
        said.append(_of_words(numbers))
    if numbers.half:
        said.append(_of_drifts(numbers))
    if numbers.lives:
        said.append(_of_lives(numbers))
    return "\n\n".join(said)


def _of_words(numbers: Numbers) -> str:
    """From high entropy to low: what one update does when it is told another time."""
    parts = []
    for cell, curves in numbers.entropy.items():
        by_horizon = entropy_slopes(curves)
        each = mean_over(by_horizon)
        told = ", ".join(f"N = {n}: {_counted(by.values(), -1.0)}" for n, by in by_horizon.items())
        parts.append(
            f"{cell}: entropy falls the more by an update the later it is told to be in "
            f"{_counted(each.values(), -1.0)} seeds (slope {_mean(each):+.3f} nats a life; {told})"
        )
    sizes = {cell: mean_over(size_slopes(curves)) for cell, curves in numbers.kl.items()}
    grow = "; ".join(f"{cell} {_counted(by.values(), 1.0)}" for cell, by in sizes.items())
    ours = mean_over(entropy_slopes(numbers.entropy.get(AWARE, {})))
    null = mean_over(entropy_slopes(numbers.entropy.get(UNTRAINED, {})))
    if not ours:
        held = f"{AWARE} is not in the tables yet."
    elif slopes.same_sign([*ours.values()], -1.0) < ENOUGH:
        held = f"So the claim's direction does not hold for {AWARE}."
    else:
        held = f"So the claim's direction, high entropy to low, holds for {AWARE}."
        if null and slopes.same_sign([*null.values()], -1.0) >= ENOUGH:
            held += (
                " It has the same sign in networks that were never trained, by "
                f"{_mean(null):+.4f}: its size, not its sign, is what was learned."
            )
    static = ", ".join(cell for cell in STATIC if cell in numbers.lives)
    blind = f" What {static} say is the same whatever they are told." if static else ""
    return (
        f"One update, told other times. {'. '.join(parts)}. {held} The size of an update (KL) "
        f"grows with the share told in: {grow}; of this the claim says nothing.{blind}"
    )


def _of_drifts(numbers: Numbers) -> str:
    """From optimistic to pessimistic: where a drift turns the policy away."""
    parts = []
    for cell, ratios in numbers.half.items():
        told = []
        for sign, by_seed in turn_slopes(ratios, numbers.drift).items():
            back = numbers.back.get(cell, {}).get(sign, {})
            rolls = sum(bool(np.isfinite(each).any()) for each in back.values())
            told.append(
                f"A = {sign:g}: the ratio falls with the share told in "
                f"{_counted(by_seed.values(), -1.0)} (slope of its logarithm "
                f"{_mean(by_seed):+.3f}), the push ever points back in {rolls} of {len(back)}"
            )
        parts.append(f"{cell}: {'; '.join(told)}")
    return (
        "Drifts. A drift is optimistic where it lets good actions gain much before half of the "
        "push is gone, and pessimistic where it lets bad ones lose much: from the one to the "
        "other, both ratios fall along a life. " + ". ".join(parts) + "."
    )


def _of_lives(numbers: Numbers) -> str:
    """Whether schedules stretch."""
    parts = []
    for cell, curves in numbers.lives.items():
        found = stretches(curves)
        if found:
            closer = sum(each.by_share < each.by_age for each in found.values())
            means = [math.fsum(x) / len(found) for x in zip(*found.values(), strict=True)]
            parts.append(
                f"{cell} in {closer} of {len(found)} (mean distance {means[0]:.3f} by share, "
                f"{means[1]:.3f} by age)"
            )
    horizons = sorted({n for curves in numbers.lives.values() for n in curves})
    return (
        f"Stretching, lives of {', '.join(map(str, horizons))} updates: their entropies lie closer "
        f"aligned by n/N than by n: {'; '.join(parts)}. An objective that sees no horizon lives "
        "the beginning of a longer life in a shorter one: its distance by age is zero."
    )


def _counted(values: Any, sign: float) -> str:
    """How many of these numbers have a sign."""
    listed = list(values)
    return f"{sum(sign * value > 0 for value in listed)} of {len(listed)}"


def _mean(values: BySeed) -> float:
    return math.fsum(values.values()) / len(values) if values else math.nan


def grids(numbers: Numbers) -> tuple[Grid, ...]:
    """Slopes and distances, a number for each search seed."""
    rows = []
    for cell in dict.fromkeys([*numbers.entropy, *numbers.lives]):
        entropy = mean_over(entropy_slopes(numbers.entropy.get(cell, {})))
        kl = mean_over(size_slopes(numbers.kl.get(cell, {})))
        apart = stretches(numbers.lives.get(cell, {}))
        rows.append(
            (
                cell,
                " ".join(f"{value:+.3f}" for value in entropy.values()),
                " ".join(f"{value:+.2f}" for value in kl.values()),
                " ".join(f"{each.by_share:.2f}/{each.by_age:.2f}" for each in apart.values()),
            )
        )
    found = [
        Grid(
            "one update told other times, and lives: a number for each search seed",
            ("objective", "entropy", "ln KL", "by share / by age"),
            rows,
            (
                "entropy: slope of its change by one update over the share told (nats a life)",
                "ln KL: slope of the size of one update; mean over ages and horizons",
                "by share / by age: distance of entropies of lives of several horizons (nats)",
            ),
        )
    ]
    if numbers.half:
        turns = [
            (cell, f"{sign:g}", " ".join(f"{value:+.3f}" for value in by_seed.values()))
            for cell, ratios in numbers.half.items()
            for sign, by_seed in turn_slopes(ratios, numbers.drift).items()
        ]
        note = "slope of ln p over the share told, where half of the push is gone"
        found.append(Grid("drifts", ("objective", "A", "slope"), turns, (note,)))
    return tuple(found)


def conclude(size: str, tables: Mapping[str, Sequence[Any]]) -> Conclusion:
    """What the tables of one size say.

    Args:
      size: of the entry.
      tables: rows of :data:`TABLES`, by name.

    Returns:
      Tables for people, words and figure.
    """
    numbers = gather(tables)

    def draw() -> Figure:
        from discovery.evaluation.figures_claim_5 import claim_5

        return claim_5(numbers)

    return Conclusion(grids(numbers), verdict(size, numbers), draw, _facts(size, numbers))


def _facts(size: str, numbers: Numbers) -> dict[str, str]:
    chosen = SIZES[size]
    seeds = {s for c in numbers.entropy.values() for by in c.values() for s in by}
    told, lived = (", ".join(map(str, ns)) for ns in (chosen.told, chosen.lived))
    return {
        "size": f"{size}: recorded lives of {told} updates, watched lives of {lived}",
        "search seeds": str(len(seeds)),
        "levels": f"{chosen.levels} of the stream validation",
        "intervals": "none: slopes are counted by their sign, a search seed at a time",
        "searches": "those of claims 1 and 4",
    }
