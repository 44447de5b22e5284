"""What the inner loop needs of an environment, whoever wrote it.

An :class:`Environment` is a handful of pure functions about *one* environment; callers ``vmap``.
Adapters make one from a grid world, from any environment that speaks gymnax 1.0's API, and later
from Brax. Randomness is drawn in bulk before a rollout (``draw``), never inside a step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from jaxtyping import Array, Bool, Float, PyTree

Key: TypeAlias = Array
Level: TypeAlias = PyTree
"""One parameter setting of an environment: traced data."""


class EnvSpec(NamedTuple):
    """Static facts of an environment."""

    name: str
    observation_shape: tuple[int, ...]
    """Shape of one observation; ``()`` for a state index."""
    num_states: int | None
    """Number of states where an observation is an index (then a table can act), else ``None``."""
    num_actions: int | None
    """Number of actions, or ``None`` where actions are continuous."""
    action_shape: tuple[int, ...] = ()
    """Shape of one continuous action."""
    max_steps: int = 0
    """Steps of the longest episode that any level can have."""


class Transition(NamedTuple):
    """One step of one environment, which resets itself at the end of an episode."""

    observation: PyTree
    """What the agent acts on next: the first observation of a new episode after an ending."""
    state: PyTree
    reward: Float[Array, ""]
    terminated: Bool[Array, ""]
    truncated: Bool[Array, ""]
    """Never together with ``terminated``."""
    final_observation: PyTree
    """What followed the action, before any reset."""


class Environment(NamedTuple):
    """A family of levels with one observation and action space: what ``envs.make`` returns."""

    spec: EnvSpec
    sample_level: Callable[[Key], Level]
    """A level of this family."""
    reset: Callable[[Key, Level], tuple[PyTree, PyTree]]
    """``(key, level) -> (observation, state)``."""
    draw: Callable[[Key, tuple[int, ...]], PyTree]
    """``(key, shape) -> noise``: what ``shape`` steps will need, leaves ``[*shape, ...]``."""
    step: Callable[[PyTree, PyTree, Array, Level], Transition]
    """``(noise of one step, state, action, level) -> Transition``."""
    step_limit: Callable[[Level], Array]
    """Steps after which an episode of this level is cut, int32 (traced)."""
    bounds: Callable[[Level], tuple[Array, Array]] | None
    """``level -> (R_rand, R_opt)``, exact, where a dynamic program can tell; else ``None``."""
    gym: Any
    """The object behind, with gymnax 1.0's API (``reset``, ``step``, ``default_params``, ...)."""
