"""Levels that several tests look at, drawn once."""

from collections.abc import Callable
from functools import cache

import jax
import pytest

import envs


@pytest.fixture(scope="session")
def sampled() -> Callable:
    """``name -> 64 levels`` of that family, as NumPy arrays."""

    @cache
    def draw(name):
        keys = jax.random.split(jax.random.key(7), 64)
        return jax.device_get(jax.jit(jax.vmap(envs.make(name).sample_level))(keys))

    return draw
