"""Pictures of claims, from the numbers of their tables: Matplotlib only, no JAX."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from discovery.evaluation.cells import AWARE, BLIND, GATES, START
from discovery.evaluation.claim_3 import EFFECT, BySeed, CellNumbers, claimed, number
from discovery.evaluation.claims import FALSE_CLOCKS
from discovery.evaluation.figures import COLOURS, MARKERS

LOOKS: dict[str, dict[str, Any]] = {
    AWARE: {"color": COLOURS[0], "marker": MARKERS[0]},
    BLIND: {"color": COLOURS[1], "marker": MARKERS[1]},
}
_STYLE: Any = {
    "axes.axisbelow": True,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9.5,
    "font.size": 9,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "svg.hashsalt": "kairos",
}
_ROW, _EDGE = 0.27, 1.0
"""Inches of a cell's row, and of the titles and labels around a group of them."""
_SPREAD = 0.26
"""Distance of the two objectives of a row, in rows."""


def claim_3(cells: Sequence[CellNumbers], groups: Mapping[str, str]) -> Figure:
    """Each cell a row: what it gained, what the clock was worth, what a false clock costs.

    Args:
      cells: numbers of the tables, in the order in which they are drawn.
      groups: group -> its horizons in words.

    Returns:
      The figure, a block of rows for each group that has cells. A point is one search seed.
    """
    blocks = [[cell for cell in cells if cell.group == group] for group in groups]
    blocks = [block for block in blocks if block]
    if not blocks:
        raise ValueError("there is nothing to draw")
    clocks = [name for name in FALSE_CLOCKS if any(name in cell.losses for cell in cells)]
    means = [abs(_mean(by)) for cell in cells for by in cell.losses.values()]
    widest = max((mean for mean in means if math.isfinite(mean)), default=0.0)
    norm = Normalize(-max(widest, EFFECT), max(widest, EFFECT))
    heights = [_ROW * len(block) + _EDGE for block in blocks]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(13.0, sum(heights) + 0.6))
        FigureCanvasAgg(figure)
        figure.set_layout_engine("constrained")
        grid = figure.subplots(
            len(blocks), 5, squeeze=False, height_ratios=heights, width_ratios=(3, 2, 4, 2.4, 2.4)
        )
        for panels, block in zip(grid, blocks, strict=True):
            _gains(panels[0], block)
            _ahead(panels[1], block)
            _losses(panels[2], block, clocks, norm)
            _words(panels[3], block, "S_pi", r"$S_\pi$", _range(cells, "S_pi"))
            _words(panels[4], block, "S_y", r"$S_y$", _range(cells, "S_y"))
            for axes in panels:
                _rows(axes, block, labelled=axes is panels[0])
            panels[0].set_title(groups[block[0].group], loc="left", fontweight="bold")
        _legend(figure)
    return figure


def _rows(axes: Axes, block: Sequence[CellNumbers], labelled: bool) -> None:
    """A row for each cell, the first on top; nulls in grey."""
    axes.set_ylim(len(block) - 0.5, -0.5)
    axes.set_yticks(range(len(block)))
    axes.tick_params(axis="y", length=0)
    names = [f"{cell.line}  {cell.name}" for cell in block] if labelled else []
    axes.set_yticklabels(names or [""] * len(block))
    for row, cell in enumerate(block):
        if cell.null:
            axes.axhspan(row - 0.5, row + 0.5, color="0.95", linewidth=0, zorder=-1)


def _gains(axes: Axes, block: Sequence[CellNumbers]) -> None:
    for row, cell in enumerate(block):
        for place, (objective, look) in enumerate(LOOKS.items()):
            if cell.null != START:
                _points(axes, cell.gain[objective], row + (place - 0.5) * _SPREAD, **look)
    _around_zero(axes, ticks=5)
    axes.set_xlabel("gain over the untrained start\n(normalised score)")


def _ahead(axes: Axes, block: Sequence[CellNumbers]) -> None:
    for row, cell in enumerate(block):
        _points(axes, cell.ahead, float(row), color=COLOURS[2], marker=MARKERS[3])
    _around_zero(axes, ticks=3)
    axes.set_xlabel("TA-LPG less LPG\n(normalised score)")


def _losses(
    axes: Axes, block: Sequence[CellNumbers], clocks: Sequence[str], norm: Normalize
) -> None:
    """A map of false clocks: the mean over seeds, printed."""
    axes.set_xlabel("what a false clock costs TA-LPG\n(normalised score, mean over seeds)")
    if not clocks:
        axes.set_xticks([])
        return
    values = np.array([[_mean(cell.losses.get(name, {})) for name in clocks] for cell in block])
    axes.imshow(values, aspect="auto", cmap="PuOr", norm=norm, interpolation="nearest")
    for row, column in zip(*np.nonzero(np.isfinite(values)), strict=True):
        value = values[row, column]
        dark = abs(norm(value) - 0.5) > 0.35
        axes.text(
            column,
            row,
            number(value, "+"),
            ha="center",
            va="center",
            fontsize=7,
            color="white" if dark else "black",
        )
    axes.set_xticks(range(len(clocks)), clocks, rotation=35, ha="right", rotation_mode="anchor")
    axes.tick_params(axis="x", length=0, labelsize=8)
    axes.spines[:].set_visible(False)


def _range(cells: Sequence[CellNumbers], name: str) -> tuple[float, float]:
    """Smallest and largest of a sensitivity, of what is told of both."""
    found = [
        value
        for cell in cells
        for measure, by in cell.sensitivities.items()
        for value in by.values()
        if measure.startswith(name) and math.isfinite(value)
    ]
    return min(found, default=0.0), max(found, default=0.0)


def _words(
    axes: Axes,
    block: Sequence[CellNumbers],
    name: str,
    symbol: str,
    limits: tuple[float, float],
) -> None:
    """How far the words follow the told share of life (filled) and the told horizon (hollow)."""
    for row, cell in enumerate(block):
        for place, (kind, face) in enumerate((("fraction", COLOURS[0]), ("horizon", "white"))):
            values = cell.sensitivities.get(f"{name}_{kind}", {})
            look = {"color": COLOURS[0], "marker": MARKERS[0], "markerfacecolor": face}
            # Positive and far from normal: points alone.
            _points(axes, values, row + (place - 0.5) * _SPREAD, spread=False, **look)
        if cell.null:
            values = cell.sensitivities.get(f"{name}_fraction", {})
            style = ":" if cell.null == START else "--"
            if math.isfinite(_mean(values)):
                axes.axvline(_mean(values), color="0.5", linestyle=style, linewidth=1, zorder=1)
    low, high = limits
    if 0 < low <= high:
        axes.set_xlim(low / 1.2, high * 1.2)  # first: one lone value has no scale of its own
        axes.set_xscale("log")
        round_ones = [m * 10.0**e for e in range(-6, 7) for m in (1, 2, 5)]
        axes.xaxis.set_major_locator(
            FixedLocator([x for x in round_ones if low / 1.2 <= x <= high * 1.2])
        )
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.grid(axis="x", alpha=0.3, linewidth=0.6)
    axes.set_xlabel(f"{symbol}: its words follow\nwhat it is told")


def _points(axes: Axes, values: BySeed, row: float, spread: bool = True, **look: Any) -> None:
    """A point for each search seed, and the interval over them if one is claimed."""
    finite = [value for value in values.values() if math.isfinite(value)]
    if spread and (found := claimed(values)) is not None:
        axes.hlines(row, found.low, found.high, color=look["color"], linewidth=1.2, alpha=0.7)
    axes.plot(finite, [row] * len(finite), linestyle="none", markersize=4.5, alpha=0.85, **look)
    if len(finite) < len(values):
        lost = f" {len(values) - len(finite)} not finite"
        axes.text(1, row, lost, transform=axes.get_yaxis_transform(), fontsize=6.5, va="center")


def _around_zero(axes: Axes, ticks: int) -> None:
    """Zero, and what is too small to count."""
    axes.axvspan(-EFFECT, EFFECT, color="0.85", linewidth=0, zorder=0.5)
    axes.axvline(0, color="0.4", linewidth=0.8, zorder=1)
    axes.xaxis.set_major_locator(MaxNLocator(ticks))
    axes.grid(axis="x", alpha=0.3, linewidth=0.6)


def _legend(figure: Figure) -> None:
    """One for all panels, below them."""
    points: dict[str, Any] = {"linestyle": "none", "markersize": 4.5}
    blue = COLOURS[0]
    handles: list[Any] = [
        Line2D([], [], label=f"{o}, one seed", **LOOKS[o], **points) for o in GATES
    ]
    handles += [
        Line2D([], [], label="told n/N", color=blue, marker="o", **points),
        Line2D([], [], label="told N", color=blue, marker="o", markerfacecolor="white", **points),
        Line2D([], [], label="untrained, n/N", color="0.5", linestyle=":"),
        Line2D([], [], label="coin flips, n/N", color="0.5", linestyle="--"),
        Line2D([], [], label="95 % interval over five seeds or more", color="0.3"),
        Patch(color="0.85", label=f"within {number(EFFECT)}: too little to count"),
        Patch(color="0.95", label="null"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)


def _mean(values: BySeed) -> float:
    return math.fsum(values.values()) / len(values) if values else math.nan
