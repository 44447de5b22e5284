"""Several environments as one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.check import check_env
from envs.mixture import mixture

PARTS = ("dense", "sparse")


@pytest.fixture(scope="module")
def mixed():
    return mixture([envs.make(name) for name in PARTS])


def test_a_mixture_keeps_the_protocol(mixed):
    assert check_env(mixed, steps=0) == []
    parts = [envs.make(name).spec for name in PARTS]
    assert mixed.spec.name == "dense,sparse"
    assert mixed.spec.num_states == max(part.num_states for part in parts)
    assert mixed.spec.max_steps == max(part.max_steps for part in parts)


@pytest.mark.parametrize("which", [0, 1])
def test_a_level_plays_as_in_its_own_environment(mixed, which):
    part, key, actions = envs.make(PARTS[which]), jax.random.key(1), jnp.arange(8) % 5
    level = mixed.sample_level(jax.random.key(0))._replace(which=jnp.int32(which))

    def play(env, level):
        observation, state = env.reset(key, level)

        def step(state, drawn):
            after = env.step(*drawn[:1], state, drawn[1], level)
            return after.state, (after.observation, after.reward, after.truncated)

        return observation, jax.lax.scan(step, state, (env.draw(key, (8,)), actions))[1]

    ours, alone = jax.jit(lambda: (play(mixed, level), play(part, level.levels[which])))()
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(alone), strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(mixed.step_limit(level)) == int(part.step_limit(level.levels[which]))


def test_every_environment_is_drawn(mixed):
    keys = jax.random.split(jax.random.key(2), 64)
    drawn = jax.vmap(lambda key: jax.random.randint(jax.random.split(key)[0], (), 0, 2))(keys)
    assert 16 < int(drawn.sum()) < 48
    level = mixed.sample_level(keys[0])
    assert int(level.which) == int(drawn[0])


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (("small", "rand_small"), "observations are the index of a state and arrays of shape"),
        (("small", "chain"), "small and chain do not mix: actions are"),
    ],
)
def test_what_no_agent_could_live_in_is_refused(names, line):
    with pytest.raises(ValueError, match=line):
        mixture([envs.make(name) for name in names])
