"""What 0 and 1 are where no best return is known: no learning, and a tuned PPO at a long horizon.

Constants are measured once and kept in a table beside the evaluation's, so that rows which are
added later are on the same scale.
"""

from __future__ import annotations

import csv
import io
import typing
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from discovery.config import LifeConfig, RivalConfig
from discovery.evaluation import horizons
from discovery.evaluation.table import TableError
from discovery.inner.build import make_environment
from learned_objectives.library import load, write_whole

RATES = (3e-4, 1e-3, 3e-3, 1e-2)
"""Of PPO's agents, from which the best on validation levels is taken."""
EPISODES = 1024
"""That the return of a policy that never learns is a mean of, at least."""


class Reference(NamedTuple):
    """Two returns of one environment, and how they were measured."""

    environment: str
    horizon: int
    """Of PPO's agents, in updates."""
    batch: int
    """Environment steps of an update."""
    agents: int
    rate: float
    """Of PPO's agents, the best of :data:`RATES`."""
    random: float
    """Mean return of a policy that never learns."""
    reference: float
    """Mean return of PPO's agents."""


def on_scale(
    levels: horizons.Levels,
    env: str,
    life: LifeConfig,
    horizon: int,
    path: Path,
    report: Callable[[str], None],
) -> horizons.Levels:
    r"""Levels on which a normalised score is :math:`(R - R_{rand}) / (R_{ref} - R_{rand})`.

    Args:
      levels: where their best returns are known, they stay as they are.
      env: name of the environment.
      life: sizes of a life.
      horizon: of PPO's agents: the longest of the comparison.
      path: table of references, read and added to.
      report: told what happens.

    Returns:
      The levels with both returns.

    Raises:
      TableError: the table of references cannot be read.
      ConfigError: PPO's minibatches do not share out a rollout.
    """
    if levels.optimal is not None:
        return levels
    count = count_of(levels)
    known = read(path)
    key = (levels.env, horizon, life.environments * life.rollout, count)
    found = next((each for each in known if each[:4] == key), None)
    if found is None:
        report(f"{env}: a tuned PPO at N = {horizon}, and {EPISODES:,} episodes without learning")
        found = measured(levels, env, life, horizon)
        write(path, [*known, found])
    low, high = np.full(count, found.random), np.full(count, found.reference)
    return levels._replace(random=low, optimal=high)


def count_of(levels: horizons.Levels) -> int:
    """How many levels there are."""
    return int(jax.tree.leaves(levels.levels)[0].shape[0])


def measured(levels: horizons.Levels, env: str, life: LifeConfig, horizon: int) -> Reference:
    """Both returns; PPO's rate is chosen on as many validation levels.

    Args:
      levels: of the comparison; an agent lives on each.
      env: name of the environment.
      life: sizes of a life.
      horizon: of PPO's agents.

    Returns:
      The reference.
    """
    count = count_of(levels)
    ppo = load("ppo")
    agent = horizons.default_agent(make_environment(env), ppo.objective)
    validation = horizons.held_out(env, "validation", count)

    def mean(name: str, rate: float, sizes: LifeConfig, n: int, on: horizons.Levels) -> float:
        fast = replace(agent, policy_rate=rate, prediction_rate=rate)
        how = horizons.Setting(fast, sizes, RivalConfig(rate, rate), "a reference")
        who = horizons.enter(load(name), env, how, min(horizons.GROUP, count))
        found = horizons.score(who, on.levels, n, 0, greedy=False).final[:, 0]
        return float(np.mean(np.where(np.isfinite(found), found, -np.inf)))

    means = [mean("ppo", rate, life, horizon, validation) for rate in RATES]
    best = RATES[int(np.argmax(means))]
    episodes = replace(life, evaluation_environments=-(-EPISODES // count))
    return Reference(
        levels.env,
        horizon,
        life.environments * life.rollout,
        count,
        best,
        mean("random", best, episodes, 1, levels),
        mean("ppo", best, life, horizon, levels),
    )


def read(path: Path) -> list[Reference]:
    """The references of a table; none if there is no such file.

    Raises:
      TableError: another table, or a cell that is not what its column holds.
    """
    if not path.is_file():
        return []
    lines = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))
    kinds = typing.get_type_hints(Reference).values()
    if not lines or tuple(lines[0]) != Reference._fields:
        raise TableError(f"{path}: expected the columns {', '.join(Reference._fields)}")
    try:
        rows = [[kind(x) for kind, x in zip(kinds, line, strict=True)] for line in lines[1:]]
    except ValueError as error:
        raise TableError(f"{path}: {error}") from None
    return [Reference(*row) for row in rows]


def write(path: Path, references: Iterable[Reference]) -> None:
    """Write a table of references, sorted.

    Raises:
      OSError: the disk is full or read-only; an old table is untouched.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Reference._fields)
    for each in sorted(references):
        writer.writerow([repr(x) if isinstance(x, float) else x for x in each])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.getvalue().encode())
