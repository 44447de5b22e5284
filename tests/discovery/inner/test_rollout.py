import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from discovery.config import AgentConfig
from discovery.inner.agent import make_network
from discovery.inner.rollout import CHUNK, episode_return, rollout
from learned_objectives.base import Head

STEPS, BATCH = 6, 2
REST, FORWARD = [50.0, 0.0], [0.0, 50.0]


@pytest.fixture(scope="module")
def network(chain):
    return make_network(AgentConfig(), {"policy": Head("actions")}, chain.spec)


def policy(*rows):
    """A table for the chain: one row for every state, or the same for all."""
    rows = rows * 9 if len(rows) == 1 else rows
    return {"policy": {"table": jnp.asarray(rows, jnp.float32)}}


@pytest.fixture(scope="module")
def act(chain, network):
    """``(params, level, observation, state, key) -> `` a rollout, compiled once."""

    @jax.jit
    def run(params, level, observation, state, key):
        return rollout(chain, network, params, level, observation, state, key, STEPS)

    return run


@pytest.fixture(scope="module")
def begin(chain):
    def start(level):
        keys = jax.random.split(jax.random.key(0), BATCH)
        return jax.vmap(chain.reset, (0, None))(keys, level)

    return start


def test_a_rollout_equals_a_plain_loop():
    """In a grid world, whose objects come back by chance."""
    env = envs.make("small")
    network = make_network(AgentConfig(), {"policy": Head("actions")}, env.spec)
    level = jax.jit(env.sample_level)(jax.random.key(3))
    level = level.replace(max_steps_in_episode=jnp.int32(4))
    params = network.init(jax.random.key(0))
    key, reset_keys = jax.random.key(1), jax.random.split(jax.random.key(2), BATCH)
    begun = jax.jit(jax.vmap(env.reset, (0, None)))(reset_keys, level)
    program = jax.jit(lambda *begun: rollout(env, network, params, level, *begun, key, STEPS))
    observation, state, experience = program(*begun)

    env_key, action_key = jax.random.split(key)
    noise = env.draw(env_key, (STEPS, BATCH))
    uniform = jax.random.uniform(action_key, (STEPS, BATCH, 1))
    step = jax.jit(env.step)
    for b in range(BATCH):
        seen, here = jax.tree.map(lambda leaf, b=b: leaf[b], begun)
        for t in range(STEPS):
            # A table of zeros: five actions of probability 1/5 each.
            action = jnp.int32(min(int(uniform[t, b, 0] * 5), 4))
            after = step(
                jax.tree.map(lambda leaf, t=t, b=b: leaf[t, b], noise), here, action, level
            )
            expected = {
                "observation": seen,
                "action": action,
                "reward": after.reward,
                "terminated": after.terminated,
                "truncated": after.truncated,
                "next_observation": after.final_observation,
            }
            for name, value in expected.items():
                assert getattr(experience, name)[t, b] == value, (name, t, b)
            seen, here = after.observation, after.state
        assert observation[b] == seen
        jax.tree.map(
            lambda ours, plain, b=b: np.testing.assert_array_equal(ours[b], plain), state, here
        )
    assert np.asarray(experience.truncated | experience.terminated).any()


def test_the_last_observation_of_an_episode_is_kept(act, begin, make_level):
    level = make_level(length=2, limit=10)
    _, _, seen = act(policy(FORWARD), level, *begin(level), jax.random.key(0))
    # Two steps an episode, three episodes.
    np.testing.assert_array_equal(seen.observation[:, 0], [0, 1, 0, 1, 0, 1])
    np.testing.assert_array_equal(seen.next_observation[:, 0], [1, 2, 1, 2, 1, 2])
    np.testing.assert_array_equal(seen.terminated[:, 0], [False, True] * 3)
    assert not seen.truncated.any()

    level = make_level(length=8, limit=4)
    _, _, seen = act(policy(FORWARD), level, *begin(level), jax.random.key(0))
    np.testing.assert_array_equal(seen.observation[:, 1], [0, 1, 2, 3, 0, 1])
    np.testing.assert_array_equal(seen.next_observation[:, 1], [1, 2, 3, 4, 1, 2])
    np.testing.assert_array_equal(seen.truncated[:, 1], [False, False, False, True, False, False])
    assert not seen.terminated.any()


def test_environments_are_carried_on(act, begin, make_level):
    level = make_level(length=8, limit=8)
    observation, state, first = act(policy(FORWARD), level, *begin(level), jax.random.key(0))
    np.testing.assert_array_equal(observation, [6, 6])
    _, _, second = act(policy(FORWARD), level, observation, state, jax.random.key(1))
    np.testing.assert_array_equal(second.observation[:, 0], [6, 7, 0, 1, 2, 3])
    assert not first.terminated.any()
    assert second.terminated[1].all()


def test_what_was_put_out_when_acting_is_kept(act, begin, make_level):
    rows = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    level = make_level()
    _, _, seen = act(policy(*rows), level, *begin(level), jax.random.key(0))
    np.testing.assert_array_equal(seen.behaviour["policy"], rows[np.asarray(seen.observation)])


@pytest.fixture(scope="module")
def mean_return(chain, network):
    """``(params, level, key, greedy)``, one program for both kinds of action."""

    @jax.jit
    def run(params, level, key, greedy):
        return episode_return(chain, network, params, level, key, 512, greedy)

    def scored(params, level, greedy=False, seed=0):
        return float(run(params, level, jax.random.key(seed), jnp.asarray(greedy)))

    return scored


@pytest.mark.parametrize("limit", [1, CHUNK - 1, CHUNK, CHUNK + 1, 50])
def test_a_score_is_the_undiscounted_return_up_to_the_limit(limit, mean_return, make_level):
    level = make_level(rest=0.25, limit=limit)
    assert mean_return(policy(REST), level) == 0.25 * limit


def test_only_the_first_episode_counts(mean_return, make_level):
    level = make_level(length=1, goal=3.0, limit=50)
    assert mean_return(policy(FORWARD), level) == 3.0


def test_sampled_actions_score_the_expected_return(chain, mean_return, make_level):
    level = make_level(length=3, goal=1.0, rest=-0.25, limit=20)
    expected = float(chain.bounds(level)[0])
    # The number of rests before three steps forward has standard deviation sqrt(6).
    assert mean_return(policy([0.0, 0.0]), level) == pytest.approx(
        expected, abs=4 * 0.25 * np.sqrt(6 / 512)
    )
    assert mean_return(policy([0.0, 0.0]), level) != mean_return(policy([0.0, 0.0]), level, seed=1)


def test_greedy_takes_the_mode(mean_return, make_level):
    level = make_level(length=3, goal=1.0, rest=-0.25, limit=20)
    nearly_even = policy([0.0, 0.01])
    assert mean_return(nearly_even, level, greedy=True) == 1.0
    assert mean_return(nearly_even, level) < 0.6


def test_a_return_that_is_not_finite_is_told(mean_return, make_level):
    assert np.isnan(mean_return(policy(FORWARD), make_level(goal=np.nan)))
    assert np.isfinite(mean_return(policy([np.nan, np.nan]), make_level()))
