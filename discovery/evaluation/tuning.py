"""Tuning a rival: the search that a learned objective gets, and random draws; the better of both.

A rival is a hand-written rule whose numbers theta moves (``a2c-scheduled-n``, ``ppo-constant``,
...). Any rule with ``random_search`` can be tuned like this.

Shape legend: ``D`` draws, ``V`` validation tasks.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from discovery.config import (
    AgentConfig,
    Config,
    ConfigError,
    LifeConfig,
    check,
    check_sizes,
    mixed,
)
from discovery.evaluation import table
from discovery.inner.build import make_environment, make_hyper, make_objective, make_world, static
from discovery.inner.cohort import Cohort, make_cohort
from discovery.inner.lifetime import Measure, World
from discovery.outer.grouping import grouped
from discovery.outer.scoring import validation_lives
from discovery.outer.search import root_key
from discovery.outer.tasks import spread_horizons
from discovery.requests import TuneConfig
from discovery.runs import folders, logs
from discovery.runs.ending import write_card
from discovery.runs.errors import Interrupted, Terminated
from discovery.runs.run import evolve
from discovery.screen import say
from learned_objectives.base import Theta
from learned_objectives.library import CARD, load

SEARCH, DRAWS = "search", "draws.csv"
"""In the folder of a tuning: the run folder of its search, and what was drawn."""


class Tuned(NamedTuple):
    """A tuned rule."""

    theta: Theta
    by: str
    """What found it: ``search`` or ``draws``; ``reference`` if neither is better than that."""
    scores: dict[str, float]
    """Return of both finalists and of the reference on validation tasks that chose none."""
    folder: Path


def candidates(objective: Any, key: Array, count: int) -> Theta:
    """The reference, and log-uniform draws of the rule's numbers.

    Args:
      objective: a rule with ``random_search``.
      key: consumed.
      count: D; the reference comes before them.

    Returns:
      Theta, leaves ``[1 + D, ...]``.
    """
    drawn = objective.random_search(key, count)
    return jax.tree.map(lambda leaf: jnp.concatenate([jnp.zeros_like(leaf[:1]), leaf]), drawn)


def returns(config: Config, thetas: Theta, stream: str) -> Float[np.ndarray, " D"]:
    """Mean final return of each theta on the validation tasks of a search, by sampled actions.

    Args:
      config: of the search: environment, agents, sizes of lives, law of horizons.
      thetas: leaves ``[D, ...]``.
      stream: name of the random numbers of the lives; one name, the same numbers for every theta.

    Returns:
      ``[D]``; minus infinity where an agent is not finite.
    """
    config = grouped(config)
    objective: Any = make_objective(config.objective, config.agent)
    world = _world(objective, config.env, static(config.agent), config.life)
    hyper = make_hyper(objective, config.agent, config.objective.clock_gate)
    cohort = _cohort(world, config.evolution.group, config.validation_levels)
    lives = validation_lives(
        make_environment(config.env), config.horizon, config.validation_levels, stream
    )
    measure = Measure(points=jnp.int32(1), modes=jnp.int32(1))
    found = []
    for which in range(jax.tree.leaves(thetas)[0].shape[0]):
        these = lives._replace(id=jnp.full_like(lives.id, which))
        outcome = cohort.run(thetas, hyper, these, measure)
        score = jnp.where(outcome.finite, outcome.final[:, 0], -jnp.inf).mean()
        found.append(float(score))
    return np.asarray(found)


def _pick(source: PyTree, which: Array, sign: Array) -> Theta:
    """One of the draws."""
    return jax.tree.map(lambda leaf: leaf[which], source)


@functools.lru_cache(maxsize=4)
def _cohort(world: World, group: int, tasks: int) -> Cohort:
    """The program of the draws' lives."""
    return make_cohort(world, _pick, group, -(-tasks // group) * group)


@functools.lru_cache(maxsize=4)
def _world(objective: Any, env: str, agent: AgentConfig, life: LifeConfig) -> World:
    """The same object each time, so that the program is found again."""
    return make_world(objective, env, agent, life)


def choose(
    config: Config, searched: Theta, thetas: Theta
) -> tuple[int, dict[str, float], Float[np.ndarray, " D"]]:
    """The best draw, and how it stands beside what a search found.

    The draws are compared by one set of random numbers, and the two finalists by another: the best
    of many is partly the luckiest of many.

    Args:
      config: of the search.
      searched: what the search found.
      thetas: the reference and the draws, leaves ``[1 + D, ...]``.

    Returns:
      Index of the best draw; return of ``search``, ``draws`` and ``reference`` in the final; the
      returns of all draws.

    Raises:
      ConfigError: no draw lives.
    """
    drawn = returns(config, thetas, "tuning draws")
    if not np.isfinite(drawn).any():
        raise ConfigError("under no draw are all agents finite: check the rates of the preset")
    best = 1 + int(np.argmax(drawn[1:]))
    final = jax.tree.map(
        lambda found, all_: jnp.stack([jnp.asarray(found), all_[best], all_[0]]), searched, thetas
    )
    scores = returns(config, final, "tuning final")
    return best, dict(zip(("search", "draws", "reference"), map(float, scores), strict=True)), drawn


def spent(config: Config, draws: int) -> float:
    """Environment steps of training that the draws take."""
    horizons = np.asarray(spread_horizons(config.horizon, config.validation_levels))
    batch = config.life.environments * config.life.rollout
    return float((draws + 3) * horizons.sum() * batch)


def tune(request: TuneConfig, report: Callable[[Any], None] = say) -> Tuned | None:
    """Tune the numbers of a hand-written rule for a law of horizons.

    Args:
      request: what to tune, and how much; see its fields.
      report: told what happens, a line at a time.

    Returns:
      What was found, which is also an objective in its folder; ``None`` if the time was over.

    Raises:
      ConfigError: the rule has no numbers to draw, or the parts do not go together.
      Interrupted: Ctrl-C; the same command goes on.
      Terminated: the same for SIGTERM.

    Example:
      >>> from dataclasses import replace
      >>> from discovery.config import preset
      >>> rule = replace(preset("smoke").objective, rule="a2c-constant")
      >>> tune(TuneConfig(replace(preset("smoke"), objective=rule)))  # doctest: +SKIP
    """
    began, config = time.monotonic(), request.config
    check(config)
    check_sizes(draws=request.draws)
    objective: Any = make_objective(config.objective, config.agent)
    if not hasattr(objective, "random_search"):
        raise ConfigError(
            f"rule {config.objective.rule} has no numbers to tune: try a2c-scheduled-n, "
            "ppo-constant or another of the scheduled ones (kairos list)"
        )
    if len(mixed(config.env)) > 1:
        raise ConfigError("returns of several environments do not compare: tune for one at a time")
    stem = f"tuned-{config.objective.rule}-{Path(config.env).stem}-{config.seed}"
    folder = Path(request.out or Path("runs") / stem)
    folders.check_writable(folder)
    if (folder / CARD).is_file() and not request.overwrite:
        raise ConfigError(f"{folder} holds a tuned rule already: --overwrite, or another --out")
    thetas = candidates(objective, jax.random.fold_in(root_key(config.seed), _DRAWS), request.draws)

    report(f"1. the search that a learned objective gets, in {folder / SEARCH}")
    searched = _search(config, folder / SEARCH, request, began)
    if searched is None:
        report("stopped before the draws; the same command goes on")
        return None
    if not config.evolution.group:
        config = folders.load_config(folder / SEARCH)  # which has chosen
    report(f"2. {request.draws} draws on {config.validation_levels} validation tasks")
    best, scores, drawn = choose(config, searched, thetas)
    # Equally good: the reference, which is what anybody has without tuning.
    by = max(("reference", "search", "draws"), key=lambda name: scores[name])
    which = best if by == "draws" else 0
    theta = searched if by == "search" else jax.tree.map(lambda leaf: leaf[which], thetas)
    theta = jax.tree.map(jnp.asarray, theta)
    _write(folder, config, objective, theta, by, scores, drawn, thetas)
    hyper = make_hyper(objective, config.agent)
    for name, settled in objective.settled(theta, hyper).items():
        report(
            f"  {name}: {settled.start:.4g} at birth, {settled.end:.4g} at the end (N = 50), "
            f"x {settled.per_octave:.3g} for twice the horizon"
        )
    told = ", ".join(f"{name} {score:.3f}" for name, score in scores.items())
    report(f"validation return: {told}; kept: {by}")
    report(f"objective: {folder}; draws: {folder / DRAWS}")
    return Tuned(theta, by, scores, folder)


_DRAWS = 2**31 + 64
"""What is folded into the root key for the draws."""


def _search(config: Config, where: Path, request: TuneConfig, began: float) -> Theta | None:
    """What the outer loop finds; a search that is there is gone on with, or taken."""
    begun = (where / folders.CONFIG).is_file() and not request.overwrite
    if begun and (other := folders.differences(folders.load_config(where), config)):
        raise ConfigError(
            f"{where} is of other numbers ({', '.join(other)}): --overwrite, or another --out"
        )
    if begun and (where / CARD).is_file():
        return load(where).theta
    minutes = request.max_minutes
    if minutes is not None:
        minutes = max(minutes - (time.monotonic() - began) / 60, 1e-3)
    run = evolve(
        None if begun else config,
        where,
        resume=where if begun else None,
        max_minutes=minutes,
        overwrite=request.overwrite,
        devices=request.devices,
        cache=True,
    )
    if run.stopped == "minutes":
        return None
    if run.stopped:
        kind = Interrupted if run.stopped == "interrupt" else Terminated
        raise kind("stopped in the search; the same command goes on")
    return load(where).theta


def _write(
    folder: Path,
    config: Config,
    objective: Any,
    theta: Theta,
    by: str,
    scores: dict[str, float],
    drawn: Float[np.ndarray, " D"],
    thetas: Theta,
) -> None:
    """The objective with its card, and the draws as a table."""
    hyper = make_hyper(objective, config.agent)
    lines = []
    for which, score in enumerate(drawn):
        settled = objective.settled(jax.tree.map(lambda leaf, i=which: leaf[i], thetas), hyper)
        numbers = [x for name in objective.numbers for x in settled[name]]
        lines.append([which, score if math.isfinite(score) else math.nan, *numbers])
    names = [
        f"{name}_{part}" for name in objective.numbers for part in ("start", "end", "per_octave")
    ]
    table.write_numbers(folder / DRAWS, ["draw", "validation", *names], lines)
    searched = logs.read(folder / SEARCH / folders.METRICS)
    steps = float(searched[-1].get("steps") or 0.0) if searched else 0.0
    write_card(
        folder,
        config,
        objective,
        jax.device_get(theta),
        tuned={
            "by": by,
            "validation": scores,
            "draws": len(drawn),
            "search_steps": steps,
            "draw_steps": spent(config, len(drawn)),
        },
    )


__all__ = ["Tuned", "candidates", "choose", "returns", "spent", "tune"]
