import dataclasses
from dataclasses import dataclass

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from learned_objectives import clock
from learned_objectives.base import Perturbed, count_parameters
from learned_objectives.library import load, make_rule, save
from learned_objectives.lpo import LPO, with_clock
from learned_objectives.mirror import DPO, PPO

SMALL = LPO(width=4, epochs=2, minibatches=3)
"""TA-LPO, small."""


def random_theta(objective, seed=0, scale=1.0):
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(scale * random.normal(size=leaf.shape)),
        jax.eval_shape(objective.init, jax.random.key(0)),
    )


@pytest.fixture(scope="module")
def surface(make_time):
    """``(objective, theta, log p, A, n, N) -> `` drift and its slope in log p."""
    programs = {}

    def look(objective, theta, log_ratio, advantage, n=2, N=5, **hyper):
        def both(theta, hyper, log_ratio, advantage, time):
            def drift(x):
                return objective.drift(theta, hyper, x, advantage, time)

            return jax.jvp(drift, (log_ratio,), (jnp.ones_like(log_ratio),))

        program = programs.setdefault(objective, jax.jit(both))
        arrays = (jnp.asarray(x, jnp.float32) for x in (log_ratio, advantage))
        told = objective.hyper(**hyper)
        return tuple(map(np.asarray, program(theta, told, *arrays, make_time(n, N))))

    return look


def points(seed, size=64):
    """Ratios and advantages of all sizes."""
    random = np.random.default_rng(seed)
    log_ratio = random.choice([-1, 1], size) * 80 ** random.uniform(-3, 1, size)
    return log_ratio, random.normal(size=size) * 10 ** random.uniform(-2, 2, size)


# --- a drift is never negative, and flat at p = 1 -----------------------------------------------


def is_a_drift(surface, objective, theta, seed, n, N, **hyper):
    """Finite everywhere; no value below zero; at p = 1 zero with slope zero, both exactly."""
    log_ratio, advantage = points(seed)
    away = surface(objective, theta, log_ratio, advantage, n, N, **hyper)
    value, slope = surface(objective, theta, np.zeros(64), advantage, n, N, **hyper)
    return bool(
        np.isfinite(away).all()
        and (away[0] >= 0).all()
        and (value == 0).all()
        and (slope == 0).all()
    )


DRIFTS = (
    PPO(),
    DPO(),
    LPO(clock="none", width=16),
    LPO(width=16),
    LPO(clock="fraction_scaled", width=16),
    LPO(clock="fraction_log", width=16, ppo_term=False),
    LPO(clock="raw", width=16),
)


@settings(max_examples=60)
@given(
    objective=st.sampled_from(DRIFTS),
    seed=st.integers(0, 2**31),
    size=st.floats(-3, 3),
    life=st.tuples(st.integers(1, 10_000), st.integers(0, 10_000)),
    gate=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_every_drift_is_one(objective, seed, size, life, gate, surface):
    theta = random_theta(objective, seed, 10**size)
    N, n = life[0], life[1] % life[0]
    assert is_a_drift(surface, objective, theta, seed, n, N, clock_gate=gate)


@dataclass(frozen=True)
class BareClock(LPO):
    """Time as an input of its own, next to the features instead of multiplied with them."""

    def init(self, key):
        return {"w1": jnp.zeros((9, self.width)), "w2": jnp.zeros((self.width, 1))}

    def inputs(self, hyper, log_ratio, advantage, time):
        x = dataclasses.replace(self, clock="none").plain(hyper, log_ratio, advantage, time)
        told = clock.features("fraction", time, x.dtype)
        return jnp.concatenate([x, jnp.broadcast_to(told, (*x.shape[:-1], 1))], axis=-1)

    def plain(self, *arguments):
        return LPO.inputs(self, *arguments)


def test_a_bare_clock_is_caught(surface):
    objective = BareClock(width=16)
    broken = [
        not is_a_drift(surface, objective, random_theta(objective, seed), seed, 2, 5)
        for seed in range(100)
    ]
    assert 30 <= sum(broken) <= 70


# --- what it is at its edges --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "parameters"),
    [
        ("none", 1152),
        ("fraction", 2176),
        ("constant", 2176),
        ("elapsed", 2176),
        ("fraction_scaled", 3200),
        ("fraction_log", 3200),
    ],
)
def test_published_size(form, parameters):
    shapes = jax.eval_shape(LPO(clock=form).init, jax.random.key(0))
    assert count_parameters(shapes) == parameters


def test_initialisation():
    theta = jax.jit(LPO().init)(jax.random.key(0))
    np.testing.assert_allclose(np.std(theta["w1"]), 16**-0.5, rtol=0.1)
    np.testing.assert_allclose(np.std(theta["w2"]), 128**-0.5, rtol=0.2)


def test_at_zero_parameters_it_is_ppo_up_to_the_margin(surface):
    theta = jax.tree.map(jnp.zeros_like, random_theta(SMALL))
    random = np.random.default_rng(0)
    # Ratios around the clip, and some advantages so small that what is clipped is within 1e-4.
    log_ratio = random.normal(size=4096) * 0.3
    advantage = random.normal(size=4096) * 10 ** random.uniform(-3, 1, 4096)
    drift, slope = surface(SMALL, theta, log_ratio, advantage)
    term, ppo_slope = surface(PPO(), (), log_ratio, advantage)
    assert np.abs(drift - term).max() <= 1.01e-4  # and rounding
    same = (term > 1e-4) | (term == 0)
    assert 0.9 < same.mean() < 1
    np.testing.assert_array_equal(slope[same], ppo_slope[same])
    assert np.count_nonzero(slope) > 500
    np.testing.assert_array_equal(slope[~same], 0)


def test_at_birth_time_does_not_show(surface):
    theta = random_theta(SMALL)
    blind, weights = SMALL.without_clock(theta)
    assert blind == dataclasses.replace(SMALL, clock="none")
    assert count_parameters(weights) == 9 * 4
    arguments = points(1)
    newborn, old = (surface(SMALL, theta, *arguments, n=n) for n in (0, 4))
    np.testing.assert_array_equal(newborn, surface(blind, weights, *arguments))
    assert not np.allclose(newborn, old)


@pytest.mark.parametrize("form", [form for form in clock.CLOCKS if form != "none"])
def test_a_drift_given_a_clock_is_the_same_drift(form, surface):
    blind = dataclasses.replace(SMALL, clock="none")
    weights = random_theta(blind)
    aware, theta = with_clock(blind, weights, form)
    assert aware == dataclasses.replace(SMALL, clock=form)
    shapes = jax.eval_shape(aware.init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, theta) == jax.tree.map(jnp.shape, shapes)
    arguments = points(2)
    expected = surface(blind, weights, *arguments)
    for n in (0, 3):
        found = surface(aware, theta, *arguments, n=n)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=f"has a clock already: {form}"):
        with_clock(aware, theta, "fraction")


def test_a_constant_clock_is_half_a_copy(surface):
    constant = dataclasses.replace(SMALL, clock="constant")
    theta = random_theta(constant)
    for n in (0, 3):
        found = surface(constant, theta, *points(3), n=n)
        np.testing.assert_array_equal(found, surface(SMALL, theta, *points(3), n=1, N=2))


def test_the_scaled_log_is_bounded(surface):
    scaled = dataclasses.replace(SMALL, clock="fraction_scaled")
    theta = random_theta(scaled)
    longest, longer, shorter = (
        surface(scaled, theta, *points(4), n=n, N=N) for n, N in [(50, 250), (500, 2500), (10, 50)]
    )
    np.testing.assert_allclose(longest, longer, rtol=1e-5, atol=1e-5)
    assert not np.allclose(longest, shorter)


def test_features_are_held_where_the_surrogate_is_not(surface):
    alone = dataclasses.replace(SMALL, ppo_term=False)
    theta = random_theta(alone, scale=0.01)
    log_ratio, advantage = np.repeat([10.0, 12.0, 70.0, -10.0, -70.0], 20), np.tile(np.ones(20), 5)
    advantage *= np.tile(np.linspace(-2, 2, 20), 5)
    value, slope = surface(alone, theta, log_ratio, advantage)
    top, higher, highest, low, lowest = np.split(value, 5)
    np.testing.assert_array_equal(top, higher)
    np.testing.assert_array_equal(top, highest)
    np.testing.assert_array_equal(low, lowest)
    assert np.count_nonzero(value) > 10
    np.testing.assert_array_equal(slope[np.abs(log_ratio) > 10], 0)
    excess = surface(SMALL, theta, log_ratio, advantage)[0].reshape(5, 20)[:, -1]
    assert excess[0] < excess[1] < excess[2]


@pytest.mark.parametrize("gate", [0.0, 0.5, 1.0])
def test_a_gate_is_baked_into_the_weights(gate, surface):
    theta = random_theta(SMALL)
    baked, weights = SMALL.baked(theta, gate)
    assert baked.clock == ("none" if gate == 0 else "fraction")
    gated = surface(SMALL, theta, *points(5), clock_gate=gate)
    np.testing.assert_allclose(gated, surface(baked, weights, *points(5)), rtol=1e-5, atol=1e-5)


def test_low_rank_weights_say_what_their_sum_says(surface):
    theta, random = random_theta(SMALL), np.random.default_rng(3)

    def split(leaf):
        left, right = (random.normal(size=(n, 2)).astype(np.float32) for n in leaf.shape)
        return Perturbed(*map(jnp.asarray, (np.asarray(leaf) - left @ right.T, left, right)))

    # Ratios of the size that agents meet: large features would only magnify rounding.
    arguments = points(6)[0] % 1, np.clip(points(6)[1], -3, 3)
    whole, _ = surface(SMALL, theta, *arguments)
    found, _ = surface(SMALL, jax.tree.map(split, theta), *arguments)
    np.testing.assert_allclose(found, whole, rtol=1e-3, atol=1e-4)


def test_a_rule_that_is_saved_and_loaded(tmp_path):
    objective = make_rule("lpo", width=4, clock="fraction_scaled", ppo_term=False)
    theta = random_theta(objective)
    save(tmp_path, objective, theta, {})
    again = load(tmp_path)
    assert again.objective == objective
    jax.tree.map(np.testing.assert_array_equal, again.theta, theta)
    assert (load("ppo").objective, load("dpo").theta) == (PPO(), ())


# --- the update ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def agent_after(make_learner, make_experience, make_time):
    """``objective -> (theta, n) -> `` the agent's parameters after one update."""

    def make(objective):
        network, learner = make_learner(objective)
        seen = make_experience()
        experience = seen._replace(behaviour=network.act(learner.params, seen.observation))
        hyper = objective.hyper(policy_rate=0.3, value_rate=0.1)

        def after(theta, n):
            time = make_time(0, 5)._replace(n=jnp.asarray(n))
            key = jax.random.key(4)
            arguments = hyper, network, learner, experience, time, key
            return objective.update(theta, *arguments)[0].params

        return after

    return make


def test_an_agent_under_a_drift_given_a_clock_becomes_the_same_agent(agent_after):
    blind = dataclasses.replace(SMALL, clock="none")
    weights = random_theta(blind)
    aware, theta = with_clock(blind, weights, "fraction")
    plain, timed = jax.jit(agent_after(blind)), jax.jit(agent_after(aware))
    expected = plain(weights, 3)["policy"]["table"]
    np.testing.assert_allclose(timed(theta, 3)["policy"]["table"], expected, rtol=1e-4, atol=1e-5)
    other = {**theta, "w1": theta["w1"].at[8:].set(1.0)}
    assert not np.allclose(timed(other, 3)["policy"]["table"], expected, atol=1e-3)


def test_the_meta_gradient_is_a_finite_difference(agent_after):
    objective = dataclasses.replace(SMALL, optimizer="sgd")
    with jax.enable_x64(True):
        after = agent_after(objective)
        loss = jax.jit(
            jax.value_and_grad(lambda theta: jnp.sum(jnp.sin(after(theta, 2)["policy"]["table"])))
        )
        theta, along = (jax.tree.map(np.asarray, random_theta(objective, s)) for s in (0, 9))
        slope = jax.tree.map(np.asarray, loss(theta)[1])
        ahead, behind = (
            loss(jax.tree.map(lambda w, d, e=e: w + e * d, theta, along))[0] for e in (1e-6, -1e-6)
        )
        nowhere = loss(jax.tree.map(np.zeros_like, theta))[1]
    for leaf in jax.tree.leaves(slope):
        assert np.isfinite(leaf).all()
        assert leaf.any()
    found = sum(np.sum(a * b) for a, b in zip(*map(jax.tree.leaves, (slope, along)), strict=True))
    expected = (float(ahead) - float(behind)) / 2e-6
    assert abs(expected) > 1e-4
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    # A search by gradients cannot start at zero parameters.
    for leaf in jax.tree.leaves(nowhere):
        np.testing.assert_array_equal(leaf, 0)
