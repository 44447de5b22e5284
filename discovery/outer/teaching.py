"""Who decides on which task the next agent is born: chance alone, or a curriculum.

The same three functions for every estimator, so that a search says where lives begin and end and
nothing more. What a curriculum remembers is part of the search's state (``curriculum.py``).

Shape legend: ``A`` tasks lived on at once: agents that live on, or pairs of candidates.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from discovery.config import Config, LifeConfig, tasks
from discovery.inner.build import make_environment
from discovery.inner.lifetime import Life, Task, World, is_finite
from discovery.inner.rollout import episode_return
from discovery.outer import curriculum
from envs.base import Environment
from learned_objectives.base import Key

Returns = Callable[[Key, Task, PyTree], Float[Array, " V"]]
"""``(key, tasks [V], results [V, ...]) -> returns [V]`` of ended agents on their tasks."""


Player: TypeAlias = tuple[PyTree, PyTree]
"""Parameters of an agent and the statistics by which it scales what it sees, ``()`` if none."""


class Teacher(NamedTuple):
    """Where lives begin and what is learned from their ends."""

    begin: Callable[[Task, PyTree], PyTree]
    """``(example task, example result) -> state``, ``()`` if nothing is remembered."""
    assign: Callable[..., tuple[PyTree, Task, Int[Array, " A"], dict[str, Array]]]
    """``(state, key, born [A], fresh [A], slots [A]) -> (state, tasks [A], slots [A], numbers)``;
    tasks are those of the newborn."""
    finish: Callable[..., tuple[PyTree, dict[str, Array]]]
    """``(state, key, ended [A], counted [A], slots [A], results [A, ...]) -> (state, numbers)``. It
    may wait for the device: regrets are found when enough lives have ended."""
    columns: Callable[[PyTree], dict[str, np.ndarray]]
    """What is remembered, as columns of a table on the host; ``{}`` if nothing is."""


def make_teacher(config: Config, returns: Returns) -> Teacher:
    """The teacher of a configuration.

    Args:
      config: its ``curriculum`` and, for the antagonists, the sizes of its lives.
      returns: what the results of ended lives say of their agents.

    Returns:
      Its functions.

    Raises:
      ConfigError: A2C cannot live in this environment.
    """
    return by_chance() if config.curriculum.curriculum == "none" else groove(config, returns)


def by_chance() -> Teacher:
    """Every newborn agent gets a fresh task; nothing is remembered."""

    def assign(
        state: PyTree, key: Key, born: Bool[Array, " A"], fresh: Task, slots: Int[Array, " A"]
    ) -> tuple[PyTree, Task, Int[Array, " A"], dict[str, Array]]:
        return state, fresh, slots, {}

    return Teacher(
        lambda task, result: (), assign, lambda state, *lives: (state, {}), lambda state: {}
    )


def groove(config: Config, returns: Returns) -> Teacher:
    """Tasks are replayed on which A2C was ahead of the objective.

    Source: Jackson et al. 2023 (GROOVE).
    """
    chosen, count = config.curriculum, tasks(config)
    numbers, batch = curriculum.numbers(chosen), chosen.antagonists
    antagonists, environment = curriculum.make_antagonists(config), make_environment(config.env)

    def begin(task: Task, result: PyTree) -> PyTree:
        return curriculum.empty(task, result, chosen, count)

    def assign(
        state: PyTree, key: Key, born: Bool[Array, " A"], fresh: Task, slots: Int[Array, " A"]
    ) -> tuple[PyTree, Task, Int[Array, " A"], dict[str, Array]]:
        state, given, slots, replayed = curriculum.assign(
            state, key, born, fresh, slots, numbers, chosen.sampling
        )
        told = curriculum.metrics(state, slots, born, replayed, numbers, chosen.sampling)
        return state, given, slots, told

    def finish(
        state: PyTree,
        key: Key,
        ended: Bool[Array, " A"],
        counted: Bool[Array, " A"],
        slots: Int[Array, " A"],
        results: PyTree,
    ) -> tuple[PyTree, dict[str, Array]]:
        state = curriculum.finish(state, ended, counted, slots, results)
        turn, spent = 0, jnp.zeros(())
        while bool(curriculum.ready(state, batch)):
            first, second = jax.random.split(jax.random.fold_in(key, turn))
            waiting, told = curriculum.front(state, batch)
            regret = antagonists(first, waiting, returns(second, waiting, told))
            state = curriculum.score(state, regret)
            spent += rival_steps(environment, config.life, waiting)
            turn += 1
        return state, {"rival_steps": spent}

    def columns(state: PyTree) -> dict[str, np.ndarray]:
        return curriculum.snapshot(state, numbers, chosen.sampling)

    return Teacher(begin, assign, finish, columns)


def rival_steps(env: Environment, life: LifeConfig, tasks: Task) -> Float[Array, ""]:
    """Environment steps of lives of A2C: of training, and of scoring at its step limit."""
    limits = jax.vmap(env.step_limit)(tasks.level) * life.evaluation_environments
    training = tasks.horizon * (life.environments * life.rollout)
    return jnp.sum(limits.astype(jnp.float32) + training)


def known_returns(key: Key, tasks: Task, results: Float[Array, " V"]) -> Float[Array, " V"]:
    """Returns that were known when the lives ended."""
    return results


def player(life: Life) -> Player:
    """What is kept of an agent until it is scored: what it acts with."""
    return life.learner.params, life.scaling


@functools.lru_cache(maxsize=8)
def scored_agents(world: World) -> Returns:
    """Returns of agents that were kept as players: by sampled actions, in fresh episodes.

    Args:
      world: where they lived.

    Returns:
      The function, one for all searches of this world; it consumes its key.
    """

    def one(key: Key, task: Task, kept: Player) -> Array:
        params, scaling = kept
        greedy = jnp.zeros((), bool)
        value = episode_return(
            world.env, world.network, params, task.level, key, world.episodes, greedy, scaling
        )
        # An agent that is not finite still acts, and has a return.
        return jnp.where(is_finite(params), value, jnp.nan)

    @jax.jit
    def returns(key: Key, tasks: Task, results: Any) -> Float[Array, " V"]:
        keys = jax.random.split(key, tasks.horizon.shape[0])
        return jax.vmap(one)(keys, tasks, results)

    return returns
