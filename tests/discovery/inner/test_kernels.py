"""The kernels an agent is born with."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from discovery.inner import kernels

SHAPES = [(9, 4), (4, 9), (3, 3, 2, 5), (9, 4)]


@pytest.mark.parametrize("shape", SHAPES[:3])
@pytest.mark.parametrize("kind", ["orthogonal", "lecun_normal", "lecun_uniform"])
def test_a_single_kernel_is_the_one_of_jax(kind, shape):
    key = jax.random.key(3)
    make = getattr(jax.nn.initializers, kind)
    expected = make(1.5) if kind == "orthogonal" else make()
    (found,) = kernels.draw(kind, key, [shape], [1.5])
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected(key, shape, jnp.float32), atol=1e-5)


@pytest.mark.parametrize("kind", ["orthogonal", "lecun_normal", "lecun_uniform"])
def test_every_kernel_of_many_has_numbers_of_its_own(kind):
    found = kernels.draw(kind, jax.random.key(0), SHAPES, [1.0, 2.0, 3.0, 4.0])
    assert [kernel.shape for kernel in found] == SHAPES
    assert len(np.unique(jnp.concatenate([jnp.ravel(k) for k in found]))) == 36 + 36 + 90 + 36
    for kernel, gain in zip(found, [1.0, 2.0, 3.0, 4.0], strict=True):
        flat = np.asarray(kernel).reshape(-1, kernel.shape[-1])
        if kind == "orthogonal":
            sizes = np.linalg.svd(flat, compute_uv=False)
            np.testing.assert_allclose(sizes, gain, rtol=1e-5)


@pytest.mark.parametrize("kind", ["lecun_normal", "lecun_uniform"])
def test_variance_is_one_over_the_inputs(kind):
    shapes = [(16, 2000), (5, 5, 4, 300)]
    for kernel, inputs in zip(
        kernels.draw(kind, jax.random.key(1), shapes, [1.0, 1.0]), (16, 100), strict=True
    ):
        # 30,000 numbers: the error of a variance is below 1 in 100.
        np.testing.assert_allclose(np.var(kernel) * inputs, 1, atol=0.03)


def test_columns_stay_orthonormal_where_they_nearly_coincide():
    random = np.random.default_rng(0)
    a = random.normal(size=(12, 1)) + 1e-3 * random.normal(size=(12, 4))
    basis = np.asarray(kernels.orthonormal(jnp.asarray(a, jnp.float32)))
    np.testing.assert_allclose(basis.T @ basis, np.eye(4), atol=1e-5)


def test_examples_in_docstrings():
    assert doctest.testmod(kernels) == (0, 2)
