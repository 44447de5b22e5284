"""GROOVE: learn on tasks where a hand-written rival does better than the objective.

A task enters a buffer when an agent is born on it. It is *active* while an agent lives on it, and
until the regret of that life is known: regrets are found for many ended lives at once, so these
wait in a queue. A task that has a regret and is not active can be *replayed* by a newborn agent.
Nothing here depends on who lives: pairs of candidates whose lives all end together, or agents some
of whose lives end in each step.

Shape legend: ``S`` tasks remembered, ``A`` tasks lived on at once, ``Q`` places of the queue, ``V``
lives whose regret is found at once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from discovery.config import AgentConfig, Config, CurriculumConfig, LifeConfig, population
from discovery.inner.build import make_hyper, make_world, static
from discovery.inner.cohort import Cohort, Lives, largest_divisor, make_cohort
from discovery.inner.lifetime import Task
from discovery.outer.scoring import fitness, lived
from learned_objectives.base import Key
from learned_objectives.handwritten import A2C

Sampling: TypeAlias = Literal["rank", "proportional"]
"""What the chance of being replayed falls with: the rank of a regret, or the regret itself."""

QUANTILES = {"regret_low": 0.1, "regret_median": 0.5, "regret_high": 0.9}
"""Quantiles of the regrets that :func:`metrics` tells, by name."""


class Buffer(NamedTuple):
    """Tasks remembered; an entry that is not ``filled`` holds none."""

    level: PyTree
    """Leaves ``[S, ...]``."""
    horizon: Int[Array, " S"]
    """In updates."""
    score: Float[Array, " S"]
    """Regret of the last life on it, in units of return; 0 where there is none."""
    scored: Bool[Array, " S"]
    """It has a regret."""
    filled: Bool[Array, " S"]
    active: Bool[Array, " S"]
    """An agent lives on it, or its ended life waits for its regret: it cannot be replaced."""
    id: Int[Array, " S"]
    """Running number of the task since the search began; -1 where there is none."""
    next_id: Int[Array, ""]


class Queue(NamedTuple):
    """Ended lives that wait for their regret, first come first; places from ``length`` on
    are free."""

    slot: Int[Array, " Q"]
    """Entry of the buffer."""
    result: PyTree
    """What tells the return of the ended agent, leaves ``[Q, ...]``."""
    length: Int[Array, ""]


class Curriculum(NamedTuple):
    """What a search remembers of its tasks: part of its checkpoints."""

    buffer: Buffer
    queue: Queue
    nonfinite: Int[Array, ""]
    """Regrets that were no finite number, since the search began."""


class Numbers(NamedTuple):
    """How tasks are replayed; traced."""

    replay: Any = 0.5
    """Probability that a newborn agent's task is replayed."""
    temperature: Any = 1.0
    """T, above 0; lower: more of the replay goes to the tasks of highest regret."""


def numbers(config: CurriculumConfig) -> Numbers:
    """The numbers of a configuration, its temperature at the nearest that float32 can hold."""
    single = np.finfo(np.float32)
    within = min(max(config.temperature, float(single.tiny)), float(single.max))
    return Numbers(jnp.float32(config.replay), jnp.float32(within))


def empty(
    example_task: Task, example_result: PyTree, config: CurriculumConfig, agents: int
) -> Curriculum:
    """A curriculum that remembers nothing.

    The queue has a place for each of the lives that can wait: fewer than V that were too few to
    find their regret, and A that end in one step.

    Args:
      example_task: one task, or its shapes and types.
      example_result: what is kept of one ended life, or its shapes and types.
      config: S is its ``buffer`` and V its ``antagonists``.
      agents: A.

    Returns:
      The curriculum.

    Raises:
      ValueError: there may be no entry to replace: S < 2 A + V.
    """
    size, batch = config.buffer, config.antagonists
    if size < 2 * agents + batch:
        raise ValueError(f"a buffer of {size} is below 2 x {agents} tasks and {batch} antagonists")

    def blank(example: PyTree, count: int) -> PyTree:
        shapes = jax.eval_shape(lambda tree: tree, example)
        return jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape), leaf.dtype), shapes)

    buffer = Buffer(
        level=blank(example_task.level, size),
        horizon=jnp.zeros(size, jnp.int32),
        score=jnp.zeros(size, jnp.float32),
        scored=jnp.zeros(size, bool),
        filled=jnp.zeros(size, bool),
        active=jnp.zeros(size, bool),
        id=jnp.full(size, -1, jnp.int32),
        next_id=jnp.zeros((), jnp.int32),
    )
    waiting = agents + batch
    queue = Queue(
        slot=jnp.zeros(waiting, jnp.int32),
        result=blank(example_result, waiting),
        length=jnp.zeros((), jnp.int32),
    )
    return Curriculum(buffer, queue, jnp.zeros((), jnp.int32))


# --- which tasks are replayed -----------------------------------------------------------------


def replayable(buffer: Buffer) -> Bool[Array, " S"]:
    """Entries that may be replayed: they have a regret, and nobody lives on them."""
    return buffer.filled & buffer.scored & ~buffer.active


def _ranks(score: Float[Array, " S"], among: Bool[Array, " S"]) -> Float[Array, " S"]:
    """Rank of each score among some, 1 for the highest; equal ones share their mean rank."""
    falling = jnp.where(among, -score, jnp.inf)
    ordered = jnp.sort(falling)
    above = jnp.searchsorted(ordered, falling, side="left")
    until = jnp.searchsorted(ordered, falling, side="right")
    return (above + until + 1) / 2


def log_weights(buffer: Buffer, temperature: Any, sampling: Sampling) -> Float[Array, " S"]:
    r"""Logarithm of the weights with which entries are replayed, 0 for the largest.

    .. math::

      w_i = (1/\mathrm{rank}_i)^{1/T} \quad\text{or}\quad w_i = \exp((s_i - \max s) / T)

    over the replayable entries; equal scores share their mean rank. Only ratios of weights matter,
    so ranks are scaled as scores are.

    Args:
      buffer: entries.
      temperature: T.
      sampling: which of the two.

    Returns:
      ``[S]``; minus infinity where an entry cannot be replayed, finite elsewhere.

    Source: Jiang et al. 2021, Prioritized Level Replay; Jackson et al. 2023, GROOVE.
    """
    can = replayable(buffer)
    base = -jnp.log(_ranks(buffer.score, can)) if sampling == "rank" else buffer.score
    highest = jnp.max(jnp.where(can, base, -jnp.inf))
    lowest = jnp.finfo(jnp.float32).min
    # Bounded before the division too: infinity divided by the largest T is no number.
    below = jnp.maximum(base - highest, lowest)
    return jnp.where(can, jnp.maximum(below / temperature, lowest), -jnp.inf)


@functools.partial(jax.jit, static_argnames="sampling")
def probabilities(buffer: Buffer, temperature: Any, sampling: Sampling) -> Float[Array, " S"]:
    """Probability of each entry to be the first that is drawn for replay; 0 if none can be."""
    weights = jnp.exp(log_weights(buffer, temperature, sampling))
    return weights / jnp.maximum(weights.sum(), 1)  # the largest weight is 1


def _drawn(key: Key, buffer: Buffer, temperature: Any, sampling: Sampling) -> Int[Array, " S"]:
    """All entries in an order of draws without replacement; those not replayable come last.

    The order of log w + Gumbel noise has that law (Kool et al. 2019). Where a weight is so small
    that the noise is lost, the higher score comes first, as at temperature 0, and among equals the
    noise decides.
    """
    noise = jax.random.gumbel(key, buffer.score.shape)
    race = log_weights(buffer, temperature, sampling) + noise
    return jnp.lexsort((-noise, -buffer.score, -race))


def _leaving(buffer: Buffer) -> Int[Array, " S"]:
    """All entries in the order in which they make room; active ones, which do not, come last.

    Empty ones first, then those without a regret, then from the lowest regret up; of equals, the
    task that came first.
    """
    turn = jnp.where(buffer.scored, 2, jnp.where(buffer.filled, 1, 0))
    turn = jnp.where(buffer.active, 3, turn)
    return jnp.lexsort((buffer.id, buffer.score, turn))


# --- births and ends --------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnames="sampling")
def assign(
    curriculum: Curriculum,
    key: Key,
    born: Bool[Array, " A"],
    fresh: Task,
    slots: Int[Array, " A"],
    numbers: Numbers,
    sampling: Sampling,
) -> tuple[Curriculum, Task, Int[Array, " A"], Bool[Array, " A"]]:
    """Give every newborn agent its task.

    With probability ``replay``, and only if at least A entries are replayable, its task is drawn
    from the buffer, without replacement; else its fresh task enters there: into an empty entry, or
    in place of one that is not active, first of those without a regret, then of lowest regret.

    Args:
      curriculum: before.
      key: consumed.
      born: who is born now.
      fresh: a new task for each agent, leaves ``[A, ...]``; read for those that need one.
      slots: entry on which each agent lives; read for those not born now.
      numbers: traced.
      sampling: how replayed tasks are weighted.

    Returns:
      The curriculum; the task of every agent, newborn or not, leaves ``[A, ...]``; its entry; and
      whether it is a newborn whose task is replayed.
    """
    buffer = curriculum.buffer
    coin_key, draw_key = jax.random.split(key)
    coin = jax.random.uniform(coin_key, born.shape) < numbers.replay
    replayed = born & coin & (replayable(buffer).sum() >= born.shape[0])
    enters = born & ~replayed

    drawn = _drawn(draw_key, buffer, numbers.temperature, sampling)
    slots = jnp.where(replayed, drawn[_turn(replayed)], slots)
    buffer = buffer._replace(active=_set(buffer.active, slots, replayed, True))
    slots = jnp.where(enters, _leaving(buffer)[_turn(enters)], slots)

    new = functools.partial(_set, slots=slots, where=enters)
    buffer = Buffer(
        level=jax.tree.map(lambda all_, one: new(all_, to=one), buffer.level, fresh.level),
        horizon=new(buffer.horizon, to=fresh.horizon),
        score=new(buffer.score, to=0),
        scored=new(buffer.scored, to=False),
        filled=new(buffer.filled, to=True),
        active=new(buffer.active, to=True),
        id=new(buffer.id, to=buffer.next_id + _turn(enters)),
        next_id=buffer.next_id + enters.sum(),
    )
    return curriculum._replace(buffer=buffer), _tasks(buffer, slots), slots, replayed


def _turn(chosen: Bool[Array, " A"]) -> Int[Array, " A"]:
    """How many of the chosen stand before each agent."""
    return jnp.cumsum(chosen) - chosen


def _set(column: Array, slots: Int[Array, " A"], where: Bool[Array, " A"], to: Any) -> Array:
    """A column of the buffer (of the queue) with other values in some agents' entries."""
    return column.at[jnp.where(where, slots, column.shape[0])].set(to, mode="drop")


def _tasks(buffer: Buffer, slots: Int[Array, " n"]) -> Task:
    return jax.tree.map(lambda leaf: leaf[slots], Task(buffer.level, buffer.horizon))


@jax.jit
def finish(
    curriculum: Curriculum,
    ended: Bool[Array, " A"],
    counted: Bool[Array, " A"],
    slots: Int[Array, " A"],
    results: PyTree,
) -> Curriculum:
    """Take note of lives that ended.

    Args:
      curriculum: before.
      ended: whose life ended now.
      counted: whose life was lived to its horizon, so that it has a regret; the entry of another
        that ended is free at once and keeps the score it had, if any.
      slots: entry on which each agent lived.
      results: what tells the return of each, leaves ``[A, ...]``.

    Returns:
      The curriculum, with the ended lives that count at the end of the queue. A life that finds
      the queue full does not count; there is none while it is emptied below V after every step.
    """
    buffer, queue = curriculum.buffer, curriculum.queue
    counts = ended & counted
    place = queue.length + _turn(counts)
    waits = counts & (place < queue.slot.shape[0])
    put = functools.partial(_set, slots=place, where=waits)
    return curriculum._replace(
        buffer=buffer._replace(active=_set(buffer.active, slots, ended & ~waits, False)),
        queue=Queue(
            slot=put(queue.slot, to=slots),
            result=jax.tree.map(lambda all_, one: put(all_, to=one), queue.result, results),
            length=queue.length + waits.sum(),
        ),
    )


# --- regrets ----------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnames="batch")
def ready(curriculum: Curriculum, batch: int) -> Bool[Array, ""]:
    """At least so many ended lives wait for their regret."""
    return curriculum.queue.length >= batch


@functools.partial(jax.jit, static_argnames="batch")
def front(curriculum: Curriculum, batch: int) -> tuple[Task, PyTree]:
    """Tasks and results of the lives that have waited longest, leaves ``[V, ...]``, V = ``batch``.

    They are to be used only if so many are :func:`ready`.
    """
    queue = curriculum.queue
    results = jax.tree.map(lambda leaf: leaf[:batch], queue.result)
    return _tasks(curriculum.buffer, queue.slot[:batch]), results


@jax.jit
def score(curriculum: Curriculum, regret: Float[Array, " V"]) -> Curriculum:
    """Write down the regrets of the lives at the :func:`front` of the queue, which leave it.

    Each replaces an older one. An entry whose regret is not finite is left without any, whatever
    it had: it cannot be replayed, and is among the first to be replaced.

    Args:
      curriculum: before.
      regret: of the first V in the queue; what is told of more than wait there is ignored.

    Returns:
      The curriculum; the entries are no longer active.
    """
    buffer, queue = curriculum.buffer, curriculum.queue
    batch = regret.shape[0]
    waits = jnp.arange(batch) < queue.length
    known = jnp.isfinite(regret)
    put = functools.partial(_set, slots=queue.slot[:batch], where=waits)
    return Curriculum(
        buffer=buffer._replace(
            score=put(buffer.score, to=jnp.where(known, regret, 0)),
            scored=put(buffer.scored, to=known),
            active=put(buffer.active, to=False),
        ),
        queue=Queue(
            slot=jnp.roll(queue.slot, -batch),
            result=jax.tree.map(lambda leaf: jnp.roll(leaf, -batch, axis=0), queue.result),
            length=jnp.maximum(queue.length - batch, 0),
        ),
        nonfinite=curriculum.nonfinite + jnp.sum(waits & ~known),
    )


def make_antagonists(
    config: Config,
) -> Callable[[Key, Task, Float[Array, " V"]], Float[Array, " V"]]:
    r"""A2C on the tasks of ended lives.

    :math:`\mathrm{regret} = R_{A2C}(N) - R_{objective}(N)`, not clipped and not normalised: both
    are mean returns of fresh episodes by sampled actions after N updates.

    Args:
      config: A2C has the rates of ``rival``; sizes, optimiser and clip are those of the agents. At
        most ``curriculum.antagonists`` tasks are taken at once.

    Returns:
      ``(key, tasks [V], returns of the objective [V]) -> regrets [V]``, NaN where an agent of A2C
      or the return given is not finite. It consumes the key; the life on the i-th task uses
      ``fold_in(key, i)``. Configurations that differ in numbers only share a program.

    Raises:
      ConfigError: the agent and the environment do not go together.

    Source: Jackson et al. 2023 (GROOVE).
    """
    most = config.curriculum.antagonists
    group = population(config)[1]
    if jax.default_backend() != "cpu":  # a share for each chip
        group = min(group, max(1, most // jax.device_count()))
    group = largest_divisor(most, group)
    objective, cohort = _program(config.env, static(config.agent), config.life, group, most)
    rival = config.rival
    hyper = make_hyper(objective, config.agent)._replace(
        policy_rate=rival.a2c_policy_rate, value_rate=rival.a2c_value_rate
    )

    def regrets(key: Key, tasks: Task, returns: Float[Array, " V"]) -> Float[Array, " V"]:
        order, lives = _lives(key, tasks)
        outcome = lived(cohort, (), hyper, lives, "final")
        return _ahead(order, fitness(outcome, "final"), returns)

    return regrets


@functools.lru_cache(maxsize=8)
def _program(
    env: str, agent: AgentConfig, life: LifeConfig, group: int, capacity: int
) -> tuple[A2C, Cohort]:
    """A2C and the program of its lives: one for all searches of these sizes."""
    objective = A2C(optimizer=agent.optimizer)
    world = make_world(objective, env, agent, life)
    return objective, make_cohort(world, lambda source, pair, sign: (), group, capacity)


@jax.jit
def _lives(key: Key, tasks: Task) -> tuple[Int[Array, " V"], Lives]:
    """One life on each task, from the shortest to the longest, and which task each is on."""
    order = jnp.argsort(tasks.horizon)
    lives = Lives(
        id=jnp.zeros(order.shape, jnp.int32),
        sign=jnp.zeros(order.shape, jnp.float32),
        task=jax.tree.map(lambda leaf: leaf[order], tasks),
        key=jax.vmap(lambda i: jax.random.fold_in(key, i))(order),
    )
    return order, lives


@jax.jit
def _ahead(
    order: Int[Array, " V"], rival: Float[Array, " V"], returns: Float[Array, " V"]
) -> Float[Array, " V"]:
    return jnp.zeros_like(rival).at[order].set(rival) - returns


# --- what is told of it -----------------------------------------------------------------------


@functools.partial(jax.jit, static_argnames="sampling")
def metrics(
    curriculum: Curriculum,
    slots: Int[Array, " A"],
    born: Bool[Array, " A"],
    replayed: Bool[Array, " A"],
    numbers: Numbers,
    sampling: Sampling,
) -> dict[str, Array]:
    """Scalars that tell what the curriculum does.

    Args:
      curriculum: after the births.
      slots: entry on which each agent lives.
      born: who was born.
      replayed: whose task was replayed.
      numbers: traced.
      sampling: how replayed tasks are weighted.

    Returns:
      ``regret_low``, ``regret_median``, ``regret_high``: quantiles of the regrets; ``replayed``:
      share of the newborn whose task was replayed, and ``replayed_horizon``, their mean horizon;
      ``replayable_horizon``: mean horizon of the next one to be drawn; ``filled``: share of the
      buffer; ``regret_nonfinite``: how many regrets were no number so far. NaN where there is
      nothing to tell of.
    """
    buffer = curriculum.buffer
    known = jnp.where(buffer.scored, buffer.score, jnp.nan)
    quantiles = jnp.nanquantile(known, jnp.asarray(list(QUANTILES.values())))
    chance = probabilities(buffer, numbers.temperature, sampling)
    lengths = jnp.where(replayed, buffer.horizon[slots], 0)
    return {
        **dict(zip(QUANTILES, quantiles, strict=True)),
        "replayed": replayed.sum() / born.sum(),
        "replayed_horizon": lengths.sum() / replayed.sum(),
        "replayable_horizon": jnp.sum(chance * buffer.horizon) / chance.sum(),
        "filled": buffer.filled.mean(),
        "regret_nonfinite": curriculum.nonfinite,
    }


def snapshot(curriculum: Curriculum, numbers: Numbers, sampling: Sampling) -> dict[str, np.ndarray]:
    """The buffer as columns of a table, a row for each task in the order in which they came.

    Args:
      curriculum: what is looked at; it is brought to the host.
      numbers: of which the temperature is read.
      sampling: how replayed tasks are weighted.

    Returns:
      ``id``, ``horizon``, ``score`` (NaN where there is none), ``scored``, ``active``,
      ``probability`` (of a single draw for replay) and, where levels have one, ``step_limit``.
    """
    buffer = curriculum.buffer
    chance = probabilities(buffer, numbers.temperature, sampling)
    columns = {
        "id": buffer.id,
        "horizon": buffer.horizon,
        "score": buffer.score,
        "scored": buffer.scored,
        "active": buffer.active,
        "probability": chance,
    }
    limit = getattr(buffer.level, "max_steps_in_episode", None)
    if limit is not None:
        columns["step_limit"] = limit
    filled, host = jax.device_get((buffer.filled, columns))
    host["score"] = np.where(host["scored"], host["score"], np.nan)
    rows = np.flatnonzero(filled)
    rows = rows[np.argsort(host["id"][rows])]
    return {name: host[name][rows] for name in columns}  # JAX sorts the names of a dict
