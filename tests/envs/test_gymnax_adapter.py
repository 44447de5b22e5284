"""Their environments through our interface, and their code on our environments."""

import uuid

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.chain import Chain
from envs.gymnax_adapter import from_gymnax
from envs.registry import REGISTRY

gymnax = pytest.importorskip("gymnax")


@pytest.mark.parametrize(
    ("name", "shape", "states", "actions", "action_shape", "max_steps"),
    [
        ("Catch-bsuite", (10, 5), None, 3, (), 1000),
        ("FourRooms-misc", (4,), None, 4, (), 500),
        ("FrozenLake-misc", (), 16, 4, (), 100),
        ("BernoulliBandit-misc", (4,), None, 2, (), 100),
        ("UmbrellaChain-bsuite", (3,), None, 2, (), 100),
        ("Pendulum-v1", (3,), None, None, (1,), 200),
        ("Breakout-MinAtar", (10, 10, 4), None, 3, (), 1000),
    ],
)
def test_shapes_and_types(name, shape, states, actions, action_shape, max_steps):
    env = envs.make(name)
    assert env.spec == (name, shape, states, actions, action_shape, max_steps)
    assert env.bounds is None
    assert envs.check_env(env, steps=0) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [entry.name for entry in REGISTRY if "gymnax" in entry.target])
def test_all_of_gymnax_keeps_the_protocol(name):
    assert envs.check_env(envs.make(name)) == []


def test_two_dimensional_observations():
    assert envs.check_env(envs.make("Catch-bsuite"), steps=24) == []


def test_an_ending_at_the_limit_is_a_termination_only():
    # In DeepSea every episode reaches both at once.
    env = envs.make("DeepSea-bsuite")
    level = env.sample_level(jax.random.key(0))
    state = env.reset(jax.random.key(0), level)[1].replace(row=7, time=7)
    step = jax.jit(env.step)(jax.random.key(1), state, jnp.int32(0), level)
    assert bool(step.terminated) and not bool(step.truncated)
    assert float(step.observation[0, 0]) == 1 and float(step.final_observation.sum()) == 0


def test_a_step_is_gymnax_own():
    env = envs.make("CartPole-v1")
    theirs, _ = gymnax.make("CartPole-v1")
    level = env.sample_level(jax.random.key(0)).replace(max_steps_in_episode=jnp.int32(3))
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(level))
    assert int(env.step_limit(level)) == 3
    _, state = env.reset(jax.random.key(1), level)
    noise = env.draw(jax.random.key(2), (3,))
    step = jax.jit(env.step)
    for t in range(3):
        expected = theirs.step_env(jax.random.split(noise[t])[0], state, 1, level)
        seen = step(noise[t], state, jnp.int32(1), level)
        np.testing.assert_allclose(seen.final_observation, expected[0], rtol=1e-6)
        assert bool(seen.truncated) == (t == 2) and not bool(seen.terminated)
        state = seen.state
    assert (seen.observation != seen.final_observation).all() and int(state.time) == 0


def torques(env, *actions):
    """What becomes of actions in a pendulum."""
    level = env.sample_level(jax.random.key(0))
    _, state = env.reset(jax.random.key(1), level)
    noise = env.draw(jax.random.key(2), ())
    push = jax.jit(jax.vmap(lambda action: env.step(noise, state, action, level).state.last_u))
    return push(jnp.asarray(actions)[:, None]).tolist()


def test_continuous_actions_become_what_lies_between_the_bounds():
    seen = torques(envs.make("Pendulum-v1"), -1.0, 0.25, 1.0, 7.0, -7.0)
    assert seen == pytest.approx([-2, 0.5, 2, 2, -2])


def test_actions_without_bounds_are_as_they_are():
    from gymnax.environments import spaces
    from gymnax.environments.classic_control.pendulum import Pendulum

    class Free(Pendulum):
        def action_space(self, params=None):
            return spaces.Box(-np.inf, np.inf, (1,))

    # A torque beyond 2 is clipped by the pendulum itself.
    assert torques(from_gymnax(Free()), 0.25, 1.5, 7.0) == pytest.approx([0.25, 1.5, 2])


def test_bounds_are_those_of_the_level():
    env = envs.make("MountainCarContinuous-v0")
    level = env.sample_level(jax.random.key(0)).replace(min_action=jnp.float32(0))
    state = env.reset(jax.random.key(1), level)[1]
    noise = env.draw(jax.random.key(2), ())
    velocity = [
        float(env.step(noise, state, jnp.full(1, action), level).state.velocity)
        for action in (-1.0, 1.0)
    ]
    # Nothing to the one side, the whole force to the other.
    assert velocity[1] - velocity[0] == pytest.approx(float(level.power), rel=1e-3)


@pytest.fixture(scope="module")
def registered():
    """Our grid world under a name of gymnax's."""
    name = f"Small-{uuid.uuid4()}"
    gymnax.register(name, lambda **options: envs.make("small", one_hot=True, **options).gym)
    return name


def test_gymnax_makes_and_runs_ours(registered):
    env, params = gymnax.make(registered)
    assert env.name == "small" and env.num_actions == env.action_space(params).n == 5
    assert env.observation_space(params).shape == env.obs_shape == (288,)
    assert env.reset(jax.random.key(0))[0].shape == (288,)
    state = env.reset(jax.random.key(0), params)[1]
    fields = env.state_space(params).spaces
    assert all(fields[name].contains(getattr(state, name)) for name in fields)
    short = params.replace(max_steps_in_episode=2)
    for t in (1, 2):
        *_, state, _, terminated, truncated, info = env.step(jax.random.key(t), state, 4, short)
        assert bool(truncated) == (t == 2) and not bool(terminated)
        assert bool(env.is_truncated(state, short)) is False
        assert info["final_observation"].shape == (288,)


def test_gymnax_wrappers_run_ours(registered):
    from gymnax.wrappers import FlattenObservationWrapper, LogWrapper, StickyActionWrapper

    planes = envs.make("rand_sparse").gym
    env = FlattenObservationWrapper(planes)
    # The wrapper compiles: it asks for the default level while tracing.
    assert env.reset(jax.random.key(0))[0].shape == (7 * 7 * 3,)
    params = env.default_params
    assert env.observation_space(params).shape == (7 * 7 * 3,)
    assert isinstance(params.max_steps_in_episode, int)

    env, params = gymnax.make(registered)
    params = params.replace(max_steps_in_episode=3)
    env = LogWrapper(StickyActionWrapper(env, 0.5))
    state = env.reset(jax.random.key(0), params)[1]
    lengths = []
    for t in range(7):
        *_, state, _, _, _, info = env.step(jax.random.key(t), state, 4, params)
        lengths.append(int(info["returned_episode_lengths"]))
    # Nothing lies under the start, so staying lasts until the limit; sticking starts with action 0.
    assert set(lengths) <= {0, 1, 2, 3} and 3 in lengths


def test_a_wrapped_environment_keeps_its_books_through_us():
    from gymnax.wrappers import LogWrapper

    chain = Chain()
    env = from_gymnax(LogWrapper(chain), chain.default_params.replace(max_steps_in_episode=4))
    level = env.sample_level(jax.random.key(0))
    state = env.reset(jax.random.key(0), level)[1]
    step = jax.jit(env.step)
    for noise in env.draw(jax.random.key(1), (4,)):
        seen = step(noise, state, jnp.int32(0), level)
        state = seen.state
    assert bool(seen.truncated) and float(state.returned_episode_returns) == pytest.approx(0.4)


def test_evosax_evaluates_on_ours(registered):
    from evosax.problems.rl.gymnax import GymnaxProblem
    from flax import linen as nn

    class Policy(nn.Module):
        @nn.compact
        def __call__(self, observation, key):
            return nn.Dense(5)(observation).argmax(-1)

    problem = GymnaxProblem(registered, Policy(), num_rollouts=2, use_normalize_obs=False)
    assert problem.episode_length == gymnax.make(registered)[1].max_steps_in_episode
    keys = jax.random.split(jax.random.key(0), 3)
    population = jax.vmap(problem.sample)(keys)
    fitness, _, _ = problem.eval(keys[0], population, problem.init(keys[1]))
    assert fitness.shape == (3,) and np.isfinite(fitness).all()
