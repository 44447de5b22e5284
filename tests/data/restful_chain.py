"""Chains on which only the pay of a rest counts: an agent earns by resting or by going forward."""

from typing import Any

import jax
from jaxtyping import Array

import envs
from envs.base import Environment


def make() -> Environment:
    """Four steps to a goal of 0, rests that pay from -1 to 1, 10 steps an episode."""
    chain = envs.make("chain")

    def sample_level(key: Array) -> Any:
        rest = jax.random.uniform(key, minval=-1.0)
        return chain.gym.default_params.replace(length=4, goal=0.0, rest=rest)

    return chain._replace(sample_level=sample_level)
