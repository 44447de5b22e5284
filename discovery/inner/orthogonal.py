"""Orthogonal kernels without LAPACK.

JAX's own initialiser calls LAPACK's QR. Under ``vmap`` on a CPU, that call waits for threads of the
pool that it runs in: where as many calls as there are threads meet (the two heads of an agent on
two cores do), all of them wait for ever (jaxlib 0.10.2).
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float


def orthogonal(gain: float) -> Initializer:
    r"""Kernels whose columns (rows, where they are fewer) are orthogonal, of length ``gain``.

    The orthogonal factor of a matrix of normal numbers, its signs such that the triangular one has
    a positive diagonal: uniform over all such matrices.

    Args:
      gain: length of the columns.

    Returns:
      ``(key, shape, dtype) -> kernel``, the same kernel as of ``jax.nn.initializers.orthogonal`` up
      to rounding; all axes but the last count as rows.

    Source: Saxe et al. 2014.
    """

    def init(key: Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> Array:
        columns = shape[-1]
        rows = math.prod(shape[:-1])
        normal = jax.random.normal(key, (max(rows, columns), min(rows, columns)), dtype)
        basis = orthonormal(normal)
        return (gain * (basis.T if rows < columns else basis)).astype(dtype).reshape(shape)

    return init


def orthonormal(a: Float[Array, "M K"]) -> Float[Array, "M K"]:
    """Orthonormal columns that span those of ``a`` from the left: Gram and Schmidt, twice.

    Each column loses what it shares with those before it. Once would leave errors that grow where a
    column is nearly in their span; after the second time they are of the size of rounding.

    Args:
      a: at least as many rows as columns, of full rank.

    Returns:
      The columns.

    Example:
      >>> orthonormal(jnp.array([[2.0, 1.0], [0.0, 3.0]])).tolist()
      [[1.0, 0.0], [0.0, 1.0]]

    Source: Giraud et al. 2005, for "twice is enough".
    """

    def column(j: Array | int, done: Array) -> Array:
        v = a[:, j]
        for _ in range(2):
            # No matrix product, which accelerators round.
            shared = jnp.sum(done * v[:, None], axis=0)
            v = v - jnp.sum(done * shared, axis=1)
        return done.at[:, j].set(v / jnp.sqrt(jnp.sum(jnp.square(v))))

    return jax.lax.fori_loop(0, a.shape[1], column, jnp.zeros_like(a))
