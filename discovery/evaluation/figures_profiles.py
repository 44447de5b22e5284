"""Performance profiles: what share of agents is above each score. Matplotlib only, no JAX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from discovery.evaluation.figures import COLOURS, DASHES, STYLE, legend_below, panels_of, plain
from discovery.evaluation.table import Profile

_LABELS = {"normalised": "normalised score\n(0 random, 1 optimal)", "score": "undiscounted return"}


def profiles(panels: Mapping[int, Mapping[str, Profile]], *, title: str | None = None) -> Figure:
    """The share of agents whose score is above each threshold, a panel for each horizon.

    Args:
      panels: horizon -> objective -> profile, see :func:`discovery.evaluation.table.profiles`.
      title: above the figure.

    Returns:
      The figure; pointwise intervals are shaded where they are claimed.
    """
    if not panels:
        raise ValueError("there is nothing to draw")
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    with mpl.rc_context(STYLE):
        figure, grid = panels_of(len(panels), title, columns=3)
        for axes, (horizon, lines) in zip(grid, sorted(panels.items()), strict=True):
            for name, profile in lines.items():
                number = names.index(name)
                look: dict[str, Any] = {
                    "color": COLOURS[number % len(COLOURS)],
                    "linestyle": DASHES[number % len(DASHES)],
                }
                axes.plot(profile.thresholds, profile.share, label=plain(name), **look)
                axes.fill_between(
                    profile.thresholds,
                    profile.low,
                    profile.high,
                    color=look["color"],
                    alpha=0.15,
                    linewidth=0,
                )
                axes.set_xlabel(_LABELS.get(profile.value, profile.value))
            axes.set_ylim(-0.02, 1.02)
            axes.set_ylabel("share of agents above")
            axes.set_title(f"N = {horizon:,}")
        legend_below(figure, grid)
    return figure
