"""Exact returns of the tabular grid world: one finite-horizon dynamic program.

Shape legend: ``M`` side, ``k`` object slots. Values are ``[2, 2, ..., 2, M * M]``: the uniform
and the optimal policy, one axis for each object (absent, present), the agent's cell.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from envs.gridworld import Level, free_cells


def bounds(level: Level) -> tuple[Float[Array, ""], Float[Array, ""]]:
    r"""Expected undiscounted return ``(R_rand, R_opt)`` of one episode; ``vmap`` over levels.

    With steps ``h`` to go, from cell ``p`` and existing objects ``S``, after moving to ``p'``::

        Q_h(p', S) = r(C) + (1 - min(1, sum of p_terminate over C)) E[ V_{h-1}(p', S') ]
        V_h(p, S)  = mean or max over actions of Q_h(p', S),     V_0 = 0

    ``C`` are the objects of S in p'. Each object goes its own way to S': of C, it is absent; else
    of S, it is present; else it is present with its ``p_respawn``. So the expectation is taken one
    object axis at a time.

    Args:
        level: one level of a tabular family; rewards in units of return.

    Returns:
        The return of uniformly random actions, and the largest return of any policy, which may
        use the time that is left and which an agent does not see.

    Source: backward induction (Bellman 1957); checked against enumeration in the tests.
    """
    side = math.isqrt(level.walls.shape[-1])
    cells, slots = side * side, level.objects.shape[-1]
    cell = np.arange(cells)
    rewards = jnp.asarray(level.rewards)

    # Axes of every table: policy, one a slot, cell; cells last, where the compiler vectorises.
    change = []
    reward = risk = jnp.zeros((1, *(2,) * slots, cells), rewards.dtype)
    for i in range(slots):
        present = (np.arange(2) == 1).reshape(
            [2 if axis == 1 + i else 1 for axis in range(2 + slots)]
        )
        collected = present & level.used[i] & (cell == level.objects[i])
        reward += jnp.where(collected, rewards[i], 0)
        risk += jnp.where(collected, level.p_terminate[i], 0)
        # Probability that the object's presence changes in this step.
        returns = jnp.where(level.used[i], level.p_respawn[i], 0)
        change.append(jnp.where(present, collected, returns).astype(rewards.dtype))
    go_on = 1 - jnp.clip(risk, 0, 1)

    # What lies at a cell's neighbours, and whether the agent can step there.
    free = free_cells(level)
    row, column = cell // side, cell % side
    neighbours = [
        (1, (column > 0) & jnp.roll(free, 1)),
        (-1, (column < side - 1) & jnp.roll(free, -1)),
        (side, (row > 0) & jnp.roll(free, side)),
        (-side, (row < side - 1) & jnp.roll(free, -side)),
    ]

    def backup(_: Int[Array, ""], value: Array) -> Array:
        for i in range(slots):
            value = value + change[i] * (jnp.flip(value, 1 + i) - value)
        stay = reward + go_on * value
        results = [stay]
        for shift, reachable in neighbours:
            results.append(jnp.where(reachable, jnp.roll(stay, shift, -1), stay))
        rand = sum(result[0] for result in results) / len(results)
        best = functools.reduce(jnp.maximum, (result[1] for result in results))
        return jnp.stack([rand, best])

    nothing = jnp.zeros((2, *(2,) * slots, cells), rewards.dtype)
    value = jax.lax.fori_loop(0, level.max_steps_in_episode, backup, nothing)
    # At the start every object of the level exists.
    at_start = value[..., level.start]
    for used in reversed(jnp.asarray(level.used)):
        at_start = jnp.where(used, at_start[..., 1], at_start[..., 0])
    return at_start[0], at_start[1]
