r"""The schedule of an objective: what of an update follows the time that is told, all else frozen.

Entropy falls along a life under any rule that learns, so curves of lives are no evidence. Here
agents and their experience are recorded in lives under the true clock, and the same update is made
again and again with another share of life told: what then differs, the clock did. A drift needs no
agents: what it leaves of the push, :math:`g = A - \partial D / \partial p`, is a function of the
time. Whether a schedule stretches with the horizon is seen in lives of several horizons.

Shape legend: ``L`` levels, ``K`` ages, ``U`` shares of life told, ``R`` ratios, ``N`` updates.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from discovery.evaluation.clock_use import GROUP
from discovery.evaluation.slopes import REACH, shares
from discovery.evaluation.slopes import ages as ages_of
from discovery.inner.lifetime import Life, Task, World, birth, collect, grow, next_keys
from learned_objectives import descent
from learned_objectives.base import Time
from learned_objectives.clock import BASE_STEPS
from learned_objectives.mirror import Mirror
from learned_objectives.scheduled import Scheduled

SLACK = 1e-3
"""Share of A by which a push must point back to count: rounding turns none round."""
_POINTS, _HALVINGS = 1000, 20


def told(world: World, share: Array, horizon: Any) -> Time:
    """The clock of a life of so many updates of which this share is done; it need not be whole."""
    updates = jnp.asarray(horizon, jnp.float32)
    unit = jnp.asarray(world.environments * world.steps / BASE_STEPS, jnp.float32)
    return Time(n=share * updates, N=updates, unit=unit)


# --- one update, told another time ------------------------------------------------------------


class Moved(NamedTuple):
    """What one update does to the policy when only the share of life that is told is moved."""

    shares: Float[np.ndarray, " U"]
    ages: Shaped[np.ndarray, " K"]
    """Updates done, truly, when agent and experience were recorded."""
    entropy: Float[np.ndarray, "L K U"]
    """Change of the policy's entropy, in nats, mean over the recorded observations."""
    kl: Float[np.ndarray, "L K U"]
    """KL of the policy before the update from the one after it, in nats."""

    @property
    def finite(self) -> Bool[np.ndarray, "L K"]:
        """Where all of these are numbers."""
        return (np.isfinite(self.entropy) & np.isfinite(self.kl)).all(axis=-1)

    def by_age(self) -> tuple[Float[np.ndarray, "K U"], Float[np.ndarray, "K U"]]:
        """Entropy and KL, mean over levels where they are finite; NaN where none is."""
        count = self.finite.sum(axis=0)[:, None]
        kept = self.finite[..., None]
        totals = (np.where(kept, x, 0).sum(axis=0) for x in (self.entropy, self.kl))
        entropy, kl = (np.where(count > 0, x / np.maximum(count, 1), np.nan) for x in totals)
        return entropy, kl

    def mean(self) -> tuple[Float[np.ndarray, " U"], Float[np.ndarray, " U"]]:
        """Entropy and KL by the share told, mean over levels and ages; NaN if none is finite."""
        kept = self.finite
        if not kept.any():
            return np.full(len(self.shares), np.nan), np.full(len(self.shares), np.nan)
        return self.entropy[kept].mean(axis=0), self.kl[kept].mean(axis=0)


def moved(
    world: World, theta: PyTree, hyper: Any, levels: PyTree, horizon: int, seed: int
) -> Moved:
    r"""Record lives under the true clock, and make the same update again, told other times.

    With agent, experience and the update's random key as recorded at age n of a life of N updates,
    and :math:`\pi_t` the policy after an update that is told :math:`(t N, N)`: the change of
    entropy is :math:`\mathrm{mean}_o [H(\pi_t) - H(\pi)]`, the size of the update
    :math:`\mathrm{mean}_o \mathrm{KL}(\pi \| \pi_t)`, over the observations of the rollout.

    Args:
      world: who lives where.
      theta: the objective's parameters.
      hyper: numbers of an agent's update; a rate that falls with n/N is moved too.
      levels: leaves ``[L, ...]``.
      horizon: N.
      seed: root of every random number.

    Returns:
      Changes at every level, age and share told.
    """
    count = jax.tree.leaves(levels)[0].shape[0]
    root = jax.random.fold_in(jax.random.key(zlib.crc32(b"schedule")), seed)
    keys = jax.vmap(lambda i: jax.random.fold_in(root, i))(jnp.arange(count))
    times, ages = shares(horizon), np.array(ages_of(horizon), np.int32)
    changes = _mover(world)(
        theta, hyper, levels, keys, np.int32(horizon), ages, times.astype(np.float32)
    )
    return Moved(times, ages, *(np.asarray(change, float) for change in changes))


@functools.lru_cache(maxsize=16)
def _mover(world: World) -> Callable[..., tuple[Array, Array]]:
    """A program that lives on every level and tells the changes, ``[L, K, U]`` each.

    Horizon, ages and times told are data.
    """

    def move(
        theta: Any, hyper: Any, levels: Any, keys: Array, horizon: Array, ages: Array, times: Array
    ) -> tuple[Array, Array]:
        def one(started: tuple[Any, Array]) -> tuple[Array, Array]:
            level, key = started
            task = Task(level, horizon)

            def at(life: Life, age: Array) -> tuple[Life, tuple[Array, Array]]:
                life = jax.lax.while_loop(
                    lambda life: life.n < age,
                    lambda life: grow(world, theta, hyper, task, life)[0],
                    life,
                )
                act_key, update_key = next_keys(life)
                experience = collect(world, task, life, act_key)[1]
                old = world.network.unroll(life.learner.params, experience)[0]

                def change(share: Array) -> tuple[Array, Array]:
                    learner, _ = world.objective.update(
                        theta,
                        hyper,
                        world.network,
                        life.learner,
                        experience,
                        told(world, share, horizon),
                        update_key,
                    )
                    new = world.network.unroll(learner.params, experience)[0]
                    entropy = world.network.entropy(new) - world.network.entropy(old)
                    return entropy.mean(), world.network.kl(old, new).mean()

                return life, jax.lax.map(change, times)

            life = birth(world, theta, hyper, task, key)
            return jax.lax.scan(at, life, ages)[1]

        return jax.lax.map(one, (levels, keys), batch_size=GROUP)

    return jax.jit(move)


# --- a drift ----------------------------------------------------------------------------------


class Turns(NamedTuple):
    """Where a drift turns the policy away, by share of life told; NaN: nowhere within reach."""

    half: Float[np.ndarray, " U"]
    """The ratio, nearest to 1, past which less than half of the push is left."""
    back: Float[np.ndarray, " U"]
    """The ratio past which the push points back: the drift rolls the policy back."""


def turns(
    world: World, theta: PyTree, hyper: Any, horizon: int, advantage: float, times: np.ndarray
) -> Turns:
    r"""Where a drift takes half of the push, and where it reverses it.

    On the side where the policy goes, :math:`p > 1` for :math:`A > 0` and :math:`p < 1` for
    :math:`A < 0`: the first p at which :math:`g / A < 1/2`, and the first at which
    :math:`g / A < 0`, where :math:`g = A - \partial D / \partial p`.

    Args:
      world: of an objective of mirror learning; see :func:`discovery.inner.build.is_mirror`.
      theta: the objective's parameters.
      hyper: numbers of an agent's update.
      horizon: the N that is told.
      advantage: A, not zero.
      times: shares of life that are told.

    Returns:
      Both at every share; first crossings between ratios that are .23 % apart.
    """
    toward = math.copysign(1, advantage)

    def at(share: Array) -> tuple[Array, Array]:
        time = told(world, share, horizon)

        def left(distance: Array) -> Array:
            """Share of the push that is left, this far from ln p = 0."""
            along = jnp.full_like(distance, advantage)
            slope_p = surface(world.objective, theta, hyper, toward * distance, along, time)[1]
            return 1 - slope_p / advantage

        return _first_below(left, 0.5), _first_below(left, -SLACK)

    found = jax.jit(jax.vmap(at))(jnp.asarray(times, jnp.float32))
    return Turns(*(np.exp(toward * np.asarray(distance, float)) for distance in found))


def surface(
    objective: Any,
    theta: PyTree,
    hyper: Any,
    log_ratio: Float[Array, "*batch"],
    advantage: Float[Array, "*batch"],
    time: Time,
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """A drift and its slope in p, of a rule of mirror learning or of one on a schedule."""
    if isinstance(objective, Scheduled):
        hyper, objective, theta = objective.at(theta, hyper, time), objective.rule, ()
    assert isinstance(objective, Mirror)
    return objective.drift_surface(theta, hyper, log_ratio, advantage, time)


def _first_below(left: Callable[[Array], Array], bound: float) -> Float[Array, ""]:
    """The first distance from 0 on at which a function is below a bound; NaN if none is."""
    grid = jnp.linspace(0, math.log(REACH), _POINTS + 1)
    below = left(grid) < bound
    first = jnp.argmax(below)

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        gone = left(middle) < bound
        return jnp.where(gone, low, middle), jnp.where(gone, middle, high)

    ends = grid[jnp.maximum(first - 1, 0)], grid[first]
    return jnp.where(below.any(), jax.lax.fori_loop(0, _HALVINGS, halve, ends)[1], jnp.nan)


# --- lives ------------------------------------------------------------------------------------


class Along(NamedTuple):
    """What happens along lives of one horizon, by level and update."""

    entropy: Float[np.ndarray, "L N"]
    """Of the policy before the update, in nats."""
    change: Float[np.ndarray, "L N"]
    """KL of the policy before the update from the one after it, in nats."""
    norm: Float[np.ndarray, "L N"]
    """Of what the update adds to the parameters of the policy."""
    reward: Float[np.ndarray, "L N"]
    """Per step of the rollout."""


def along_lives(
    world: World, theta: PyTree, hyper: Any, levels: PyTree, horizon: int, seed: int
) -> Along:
    """Live whole lives on several levels, and watch the policy at every update.

    Args:
      world: who lives where.
      theta: the objective's parameters.
      hyper: numbers of an agent's update.
      levels: leaves ``[L, ...]``.
      horizon: N.
      seed: root of every random number; a life's do not depend on its horizon.

    Returns:
      What was seen.
    """
    count = jax.tree.leaves(levels)[0].shape[0]
    keys = jax.random.split(jax.random.key(seed), count)
    seen = _watcher(world, horizon)(theta, hyper, levels, keys)
    return Along(*(np.asarray(x, float) for x in seen))


@functools.lru_cache(maxsize=16)
def _watcher(world: World, horizon: int) -> Callable[..., tuple[Array, ...]]:
    """A program for lives of one horizon."""

    def one(theta: Any, hyper: Any, level: Any, key: Array) -> tuple[Array, ...]:
        task = Task(level, jnp.asarray(horizon, jnp.int32))

        def step(life: Life, _: None) -> tuple[Life, tuple[Array, ...]]:
            after, experience, _report = grow(world, theta, hyper, task, life)
            before, params = life.learner.params, after.learner.params
            old, new = (world.network.unroll(p, experience)[0] for p in (before, params))
            added = jax.tree.map(jnp.subtract, params["policy"], before["policy"])
            seen = (
                world.network.entropy(old).mean(),
                world.network.kl(old, new).mean(),
                descent.norm(added),
                experience.reward.mean(),
            )
            return after, seen

        life = birth(world, theta, hyper, task, key)
        return jax.lax.scan(step, life, None, length=horizon)[1]

    return jax.jit(jax.vmap(one, (None, None, 0, 0)))


__all__ = [
    "Along",
    "Moved",
    "Turns",
    "along_lives",
    "moved",
    "surface",
    "told",
    "turns",
]
