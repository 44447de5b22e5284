"""Orthogonal kernels without LAPACK."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from discovery.inner import orthogonal as module
from discovery.inner.orthogonal import orthogonal


@pytest.mark.parametrize("shape", [(9, 4), (4, 9), (3, 3, 2, 5)])
def test_the_kernel_is_the_one_of_jax(shape):
    key = jax.random.key(3)
    expected = jax.nn.initializers.orthogonal(1.5)(key, shape, jnp.float32)
    np.testing.assert_allclose(orthogonal(1.5)(key, shape), expected, atol=1e-5)


def test_columns_stay_orthonormal_where_they_nearly_coincide():
    random = np.random.default_rng(0)
    a = random.normal(size=(12, 1)) + 1e-3 * random.normal(size=(12, 4))
    basis = np.asarray(module.orthonormal(jnp.asarray(a, jnp.float32)))
    np.testing.assert_allclose(basis.T @ basis, np.eye(4), atol=1e-5)


def test_examples_in_docstrings():
    assert doctest.testmod(module) == (0, 1)
