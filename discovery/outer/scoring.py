"""From outcomes of lives to scores: fitness, how much of it is luck, and the score of the mean."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from discovery.config import HorizonConfig
from discovery.devices import home, put
from discovery.inner.cohort import Cohort, Lives
from discovery.inner.lifetime import POINTS, Measure, Outcome, Task
from discovery.outer.persistent import Agents, Newborn
from discovery.outer.tasks import spread_horizons
from envs.base import Environment
from envs.levels import level_set


def measure(kind: str) -> Measure:
    """When a life is scored for a fitness, ``final`` or ``area``; always by sampled actions."""
    points = POINTS if kind == "area" else 1
    return Measure(points=jnp.int32(points), modes=jnp.int32(1))


class Lived(NamedTuple):
    """Lives that were lived together, and what came of them."""

    cohort: Cohort
    source: PyTree
    hyper: Any
    lives: Lives
    outcome: Outcome


class LivedOn(NamedTuple):
    """Windows of agents that live on, ``[A]``, and whether they were finite."""

    cohort: Cohort
    source: PyTree
    hyper: Any
    id: Int[Array, " A"]
    """Pair of the candidate; where there are no candidates, number of the agent."""
    sign: Float[Array, " A"]
    """Of the candidate; 0 where there are none."""
    agents: Agents
    """Before the window."""
    newborn: Newborn
    updates: int
    """K of the window, at most."""
    finite: Bool[Array, " A"]
    gradient: Callable[[Agents, Newborn], PyTree] | None = None
    """Of what one agent tells of theta, where it tells a gradient."""


_watching: list[list[Lived | LivedOn]] = []


@contextmanager
def watched() -> Generator[list[Lived | LivedOn]]:
    """What is lived meanwhile, in turn: for who looks for the life that went wrong."""
    seen: list[Lived | LivedOn] = []
    _watching.append(seen)
    try:
        yield seen
    finally:
        _watching.remove(seen)


def witness(what: Callable[[], Lived | LivedOn]) -> None:
    """Tell who watches what was lived; nothing is made of it if nobody does."""
    for seen in _watching:
        seen.append(what())


def lived(cohort: Cohort, source: PyTree, hyper: Any, lives: Lives, kind: str) -> Outcome:
    """Outcomes of lives, scored for a fitness, on one device: sums are then taken in one order."""
    outcome: Outcome = put(cohort.run(source, hyper, lives, measure(kind)), home())
    witness(lambda: Lived(cohort, source, hyper, lives, outcome))
    return outcome


def fitness(outcome: Outcome, kind: str) -> Float[Array, " L"]:
    """What the search maximises; NaN for an agent that is not finite.

    Args:
      outcome: of lives, leaves ``[L, ...]``.
      kind: ``final``, the return at the end of life, or ``area``, its mean along the life.

    Returns:
      Scores in units of return, ``[L]``.
    """
    score = outcome.area[:, 0] if kind == "area" else outcome.final[:, 0]
    return jnp.where(outcome.finite, score, jnp.nan)


def correlation(first: Float[Array, " M"], second: Float[Array, " M"]) -> Float[Array, ""]:
    """Pearson correlation where both are finite; 0 if one of them does not vary."""
    ok = jnp.isfinite(first) & jnp.isfinite(second)
    count = jnp.maximum(ok.sum(), 1)
    a, b = (jnp.where(ok, x, 0) for x in (first, second))
    a, b = (jnp.where(ok, x - x.sum() / count, 0) for x in (a, b))
    scale = jnp.sqrt(jnp.sum(a * a) * jnp.sum(b * b))
    return jnp.where(scale > 0, jnp.sum(a * b) / jnp.where(scale > 0, scale, 1), 0.0)


@jax.jit
def signal(first: Float[Array, " L"], second: Float[Array, " L"]) -> Float[Array, ""]:
    """Correlation of the pairs' differences over two random streams: 0 is luck alone."""
    differences = (s.reshape(-1, 2)[:, 0] - s.reshape(-1, 2)[:, 1] for s in (first, second))
    return correlation(*differences)


def validation_lives(env: Environment, law: HorizonConfig, count: int, stream: str) -> Lives:
    """Lives of one theta on fixed held-out tasks.

    Levels are the first of the stream ``validation``, and horizons are spread over a law.

    Args:
      env: where they live.
      law: of the horizons.
      count: number of tasks.
      stream: name of their random numbers, which depend on it and on a life's index alone.

    Returns:
      ``[V]`` lives of the mean.
    """
    root = jax.random.key(zlib.crc32(stream.encode()))
    return Lives(
        id=jnp.zeros(count, jnp.int32),
        sign=jnp.zeros(count, jnp.float32),
        task=Task(level_set(env, "validation", count).levels, spread_horizons(law, count)),
        key=jax.vmap(lambda i: jax.random.fold_in(root, i))(jnp.arange(count)),
    )


def make_returns(
    env: Environment, law: HorizonConfig, count: int, cohort: Cohort, hyper: Any
) -> Callable[[PyTree], list[Float[Array, " some"]]]:
    """Final returns of one theta on :func:`validation_lives`, by the search's own program.

    The random numbers of a life depend on its index alone: two searches compare in pairs.

    Args:
      env: of the search.
      law: of its horizons.
      count: number of tasks.
      cohort: of the search.
      hyper: numbers of the agents' updates.

    Returns:
      ``source -> returns`` by sampled actions, in as many pieces as the program takes; NaN where an
      agent is not finite. The tasks are made when needed.
    """

    @functools.cache
    def lives() -> Lives:
        return validation_lives(env, law, count, "validation lives")

    def returns(source: PyTree) -> list[Array]:
        pieces = []
        for start in range(0, count, cohort.capacity):
            chosen = slice(start, start + cohort.capacity)
            part = jax.tree.map(lambda leaf, chosen=chosen: leaf[chosen], lives())
            pieces.append(fitness(lived(cohort, source, hyper, part, "final"), "final"))
        return pieces

    return returns


def make_validation(
    env: Environment, law: HorizonConfig, count: int, cohort: Cohort, hyper: Any
) -> Callable[[PyTree], dict[str, Array]]:
    """The score of one theta on fixed held-out tasks; arguments as of :func:`make_returns`.

    Returns:
      ``source -> scores``: the mean final return by sampled actions over all tasks, and over their
      short, middle and long third; NaN if an agent is not finite.
    """
    returns = make_returns(env, law, count, cohort, hyper)
    return lambda source: _by_horizon(returns(source))


@jax.jit
def _by_horizon(pieces: list[Array]) -> dict[str, Array]:
    score = jnp.concatenate(pieces)
    thirds = jnp.array_split(score, 3) if score.size >= 3 else [score] * 3
    names = ("validation_short", "validation_middle", "validation_long")
    means = {name: third.mean() for name, third in zip(names, thirds, strict=True)}
    return {"validation": score.mean(), **means}
