"""A grid world as a picture. Matplotlib only, no JAX."""

from __future__ import annotations

import math
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Int, Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from discovery.evaluation.figures import COLOURS, STYLE, panels_of

_GOOD, _BAD, _START = COLOURS[0], COLOURS[1], COLOURS[2]
_ARROWS = ((0.0, -1.0), (0.0, 1.0), (-1.0, 0.0), (1.0, 0.0), (0.0, 0.0))
"""Right and down of up, down, left, right, stay, as the picture's axes count."""


def grid_level(
    level: Any,
    actions: Int[np.ndarray, " cells"] | None = None,
    *,
    title: str | None = None,
) -> Figure:
    """Where an agent lives: walls, start, objects with their rewards.

    Args:
      level: an :class:`envs.gridworld.Level` of a family whose objects have fixed cells.
      actions: what is done in each cell, an index of :data:`envs.gridworld.ACTIONS`; drawn as
        arrows, a dot where the agent stays.
      title: above the figure.

    Returns:
      The figure.

    Raises:
      ValueError: these are several levels.
    """
    walls = np.asarray(level.walls)
    if walls.ndim != 1:
        raise ValueError("one level of a grid world is drawn at a time")
    size = int(np.asarray(level.size))
    side = math.isqrt(walls.size)
    with mpl.rc_context(STYLE):
        figure, [axes] = panels_of(1, title, columns=1)
        figure.set_size_inches(4.6, 4.6)
        axes.set_aspect("equal")
        axes.grid(False)
        for cell in np.flatnonzero(walls):
            row, column = divmod(int(cell), side)
            if row < size and column < size:
                axes.add_patch(Rectangle((column, row), 1, 1, color="0.35"))
        for line in range(size + 1):
            axes.plot([line, line], [0, size], color="0.8", linewidth=0.8, zorder=0)
            axes.plot([0, size], [line, line], color="0.8", linewidth=0.8, zorder=0)
        row, column = divmod(int(np.asarray(level.start)), side)
        axes.add_patch(
            Rectangle((column + 0.04, row + 0.04), 0.92, 0.92, fill=False, lw=2, ec=_START)
        )
        _objects(axes, level, side)
        if actions is not None:
            _arrows(axes, actions, walls, size, side)
        axes.set_xlim(0, size)
        axes.set_ylim(size, 0)
        centres = np.arange(size) + 0.5
        axes.set_xticks(centres, [str(i) for i in range(size)])
        axes.set_yticks(centres, [str(i) for i in range(size)])
        axes.tick_params(length=0)
        axes.set_xlabel("column")
        axes.set_ylabel("row")
        _legend(figure, bool(walls.any()))
    return figure


def _objects(axes: Axes, level: Any, side: int) -> None:
    """A disc for each object, its reward in it; a second ring where it may end the episode."""
    fields = (level.used, level.objects, level.rewards, level.p_terminate)
    for used, cell, reward, ends in zip(*map(np.asarray, fields), strict=True):
        if not used:
            continue
        row, column = divmod(int(cell), side)
        at = (column + 0.5, row + 0.5)
        colour = _GOOD if reward >= 0 else _BAD
        axes.plot(*at, marker="o", markersize=26, color=colour, alpha=0.9, zorder=2)
        if ends > 0.5:
            ring: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": colour}
            axes.plot(*at, marker="o", markersize=31, markeredgewidth=1.5, zorder=2, **ring)
        axes.annotate(
            f"{reward:+.2g}", at, ha="center", va="center", color="white", fontsize=8, zorder=3
        )


def _arrows(
    axes: Axes,
    actions: Int[np.ndarray, " cells"],
    walls: Shaped[np.ndarray, " cells"],
    size: int,
    side: int,
) -> None:
    """What is done in each free cell, in its upper left corner, where no object hides it."""
    for cell in range(side * side):
        row, column = divmod(cell, side)
        if row >= size or column >= size or walls[cell]:
            continue
        right, down = _ARROWS[int(actions[cell])]
        x, y = column + 0.2, row + 0.2
        if (right, down) == (0.0, 0.0):
            axes.plot(x, y, marker=".", color="0.2", markersize=5, zorder=4)
            continue
        axes.annotate(
            "",
            (x + 0.13 * right, y + 0.13 * down),
            (x - 0.13 * right, y - 0.13 * down),
            arrowprops={"arrowstyle": "->", "color": "0.2", "linewidth": 1.1},
            zorder=4,
        )


def _legend(figure: Figure, walls: bool) -> None:
    disc: dict[str, Any] = {"marker": "o", "linestyle": "none", "markersize": 8}
    handles: list[Any] = [
        Patch(fill=False, edgecolor=_START, linewidth=2, label="start"),
        Line2D([], [], color=_GOOD, label="reward above 0", **disc),
        Line2D([], [], color=_BAD, label="below 0", **disc),
        Line2D(
            [], [], markerfacecolor="none", markeredgecolor="0.3", label="likely ends it", **disc
        ),
    ]
    if walls:
        handles.append(Patch(color="0.35", label="wall"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)


__all__ = ["grid_level"]
