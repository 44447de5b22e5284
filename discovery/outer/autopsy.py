"""What was wrong with a life: which were not finite, and the leaf that was so first.

A generation is a function of its state: it is lived again, and then one life alone, update after
update. Nothing here is used by a search that goes well.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from discovery.devices import home, put
from discovery.inner.lifetime import Life, Task, World, birth, grow
from discovery.outer.low_rank import whole
from discovery.outer.scoring import Lived, LivedOn, watched
from learned_objectives.base import Key, Theta


class Lost(NamedTuple):
    """A life, or the window of a life, that was not finite."""

    name: str
    """``3+`` of the candidate above the mean of pair 3; ``agent-3`` where there are none."""
    horizon: int
    theta: Theta
    """Parameters of the objective that it was lived under, arrays of the host."""
    world: World
    hyper: Any
    task: Task
    key: Key
    """Of its birth."""
    life: Life | None
    """As which the window began; ``None`` if with its birth."""
    until: int
    """The update that ended it."""
    gradient: Callable[[], PyTree] | None
    """What it told of theta, where it told a gradient."""

    @property
    def words(self) -> str:
        """Who it was, for a person."""
        kind = "agent" if self.name.startswith("agent") else "candidate"
        return f"{kind} {self.name.removeprefix('agent-')}, horizon {self.horizon}"


class Fault(NamedTuple):
    """What was wrong with a life."""

    words: str
    """When it turned non-finite, and which leaf was first.

    ``update 3 of 12: learner/params/policy/kernel: 4 of 64 values are nan``
    """
    agent: PyTree
    """Parameters of the agent when it was finite last; ``()`` if it never was."""


def lost(search: Any, state: Any, most: int) -> list[Lost]:
    """The lives of a generation that were not finite.

    Args:
      search: whose ``step`` is a function of its state.
      state: before the generation.
      most: of them that are told.

    Returns:
      The first of them.
    """
    with watched() as seen:
        search.step(state)
    found: list[Lost] = []
    for part in seen:
        of_part = _windows(part) if isinstance(part, LivedOn) else _lives(part)
        for place in np.flatnonzero(~_finite(part))[: most - len(found)].tolist():
            found.append(of_part(place))
    return found


def _finite(part: Lived | LivedOn) -> np.ndarray:
    """Which lives were finite; those of the mean itself are nobody's candidates."""
    if isinstance(part, LivedOn):
        return np.asarray(part.finite)
    good = np.asarray(part.outcome.finite) & np.isfinite(part.outcome.final[:, 0])
    return good | (np.asarray(part.lives.sign) == 0)


def _theta(part: Lived | LivedOn, pair: Any, sign: Any) -> Theta:
    return jax.device_get(whole(part.cohort.candidate(*put((part.source, pair, sign), home()))))


def _lives(part: Lived) -> Callable[[int], Lost]:
    """Whole lives of candidates."""

    def one(place: int) -> Lost:
        lives = jax.tree.map(lambda leaf: leaf[place], part.lives)
        task, key = put((lives.task, lives.key), home())
        return Lost(
            name=f"{int(lives.id)}{'+' if lives.sign > 0 else '-'}",
            horizon=int(task.horizon),
            theta=_theta(part, lives.id, lives.sign),
            world=part.cohort.world,
            hyper=part.hyper,
            task=task,
            key=jax.random.split(key)[0],
            life=None,
            until=int(task.horizon),
            gradient=None,
        )

    return one


def _windows(part: LivedOn) -> Callable[[int], Lost]:
    """Windows of agents that live on."""

    def one(place: int) -> Lost:
        agent, newborn = put(
            jax.tree.map(lambda leaf: leaf[place], (part.agents, part.newborn)), home()
        )
        born = bool(agent.ended)
        task, until = (newborn if born else agent).task, (newborn if born else agent).until
        begun = 0 if born else int(agent.life.n)
        number, sign = int(part.id[place]), float(part.sign[place])
        tell = part.gradient
        return Lost(
            name=f"{number}{'+' if sign > 0 else '-'}" if sign else f"agent-{number}",
            horizon=int(task.horizon),
            theta=_theta(part, part.id[place], part.sign[place]),
            world=part.cohort.world,
            hyper=part.hyper,
            task=task,
            key=newborn.key,
            life=None if born else agent.life,
            until=min(int(until), begun + part.updates),
            gradient=None if tell is None else lambda: tell(agent, newborn),
        )

    return one


def first_bad(one: Lost) -> Fault:
    """Live a life that was not finite again, up to the first leaf that is not."""
    theta, hyper = put((one.theta, one.hyper), home())
    if told := bad_leaf(theta, "theta"):
        return Fault(f"before birth: {told}", ())
    if one.life is None:
        life = _birth(one.world, theta, hyper, one.task, one.key)
        if told := bad_leaf(life.learner, "learner"):
            return Fault(f"at birth: {told}", ())
    else:
        life = one.life
    for n in range(int(life.n) + 1, one.until + 1):
        before = life.learner.params
        life, experience, report = _grow(one.world, theta, hyper, one.task, life)
        for tree, name in (
            (experience, "experience"),
            (report, "report"),
            (life.learner, "learner"),
            (life.scaling, "scaling"),
        ):
            if told := bad_leaf(tree, name):
                return Fault(f"update {n} of {one.horizon}: {told}", before)
    if one.gradient and (told := bad_leaf(one.gradient(), "gradient")):
        return Fault(f"after update {one.until} of {one.horizon}: {told}", life.learner.params)
    return Fault(
        "by itself its life is finite, or only its return is not",
        life.learner.params,
    )


@functools.partial(jax.jit, static_argnums=0)
def _birth(world: World, theta: PyTree, hyper: Any, task: Any, key: Any) -> Any:
    return birth(world, theta, hyper, task, key)


@functools.partial(jax.jit, static_argnums=0)
def _grow(world: World, theta: PyTree, hyper: Any, task: Any, life: Any) -> Any:
    return grow(world, theta, hyper, task, life)


def bad_leaf(tree: PyTree, name: str) -> str:
    """The first leaf of a tree that is not finite, in words; nothing if all are.

    Example:
      >>> bad_leaf({"w": jnp.array([1.0, jnp.nan])}, "theta")
      'theta/w: 1 of 2 values is nan'
    """
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            continue
        values = np.asarray(put(leaf, home()), np.float64)
        bad = ~np.isfinite(values)
        if bad.any():
            place = "/".join(
                filter(None, (name, jax.tree_util.keystr(path, simple=True, separator="/")))
            )
            verb = "is" if bad.sum() == 1 else "are"
            return f"{place}: {bad.sum()} of {bad.size} values {verb} {values[bad][0]}"
    return ""
