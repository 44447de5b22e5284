"""The search: one generation, and what a run needs of it.

A generation asks for candidates around the mean, lets each live a whole life on the task of its
pair, turns scores into weights and moves the mean. The host steps it (``runs/run.py``); nothing
here knows disk, time or screens.

Shape legend: ``M`` antithetic pairs, ``L = 2 M`` lives, in the order pair 0 +, pair 0 -, pair 1 +.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from discovery.config import AgentConfig, Config, ConfigError, HorizonConfig, LifeConfig
from discovery.inner.build import make_hyper, make_objective, make_world, static
from discovery.inner.cohort import Candidate, Cohort, Lives, make_cohort
from discovery.inner.lifetime import World
from discovery.outer.evolution import home, make_strategy, strongly_typed
from discovery.outer.scoring import fitness, lived, make_validation, measure, signal
from discovery.outer.shaping import SHAPINGS, tied
from discovery.outer.tasks import paired_lives, sample_tasks
from envs.base import Level
from learned_objectives.base import Key, Objective, Theta


class SearchState(NamedTuple):
    """Everything a search is between two generations: a checkpoint is this."""

    strategy: PyTree
    key: Key
    """Root of every random number; generation g uses ``fold_in(key, g)``."""
    generation: Int[Array, ""]


class Search(NamedTuple):
    """A search as pure functions."""

    init: Callable[[], SearchState]
    """The state at generation 0."""
    step: Callable[[SearchState], tuple[SearchState, dict[str, Array]]]
    """One generation; metrics are scalars."""
    validate: Callable[[SearchState], dict[str, Array]]
    """Score of the mean on fixed held-out tasks."""
    theta: Callable[[SearchState], Theta]
    """What is saved: the mean."""
    objective: Objective
    world: World
    cohort: Cohort
    still: Callable[[Theta], PyTree]
    """A source for the cohort that holds one theta."""
    hyper: Any
    """Numbers of the agents' updates."""
    memory: Callable[[SearchState], int]
    """Bytes that the lives of a generation take on each device; compiles their program."""


def make_search(config: Config) -> Search:
    """The search that a configuration describes.

    Args:
      config: checked with ``config.check``.

    Returns:
      Its functions. Calling them compiles; making them does not. Searches that differ in numbers
      only (rates, sigma, seed, ...) share their programs.

    Raises:
      ConfigError: the parts do not go together, or there is nothing to search over.
    """
    e = config.evolution
    objective: Any = make_objective(config.objective, config.agent)
    like = jax.eval_shape(objective.init, jax.random.key(0))
    if not jax.tree.leaves(like):
        raise ConfigError(f"rule {config.objective.rule} has no parameters to search over")
    strategy = make_strategy(e, like)
    agent, population = static(config.agent), 2 * e.pairs
    world, cohort = _program(
        objective, config.env, agent, config.life, strategy.candidate, e.group, population
    )
    hyper = make_hyper(objective, config.agent, config.objective.clock_gate)
    validation = make_validation(world.env, config.horizon, config.validation_levels, cohort, hyper)
    steps_per_update = config.life.environments * config.life.rollout

    def init() -> SearchState:
        root = root_key(config.seed)
        if e.start == "zero":
            first = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
        else:
            first = jax.jit(objective.init)(jax.random.fold_in(root, _THETA))
        state = SearchState(
            strategy=strategy.init(jax.random.fold_in(root, _STRATEGY), first),
            key=root,
            generation=jnp.zeros((), jnp.int32),
        )
        return jax.device_put(strongly_typed(state), home())

    def step(state: SearchState) -> tuple[SearchState, dict[str, Array]]:
        noise_key, lives, again = draw(
            state, world.env.sample_level, config.horizon, e.pairs, e.shared_stream
        )
        source, asked = strategy.ask(state.strategy, noise_key)
        outcome = lived(cohort, source, hyper, lives, e.fitness)
        scores = fitness(outcome, e.fitness)
        weights, metrics = judge(scores, lives.task.horizon, e.shaping)
        told = strategy.tell(asked, source, weights)

        metrics |= reported(outcome.metrics)
        metrics |= moved(strategy.mean(state.strategy), strategy.mean(told))
        metrics |= strategy.numbers(state.strategy)
        metrics["steps"] = lives.task.horizon.sum() * float(steps_per_update)
        if e.signal_every and int(state.generation) % e.signal_every == 0:
            # The same candidates and tasks with other random numbers: how much of a pair's
            # difference is the candidates', and how much is luck?
            repeat = lived(cohort, source, hyper, again, e.fitness)
            metrics["signal"] = signal(scores, fitness(repeat, e.fitness))
        return SearchState(told, state.key, state.generation + 1), metrics

    def memory(state: SearchState) -> int:
        _, lives, _ = draw(state, world.env.sample_level, config.horizon, e.pairs, e.shared_stream)
        source = strategy.still(theta(state))
        return cohort.memory(source, hyper, lives, measure(e.fitness))

    def theta(state: SearchState) -> Theta:
        return strategy.mean(state.strategy)

    return Search(
        init=init,
        step=step,
        validate=lambda state: validation(strategy.still(theta(state))),
        theta=theta,
        objective=objective,
        world=world,
        cohort=cohort,
        still=strategy.still,
        hyper=hyper,
        memory=memory,
    )


# --- parts of a generation, each one program --------------------------------------------------


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def draw(
    state: SearchState,
    sample_level: Callable[[Key], Level],
    law: HorizonConfig,
    pairs: int,
    shared: bool,
) -> tuple[Key, Lives, Lives]:
    """What is random about a generation.

    Args:
      state: its root key and number.
      sample_level: draws a level.
      law: of the horizons.
      pairs: M.
      shared: partners share every random number of their lives.

    Returns:
      The key of the candidates, and the lives ``[L]`` under each of two random streams.
    """
    key = jax.random.fold_in(state.key, state.generation)
    noise_key, task_key, *streams = jax.random.split(key, 4)
    tasks = sample_tasks(task_key, sample_level, law, pairs)
    first, second = (paired_lives(tasks, stream, shared) for stream in streams)
    return noise_key, first, second


@functools.partial(jax.jit, static_argnames="shaping")
def judge(
    scores: Float[Array, " L"], horizons: Int[Array, " L"], shaping: str
) -> tuple[Float[Array, "M 2"], dict[str, Array]]:
    """Weights of the candidates, and what is told of their scores.

    ``fitness`` is the mean of the finite scores, NaN if there is none; ``nonfinite`` counts the
    others; ``tied`` is the share of pairs that tell nothing.
    """
    by_pair = scores.reshape(-1, 2)
    finite = jnp.isfinite(scores)
    metrics = {
        "fitness": jnp.where(finite, scores, 0).sum() / finite.sum(),
        "nonfinite": jnp.sum(~finite),
        "tied": tied(by_pair),
    }
    return SHAPINGS[shaping](by_pair, horizons.reshape(-1, 2)[:, 0]), metrics


@jax.jit
def reported(metrics: dict[str, Float[Array, " L"]]) -> dict[str, Array]:
    """Mean over the lives of what their updates reported, where that is a number."""
    return {name: jnp.nanmean(values) for name, values in metrics.items()}


@jax.jit
def moved(old: Theta, new: Theta) -> dict[str, Array]:
    """How far the mean went, and how far it is from zero."""
    norm = optax.tree.norm
    return {"update_norm": norm(jax.tree.map(jnp.subtract, new, old)), "theta_norm": norm(new)}


# --- keys and programs ------------------------------------------------------------------------

# Generations are numbered by int32, so these never meet one of them.
_THETA, _STRATEGY = 2**31, 2**31 + 1
"""What is folded into the root key for the first theta and for the strategy's own draws."""


def root_key(seed: int) -> Key:
    """A key of all 64 bits of a seed; ``jax.random.key`` would drop the upper half."""
    halves = jnp.asarray([seed >> 32, seed & 0xFFFFFFFF], jnp.uint32)
    return jax.random.wrap_key_data(halves, impl="threefry2x32")


@functools.lru_cache(maxsize=8)
def _program(
    objective: Objective,
    env: str,
    agent: AgentConfig,
    life: LifeConfig,
    candidate: Candidate,
    group: int,
    capacity: int,
) -> tuple[World, Cohort]:
    """The program of a search's lives: one for all searches of these sizes."""
    world = make_world(objective, env, agent, life)
    return world, make_cohort(world, candidate, group, capacity)


__all__ = ["Search", "SearchState", "make_search"]
