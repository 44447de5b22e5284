"""The main job on a laptop: evolve an objective and its horizon-blind twin, compare them."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from discovery.config import (
    Config,
    ConfigError,
    check,
    check_minutes,
    check_sizes,
    preset,
)
from discovery.evaluation import figures, horizons, table
from discovery.outer.search import Search, make_search
from discovery.report.page import renew
from discovery.requests import QuickstartConfig
from discovery.runs import folders
from discovery.runs.errors import Interrupted, Terminated
from discovery.runs.run import Run, evolve
from discovery.screen import say
from learned_objectives.library import Saved, load

HORIZONS = (2, 5, 10, 20, 40, 80, 160)
"""Inside the trained range, 5 to 80, and outside it on both sides."""
OURS, TWIN, BORN, RIVAL, NOTHING = "TA-LPG", "LPG (blind twin)", "untrained", "A2C", "random"


def quickstart(
    request: QuickstartConfig, report: Callable[[Any], None] = say
) -> list[table.Comparison]:
    """Evolve TA-LPG, evolve its horizon-blind twin with the same budget, and compare both.

    Beside them stand the objective as it was before the search, a policy that never learns, and
    A2C at rates tuned for this size of life. All meet the same held-out levels and random numbers
    at horizons inside and outside the trained range.

    Args:
      request: see its fields.
      report: told what happens, a line at a time.

    Returns:
      How TA-LPG compares with each of the others, by horizon; nothing if the time was over before.

    Raises:
      ConfigError: what is asked for cannot run, or another quickstart is in its folder.
      Interrupted: Ctrl-C; what is done is saved, and the text says how to go on.
      Terminated: the same for SIGTERM.
    """
    began = time.monotonic()
    check_minutes(request.max_minutes)
    check_sizes(generations=request.generations, levels=request.levels)
    config = preset("quickstart")
    config = replace(
        config, seed=request.seed, generations=request.generations or config.generations
    )
    check(config)
    folder = Path(request.out)
    go_on = f"go on with: {_command(request)}"
    runs: list[Run] = []
    shared: dict[str, Search] = {}
    for title, name, gate in (
        ("1. TA-LPG, which sees its clock", "ta-lpg", 1.0),
        ("2. its horizon-blind twin: the same, its clock times zero", "lpg", 0.0),
    ):
        report(f"\n{title}")
        this = replace(config, objective=replace(config.objective, clock_gate=gate))
        runs.append(_search(this, folder / name, request, began, shared))
        stopped = runs[-1].stopped
        if stopped == "minutes":
            report(f"stopped before the comparison; {go_on}")
            return []
        if stopped:
            kind = Interrupted if stopped == "interrupt" else Terminated
            raise kind(f"stopped before the comparison; {go_on}")

    report("\n3. the comparison, on held-out levels")
    try:
        rows = _compare(config, runs, shared["ta-lpg"], request, began, report)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped during the comparison; {go_on}") from None
    if not rows:
        report(f"stopped during the comparison; {go_on}")
        return []
    sampled = [row for row in rows if row.actions == "sampled"]
    summaries = table.summary(sampled)
    report(table.render(summaries))
    others = (TWIN, BORN, RIVAL, NOTHING)
    comparisons = [c for other in others for c in table.compare(sampled, OURS, other)]
    report(table.render_comparisons(comparisons))
    figure = figures.horizon_curve(
        summaries,
        trained=(config.horizon.shortest, config.horizon.longest),
        title=(
            f"{request.levels:,} held-out levels, {config.generations} generations, "
            f"seed {config.seed}"
        ),
    )
    picture, _ = figures.save(figure, folder / "figures" / "horizons")
    report(f"\n{time.monotonic() - began:.0f} s in all. Where to look:")
    report(f"  figure      {picture}")
    report(f"  table       {folder / 'evaluation.csv'}")
    report(f"  run folders {runs[0].folder}, {runs[1].folder}")
    report(f"  next        kairos inspect {runs[0].folder}")
    renew(folder, report)
    return comparisons


def _command(request: QuickstartConfig) -> str:
    """The command that goes on with a quickstart: as it was asked for, but for how it ends."""
    words = ["kairos quickstart"]
    for field in fields(request):
        value = getattr(request, field.name)
        if field.name not in ("overwrite", "max_minutes") and value != field.default:
            words.append(f"--{field.name} {shlex.quote(str(value))}")
    return " ".join(words)


def _search(
    config: Config,
    folder: Path,
    request: QuickstartConfig,
    began: float,
    shared: dict[str, Search],
) -> Run:
    """Run a search, or go on with one that was stopped."""

    def make(config: Config) -> Search:
        shared[folder.name] = make_search(config)
        return shared[folder.name]

    left = None
    if request.max_minutes is not None:
        left = max(request.max_minutes - (time.monotonic() - began) / 60, 1e-9)
    options: dict[str, Any] = {"max_minutes": left, "cache": True, "make": make}
    if (folder / folders.CONFIG).exists() and not request.overwrite:
        other = folders.differences(folders.load_config(folder), config)
        if set(other) - {"generations"}:
            raise ConfigError(
                f"{folder} is of another quickstart (another {', '.join(other)}): "
                "begin anew with --overwrite, or choose another --out"
            )
        return evolve(config, resume=folder, **options)
    return evolve(config, folder, overwrite=request.overwrite, **options)


def _compare(
    config: Config,
    runs: list[Run],
    search: Search,
    request: QuickstartConfig,
    began: float,
    report: Callable[[str], None],
) -> list[table.Row]:
    """A row for each level and horizon; none if the time was over before."""
    levels = horizons.held_out(config.env, "test", request.levels)
    report(
        f"{request.levels:,} levels of {config.env} ({levels.hash}), {levels.redraws} passed over "
        "because nothing can be told on them"
    )
    how = horizons.Setting(config.agent, config.life, config.rival, "as trained")

    def learned(name: str, run: Run, gate: float, theta: Any) -> horizons.Contestant:
        """In the program of the search itself, so that nothing is compiled again."""
        return horizons.Contestant(
            name,
            load(run.folder).digest[: horizons.SHORT] if theta is run.theta else "start",
            search.world,
            search.cohort,
            search.still(theta),
            search.hyper._replace(clock_gate=gate),
        )

    aware, blind = runs
    start = search.theta(search.init())
    contestants = [
        learned(OURS, aware, 1.0, aware.theta),
        learned(TWIN, blind, 0.0, blind.theta),
        learned(BORN, aware, 1.0, start),
        horizons.enter(_named("a2c", RIVAL), config.env, how),
        horizons.enter(_named("random", NOTHING), config.env, how),
    ]
    minutes = request.max_minutes
    rows = horizons.sweep(
        contestants,
        levels,
        HORIZONS,
        config.life,
        out=Path(request.out) / "evaluation.csv",
        report=horizons.narrator(report),
        until=None if minutes is None else began + 60 * minutes,
    )
    cells = {(row.objective, row.horizon) for row in rows}
    return rows if len(cells) == len(contestants) * len(HORIZONS) else []


def _named(rule: str, name: str) -> Saved:
    return load(rule)._replace(name=name)


__all__ = ["HORIZONS", "quickstart"]
