"""Claim 5 as a picture, from the numbers of its tables. Matplotlib only, no JAX."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from discovery.evaluation import slopes
from discovery.evaluation.claim_5 import (
    ADVANTAGES,
    AWARE,
    BLIND,
    PPO,
    RATIOS,
    STATIC,
    UNTRAINED,
    BySeed,
    Numbers,
    entropy_slopes,
    mean_over,
    size_slopes,
    stretches,
)
from discovery.evaluation.figures import COLOURS, DASHES, LIVES, MARKERS, STYLE, panels_of, plain


def claim_5(numbers: Numbers) -> Figure:
    """Slopes over the share of life told, distances of lives, and drifts; a point a search seed.

    Args:
      numbers: of the tables.

    Returns:
      The figure; panels for which there is nothing are left out.
    """
    cells = [cell for cell in numbers.entropy if cell not in STATIC]
    looks = _looks([*numbers.entropy, *numbers.lives])
    panels: list[tuple[Any, ...]] = []
    if AWARE in numbers.entropy:
        panels.append((_told, numbers))
    if cells:
        entropy = {cell: mean_over(entropy_slopes(numbers.entropy[cell])) for cell in cells}
        sizes = {cell: mean_over(size_slopes(numbers.kl[cell])) for cell in cells}
        panels.append((_rows, entropy, "slope of the change of entropy (nats a life)", looks))
        panels.append((_rows, sizes, "slope of ln KL of an update (a life)", looks))
    if any(map(stretches, numbers.lives.values())):
        panels += [(_apart, numbers, looks), (_lives, numbers)]
    panels += [(_turns, numbers, sign) for sign in (1.0, -1.0) if numbers.half]
    maps = _maps(numbers)
    if not panels and not maps:
        raise ValueError("there is nothing to draw")
    above = -(-len(panels) // _COLUMNS)
    rows = above + -(-len(maps) // _COLUMNS)
    with mpl.rc_context(STYLE):
        figure, grid = panels_of(rows * _COLUMNS, None, columns=_COLUMNS)
        figure.set_size_inches(12.5, 3.5 * rows + 0.3)
        below = grid[above * _COLUMNS :]
        for axes, (draw, *arguments) in zip(grid, panels, strict=False):
            draw(axes, *arguments)
        for axes, of in zip(below, maps, strict=False):
            drawn = _map(axes, *of)
        if maps:
            used = below[: len(maps)]
            look: dict[str, Any] = {"location": "bottom", "aspect": 50, "pad": 0.02}
            bar = figure.colorbar(drawn, ax=used, extend="both", **look)
            bar.set_label(r"push left, $A - \partial D / \partial p$, mean over search seeds")
        for axes in [*grid[len(panels) : above * _COLUMNS], *below[len(maps) :]]:
            axes.remove()
    return figure


_COLUMNS = 3


def _maps(numbers: Numbers) -> list[tuple[str, np.ndarray, float | None]]:
    """Cell, push, and the share told; once where that changes nothing."""
    found: list[tuple[str, np.ndarray, float | None]] = []
    for cell, by_share in numbers.maps.items():
        if np.ptp(list(by_share.values()), axis=0).max() > 0:
            found += [(cell, push, share) for share, push in by_share.items()]
        else:
            found.append((cell, next(iter(by_share.values())), None))
    return found


def _looks(cells: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each cell; what was never trained is grey."""
    looks: dict[str, dict[str, Any]] = {UNTRAINED: {"color": "0.5", "marker": "X"}}
    for cell in cells:
        number = len(looks) - 1
        looks.setdefault(cell, {"color": COLOURS[number], "marker": MARKERS[number]})
    return looks


def _told(axes: Axes, numbers: Numbers) -> None:
    """The change of entropy by one update, at the middle horizon."""
    horizons = sorted(numbers.entropy[AWARE])
    horizon = horizons[len(horizons) // 2]
    times = slopes.shares(horizon)
    for cell, colour in ((UNTRAINED, "0.5"), (AWARE, COLOURS[0])):
        by_seed = numbers.entropy.get(cell, {}).get(horizon, {})
        for number, values in enumerate(by_seed.values()):
            label = f"{cell}, one seed" if not number else None
            axes.plot(times, values, color=colour, linewidth=0.9, alpha=0.6, label=label)
        if by_seed:
            mean = np.mean(list(by_seed.values()), axis=0)
            axes.plot(times, mean, color=colour, linewidth=2.4, label=f"{cell}, mean")
    axes.axhline(0, color="0.4", linewidth=0.8, zorder=1)
    axes.set_xlabel(f"share of life told, n/N (N = {horizon})")
    axes.set_ylabel("change of entropy by one update (nats)")
    _above(axes, 2)


def _rows(
    axes: Axes, by_cell: Mapping[str, BySeed], label: str, looks: Mapping[str, dict[str, Any]]
) -> None:
    """A row for each cell, a point for each seed."""
    for row, (cell, by_seed) in enumerate(by_cell.items()):
        finite = [value for value in by_seed.values() if math.isfinite(value)]
        axes.plot(finite, [row] * len(finite), linestyle="none", alpha=0.85, **looks[cell])
    axes.axvline(0, color="0.4", linewidth=0.8, zorder=1)
    axes.set_yticks(range(len(by_cell)), [plain(cell) for cell in by_cell])
    axes.set_ylim(len(by_cell) - 0.5, -0.5)
    axes.grid(False, axis="y")
    axes.set_xlabel(label)


def _apart(axes: Axes, numbers: Numbers, looks: Mapping[str, dict[str, Any]]) -> None:
    """Distances of the entropies of lives, aligned one way and the other."""
    most = 0.0
    for cell, curves in numbers.lives.items():
        found = list(stretches(curves).values())
        x, y = [each.by_age for each in found], [each.by_share for each in found]
        most = max([most, *x, *y])
        axes.plot(x, y, linestyle="none", alpha=0.85, label=plain(cell), **looks[cell])
    axes.plot([0, 1.05 * most], [0, 1.05 * most], color="0.4", linewidth=0.8, zorder=1)
    axes.set_xlabel("distance of entropies aligned by n (nats)")
    axes.set_ylabel("aligned by n/N (nats); below the line: it stretches")
    _above(axes, 3)


def _lives(axes: Axes, numbers: Numbers) -> None:
    """Entropy along lives, mean over seeds; description only."""
    shown = [cell for cell in (AWARE, BLIND, PPO) if cell in numbers.lives]
    horizons = sorted({n for cell in shown for n in numbers.lives[cell]})
    colours = {n: LIVES(i / max(1, len(horizons) - 1)) for i, n in enumerate(horizons)}
    for number, cell in enumerate(shown):
        for horizon, by_seed in numbers.lives[cell].items():
            mean = np.mean(list(by_seed.values()), axis=0)
            done = np.arange(horizon) / horizon
            look: dict[str, Any] = {"linestyle": DASHES[number], "linewidth": 1.6 - 0.3 * number}
            axes.plot(done, mean, color=colours[horizon], **look)
    dashes: tuple[Any, ...] = DASHES
    handles: list[Any] = [
        Line2D([], [], color="0.3", linestyle=dashes[i], label=cell) for i, cell in enumerate(shown)
    ]
    handles += [Line2D([], [], color=colour, label=f"N = {n}") for n, colour in colours.items()]
    axes.set_xlabel("share of life done, n/N (description only)")
    axes.set_ylabel("entropy of the policy (nats)")
    _above(axes, 3, handles)


def _turns(axes: Axes, numbers: Numbers, sign: float) -> None:
    """Where half of a drift's push is gone, a line for each seed."""
    times, edge = slopes.shares(numbers.drift), slopes.REACH ** math.copysign(1, sign)
    for number, (cell, ratios) in enumerate(numbers.half.items()):
        colour = COLOURS[number % len(COLOURS)]
        for i, half in enumerate(ratios.get(sign, {}).values()):
            label = plain(cell) if i == 0 else None
            beyond = np.isnan(half)
            look: dict[str, Any] = {"color": colour, "linestyle": DASHES[number % len(DASHES)]}
            axes.plot(times, np.where(beyond, edge, half), linewidth=1.1, label=label, **look)
    axes.set_yscale("log")
    axes.set_ylim(*sorted((1.0, edge)))
    axes.yaxis.set_major_locator(FixedLocator((0.1, 0.2, 0.5, 0.8, 1.0, 1.2, 2.0, 5.0, 10.0)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.set_xlabel(f"share of life told, n/N; A = {sign:g}")
    axes.set_ylabel("ratio past which half of the push is gone")
    _above(axes, 2)


def _map(axes: Axes, cell: str, pushes: np.ndarray, share: float | None) -> ScalarMappable:
    """What a drift leaves of the push: brown for down, violet for up, white for nothing."""
    most = float(np.max(np.abs(ADVANTAGES)))
    drawn = axes.pcolormesh(
        RATIOS,
        ADVANTAGES,
        pushes,
        norm=Normalize(-most, most),
        cmap="PuOr",
        shading="nearest",
        rasterized=True,
    )
    axes.grid(False)
    axes.axvline(1, color="0.4", linewidth=0.8)
    axes.axhline(0, color="0.4", linewidth=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator((0.25, 0.5, 1.0, 2.0, 4.0)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.set_xlabel(r"$p = \pi / \pi_{old}$")
    axes.set_ylabel("advantage A")
    when = "at any time" if share is None else f"told n/N = {share:g}"
    axes.set_title(f"{plain(cell)}, {when}")
    return drawn


def _above(axes: Axes, columns: int, handles: Sequence[Any] | None = None) -> None:
    """A panel's own legend, above its data."""
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
    place |= {"ncols": columns, "columnspacing": 1.0, "handlelength": 1.8}
    axes.legend(**place) if handles is None else axes.legend(handles=handles, **place)
