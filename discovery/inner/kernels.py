"""The kernels an agent is born with, of all its layers at once.

A draw for each layer would take a random number generator, and a loop, for each: a fifth of what it
takes to compile a life of PPO. JAX's own orthogonal initialiser calls LAPACK's QR, too: under
``vmap`` on a CPU that call waits for threads of the pool that it runs in, and where as many calls
as there are threads meet (the two heads of an agent on two cores do), all of them wait for ever
(jaxlib 0.10.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from learned_objectives.base import Key

Initialisation = Literal["lecun_normal", "lecun_uniform", "orthogonal"]


def draw(
    kind: Initialisation, key: Key, shapes: Sequence[tuple[int, ...]], gains: Sequence[float]
) -> list[Float[Array, "..."]]:
    r"""Random kernels, all from one array of random numbers.

    - ``lecun_normal``, ``lecun_uniform``: numbers of variance 1/n, n the inputs of a unit; the
      normal ones cut off at two deviations.
    - ``orthogonal``: columns (rows, where they are fewer) that are orthogonal and of length
      ``gain``: the orthogonal factor of a matrix of normal numbers, its signs such that the
      triangular one has a positive diagonal: uniform over all such matrices.

    Args:
      kind: of all of them.
      key: consumed.
      shapes: of each kernel; all axes but the last are inputs of a unit.
      gains: of each kernel, read by ``orthogonal`` alone.

    Returns:
      The kernels, float32.

    Example:
      >>> [kernel.shape for kernel in draw("orthogonal", jax.random.key(0), [(4, 8)], [1.0])]
      [(4, 8)]

    Source: LeCun et al. 1998, section 4.6; Saxe et al. 2014.
    """
    flat = [(math.prod(shape[:-1]), shape[-1]) for shape in shapes]
    ends = np.cumsum([rows * columns for rows, columns in flat])
    if kind == "orthogonal":
        numbers = jax.random.normal(key, (ends[-1],), jnp.float32)
    else:
        # In a layer with one input a number has the variance 1.
        initialise = getattr(nn.initializers, kind)()
        numbers = initialise(key, (1, ends[-1]), jnp.float32)[0]
    parts = jnp.split(numbers, ends[:-1])
    if kind == "orthogonal":
        found = _orthogonal(parts, flat)
        found = [gain * kernel for gain, kernel in zip(gains, found, strict=True)]
    else:
        found = [part / math.sqrt(rows) for part, (rows, _) in zip(parts, flat, strict=True)]
    return [kernel.reshape(shape) for kernel, shape in zip(found, shapes, strict=True)]


def _orthogonal(parts: list[Array], shapes: list[tuple[int, int]]) -> list[Array]:
    """Orthogonal matrices of these shapes from normal numbers; those of one shape together."""
    tall = [tuple(sorted(shape, reverse=True)) for shape in shapes]
    found = list(parts)
    for shape in sorted(set(tall)):
        those = [i for i, other in enumerate(tall) if other == shape]
        bases = jax.vmap(orthonormal)(jnp.stack([parts[i].reshape(shape) for i in those]))
        for i, basis in zip(those, bases, strict=True):
            found[i] = basis if shapes[i] == shape else basis.T
    return found


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
