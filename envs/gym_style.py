"""gymnax 1.0's environment API over a pure transition, without importing gymnax.

An environment of ours says how it goes on, how it starts and what is seen; this file adds step
limits, resets and the methods that gymnax's wrappers and other people's clients call.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from envs.base import Environment, EnvSpec, Key, Transition

Noise = Float[Array, "width"]


class GymStyle:
    """An environment with gymnax's methods; what gymnax calls ``params`` is a level.

    A state has a field ``time`` (steps taken), a level a field ``max_steps_in_episode``. Noise is a
    vector of uniforms on [0, 1): ``step_width`` of them for the step, ``reset_width`` for the reset
    that may follow it.
    """

    name: str
    num_actions: int
    step_width: int = 0
    reset_width: int = 0

    # What a subclass says about itself.

    @property
    def default_params(self) -> Any:
        """A concrete level, with ``replace``."""
        raise NotImplementedError

    def start(self, noise: Noise, level: Any) -> Any:
        """First state of an episode; ``noise`` holds ``reset_width`` uniforms."""
        raise NotImplementedError

    def advance(
        self, noise: Noise, state: Any, action: Int[Array, ""], level: Any
    ) -> tuple[Any, Float[Array, ""], Bool[Array, ""]]:
        """``(state, reward, terminated)`` after one step without limit or reset."""
        raise NotImplementedError

    def observe(self, state: Any, level: Any) -> PyTree:
        """What is seen of a state."""
        raise NotImplementedError

    def observation_space(self, params: Any) -> Any:
        """gymnax's space of observations."""
        raise NotImplementedError

    # Our own interface.

    def draw(self, key: Key, shape: tuple[int, ...]) -> Float[Array, "*shape width"]:
        """Draw the noise of ``shape`` steps at once: uniforms on [0, 1)."""
        shape = (*shape, self.step_width + self.reset_width)
        # The same numbers as for the shape itself, compiled ten times as fast.
        return jax.random.uniform(key, (math.prod(shape),)).reshape(shape)

    def transition(
        self, noise: Noise, state: Any, action: Int[Array, ""], level: Any
    ) -> Transition:
        """Take one step, cut it at the step limit, and start anew where the episode ended.

        Args:
            noise: one step's share of :meth:`draw`.
            state: state of one environment.
            action: int, ``0 .. num_actions - 1``.
            level: one level.

        Returns:
            The :class:`~envs.base.Transition`. An episode that terminates at its last step is
            terminated and not truncated.
        """
        after, reward, terminated = self.advance(noise[: self.step_width], state, action, level)
        truncated = (after.time >= level.max_steps_in_episode) & ~terminated
        fresh = self.start(noise[self.step_width :], level)
        ended = terminated | truncated
        going_on = jax.tree.map(lambda new, old: jnp.where(ended, new, old), fresh, after)
        return Transition(
            observation=self.observe(going_on, level),
            state=going_on,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            final_observation=self.observe(after, level),
        )

    def environment(
        self,
        spec: EnvSpec,
        sample_level: Any,
        bounds: Any = None,
    ) -> Environment:
        """Wrap this object for the inner loop."""
        return Environment(
            spec=spec,
            sample_level=sample_level,
            reset=self.reset_env,
            draw=self.draw,
            step=self.transition,
            step_limit=lambda level: jnp.asarray(level.max_steps_in_episode, jnp.int32),
            bounds=bounds,
            gym=self,
        )

    # gymnax's interface.

    def reset_env(self, key: Key, params: Any) -> tuple[PyTree, Any]:
        """``(observation, state)`` of a new episode."""
        state = self.start(jax.random.uniform(key, (self.reset_width,)), params)
        return self.observe(state, params), state

    def step_env(
        self, key: Key, state: Any, action: Int[Array, ""], params: Any
    ) -> tuple[PyTree, Any, Float[Array, ""], Bool[Array, ""], dict[str, Any]]:
        """``(observation, state, reward, terminated, info)``: no limit, no reset."""
        noise = self.draw(key, ())[: self.step_width]
        after, reward, terminated = self.advance(noise, state, action, params)
        return self.observe(after, params), after, reward, terminated, {}

    def reset(self, key: Key, params: Any = None) -> tuple[PyTree, Any]:
        """:meth:`reset_env`, compiled."""
        return self._reset(key, self.default_params if params is None else params)

    def step(
        self, key: Key, state: Any, action: Int[Array, ""] | int, params: Any = None
    ) -> tuple[PyTree, Any, Float[Array, ""], Bool[Array, ""], Bool[Array, ""], dict[str, Any]]:
        """Six values, compiled: :meth:`transition` with noise drawn from ``key``.

        ``info["final_observation"]`` is what followed the action, before any reset.
        """
        return self._step(key, state, action, self.default_params if params is None else params)

    @partial(jax.jit, static_argnames=("self",))
    def _reset(self, key: Key, params: Any) -> tuple[PyTree, Any]:
        return self.reset_env(key, params)

    @partial(jax.jit, static_argnames=("self",))
    def _step(self, key: Key, state: Any, action: Int[Array, ""], params: Any) -> Any:
        step = self.transition(self.draw(key, ()), state, jnp.asarray(action), params)
        info = {
            "terminated": step.terminated,
            "truncated": step.truncated,
            "final_observation": step.final_observation,
        }
        return step.observation, step.state, step.reward, step.terminated, step.truncated, info

    def is_truncated(self, state: Any, params: Any) -> Bool[Array, ""]:
        """Whether the step limit is reached; as in gymnax it does not know of terminations."""
        return state.time >= params.max_steps_in_episode

    @property
    def obs_shape(self) -> tuple[int, ...]:
        """Shape of one observation."""
        return tuple(self.observation_space(self.default_params).shape)

    def action_space(self, params: Any = None) -> Any:
        """gymnax's space of actions."""
        from gymnax.environments import spaces

        return spaces.Discrete(self.num_actions)
