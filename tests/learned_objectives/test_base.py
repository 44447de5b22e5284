import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learned_objectives import base, clock
from learned_objectives.base import Learner, Objective, Perturbed, Report, count_parameters, dense
from learned_objectives.library import RULES, make_rule

RULE_NAMES = tuple(RULES)

SHARED_OUT = {"epochs": 2, "minibatches": 3}
SMALL = {
    "lpg": {"width": 4, "predictions": 3, "embedding": 2},
    "lpo": SHARED_OUT | {"width": 4},
    "ppo": SHARED_OUT,
    "dpo": SHARED_OUT,
    "ppo-constant": SHARED_OUT,
    "ppo-scheduled": SHARED_OUT,
    "ppo-scheduled-n": SHARED_OUT,
    "lpg-annealed": {"width": 4, "predictions": 3, "embedding": 2},
}
"""Fields with which a rule is small, and fits a rollout of 7 x 3 steps."""


@pytest.fixture
def rule(request):
    return make_rule(request.param, **SMALL.get(request.param, {}))


every_rule = pytest.mark.parametrize("rule", RULE_NAMES, indirect=True)


def test_a_perturbed_product_is_the_product_with_the_sum():
    random = np.random.default_rng(0)
    x, mean, left, right = (
        jnp.asarray(random.normal(size=size), jnp.float32)
        for size in ((2, 5, 4), (4, 3), (4, 2), (3, 2))
    )
    whole = dense(x, mean + left @ right.T)
    np.testing.assert_allclose(dense(x, Perturbed(mean, left, right)), whole, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dense(x, mean), np.asarray(x) @ np.asarray(mean), rtol=1e-5)


def test_products_of_bfloat16_round_their_factors_and_not_their_sums():
    x = jax.random.normal(jax.random.key(0), (5, 300))
    w = jax.random.normal(jax.random.key(1), (300, 4))
    rounded = [np.asarray(a.astype(jnp.bfloat16), np.float64) for a in (x, w)]
    found = dense(x, w, "bfloat16")
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, rounded[0] @ rounded[1], rtol=1e-4, atol=1e-4)
    assert np.abs(found - dense(x, w)).max() > 1e-2
    left, right = jnp.ones((300, 1)), jnp.ones((4, 1))
    whole = dense(x, w + left @ right.T)
    np.testing.assert_allclose(
        dense(x, Perturbed(w, left, right), "bfloat16"), whole, rtol=0.05, atol=0.5
    )
    slope = jax.grad(lambda w: dense(x, w, "bfloat16").sum())(w)
    assert slope.dtype == jnp.float32
    np.testing.assert_allclose(slope, jnp.tile(x.sum(0)[:, None], (1, 4)), rtol=0.05, atol=0.2)


def test_count_parameters():
    assert count_parameters({"w": jnp.zeros((2, 3)), "b": jnp.zeros(()), "none": ()}) == 7
    assert count_parameters(()) == 0


def test_a_report_leaves_a_jitted_function():
    report = jax.jit(lambda x: Report({"loss": x}))(1.0)
    assert float(report.metrics["loss"]) == 1.0
    assert not report.penalties


@pytest.mark.parametrize("module", [base, clock])
def test_examples_in_docstrings(module):
    failed, tried = doctest.testmod(module)
    assert tried
    assert not failed


@every_rule
def test_an_update_keeps_the_protocol(rule, make_learner, make_experience, make_time):
    """Jitted, batched, reverse-differentiable, and in the parameters' dtype."""
    assert isinstance(rule, Objective)
    assert rule.heads["policy"].size == "actions"
    with jax.enable_x64(True):
        network, learner = make_learner(rule)
        random = np.random.default_rng(0)
        theta = jax.tree.map(
            lambda leaf: jnp.asarray(random.normal(size=leaf.shape), leaf.dtype),
            jax.eval_shape(rule.init, jax.random.key(0)),
        )
        hyper, seen, time = rule.hyper(), make_experience(), make_time(2, 5)

        def loss(theta, params):
            experience = seen._replace(behaviour=network.act(params, seen.observation))
            born = rule.birth(theta, hyper, network, params)
            said = rule.signals(theta, hyper, network, born, experience, time)
            assert said["pi_hat"].shape == experience.reward.shape
            key = jax.random.key(1)
            new, report = rule.update(theta, hyper, network, born, experience, time, key)
            leaves = jax.tree.leaves((new.params, report.penalties))
            return sum(jnp.sum(jnp.square(leaf)) for leaf in leaves), (new, report)

        # A loop that is no scan with a static length has no reverse gradient.
        both = jax.vmap(jax.value_and_grad(loss, has_aux=True), (None, 0))
        twins = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), learner.params)
        (_, (new, report)), slope = jax.jit(both)(theta, twins)

    assert isinstance(new, Learner)
    assert jax.tree.structure(new.params) == jax.tree.structure(twins)
    for leaf in jax.tree.leaves((new.params, theta, slope)):
        assert leaf.dtype == jnp.float64
        assert np.isfinite(leaf).all()
    for leaf in jax.tree.leaves(new.params):
        np.testing.assert_array_equal(leaf[0], leaf[1])
    for value in [*report.metrics.values(), *report.penalties.values()]:
        assert value.shape == (2,)
