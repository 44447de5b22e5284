"""What an update does when only the time that it is told is moved. Matplotlib only, no JAX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from discovery.evaluation.figures import (
    COLOURS,
    MARKERS,
    STYLE,
    legend_below,
    panels_of,
    plain,
)


class Change(NamedTuple):
    """What one update does to the policy, by the share of life that it is told."""

    shares: Float[np.ndarray, " U"]
    entropy: Float[np.ndarray, " U"]
    """Change of the policy's entropy, in nats."""
    kl: Float[np.ndarray, " U"]
    """KL of the policy before from the one after, in nats."""


def changes(found: Mapping[str, Mapping[int, Change]], *, title: str | None = None) -> Figure:
    """Change of entropy, and KL, of one update against the share of life that it is told.

    Args:
      found: name -> horizon -> change; the first name is the objective, the others, drawn hollow
        and dashed, are the nulls that it stands beside.
      title: above the figure.

    Returns:
      The figure: a panel for each quantity; a KL of zero is not drawn.
    """
    if not found:
        raise ValueError("there is nothing to draw")
    horizons = sorted({horizon for by_horizon in found.values() for horizon in by_horizon})
    with mpl.rc_context(STYLE):
        figure, (entropy, kl) = panels_of(2, title)
        for i, by_horizon in enumerate(found.values()):
            for horizon, change in by_horizon.items():
                number = horizons.index(horizon)
                look: dict[str, Any] = {
                    "color": COLOURS[number % len(COLOURS)],
                    "marker": MARKERS[number % len(MARKERS)],
                    "label": f"N = {horizon:,}" if i == 0 else None,
                }
                if i:
                    look |= {"linestyle": _NULLS[(i - 1) % len(_NULLS)], "linewidth": 1.0}
                    look |= {"markerfacecolor": "white"}
                entropy.plot(change.shares, change.entropy, **look)
                kl.plot(change.shares, np.where(change.kl > 0, change.kl, np.nan), **look)
        if len(found) > 1:
            entropy.plot([], [], color="0.4", marker="o", label=plain(next(iter(found))))
        for i, name in enumerate(list(found)[1:]):
            entropy.plot(
                [],
                [],
                color="0.4",
                marker="o",
                markerfacecolor="white",
                linestyle=_NULLS[i % len(_NULLS)],
                label=plain(name),
            )
        entropy.axhline(0, color="0.4", linewidth=0.8, zorder=1)
        entropy.set_ylabel("change of entropy by one update (nats)")
        kl.set_ylabel("size of one update, KL (nats)")
        kl.set_yscale("log")
        for axes in (entropy, kl):
            axes.set_xlabel("share of life told, n/N")
            axes.set_xlim(-0.03, 1.03)
        legend_below(figure, [entropy])
    return figure


_NULLS: tuple[Any, ...] = ("--", ":", (0, (6, 2, 1, 2)))
"""Dashes of nulls, one after another."""
