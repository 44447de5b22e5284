"""What claim 5 looks at in one objective: its updates told other times, its drift, its lives."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from discovery.evaluation import horizons, schedule, slopes, trials
from discovery.evaluation.claim_5 import (
    ADVANTAGES,
    MEASURES,
    RATIOS,
    SIGNS,
    THOUSANDTHS,
    TIMES,
    Lived,
    Look,
    Moved,
    Surface,
    Turned,
)
from discovery.evaluation.papers import DIGITS, Job


def _entered(job: Job, runs: Path) -> tuple[horizons.Contestant, str]:
    """Who is looked at, and which theta it is."""
    saved, config = trials.found_by(job, runs), job.config
    how = horizons.Setting(config.agent, config.life, config.rival, "as trained")
    return horizons.enter(saved, config.env, how, trials.GROUP), saved.digest[:DIGITS]


def _levels(job: Job) -> Any:
    look: Look = job.sweep
    return trials.held_out(job.config.env, "validation", look.levels).levels


def moved(
    job: Job, size: str, runs: Path, until: float, report: Callable[[Any], None]
) -> list[Moved] | None:
    """One update, told other times.

    Args:
      job: a finished search.
      size: name of its sizes.
      runs: where the run folders are.
      until: stop at this time.
      report: told what happens.

    Returns:
      A row for each horizon, age and measure; ``None`` if the time was over before.
    """
    who, digest = _entered(job, runs)
    look: Look = job.sweep
    rows = []
    for n in look.told:
        if time.monotonic() >= until:
            return None
        report(f"one update of {n}, told other times ...")
        found = schedule.moved(who.world, who.source, who.hyper, _levels(job), n, job.seed)
        rows += [
            Moved(
                *job.identity(size),
                horizon=n,
                age=int(age),
                measure=measure,
                levels=look.levels,
                digest=digest,
                values=tuple((THOUSANDTHS * values[i]).tolist()),
            )
            for measure, values in zip(MEASURES, found.by_age(), strict=True)
            for i, age in enumerate(found.ages)
        ]
    return rows


def turned(
    job: Job, size: str, runs: Path, until: float, report: Callable[[Any], None]
) -> list[Turned] | None:
    """Where a drift turns the policy away.

    Args:
      job: a finished search for an objective of mirror learning.
      size: name of its sizes.
      runs: where the run folders are.
      until: stop at this time.
      report: told what happens.

    Returns:
      A row for each advantage and measure; ``None`` if the time was over before.
    """
    if time.monotonic() >= until:
        return None
    who, digest = _entered(job, runs)
    look: Look = job.sweep
    report(f"its drift, told N = {look.drift} ...")
    times = slopes.shares(look.drift)
    return [
        Turned(
            *job.identity(size),
            horizon=look.drift,
            advantage=sign,
            measure=measure,
            digest=digest,
            ratios=tuple(ratios.tolist()),
        )
        for sign in SIGNS
        for measure, ratios in schedule.turns(
            who.world, who.source, who.hyper, look.drift, sign, times
        )
        ._asdict()
        .items()
    ]


def surfaces(
    job: Job, size: str, runs: Path, until: float, report: Callable[[Any], None]
) -> list[Surface] | None:
    """What a drift leaves of the push.

    Args:
      job: a finished search for an objective of mirror learning.
      size: name of its sizes.
      runs: where the run folders are.
      until: stop at this time.
      report: not told anything: this takes a moment.

    Returns:
      A row for each time and advantage; ``None`` if the time was over before.
    """
    if time.monotonic() >= until:
        return None
    who, digest = _entered(job, runs)
    look: Look = job.sweep
    log_ratio, advantage = np.meshgrid(np.log(RATIOS), np.array(ADVANTAGES))

    def left(share: Array) -> Array:
        told = schedule.told(who.world, share, look.drift)
        p, a = (jnp.asarray(x, jnp.float32) for x in (log_ratio, advantage))
        slope = schedule.surface(who.world.objective, who.source, who.hyper, p, a, told)[1]
        return advantage - slope

    pushes = np.asarray(jax.jit(jax.vmap(left))(jnp.asarray(TIMES)), float)
    return [
        Surface(
            *job.identity(size),
            horizon=look.drift,
            share=share,
            advantage=a,
            digest=digest,
            pushes=tuple(pushes[i, j].tolist()),
        )
        for i, share in enumerate(TIMES)
        for j, a in enumerate(ADVANTAGES)
    ]


def lived(
    job: Job, size: str, runs: Path, until: float, report: Callable[[Any], None]
) -> list[Lived] | None:
    """Lives of several horizons, watched.

    Args:
      job: a finished search.
      size: name of its sizes.
      runs: where the run folders are.
      until: stop at this time.
      report: told what happens.

    Returns:
      A row for each horizon and measure; ``None`` if the time was over before.
    """
    who, digest = _entered(job, runs)
    look: Look = job.sweep
    rows = []
    for n in look.lived:
        if time.monotonic() >= until:
            return None
        report(f"{look.levels} lives of {n} updates ...")
        along = schedule.along_lives(who.world, who.source, who.hyper, _levels(job), n, job.seed)
        curves = {"entropy": along.entropy, "kl": THOUSANDTHS * along.change}
        rows += [
            Lived(
                *job.identity(size),
                horizon=n,
                measure=measure,
                levels=look.levels,
                digest=digest,
                values=tuple(np.mean(values, axis=0).tolist()),
            )
            for measure, values in curves.items()
        ]
    return rows
