"""Tasks of a search: a level and a horizon, shared by the two partners of a pair.

Shape legend: ``M`` antithetic pairs; ``L = 2 M`` lives in the order pair 0 +, pair 0 -, pair 1 +.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from discovery.config import HorizonConfig
from discovery.inner.cohort import Lives
from discovery.inner.lifetime import Task
from envs.base import Key, Level


def sample_horizons(
    key: Key, law: HorizonConfig, count: int, ordered: bool = True
) -> Int[Array, " M"]:
    r"""Horizons, :math:`N = \mathrm{round}(\exp U(\ln a, \ln b))`.

    Pairs are given sorted ones, so that candidates of similar horizon stand together and are never
    moved.

    Args:
      key: consumed.
      law: shortest ``a`` and longest ``b``, in updates.
      count: M.
      ordered: in rising order.

    Returns:
      ``[M]`` int32.
    """
    low, high = np.log(law.shortest), np.log(law.longest)
    drawn = jnp.exp(jax.random.uniform(key, (count,), minval=low, maxval=high))
    # The exponential of a logarithm may miss an end of the interval by a rounding.
    horizons = jnp.clip(jnp.round(drawn), law.shortest, law.longest).astype(jnp.int32)
    return jnp.sort(horizons) if ordered else horizons


def spread_horizons(law: HorizonConfig, count: int) -> Int[Array, " V"]:
    """Horizons at the quantiles (i + 1/2) / V of the same law, in rising order."""
    quantile = (np.arange(count) + 0.5) / count
    low, high = np.log(law.shortest), np.log(law.longest)
    return jnp.asarray(np.round(np.exp(low + (high - low) * quantile)), jnp.int32)


def sample_tasks(
    key: Key,
    sample_level: Callable[[Key], Level],
    law: HorizonConfig,
    pairs: int,
    shared: bool = False,
) -> Task:
    """Fresh levels at sorted horizons, or one level at one horizon for all.

    The level of pair j is a function of (key, j) alone, whatever the number of pairs. Its horizon
    is not: it is the j-th smallest of all.

    Args:
      key: consumed.
      sample_level: draws one level.
      law: of the horizons.
      pairs: M.
      shared: all pairs have the task that one pair alone would have.

    Returns:
      Tasks, leaves ``[M, ...]``.
    """
    if shared:
        one = sample_tasks(key, sample_level, law, 1)
        return jax.tree.map(lambda leaf: jnp.repeat(leaf, pairs, axis=0), one)
    level_key, horizon_key = jax.random.split(key)
    keys = jax.vmap(lambda pair: jax.random.fold_in(level_key, pair))(jnp.arange(pairs))
    return Task(jax.vmap(sample_level)(keys), sample_horizons(horizon_key, law, pairs))


@functools.partial(jax.jit, static_argnames="shared")
def paired_lives(tasks: Task, stream: Key, shared: bool) -> Lives:
    """Two lives for every task, one on each side of the mean.

    Args:
      tasks: leaves ``[M, ...]``, sorted by horizon.
      stream: root of the lives' randomness.
      shared: partners share every random number: initialisation, resets, actions, transitions and
        evaluation.

    Returns:
      ``[2 M]`` lives.
    """
    pairs = tasks.horizon.shape[0]
    pair = jnp.repeat(jnp.arange(pairs, dtype=jnp.int32), 2)
    number = pair if shared else jnp.arange(2 * pairs, dtype=jnp.int32)
    return Lives(
        id=pair,
        sign=jnp.tile(jnp.asarray([1.0, -1.0], jnp.float32), pairs),
        task=jax.tree.map(lambda leaf: jnp.repeat(leaf, 2, axis=0), tasks),
        key=jax.vmap(lambda i: jax.random.fold_in(stream, i))(number),
    )
