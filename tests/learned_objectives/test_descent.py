import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learned_objectives import descent

KINDS = ("sgd", "adam")


def heads(**values):
    return {head: {"w": jnp.asarray(value)} for head, value in values.items()}


def test_clip_worked_by_hand():
    clipped = descent.clip({"a": jnp.asarray([3.0]), "b": jnp.asarray([[4.0]])}, 0.5)
    np.testing.assert_allclose(clipped["a"], [0.3], rtol=1e-6)
    np.testing.assert_allclose(clipped["b"], [[0.4]], rtol=1e-6)


@pytest.mark.parametrize("limit", [5.0, 6.0, np.inf])
def test_what_is_not_above_the_limit_is_not_touched(limit):
    tree = {"w": jnp.asarray([3.0, 4.0])}
    np.testing.assert_array_equal(descent.clip(tree, limit)["w"], tree["w"])


def test_norm_of_zero_has_slope_zero():
    value, slope = jax.value_and_grad(descent.norm)({"w": jnp.zeros((2, 2))})
    assert value == 0
    np.testing.assert_array_equal(slope["w"], 0)


def test_heads_are_clipped_apart_and_move_at_their_own_rates():
    gradient = heads(policy=[30.0, 40.0], value=[0.0, 0.1])
    params = heads(policy=[1.0, 1.0], value=[1.0, 1.0])
    state = descent.init("sgd", params)
    rates = {"policy": 10.0, "value": 2.0}
    moved, _ = descent.step("sgd", gradient, state, params, rates, 0.5)
    np.testing.assert_allclose(moved["policy"]["w"], [1 - 3.0, 1 - 4.0], rtol=1e-6)
    np.testing.assert_allclose(moved["value"]["w"], [1.0, 0.8], rtol=1e-6)


def test_a_nan_stays_in_its_head():
    gradient = heads(policy=[np.nan, 1.0], value=[1.0, 1.0])
    params = heads(policy=[0.0, 0.0], value=[0.0, 0.0])
    rates = {"policy": 1.0, "value": 1.0}
    moved, _ = descent.step("sgd", gradient, descent.init("sgd", params), params, rates, 0.5)
    assert np.isnan(moved["policy"]["w"][0])
    assert np.isfinite(moved["value"]["w"]).all()


def test_adam_is_the_textbooks():
    random = np.random.default_rng(0)
    params = heads(policy=np.float32([1.0, -2.0, 0.5]))
    state = descent.init("adam", params)
    rival = optax.adam(0.01)
    expected, memory = params, rival.init(params)
    for _ in range(5):
        gradient = heads(policy=np.float32(random.normal(size=3)))
        params, state = descent.step(
            "adam", gradient, state, params, {"policy": 0.01}, float("inf")
        )
        step, memory = rival.update(gradient, memory)
        expected = optax.apply_updates(expected, step)
    np.testing.assert_allclose(params["policy"]["w"], expected["policy"]["w"], rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", [0.5, float("inf")])
def test_slopes_are_finite_where_nothing_was_visited(kind, limit):
    """A row, and a whole head, with gradient zero: NaN in most libraries."""
    params = heads(policy=jnp.zeros((2, 2)), value=jnp.zeros(3))
    rates = {"policy": 1.0, "value": 1.0}

    def after(scale):
        gradient = heads(policy=scale * jnp.asarray([[3.0, 4.0], [0.0, 0.0]]), value=jnp.zeros(3))
        state, moved = descent.init(kind, params), params
        for _ in range(2):
            moved, state = descent.step(kind, gradient, state, moved, rates, limit)
        return moved

    for slope in jax.jit(lambda x: (jax.jacfwd(after)(x), jax.jacrev(after)(x)))(1.0):
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))
        np.testing.assert_array_equal(slope["value"]["w"], 0)
        if kind == "sgd" and np.isinf(limit):
            np.testing.assert_allclose(slope["policy"]["w"], [[-6, -8], [0, 0]], rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_dtypes_follow_the_parameters(kind):
    with jax.enable_x64(True):
        params = heads(policy=jnp.ones(2, jnp.float64))
        state = descent.init(kind, params)
        rate = {"policy": jnp.float32(0.1)}
        moved, _ = descent.step(kind, params, state, params, rate, jnp.float32(0.5))
        assert moved["policy"]["w"].dtype == jnp.float64


def test_the_norm_of_what_is_not_a_number_is_none() -> None:
    assert jnp.isnan(descent.norm({"a": jnp.asarray([0.0, jnp.nan]), "b": jnp.ones(2)}))
    assert descent.norm({"a": jnp.asarray([0.0, jnp.inf])}) == jnp.inf
    assert jax.grad(lambda x: descent.norm({"a": x}))(jnp.zeros(2)).tolist() == [0.0, 0.0]
