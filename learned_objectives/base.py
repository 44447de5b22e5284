"""What an objective is: an update rule behind one small protocol.

Shape legend: ``T`` rollout steps, ``B`` parallel environments of one agent, ``A`` actions, ``D``
width of a head. Everything here speaks of *one* agent, time-major ``[T, B, ...]``; callers
``vmap``.

Who owns what: the *objective* owns heads, optimiser and its own memory; the *network* hides
architecture, action space and recurrence; the *life* owns environments, horizon and keys. Rollouts,
lives, searches and evaluation know only this file, so a new objective is one file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

Key: TypeAlias = Array
"""A typed JAX key (threefry)."""
Theta: TypeAlias = PyTree
"""What the outer loop searches over: a plain tree of arrays, ``()`` if nothing is learned."""
Outputs: TypeAlias = Mapping[str, Array]
"""Head name -> what the head puts out, ``[..., D]``."""
Products: TypeAlias = Literal["float32", "bfloat16"]
"""What the factors of a matrix product are rounded to; it is added up as its inputs are."""


class Time(NamedTuple):
    """Where an agent stands in its life. Only ``clock.py`` reads the fields."""

    n: Int[Array, ""]
    """Updates completed so far, from 0."""
    N: Int[Array, ""]
    """Updates in all: the horizon, at least 1."""
    unit: Float[Array, ""]
    """Environment steps of one update, over 1,280: the unit in which logarithms tell N."""


class Head(NamedTuple):
    """One output of an agent's network, asked for by an objective."""

    size: int | Literal["actions"]
    """Width, or ``"actions"``: what the action distribution of the environment needs."""
    per_action: bool = False
    """One row of ``size`` for every action."""


class Experience(NamedTuple):
    """One rollout of one agent, ``[T, B, ...]``, as an update may see it."""

    observation: PyTree
    """What the agent saw, ``o_t``."""
    action: Shaped[Array, "T B *action"]
    """What it did, ``a_t``."""
    reward: Float[Array, "T B"]
    """What it got, ``r_t`` (reward of the step from ``o_t``)."""
    terminated: Bool[Array, "T B"]
    """The environment ended the episode at this step."""
    truncated: Bool[Array, "T B"]
    """A step limit cut the episode at this step; never together with ``terminated``."""
    next_observation: PyTree
    """What followed ``a_t``: the true last observation where an episode ended."""
    behaviour: Outputs
    """Heads as they were when acting; constants."""
    memory: PyTree = ()
    """Recurrent state of the network at step 0; ``()`` if it has none."""


class Learner(NamedTuple):
    """What an update changes."""

    params: PyTree
    """The agent's parameters: a mapping from head name to that head's network."""
    optimizer: PyTree
    memory: PyTree = ()
    """Whatever else the rule keeps over a life: target network, averages, replay."""


class Report(NamedTuple):
    """What an update tells, besides the new learner."""

    metrics: dict[str, Float[Array, ""]]
    """Scalars to be logged."""
    # A dict, which JAX knows as a tree; a read-only mapping could not leave a jitted function.
    penalties: Mapping[str, Float[Array, ""]] = {}
    """Scalars differentiable in theta that a meta-loss may weigh by name."""


@runtime_checkable
class Spec(Protocol):
    """The facts of an environment that decide whether an objective can be used in it."""

    @property
    def name(self) -> str:
        """What the environment is called."""
        ...

    @property
    def num_actions(self) -> int | None:
        """Number of actions, or ``None`` where actions are continuous."""
        ...


class Network(NamedTuple):
    """An agent's network as an objective sees it: pure functions over one agent's parameters."""

    init: Callable[[Key], PyTree]
    """Parameters at birth."""
    act: Callable[[PyTree, PyTree], Outputs]
    """``(params, observation [...]) -> `` all heads at these observations."""
    sample: Callable[[Outputs, Array], Array]
    """``(outputs [...], noise [..., K]) -> actions [...]`` by uniform noise; see ``noise_size``."""
    mode: Callable[[Outputs], Array]
    """The most likely action."""
    unroll: Callable[[PyTree, Experience], tuple[Outputs, Outputs]]
    """Heads at ``o_t`` and at ``next_observation``, ``[T, B, D]``, differentiable in params."""
    log_prob: Callable[[Outputs, Array], Array]
    """``log pi(a)``, ``[...]``."""
    entropy: Callable[[Outputs], Array]
    """Entropy of the policy, ``[...]``."""
    kl: Callable[[Outputs, Outputs], Array]
    """``KL(first || second)`` of two policies, ``[...]``."""
    layout: Callable[[PyTree], PyTree]
    """For every leaf of the parameters, its ``Place``."""
    noise_size: int
    """Uniform numbers that one action takes."""


class Place(NamedTuple):
    """Where in an agent a leaf of its parameters stands."""

    head: str
    depth: int


@runtime_checkable
class Objective(Protocol):
    """An update rule. Implementations are frozen dataclasses: their fields are static.

    Rules, tested over the registry: an update loops only by ``scan`` with static lengths (else it
    has no gradient); dtypes follow the parameters; ``signals`` is computed outside the
    differentiated agent loss; products with theta go through :func:`dense`; an update knows
    neither devices nor populations.
    """

    @property
    def heads(self) -> Mapping[str, Head]:
        """Heads that the agent's network must have; ``"policy"`` is the one that acts."""
        ...

    def unsupported(self, spec: Spec) -> str | None:
        """The one line a person gets if this objective cannot be used there, or ``None``."""
        ...

    def init(self, key: Key) -> Theta:
        """Fresh parameters of the objective; ``()`` if hand-written."""
        ...

    def hyper(self, **overrides: float) -> Any:
        """Numbers of an agent's update (rates, discount, clip, ...): a named tuple, traced data."""
        ...

    def birth(self, theta: Theta, hyper: Any, network: Network, params: PyTree) -> Learner:
        """A learner at the start of its life."""
        ...

    def signals(
        self,
        theta: Theta,
        hyper: Any,
        network: Network,
        learner: Learner,
        experience: Experience,
        time: Time,
    ) -> dict[str, Array]:
        """What the objective says of an experience, constants for the agent: e.g. ``pi_hat``."""
        ...

    def update(
        self,
        theta: Theta,
        hyper: Any,
        network: Network,
        learner: Learner,
        experience: Experience,
        time: Time,
        key: Key,
    ) -> tuple[Learner, Report]:
        """One update of the agent."""
        ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Perturbed:
    r"""A matrix given as a shared mean and a low-rank difference, :math:`W = M + L R^\top`.

    No tuple, so that nothing but :func:`dense` can take it for something else.
    """

    mean: Float[Array, "I O"]
    left: Float[Array, "I R"]
    right: Float[Array, "O R"]


def dense(
    x: Float[Array, "*batch I"],
    w: Float[Array, "I O"] | Perturbed,
    products: Products = "float32",
) -> Array:
    r"""The product :math:`x W` for a plain or a perturbed matrix.

    Every product with theta goes through here, so that a search which perturbs a shared matrix by
    a low-rank one changes no objective.

    Args:
      x: inputs, ``[..., I]``.
      w: a matrix ``[I, O]``, or its :class:`Perturbed` form.
      products: ``bfloat16`` rounds both factors to eight bits first, where they are float32.

    Returns:
      ``[..., O]``, of the kind of ``x``.

    Example:
      >>> import jax.numpy as jnp
      >>> w = jnp.eye(2)
      >>> p = Perturbed(w, jnp.ones((2, 1)), jnp.ones((2, 1)))
      >>> dense(jnp.array([1.0, 2.0]), p).tolist()
      [4.0, 5.0]
    """
    if isinstance(w, Perturbed):
        within = dense(x, w.left, products)
        return dense(x, w.mean, products) + dense(within, w.right.T, products)
    if products == "bfloat16":
        # Not `precision`, by which a CPU multiplies in float32 all the same.
        rounded = x.astype(jnp.bfloat16), w.astype(jnp.bfloat16)
        return jnp.matmul(*rounded, preferred_element_type=x.dtype)
    return x @ w


def count_parameters(theta: Theta) -> int:
    """Number of scalars in a tree of arrays, or of their shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(theta))
