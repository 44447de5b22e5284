"""Running statistics: what they are, and that an agent acts, learns and is scored by them."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import envs
from discovery.config import (
    AgentConfig,
    Config,
    ConfigError,
    LifeConfig,
    check,
    from_json,
    to_json,
)
from discovery.inner.agent import make_network
from discovery.inner.build import make_hyper, make_world, static
from discovery.inner.lifetime import (
    Life,
    Measure,
    Task,
    advance,
    birth,
    collect,
    live,
    next_keys,
)
from discovery.inner.rollout import episode_return
from discovery.inner.scaling import OFF, Moments, Scales, begin, deviation, merge, renew, scale, see
from envs.base import Environment, EnvSpec, Transition
from learned_objectives.base import Experience, Head
from learned_objectives.handwritten import A2C
from learned_objectives.lpg import LPG
from learned_objectives.mirror import PPO

T, B = 4, 3
BOTH = Scales(observations=True, rewards=True)
merge_once = jax.jit(merge)


def nothing(*shape):
    return Moments(jnp.zeros(()), jnp.zeros(shape), jnp.zeros(shape))


def experience(observation, reward, terminated=None, truncated=None) -> Experience:
    """With the observation as the next one too, negated."""
    no = np.zeros((T, B), bool)
    return Experience(
        observation=jnp.asarray(observation, jnp.float32),
        action=jnp.zeros((T, B), jnp.int32),
        reward=jnp.asarray(reward, jnp.float32),
        terminated=jnp.asarray(no if terminated is None else terminated),
        truncated=jnp.asarray(no if truncated is None else truncated),
        next_observation=-jnp.asarray(observation, jnp.float32),
        behaviour={},
    )


# --- moments ----------------------------------------------------------------------------------


@settings(max_examples=25)
@given(
    arrays(np.float32, (3, T, B, 2), elements=st.floats(-100, 100, width=32)),
    st.floats(-1000, 1000, width=32),
)
def test_parts_merge_into_the_moments_of_the_whole(parts, offset):
    parts = parts + offset
    moments = nothing(2)
    for part in parts:
        moments = merge_once(moments, jnp.asarray(part))
    whole = np.asarray(parts, np.float64).reshape(-1, 2)
    assert float(moments.number) == 3 * T * B
    np.testing.assert_allclose(moments.mean, whole.mean(0), rtol=1e-5, atol=1e-3)
    wanted = whole.var(0)
    np.testing.assert_allclose(deviation(moments) ** 2, wanted, rtol=2e-3, atol=1e-3)


def test_a_far_away_mean_costs_no_precision():
    """A sum of squares would lose the whole variance here."""
    random = np.random.default_rng(0)
    moments = nothing()
    for _ in range(50):
        moments = merge_once(moments, jnp.asarray(random.normal(3000, 1, (T, B)), jnp.float32))
    assert float(deviation(moments)) == pytest.approx(1, abs=0.1)


def test_before_anything_is_seen_nothing_is_scaled():
    scaling = begin(BOTH, (2,), B, 0.9)
    seen = jnp.asarray([[1.0, -2.0], [7.0, -7.0]])
    assert see(scaling, seen).tolist() == [[1, -2], [5, -5]]


def test_what_never_changes_is_not_blown_up():
    constant = jnp.full((T, B, 1), 0.3)
    moments = merge_once(merge_once(nothing(1), constant), constant)
    scaling = begin(Scales(observations=True), (1,), B, 0.9)
    assert abs(see(scaling._replace(observation=moments), constant)).max() < 0.01


def test_observations_are_clipped_at_five_deviations():
    moments = Moments(jnp.asarray(10.0), jnp.asarray([1.0]), jnp.asarray([40.0]))
    scaling = begin(Scales(observations=True), (1,), B, 0.9)._replace(observation=moments)
    seen = see(scaling, jnp.asarray([[1.0], [3.0], [-1.0], [100.0], [-100.0]]))
    np.testing.assert_allclose(seen[:, 0], [0, 1, -1, 5, -5], atol=1e-6)


# --- rollouts ---------------------------------------------------------------------------------


def test_off_is_nothing_at_all():
    assert begin(OFF, (2,), B, 0.9) == ()
    seen = experience(np.ones((T, B, 2)), np.ones((T, B)))
    assert scale((), seen) is seen
    assert see((), seen.observation) is seen.observation
    assert renew((), seen) == ()


@pytest.mark.parametrize("scales", [Scales(observations=True), Scales(rewards=True)])
def test_one_can_be_scaled_without_the_other(scales):
    random = np.random.default_rng(0)
    first, second = (experience(random.normal(5, 3, (T, B, 2)), 9 * np.ones((T, B))) for _ in "12")
    scaling = renew(begin(scales, (2,), B, 0.9), first)
    seen = scale(scaling, second)
    changed = [
        bool((new != old).any())
        for new, old in zip(
            (seen.observation, seen.next_observation, seen.reward),
            (second.observation, second.next_observation, second.reward),
            strict=True,
        )
    ]
    assert changed == [scales.observations, scales.observations, scales.rewards]


def test_rewards_are_in_units_of_the_discounted_sum_worked_by_hand():
    """gamma 1/2; the second environment terminates, the third is truncated, after the step 1."""
    reward = np.array([[4, 4, 4], [0, 0, 0], [2, 2, 2], [0, 8, 8.0]])
    ended = np.zeros((2, T, B), bool)
    ended[0, 1, 1] = ended[1, 1, 2] = True
    rollout = experience(np.zeros((T, B, 1)), reward, *ended)
    sums = np.array([[4, 4, 4], [2, 2, 2], [3, 2, 2], [1.5, 9, 9]])
    scaling = renew(begin(Scales(rewards=True), (1,), B, 0.5), rollout)
    assert scaling.reward.running.tolist() == [1.5, 9, 9]
    assert float(scaling.reward.moments.mean) == pytest.approx(sums.mean())
    unit = sums.std()
    np.testing.assert_allclose(scale(scaling, rollout).reward, reward / unit, rtol=1e-5)
    large = rollout._replace(reward=jnp.full((T, B), -1e3))
    assert (scale(scaling, large).reward == -10).all()

    # The sums go on from rollout to rollout.
    again = renew(scaling, experience(np.zeros((T, B, 1)), np.zeros((T, B))))
    np.testing.assert_allclose(again.reward.running, np.array([1.5, 9, 9]) / 16)


# --- in a life --------------------------------------------------------------------------------


RULE = PPO(epochs=1, minibatches=2)
LIFE = LifeConfig(environments=2, rollout=4, evaluation_environments=2)
AGENT = AgentConfig(
    network="mlp",
    hidden=(4,),
    value_hidden=(5,),
    activation="swish",
    initialisation="orthogonal",
    optimizer="adam",
    normalise_observations=True,
    normalise_rewards=True,
    policy_rate=0.01,
    prediction_rate=0.01,
)


@pytest.fixture(scope="module")
def pendulum() -> Any:
    """A world of the pendulum in which everything is scaled, its task and numbers."""
    world = make_world(RULE, "Pendulum-v1", AGENT, LIFE)
    hyper = jax.tree.map(jnp.float32, make_hyper(RULE, AGENT))
    task = Task(world.env.sample_level(jax.random.key(0)), jnp.int32(2))
    return world, hyper, task


def test_an_agent_acts_and_learns_by_the_statistics_of_before(pendulum):
    world, hyper, task = pendulum
    begin_ = jax.jit(lambda key: birth(world, (), hyper, task, key))
    go_on = jax.jit(lambda life: advance(world, (), hyper, task, life))
    look = jax.jit(lambda life: collect(world, task, life, next_keys(life)[0]))
    bare = jax.jit(lambda life: collect(world, task, life._replace(scaling=()), next_keys(life)[0]))
    again = jax.jit(lambda params, seen: world.network.unroll(params, seen)[0])

    born = begin_(jax.random.key(1))
    life, first, report = go_on(born)
    assert all(np.isfinite(value) for value in report.metrics.values())
    seen = np.clip(np.asarray(first.observation), -5, 5)
    moments = life.scaling.observation
    # Nothing was scaled yet, and nothing of a pendulum at rest is clipped.
    np.testing.assert_allclose(moments.mean, seen.mean((0, 1)), rtol=1e-4, atol=1e-5)
    assert float(moments.number) == 8

    after, second = look(life)
    # Learned from is what was acted on.
    outputs = again(life.learner.params, second)
    for head, put_out in second.behaviour.items():
        np.testing.assert_allclose(put_out, outputs[head], rtol=1e-4, atol=1e-6)
    # It was scaled, by what was known before the rollout.
    where_it_stood = (life.observation - moments.mean) / deviation(moments)
    np.testing.assert_allclose(
        second.observation[0], np.clip(where_it_stood, -5, 5), rtol=1e-4, atol=1e-5
    )
    assert float(after.scaling.observation.number) == 16
    assert float(after.scaling.reward.discount) == pytest.approx(0.99)
    # Without scaling another policy acts: the same noise, another way.
    assert not np.allclose(bare(life)[1].action, second.action)


def test_ppo_lives_two_updates_in_the_pendulum(pendulum):
    world, hyper, task = pendulum
    measure = Measure(points=jnp.int32(1), modes=jnp.int32(2))
    run = jax.jit(lambda key: live(world, (), hyper, task, key, measure))
    outcome = run(jax.random.key(2))
    assert bool(outcome.finite)
    # Raw rewards: a pendulum that is not balanced costs 1 to 16 a step, for 200 steps.
    assert (outcome.final < -200).all()


@pytest.mark.brax
def test_ppo_makes_two_updates_in_brax():
    pytest.importorskip("brax")
    agent = replace(AGENT, distribution="clipped")
    world = make_world(RULE, "brax/fast", agent, LIFE)
    hyper = jax.tree.map(jnp.float32, make_hyper(RULE, agent))
    task = Task(world.env.sample_level(jax.random.key(0)), jnp.int32(2))

    @jax.jit
    def run(key):
        born = birth(world, (), hyper, task, key)
        once, _, _ = advance(world, (), hyper, task, born)
        return born, once, advance(world, (), hyper, task, once)[0]

    lives: tuple[Life, ...] = run(jax.random.key(1))
    params = [life.learner.params for life in lives]
    for before, after in pairwise(params):
        for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
            assert np.isfinite(new).all() and (old != new).any()
    assert [int(life.n) for life in lives] == [0, 1, 2]
    assert [float(life.scaling.observation.number) for life in lives] == [0, 8, 16]


def test_a_score_is_by_the_agents_statistics_and_raw_rewards():
    """Seen as it is, 3 asks for action 1; seen around a mean of 4, for action 0."""
    spec = EnvSpec("sign", (1,), None, 2, max_steps=2)

    def step(noise, state, action, level):
        over = state == 1
        three = jnp.full(1, 3.0)
        return Transition(three, state + 1, 100.0 * action, jnp.asarray(False), over, three)

    env = Environment(
        spec,
        sample_level=lambda key: (),
        reset=lambda key, level: (jnp.full(1, 3.0), jnp.int32(0)),
        draw=lambda key, shape: jnp.zeros(shape),
        step=step,
        step_limit=lambda level: jnp.int32(2),
        bounds=None,
        gym=None,
    )
    heads: Mapping[str, Head] = {"policy": Head("actions")}
    network = make_network(AgentConfig(network="mlp"), heads, spec)
    params = {"policy": {"Dense_0": {"kernel": jnp.asarray([[-1.0, 1.0]]), "bias": jnp.zeros(2)}}}

    def score(scaling):
        key, greedy = jax.random.key(0), jnp.asarray(True)
        return float(episode_return(env, network, params, (), key, 2, greedy, scaling))

    scaling = begin(BOTH, (1,), 2, 0.9)
    around_4 = Moments(jnp.asarray(9.0), jnp.asarray([4.0]), jnp.asarray([9.0]))
    assert score(()) == 200
    assert score(scaling._replace(observation=around_4)) == 0


# --- configurations ---------------------------------------------------------------------------


def test_a_life_without_scaling_has_no_statistics():
    world = make_world(PPO(), "CartPole-v1", AgentConfig(network="mlp"), LIFE)
    task = Task(world.env.sample_level(jax.random.key(0)), jnp.int32(1))
    life = jax.eval_shape(
        lambda key: birth(world, (), world.objective.hyper(), task, key), jax.random.key(0)
    )
    assert world.scales == OFF and life.scaling == ()


def test_the_scale_of_rewards_is_a_number_that_no_program_is_compiled_for():
    agent = AgentConfig(reward_scale=10.0)
    for rule in (PPO(), A2C(), LPG()):
        assert make_hyper(rule, agent).reward_scale == 10
        assert make_hyper(rule, AgentConfig()).reward_scale == 1
    assert static(agent) == static(AgentConfig())


@pytest.mark.parametrize(
    "change",
    [
        {"value_hidden": (3,)},
        {"activation": "tanh"},
        {"initialisation": "orthogonal"},
        {"distribution": "clipped"},
        {"normalise_observations": True},
        {"normalise_rewards": True},
    ],
)
def test_a_program_is_compiled_for_the_rest(change):
    assert static(AgentConfig(**change)) == AgentConfig(**change)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"reward_scale": 0.0}, "reward_scale must be a finite number above 0, not 0.0"),
        ({"value_hidden": (8, 0)}, "value_hidden must be at least 1, not 0"),
    ],
)
def test_what_no_agent_can_have_is_refused(change, line):
    with pytest.raises(ConfigError, match=line):
        check(Config(agent=AgentConfig(**change)))


@pytest.mark.parametrize("own", [None, (), (8, 4)])
def test_widths_of_a_value_head_survive_json(own):
    config = Config(agent=AgentConfig(value_hidden=own))
    assert from_json(to_json(config)) == config


def test_agents_share_one_environment_for_each_distribution():
    worlds = [
        make_world(PPO(), name, AgentConfig(network="mlp", distribution=distribution), LIFE)
        for name in ("Pendulum-v1", "CartPole-v1")
        for distribution in ("tanh", "tanh", "clipped")
    ]
    pendulums, poles = [world.env for world in worlds[:3]], [world.env for world in worlds[3:]]
    assert pendulums[0] is pendulums[1] and pendulums[0] is not pendulums[2]
    assert poles[0] is poles[1] is poles[2]
    assert envs.make("Pendulum-v1").spec == pendulums[0].spec
