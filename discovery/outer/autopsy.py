"""What was wrong with a life: which candidates were not finite, and the leaf that was so first.

A generation is a function of its state: it is lived again, and then one life alone, update after
update. Nothing here is used by a search that goes well.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from discovery.devices import home, put
from discovery.inner.lifetime import World, birth, grow
from discovery.outer.low_rank import whole
from discovery.outer.scoring import Lived, watched
from learned_objectives.base import Theta


class Lost(NamedTuple):
    """A candidate whose life was not finite."""

    pair: int
    sign: int
    horizon: int
    theta: Theta
    """Its parameters, arrays of the host."""
    lived: Lived
    """The lives it was one of."""
    place: int
    """Which of them."""


def lost(search: Any, state: Any, most: int) -> list[Lost] | None:
    """The candidates of a generation that were not finite.

    Args:
      search: whose ``step`` is a function of its state.
      state: before the generation.
      most: of them that are told.

    Returns:
      The first of them; ``None`` if this search has no candidates that live whole lives.
    """
    with watched() as seen:
        search.step(state)
    ours = [part for part in seen if np.asarray(part.lives.sign).all()]
    if not ours:
        return None
    found: list[Lost] = []
    for part in ours:
        finite = np.asarray(part.outcome.finite) & np.isfinite(part.outcome.final[:, 0])
        for place in np.flatnonzero(~finite)[: most - len(found)].tolist():
            pair, sign, horizon = (
                int(leaf[place])
                for leaf in (part.lives.id, part.lives.sign, part.lives.task.horizon)
            )
            theta = jax.device_get(whole(part.cohort.candidate(*_source(part, place))))
            found.append(Lost(pair, sign, horizon, theta, part, place))
    return found


def _source(part: Lived, place: int) -> tuple[Any, Any, Any]:
    return put((part.source, part.lives.id[place], part.lives.sign[place]), home())


def first_bad(one: Lost) -> str:
    """When a life turned non-finite, and which leaf was first, in words.

    Example:
      ``update 3 of 12: learner/params/policy/kernel: 4 of 64 values are nan``
    """
    part = one.lived
    task, key = put(
        jax.tree.map(lambda leaf: leaf[one.place], (part.lives.task, part.lives.key)), home()
    )
    theta, hyper = put((one.theta, part.hyper), home())
    if told := bad_leaf(theta, "theta"):
        return f"before birth: {told}"
    world, life_key = part.cohort.world, jax.random.split(key)[0]
    life = _birth(world, theta, hyper, task, life_key)
    if told := bad_leaf(life.learner, "learner"):
        return f"at birth: {told}"
    for n in range(1, one.horizon + 1):
        life, experience, report = _grow(world, theta, hyper, task, life)
        when = f"update {n} of {one.horizon}: "
        for tree, name in (
            (experience, "experience"),
            (report, "report"),
            (life.learner, "learner"),
            (life.scaling, "scaling"),
        ):
            if told := bad_leaf(tree, name):
                return when + told
    return "by itself its life is finite, or only its return is not"


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
