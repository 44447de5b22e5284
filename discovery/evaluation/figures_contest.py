"""Pictures of claims 1 and 6, from the numbers of their tables: Matplotlib only, no JAX."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from discovery.evaluation.contest import EFFECT, Estimate, number
from discovery.evaluation.figures import COLOURS, MARKERS, STYLE

if TYPE_CHECKING:
    from discovery.evaluation.claim_1 import Numbers, Size
    from discovery.evaluation.claim_6 import Numbers as Numbers6
    from discovery.evaluation.claim_6 import Part
else:
    Numbers = Numbers6 = Part = Size = Any

Look = Mapping[str, Any]

BLUE, RED, GREEN, PINK, ORANGE, SKY, BLACK = COLOURS
LOOKS: dict[str, Look] = {
    "TA-LPG": {"color": BLUE, "marker": MARKERS[0]},
    "LPG": {"color": RED, "marker": MARKERS[1]},
    "constant": {"color": GREEN, "marker": MARKERS[2]},
    "elapsed": {"color": PINK, "marker": MARKERS[3]},
    "annealed LPG": {"color": ORANGE, "marker": MARKERS[4]},
    "scaled TA-LPG": {"color": SKY, "marker": MARKERS[5]},
    "quiet TA-LPG": {"color": BLUE, "marker": MARKERS[0], "linestyle": "--", "mfc": "white"},
    "quiet constant": {"color": GREEN, "marker": MARKERS[2], "linestyle": "--", "mfc": "white"},
    "specialist": {"color": BLACK, "marker": "*", "linestyle": "none", "markersize": 8},
    "A2C scheduled_N": {"color": BLACK, "marker": MARKERS[6]},
    "A2C constant": {"color": "0.4", "marker": MARKERS[5], "linestyle": "--"},
    "A2C oracle": {"color": "0.6", "marker": MARKERS[3], "linestyle": ":"},
}
"""Contender of claim 1 -> its colour and marker; hand-written ones are grey."""
_SPREAD = 1.035
"""Factor between the places of two intervals at one horizon."""
_LITTLE = "0.86"
"""Grey of what is too little to count."""
_TRAINED = "0.94"
"""Grey of the trained horizons."""


def claim_1(numbers: Numbers, size: Size) -> Figure:
    """Score against horizon, and what TA-LPG is ahead of each rival.

    Args:
      numbers: of the tables.
      size: tells the trained horizons.

    Returns:
      The figure: learned objectives, hand-written ones, the primary endpoint against each rival,
      and the difference at each horizon to those that decide the claim.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11.0, 8.6))
        FigureCanvasAgg(figure)
        figure.set_layout_engine("constrained")
        grid = figure.subplots(2, 2, height_ratios=(1.15, 1))
        learned = [name for name in numbers.names if not name.startswith("A2C")]
        others = [name for name in numbers.names if name.startswith("A2C")]
        _curves(grid[0, 0], numbers, learned, size)
        _curves(grid[0, 1], numbers, [*learned[:1], *others], size)
        _level(list(grid[0]))
        grid[0, 0].set_title("learned objectives, sampled actions", loc="left")
        grid[0, 1].set_title("beside A2C, tuned with the same budget", loc="left")
        grid[0, 0].set_ylabel("normalised final score\n(0 random, 1 optimal)")
        for axes in grid[0]:
            _below(axes, 4)
        rows = [(v.rival, v.primary, v.greedy) for v in numbers.versus.values()]
        _forest(grid[1, 0], rows)
        grid[1, 0].set_xlabel(
            "TA-LPG less the rival, mean over the trained horizons\n(normalised final score)"
        )
        _against(grid[1, 1], numbers, size)
        _legend(figure)
    return figure


def _level(panels: Sequence[Axes]) -> None:
    """The same range of scores in all panels."""
    ends = [axes.get_ylim() for axes in panels]
    for axes in panels:
        axes.set_ylim(min(low for low, _ in ends), max(high for _, high in ends))


def _below(axes: Axes, columns: int) -> None:
    """A legend where it covers no data."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=columns)


def _curves(axes: Axes, numbers: Numbers, names: Sequence[str], size: Size) -> None:
    """A line for each contender, its interval at each horizon."""
    for place, name in enumerate(names):
        curve = numbers.curves[name]
        _line(axes, curve, place - len(names) / 2, label=name, **LOOKS[name])
    _horizons(axes, size)


def _line(axes: Axes, curve: Mapping[int, Estimate], place: float, **look: Any) -> None:
    """Points with bars, a little apart from those of others, and a line through them."""
    found = {n: e for n, e in curve.items() if math.isfinite(e.estimate)}
    if not found:
        return
    x = np.array(list(found), float) * _SPREAD**place
    y = [e.estimate for e in found.values()]
    axes.plot(x, y, linewidth=1.2, **{"markersize": 4.5, **look})
    ends = [(e.low, e.high) if e.claimed else (e.estimate, e.estimate) for e in found.values()]
    low, high = np.array(ends).T
    axes.vlines(x, low, high, color=look["color"], linewidth=1.0, alpha=0.8)


def _horizons(axes: Axes, size: Size) -> None:
    """A log axis of horizons, those that are trained on shaded."""
    horizons = (*size.below, *size.trained, *size.above)
    axes.axvspan(size.law.shortest, size.law.longest, color=_TRAINED, linewidth=0, zorder=0)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(horizons))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.set_xlim(horizons[0] / 1.3, horizons[-1] * 1.3)
    life = size.base.life
    steps = life.environments * life.rollout
    axes.set_xlabel(f"horizon N (agent updates of {steps:,} environment steps)")


def _forest(axes: Axes, rows: Sequence[tuple[str, Estimate, Estimate | None]]) -> None:
    """A row for each rival: sampled actions filled, greedy ones hollow."""
    for row, (_, sampled, greedy) in enumerate(rows):
        for shift, found, face in ((-0.15, sampled, BLUE), (0.15, greedy, "white")):
            if found is None or not math.isfinite(found.estimate):
                continue
            _bar(axes, found, row + shift, color=BLUE, marker="o", markerfacecolor=face)
    axes.set_ylim(max(1, len(rows)) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    _around_zero(axes)


def _bar(axes: Axes, found: Estimate, row: float | int, **look: Any) -> None:
    if found.claimed:
        axes.hlines(row, found.low, found.high, color=look["color"], linewidth=1.3)
    axes.plot([found.estimate], [row], linestyle="none", markersize=5, **look)


def _around_zero(axes: Axes, ticks: int = 6) -> None:
    """Zero, and what is too little to count, along x."""
    axes.axvspan(-EFFECT, EFFECT, color=_LITTLE, linewidth=0, zorder=0.5)
    axes.axvline(0, color="0.4", linewidth=0.8, zorder=1)
    axes.xaxis.set_major_locator(MaxNLocator(ticks))


def _against(axes: Axes, numbers: Numbers, size: Size) -> None:
    """TA-LPG less those that decide the claim, horizon by horizon."""
    names = [name for name in ("LPG", "constant", "elapsed") if name in numbers.versus]
    for place, name in enumerate(names):
        secondary = numbers.versus[name].secondary
        horizons = (*size.below, *size.trained, *size.above)
        curve = {n: secondary[f"N={n}"] for n in horizons if f"N={n}" in secondary}
        _line(axes, curve, 2.0 * (place - 1), label=f"less {name}", **LOOKS[name])
    axes.axhspan(-EFFECT, EFFECT, color=_LITTLE, linewidth=0, zorder=0.5)
    axes.axhline(0, color="0.4", linewidth=0.8, zorder=1)
    _horizons(axes, size)
    axes.set_ylabel("TA-LPG less the other\n(normalised final score)")
    if names:
        _below(axes, 3)


def claim_6(numbers: Numbers6) -> Figure:
    """Each combination a row, each form of the clock a row.

    Args:
      numbers: of the tables.

    Returns:
      The figure: scores, what the clock is worth, how that differs from our combination, signals.
    """
    blocks = [(numbers.settings, "shaping, tasks, streams"), (numbers.clocks, "forms of the clock")]
    blocks = [(parts, title) for parts, title in blocks if parts]
    if not blocks:
        raise ValueError("there is nothing to draw")
    heights = [0.36 * len(parts) + 1.0 for parts, _ in blocks]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(12.0, sum(heights) + 0.5))
        FigureCanvasAgg(figure)
        figure.set_layout_engine("constrained")
        grid = figure.subplots(
            len(blocks), 4, squeeze=False, height_ratios=heights, width_ratios=(3, 3, 3, 2)
        )
        for panels, (parts, title) in zip(grid, blocks, strict=True):
            _parts(list(panels), parts, title)
        for column in range(4):
            _wide([panels[column] for panels in grid])
        _legend_6(figure)
    return figure


def _parts(panels: Sequence[Axes], parts: Sequence[Part], title: str) -> None:
    """One block of rows."""
    clocks = all(len(part.scores) == 1 for part in parts)
    for row, part in enumerate(parts):
        for place, objective in enumerate(("TA-LPG", "LPG")):
            shift = row + (0.0 if clocks else (place - 0.5) * 0.34)
            look = LOOKS[objective]
            if objective in part.scores:
                _bar(panels[0], part.scores[objective], shift, **look)
            if objective in part.signal:
                point = [part.signal[objective]]
                panels[3].plot(point, [shift], linestyle="none", markersize=5, **look)
        for axes, found in ((panels[1], part.gain), (panels[2], part.interaction)):
            if found is not None:
                _bar(axes, found, row, color=BLACK, marker=MARKERS[3])
    for axes in panels:
        axes.set_ylim(len(parts) - 0.5, -0.5)
        axes.set_yticks(range(len(parts)), [""] * len(parts))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
    panels[0].set_yticklabels([part.name for part in parts])
    panels[0].set_title(title, loc="left", fontweight="bold")
    panels[0].set_xlabel("normalised final score\n(0 random, 1 optimal)")
    panels[1].set_xlabel("gain of the clock: TA-LPG less LPG\n(normalised score)")
    panels[2].set_xlabel(
        "difference to TA-LPG's own clock\n(normalised score)"
        if clocks
        else "gain less that of the first row\n(normalised score)"
    )
    panels[3].set_xlabel("signal of a pair\n(correlation over two streams)")
    for axes in panels[1:3]:
        _around_zero(axes, ticks=5)


def _wide(column: Sequence[Axes]) -> None:
    """The same range in the panels of a column."""
    ends = [axes.get_xlim() for axes in column]
    for axes in column:
        axes.set_xlim(min(low for low, _ in ends), max(high for _, high in ends))


def _legend_6(figure: Figure) -> None:
    points: dict[str, Any] = {"linestyle": "none", "markersize": 5}
    handles: list[Any] = [
        Line2D([], [], label=name, **{**LOOKS[name], **points}) for name in ("TA-LPG", "LPG")
    ]
    handles += [
        Line2D([], [], label="difference", color=BLACK, marker=MARKERS[3], **points),
        Line2D([], [], color="0.3", label="95 % interval over search seeds and levels"),
        Patch(color=_LITTLE, label=f"within {number(EFFECT)}: too little to count"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5)


def _legend(figure: Figure) -> None:
    points: dict[str, Any] = {"linestyle": "none", "color": BLUE, "marker": "o", "markersize": 5}
    handles: list[Any] = [
        Line2D([], [], label="sampled actions", **points),
        Line2D([], [], label="greedy actions", markerfacecolor="white", **points),
        Line2D([], [], color="0.3", label="95 % interval over search seeds and levels"),
        Patch(color=_LITTLE, label=f"within {number(EFFECT)}: too little to count"),
        Patch(color=_TRAINED, label="trained horizons"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5)
