"""The grid world: objects that reward, end episodes and come back, among walls.

Shape legend: ``M`` side of the family's square, ``cells = M * M``, ``k`` object slots. A cell is
``row * M + column``. A level may be smaller than ``M``: then only its first ``size`` rows and
columns exist.

One step, in this order: move (a wall or an edge leaves the agent in place); collect what existed in
that cell; reward; terminate with the summed probability of what was collected; objects absent
*before* the step may come back, collected ones stay absent for this step; time goes on. So an
object can return under the agent, which then collects it by staying.

The tabular family sees a state index and its objects have fixed cells. The random family sees
planes, and its objects appear in fresh free cells at every reset and every return.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any, no_type_check

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PyTree

from envs.gym_style import GymStyle, Noise

ACTIONS = ("up", "down", "left", "right", "stay")


# JAX also fills such a class with shapes, batches or axis numbers, so its fields are not checked.
@no_type_check
class Level(struct.PyTreeNode):
    """One grid world: traced data of a static shape. gymnax's clients call it ``params``."""

    size: Int[Array, ""]
    """Rows and columns that exist, at most ``M``."""
    walls: Bool[Array, "cells"]
    """Walls inside the level."""
    start: Int[Array, ""]
    """Cell where every episode begins."""
    objects: Int[Array, "k"]
    """Cell of each object, -1 where a slot is unused; not read in the random family."""
    used: Bool[Array, "k"]
    """Which slots hold an object."""
    rewards: Float[Array, "k"]
    """Reward of collecting it."""
    p_terminate: Float[Array, "k"]
    """Probability that collecting it ends the episode."""
    p_respawn: Float[Array, "k"]
    """Probability per step that it comes back when absent."""
    max_steps_in_episode: Int[Array, ""]
    """Steps after which an episode is cut."""


@no_type_check
class State(struct.PyTreeNode):
    """Where one environment stands."""

    position: Int[Array, ""]
    """The agent's cell."""
    exists: Int[Array, ""]
    """Existing objects, bit ``i`` for slot ``i``."""
    time: Int[Array, ""]
    """Steps taken in this episode."""
    objects: Any
    """Cell of each object ``[k]`` (stale where absent) in the random family, else ``()``."""


class GridWorld(GymStyle):
    """A family of grid worlds with one shape, speaking gymnax 1.0's API.

    Args:
        name: what it is called.
        side: ``M``.
        types: type of the object in each slot, of length ``k``; a plane each in the random family.
        default: returns the level that clients get as ``default_params``.
        random: objects in fresh cells, observations as planes ``[M, M, 1 + types]``.
        one_hot: tabular observations as one-hot float vectors, for clients without tables.

    Example:
        >>> world = envs.make("small").gym
        >>> observation, state = world.reset(jax.random.key(0), world.default_params)
    """

    num_actions = len(ACTIONS)

    def __init__(
        self,
        name: str,
        side: int,
        types: tuple[int, ...],
        default: Callable[[], Level],
        random: bool = False,
        one_hot: bool = False,
    ) -> None:
        slots = len(types)
        self.name = name
        self.side = side
        self.types = types
        self.random = random
        self.one_hot = one_hot
        # One uniform for the ending, one a slot for its return, and in the random family one a
        # slot for the cell: on return, and once more on reset.
        self.step_width = 1 + slots + (slots if random else 0)
        self.reset_width = slots if random else 0
        self._default = default

    @cached_property
    def default_params(self) -> Level:
        """The family's level for clients that bring none, as NumPy arrays and Python numbers."""
        return self._default()

    @property
    def slots(self) -> int:
        """``k``."""
        return len(self.types)

    @property
    def num_states(self) -> int:
        """Number of state indices of the tabular family."""
        return self.side * self.side * 2**self.slots

    @property
    def planes(self) -> int:
        """Number of observation planes of the random family."""
        return 2 + max(self.types)

    def start(self, noise: Noise, level: Level) -> State:
        """The agent at the level's start, every object in place."""
        start = jnp.asarray(level.start, jnp.int32)
        exists = jnp.int32(0)
        objects: Any = ()
        for i in range(self.slots):
            exists |= jnp.asarray(level.used[i], jnp.int32) << i
        if self.random:
            nowhere = jnp.zeros(self.slots, jnp.int32)
            objects = self._place(noise, nowhere, jnp.int32(0), exists, start, level)
        return State(position=start, exists=exists, time=jnp.int32(0), objects=objects)

    def advance(
        self, noise: Noise, state: State, action: Int[Array, ""], level: Level
    ) -> tuple[State, Float[Array, ""], Bool[Array, ""]]:
        """Move, collect, reward, terminate, bring back: the order at the top of this file."""
        position = self._move(state.position, action, level)
        rewards = jnp.asarray(level.rewards)
        reward = risk = jnp.zeros((), rewards.dtype)
        flipped = returned = jnp.int32(0)
        # A few slots: unrolled, the whole step is one loop over environments for the compiler.
        for i in range(self.slots):
            there = ((state.exists >> i) & 1) == 1
            cell = state.objects[i] if self.random else level.objects[i]
            hit = there & (cell == position)
            back = ~there & level.used[i] & (noise[1 + i] < level.p_respawn[i])
            reward += jnp.where(hit, rewards[i], 0)
            risk += jnp.where(hit, level.p_terminate[i], 0)
            flipped |= (hit | back).astype(jnp.int32) << i
            returned |= back.astype(jnp.int32) << i
        exists = state.exists ^ flipped
        objects: Any = state.objects
        if self.random:
            living = exists & ~returned
            noise_of_cells = noise[1 + self.slots :]
            objects = self._place(noise_of_cells, state.objects, living, returned, position, level)
        after = State(position=position, exists=exists, time=state.time + 1, objects=objects)
        # Noise is below 1, so a summed probability above 1 needs no clip.
        return after, reward, noise[0] < risk

    def observe(self, state: State, level: Level) -> PyTree:
        """``position + cells * exists``, its one-hot vector, or planes ``[M, M, 1 + types]``."""
        cells = self.side * self.side
        if not self.random:
            index = state.position + cells * state.exists
            return (
                (jnp.arange(self.num_states) == index).astype(jnp.float32)
                if self.one_hot
                else index
            )
        everywhere = jnp.arange(cells)
        planes = [everywhere == state.position] + [jnp.zeros(cells, bool)] * (self.planes - 1)
        for i, kind in enumerate(self.types):
            there = ((state.exists >> i) & 1) == 1
            planes[1 + kind] |= there & (everywhere == state.objects[i])
        stacked = jnp.stack(planes, axis=-1).astype(jnp.float32)
        return stacked.reshape(self.side, self.side, self.planes)

    def observation_space(self, params: Level | None = None) -> Any:
        """``Discrete`` for a state index, else ``Box``."""
        from gymnax.environments import spaces

        if self.random:
            return spaces.Box(0, 1, (self.side, self.side, self.planes))
        if self.one_hot:
            return spaces.Box(0, 1, (self.num_states,))
        return spaces.Discrete(self.num_states)

    def state_space(self, params: Level) -> Any:
        """Each field of :class:`State`."""
        from gymnax.environments import spaces

        cells = self.side * self.side
        fields = {
            "position": spaces.Discrete(cells),
            "exists": spaces.Discrete(2**self.slots),
            "time": spaces.Discrete(int(params.max_steps_in_episode) + 1),
        }
        if self.random:
            fields["objects"] = spaces.Box(0, cells - 1, (self.slots,), jnp.int32)
        return spaces.Dict(fields)

    def _move(
        self, position: Int[Array, ""], action: Int[Array, ""], level: Level
    ) -> Int[Array, ""]:
        row = position // self.side - (action == 0) + (action == 1)
        column = position % self.side - (action == 2) + (action == 3)
        exists = (row >= 0) & (row < level.size) & (column >= 0) & (column < level.size)
        target = row * self.side + column
        wall = jnp.asarray(level.walls).at[target].get(mode="clip", wrap_negative_indices=False)
        return jnp.where(exists & ~wall, target, position)

    def _place(
        self,
        noise: Noise,
        cells: Int[Array, "k"],
        living: Int[Array, ""],
        wanted: Int[Array, ""],
        agent: Int[Array, ""],
        level: Level,
    ) -> Int[Array, "k"]:
        """Uniform fresh cells for the ``wanted`` slots, as if drawn one after the other."""
        far = jnp.int32(2 * self.side**2)
        want, there = (((bits >> np.arange(self.slots)) & 1) == 1 for bits in (wanted, living))
        rank_after = jnp.cumsum(free_cells(level), dtype=jnp.int32)
        # Ranks among the free cells; ``far`` stands for nothing.
        taken = jnp.where(there, rank_after[cells] - 1, far)
        taken = jnp.append(taken, rank_after[agent] - 1)
        empty = rank_after[-1] - (taken < far).sum() - (jnp.cumsum(want) - want)
        drawn = jnp.floor(noise * empty).astype(jnp.int32)
        chosen = jnp.zeros(0, jnp.int32)
        for i in range(self.slots):
            chosen = jnp.append(chosen, jnp.where(want[i], _untaken(drawn[i], chosen), far))
        ranks = _untaken(chosen, taken)
        fresh = (rank_after <= ranks[:, None]).sum(-1, dtype=jnp.int32)
        return jnp.where(want, fresh, cells)


def free_cells(level: Level) -> Bool[Array, "cells"]:
    """Cells of a level that an agent can stand on."""
    cells = level.walls.shape[-1]
    side = math.isqrt(cells)
    cell = jnp.arange(cells)
    return (cell // side < level.size) & (cell % side < level.size) & ~level.walls


def _untaken(number: Int[Array, "*n"], taken: Int[Array, "m"]) -> Int[Array, "*n"]:
    """The rank that, of those not taken, is number ``number``, counted from 0.

    It is moved past each taken rank that has at most so many others, not taken, below it.
    """
    others_below = taken - (taken < taken[:, None]).sum(-1)
    return number + (others_below <= number[..., None]).sum(-1)
