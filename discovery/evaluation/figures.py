"""Rows and arrays to figures: Matplotlib only, no JAX, no window.

Every function takes plain data and returns a figure; :func:`save` writes it as PNG and SVG. The
same data make the same bytes. Colours are told apart by colour-blind readers, and every line has a
marker or a place of its own beside its colour.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from discovery.evaluation.table import TRUE, ClockUse, Summary
from learned_objectives.library import write_whole

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, the pale yellow left out."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", ":", "-.")

# Any: Matplotlib types the keys of such a mapping one by one.
STYLE: Any = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "figure.titlesize": 11,
    "font.size": 9,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "svg.hashsalt": "kairos",  # identifiers in an SVG are random otherwise
}
_WIDTH = 6.4
_PANEL = 2.7
_DPI = 160

_LABELS = {
    "normalised": "normalised score\n(0 random, 1 optimal)",
    "score": "undiscounted return",
    "normalised_area": "normalised score\naveraged along the life",
    "area": "return averaged along the life",
}

# Dark ends of a map that is monotone in lightness: no line is as pale as paper.
LIVES = ListedColormap(mpl.colormaps["viridis"](np.linspace(0.0, 0.88, 256)), name="lives")


def save(figure: Figure, path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write a figure as ``<path>.png`` and ``<path>.svg``, each under a temporary name first.

    Args:
      figure: of any function here.
      path: without suffix (or with one of the two, which is left out).

    Returns:
      The paths of the PNG and the SVG. Their bytes depend on the figure only, not on the day.

    Raises:
      OSError: the disk is full or read-only.
    """
    path = Path(path)
    if path.suffix in (".png", ".svg"):
        path = path.with_suffix("")
    path.parent.mkdir(parents=True, exist_ok=True)
    nobody: dict[str, dict[str, Any]] = {
        "png": {"Software": None},
        "svg": {"Date": None, "Creator": None},
    }
    written = []
    for kind, metadata in nobody.items():
        data = io.BytesIO()
        with mpl.rc_context(STYLE):
            figure.savefig(data, format=kind, dpi=_DPI, metadata=metadata)
        written.append(path.with_name(f"{path.name}.{kind}"))
        write_whole(written[-1], data.getvalue())
    return written[0], written[1]


# --- score against horizon --------------------------------------------------------------------


def horizon_curve(
    summaries: Sequence[Summary],
    *,
    trained: tuple[int, int] | None = None,
    title: str | None = None,
) -> Figure:
    """Score against horizon: a line for each objective, a panel for each environment.

    Args:
      summaries: from :func:`discovery.evaluation.table.summary`.
      trained: shortest and longest horizon that the search drew; shaded.
      title: above the figure.

    Returns:
      The figure. Intervals are shaded where they are claimed; what is not finite is named below.
    """
    panels: dict[tuple[str, str, str, str, str], list[Summary]] = {}
    for entry in summaries:
        key = (entry.environment, entry.level_hash, entry.actions, entry.value, entry.clock)
        panels.setdefault(key, []).append(entry)
    _need(panels)
    objectives = list(dict.fromkeys(entry.objective for entry in summaries))
    one_kind = len({key[2] for key in panels}) == 1
    with mpl.rc_context(STYLE):
        figure, grid = panels_of(len(panels), title)
        for axes, ((environment, _, actions, value, clock), entries) in zip(
            grid, panels.items(), strict=True
        ):
            missing = _draw_horizons(axes, entries, objectives, trained)
            name = environment if one_kind else f"{environment}, {actions} actions"
            axes.set_title(plain(name if clock == TRUE else f"{name}, clock {clock}"))
            axes.set_ylabel(_LABELS[value])
            axes.set_xlabel(_horizon_label(entries) + missing)
        legend_below(figure, grid)
    return figure


def _draw_horizons(
    axes: Axes,
    entries: Sequence[Summary],
    objectives: Sequence[str],
    trained: tuple[int, int] | None,
) -> str:
    """Draw one panel; returns what could not be drawn, as a line below it."""
    missing = []
    for number, objective in enumerate(objectives):
        found = sorted((e for e in entries if e.objective == objective), key=lambda e: e.horizon)
        if not found:
            continue
        horizon = np.array([e.horizon for e in found])
        estimate, low, high = (
            np.array([getattr(e, name) for e in found], float)
            for name in ("estimate", "low", "high")
        )
        drawn = np.isfinite(estimate)
        look = _look(number)
        axes.plot(horizon[drawn], estimate[drawn], label=plain(objective), **look)
        band = drawn & np.isfinite(low) & np.isfinite(high)
        axes.fill_between(
            horizon, low, high, where=list(band), color=look["color"], alpha=0.18, linewidth=0
        )
        if band.sum() == 1:  # one point has no area
            axes.vlines(horizon[band], low[band], high[band], color=look["color"], alpha=0.5)
        if not drawn.all():
            lost = ", ".join(map(str, horizon[~drawn]))
            missing.append(f"{objective} at {lost}")
    if trained is not None:
        shortest, longest = trained
        if longest > shortest:
            axes.axvspan(
                shortest, longest, color="0.92", linewidth=0, zorder=0, label="trained horizons"
            )
        else:
            axes.axvline(shortest, color="0.85", linewidth=4, zorder=0, label="trained horizon")
    horizons = sorted({e.horizon for e in entries})
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(_apart(horizons)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.set_xlim(horizons[0] / 1.25, horizons[-1] * 1.25)
    return f"\nnot finite, not drawn: {plain('; '.join(missing))}" if missing else ""


def _apart(horizons: Sequence[int], factor: float = 1.6) -> list[int]:
    """Horizons to print on a log axis: the ends, and between them none too close to another."""
    kept = [horizons[0]]
    for horizon in horizons[1:-1]:
        if horizon >= factor * kept[-1] and horizons[-1] >= factor * horizon:
            kept.append(horizon)
    return kept + [horizons[-1]] * (len(horizons) > 1)


def _horizon_label(entries: Sequence[Summary]) -> str:
    ratios = {entry.steps / entry.horizon for entry in entries}
    text = "horizon (agent updates"
    if len(ratios) == 1 and (ratio := ratios.pop()) > 0:
        text += f"; one is {ratio:,.0f} environment steps"
    return text + ")"


# --- a search ---------------------------------------------------------------------------------

_SCORES = {
    "validation": "validation levels",
    "validation_short": "short horizons",
    "validation_middle": "middle horizons",
    "validation_long": "long horizons",
    "fitness": "population, changing tasks",
}
_HEALTH = {
    "tied": "pairs that tied",
    "signal": "signal: correlation across random streams",
    "nonfinite": "lives that turned non-finite",
}


def learning_curve(
    records: Iterable[Mapping[str, Any]],
    *,
    population: int | None = None,
    title: str | None = None,
) -> Figure:
    """Is it learning? Scores of a search against generations, and below them its health.

    Args:
      records: lines of ``metrics.jsonl``, each with ``generation`` and any of ``validation`` (and
        other names that begin so), ``fitness``, ``tied``, ``signal``, ``nonfinite``, ``steps``.
      population: lives of one generation, to show ``nonfinite`` as a share.
      title: above the figure.

    Returns:
      The figure; a panel for which there is nothing is left out.
    """
    records = [record for record in records if "generation" in record]
    scores = dict(_SCORES)
    for name in sorted({name for record in records for name in record}):
        if name.startswith("validation_") and name not in scores:
            scores[name] = name.removeprefix("validation_").replace("_", " ")
    shown = {name: column_of(records, name) for name in (*scores, *_HEALTH)}
    if population is None:
        shown.pop("nonfinite")
    else:
        generations, counts = shown["nonfinite"]
        shown["nonfinite"] = (generations, counts / population)
    shown = {name: xy for name, xy in shown.items() if len(xy[0])}
    rows = [
        ({n: label for n, label in names.items() if n in shown}, ylabel)
        for names, ylabel in ((scores, "return of a trained agent"), (_HEALTH, "share"))
    ]
    rows = [row for row in rows if row[0]]
    _need(rows)
    first, last = (f(record["generation"] for record in records) for f in (min, max))
    margin = 0.02 * (last - first) or 1.0
    with mpl.rc_context(STYLE):
        figure, grid = panels_of(len(rows), title, columns=1)
        for axes, (names, ylabel) in zip(grid, rows, strict=True):
            for number, (name, label) in enumerate(names.items()):
                x, y = shown[name]
                main = name == "validation" or ylabel == "share"
                axes.plot(
                    x,
                    y,
                    label=label,
                    color="0.55" if name == "fitness" else COLOURS[number % len(COLOURS)],
                    linestyle=DASHES[number % len(DASHES)] if name != "fitness" else "-",
                    linewidth=1.8 if main else 1.0,
                    marker="o" if len(x) < 2 else None,
                    zorder=3 if main else 2,
                )
            axes.set_ylabel(ylabel)
            axes.set_xlim(first - margin, last + margin)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            if ylabel == "share":
                axes.set_ylim(min(0.0, axes.get_ylim()[0]), max(1.0, axes.get_ylim()[1]))
            legend_above(axes, figure.get_figwidth())
        steps = column_of(records, "steps")[1]
        spent = f" ({_power(steps[-1])} environment steps in all)" if len(steps) else ""
        grid[-1].set_xlabel(f"generation{spent}")
    return figure


def column_of(
    records: Sequence[Mapping[str, Any]], name: str
) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, " K"]]:
    """Generations and values of one metric, where it is a finite number."""
    found = [
        (record["generation"], record[name])
        for record in records
        if isinstance(record.get(name), int | float) and math.isfinite(record[name])
    ]
    points = np.array(found, float).reshape(-1, 2)
    return points[:, 0], points[:, 1]


# --- a life -----------------------------------------------------------------------------------


def life_curve(
    updates: Shaped[np.ndarray, " K"],
    panels: Mapping[str, Mapping[str, Float[np.ndarray, "*agents K"]]],
    *,
    title: str | None = None,
    steps_per_update: int | None = None,
) -> Figure:
    """What happens along a life: a panel for each quantity, a line for each objective.

    Args:
      updates: updates done, ``[K]``.
      panels: quantity with its unit (``"entropy (nats)"``) -> objective -> values, ``[K]`` for one
        agent or ``[agents, K]`` for several: then the median and the middle half.
      title: above the figure.
      steps_per_update: environment steps of one update, told beside the axis.

    Returns:
      The figure.
    """
    _need(panels)
    objectives = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    with mpl.rc_context(STYLE):
        figure, grid = panels_of(len(panels), title, columns=1)
        for axes, (quantity, lines) in zip(grid, panels.items(), strict=True):
            for objective, values in lines.items():
                look = _look(objectives.index(objective)) | {"markevery": few(len(updates))}
                values = np.where(np.isfinite(values), values, np.nan)
                if values.ndim == 1:
                    axes.plot(updates, values, label=plain(objective), **look)
                    continue
                low, middle, high = np.nanquantile(values, [0.25, 0.5, 0.75], axis=0)
                axes.plot(updates, middle, label=plain(objective), **look)
                axes.fill_between(updates, low, high, color=look["color"], alpha=0.18, linewidth=0)
            axes.set_ylabel(plain(quantity))
        unit = f" (one is {steps_per_update:,} environment steps)" if steps_per_update else ""
        grid[-1].set_xlabel(f"updates done{unit}")
        if len(objectives) > 1:
            legend_below(figure, grid)
    return figure


# --- what an objective does ---------------------------------------------------------------------


def clock_use(uses: Sequence[ClockUse], *, title: str | None = None) -> Figure:
    """Whether an objective uses its clock: score lost under false ones, and sensitivities.

    Args:
      uses: losses and sensitivities of one objective, then of the nulls it is compared with.
      title: above the figure.

    Returns:
      The figure: a panel of losses and one of sensitivities, a row for each measure, a place in
      it for each horizon; the markers of nulls are hollow. What is not finite is named below.
    """
    _need(uses)
    losses = [use for use in uses if not use.measure.startswith("S_")]
    words = [use for use in uses if use.measure.startswith("S_")]
    panels = [found for found in (losses, words) if found]
    horizons = sorted({use.horizon for use in uses})
    names = list(dict.fromkeys(use.objective for use in uses))
    places = [(horizon, name) for horizon in horizons for name in names]
    with mpl.rc_context(STYLE):
        figure, grid = panels_of(len(panels), title)
        rows = max(len({use.measure for use in found}) for found in panels)
        figure.set_figheight(1.6 + rows * max(0.3, 0.075 * (len(places) + 2)))
        for axes, found in zip(grid, panels, strict=True):
            missing = _draw_uses(axes, found, horizons, names)
            lost = found is losses
            label = "score lost (true clock less false)" if lost else "sensitivity to the clock"
            axes.set_xlabel(label + missing)
        legend_below(figure, grid)
    return figure


_USES = {
    "S_pi_fraction": r"$S_\pi$, n/N moved",
    "S_pi_horizon": r"$S_\pi$, N moved",
    "S_y_fraction": r"$S_y$, n/N moved",
    "S_y_horizon": r"$S_y$, N moved",
    "half": "half: stopped at N/2",
}


def _draw_uses(
    axes: Axes, uses: Sequence[ClockUse], horizons: Sequence[int], names: Sequence[str]
) -> str:
    """Draw one panel; returns what could not be drawn, as a line below it."""
    measures = list(dict.fromkeys(use.measure for use in uses))
    places = [(horizon, name) for horizon in horizons for name in names]
    missing = []
    for place, (horizon, name) in enumerate(places):
        offset = 0.8 * ((place + 0.5) / len(places) - 0.5)
        found = [use for use in uses if (use.horizon, use.objective) == (horizon, name)]
        drawn = [use for use in found if math.isfinite(use.value)]
        missing += [f"{name}, {u.measure} at {horizon}" for u in found if u not in drawn]
        look = _look(horizons.index(horizon)) | {"linestyle": "none"} | _fill(names.index(name))
        x = [use.value for use in drawn]
        y = [measures.index(use.measure) + offset for use in drawn]
        axes.plot(x, y, label=f"N = {horizon:,}" if name == names[0] else None, **look)
        for use, height in zip(drawn, y, strict=True):
            if math.isfinite(use.low) and math.isfinite(use.high):
                axes.hlines(height, use.low, use.high, color=look["color"], linewidth=1, alpha=0.7)
    for number, name in enumerate(names if len(names) > 1 else ()):
        axes.plot([], [], "o", color="0.4", label=plain(name), **_fill(number))
    axes.axvline(0, color="0.4", linewidth=0.8, zorder=1)
    for between in range(len(measures) - 1):
        axes.axhline(between + 0.5, color="0.85", linewidth=0.6, zorder=0)
    axes.set_yticks(range(len(measures)), [_USES.get(name, plain(name)) for name in measures])
    axes.set_ylim(len(measures) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    return f"\nnot finite, not drawn: {plain('; '.join(missing))}" if missing else ""


def entropies(
    lives: Mapping[int, Float[np.ndarray, "..."]],
    *,
    ylabel: str = "entropy of the policy (nats)",
    title: str | None = None,
) -> Figure:
    """Curves of lives of several horizons, aligned by age and by share of life.

    A schedule that stretches with the horizon makes the right panel's lines fall together; one that
    counts updates makes the left panel's.

    Args:
      lives: horizon N -> a value of each update, before which n = 0 to N - 1 were done, ``[N]``.
      ylabel: what the values are, with their unit.
      title: above the figure.

    Returns:
      The figure.
    """
    _need(lives)
    shortest, longest = min(lives), max(lives)
    norm = LogNorm(shortest, longest) if longest > shortest else Normalize(0, longest)
    with mpl.rc_context(STYLE):
        figure, (by_age, by_share) = panels_of(2, title, share_y=True)
        for number, (horizon, values) in enumerate(sorted(lives.items())):
            done = np.arange(horizon)
            look: dict[str, Any] = {
                "color": LIVES(norm(horizon)),
                "marker": MARKERS[number % len(MARKERS)],
                "markevery": few(len(values)),
                "label": f"N = {horizon:,}",
            }
            # From 0 on a log axis: one is added to every age.
            by_age.plot(1 + done, values, **look)
            by_share.plot(done / horizon, values, **look)
        by_age.set_xscale("log")
        round_ones = {m * 10**e for m in (1, 2, 5) for e in range(8)}
        by_age.xaxis.set_major_locator(
            FixedLocator(_apart(sorted({n for n in round_ones if n < longest} | {longest})))
        )
        by_age.xaxis.set_minor_locator(NullLocator())
        by_age.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        by_age.set_xlabel("age: the update, n + 1")
        by_share.set_xlabel("share of the life done, n/N")
        by_age.set_ylabel(plain(ylabel))
        legend_below(figure, [by_age])
    return figure


# --- parts ------------------------------------------------------------------------------------


def panels_of(
    panels: int, title: str | None, *, columns: int = 2, share_y: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels; Agg draws it, no window is asked for."""
    columns = min(columns, panels)
    rows = -(-panels // columns)
    height = _PANEL * rows + (0.9 if rows == 1 else 0.4)
    figure = Figure(figsize=(_WIDTH if columns == 1 else 1.4 * _WIDTH, height))
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=share_y).ravel()
    for axes in grid[panels:]:
        axes.remove()
    if title:
        figure.suptitle(plain(title))
    return figure, list(grid[:panels])


def _look(number: int) -> dict[str, Any]:
    """Colour, marker and dashes of the line of this number: 196 of them differ."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[(number + number // len(COLOURS)) % len(MARKERS)],
        "linestyle": DASHES[number // len(COLOURS) % len(DASHES)],
    }


def _fill(number: int) -> dict[str, Any]:
    """How the markers of the objective of this number are filled: the first wholly."""
    if number == 0:
        return {}
    return {
        "fillstyle": ("full", "left", "top")[(number - 1) % 3],
        "markerfacecoloralt": "white",
        **({"markerfacecolor": "white"} if number == 1 else {}),
    }


def few(points: int) -> int:
    """Every which point gets a marker, so that about eight do."""
    return max(1, points // 8)


def legend_below(figure: Figure, grid: Sequence[Axes]) -> None:
    """One legend for all panels, where no data can be."""
    found: dict[str, Any] = {}
    for axes in grid:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    ncols = _columns(list(found), figure.get_figwidth())
    figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=ncols)
    figure.set_figheight(figure.get_figheight() + 0.17 * (-(-len(found) // ncols) - 1))


def legend_above(axes: Axes, width: float) -> None:
    """A panel's own legend, above its data."""
    labels = axes.get_legend_handles_labels()[1]
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.2,
        ncols=_columns(labels, width - 0.8),
    )


def _columns(labels: Sequence[str], width: float) -> int:
    """Most columns of a legend that fit into so many inches."""
    handle, letter = 0.55, 0.075
    for columns in range(len(labels), 1, -1):
        # As Matplotlib deals them out: the first columns are the longer ones.
        longest = [max(map(len, part)) for part in np.array_split(labels, columns)]
        if sum(handle + letter * length for length in longest) <= width:
            return columns
    return 1


def colourbar(figure: Figure, axes: Axes, norm: Normalize, colours: Colormap, label: str) -> None:
    """What the colours of a panel mean, below it."""
    bar = figure.colorbar(
        ScalarMappable(norm, colours),
        ax=axes,
        location="bottom",
        pad=0.02,
        aspect=30,
        ticks=MaxNLocator(5),
    )
    bar.set_label(plain(label) if "$" not in label else label)


def _power(number: float) -> str:
    """A large count, as people write it."""
    if number < 1e4:
        return f"{number:,.0f}"
    exponent = int(math.log10(number))
    return rf"${number / 10**exponent:.1f} \times 10^{{{exponent}}}$"


def plain(text: str) -> str:
    """A name as text: no mathematics in it, and legends do not hide it."""
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _need(data: Any) -> None:
    if len(data) == 0:
        raise ValueError("there is nothing to draw")
