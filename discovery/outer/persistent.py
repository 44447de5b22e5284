"""Agents that live on from generation to generation, each on a task of its own.

Both estimators that see a window of a life at a time, evolution (``windows.py``) and gradients
(``meta_gradient.py``), keep their agents here. An agent whose life has ended is born again, on a
new task, at the beginning of the next window.

Shape legend: ``A`` agents, ``G`` groups of agents that are computed together.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Int, PyTree

from discovery.config import HorizonConfig
from discovery.inner.cohort import AXIS
from discovery.inner.lifetime import Life, Task
from discovery.outer.tasks import sample_horizons
from envs.base import Level
from learned_objectives.base import Key


class Agents(NamedTuple):
    """Agents in the middle of their lives, leaves ``[A, ...]``."""

    life: Life
    critic: PyTree
    """What the estimator keeps beside an agent; ``()`` if nothing."""
    task: Task
    until: Int[Array, " A"]
    """Update at which the life ends: its horizon, or earlier for a first life."""
    ended: Bool[Array, " A"]
    """To be born again before the next window."""
    slot: Int[Array, " A"]
    """Where the task stands in the curriculum's buffer."""


class Newborn(NamedTuple):
    """What an agent that is born again begins with, leaves ``[A, ...]``."""

    task: Task
    until: Int[Array, " A"]
    key: Array


Birth = Callable[[Task, Key], tuple[Life, PyTree]]
"""``(task, key) -> (life, critic)`` of one agent."""


def placeholders(birth: Birth, task: Task, agents: int) -> Agents:
    """Agents that are all to be born, in the shapes of those that live.

    Args:
      birth: makes one.
      task: of one agent.
      agents: A.

    Returns:
      Zeros, all of them ended.
    """

    def blank(shape: jax.ShapeDtypeStruct) -> Array:
        if jnp.issubdtype(shape.dtype, jax.dtypes.prng_key):
            return jnp.broadcast_to(jax.random.key(0), (agents, *shape.shape))
        return jnp.zeros((agents, *shape.shape), shape.dtype)

    life, critic = jax.tree.map(blank, jax.eval_shape(birth, task, jax.random.key(0)))
    return Agents(
        life=life,
        critic=critic,
        task=jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (agents, *leaf.shape)), task),
        until=jnp.zeros(agents, jnp.int32),
        ended=jnp.ones(agents, bool),
        slot=jnp.zeros(agents, jnp.int32),
    )


def fresh_tasks(
    key: Key, sample_level: Callable[[Key], Level], law: HorizonConfig, agents: int
) -> Task:
    """A task for every agent, should it be born now.

    Horizons are independent of the agent's index: a life that has ended is followed by one of any
    length.

    Args:
      key: consumed.
      sample_level: draws one level.
      law: of the horizons.
      agents: A.

    Returns:
      Tasks, leaves ``[A, ...]``.
    """
    level_key, horizon_key = jax.random.split(key)
    keys = jax.vmap(lambda agent: jax.random.fold_in(level_key, agent))(jnp.arange(agents))
    return Task(
        jax.vmap(sample_level)(keys), sample_horizons(horizon_key, law, agents, ordered=False)
    )


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def draw_births(
    root: Key,
    generation: Int[Array, ""],
    sample_level: Callable[[Key], Level],
    law: HorizonConfig,
    agents: int,
) -> tuple[Task, Array, Key, Key]:
    """What is random about a step: tasks and lives of agents that may be born, and two keys more.

    Args:
      root: key of the search.
      generation: number of the step.
      sample_level: draws a level.
      law: of the horizons.
      agents: A.

    Returns:
      Tasks and keys ``[A]``, the curriculum's key, and the key by which first lives are cut.
    """
    task_key, life_key, teach_key, cut_key = jax.random.split(
        jax.random.fold_in(root, generation), 4
    )
    life_keys = jax.vmap(lambda agent: jax.random.fold_in(life_key, agent))(jnp.arange(agents))
    return fresh_tasks(task_key, sample_level, law, agents), life_keys, teach_key, cut_key


def staggered(key: Key, horizon: Int[Array, " A"]) -> Int[Array, " A"]:
    """Where first lives are cut: at a uniform update of their horizon, so that ages differ."""
    share = jax.random.uniform(key, horizon.shape)
    return jnp.minimum(1 + jnp.floor(share * horizon).astype(jnp.int32), horizon)


@jax.jit
def first_cut(generation: Int[Array, ""], key: Key, horizon: Int[Array, " A"]) -> Int[Array, " A"]:
    """Where lives end that begin in this generation: early in the first one."""
    return jnp.where(generation == 0, staggered(key, horizon), horizon)


def over_groups(
    mesh: Mesh, group: int, work: Callable[..., Any], shared: int
) -> Callable[..., Any]:
    """A function of one group, made one of all agents: groups in turn on each of several devices.

    Args:
      mesh: devices, each of which takes a run of whole groups.
      group: agents computed together.
      work: ``(shared..., group's trees [group, ...]) -> (of agents [group, ...], of the group)``.
      shared: how many of the first arguments every group gets whole.

    Returns:
      The same of ``[A, ...]``: results of agents ``[A, ...]`` and of groups ``[G, ...]``. What a
      group computes does not depend on how many devices there are.
    """
    everywhere, split = PartitionSpec(), PartitionSpec(AXIS)

    def share(*arguments: Any) -> Any:
        whole, mine = arguments[:shared], arguments[shared:]
        cut = jax.tree.map(lambda leaf: leaf.reshape(-1, group, *leaf.shape[1:]), mine)
        of_agents, of_groups = jax.lax.map(lambda one: work(*whole, *one), cut)
        joined = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), of_agents)
        return joined, of_groups

    def apply(*arguments: Any) -> Any:
        specs = (everywhere,) * shared + (split,) * (len(arguments) - shared)
        return jax.shard_map(
            share, mesh=mesh, in_specs=specs, out_specs=(split, split), check_vma=False
        )(*arguments)

    return apply


def placement(mesh: Mesh) -> tuple[NamedSharding, NamedSharding]:
    """Where everything shared stands, and where agents do."""
    return NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(AXIS))
