"""One job of an entry: its search, what that is worth, and what it makes of its clock."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from discovery.config import to_dict
from discovery.evaluation import clock_use, horizons, statistics, table
from discovery.evaluation.claims import Clocked, Levelled, Scored, Searched
from discovery.evaluation.papers import DIGITS, ROWS, Job
from discovery.evaluation.table import Row
from discovery.outer.search import make_search
from discovery.runs import folders, logs
from discovery.runs.run import evolve
from discovery.runs.stop import Stopped
from learned_objectives.library import CARD, Saved, load, save

GROUP = 32
"""Lives computed together when an objective is scored."""


def search(job: Job, runs: Path, until: float, report: Callable[[Any], None]) -> Stopped:
    """Search, go on with the search, or find it finished; of a start, write what it is.

    Args:
      job: the search.
      runs: where the run folders are.
      until: stop at this time (``time.monotonic``); infinity for never.
      report: told what happens.

    Returns:
      What stopped it before its end, if anything.
    """
    folder = job.place(runs)
    if job.source:
        return ""
    if time.monotonic() >= until:
        return "minutes"
    if job.is_start:
        _write_start(job, folder)
        return ""
    if (folder / CARD).is_file():
        report(f"searched already: {folder}")
        return ""
    left = None if math.isinf(until) else (until - time.monotonic()) / 60
    begun = folder if (folder / folders.CONFIG).is_file() else None
    return evolve(job.config, folder, resume=begun, max_minutes=left, cache=True).stopped


def _write_start(job: Job, folder: Path) -> None:
    """The objective that every search of this seed begins with."""
    search = make_search(job.config)
    objective: Any = search.objective
    theta = jax.device_get(search.theta(search.init()))
    if not job.sees_clock:
        objective, theta = objective.baked(theta, job.config.objective.clock_gate)
    card = {
        "name": job.folder,
        "summary": f"{job.config.objective.rule} as it is before a search",
        "config": to_dict(job.config),
        "seeds": [job.seed],
    }
    save(folder, objective, theta, card)


def scored(
    job: Job, size: str, runs: Path, until: float, report: Callable[[Any], None]
) -> list[Scored] | None:
    """What was found, beside what the search began with, on the same levels.

    Rows of agents are kept in the run folder, so that a stopped evaluation goes on.

    Args:
      job: a finished search.
      size: name of its sizes.
      runs: where the run folders are.
      until: stop at this time.
      report: told what happens.

    Returns:
      A row for each horizon; ``None`` if the time was over before.
    """
    found = _on_levels(job, runs, until, report)
    start = _on_levels(job._replace(cell=job.start), runs, until, report)
    if found is None or start is None:
        return None
    told: dict[str, Any] = {
        **dict(zip(Scored._fields, job.identity(size), strict=False)),
        "levels": job.sweep.levels,
        "digest": found_by(job, runs).digest[:DIGITS],
        **spent(job.place(runs)),
    }
    return [Scored(horizon=n, **told, **_compared(found, start, n)) for n in job.sweep.horizons]


def levelled(
    job: Job, size: str, runs: Path, until: float, report: Callable[[Any], None]
) -> list[Levelled] | None:
    """What was found, on each held-out level.

    Args:
      job: a finished search; its sweep is a tuple of
        :class:`discovery.evaluation.contest.Reach`.
      size: name of its sizes.
      runs: where the run folders are.
      until: stop at this time.
      report: told what happens.

    Returns:
      A row for each horizon, way of acting and measure; ``None`` if the time was over before.
    """
    saved, how = _entered(job, runs)
    who = horizons.enter(saved, job.config.env, how, GROUP)
    out = runs / job.folder / ROWS if job.source else job.place(runs) / "evaluation.csv"
    found = []
    for reach in job.sweep:
        rows = horizons.sweep(
            [who],
            held_out(job.config.env, "test", reach.levels),
            reach.horizons,
            how.life,
            points=horizons.POINTS if reach.area else 1,
            greedy=reach.greedy,
            out=out,
            report=horizons.narrator(report),
            until=until,
        )
        if len(rows) < len(reach.horizons) * reach.levels * len(reach.actions):
            return None
        value: table.Value = "normalised_area" if reach.area else "normalised"
        by: dict[tuple[int, str], dict[int, Row]] = {}
        for row in rows:
            by.setdefault((row.horizon, row.actions), {})[row.level] = row
        found += [
            Levelled(
                *job.identity(size),
                horizon=n,
                actions=mode,
                measure=reach.measure,
                levels=mine[0].level_hash,
                digest=saved.digest[:DIGITS],
                scores=tuple(_known(mine[i], value) for i in range(reach.levels)),
            )
            for (n, mode), mine in by.items()
        ]
    return found


def _known(row: Row, value: table.Value) -> float:
    """A row's number; NaN where there is nothing to normalise by."""
    found = table.value_of(row, value)
    return math.nan if found is None else found


def searched(
    job: Job, size: str, runs: Path, until: float, report: Callable[[Any], None]
) -> list[Searched]:
    """What a search took, and how it ended.

    Args:
      job: a finished search.
      size: name of its sizes.
      runs: where the run folders are.
      until: not asked for: nothing is computed.
      report: not told anything.

    Returns:
      One row.
    """
    lines = logs.read(job.place(runs) / folders.METRICS)
    told = [line["signal"] for line in lines if math.isfinite(line.get("signal", math.nan))]
    last = lines[-1] if lines else {}
    return [
        Searched(
            *job.identity(size),
            **spent(job.place(runs)),
            validation=_short(last.get("validation", math.nan)),
            signal=_short(math.fsum(told) / len(told)) if told else math.nan,
            digest=found_by(job, runs).digest[:DIGITS],
        )
    ]


def found_by(job: Job, runs: Path) -> Saved:
    """The objective of a job: what its search found, or one that there was.

    Args:
      job: a finished search.
      runs: where the run folders are.

    Returns:
      The objective, named after the job.
    """
    return load(job.source or job.place(runs))._replace(name=job.title)


def _entered(job: Job, runs: Path) -> tuple[Saved, horizons.Setting]:
    """What a job found, and how agents live under it."""
    config = job.config
    how = horizons.Setting(config.agent, config.life, config.rival, "as trained")
    return found_by(job, runs), how


@functools.lru_cache(maxsize=8)
def held_out(env: str, stream: str, count: int) -> horizons.Levels:
    """As :func:`discovery.evaluation.horizons.held_out`, made once."""
    return horizons.held_out(env, stream, count)


def _on_levels(
    job: Job, runs: Path, until: float, report: Callable[[Any], None]
) -> list[Row] | None:
    """Agents of every horizon on held-out levels; those that are in the run folder are not run."""
    saved, how = _entered(job, runs)
    env, sweep = job.config.env, job.sweep
    rows = horizons.sweep(
        [horizons.enter(saved, env, how, GROUP)],
        held_out(env, "test", sweep.levels),
        sweep.horizons,
        how.life,
        greedy=False,
        out=job.place(runs) / "evaluation.csv",
        report=horizons.narrator(report),
        until=until,
    )
    return rows if len(rows) == len(sweep.horizons) * sweep.levels else None


def _compared(found: Sequence[Row], start: Sequence[Row], horizon: int) -> dict[str, Any]:
    """Numbers of one horizon, paired by level."""
    by_level = [
        {row.level: table.value_of(row, "normalised") for row in rows if row.horizon == horizon}
        for rows in (found, start)
    ]
    levels = sorted(by_level[0].keys() & by_level[1].keys())
    new, old = (np.array([column[level] for level in levels], float) for column in by_level)
    both = np.isfinite(new) & np.isfinite(old)
    return {
        "iqm": _short(statistics.interquartile_mean(new)),
        "mean": _mean(new),
        "start_iqm": _short(statistics.interquartile_mean(old)),
        "start_mean": _mean(old),
        "difference": _mean(new[both] - old[both]),
        "nonfinite": int(np.sum(~np.isfinite(new))),
    }


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return _short(finite.mean()) if finite.size else math.nan


def _short(value: Any) -> float:
    """A number of a table that stands in a repository: six digits tell all there is to tell."""
    return round(float(value), 6)


def spent(folder: Path) -> dict[str, Any]:
    """What a search took; nothing, where there was none.

    Args:
      folder: of the run.

    Returns:
      Generations, environment steps of training and of evaluation, and minutes.
    """
    lines = logs.read(folder / folders.METRICS)
    last = lines[-1] if lines else {}
    return {
        "generations": int(last.get("generation", 0)),
        "steps": float(last.get("steps", 0.0)),
        "evaluation_steps": math.fsum(line.get("evaluation_steps") or 0.0 for line in lines),
        "minutes": round(float(last.get("seconds", 0.0)) / 60, 2),
    }


def clocked(
    job: Job, size: str, runs: Path, until: float, report: Callable[[Any], None]
) -> list[Clocked] | None:
    """What false clocks cost, and how far the objective's words follow its clock.

    Args:
      job: a finished search for an objective that sees its clock.
      size: name of its sizes.
      runs: where the run folders are.
      until: stop at this time.
      report: told what happens.

    Returns:
      A row for each measure and horizon; ``None`` if the time was over before.
    """
    saved, how = _entered(job, runs)
    env, sweep = job.config.env, job.sweep
    rows = clock_use.losses(
        saved,
        env,
        how,
        held_out(env, "test", sweep.clock_levels),
        sweep.clock_horizons,
        out=job.place(runs) / "evaluation.csv",
        report=horizons.narrator(report),
        until=until,
        group=GROUP,
    )
    lied = {(row.clock, row.horizon) for row in rows}
    asked = horizons.lengths(sweep.clock_horizons, clock_use.CLOCKS)
    if len(lied) < len(asked) or time.monotonic() >= until:
        return None
    who = horizons.enter(saved, env, how, GROUP)
    words = clock_use.sensitivity(
        who.world,
        who.source,
        who.hyper,
        held_out(env, "validation", sweep.clock_levels).levels,
        sweep.clock_horizons,
        job.seed,
        told=sweep.told,
    )
    uses = clock_use.summarise(
        rows,
        {saved.name: [words]},
        horizons=sweep.clock_horizons,
        resamples=1,  # no interval is claimed
    )
    return [
        Clocked(
            *job.identity(size),
            measure=use.measure,
            horizon=use.horizon,
            value=_short(use.value),
            levels=sweep.clock_levels,
            digest=saved.digest[:DIGITS],
        )
        for use in uses
    ]
