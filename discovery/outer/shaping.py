"""From scores to weights: higher is better, a non-finite score is the worst, a tie adds nothing.

Scores are ``[M, 2]``: the two partners of each antithetic pair. What a search follows is the
difference of the two weights of a pair.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from learned_objectives.base import Key

OCTAVE = 8
"""Fewest candidates of one octave of horizons that are standardised among themselves."""


def worst_if_not_finite(scores: Float[Array, "M 2"]) -> Float[Array, "M 2"]:
    """A score that is not a number, or infinite, counts as minus infinity."""
    return jnp.where(jnp.isfinite(scores), scores, -jnp.inf)


def pair(scores: Float[Array, "M 2"], horizons: Int[Array, " M"]) -> Float[Array, "M 2"]:
    """Winner 1, loser 0, a tie 1/2 each: the published shaping.

    Args:
      scores: by pair and partner.
      horizons: not used.

    Returns:
      Weights, ``[M, 2]``.

    Example:
      >>> import jax.numpy as jnp
      >>> pair(jnp.array([[2.0, 1.0], [3.0, 3.0]]), jnp.array([1, 1])).tolist()
      [[1.0, 0.0], [0.5, 0.5]]
    """
    s = worst_if_not_finite(scores)
    first = jnp.where(s[:, 0] > s[:, 1], 1.0, jnp.where(s[:, 0] < s[:, 1], 0.0, 0.5))
    return jnp.stack([first, 1 - first], axis=1).astype(scores.dtype)


def centred_rank(scores: Float[Array, "M 2"], horizons: Int[Array, " M"]) -> Float[Array, "M 2"]:
    """Ranks over all candidates, ties averaged, scaled to [-1/2, 1/2].

    Args:
      scores: by pair and partner.
      horizons: not used.

    Returns:
      Weights, ``[M, 2]``.

    Example:
      >>> import jax.numpy as jnp
      >>> centred_rank(jnp.array([[3.0, 1.0], [2.0, 2.0]]), jnp.array([1, 1])).tolist()
      [[0.5, -0.5], [0.0, 0.0]]
    """
    s = worst_if_not_finite(scores).ravel()
    below = (s[None, :] < s[:, None]).sum(axis=1)
    equal = (s[None, :] == s[:, None]).sum(axis=1)
    rank = below + (equal - 1) / 2
    return (rank / (s.size - 1) - 0.5).reshape(scores.shape)


def group_z(scores: Float[Array, "M 2"], horizons: Int[Array, " M"]) -> Float[Array, "M 2"]:
    r"""Standardised within octaves of the horizon, :math:`(f - \mu) / (\sigma + 10^{-8})`.

    Octave k holds the horizons :math:`2^k \le N < 2^{k+1}`. One of fewer than :data:`OCTAVE`
    candidates gets the pair shaping, and so does one whose scores are too large to be squared.

    Args:
      scores: by pair and partner; a non-finite one stands at the worst finite one of its octave.
      horizons: of the pairs, in updates.

    Returns:
      Weights, ``[M, 2]``.
    """
    octave = 31 - jax.lax.clz(horizons.astype(jnp.int32))
    member = (octave[:, None] == octave[None, :])[:, :, None]
    finite = jnp.isfinite(scores)
    lowest = jnp.min(jnp.where(member & finite, scores, jnp.inf), axis=(1, 2))
    s = jnp.where(finite, scores, jnp.where(jnp.isfinite(lowest), lowest, 0)[:, None])
    count = 2 * member.sum(axis=(1, 2))
    mean = jnp.sum(jnp.where(member, s, 0), axis=(1, 2)) / count
    square = jnp.where(member, jnp.square(s - mean[:, None, None]), 0)
    std = jnp.sqrt(jnp.sum(square, axis=(1, 2)) / count)
    z = (s - mean[:, None]) / (std[:, None] + 1e-8)
    usable = (count >= OCTAVE) & jnp.isfinite(std)
    return jnp.where(usable[:, None], z, pair(scores, horizons))


def coin_flip(key: Key, pairs: int) -> Float[Array, "M 2"]:
    """One partner of each pair, by chance, wins: what a search does that learns nothing.

    Args:
      key: consumed.
      pairs: M.

    Returns:
      Weights, ``[M, 2]``.
    """
    first = jax.random.bernoulli(key, shape=(pairs,)).astype(jnp.float32)
    return jnp.stack([first, 1 - first], axis=1)


SHAPINGS: dict[str, Callable[[Array, Array], Array]] = {
    "pair": pair,
    "centred_rank": centred_rank,
    "group_z": group_z,
}
"""Name -> ``(scores [M, 2], horizons [M]) -> weights [M, 2]``."""


def tied(scores: Float[Array, "M 2"]) -> Float[Array, ""]:
    """Share of pairs that tell nothing."""
    s = worst_if_not_finite(scores)
    return jnp.mean(s[:, 0] == s[:, 1])
