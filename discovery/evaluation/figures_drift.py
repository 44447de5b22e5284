"""What a drift does to an agent's policy, as pictures. Matplotlib only, no JAX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from discovery.evaluation.figures import LIVES, STYLE, panels_of

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
        grid[0].legend(loc="best")
        if several:
            bar = figure.colorbar(
                ScalarMappable(norm, LIVES), ax=grid, location="bottom", pad=0.02, aspect=40
            )
            bar.set_label("share of life done, n/N")
    return figure


def drift_maps(
    ratio: Float[np.ndarray, " R"],
    advantage: Float[np.ndarray, " A"],
    pushes: Mapping[str, Float[np.ndarray, "R A"]],
    *,
    title: str | None = None,
) -> Figure:
    """The push that drifts leave, over ratio and advantage: white where there is none.

    Args:
      ratio: p, ``[R]``.
      advantage: A, ``[A]``.
      pushes: name -> ``A - dD/dp``, ``[R, A]``.
      title: above the figure.

    Returns:
      The figure, a panel for each name, all in one scale.
    """
    # Colours are for pushes up to the largest advantage: a drift may push back harder than that.
    bound = float(np.max(np.abs(advantage)))
    signed = Normalize(-bound, bound)
    with mpl.rc_context(STYLE):
        figure, grid = panels_of(len(pushes), title, columns=3)
        for axes, (name, push) in zip(grid, pushes.items(), strict=True):
            axes.pcolormesh(
                ratio,
                advantage,
                push.T,
                norm=signed,
                cmap="PuOr",
                shading="nearest",
                rasterized=True,
            )
            axes.grid(False)
            axes.axvline(1, color="0.4", linewidth=0.8)
            axes.axhline(0, color="0.4", linewidth=0.8)
            _log_ratio(axes, ratio, (0.25, 0.5, 1.0, 2.0, 4.0))
            axes.set_ylabel("advantage A")
            axes.set_title(name.replace("$", r"\$"))
        bar = figure.colorbar(
            ScalarMappable(signed, "PuOr"),
            ax=grid,
            location="bottom",
            pad=0.02,
            aspect=40,
            ticks=MaxNLocator(5),
            extend="both",
        )
        bar.set_label(_PUSH)
    return figure


def _log_ratio(axes: Axes, ratio: Float[np.ndarray, " R"], ticks: Sequence[float]) -> None:
    """The axis of p, on which halving and doubling are as far."""
    axes.set_xscale("log")
    axes.set_xlim(ratio[0], ratio[-1])
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.set_xlabel(_RATIO)
