"""Level families of the grid world as data, and levels drawn from them.

Shape legend as in ``gridworld.py``: ``M`` side, ``cells = M * M``, ``k`` object slots.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from envs import dynamic
from envs.base import Environment, EnvSpec, Key
from envs.gridworld import GridWorld, Level, free_cells
from envs.mazes import MAZES

Range = tuple[float, float]
"""Uniform from low to high, or log-uniform where the field says so; a number if both are equal."""

STREAMS = ("train", "validation", "test")
"""Names that sets of levels are drawn under."""

_TRIES = 128
"""Draws before a level without a reachable reward is let through: never met, but bounded."""


class Family(NamedTuple):
    """What the levels of a family have in common, and the laws of what they do not."""

    side: int
    types: tuple[int, ...]
    """Type of the object in each slot."""
    rewards: tuple[Range, ...]
    """Uniform, for each type."""
    p_terminate: tuple[Range, ...]
    """Log-uniform, for each type."""
    p_respawn: tuple[Range, ...]
    """Log-uniform, for each type."""
    limit: tuple[int, int]
    """Step limit: log-uniform, rounded."""
    random: bool = False
    """Objects in fresh cells, observations as planes."""
    sizes: tuple[int, int] | None = None
    """Size of a level, uniform; ``None`` for the whole side."""
    objects: tuple[int, int] | None = None
    """Number of slots in use, uniform; ``None`` for all."""
    walls: int = 0
    """Number of distinct cells of the M x M drawn as walls."""
    designs: tuple[tuple[str, ...], ...] = ()
    """Layouts (``#`` is a wall), one of which is drawn."""


def _always(*values: float) -> tuple[Range, ...]:
    return tuple((value, value) for value in values)


def _layout(side: int, wall: Callable[[int, int], bool]) -> tuple[tuple[str, ...], ...]:
    span = range(side)
    return (tuple("".join("#" if wall(row, column) else "." for column in span) for row in span),)


def _drawn(
    side: int, sizes: tuple[int, int], objects: tuple[int, int], limit: tuple[int, int], walls: int
) -> Family:
    slots = objects[1]
    return Family(
        side=side,
        types=tuple(range(slots)),
        rewards=((0.0, 1.0),) + ((-1.0, 1.0),) * (slots - 1),
        p_terminate=((0.01, 1.0),) * slots,
        p_respawn=((0.001, 0.1),) * slots,
        limit=limit,
        sizes=sizes,
        objects=objects,
        walls=walls,
    )


_DENSE = Family(
    11,
    (0, 0, 1, 2),
    _always(1.0, -1.0, -1.0),
    _always(0.0, 0.5, 0.0),
    _always(0.05, 0.1, 0.5),
    (500, 500),
)
_LONG = Family(
    11, (0, 0, 1, 1), _always(1.0, -1.0), _always(0.0, 0.5), _always(0.01, 1.0), (1000, 1000)
)

FAMILIES: Mapping[str, Family] = {
    "dense": _DENSE,
    "sparse": Family(
        13, (0, 1), _always(1.0, -1.0), _always(1.0, 1.0), _always(0.0, 0.0), (50, 50)
    ),
    "long": _LONG,
    "longer": Family(
        9,
        (0, 0, 1, 1, 1),
        _always(1.0, -1.0),
        _always(0.1, 0.8),
        _always(0.01, 1.0),
        (2000, 2000),
        designs=_layout(9, lambda row, column: column == 4 and row not in (1, 7)),
    ),
    "long_dense": Family(
        11,
        (0, 0, 0, 0),
        _always(1.0),
        _always(0.0),
        _always(0.005),
        (2000, 2000),
        designs=_layout(
            11,
            lambda row, column: (
                (column == 5 and row not in (0, 7)) or (row == 4 and column not in (2, 8))
            ),
        ),
    ),
    "rand_dense": _DENSE._replace(random=True),
    "rand_long": _LONG._replace(random=True),
    "rand_small": Family(
        7,
        (0, 0, 1, 1),
        _always(1.0, -1.0),
        _always(0.0, 0.5),
        _always(0.05, 0.1),
        (500, 500),
        random=True,
        designs=_layout(7, lambda row, column: row * 7 + column in (9, 25)),
    ),
    "rand_sparse": Family(
        7,
        (0, 1, 1),
        _always(1.0, -1.0),
        _always(1.0, 1.0),
        _always(1.0, 1.0),
        (50, 50),
        random=True,
    ),
    "rand_very_dense": Family(
        11, (0,), _always(1.0), _always(0.0), _always(1.0), (2000, 2000), random=True
    ),
    "small": _drawn(6, sizes=(4, 6), objects=(1, 3), limit=(20, 100), walls=7),
    "medium": _drawn(8, sizes=(6, 8), objects=(2, 4), limit=(100, 250), walls=10),
    "large": _drawn(10, sizes=(8, 10), objects=(2, 5), limit=(250, 750), walls=15),
    "all": _drawn(10, sizes=(4, 10), objects=(1, 5), limit=(20, 750), walls=15),
    "mazes": Family(
        13,
        (0, 1, 2),
        ((0.0, 1.0),) * 3,
        ((0.01, 1.0),) * 3,
        ((0.001, 0.1),) * 3,
        (25, 50),
        designs=tuple(MAZES.values()),
    ),
}


@cache
def grid_world(name: str, one_hot: bool = False) -> Environment:
    """The environment of a level family.

    Args:
        name: a key of :data:`FAMILIES`.
        one_hot: tabular observations as one-hot vectors ``[M * M * 2^k]`` instead of an index.

    Returns:
        An :class:`~envs.base.Environment`; its ``bounds`` are exact for tabular families and
        ``None`` for random ones.

    Source: the level families of the LPG (NeurIPS 2020) and GROOVE (NeurIPS 2023) papers.
    """
    family = FAMILIES[name]
    draw = partial(sample_level, family)
    gym = GridWorld(
        name, family.side, family.types, partial(_example, name), family.random, one_hot
    )
    table = not (family.random or one_hot)
    if family.random:
        shape: tuple[int, ...] = (family.side, family.side, gym.planes)
    else:
        shape = (gym.num_states,) if one_hot else ()
    spec = EnvSpec(
        name=name,
        observation_shape=shape,
        num_states=gym.num_states if table else None,
        num_actions=gym.num_actions,
        max_steps=int(family.limit[1]),
    )
    return gym.environment(spec, draw, None if family.random else dynamic.bounds)


def sample_level(family: Family, key: Key) -> Level:
    """Draw a level of a family; ``vmap`` over keys.

    Drawn again while objects do not fit or, in tabular families, no object of positive reward can
    be reached within the step limit (at most 128 times).

    Args:
        family: an entry of :data:`FAMILIES`.
        key: consumed.

    Returns:
        One level: float32, int32 and bool leaves.
    """

    def refused(drawn: tuple[Level, Bool[Array, ""], Int[Array, ""]]) -> Bool[Array, ""]:
        _, accepted, tries = drawn
        return ~accepted & (tries < _TRIES)

    def again(
        drawn: tuple[Level, Bool[Array, ""], Int[Array, ""]],
    ) -> tuple[Level, Bool[Array, ""], Int[Array, ""]]:
        tries = drawn[2]
        level = _draw(family, jax.random.fold_in(key, tries))
        return level, _acceptable(family, level), tries + 1

    shape = jax.eval_shape(partial(_draw, family), key)
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shape)
    level, _, _ = jax.lax.while_loop(refused, again, (nothing, jnp.bool_(False), jnp.int32(0)))
    return level


def reachable(level: Level) -> Bool[Array, "cells"]:
    """Cells that can be reached from the start within the step limit: breadth-first dilation."""
    cells = level.walls.shape[-1]
    side = math.isqrt(cells)
    free = free_cells(level).reshape(side, side)

    def spreads(carry: tuple[Array, Array, Array]) -> Bool[Array, ""]:
        steps, grew, _ = carry
        return grew & (steps < level.max_steps_in_episode)

    def spread(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        steps, _, reached = carry
        padded = jnp.pad(reached, 1)
        near = padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
        wider = reached | (near & free)
        return steps + 1, (wider != reached).any(), wider

    first = (jnp.arange(cells) == level.start).reshape(side, side)
    carry = (jnp.int32(0), jnp.bool_(True), first)
    return jax.lax.while_loop(spreads, spread, carry)[2].reshape(cells)


class LevelSet(NamedTuple):
    """A named, reproducible set of levels."""

    levels: PyTree
    """Batched, leaves ``[count, ...]``."""
    redraws: int
    """Levels of the stream that were passed over."""
    bounds: tuple[Float[Array, "count"], Float[Array, "count"]] | None
    """``(R_rand, R_opt)`` of each, where they were needed to choose."""


def level_set(environment: Environment, stream: str, count: int, min_gap: float = 0.05) -> LevelSet:
    """The first ``count`` levels of a named stream.

    Level ``i`` of a stream is drawn from ``fold_in(key(crc32(stream)), i)``, so a smaller set is
    the beginning of a larger one. For streams other than ``"train"``, levels with
    ``R_opt - R_rand < min_gap`` are passed over where these returns are known: they cannot tell a
    good agent from a bad one.

    Args:
        environment: whose levels.
        stream: ``"train"``, ``"validation"`` or ``"test"``.
        count: number of levels wanted.
        min_gap: smallest ``R_opt - R_rand`` kept, in units of return.

    Returns:
        A :class:`LevelSet`.

    Raises:
        ValueError: the stream has another name, or hardly any level of it has such a gap.

    Example:
        >>> levels, redraws, bounds = level_set(envs.make("small"), "validation", 256)
    """
    if stream not in STREAMS:
        raise ValueError(f"unknown stream {stream!r}: one of {', '.join(STREAMS)}")
    root = jax.random.key(zlib.crc32(stream.encode()))
    sample, returns_of = _batched(environment.sample_level, environment.bounds)
    choosy = returns_of is not None and stream != "train"
    # Batches of one size, so that one compilation serves them all, and small, since the last one
    # is often drawn for a few levels.
    size = min(count, 64)
    kept: list[PyTree] = []
    drawn = passed = 0
    while passed < count:
        if drawn >= 100 * count:
            raise ValueError(
                f"{environment.spec.name}: {passed} of {drawn} levels have a gap of {min_gap}"
            )
        levels = sample(root, jnp.arange(drawn, drawn + size))
        returns, good = None, np.arange(size)
        if choosy:
            returns = returns_of(levels)
            good = np.flatnonzero(returns[1] - returns[0] >= min_gap)
        good = good[: count - passed]
        kept.append(jax.tree.map(partial(_rows, good), (levels, returns)))
        passed += len(good)
        # Levels after the last one wanted were not passed over.
        drawn += size if passed < count else int(good[-1]) + 1
    levels, returns = jax.tree.map(lambda *parts: jnp.concatenate(parts), *kept)
    return LevelSet(levels, drawn - count, returns)


def level_hash(levels: PyTree) -> str:
    """SHA-256 over the leaves of a tree: path, dtype, shape and bytes, as 64 hex digits."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(levels)[0]:
        array = np.asarray(leaf)
        header = f"{jax.tree_util.keystr(path)} {array.dtype.str} {array.shape}\n"
        digest.update(header.encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


@cache
def _example(name: str) -> Level:
    """A concrete level for clients that bring none."""
    # Clients ask for it inside their own jit.
    with jax.ensure_compile_time_eval():
        level = sample_level(FAMILIES[name], jax.random.key(0))
    level = jax.tree.map(np.asarray, level)
    return level.replace(max_steps_in_episode=int(level.max_steps_in_episode))


@lru_cache(maxsize=16)
def _batched(sample: Any, bounds: Any) -> tuple[Any, Any]:
    draw = jax.jit(jax.vmap(lambda root, i: sample(jax.random.fold_in(root, i)), (None, 0)))
    if bounds is None:
        return draw, None
    # One after the other, each level costs its own limit, and its tables stay in a CPU's cache.
    one_by_one = jax.default_backend() == "cpu"
    return draw, jax.jit(partial(jax.lax.map, bounds) if one_by_one else jax.vmap(bounds))


def _rows(chosen: np.ndarray, leaf: Array) -> Array:
    return leaf[chosen]


def _draw(family: Family, key: Key) -> Level:
    side, slots, kinds = family.side, len(family.types), len(family.rewards)
    cells = side * side
    types = np.asarray(family.types)
    # One call draws everything: each call of its own would cost a compilation.
    widths = [1, 1, 1, 1, kinds, kinds, kinds, cells, cells]
    u = jnp.split(jax.random.uniform(key, (sum(widths),)), np.cumsum(widths)[:-1])
    shortest, longest = family.limit
    limit = _between(u[2], [(float(shortest), float(longest))], log=True)[0]
    level = Level(
        size=_integer(u[0][0], *(family.sizes or (side, side))),
        walls=jnp.zeros(cells, bool),
        start=jnp.int32(0),
        objects=jnp.zeros(slots, jnp.int32),
        used=jnp.arange(slots) < _integer(u[1][0], *(family.objects or (slots, slots))),
        rewards=_between(u[4], family.rewards, log=False)[types],
        p_terminate=_between(u[5], family.p_terminate, log=True)[types],
        p_respawn=_between(u[6], family.p_respawn, log=True)[types],
        max_steps_in_episode=jnp.round(limit).astype(jnp.int32),
    )
    if family.walls:
        # The highest of one number a cell: distinct cells.
        walls = jnp.zeros(cells, bool).at[jax.lax.top_k(u[7], family.walls)[1]].set(True)
        level = level.replace(walls=walls & free_cells(level))
    elif family.designs:
        designs = np.array([[cell == "#" for cell in "".join(rows)] for rows in family.designs])
        level = level.replace(walls=jnp.asarray(designs)[_integer(u[3][0], 0, len(designs) - 1)])
    # Likewise, free cells first.
    placed = jax.lax.top_k(jnp.where(free_cells(level), u[8], -1), slots + 1)[1]
    return level.replace(start=placed[0], objects=jnp.where(level.used, placed[1:], -1))


def _integer(u: Float[Array, ""], low: int, high: int) -> Int[Array, ""]:
    """Uniform from ``low`` to ``high``, both included."""
    return low + jnp.floor(u * (high - low + 1)).astype(jnp.int32)


def _between(u: Float[Array, "n"], ranges: Sequence[Range], log: bool) -> Float[Array, "n"]:
    """One number from each range; exactly the number where both ends are equal."""
    low, high = np.asarray(ranges, np.float32).T
    same, number = low == high, low
    if log:
        # A range of one number may be zero, whose logarithm is not used.
        low, high = (np.log(np.where(same, 1, end)) for end in (low, high))
    drawn = low + u * (high - low)
    return jnp.where(same, number, jnp.exp(drawn) if log else drawn)


def _acceptable(family: Family, level: Level) -> Bool[Array, ""]:
    room = free_cells(level).sum() > level.used.sum()
    if family.random:
        return room
    good = level.used & (level.rewards > 0)
    return room & (good & reachable(level)[level.objects]).any()
