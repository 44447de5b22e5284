"""A chain with closed-form returns: the bench for horizons and endings.

The agent stands at 0 and may go forward or rest. Each rest pays ``rest``. Reaching the end pays
``goal`` and terminates; the step limit truncates. Nothing is random but the agent.
"""

from __future__ import annotations

from typing import Any, no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.scipy.special import betainc
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree

from envs.base import Environment, EnvSpec, Key
from envs.gym_style import GymStyle, Noise

ACTIONS = ("rest", "forward")
LONGEST = 8
"""Largest length of a chain."""
LIMITS = (10, 50)
"""Step limits of the levels that are drawn."""


@no_type_check
class ChainLevel(struct.PyTreeNode):
    """One chain."""

    length: Int[ArrayLike, ""]
    """Steps forward from the start to the end, 1 to 8."""
    goal: Float[ArrayLike, ""]
    """Reward at the end."""
    rest: Float[ArrayLike, ""]
    """Reward of each rest."""
    max_steps_in_episode: Int[ArrayLike, ""]
    """Steps after which an episode is cut, at least 1."""


@no_type_check
class ChainState(struct.PyTreeNode):
    """Where one environment stands."""

    position: Int[Array, ""]
    """Steps forward so far."""
    time: Int[Array, ""]
    """Steps taken in this episode."""


class Chain(GymStyle):
    """The chain, speaking gymnax 1.0's API; its observation is the position."""

    name = "chain"
    num_actions = len(ACTIONS)

    @property
    def default_params(self) -> ChainLevel:
        """Three steps to a goal of 1, rests that pay 0.1, 10 steps an episode."""
        return ChainLevel(
            length=np.int32(3), goal=np.float32(1), rest=np.float32(0.1), max_steps_in_episode=10
        )

    def start(self, noise: Noise, level: ChainLevel) -> ChainState:
        """The beginning of the chain."""
        return ChainState(position=jnp.int32(0), time=jnp.int32(0))

    def advance(
        self, noise: Noise, state: ChainState, action: Int[Array, ""], level: ChainLevel
    ) -> tuple[ChainState, Float[Array, ""], Bool[Array, ""]]:
        """Go forward or rest."""
        forward = action == 1
        position = state.position + forward
        terminated = position >= level.length
        reward = jnp.where(forward, jnp.where(terminated, level.goal, 0), level.rest)
        return ChainState(position=position, time=state.time + 1), reward, terminated

    def observe(self, state: ChainState, level: ChainLevel) -> PyTree:
        """The position."""
        return state.position

    def observation_space(self, params: ChainLevel | None = None) -> Any:
        """``Discrete``."""
        from gymnax.environments import spaces

        return spaces.Discrete(LONGEST + 1)


def chain(name: str = "chain") -> Environment:
    """Chains of 1 to 8 steps, a goal of 1, rests that pay up to 0.1 or cost up to 0.1.

    Example:
        >>> env = envs.make("chain")
        >>> level = env.gym.default_params.replace(length=2, rest=0.0)
    """
    spec = EnvSpec(name, (), LONGEST + 1, len(ACTIONS), max_steps=LIMITS[1])
    return Chain().environment(spec, sample_level, bounds)


def sample_level(key: Key) -> ChainLevel:
    """Draw a chain: length, pay of a rest and step limit are uniform."""
    u = jax.random.uniform(key, (3,))
    return ChainLevel(
        length=1 + jnp.floor(u[0] * LONGEST).astype(jnp.int32),
        goal=jnp.float32(1),
        rest=0.2 * u[1] - 0.1,
        max_steps_in_episode=LIMITS[0]
        + jnp.floor(u[2] * (LIMITS[1] - LIMITS[0] + 1)).astype(jnp.int32),
    )


def bounds(level: ChainLevel) -> tuple[Float[Array, ""], Float[Array, ""]]:
    r"""Expected undiscounted return ``(R_rand, R_opt)`` of one episode, in closed form.

    With length L, limit T, and B binomial (T, 1/2)::

        R_rand = goal P(B >= L) + rest E[min(L, B)]
        R_opt  = max(rest, 0) T                                if T < L, else the larger of
                 goal + max(rest, 0) (T - L)                   resting first if that pays
                 rest T if rest > 0 else rest (T - L + 1)      never finishing

    A random agent rests as often as it goes forward, in expectation up to any stopping time
    (Wald), hence the second term of R_rand; ``P(B >= j) = I_{1/2}(j, T - j + 1)`` and
    ``E[min(L, B)] = sum_{j=1}^{L} P(B >= j)``.

    Args:
        level: one chain; ``vmap`` over levels.

    Returns:
        Returns of uniformly random and of optimal actions.
    """
    limit = jnp.asarray(level.max_steps_in_episode, jnp.float32)
    length, rest, goal = (jnp.asarray(x) for x in (level.length, level.rest, level.goal))
    j = jnp.arange(1, LONGEST + 1)
    # The function is asked only where it is defined.
    tail = jnp.where(j <= limit, betainc(j, jnp.maximum(limit - j, 0) + 1, 0.5), 0)
    finishes = jnp.where(j == length, tail, 0).sum()
    rests = jnp.where(j <= length, tail, 0).sum()
    idle = jnp.maximum(rest, 0)
    finish = goal + idle * (limit - length)
    never = jnp.where(rest > 0, rest * limit, rest * (limit - length + 1))
    best = jnp.where(limit < length, idle * limit, jnp.maximum(finish, never))
    return goal * finishes + rest * rests, best
