"""Running statistics by which an agent's observations and rewards are scaled.

Shape legend: ``T`` rollout steps, ``B`` environments of one agent. Statistics are part of an
agent's life. Those it acts with in an iteration are those it learns with; what was seen joins them
when the iteration is over.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from learned_objectives.base import Experience

OBSERVATION_BOUND = 5.0
"""Observations are clipped to this many standard deviations on either side of their mean."""
REWARD_BOUND = 10.0
"""Rewards are clipped to this many standard deviations of the discounted return."""
FLOOR = 1e-8
"""Added to a variance: what never changes is not blown up by the rounding of its mean."""


class Scales(NamedTuple):
    """What is scaled; static."""

    observations: bool = False
    rewards: bool = False


OFF = Scales()


class Moments(NamedTuple):
    """Of everything seen so far, an entry for each number of what is seen."""

    number: Float[Array, ""]
    mean: Float[Array, "*shape"]
    spread: Float[Array, "*shape"]
    """Sum of squared deviations from the mean."""


class Returns(NamedTuple):
    """Discounted returns, whose deviation is the unit of rewards."""

    discount: Float[Array, ""]
    """gamma."""
    running: Float[Array, " B"]
    """Discounted sum of each environment's rewards since its episode began."""
    moments: Moments
    """Of the running returns after each step."""


class Scaling(NamedTuple):
    """Statistics of one agent; ``()`` for what is not scaled."""

    observation: Moments | tuple[()]
    reward: Returns | tuple[()]


Statistics: TypeAlias = Scaling | tuple[()]
"""``()`` where nothing is scaled: then the functions below give back what they get."""


def begin(
    scales: Scales, shape: tuple[int, ...], environments: int, discount: float | Array
) -> Statistics:
    """Statistics of an agent that has seen nothing.

    Args:
      scales: what is scaled.
      shape: of one observation.
      environments: B.
      discount: gamma of the returns whose deviation is the unit of rewards.

    Returns:
      The statistics.
    """
    if not any(scales):
        return ()
    running = jnp.zeros(environments)
    return Scaling(
        observation=_nothing(shape) if scales.observations else (),
        reward=Returns(jnp.asarray(discount, running.dtype), running, _nothing(()))
        if scales.rewards
        else (),
    )


def _nothing(shape: tuple[int, ...]) -> Moments:
    return Moments(jnp.zeros(()), jnp.zeros(shape), jnp.zeros(shape))


def merge(moments: Moments, seen: Float[Array, "T B *shape"]) -> Moments:
    r"""Moments of what was seen before and now.

    With n and m numbers, of means a and b and spreads S and R: mean :math:`a + (b - a) m/(n + m)`,
    spread :math:`S + R + (b - a)^2 n m/(n + m)`.

    Args:
      moments: of before.
      seen: now, a rollout of it.

    Returns:
      Of both.

    Example:
      >>> import jax.numpy as jnp
      >>> both = merge(_nothing(()), jnp.array([[1.0, 3.0]]))
      >>> float(both.mean), float(both.spread)
      (2.0, 2.0)

    Source: Chan, Golub, LeVeque 1979, equation 2.1.
    """
    new = seen.shape[0] * seen.shape[1]
    mean = seen.mean(axis=(0, 1))
    spread = jnp.sum(jnp.square(seen - mean), axis=(0, 1))
    number = moments.number + new
    apart = mean - moments.mean
    return Moments(
        number=number,
        mean=moments.mean + apart * (new / number),
        spread=moments.spread + spread + jnp.square(apart) * (moments.number * new / number),
    )


def deviation(moments: Moments) -> Float[Array, "*shape"]:
    """Standard deviation, one before anything was seen."""
    variance = moments.spread / jnp.maximum(moments.number, 1)
    return jnp.where(moments.number > 0, jnp.sqrt(variance + FLOOR), 1)


def see(scaling: Statistics, observation: PyTree) -> PyTree:
    """Observations as the agent is shown them, ``[..., *shape]``."""
    if not scaling or not scaling.observation:
        return observation
    moments = scaling.observation
    scaled = (observation - moments.mean) / deviation(moments)
    return jnp.clip(scaled, -OBSERVATION_BOUND, OBSERVATION_BOUND).astype(observation.dtype)


def scale(scaling: Statistics, experience: Experience) -> Experience:
    """A rollout as the agent learns from it: as it saw it when acting."""
    if not scaling:
        return experience
    reward = experience.reward
    if scaling.reward:
        unit = deviation(scaling.reward.moments)
        reward = jnp.clip(reward / unit, -REWARD_BOUND, REWARD_BOUND).astype(reward.dtype)
    return experience._replace(
        observation=see(scaling, experience.observation),
        next_observation=see(scaling, experience.next_observation),
        reward=reward,
    )


def renew(scaling: Statistics, experience: Experience) -> Statistics:
    """Statistics after a rollout.

    Args:
      scaling: the statistics before.
      experience: the rollout as the environment gave it, unscaled.

    Returns:
      The statistics that count what was acted on and what was got.
    """
    if not scaling:
        return ()
    observation, reward = scaling
    if observation:
        observation = merge(observation, experience.observation)
    if reward:
        running, after = _discounted(reward, experience)
        reward = reward._replace(running=running, moments=merge(reward.moments, after))
    return Scaling(observation, reward)


def _discounted(
    returns: Returns, experience: Experience
) -> tuple[Float[Array, " B"], Float[Array, "T B"]]:
    """Running returns after the rollout, and after each of its steps."""

    def step(running: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        reward, ended = now
        total = returns.discount * running + reward
        return jnp.where(ended, 0, total), total

    ended = experience.terminated | experience.truncated
    return jax.lax.scan(step, returns.running, (experience.reward, ended))
