"""Exact returns against enumeration, and against what random agents get."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs import dynamic
from envs.gridworld import Level

MOVES = [(-1, 0), (1, 0), (0, -1), (0, 1), (0, 0)]


def tiny(**changes):
    """A 3 x 3 with a wall, three slots of which two are used."""
    level = Level(
        size=jnp.int32(3),
        walls=jnp.arange(9) == 4,
        start=jnp.int32(0),
        objects=jnp.array([2, 3, -1]),
        used=jnp.array([True, True, False]),
        rewards=jnp.array([1.0, -0.5, 7.0]),
        p_terminate=jnp.array([0.3, 0.2, 1.0]),
        p_respawn=jnp.array([0.4, 0.1, 0.9]),
        max_steps_in_episode=jnp.int32(6),
    )
    return level.replace(**changes)


LEVELS = [
    tiny(),
    tiny(size=jnp.int32(2), objects=jnp.array([3, 1, -1])),
    # Two objects in one cell, whose probabilities sum to more than 1.
    tiny(objects=jnp.array([3, 3, -1]), p_terminate=jnp.array([0.8, 0.7, 0.0])),
    # Three in use, one under the agent.
    tiny(used=jnp.ones(3, bool), objects=jnp.array([8, 1, 0]), max_steps_in_episode=jnp.int32(5)),
    tiny(max_steps_in_episode=jnp.int32(1)),
    tiny(p_respawn=jnp.ones(3), p_terminate=jnp.zeros(3)),
]


def enumerate_returns(level):
    """``(R_rand, R_opt)`` by walking every branch of every episode."""
    level = jax.tree.map(np.asarray, level)
    size, side = int(level.size), 3
    slots = [int(i) for i in np.flatnonzero(level.used)]

    @functools.cache
    def value(position, exists, left, choose):
        if left == 0:
            return 0.0
        return choose([act(position, exists, left, choose, move) for move in MOVES])

    def act(position, exists, left, choose, move):
        row, column = position // side + move[0], position % side + move[1]
        inside = 0 <= row < size and 0 <= column < size
        if inside and not level.walls[row * side + column]:
            position = row * side + column
        collected = {i for i in exists if level.objects[i] == position}
        reward = sum(level.rewards[i] for i in collected)
        ending = min(1.0, sum(level.p_terminate[i] for i in collected))
        absent = [i for i in slots if i not in exists]
        future = 0.0
        for back in itertools.product([False, True], repeat=len(absent)):
            chance = 1.0
            for i, returns in zip(absent, back, strict=True):
                chance *= level.p_respawn[i] if returns else 1 - level.p_respawn[i]
            returned = {i for i, returns in zip(absent, back, strict=True) if returns}
            after = frozenset((exists - collected) | returned)
            future += chance * value(position, after, left - 1, choose)
        return reward + (1 - ending) * future

    start, limit = int(level.start), int(level.max_steps_in_episode)
    return tuple(value(start, frozenset(slots), limit, choose) for choose in (mean, max))


def mean(values):
    return sum(values) / len(values)


def test_bounds_agree_with_enumeration():
    batched = jax.tree.map(lambda *leaves: jnp.stack(leaves), *LEVELS)
    rand, opt = jax.jit(jax.vmap(dynamic.bounds))(batched)
    expected = np.array([enumerate_returns(level) for level in LEVELS])
    np.testing.assert_allclose(rand, expected[:, 0], atol=1e-5)
    np.testing.assert_allclose(opt, expected[:, 1], atol=1e-5)
    assert (expected[:, 1] > expected[:, 0]).all()


def test_random_agents_get_what_the_program_says(sampled):
    env = envs.make("small")
    levels = jax.tree.map(lambda leaf: leaf[:4], sampled("small"))
    episodes, steps = 2000, int(levels.max_steps_in_episode.max())
    noise = env.draw(jax.random.key(3), (4, episodes, steps))
    actions = np.random.default_rng(0).integers(0, 5, (4, episodes, steps))

    def episode(level, noise, actions):
        def go(carry, inputs):
            state, going, total = carry
            step = env.step(inputs[0], state, inputs[1], level)
            total += step.reward * going
            return (step.state, going & ~(step.terminated | step.truncated), total), None

        state = env.reset(jax.random.key(0), level)[1]
        return jax.lax.scan(go, (state, True, 0.0), (noise, actions))[0][2]

    returns = jax.jit(jax.vmap(jax.vmap(episode, (None, 0, 0))))(levels, noise, actions)
    rand, opt = jax.jit(jax.vmap(env.bounds))(levels)
    error = np.asarray(returns).std(1) / np.sqrt(episodes)
    assert (np.abs(np.asarray(returns).mean(1) - rand) < 4 * error).all()
    assert (error < 0.1).all() and (opt > rand).all()


@pytest.mark.parametrize("name", ["rand_sparse", "small"])
def test_only_tables_have_bounds(name):
    env = envs.make(name)
    assert (env.bounds is None) == (env.spec.num_states is None)
