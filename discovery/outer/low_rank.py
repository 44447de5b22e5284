r"""Perturbations of low rank: a whole population shares the product with its mean.

A matrix W ``[I, O]`` is perturbed by :math:`\pm\sigma E`, :math:`E = A B^\top / \sqrt r`, of
standard normal A ``[I, R]`` and B ``[O, R]``. E has mean zero and the identity for covariance, as
full noise has, and takes ``R (I + O)`` numbers instead of ``I O``. A candidate's product is
:math:`x W \pm \sigma (x A) B^\top / \sqrt r`: under ``vmap`` x W is one product for all candidates.
Vectors, and matrices whose factors would hold as many numbers as they do, get full noise.

Shape legend: ``J`` pairs, ``I`` inputs, ``O`` outputs, ``R`` the rank.

Source: Sarkar et al. 2025, Evolution Strategies at the Hyperscale (arXiv 2511.16652).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from discovery.config import Config, ConfigError
from discovery.inner.lifetime import Task, World, birth, grow
from learned_objectives.base import Key, Perturbed, Theta


class Factors(NamedTuple):
    r"""A perturbation of a matrix, :math:`E = L R^\top`."""

    left: Float[Array, "*J I R"]
    r""":math:`A / \sqrt r`."""
    right: Float[Array, "*J O R"]
    """B."""


def factored(leaf: Any, rank: int) -> bool:
    """Whether a leaf is perturbed by a product of factors.

    Args:
      leaf: an array, or its shape.
      rank: R; 0 for full noise everywhere.

    Returns:
      True for a matrix of more numbers than its factors.

    Example:
      >>> factored(jnp.zeros((8, 16)), 4), factored(jnp.zeros((16, 1)), 4)
      (True, False)
    """
    return leaf.ndim == 2 and 0 < rank * sum(leaf.shape) < leaf.size


def size(leaf: Any, rank: int) -> int:
    """Numbers that the noise of a leaf takes."""
    return rank * sum(leaf.shape) if factored(leaf, rank) else int(leaf.size)


def shaped(drawn: Float[Array, " n"], leaf: Array, rank: int) -> Array | Factors:
    """As many standard normal numbers as :func:`size` says, as the noise of a leaf."""
    if not factored(leaf, rank):
        return drawn.reshape(leaf.shape).astype(leaf.dtype)
    rows, columns = leaf.shape
    left = drawn[: rows * rank].reshape(rows, rank) / math.sqrt(rank)
    right = drawn[rows * rank :].reshape(columns, rank)
    return Factors(left.astype(leaf.dtype), right.astype(leaf.dtype))


def moved(mean: Array, z: Array | Factors, scale: Float[Array, ""]) -> Array | Perturbed:
    """A leaf of the mean plus ``scale`` times its noise."""
    if isinstance(z, Factors):
        return Perturbed(mean, (scale * z.left).astype(mean.dtype), z.right)
    return mean + (scale * z).astype(mean.dtype)


def weighed(weights: Float[Array, " J"], z: Array | Factors) -> Array:
    """Sum of weights times noise over the pairs of a group; of factors one product, [I, O]."""
    if isinstance(z, Factors):
        left = weights[:, None, None] * z.left
        # On an accelerator a sum of products is rounded more coarsely unless asked not to be.
        return jnp.tensordot(left, z.right, axes=((0, 2), (0, 2)), precision="highest")
    return jnp.tensordot(weights, z, axes=1)


def whole(theta: Theta) -> Theta:
    """A candidate as plain arrays."""

    def plain(leaf: Any) -> Any:
        if isinstance(leaf, Perturbed):
            return leaf.mean + leaf.left @ leaf.right.T
        return leaf

    return jax.tree.map(plain, theta, is_leaf=lambda leaf: isinstance(leaf, Perturbed))


def check_products(config: Config, world: World, strategy: Any, like: Theta, hyper: Any) -> None:
    """Refuse a rule that does anything with a matrix of theta but multiply by it with ``dense``.

    Args:
      config: of the search; without a rank nothing is refused.
      world: who lives where.
      strategy: of low rank.
      like: shapes and types of theta.
      hyper: numbers of an agent's updates.

    Raises:
      ConfigError: the rule's first update cannot be traced, in one line.
    """
    if not config.evolution.rank:
        return

    def first_update(theta: Theta, key: Key) -> Any:
        theta = strategy.candidate(strategy.still(theta), jnp.int32(0), jnp.float32(1))
        task = Task(world.env.sample_level(key), jnp.int32(1))
        life = birth(world, theta, hyper, task, key)
        return grow(world, theta, hyper, task, life)[0].learner

    try:
        jax.eval_shape(first_update, like, jax.random.key(0))
    except (TypeError, AttributeError) as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"{config.objective.rule} takes a matrix of theta otherwise than by "
            f"learned_objectives.base.dense ({first}): give --rank 0"
        ) from None
