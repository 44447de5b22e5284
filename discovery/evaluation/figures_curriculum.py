"""A curriculum as a picture: what was hard, and what was learned on. Matplotlib only, no JAX."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Shaped
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from discovery.evaluation.figures import (
    COLOURS,
    DASHES,
    LIVES,
    STYLE,
    column_of,
    legend_above,
    panels_of,
)

_REGRETS = {
    "regret_high": "highest tenth from here",
    "regret_median": "median",
    "regret_low": "lowest tenth to here",
}
_HORIZONS = {
    "replayed_horizon": "of replayed tasks",
    "replayable_horizon": "expected of the next replayed",
}
_FLOOR = 1e-6
"""Probabilities below are drawn as this."""


def curriculum(
    records: Iterable[Mapping[str, Any]],
    columns: Mapping[str, Shaped[np.ndarray, " S"]],
    *,
    title: str | None = None,
) -> Figure:
    """Regrets and replay over a search, and the tasks that are remembered at its end.

    Args:
      records: lines of ``metrics.jsonl``.
      columns: of ``curriculum.csv``: ``horizon``, ``score``, ``probability``, ``active``.
      title: above the figure.

    Returns:
      The figure, of four panels: quantiles of the regrets and the share of newborn agents on
      replayed tasks against generations; mean horizons; and each remembered task by horizon and
      regret, the brighter the likelier it is replayed.
    """
    records = list(records)
    with mpl.rc_context(STYLE):
        figure, (regrets, share, horizons, tasks) = panels_of(4, title)
        for axes, names, label in (
            (regrets, _REGRETS, "regret: A2C's return\nless the objective's"),
            (horizons, _HORIZONS, "mean horizon (updates)"),
        ):
            for number, (name, words) in enumerate(names.items()):
                axes.plot(
                    *column_of(records, name),
                    label=words,
                    color=COLOURS[number],
                    linestyle=DASHES[number],
                )
            axes.set_ylabel(label)
            legend_above(axes, figure.get_figwidth() / 2)
        for number, (name, words) in enumerate(
            {"replayed": "newborn agents on replayed tasks", "filled": "buffer filled"}.items()
        ):
            share.plot(
                *column_of(records, name),
                label=words,
                color=COLOURS[number],
                linestyle=DASHES[number],
            )
        share.set_ylim(0, 1.02)
        share.set_ylabel("share")
        legend_above(share, figure.get_figwidth() / 2)
        for axes in (regrets, share, horizons):
            axes.set_xlabel("generation")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        _tasks(figure, tasks, columns)
    return figure


def _tasks(figure: Figure, axes: Any, columns: Mapping[str, np.ndarray]) -> None:
    """Every remembered task that has a regret."""
    score, horizon = columns["score"], columns["horizon"]
    known = np.isfinite(score)
    waits = known & (columns["probability"] <= 0)
    idle = known & ~waits
    axes.scatter(horizon[waits], score[waits], s=10, facecolors="none", edgecolors="0.6", lw=0.6)
    if idle.any():
        chance = np.maximum(columns["probability"][idle], _FLOOR)
        norm = LogNorm(chance.min(), max(chance.max(), 1.0001 * chance.min()))
        order = np.argsort(chance)
        drawn = axes.scatter(
            horizon[idle][order],
            score[idle][order],
            c=chance[order],
            s=12,
            cmap=LIVES,
            norm=norm,
            linewidths=0,
        )
        figure.colorbar(drawn, ax=axes, label="probability of replay")
    axes.set_xscale("log")
    ticks = np.unique(np.round(np.geomspace(max(horizon.min(), 1), horizon.max(), 4)))
    axes.set_xticks(ticks)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.set_xlabel("horizon (updates); hollow: lived on now")
    axes.set_ylabel("regret")
