"""Evolution strategies, two kinds behind one interface.

``paired`` is antithetic OpenES whose noise is drawn from ``(key, pair index)`` where it is used: no
population is ever stored, group sums are added in a fixed order, and the result is bitwise the same
on any number of devices. ``evosax`` is any distribution-based strategy of that library by name, its
whole population on one device. Scores are shaped by us before either sees them.

Shape legend: ``M`` antithetic pairs, ``P = 2 M`` candidates.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, PyTree

from discovery.config import ConfigError, EvolutionConfig, nearest
from discovery.devices import home, put
from discovery.inner.cohort import AXIS, Candidate, population_mesh
from discovery.outer import low_rank
from learned_objectives.base import Key, Theta


class Strategy(NamedTuple):
    """A search distribution over theta. Its candidates are the two partners of each pair."""

    init: Callable[[Key, Theta], Any]
    """``(key, mean) -> state``."""
    ask: Callable[[Any, Key], tuple[PyTree, Any]]
    """``(state, key) -> (source, state)``; a source is what ``candidate`` reads."""
    candidate: Candidate
    """``(source, pair, sign) -> theta``; sign 0 is the mean."""
    tell: Callable[[Any, PyTree, Float[Array, "M 2"]], Any]
    """``(state, source, weights) -> state``; higher weights are better, and all are finite."""
    mean: Callable[[Any], Theta]
    """The mean of the distribution: what is saved."""
    still: Callable[[Theta], PyTree]
    """A source that holds one theta, for evaluations that share the search's program."""
    numbers: Callable[[Any], dict[str, Array]]
    """Scalars of the state to be logged."""
    forget: Callable[[Any, Bool[Array, " M"]], Any] = lambda state, ended: state
    """``(state, pairs whose life ended) -> state``: of what a strategy remembers of lives that go
    on from generation to generation."""


def make_strategy(config: EvolutionConfig, like: Theta, windows: bool = False) -> Strategy:
    """``paired``, or a strategy of evosax by name.

    Args:
      config: ``strategy`` is the name.
      like: shapes and types of theta, as of ``jax.eval_shape``.
      windows: lives go on from generation to generation.

    Returns:
      The strategy.

    Raises:
      ConfigError: nothing has this name; the nearest that exist are told.
    """
    return paired(config) if config.strategy == "paired" else evosax(config, like, windows)


# --- what both kinds use ----------------------------------------------------------------------


def strongly_typed(tree: PyTree) -> PyTree:
    """The same values without weak types, which would cost a second trace."""

    def strong(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return leaf
        return jax.lax.convert_element_type(leaf, jnp.asarray(leaf).dtype)

    return jax.tree.map(strong, tree)


def decayed(start: float, decay: float, floor: float, generation: Array) -> Array:
    r""":math:`\max(s \, d^g, \mathrm{floor})`."""
    return jnp.maximum(start * jnp.power(decay, generation.astype(jnp.float32)), floor)


def sigma_of(config: EvolutionConfig, generation: Array) -> Array:
    """Standard deviation of the perturbations of a generation, from 0."""
    return decayed(config.sigma, config.sigma_decay, config.sigma_floor, generation)


def rate_of(config: EvolutionConfig, generation: Array) -> Array:
    """Learning rate of a generation, from 0."""
    return decayed(config.rate, config.rate_decay, config.rate_floor, generation)


@functools.cache
def outer_adam() -> optax.GradientTransformationExtraArgs:
    """Adam whose numbers are all data of its state."""
    return optax.inject_hyperparams(optax.adam)(learning_rate=0.0)


def fresh_adam(like: Theta, beta1: float, beta2: float, epsilon: float) -> Any:
    """State of :func:`outer_adam` with these numbers."""
    state = outer_adam().init(like)
    chosen = {"b1": beta1, "b2": beta2, "eps": epsilon}
    told = {name: jnp.asarray(value, jnp.float32) for name, value in chosen.items()}
    return state._replace(hyperparams={**state.hyperparams, **told})


def at_rate(adam: Any, rate: Array) -> Any:
    """A state of :func:`outer_adam` with another rate."""
    return adam._replace(hyperparams={**adam.hyperparams, "learning_rate": rate})


# --- paired -----------------------------------------------------------------------------------


class Paired(NamedTuple):
    """State of the paired strategy."""

    mean: Theta
    adam: PyTree
    generation: Int[Array, ""]


class Source(NamedTuple):
    """A generation's candidates, not yet made: mean, scale and root of the noise."""

    mean: Theta
    sigma: Float[Array, ""]
    key: Key


def noise(key: Key, pair: Int[Array, ""], like: Theta, rank: int = 0) -> Theta:
    """Standard normal numbers of one pair, shaped as theta: one draw, cut into its leaves.

    Of a positive rank, matrices are ``low_rank.Factors``.
    """
    leaves, tree = jax.tree.flatten(like)
    sizes = np.cumsum([0, *(low_rank.size(leaf, rank) for leaf in leaves)])
    drawn = jax.random.normal(jax.random.fold_in(key, pair), (int(sizes[-1]),))
    pieces = [
        low_rank.shaped(drawn[start:end], leaf, rank)
        for start, end, leaf in zip(sizes[:-1], sizes[1:], leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, pieces)


def perturbed(source: Source, pair: Int[Array, ""], sign: Float[Array, ""], rank: int = 0) -> Theta:
    r"""Candidate :math:`m \pm \sigma z_j` of a paired generation, or its mean where sign is 0.

    Of a positive rank, its matrices are ``Perturbed``.
    """
    z = noise(source.key, pair, source.mean, rank)
    scale = sign * source.sigma
    return jax.tree.map(lambda m, z: low_rank.moved(m, z, scale), source.mean, z)


@functools.cache
def perturbed_by(rank: int) -> Candidate:
    """:func:`perturbed` of a rank, one function for all searches, which then share programs."""
    return functools.partial(perturbed, rank=rank) if rank else perturbed


@functools.partial(jax.jit, static_argnames=("mesh", "rank"))
def group_sums(
    source: Source, differences: Float[Array, "G J"], mesh: Mesh, rank: int = 0
) -> Theta:
    """Sum of ``(w+ - w-) z`` over the pairs of each group, computed where the group lives.

    Args:
      source: of the noise z.
      differences: of the weights, J pairs in each of G groups.
      mesh: devices over which the groups are split.
      rank: of the noise of matrices; 0 for full noise.

    Returns:
      Leaves ``[G, ...]``.
    """
    pairs = jnp.arange(differences.size, dtype=jnp.int32).reshape(differences.shape)

    def group_sum(group: tuple[Array, Array]) -> Theta:
        pairs, difference = group
        z = jax.vmap(lambda j: noise(source.key, j, source.mean, rank))(pairs)
        return jax.tree.map(lambda _, z: low_rank.weighed(difference, z), source.mean, z)

    split = PartitionSpec(AXIS)
    return jax.shard_map(
        lambda *groups: jax.lax.map(group_sum, groups),
        mesh=mesh,
        in_specs=(split, split),
        out_specs=split,
        check_vma=False,
    )(pairs, differences)


@jax.jit
def climb(state: Paired, sums: Theta, scale: Float[Array, ""], rate: Float[Array, ""]) -> Paired:
    """One step of Adam along ``scale`` times the sum of all groups."""

    def add(total: Theta, part: Theta) -> tuple[Theta, None]:
        return jax.tree.map(jnp.add, total, part), None

    # A reduction would add in an order of its own.
    blank = jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), sums)
    total, _ = jax.lax.scan(add, blank, sums)
    descent = jax.tree.map(lambda x: -scale * x, total)
    step, adam = outer_adam().update(descent, at_rate(state.adam, rate))
    mean = optax.apply_updates(state.mean, step)
    return strongly_typed(Paired(mean, adam, state.generation + 1))


def paired(config: EvolutionConfig) -> Strategy:
    r"""Antithetic OpenES with Adam.

    :math:`\theta_j^\pm = m \pm \sigma z_j`,
    :math:`g = \frac{1}{2 M \sigma} \sum_j (w_j^+ - w_j^-) z_j`, :math:`m \leftarrow m +
    \mathrm{Adam}(g)`.

    With ``rank``, z is of low rank where theta is a matrix (``low_rank.py``).

    A pair whose weights are equal adds nothing to g; if all are, the mean moves by the momentum of
    earlier generations alone. Every number is data: strategies of one shape share their programs.

    Args:
      config: every number of it.

    Returns:
      The strategy.

    Source: Salimans et al. 2017; its mean equals that of evosax's ``Open_ES`` given the same noise
    and weights (a test says so).
    """
    groups = 2 * config.pairs // config.group
    mesh = population_mesh(groups)

    def init(key: Key, mean: Theta) -> Paired:
        state = Paired(
            mean,
            fresh_adam(mean, config.beta1, config.beta2, config.epsilon),
            jnp.zeros((), jnp.int32),
        )
        return put(strongly_typed(state), home())

    def ask(state: Paired, key: Key) -> tuple[Source, Paired]:
        return Source(state.mean, sigma_of(config, state.generation), key), state

    def tell(state: Paired, source: Source, weights: Float[Array, "M 2"]) -> Paired:
        differences = (weights[:, 0] - weights[:, 1]).reshape(groups, -1)
        everywhere = NamedSharding(mesh, PartitionSpec())
        sums = group_sums(*put((source, differences), everywhere), mesh, config.rank)
        # A program for several devices is simplified otherwise than one for a single device, and
        # rounds otherwise: the rest is done on one, however many there are.
        scale = 1 / (2 * config.pairs * source.sigma)
        return climb(state, put(sums, home()), scale, rate_of(config, state.generation))

    def mean(state: Paired) -> Theta:
        return state.mean

    def still(theta: Theta) -> Source:
        return Source(theta, jnp.zeros(()), jax.random.key(0))

    def numbers(state: Paired) -> dict[str, Array]:
        generation = state.generation
        return {"sigma": sigma_of(config, generation), "rate": rate_of(config, generation)}

    return Strategy(init, ask, perturbed_by(config.rank), tell, mean, still, numbers)


# --- evosax -----------------------------------------------------------------------------------


class Whole(NamedTuple):
    """A population of evosax, stored: candidates ``[P, ...]`` and the mean."""

    population: Theta
    mean: Theta


class Evosax(NamedTuple):
    """State of a strategy of evosax."""

    state: Any
    generation: Int[Array, ""]
    key: Key


def stored(source: Whole, pair: Int[Array, ""], sign: Float[Array, ""]) -> Theta:
    """Candidate j or j + M of a stored population, or its mean where sign is 0.

    This is how evosax lays out the antithetic halves of the strategies that have them.
    """

    def pick(all_: Array, mean: Array) -> Array:
        index = jnp.where(sign < 0, pair + all_.shape[0] // 2, pair)
        return jnp.where(sign == 0, mean, all_[index])

    return jax.tree.map(pick, source.population, source.mean)


def shared_weights(population: Any, cost: Float[Array, " P"], state: Any, params: Any) -> Array:
    """Recombination weights by rank, lowest cost first, where a tie shares those of its ranks.

    The signature is that of evosax's fitness shapings.
    """
    below = (cost[None, :] < cost[:, None]).sum(axis=1)
    equal = (cost[None, :] == cost[:, None]).sum(axis=1)
    sums = jnp.concatenate([jnp.zeros(1), jnp.cumsum(params.weights)])
    return jnp.where(equal == 1, params.weights[below], (sums[below + equal] - sums[below]) / equal)


def evosax(config: EvolutionConfig, like: Theta, windows: bool = False) -> Strategy:
    """Any distribution-based strategy of evosax, by its name there.

    Costs are minus our weights, centred, so that equal weights tell nothing to a strategy without
    antithetic pairs either. A strategy that is defined on recombination weights keeps its own,
    by rank of our weights (``centred_rank`` ranks the whole population, ``pair`` only halves it);
    a generation in which all tie leaves it as it is. The others get the costs as they are. Nothing
    is remembered of the best candidates of earlier generations: their tasks were others.

    Args:
      config: sigma and its decay are set each generation where the strategy takes a schedule, and
        sigma is where the others begin; rate, decay and betas where it takes an optimiser, then
        Adam.
      like: shapes and types of theta.
      windows: lives go on from generation to generation. ``PersistentES`` then keeps what it has
        accumulated for a pair until it is told to forget it.

    Returns:
      The strategy.

    Raises:
      ConfigError: evosax has no such distribution-based strategy, or it counts windows by itself.

    Source: Lange 2022 (evosax).
    """
    cls = _evosax_class(config.strategy)
    from evosax.core.fitness_shaping import (
        identity_fitness_shaping_fn,
        weights_fitness_shaping_fn,
    )

    accepted = inspect.signature(cls).parameters
    recombines = accepted["fitness_shaping_fn"].default is weights_fitness_shaping_fn
    options: dict[str, Any] = {
        "fitness_shaping_fn": shared_weights if recombines else identity_fitness_shaping_fn
    }
    if "optimizer" in accepted:
        options["optimizer"] = outer_adam()
    if "std_schedule" in accepted:
        options["std_schedule"] = optax.constant_schedule(config.sigma)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    algorithm = cls(population_size=2 * config.pairs, solution=zeros, **options)
    params = algorithm.default_params
    if hasattr(params, "std_init"):
        params = params.replace(std_init=config.sigma)
    blank = jax.eval_shape(lambda: algorithm.init(jax.random.key(0), zeros, params))
    accumulates = hasattr(blank, "pert_accum")
    if {"T", "K"} <= vars(params).keys():
        if windows and not accumulates:
            raise ConfigError(
                f"{config.strategy} counts windows of lives of one length: use PersistentES"
            )
        # Its own counter would end all lives at once: what accumulates is told which end.
        params = params.replace(T=1, K=0 if accumulates else 1)

    def init(key: Key, mean: Theta) -> Evosax:
        init_key, key = jax.random.split(key)
        inner = algorithm.init(init_key, mean, params)
        if "optimizer" in accepted:
            inner = inner.replace(
                opt_state=fresh_adam(inner.mean, config.beta1, config.beta2, config.epsilon)
            )
        state = Evosax(inner, jnp.zeros((), jnp.int32), key)
        return put(strongly_typed(state), home())

    @jax.jit
    def ask(state: Evosax, key: Key) -> tuple[Whole, Evosax]:
        inner = state.state
        if "std_schedule" in accepted:
            # Set here, since evosax's own schedule is a generation late.
            sigma = sigma_of(config, state.generation)
            inner = inner.replace(std=jnp.full_like(inner.std, sigma))
        population, inner = algorithm.ask(key, inner, params)
        whole = Whole(population, algorithm.get_mean(inner))
        return whole, strongly_typed(state._replace(state=inner))

    @jax.jit
    def tell(state: Evosax, source: Whole, weights: Float[Array, "M 2"]) -> Evosax:
        inner = _forgetful(state.state)
        if "optimizer" in accepted:
            inner = inner.replace(
                opt_state=at_rate(inner.opt_state, rate_of(config, state.generation))
            )
        tell_key, key = jax.random.split(state.key)
        cost = weights.mean() - jnp.concatenate([weights[:, 0], weights[:, 1]])
        told, _ = algorithm.tell(tell_key, source.population, cost, inner, params)
        if recombines:
            # Weights of recombination do not sum to zero: a tie of all would be a random step.
            some = jnp.ptp(weights) > 0
            told = jax.tree.map(lambda new, old: jnp.where(some, new, old), told, inner)
        return strongly_typed(Evosax(told, state.generation + 1, key))

    @jax.jit
    def mean(state: Evosax) -> Theta:
        return algorithm.get_mean(state.state)

    def still(theta: Theta) -> Whole:
        shape = (2 * config.pairs,)
        population = jax.tree.map(lambda x: jnp.broadcast_to(x, (*shape, *x.shape)), theta)
        return Whole(population, theta)

    def numbers(state: Evosax) -> dict[str, Array]:
        told = {}
        if "std_schedule" in accepted:
            told["sigma"] = sigma_of(config, state.generation)
        elif hasattr(state.state, "std"):
            told["sigma"] = jnp.mean(state.state.std)
        if "optimizer" in accepted:
            told["rate"] = rate_of(config, state.generation)
        return told

    @jax.jit
    def forget(state: Evosax, ended: Bool[Array, " M"]) -> Evosax:
        if not accumulates:
            return state
        inner, rows = state.state, jnp.concatenate([ended, ended])
        kept = jnp.where(rows[:, None], 0, inner.pert_accum)
        return state._replace(state=inner.replace(pert_accum=kept))

    return Strategy(init, ask, stored, tell, mean, still, numbers, forget)


def _evosax_class(name: str) -> Any:
    """A distribution-based strategy of evosax that a size and a solution are enough to make."""
    from evosax import algorithms  # starts the backend
    from evosax.algorithms.distribution_based.base import DistributionBasedAlgorithm

    def enough(cls: type) -> bool:
        parameters = inspect.signature(cls).parameters.values()
        needed = {p.name for p in parameters if p.default is p.empty}
        return needed == {"population_size", "solution"}

    known = {
        name: cls
        for name, cls in vars(algorithms).items()
        if isinstance(cls, type) and issubclass(cls, DistributionBasedAlgorithm) and enough(cls)
    }
    if name not in known:
        raise ConfigError(nearest(name, ["paired", *known], "strategy"))
    return known[name]


def _forgetful(inner: Any) -> Any:
    """A state of evosax without the fitness of the best candidates so far."""
    archives = {"best_fitness", "best_fitness_shaped"} & set(vars(inner))
    return inner.replace(
        **{name: jnp.full_like(getattr(inner, name), jnp.inf) for name in archives}
    )
