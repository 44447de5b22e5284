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
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from discovery.config import AgentConfig, Config, ConfigError, HorizonConfig, LifeConfig
from discovery.devices import home, put
from discovery.inner.build import make_hyper, make_objective, make_world, static
from discovery.inner.cohort import Candidate, Cohort, make_cohort
from discovery.inner.lifetime import POINTS, Task, World
from discovery.outer.evolution import make_strategy, strongly_typed
from discovery.outer.grouping import grouped
from discovery.outer.low_rank import check_products, factored
from discovery.outer.scoring import fitness, lived, make_validation, measure, signal
from discovery.outer.shaping import SHAPINGS, coin_flip, tied
from discovery.outer.tasks import paired_lives, sample_tasks
from discovery.outer.teaching import known_returns, make_teacher
from envs.base import Environment, Level
from learned_objectives.base import Key, Objective, Theta


class SearchState(NamedTuple):
    """Everything a search is between two generations: a checkpoint is this."""

    strategy: PyTree
    key: Key
    """Root of every random number; generation g uses ``fold_in(key, g)``."""
    generation: Int[Array, ""]
    agents: PyTree = ()
    """Agents that live on (``outer/persistent.py``), where the estimator has such."""
    curriculum: PyTree = ()
    """Which tasks were how hard (``outer/curriculum.py``), where there is one."""


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
    columns: Callable[[SearchState], dict[str, np.ndarray]]
    """What a curriculum remembers, as columns of a table; ``{}`` if there is none."""


def make_search(config: Config) -> Search:
    """The search that a configuration describes.

    Args:
      config: checked with ``config.check``.

    Returns:
      Its functions. Calling them compiles; making them does not. Searches that differ in numbers
      only (rates, sigma, seed, ...) share their programs. Where the lives of a group are left open
      they are those of :func:`discovery.outer.grouping.grouped`.

    Raises:
      ConfigError: the parts do not go together, or there is nothing to search over.
    """
    config = grouped(config)
    if config.estimator != "evolution":
        from discovery.outer.meta_gradient import make_gradient_search
        from discovery.outer.windows import make_window_search

        return (make_gradient_search if config.estimator == "gradient" else make_window_search)(
            config
        )
    from discovery.outer.several import kinds, make_several_search

    if len(kinds(config)) > 1:
        return make_several_search(config)
    e = config.evolution
    objective: Any = make_objective(config.objective, config.agent)
    like = shapes(objective, config)
    strategy = make_strategy(e, like)
    agent, capacity = static(config.agent), 2 * e.pairs
    world, cohort = program(
        objective, config.env, agent, config.life, strategy.candidate, e.group, capacity
    )
    hyper = make_hyper(objective, config.agent, config.objective.clock_gate)
    check_products(config, world, strategy, like, hyper)
    validation = make_validation(world.env, config.horizon, config.validation_levels, cohort, hyper)
    teacher = make_teacher(config, known_returns)

    def init() -> SearchState:
        state = SearchState(
            strategy=strategy.init(*beginning(objective, config)),
            key=root_key(config.seed),
            generation=jnp.zeros((), jnp.int32),
            curriculum=teacher.begin(example_task(world.env), jnp.zeros(())),
        )
        return put(strongly_typed(state), home())

    def step(state: SearchState) -> tuple[SearchState, dict[str, Array]]:
        noise_key, teach_key, fresh, streams = draw(
            state.key,
            state.generation,
            world.env.sample_level,
            config.horizon,
            e.pairs,
            e.shared_task,
        )
        task_key, judge_key, end_key = jax.random.split(teach_key, 3)
        everyone = jnp.ones(e.pairs, bool)
        curriculum, tasks, slots, taught = teacher.assign(
            state.curriculum, task_key, everyone, fresh, jnp.zeros(e.pairs, jnp.int32)
        )
        if curriculum:
            tasks, slots = by_horizon(tasks, slots)
        lives = paired_lives(tasks, streams[0], e.shared_stream)
        source, asked = strategy.ask(state.strategy, noise_key)
        outcome = lived(cohort, source, hyper, lives, e.fitness)
        scores = fitness(outcome, e.fitness)
        weights, metrics = judge(scores, lives.task.horizon, e.shaping, judge_key)
        # Every life of a generation ends with it.
        told = strategy.forget(strategy.tell(asked, source, weights), everyone)

        metrics |= reported(outcome.metrics)
        metrics |= moved(strategy.mean(state.strategy), strategy.mean(told))
        metrics |= strategy.numbers(state.strategy)
        metrics |= spent(config, world, lives.task) | taught
        if e.signal_every and int(state.generation) % e.signal_every == 0:
            # The same candidates and tasks with other random numbers: how much of a pair's
            # difference is the candidates', and how much is luck?
            again = paired_lives(tasks, streams[1], e.shared_stream)
            repeat = lived(cohort, source, hyper, again, e.fitness)
            metrics["signal"] = signal(scores, fitness(repeat, e.fitness))
        if curriculum:
            returns = of_pairs(fitness(outcome, "final"))
            of_lives = (everyone, everyone, slots, returns)
            curriculum, learned = teacher.finish(curriculum, end_key, *of_lives)
            metrics |= learned
        after = SearchState(told, state.key, state.generation + 1, (), curriculum)
        return after, metrics

    def memory(state: SearchState) -> int:
        _, _, tasks, streams = draw(
            state.key,
            state.generation,
            world.env.sample_level,
            config.horizon,
            e.pairs,
            e.shared_task,
        )
        lives = paired_lives(tasks, streams[0], e.shared_stream)
        return cohort.memory(strategy.still(theta(state)), hyper, lives, measure(e.fitness))

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
        columns=lambda state: teacher.columns(state.curriculum),
    )


# --- what every estimator begins with ---------------------------------------------------------


def shapes(objective: Objective, config: Config) -> Theta:
    """Shapes and types of theta.

    Raises:
      ConfigError: the rule has nothing to search over, or nothing of which the rank is low.
    """
    like = jax.eval_shape(objective.init, jax.random.key(0))
    leaves, rank = jax.tree.leaves(like), config.evolution.rank
    if not leaves:
        raise ConfigError(f"rule {config.objective.rule} has no parameters to search over")
    if rank and not any(factored(leaf, rank) for leaf in leaves):
        raise ConfigError(
            f"{config.objective.rule} has no matrix large enough for rank {rank}: give --rank 0"
        )
    return like


def beginning(objective: Objective, config: Config) -> tuple[Key, Theta]:
    """The key of a strategy's own draws, and theta at generation 0: the same for each estimator."""
    root = root_key(config.seed)
    if config.estimator != "gradient" and config.evolution.start == "zero":
        like = shapes(objective, config)
        first = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    else:
        first = fresh_theta(objective, jax.random.fold_in(root, _THETA))
    return jax.random.fold_in(root, _STRATEGY), first


@functools.partial(jax.jit, static_argnums=0)
def fresh_theta(objective: Objective, key: Key) -> Theta:
    """The network's own initialisation."""
    return objective.init(key)


def example_task(env: Environment) -> Task:
    """A task, for its shapes."""
    return Task(jax.jit(env.sample_level)(jax.random.key(0)), jnp.ones((), jnp.int32))


# --- parts of a generation, each one program --------------------------------------------------


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def draw(
    root: Key,
    generation: Int[Array, ""],
    sample_level: Callable[[Key], Level],
    law: HorizonConfig,
    pairs: int,
    shared: bool = False,
) -> tuple[Key, Key, Task, Array]:
    """What is random about a generation.

    Args:
      root: key of the search.
      generation: its number.
      sample_level: draws a level.
      law: of the horizons.
      pairs: M.
      shared: all pairs have one task.

    Returns:
      Keys of the candidates and of the curriculum, tasks ``[M]``, and two streams for their lives.
    """
    key = jax.random.fold_in(root, generation)
    noise_key, task_key, *streams = jax.random.split(key, 4)
    tasks = sample_tasks(task_key, sample_level, law, pairs, shared)
    return noise_key, jax.random.fold_in(key, _TEACH), tasks, jnp.stack(streams)


@jax.jit
def by_horizon(tasks: Task, slots: Int[Array, " M"]) -> tuple[Task, Int[Array, " M"]]:
    """Tasks in rising order of horizon: they are moved, so that candidates are not."""
    order = jnp.argsort(tasks.horizon)
    return jax.tree.map(lambda leaf: leaf[order], (tasks, slots))


@jax.jit
def of_pairs(scores: Float[Array, " L"]) -> Float[Array, " M"]:
    """Mean of the finite scores of each pair; NaN if there is none."""
    return jnp.nanmean(scores.reshape(-1, 2), axis=1)


def spent(config: Config, world: World, tasks: Task) -> dict[str, Array]:
    """Environment steps of whole lives: of training, and of evaluation at its step limit."""
    points = POINTS + 1 if config.evolution.fitness == "area" else 1
    batch = config.life.environments * config.life.rollout
    return {
        "steps": tasks.horizon.sum() * float(batch),
        "evaluation_steps": points * evaluation_steps(world, tasks).sum(),
    }


def evaluation_steps(world: World, tasks: Task) -> Float[Array, " L"]:
    """Most environment steps of scoring an agent once on each task."""
    return jax.vmap(world.env.step_limit)(tasks.level) * float(world.episodes)


@functools.partial(jax.jit, static_argnames="shaping")
def judge(
    scores: Float[Array, " L"], horizons: Int[Array, " L"], shaping: str, key: Key
) -> tuple[Float[Array, "M 2"], dict[str, Array]]:
    """Weights of the candidates, and what is told of their scores.

    ``fitness`` is the mean of the finite scores, NaN if there is none; ``nonfinite`` counts the
    others; ``tied`` is the share of pairs that tell nothing. The key is for coins alone.
    """
    by_pair = scores.reshape(-1, 2)
    finite = jnp.isfinite(scores)
    metrics = {
        "fitness": jnp.where(finite, scores, 0).sum() / finite.sum(),
        "nonfinite": jnp.sum(~finite),
        "tied": tied(by_pair),
    }
    if shaping == "coin_flip":
        return coin_flip(key, by_pair.shape[0]), metrics
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
_TEACH = 4
"""What is folded into a generation's key for its curriculum, beside its four parts."""


def root_key(seed: int) -> Key:
    """A key of all 64 bits of a seed; ``jax.random.key`` would drop the upper half."""
    halves = jnp.asarray([seed >> 32, seed & 0xFFFFFFFF], jnp.uint32)
    return jax.random.wrap_key_data(halves, impl="threefry2x32")


@functools.lru_cache(maxsize=8)
def program(
    objective: Objective,
    env: str,
    agent: AgentConfig,
    life: LifeConfig,
    candidate: Candidate,
    group: int,
    capacity: int,
    abreast: int = 0,
) -> tuple[World, Cohort]:
    """The program of a search's lives: one for all searches of these sizes."""
    world = make_world(objective, env, agent, life)
    return world, make_cohort(world, candidate, group, capacity, abreast)


__all__ = ["Search", "SearchState", "make_search"]
