"""A search that costs nothing, in the shape of the real one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import pytest

from discovery.config import Config, preset
from learned_objectives.library import make_rule


class State(NamedTuple):
    theta: Any
    optimizer: Any
    key: Any
    generation: Any


class Search(NamedTuple):
    init: Callable[[], State]
    step: Callable[[State], tuple[State, dict[str, Any]]]
    validate: Callable[[State], dict[str, Any]]
    theta: Callable[[State], Any]
    objective: Any


OBJECTIVE = make_rule("lpg", width=4, predictions=2, embedding=2)
OPTIMIZER = optax.adam(0.1)


@jax.jit
def _init(seed: int) -> State:
    key = jax.random.key(seed)
    shapes = jax.eval_shape(OBJECTIVE.init, key)
    theta = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1, leaf.dtype), shapes)
    return State(theta, OPTIMIZER.init(theta), key, jnp.zeros((), jnp.int32))


@jax.jit
def _step(state: State) -> tuple[State, dict[str, Any]]:
    noise = jax.random.normal(jax.random.fold_in(state.key, state.generation))
    pull = jax.tree.map(lambda x: x + noise, state.theta)
    change, optimizer = OPTIMIZER.update(pull, state.optimizer)
    metrics = {
        "fitness": noise,
        "nonfinite": state.generation % 2,
        "steps": jnp.float32(100),
        "sigma": 0.5 ** state.generation.astype(jnp.float32),
    }
    theta = optax.apply_updates(state.theta, change)
    return State(theta, optimizer, state.key, state.generation + 1), metrics


@jax.jit
def _validate(state: State) -> dict[str, Any]:
    return {"validation": sum(jnp.sum(leaf) for leaf in jax.tree.leaves(state.theta))}


def make_search(config: Config) -> Search:
    return Search(
        init=lambda: _init(config.seed),
        step=_step,
        validate=_validate,
        theta=lambda state: state.theta,
        objective=OBJECTIVE,
    )


@pytest.fixture(scope="session")
def make() -> Callable[[Config], Search]:
    return make_search


@pytest.fixture(scope="session")
def config() -> Config:
    """Ten generations, a line every third and a checkpoint every sixth."""
    return replace(preset("smoke"), generations=10, log_every=3, checkpoint_every=6)
