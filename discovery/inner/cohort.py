"""Many lives at once: groups of similar length, dealt to devices in turn.

A *cohort* is one compiled program that the search, its validation and the evaluation share. Lives
come sorted by horizon; a group is computed together and lasts as long as its longest life, so lives
of different length cost what they are. Groups have a fixed size on any number of devices and no
collective inside, which keeps their results bitwise the same wherever they run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, PyTree

from discovery.devices import processes, put
from discovery.inner.build import core
from discovery.inner.lifetime import Measure, Outcome, Task, World, live

AXIS = "population"
"""Name of the one axis that is sharded."""

Candidate: TypeAlias = Callable[[PyTree, Int[Array, ""], Float[Array, ""]], PyTree]
"""``(source, id, sign) -> theta``; sign 0 is the mean itself."""


class Lives(NamedTuple):
    """Lives to be lived, ``[L]``, sorted by horizon."""

    id: Int[Array, " L"]
    """Which perturbation of the mean."""
    sign: Float[Array, " L"]
    """+1, -1, or 0 for the mean itself."""
    task: Task
    """Leaves ``[L, ...]``."""
    key: Array
    """``[L]``."""


class Cohort(NamedTuple):
    """A program for up to ``capacity`` lives."""

    run: Callable[[PyTree, Any, Lives, Measure], Outcome]
    """``(source, hyper, lives [L], measure) -> outcomes [L]``."""
    memory: Callable[[PyTree, Any, Lives, Measure], int]
    """Of the same arguments: bytes that ``run`` takes on each device, as the compiler tells. It
    compiles what ``run`` then uses."""
    capacity: int
    group: int
    replicated: NamedSharding
    """The placement of everything that is not a life."""
    world: World
    candidate: Candidate
    """How a life's objective is made, for who looks at one life alone."""


def largest_divisor(count: int, most: int) -> int:
    """The largest divisor of ``count`` that is at most ``most``."""
    return max(d for d in range(1, min(count, most) + 1) if count % d == 0)


def population_mesh(groups: int) -> Mesh:
    """As many devices as share the groups evenly, on one axis; as many of each process.

    Groups that processes cannot share evenly are computed by each of them alone, all the same.
    """
    several = processes()
    if groups % several:
        several, local = 1, [jax.local_devices()]
    else:
        local = [jax.local_devices(process_index=process) for process in range(several)]
    each = largest_divisor(groups // several, min(map(len, local)))
    return Mesh(np.asarray([device for own in local for device in own[:each]]), (AXIS,))


def bytes_of(program: Any, *arguments: Any) -> int:
    """Bytes that a jitted program takes on each device, as the compiler tells; 0 if it does not.

    It compiles what a call with these arguments then uses.
    """
    told = program.lower(*arguments).compile().memory_analysis()
    if told is None:  # a backend need not tell
        return 0
    return told.temp_size_in_bytes + told.argument_size_in_bytes + told.output_size_in_bytes


ROWS = 512
"""Rows of a product from which a life by itself keeps a core busy."""
WIDE = 128
"""Width of an objective's network from which the same holds where agents are tables."""


def fastest(world: World, group: int) -> int:
    """How many lives of a group to compute at once: on a CPU one, where its products are large.

    A batched product with a matrix of its own for each life is slower on a CPU than one product
    after another whose matrix stays in the cache, and a life by itself lasts no longer than its own
    horizon. Small products, and those of an accelerator, are faster together. Measured in
    ``benchmarks/README.md``; results agree but for rounding.

    Args:
      world: who lives where.
      group: most lives at once.

    Returns:
      1 or ``group``.
    """
    if jax.default_backend() != "cpu":
        return group
    rule = core(world.objective)
    rows = world.environments * world.steps // getattr(rule, "minibatches", 1)
    tables = world.env.spec.num_states is not None
    large = rows >= ROWS and (not tables or getattr(rule, "width", 0) >= WIDE)
    return 1 if large else group


def turned(rounds: Array) -> Array:
    """Every second round of ``[rounds, D, ...]`` the other way round; its own inverse.

    Example:
      >>> turned(jnp.arange(6).reshape(3, 2)).tolist()
      [[0, 1], [3, 2], [4, 5]]
    """
    return rounds.at[1::2].set(rounds[1::2, ::-1])


def make_cohort(
    world: World, candidate: Candidate, group: int, capacity: int, abreast: int = 0
) -> Cohort:
    """Compile-once program that runs lives in groups over all devices.

    Args:
      world: who lives where.
      candidate: how a life's objective is made where it is used.
      group: lives computed together.
      capacity: most lives of one call, a multiple of ``group``.
      abreast: lives of a group computed at once, the others after them; 0 for :func:`fastest`.

    Returns:
      The cohort; ``run`` takes any number of lives up to the capacity and costs what they are.

    Raises:
      ValueError: the capacity is no multiple of the group; from ``run``, the lives do not fit.
    """
    if capacity % group:
        raise ValueError(f"a capacity of {capacity} lives is no multiple of the group {group}")
    groups = capacity // group
    mesh = population_mesh(groups)
    per_device = groups // mesh.size
    replicated = NamedSharding(mesh, PartitionSpec())

    def one(source: PyTree, hyper: Any, measure: Measure, life: Lives) -> Outcome:
        theta = candidate(source, life.id, life.sign)
        return live(world, theta, hyper, life.task, life.key, measure)

    at_once = abreast or fastest(world, group)

    @jax.jit  # its shapes are asked for before it is run: traced once for both
    def together(source: PyTree, hyper: Any, measure: Measure, mine: Lives) -> Outcome:
        """A group of lives, ``[group]``."""

        def live_one(life: Lives) -> Outcome:
            return one(source, hyper, measure, life)

        if at_once == 1:  # a loop that is not batched keeps nothing of a life that has ended
            return jax.lax.map(live_one, mine)
        if at_once >= group:
            return jax.vmap(live_one)(mine)
        return jax.lax.map(live_one, mine, batch_size=at_once)

    def share(source: PyTree, hyper: Any, measure: Measure, count: Array, mine: Lives) -> Outcome:
        """The groups of one device, ``[groups, group]``, one after another."""

        def pick(i: Array | int) -> Lives:
            return jax.tree.map(lambda leaf: leaf[i], mine)

        shapes = jax.eval_shape(lambda: together(source, hyper, measure, pick(0)))
        blank = jax.tree.map(lambda x: jnp.zeros((per_device, *x.shape), x.dtype), shapes)

        def body(i: Array, done: Outcome) -> Outcome:
            outcome = together(source, hyper, measure, pick(i))
            return jax.tree.map(lambda all_, new: all_.at[i].set(new), done, outcome)

        return jax.lax.fori_loop(0, count, body, blank)

    everywhere, split = PartitionSpec(), PartitionSpec(AXIS)
    sharded = jax.shard_map(
        share,
        mesh=mesh,
        in_specs=(everywhere, everywhere, everywhere, everywhere, split),
        out_specs=split,
        check_vma=False,
    )

    def deal(leaf: Array) -> Array:
        """``[L] -> [groups, group]``, to devices in turn: 0 to D - 1, then back.

        Groups rise in length: in one direction only, the last device would get the longest of
        every round.
        """
        shape = leaf.shape[1:]
        leaf = turned(leaf.reshape(per_device, mesh.size, group, *shape))
        return jnp.swapaxes(leaf, 0, 1).reshape(groups, group, *shape)

    def gather(leaf: Array) -> Array:
        shape = leaf.shape[2:]
        leaf = leaf.reshape(mesh.size, per_device, group, *shape)
        return turned(jnp.swapaxes(leaf, 0, 1)).reshape(capacity, *shape)

    @jax.jit
    def program(
        source: PyTree, hyper: Any, lives: Lives, measure: Measure, count: Array
    ) -> Outcome:
        outcome = sharded(source, hyper, measure, count, jax.tree.map(deal, lives))
        return jax.tree.map(gather, outcome)

    def arguments(source: PyTree, hyper: Any, lives: Lives, measure: Measure) -> tuple[Any, ...]:
        size = lives.id.shape[0]
        if not 0 < size <= capacity:
            raise ValueError(f"{size} lives do not fit a cohort of 1 to {capacity}")
        # The last life is repeated up to the capacity; groups past the last one are not run.
        fill = np.minimum(np.arange(capacity), size - 1)
        full = lives if size == capacity else jax.tree.map(lambda leaf: leaf[fill], lives)
        used = -(-size // group)
        count = np.int32(-(-used // mesh.size))
        # Another placement would be another program.
        return *put((source, hyper, full, measure), replicated), count

    def run(source: PyTree, hyper: Any, lives: Lives, measure: Measure) -> Outcome:
        outcome = program(*arguments(source, hyper, lives, measure))
        size = lives.id.shape[0]
        if size == capacity:
            return outcome
        return jax.tree.map(lambda leaf: leaf[:size], outcome)

    def memory(source: PyTree, hyper: Any, lives: Lives, measure: Measure) -> int:
        return bytes_of(program, *arguments(source, hyper, lives, measure))

    return Cohort(run, memory, capacity, group, replicated, world, candidate)
