"""``check_env`` passes what keeps the protocol and names what breaks it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.chain import Chain, chain
from envs.registry import REGISTRY

OWN = [entry.name for entry in REGISTRY if "adapter" not in entry.target]
CHAIN = chain()


@pytest.mark.parametrize("name", OWN)
def test_shapes_of_ours_are_as_promised(name):
    assert envs.check_env(envs.make(name), steps=0) == []


@pytest.mark.parametrize("name", ["small", "rand_small", "chain"])
def test_ours_do_so_with_64_bits(name):
    with jax.enable_x64(True):
        assert envs.check_env(envs.make(name), steps=0) == []


@pytest.mark.parametrize("name", ["small", "rand_very_dense", "chain"])
def test_ours_keep_the_protocol(name):
    assert envs.check_env(envs.make(name)) == []


def test_an_object_with_gymnax_api_is_taken_too():
    env = Chain()
    assert envs.check_env((env, env.default_params.replace(max_steps_in_episode=4))) == []


def altered(change):
    """The chain with ``change`` applied to each of its transitions."""

    def step(noise, state, action, level):
        return change(CHAIN.step(noise, state, action, level), state, level)

    return CHAIN._replace(step=step)


def both_endings(step, state, level):
    return step._replace(terminated=step.terminated | step.truncated)


def lost_observation(step, state, level):
    return step._replace(final_observation=step.observation)


def early_cut(step, state, level):
    return step._replace(
        truncated=~step.terminated & (state.time + 2 >= level.max_steps_in_episode)
    )


def no_reset(step, state, level):
    going_on = state.replace(time=state.time + 1)
    return step._replace(state=going_on, observation=state.position)


def infinite(step, state, level):
    return step._replace(reward=step.reward / jnp.where(step.terminated, 0.0, 1.0))


def outside(step, state, level):
    return step._replace(observation=step.observation + 9, final_observation=step.observation + 9)


def integer_reward(step, state, level):
    return step._replace(reward=step.reward.astype(jnp.int32))


def impure(step, state, level):
    return step._replace(reward=step.reward + np.random.default_rng().uniform())


def wide_state(step, state, level):
    return step._replace(state=step.state.replace(time=step.state.time.astype(jnp.float32)))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (both_endings, "step: terminated and truncated at once"),
        (lost_observation, "step: final_observation of a truncated episode is not what followed"),
        (early_cut, "step: an episode is not truncated exactly at its step limit"),
        (no_reset, "step: an episode is not truncated exactly at its step limit"),
        (infinite, "step: a reward is not finite"),
        (outside, "step: observation: an index outside 0 .. 8"),
        (integer_reward, "step: reward: int32[], not floating[]"),
        (impure, "step: not pure, tracing it twice gives two programs"),
        (wide_state, "step: state.time: float32[] after a step, int32[] after a reset"),
    ],
)
def test_what_breaks_the_protocol_is_named(change, problem):
    problems = envs.check_env(altered(change), steps=24)
    assert any(line.startswith(problem) for line in problems), problems


class FiveValues(Chain):
    """The step of gymnax before 1.0."""

    def step(self, key, state, action, params=None):
        seen, state, reward, terminated, truncated, info = super().step(key, state, action, params)
        return seen, state, reward, terminated | truncated, info


def test_other_objects_are_refused_in_one_line():
    assert envs.check_env(FiveValues()) == [
        "raises ValueError: chain: step returns 5 values, gymnax 1.0 has six"
    ]
    assert envs.check_env(object()) == [
        "raises ValueError: object: neither an envs.base.Environment nor gymnax-style: "
        "it has no reset, step, action_space"
    ]


def test_one_that_raises_is_a_finding():
    def raises(key, level):
        raise RuntimeError("no such level\nmore")

    found = envs.check_env(CHAIN._replace(reset=raises))
    assert found == ["raises RuntimeError: no such level"]
