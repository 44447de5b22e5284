"""Advantages and targets, with terminations and truncations kept apart."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Scalar = float | Float[Array, ""]


def generalized_advantage(
    reward: Float[Array, "T *B"],
    value: Float[Array, "T *B"],
    next_value: Float[Array, "T *B"],
    terminated: Bool[Array, "T *B"],
    truncated: Bool[Array, "T *B"],
    discount: Scalar,
    trace: Scalar,
) -> Float[Array, "T *B"]:
    r"""Generalized advantage estimation.

    :math:`\delta_t = r_t + \gamma (1 - \mathrm{term}_t) V(s_{t+1}) - V(s_t)` and
    :math:`A_t = \delta_t + \gamma \lambda A_{t+1}`, the sum cut at a termination or a truncation,
    where :math:`s_{t+1}` is the true last state of the episode.

    Args:
      reward: :math:`r_t`, ``[T, ...]``.
      value: :math:`V(s_t)`.
      next_value: :math:`V(s_{t+1})` before any reset.
      terminated: the environment ended the episode at t.
      truncated: a step limit cut it at t.
      discount: :math:`\gamma`.
      trace: :math:`\lambda`.

    Returns:
      Advantages, ``[T, ...]``; ``advantage + value`` are the targets of the critic.

    Source: Schulman et al. 2016, equation 16. Written here since the libraries that do it read
    :math:`V(s_{t+1})` from the next row, which is another episode's after a truncation.
    """
    # An advantage of another shape would broadcast into an outer product and lose credit per step.
    chex.assert_equal_shape([reward, value, next_value, terminated, truncated])
    delta = reward + discount * jnp.where(terminated, 0, next_value) - value
    carry_on = jnp.where(terminated | truncated, 0.0, 1.0).astype(reward.dtype)

    def back(later: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        delta_t, carry_on_t = now
        advantage = delta_t + discount * trace * carry_on_t * later
        return advantage, advantage

    start = jnp.zeros_like(delta[0])
    return jax.lax.scan(back, start, (delta, carry_on), reverse=True)[1]


def advantage_over_return(
    reward: Float[Array, "T *B"],
    value: Float[Array, "T *B"],
    next_value: Float[Array, "T *B"],
    target: Float[Array, "T *B"],
    terminated: Bool[Array, "T *B"],
    truncated: Bool[Array, "T *B"],
    discount: Scalar,
) -> Float[Array, "T *B"]:
    r"""One reward and the lambda-return that follows it, above the value.

    :math:`A_t = r_t + \gamma (1 - \mathrm{term}_t) v_{t+1} - V(s_t)`, where :math:`v_{t+1}` is the
    lambda-return of the next step, or :math:`V(s_{t+1})` where none follows: at a truncation and at
    the end of the rollout.

    Args:
      reward: :math:`r_t`, ``[T, ...]``.
      value: :math:`V(s_t)`.
      next_value: :math:`V(s_{t+1})` before any reset.
      target: the lambda-returns :math:`v_t`, advantage of
        :func:`generalized_advantage` plus value.
      terminated: the environment ended the episode at t.
      truncated: a step limit cut it at t.
      discount: :math:`\gamma`.

    Returns:
      Advantages, ``[T, ...]``.

    Source: the form in which Brax computes the advantages of PPO, with the true last state of an
    episode in place of a masked step.
    """
    chex.assert_equal_shape([reward, value, next_value, target, terminated, truncated])
    following = jnp.concatenate([target[1:], next_value[-1:]])
    following = jnp.where(truncated, next_value, following)
    return reward + discount * jnp.where(terminated, 0, following) - value


def normalise(x: Float[Array, "*batch"], epsilon: float = 1e-8) -> Float[Array, "*batch"]:
    r"""To mean zero and standard deviation one: :math:`(x - \bar x) / (\sigma_x + \epsilon)`."""
    return (x - x.mean()) / (x.std() + epsilon)
