"""What an objective says of a reward, as a picture. Matplotlib only, no JAX."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from discovery.evaluation.figures import (
    LIVES,
    MARKERS,
    STYLE,
    colourbar,
    legend_above,
    panels_of,
)

_SAID = r"$\hat\pi$ (below 0: do it more)"
_PROBABILITY = r"probability of the action, $\pi(a|s)$"


def responses(
    reward: Float[np.ndarray, " R"],
    probability: Float[np.ndarray, " P"],
    shares: Float[np.ndarray, " K"],
    horizons: Shaped[np.ndarray, " H"],
    pi_hat: Float[np.ndarray, "H K R P"],
    *,
    title: str | None = None,
) -> Figure:
    r"""What an objective says of a reward, an action's probability, and the time it is told.

    Args:
      reward: rewards that were tried, ascending, ``[R]``.
      probability: of the rewarded action, ascending, ``[P]``.
      shares: of life that were told, ``[K]``.
      horizons: that were told, ascending, ``[H]``.
      pi_hat: what the objective said, ``[H, K, R, P]``; it acts as minus an advantage.
      title: above the figure.

    Returns:
      The figure: against reward, against probability, and against the time; and a map of reward
      and probability in the middle of a life. What is not on an axis is in the middle, and the
      reward is the largest.
    """
    h, k, p = (len(axis) // 2 for axis in (horizons, shares, probability))
    norm = Normalize(0.0, 1.0)
    with mpl.rc_context(STYLE):
        figure, grid = panels_of(4, title)
        figure.set_figheight(7.4)
        by_reward, by_probability, by_time, together = grid
        for i, share in enumerate(shares):
            look: dict[str, Any] = {"color": LIVES(norm(share))}
            by_reward.plot(reward, pi_hat[h, i, :, p], **look)
            by_probability.plot(probability, pi_hat[h, i, -1], **look)
        horizon = f"N = {horizons[h]:,}"
        by_reward.set_title(f"{horizon}, probability {probability[p]:.2g}")
        by_probability.set_title(f"{horizon}, reward {reward[-1]:g}")
        by_reward.set_xlabel("reward")
        by_probability.set_xlabel(_PROBABILITY)
        for axes in (by_reward, by_probability):
            colourbar(figure, axes, norm, LIVES, "share of life done, n/N")
        _by_time(by_time, shares, horizons, pi_hat[:, :, -1, p])
        by_time.set_xlabel(
            f"share of life done, n/N (reward {reward[-1]:g}, probability {probability[p]:.2g})"
        )
        for axes in (by_reward, by_probability, by_time):
            axes.axhline(0, color="0.4", linewidth=0.8, zorder=1)
            axes.set_ylabel(_SAID)
        bound = float(np.nanmax(np.abs(pi_hat[h, k]))) or 1.0
        signed = Normalize(-bound, bound)
        together.pcolormesh(
            reward,
            probability,
            pi_hat[h, k].T,
            norm=signed,
            cmap="PuOr",
            shading="nearest",
            rasterized=True,
        )
        together.grid(False)
        together.set_title(f"{horizon}, n/N = {shares[k]:g}")
        together.set_xlabel("reward")
        together.set_ylabel(_PROBABILITY)
        colourbar(figure, together, signed, mpl.colormaps["PuOr"], r"$\hat\pi$")
    return figure


def _by_time(
    axes: Axes,
    shares: Float[np.ndarray, " K"],
    horizons: Shaped[np.ndarray, " H"],
    said: Float[np.ndarray, "H K"],
) -> None:
    """Against the share of life, a line for each horizon that is told."""
    several = len(horizons) > 1
    norm = LogNorm(horizons[0], horizons[-1]) if several else Normalize(0, horizons[0])
    for i, horizon in enumerate(horizons):
        axes.plot(
            shares,
            said[i],
            color=LIVES(norm(horizon)),
            marker=MARKERS[i % len(MARKERS)],
            label=f"N = {horizon:,}",
        )
    legend_above(axes, axes.figure.get_figwidth() / 2)  # type: ignore[union-attr]
