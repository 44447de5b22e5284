"""An objective in environments that it was not found in, for claims 2 and 4."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from discovery.config import RivalConfig
from discovery.evaluation import horizons, table, trials
from discovery.evaluation.papers import DIGITS, ROWS, Job
from discovery.evaluation.transfer import CHOICE, PERCENTILE, TEST, UNIT, Place, Played, Suite
from learned_objectives.library import Saved, load

STREAMS = {CHOICE: "validation", TEST: "test"}


def played(
    job: Job, size: str, runs: Path, until: float, report: Callable[[Any], None]
) -> list[Played] | None:
    """Choose rates, and score agents in every environment of every suite.

    Rows of agents are kept in the entry's folder of the job, so that a stopped one goes on.

    Args:
      job: a finished search, or an objective that exists; its sweep is a tuple of
        :class:`discovery.evaluation.transfer.Suite`.
      size: name of its sizes.
      runs: where the run folders are.
      until: stop at this time.
      report: told what happens.

    Returns:
      A row for each environment, horizon and stage; ``None`` if the time was over before.
    """
    saved = trials.found_by(job, runs)
    out = runs / job.folder / ROWS

    def at(
        suite: Suite, place: Place, ns: Sequence[int], stage: str, rate: float
    ) -> list[Played] | None:
        """Rows of one environment, at some of its horizons."""
        who = _entered(saved, suite, place, rate)
        levels = trials.held_out(place.env, STREAMS[stage], place.levels)
        rows = horizons.sweep(
            [who],
            levels,
            ns,
            place.life,
            greedy=False,
            out=out,
            report=horizons.narrator(report),
            until=until,
        )
        if len(rows) < len(ns) * place.levels:
            return None
        value: table.Value = "score" if levels.optimal is None else "normalised"
        found = []
        for n in ns:
            mine = sorted((row for row in rows if row.horizon == n), key=lambda row: row.level)
            told = [table.value_of(row, value) for row in mine]
            found.append(
                Played(
                    *job.identity(size),
                    suite=suite.name,
                    environment=place.env,
                    horizon=n,
                    stage=stage,
                    rate=rate,
                    value=value,
                    levels=levels.hash,
                    digest=saved.digest[:DIGITS],
                    scores=tuple(math.nan if score is None else score for score in told),
                )
            )
        return found

    def choose(suite: Suite, place: Place, ns: Sequence[int]) -> tuple[list[Played], float] | None:
        """The rate under which agents score most on validation levels, and the rows that say so."""
        rows: list[Played] = []
        means = []
        for rate in suite.rates:
            found = at(suite, place, ns, CHOICE, rate)
            if found is None:
                return None
            rows += found
            means.append(math.fsum(score for row in found for score in row.scores))
        # Of equals the first; what is not finite is never more.
        best = max(range(len(means)), key=lambda i: (not math.isnan(means[i]), means[i]))
        return rows, suite.rates[best]

    def unit(suite: Suite) -> Played | None:
        """The unit of a suite's rewards: a percentile of absolute returns without learning."""
        returns: list[float] = []
        for place in suite.places:
            ns = (min(place.horizons),)  # a life in which nothing is learned may be short
            levels = trials.held_out(place.env, STREAMS[CHOICE], place.levels)
            rows = horizons.sweep(
                [_entered(load("random"), suite, place, 0.0)],
                levels,
                ns,
                place.life,
                greedy=False,
                out=out,
                report=horizons.narrator(report),
                until=until,
            )
            if len(rows) < place.levels:
                return None
            returns += [abs(row.score) for row in rows if row.score is not None]
        found = float(np.percentile(returns, PERCENTILE))
        return Played(
            *job.identity(size),
            suite=suite.name,
            environment="",
            horizon=0,
            stage=UNIT,
            rate=0.0,
            value="score",
            levels="",
            digest="",
            scores=(found,),
        )

    everything: list[Played] = []
    for suite in job.sweep:
        report(f"{job.title}: {suite.name} ...")
        if suite.scaled:
            measured = unit(suite)
            if measured is None:
                return None
            everything.append(measured)
            suite = _in_units(suite, measured.scores[0])
        together = 0.0
        if suite.rates and suite.chosen_on is not None:
            chosen = choose(suite, suite.chosen_on, suite.chosen_on.horizons)
            if chosen is None:
                return None
            everything += chosen[0]
            together = chosen[1]
        for place in suite.places:
            apart = bool(suite.rates) and suite.chosen_on is None
            for ns in [(n,) for n in place.horizons] if apart else [place.horizons]:
                rate = together
                if apart:
                    chosen = choose(suite, place, ns)
                    if chosen is None:
                        return None
                    everything += chosen[0]
                    rate = chosen[1]
                found = at(suite, place, ns, TEST, rate)
                if found is None:
                    return None
                everything += found
    return everything


def _in_units(suite: Suite, unit: float) -> Suite:
    """The same, its agents' rewards divided by a unit."""

    def scaled(place: Place) -> Place:
        return place._replace(agent=replace(place.agent, reward_scale=1 / unit))

    chosen_on = None if suite.chosen_on is None else scaled(suite.chosen_on)
    return suite._replace(places=tuple(map(scaled, suite.places)), chosen_on=chosen_on)


def _entered(saved: Saved, suite: Suite, place: Place, rate: float) -> horizons.Contestant:
    """The objective with agents of a rate."""
    agent = place.agent
    if rate:
        value = rate if suite.value_rate is None else suite.value_rate
        agent = replace(agent, policy_rate=rate, prediction_rate=value)
    # A2C's rates are told apart from its agents'.
    rival = RivalConfig(agent.policy_rate, agent.prediction_rate)
    how = horizons.Setting(agent, place.life, rival, "as the suite has it")
    group = min(trials.GROUP, place.levels)
    capacity = group * -(-min(place.levels, horizons.CAPACITY) // group)
    return horizons.enter(saved, place.env, how, group, capacity)
