"""Table agents and hand-made experience, for tests of update rules."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from discovery.config import AgentConfig
from discovery.inner.agent import make_network
from envs.base import EnvSpec
from learned_objectives.base import Experience, Learner, Network, Objective, Time

STATES, ACTIONS, T, B = 5, 3, 7, 3


@pytest.fixture(scope="session")
def make_time() -> Callable[..., Time]:
    """``(n, N, unit)``."""

    def make(n: int, N: int, unit: float = 1.0) -> Time:
        return Time(jnp.asarray(n), jnp.asarray(N), jnp.asarray(unit))

    return make


@pytest.fixture(scope="session")
def make_table() -> Callable[..., tuple[Network, dict[str, Any]]]:
    """A table for an objective's heads, its rows random instead of zero."""

    def make(
        objective: Objective, states: int = STATES, seed: int = 0
    ) -> tuple[Network, dict[str, Any]]:
        spec = EnvSpec("cells", (), states, ACTIONS)
        network = make_network(AgentConfig(), objective.heads, spec)
        random = np.random.default_rng(seed)
        params = jax.tree.map(
            lambda leaf: jnp.asarray(random.normal(size=leaf.shape)),
            jax.eval_shape(network.init, jax.random.key(0)),
        )
        return network, params

    return make


@pytest.fixture(scope="session")
def make_learner(make_table: Any) -> Callable[..., tuple[Network, Learner]]:
    """A network and a learner with random rows."""

    def make(objective: Objective, states: int = STATES, seed: int = 0) -> tuple[Network, Learner]:
        network, params = make_table(objective, states, seed)
        return network, objective.birth((), objective.hyper(), network, params)

    return make


@pytest.fixture(scope="session")
def make_experience() -> Callable[..., Experience]:
    """Seven steps in three environments with both kinds of endings, in JAX's default float."""

    def make(seed: int = 0) -> Experience:
        random = np.random.default_rng(seed)
        terminated, truncated = np.zeros((2, T, B), bool)
        # Environment 0 terminates, 1 is cut, 2 does both and ends with the rollout.
        terminated[[2, 1], [0, 2]] = True
        truncated[[3, 4, 6], [1, 2, 2]] = True
        visited = random.integers(0, STATES, (T + 1, B))
        after = np.where(terminated | truncated, random.integers(0, STATES, (T, B)), visited[1:])
        return Experience(
            observation=jnp.asarray(visited[:-1]),
            action=jnp.asarray(random.integers(0, ACTIONS, (T, B))),
            reward=jnp.asarray(random.normal(size=(T, B))),
            terminated=jnp.asarray(terminated),
            truncated=jnp.asarray(truncated),
            next_observation=jnp.asarray(after),
            behaviour={},
        )

    return make
