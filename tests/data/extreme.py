"""Chains that no agent should be expected to like: rewards of 1e30, and episodes of no length."""

from typing import Any

from jaxtyping import Array

import envs
from envs.base import Environment


def rich() -> Environment:
    """A goal of 1e30."""
    chain = envs.make("chain")

    def sample_level(key: Array) -> Any:
        return chain.gym.default_params.replace(length=2, goal=1e30, max_steps_in_episode=4)

    return chain._replace(sample_level=sample_level)


def brief() -> Environment:
    """Every step ends its episode."""
    chain = envs.make("chain")

    def sample_level(key: Array) -> Any:
        return chain.gym.default_params.replace(length=0, max_steps_in_episode=1)

    return chain._replace(sample_level=sample_level)
