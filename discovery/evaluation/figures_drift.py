"""What a drift does to an agent's policy, as pictures. Matplotlib only, no JAX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from discovery.evaluation.figures import (
    COLOURS,
    LIVES,
    MARKERS,
    STYLE,
    legend_below,
    panels_of,
    plain,
)

_DASHES = ((0, (4, 2)), (0, (1, 1.5)))
"""Of the drifts beside."""
_PUSH = r"push $A - \partial D / \partial p$"
_RATIO = r"$p = \pi / \pi_{old}$"


def drift_lines(
    ratio: Float[np.ndarray, " R"],
    shares: Float[np.ndarray, " K"],
    found: Mapping[float, tuple[Float[np.ndarray, "K R"], Float[np.ndarray, "K R"]]],
    beside: Mapping[str, Mapping[float, tuple[np.ndarray, np.ndarray]]],
    *,
    name: str,
    title: str | None = None,
) -> Figure:
    """A drift and the push that it leaves, for an advantage above and one below zero.

    Args:
      ratio: p, ``[R]``.
      shares: of life, ``[K]``; one where the drift is the same at all times.
      found: advantage -> D and dD/dp.
      beside: name of another drift -> the same of it, each ``[R]``.
      name: of the drift.
      title: above the figure.

    Returns:
      The figure: a column for each advantage; the drift above, below it ``A - dD/dp``, by which the
      policy is pushed along p.
    """
    several, norm = len(shares) > 1, Normalize(0.0, 1.0)
    with mpl.rc_context(STYLE):
        figure, grid = panels_of(2 * len(found), title, columns=len(found))
        for column, (advantage, (drifts, slopes)) in enumerate(found.items()):
            lines: list[tuple[np.ndarray, np.ndarray, dict[str, Any]]] = [
                (drift, slope, {"color": LIVES(norm(share)), "linewidth": 1.8})
                for share, drift, slope in zip(shares, drifts, slopes, strict=True)
            ]
            if not several:
                lines[0][2]["label"] = name
            for (other, its), dashes in zip(beside.items(), _DASHES, strict=False):
                look: dict[str, Any] = {
                    "color": "0.15",
                    "linestyle": dashes,
                    "linewidth": 1.2,
                    "label": other,
                }
                lines.append((*its[advantage], look))
            above, below = grid[column], grid[len(found) + column]
            for drift, slope, look in lines:
                above.plot(ratio, drift, **look)
                below.plot(ratio, advantage - slope, **look)
            above.set_title(f"A = {advantage:g}")
            above.set_ylabel("drift D")
            below.set_ylabel(_PUSH)
            below.axhline(0, color="0.4", linewidth=0.8, zorder=1)
            for axes in (above, below):
                _log_ratio(axes, ratio, (0.25, 0.5, 0.8, 1.0, 1.25, 2.0, 4.0))
        if grid[0].get_legend_handles_labels()[1]:
            legend_below(figure, grid[:1])
        if several:
            bar = figure.colorbar(
                ScalarMappable(norm, LIVES), ax=grid, location="bottom", pad=0.02, aspect=40
            )
            bar.set_label("share of life done, n/N")
    return figure


def drift_maps(
    ratio: Float[np.ndarray, " R"],
    advantage: Float[np.ndarray, " A"],
    drifts: Mapping[str, tuple[Float[np.ndarray, "R A"], Float[np.ndarray, "R A"]]],
    *,
    pushes: bool = True,
    title: str | None = None,
) -> Figure:
    """Drifts over ratio and advantage, or the push that they leave: white where there is none.

    Args:
      ratio: p, ``[R]``.
      advantage: A, ``[A]``.
      drifts: name -> D and dD/dp, each ``[R, A]``.
      pushes: draw ``A - dD/dp``; else D itself.
      title: above the figure.

    Returns:
      The figure, a panel for each name, all in one scale.
    """
    most = float(np.max(np.abs(advantage)))
    # Colours are for pushes up to the largest advantage, for drifts up to all that p A can gain: a
    # drift may push back harder, and take more, than that.
    # Roots, or a drift that is small everywhere would be white.
    gain = PowerNorm(0.5, 0.0, most * (float(ratio[-1]) - 1))
    norm = Normalize(-most, most) if pushes else gain
    colours = "PuOr" if pushes else "Purples"
    with mpl.rc_context(STYLE):
        figure, grid = panels_of(len(drifts), title, columns=3)
        for axes, (name, (drift, slope)) in zip(grid, drifts.items(), strict=True):
            axes.pcolormesh(
                ratio,
                advantage,
                (advantage - slope if pushes else drift).T,
                norm=norm,
                cmap=colours,
                shading="nearest",
                rasterized=True,
            )
            axes.grid(False)
            axes.axvline(1, color="0.4", linewidth=0.8)
            axes.axhline(0, color="0.4", linewidth=0.8)
            _log_ratio(axes, ratio, (0.25, 0.5, 1.0, 2.0, 4.0))
            axes.set_ylabel("advantage A")
            axes.set_title(plain(name))
        bar = figure.colorbar(
            ScalarMappable(norm, colours),
            ax=grid,
            location="bottom",
            pad=0.02,
            aspect=40,
            ticks=MaxNLocator(5),
            extend="both" if pushes else "max",
        )
        bar.set_label(_PUSH if pushes else "drift D")
    return figure


def turn_lines(
    shares: Float[np.ndarray, " U"],
    found: Mapping[float, tuple[Float[np.ndarray, " U"], Float[np.ndarray, " U"]]],
    beside: Mapping[str, Mapping[float, float]],
    reach: float,
    *,
    name: str,
    title: str | None = None,
) -> Figure:
    """Where a drift turns the policy away, against the share of life that is told.

    Args:
      shares: of life, ``[U]``.
      found: advantage -> ratios past which less than half of the push is left, and past which it
        points back, each ``[U]``; NaN: nowhere within reach.
      beside: name of another drift -> advantage -> the first of these, the same at all times.
      reach: ratios from its inverse up to it were looked at.
      name: of the drift.
      title: above the figure.

    Returns:
      The figure, a panel for each advantage.
    """
    with mpl.rc_context(STYLE):
        figure, grid = panels_of(len(found), title)
        for axes, (advantage, (half, back)) in zip(grid, found.items(), strict=True):
            edge = reach if advantage > 0 else 1 / reach
            kinds = (
                (half, f"{name}: half of the push is left", 0, MARKERS[0]),
                (back, f"{name}: the push points back", 1, MARKERS[1]),
            )
            for values, label, number, marker in kinds:
                look: dict[str, Any] = {"color": COLOURS[number], "marker": marker}
                beyond = np.isnan(values)
                # The empty line of what is nowhere to be seen would stand in the legend.
                if number and beyond.all():
                    continue
                axes.plot(shares, np.where(beyond, edge, values), label=label, **look)
                if beyond.any():
                    look |= {"markerfacecolor": "white", "linestyle": "none", "clip_on": False}
                    axes.plot(shares[beyond], np.full(beyond.sum(), edge), **look)
            for (other, its), dashes in zip(beside.items(), _DASHES, strict=False):
                ratio = its[advantage]
                axes.axhline(
                    edge if np.isnan(ratio) else ratio,
                    color="0.15",
                    linestyle=dashes,
                    linewidth=1.2,
                    label=f"{other}: half of the push is left",
                )
            axes.set_yscale("log")
            axes.set_ylim(*sorted((1.0, edge)))
            axes.yaxis.set_major_locator(
                FixedLocator((0.1, 0.2, 0.5, 0.8, 1.0, 1.2, 2.0, 5.0, 10.0))
            )
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
            axes.set_ylabel(_RATIO)
            axes.set_xlabel("share of life told, n/N")
            axes.set_xlim(0, 1)
            axes.set_title(f"A = {advantage:g} (hollow: beyond {edge:g})")
        legend_below(figure, grid)
    return figure


def _log_ratio(axes: Axes, ratio: Float[np.ndarray, " R"], ticks: Sequence[float]) -> None:
    """The axis of p, on which halving and doubling are as far."""
    axes.set_xscale("log")
    axes.set_xlim(ratio[0], ratio[-1])
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.set_xlabel(_RATIO)
