"""The chain by hand, and its closed forms against every sequence of actions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.chain import ChainLevel, bounds

REST, FORWARD = 0, 1


def play(level, actions):
    env = envs.make("chain")
    noise = env.draw(jax.random.key(0), (len(actions),))

    def go(state, inputs):
        step = env.step(inputs[0], state, inputs[1], level)
        return step.state, step

    state = env.reset(jax.random.key(0), level)[1]
    return jax.device_get(jax.lax.scan(go, state, (noise, jnp.array(actions)))[1])


def test_several_lives_by_hand():
    level = ChainLevel(length=2, goal=1.0, rest=0.25, max_steps_in_episode=3)
    seen = play(level, [1, 1, 0, 0, 0, 0, 1, 1, 1])
    #          forward end | rest rest cut | rest forward end (at the limit) | forward
    assert seen.reward.tolist() == [0, 1, 0.25, 0.25, 0.25, 0.25, 0, 1, 0]
    assert np.flatnonzero(seen.terminated).tolist() == [1, 7]
    assert np.flatnonzero(seen.truncated).tolist() == [4]
    assert seen.final_observation.tolist() == [1, 2, 0, 0, 0, 0, 1, 2, 1]
    assert seen.observation.tolist() == [1, 0, 0, 0, 0, 0, 1, 0, 1]


@pytest.mark.parametrize("limit", [1, 4, 7])
def test_bounds_agree_with_every_sequence(limit):
    def returned(level, actions):
        total, position = 0.0, 0
        for action in actions:
            if action == REST:
                total += level.rest
                continue
            position += 1
            if position == level.length:
                return total + level.goal
        return total

    levels = [
        ChainLevel(length=length, goal=goal, rest=rest, max_steps_in_episode=limit)
        for length in (1, 3, 7, 8)
        for rest in (-0.5, 0.0, 0.3)
        for goal in (1.0, -2.0)
    ]
    sequences = list(itertools.product((REST, FORWARD), repeat=limit))
    returns = np.array([[returned(level, s) for s in sequences] for level in levels])
    batched = jax.tree.map(lambda *leaves: jnp.stack(leaves), *levels)
    rand, opt = jax.jit(jax.vmap(bounds))(batched)
    np.testing.assert_allclose(rand, returns.mean(1), atol=1e-5)
    np.testing.assert_allclose(opt, returns.max(1), atol=1e-5)
