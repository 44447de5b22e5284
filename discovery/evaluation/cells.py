"""Claim 3, *truncated meta-gradients do not find adaptive objectives, evolution does*: its cells.

A cell is a way to search: an estimator, how much of a life it sees at once, and when it scores.
All cells of a group share the law of tasks, the start and the budget in environment steps; each is
run for TA-LPG and for its horizon-blind twin. Here are their configurations, and how many
generations the budget buys. No JAX.

Shape legend: ``M`` antithetic pairs, ``A`` agents, ``B`` environments times ``T`` steps an update,
``E`` episodes a score, ``K`` updates of a window, ``N`` horizon.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from discovery.config import PRESETS, Config, HorizonConfig, WindowConfig
from discovery.evaluation.papers import Job, Sweep

AWARE, BLIND = "TA-LPG", "LPG"
GATES = {AWARE: 1.0, BLIND: 0.0}
"""By what each objective's clock is multiplied: in one program, one sees it and one does not."""
LONG, SHORT = "long", "short"
START, FLIPS = "start", "coin"
"""The two nulls: no search at all, and a search whose pairs are decided by coin flips."""
K = 5
"""Updates of a window."""
CHUNKS = 10
"""Lines of a search's metrics, about."""


class Cell(NamedTuple):
    """A way to search."""

    line: str
    """What it is, in a few words."""
    estimator: Literal["evolution", "windows", "gradient"] = "evolution"
    score: Literal["end", "along"] = "end"
    """When a life is scored."""
    window: int = 0
    """K, or 0 for whole lives."""
    strategy: str = "paired"
    null: str = ""
    """Which null it is, if one."""


_E1 = Cell("evolution, whole lives, end")
_E2 = Cell("evolution, whole lives, along", score="along")
_E3 = Cell("evolution, windows, end", "windows", "end", K)
_E4 = Cell("evolution, windows, along", "windows", "along", K)
_START = Cell("not searched", null=START)
_FLIPS = Cell("evolution on coin flips", null=FLIPS)

CELLS: dict[str, dict[str, Cell]] = {
    LONG: {
        "start": _START,
        "E1": _E1,
        "E2": _E2,
        "E3": _E3,
        "E4": _E4,
        "P3": Cell("persistent ES, windows, end", "windows", "end", K, "PersistentES"),
        "P4": Cell("persistent ES, windows, along", "windows", "along", K, "PersistentES"),
        "G3": Cell("gradient, windows, end", "gradient", "end", K),
        "G4": Cell("gradient, windows, along", "gradient", "along", K),
        "coin": _FLIPS,
    },
    SHORT: {
        "start-s": _START,
        "E1s": _E1,
        "E2s": _E2,
        "E3s": _E3,
        "E4s": _E4,
        "G1": Cell("gradient, whole lives, end", "gradient", "end"),
        "G2": Cell("gradient, whole lives, along", "gradient", "along"),
        "coin-s": _FLIPS,
    },
}
"""Group of horizons -> name -> cell. Each group's start comes first: the rest is measured by it."""


class Size(NamedTuple):
    """How large everything is."""

    base: Config
    """Networks, agents, rates: what all searches share."""
    budget: dict[str, float]
    """Group -> environment steps of a search: training, and scores up to their step limit.
    Validation of the mean, which no search learns from, is not counted."""
    laws: dict[str, HorizonConfig]
    """Group -> its horizons."""
    sweeps: dict[str, Sweep]
    """Group -> how its objectives are scored."""


def _base(preset: str) -> Config:
    """A preset with what all cells share: the start, and one vote a life."""
    config = PRESETS[preset][1]
    return replace(
        config,
        preset="claim-3",
        evolution=replace(config.evolution, start="init", shaping="pair", fitness="final"),
        window=WindowConfig(window=K, score="along", vote="life"),
    )


_CPU, _FULL = _base("quickstart"), _base("ta-lpg")
SIZES = {
    "cpu": Size(
        base=replace(
            _CPU,
            validation_levels=64,
            evolution=replace(
                _CPU.evolution, pairs=16, group=16, sigma=0.2, rate=0.02, rate_decay=1.0
            ),
            gradient=replace(_CPU.gradient, agents=64, agents_group=32, meta_rate=6e-4),
        ),
        budget={LONG: 2e7, SHORT: 1e7},
        laws={LONG: HorizonConfig(5, 80), SHORT: HorizonConfig(2, 20)},
        sweeps={
            LONG: Sweep(256, (5, 10, 20, 40, 80), 64, (5, 20, 80), told=(5, 10, 20, 40, 80)),
            SHORT: Sweep(256, (2, 5, 10, 20), 64, (2, 5, 20), told=(2, 5, 10, 20)),
        },
    ),
    # Networks, agents and rates as published; the budget is that of the published search, 2,500
    # generations of 1,024 whole lives.
    "full": Size(
        base=_FULL,
        budget={LONG: 2.8e11, SHORT: 2.8e11},
        laws={LONG: HorizonConfig(10, 250), SHORT: HorizonConfig(2, 20)},
        sweeps={
            LONG: Sweep(
                256, (5, 10, 25, 50, 100, 250), 64, (10, 50, 250), told=(10, 25, 50, 100, 250)
            ),
            SHORT: Sweep(256, (2, 5, 10, 20), 64, (2, 5, 20), told=(2, 5, 10, 20)),
        },
    ),
}
"""Every number of the entry; the rest follows."""


def jobs(size: str, seeds: Sequence[int]) -> list[Job]:
    """All searches of a size, in the order in which they are worth most.

    Seed by seed, so that a part of the work is a whole experiment with fewer seeds. Coin flips are
    for TA-LPG alone: they are a null of the clock, and the twin sees none.

    Args:
      size: a key of :data:`SIZES`.
      seeds: of the searches.

    Returns:
      The jobs.
    """
    chosen = SIZES[size]
    return [
        Job(
            group=group,
            cell=name,
            objective=objective,
            seed=seed,
            config=configured(chosen, group, cell, objective, seed),
            sweep=chosen.sweeps[group],
            null=cell.null,
            start=next(iter(cells)),
        )
        for seed in seeds
        for group, cells in CELLS.items()
        for name, cell in cells.items()
        for objective in GATES
        if not (cell.null == FLIPS and objective == BLIND)
    ]


def configured(size: Size, group: str, cell: Cell, objective: str, seed: int) -> Config:
    """The search of a cell, with as many generations as the budget buys.

    Args:
      size: numbers.
      group: gives the horizons.
      cell: what is searched, and how.
      objective: whether it sees its clock.
      seed: of the search; one seed gives one start in all cells of an objective.

    Returns:
      A configuration that ``config.check`` accepts.
    """
    base = size.base
    config = replace(
        base,
        seed=seed,
        estimator=cell.estimator,
        objective=replace(base.objective, clock_gate=GATES[objective]),
        horizon=size.laws[group],
    )
    if cell.estimator == "evolution":
        fitness: Literal["final", "area"] = "area" if cell.score == "along" else "final"
        shaping: Literal["coin_flip", "pair"] = "coin_flip" if cell.null == FLIPS else "pair"
        evolution = replace(base.evolution, fitness=fitness, shaping=shaping)
        config = replace(config, evolution=evolution)
    else:
        config = replace(
            config,
            evolution=replace(base.evolution, strategy=cell.strategy),
            window=replace(base.window, window=cell.window, score=cell.score),
        )
    return within(config, size.budget[group])


def within(config: Config, budget: float) -> Config:
    """A search with as many generations as a budget buys.

    Args:
      config: of a search on drawn grid worlds.
      budget: environment steps: of training, and of scores up to their step limit.

    Returns:
      The same search, as long as that.
    """
    generations = max(1, round(budget / sum(cost(config))))
    every = max(1, generations // CHUNKS)
    # A schedule is told by generations: over the whole search it is the same in every cell.
    published = PRESETS["ta-lpg"][1].generations
    decay = config.evolution.rate_decay ** (published / generations)
    return replace(
        config,
        generations=generations,
        log_every=every,
        checkpoint_every=every * max(1, min(2, 500 // every)),
        evolution=replace(config.evolution, rate_decay=decay),
    )


# --- what a generation costs ------------------------------------------------------------------


class Cost(NamedTuple):
    """Environment steps of a generation, expected."""

    training: float
    evaluation: float
    """At most: a score whose episodes all terminate stops before the step limit."""


AREA_POINTS = 11
"""Times that a life is scored for its area: at birth, and after each tenth."""
LIMITS = {"small": (20, 100), "medium": (100, 250), "large": (250, 750), "all": (20, 750)}
"""Environment -> shortest and longest step limit of its levels, log-uniform and rounded."""


def law(shortest: int, longest: int) -> dict[int, float]:
    r"""Probability of each value of :math:`\mathrm{round}(\exp U(\ln a, \ln b))`.

    .. math:: P(n) = \frac{\ln\min(n + 1/2, b) - \ln\max(n - 1/2, a)}{\ln b - \ln a}

    Args:
      shortest: a.
      longest: b.

    Returns:
      Value -> probability.

    Example:
      >>> law(3, 3)
      {3: 1.0}
    """
    if shortest == longest:
        return {shortest: 1.0}
    width = math.log(longest / shortest)
    return {
        n: math.log(min(n + 0.5, longest) / max(n - 0.5, shortest)) / width
        for n in range(shortest, longest + 1)
    }


class Window(NamedTuple):
    """What a window is, on average."""

    updates: float
    """Updates that take place."""
    ends: float
    """Share of windows after which the life has come to its horizon."""


def mean_window(horizons: HorizonConfig, window: int) -> Window:
    r"""Updates of a window, :math:`E[N] / E[\lceil N / K \rceil]`, and how many windows are last.

    A life of N updates takes :math:`\lceil N / K \rceil` windows, and the last one is cut at its
    horizon. This is of agents whose lives have followed one another for long; that first lives are
    cut short, to stagger ages, is left out.

    Args:
      horizons: their law.
      window: K, or 0 for whole lives: then every window is a life.

    Returns:
      Averages over windows.
    """
    chances = law(horizons.shortest, horizons.longest)
    updates = math.fsum(n * p for n, p in chances.items())
    windows = math.fsum(-(-n // window) * p for n, p in chances.items()) if window else 1.0
    return Window(updates / windows, 1 / windows)


def cost(config: Config) -> Cost:
    r"""Environment steps of a generation.

    With u updates a life or window, :math:`\ell` the mean step limit and p scores of a life or
    window,

    .. math::
        \text{evolution: } 2 M (u B T + p E \ell), \quad \text{gradient: } A (u + 1) B T.

    Of whole lives p is 1, or 11 for their area; of windows it is 1, or the share that are a life's
    last if only these are scored.

    Args:
      config: of a search on drawn grid worlds.

    Returns:
      The expected cost.
    """
    whole = config.estimator == "evolution"
    window = mean_window(config.horizon, 0 if whole else config.window.window)
    batch = config.life.environments * config.life.rollout
    if config.estimator == "gradient":
        return Cost(config.gradient.agents * (window.updates + 1) * batch, 0.0)
    if whole:
        scores = float(AREA_POINTS) if config.evolution.fitness == "area" else 1.0
    else:
        scores = window.ends if config.window.score == "end" else 1.0
    limit = math.fsum(n * p for n, p in law(*LIMITS[config.env]).items())
    lives = 2 * config.evolution.pairs
    episodes = config.life.evaluation_environments
    return Cost(lives * window.updates * batch, lives * scores * episodes * limit)
