"""Claims 2 and 4 as pictures, from the numbers of their tables. Matplotlib only, no JAX."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from discovery.evaluation import claim_2 as second
from discovery.evaluation import claim_4 as fourth
from discovery.evaluation import statistics, transfer
from discovery.evaluation.figures import COLOURS, DASHES, MARKERS, STYLE, legend_below, plain
from discovery.evaluation.statistics import FEWEST_SEEDS


def _grid(rows: int, columns: int, width: float, height: float) -> tuple[Figure, Any]:
    """A figure of panels; Agg draws it, no window is asked for."""
    figure = Figure(figsize=(width * columns, height * rows + 0.6))
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _blank(why: str) -> Figure:
    """A picture for a table that only has what others are measured by."""
    with mpl.rc_context(STYLE):
        figure, grid = _grid(1, 1, 6.0, 1.0)
        grid[0, 0].set_axis_off()
        grid[0, 0].text(0.5, 0.5, why, ha="center", va="center")
    return figure


def claim_2(numbers: second.Numbers) -> Figure:
    """Scores in suites that were never trained on, a point for each search seed.

    Args:
      numbers: of the table, on the scale where A2C is 1 and no learning is 0.

    Returns:
      The figure: a row of panels for each suite; on the left inside the trained horizons, on the
      right at its own.
    """
    suites = list(dict.fromkeys(suite for suite, _ in numbers.parts))
    if not suites:
        return _blank("no objective has been played yet, beside A2C and no learning")
    every = (second.AWARE, *second.RIVALS, *second.SHIPPED)
    cells = [cell for cell in every if cell in numbers.scores]
    with mpl.rc_context(STYLE):
        figure, grid = _grid(len(suites), 2, 5.2, 0.55 + 0.3 * len(cells))
        for panels, suite in zip(grid, suites, strict=True):
            for axes, where in zip(panels, (second.INSIDE, second.OWN), strict=True):
                tasks = numbers.parts.get((suite, where), [])
                _suite(axes, numbers, tasks, cells)
                ns = sorted({task.horizon for task in tasks})
                told = f"N = {', '.join(f'{n:,}' for n in ns)}" if ns else "no task"
                axes.set_title(f"{suite}, {where}: {told}")
        for axes in grid[-1]:
            axes.set_xlabel("score: no learning 0, tuned A2C 1; dotted: .75")
    return figure


def _suite(
    axes: Axes, numbers: second.Numbers, tasks: Sequence[transfer.Task], cells: Sequence[str]
) -> None:
    """A row for each objective, a point for each search seed: means over tasks."""
    for row, cell in enumerate(cells):
        values = transfer.by_seed(numbers.scores[cell], tasks).values()
        finite = [value for value in values if math.isfinite(value)]
        look: dict[str, Any] = {"color": COLOURS[row], "marker": MARKERS[row], "alpha": 0.85}
        axes.plot(finite, [row] * len(finite), linestyle="none", **look)
    axes.axvline(0, color="0.4", linewidth=0.8, zorder=1)
    axes.axvline(1, color="0.4", linewidth=0.8, zorder=1)
    axes.axvline(second.SHARE, color="0.4", linewidth=0.8, linestyle=":", zorder=1)
    axes.set_yticks(range(len(cells)), [plain(cell) for cell in cells])
    axes.set_ylim(len(cells) - 0.5, -0.5)
    axes.grid(False, axis="y")


def claim_4(numbers: fourth.Numbers) -> Figure:
    """Return against horizon on every game, in both conditions of agents' rates.

    Args:
      numbers: of the table.

    Returns:
      The figure: a row of panels for each condition, a column for each game. Intervals over search
      seeds are shaded where there are five; else each seed is a point.
    """
    tasks = [task for task in numbers.tasks if task.suite == fourth.GAMES]
    conditions = list(dict.fromkeys(task.group for task in tasks))
    games = list(dict.fromkeys(task.environment for task in tasks))
    if not tasks:
        raise ValueError("there is nothing to draw")
    with mpl.rc_context(STYLE):
        figure, grid = _grid(len(conditions), len(games), 3.7, 2.9)
        for panels, condition in zip(grid, conditions, strict=True):
            for axes, game in zip(panels, games, strict=True):
                _game(axes, numbers, [t for t in tasks if t.group == condition and t[2] == game])
                trained = " (trained on)" if game == numbers.trained else ""
                axes.set_title(f"{game}{trained}, {condition}")
            panels[0].set_ylabel("undiscounted return")
        for axes in grid[-1]:
            axes.set_xlabel("horizon (agent updates)")
        legend_below(figure, list(grid.ravel()))
    return figure


def _game(axes: Axes, numbers: fourth.Numbers, tasks: Sequence[transfer.Task]) -> None:
    """A line for each objective."""
    for number, cell in enumerate((*fourth.LEARNED, *fourth.HANDWRITTEN)):
        found = {
            task.horizon: [*by_seed.values()]
            for task in tasks
            if (by_seed := numbers.scores.get(cell, {}).get(task))
        }
        if not found:
            continue
        horizons = sorted(found)
        means = [math.fsum(found[n]) / len(found[n]) for n in horizons]
        look: dict[str, Any] = {
            "color": COLOURS[number],
            "marker": MARKERS[number],
            "linestyle": DASHES[0 if cell in fourth.LEARNED else 1],
        }
        axes.plot(horizons, means, label=plain(cell), **look)
        if all(len(found[n]) >= FEWEST_SEEDS for n in horizons):
            ends = [statistics.student_interval(found[n])[1:] for n in horizons]
            low, high = zip(*ends, strict=True)
            axes.fill_between(horizons, low, high, color=COLOURS[number], alpha=0.12, linewidth=0)
        elif len(found[horizons[0]]) > 1:
            for n in horizons:
                points: dict[str, Any] = {"linestyle": "none", "markersize": 2.5, "alpha": 0.5}
                axes.plot([n] * len(found[n]), found[n], **look | points)
    horizons = sorted({task.horizon for task in tasks})
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(horizons))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
