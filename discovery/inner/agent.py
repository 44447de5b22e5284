"""Agents: tables, MLPs and CNNs with the heads that an objective asks for.

Shape legend: ``A`` actions, ``D`` numbers of a continuous action, ``[...]`` any batch.

Each head is a network of its own, without bias or hidden layer for a table. An agent has no input
of time: what it knows of its horizon reaches it through its objective alone.

Discrete actions are a softmax. Continuous ones are a Gaussian, of which the head has mean and raw
deviation, ``[mean D, raw D]``; the action that is kept and learned from is the Gaussian's own
number, before it is brought into [-1, 1]. What brings it there is a part of the environment that
the agent acts in, :func:`acting`: so a probability never needs an inverse of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.scipy.special import ndtri
from jaxtyping import Array, Float, PyTree

from discovery.config import AgentConfig, ConfigError
from discovery.inner import kernels
from envs.base import Environment, EnvSpec, Level, Transition
from learned_objectives.base import Experience, Head, Key, Network, Outputs, Place

Activation = Literal["relu", "tanh", "swish"]

SMALLEST_DEVIATION = 1e-3
"""Added to the softplus of a raw deviation."""
NODES = 16
"""Of the quadrature behind the entropy of a squashed Gaussian."""

_ACTIVATIONS: dict[Activation, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "tanh": nn.tanh,
    "swish": nn.swish,
}
_HIDDEN_GAIN = math.sqrt(2)
_GAINS = {"policy": 0.01}
"""Of a head's last layer, one for the others; read by the orthogonal initialisation."""
_LATER = nn.initializers.zeros
"""Of kernels: all of an agent's are drawn together, after its layers are there."""


def _product(rows: Array, kernel: Array, *_: Any, **__: Any) -> Array:
    """``[N, I], [I, O] -> [N, O]``, as a batch of one product.

    The same numbers. But the gradient for the kernel contracts both factors over their first axis,
    which XLA does for a CPU more slowly than a product of copies turned round; of a batch it makes
    the copies (jaxlib 0.10.2, ``benchmarks/README.md``).
    """
    batch = rows[None, None], kernel[None]
    return jax.lax.dot_general(*batch, (((3,), (1,)), ((0,), (0,))))[0, 0]


def _dense(width: int) -> nn.Dense:
    """A layer, on rows ``[N, I]``."""
    return nn.Dense(width, kernel_init=_LATER, dot_general=_product)


class Table(nn.Module):
    """One row of logits per state, starting at zero; a lookup, not a one-hot product."""

    rows: int
    width: int

    @nn.compact
    def __call__(self, observation: Array) -> Array:
        """Rows of the states, ``[...] -> [..., width]``."""
        table = self.param("table", nn.initializers.zeros, (self.rows, self.width))
        return table[observation]


class MLP(nn.Module):
    """Layers on a flat observation; zero biases."""

    hidden: tuple[int, ...]
    width: int
    rank: int
    activation: Activation = "relu"

    @nn.compact
    def __call__(self, observation: Array) -> Array:
        """``[..., *shape] -> [..., width]`` with ``rank`` dimensions in ``shape``."""
        batch = observation.shape[: observation.ndim - self.rank]
        x = observation.reshape(math.prod(batch), -1).astype(jnp.float32)
        activate = _ACTIVATIONS[self.activation]
        for size in self.hidden:
            x = activate(_dense(size)(x))
        return _dense(self.width)(x).reshape(*batch, self.width)


class CNN(nn.Module):
    """One 3 x 3 convolution with 16 filters, then layers: the published network of MinAtar."""

    hidden: tuple[int, ...]
    width: int
    activation: Activation = "relu"

    @nn.compact
    def __call__(self, observation: Array) -> Array:
        """``[..., H, W, C] -> [..., width]``."""
        batch = observation.shape[:-3]
        activate = _ACTIVATIONS[self.activation]
        convolve = nn.Conv(16, (3, 3), padding="VALID", kernel_init=_LATER)
        rows = observation.reshape(math.prod(batch), *observation.shape[-3:])
        x = activate(convolve(rows.astype(jnp.float32)))
        x = x.reshape(len(x), -1)
        for size in self.hidden:
            x = activate(_dense(size)(x))
        return _dense(self.width)(x).reshape(*batch, self.width)


def _module(agent: AgentConfig, head: str, width: int, spec: EnvSpec) -> nn.Module:
    if agent.network == "table":
        if spec.num_states is None:
            raise ConfigError(
                f"a table needs states that can be counted, and {spec.name} shows observations "
                f"of shape {spec.observation_shape}: use --network mlp"
            )
        if agent.normalise_observations:
            raise ConfigError(
                "a table looks up the index of a state, which cannot be normalised: "
                "leave --normalise-observations off"
            )
        return Table(spec.num_states, width)
    if spec.num_states is not None:
        raise ConfigError(
            f"{spec.name} shows the index of a state, which only a table reads: use --network table"
        )
    hidden = agent.hidden
    if head == "value" and agent.value_hidden is not None:
        hidden = agent.value_hidden
    if agent.network == "cnn":
        if len(spec.observation_shape) != 3:
            raise ConfigError(
                f"a CNN needs images, and {spec.name} shows observations of shape "
                f"{spec.observation_shape}: use --network mlp"
            )
        return CNN(hidden, width, agent.activation)
    return MLP(hidden, width, len(spec.observation_shape), agent.activation)


class Policy(NamedTuple):
    """A distribution of actions over the head ``"policy"``; as the fields of ``Network``."""

    width: int
    """Of the head."""
    noise_size: int
    sample: Callable[[Outputs, Array], Array]
    mode: Callable[[Outputs], Array]
    log_prob: Callable[[Outputs, Array], Array]
    entropy: Callable[[Outputs], Array]
    kl: Callable[[Outputs, Outputs], Array]


def _log_prob(outputs: Outputs, action: Array) -> Array:
    log_pi = jax.nn.log_softmax(outputs["policy"])
    return jnp.take_along_axis(log_pi, action[..., None], axis=-1)[..., 0]


def _entropy(outputs: Outputs) -> Array:
    log_pi = jax.nn.log_softmax(outputs["policy"])
    return -jnp.sum(jnp.exp(log_pi) * log_pi, axis=-1)


def _kl(first: Outputs, second: Outputs) -> Array:
    log_p, log_q = (jax.nn.log_softmax(x["policy"]) for x in (first, second))
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def _sample(outputs: Outputs, noise: Float[Array, "*batch 1"]) -> Array:
    """Inverse transform: one uniform number an action instead of one for each possible action."""
    edges = jnp.cumsum(jax.nn.softmax(outputs["policy"]), axis=-1)
    # Rounded probabilities need not add up to 1: without their sum a last action of probability
    # zero could be taken. A comparison with NaN is false, so a NaN policy takes action 0.
    return jnp.sum(noise * edges[..., -1:] >= edges[..., :-1], axis=-1).astype(jnp.int32)


def _mode(outputs: Outputs) -> Array:
    return jnp.argmax(outputs["policy"], axis=-1).astype(jnp.int32)


def categorical(actions: int) -> Policy:
    """A softmax over ``A`` actions."""
    return Policy(actions, 1, _sample, _mode, _log_prob, _entropy, _kl)


def log_slope(x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    r"""Logarithm of the slope of tanh, :math:`\ln(1 - \tanh^2 x)`, finite where that underflows.

    Example:
      >>> import jax.numpy as jnp
      >>> float(log_slope(jnp.asarray(0.0)))
      0.0
    """
    return 2 * (math.log(2) - x - jax.nn.softplus(-2 * x))


def gaussian(shape: tuple[int, ...], squashed: bool) -> Policy:
    r"""A Gaussian for each number of an action, independent of each other.

    .. math:: x = \mu + \sigma z, \quad z \sim N(0, 1), \quad \sigma = \mathrm{softplus}(s) + .001

    The environment gets :math:`\tanh x`, or x clipped to [-1, 1]; the agent keeps x.

    - ``log_prob``: squashed, the density of :math:`\tanh x`, that of x over the slope of tanh
      there; clipped, the density of x, as if nothing were clipped.
    - ``mode``: the mean of x, the median of the action, which is what others act by when they act
      without noise; the density of a wide squashed Gaussian is highest elsewhere.
    - ``entropy``: squashed, :math:`H(x) + E[\ln(1 - \tanh^2 x)]`, the expectation by Gauss-Hermite
      quadrature: no noise, and off by less than 1e-4 a number for :math:`\sigma \le 1`, 4e-3 for 2,
      .03 for 3. Clipped, H(x).
    - ``kl``: of the Gaussians; tanh changes nothing about it.

    Args:
      shape: of an action.
      squashed: by tanh, not clipped.

    Returns:
      The distribution; noise is one uniform for each number, and takes x at most 5.3
      :math:`\sigma` from the mean in float32.

    Source: Haarnoja et al. 2018, appendix C, for the density under tanh.
    """
    size = math.prod(shape)
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    weights = weights / weights.sum()

    def split(outputs: Outputs) -> tuple[Array, Array]:
        mean, raw = jnp.split(outputs["policy"], 2, axis=-1)
        return mean, jax.nn.softplus(raw) + SMALLEST_DEVIATION

    def shaped(x: Float[Array, "*batch D"]) -> Array:
        return x.reshape(*x.shape[:-1], *shape)

    def sample(outputs: Outputs, noise: Float[Array, "*batch D"]) -> Array:
        mean, deviation = split(outputs)
        # Uniforms are multiples of eps from 0: half of it on, they lie evenly within (0, 1).
        half = jnp.finfo(noise.dtype).eps / 2
        z = ndtri(jnp.clip(noise + half, half, 1 - half))
        return shaped(mean + deviation * z.astype(mean.dtype))

    def log_prob(outputs: Outputs, action: Array) -> Array:
        mean, deviation = split(outputs)
        x = action.reshape(mean.shape)
        log = -jnp.square((x - mean) / deviation) / 2 - jnp.log(deviation)
        log = log - math.log(2 * math.pi) / 2
        return jnp.sum(log - log_slope(x) if squashed else log, axis=-1)

    def entropy(outputs: Outputs) -> Array:
        mean, deviation = split(outputs)
        each = jnp.log(deviation) + (1 + math.log(2 * math.pi)) / 2
        if squashed:
            x = mean[..., None] + deviation[..., None] * jnp.asarray(nodes, mean.dtype)
            # No matrix product, which accelerators round.
            each = each + jnp.sum(log_slope(x) * jnp.asarray(weights, mean.dtype), axis=-1)
        return jnp.sum(each, axis=-1)

    def kl(first: Outputs, second: Outputs) -> Array:
        (m, s), (n, t) = split(first), split(second)
        each = jnp.log(t / s) + (jnp.square(s / t) + jnp.square((m - n) / t) - 1) / 2
        return jnp.sum(each, axis=-1)

    return Policy(
        width=2 * size,
        noise_size=size,
        sample=sample,
        mode=lambda outputs: shaped(split(outputs)[0]),
        log_prob=log_prob,
        entropy=entropy,
        kl=kl,
    )


def acting(env: Environment, distribution: Literal["tanh", "clipped"]) -> Environment:
    """The environment as agents act in it.

    Args:
      env: any; continuous actions of it are in [-1, 1].
      distribution: of the agents, ``AgentConfig.distribution``.

    Returns:
      The same environment if its actions are discrete; else one whose step takes any numbers, and
      brings them into [-1, 1].
    """
    if env.spec.num_actions is not None:
        return env

    def step(noise: PyTree, state: PyTree, action: Array, level: Level) -> Transition:
        within = jnp.tanh(action) if distribution == "tanh" else jnp.clip(action, -1, 1)
        return env.step(noise, state, within, level)

    return env._replace(step=step)


def _width(head: Head, policy: Policy, spec: EnvSpec) -> int:
    size = policy.width if head.size == "actions" else head.size
    if not head.per_action:
        return size
    if spec.num_actions is None:
        raise ConfigError(
            f"the objective asks for a row for each action, and {spec.name} has continuous actions"
        )
    return size * spec.num_actions


def _in_order(layers: Mapping[str, Any]) -> list[str]:
    """Names of a head's layers, the first one first: Dense_10 stands behind Dense_2."""
    return sorted(layers, key=lambda layer: (len(layer), layer))


def make_network(agent: AgentConfig, heads: Mapping[str, Head], spec: EnvSpec) -> Network:
    """The network of an agent for these heads in this environment.

    Args:
      agent: kind, widths, and distribution of continuous actions.
      heads: what the objective asks for; ``"policy"`` acts.
      spec: of the environment; with continuous actions, the agent acts in :func:`acting` of it.

    Returns:
      Pure functions over one agent's parameters, which are a mapping from head to network.

    Raises:
      ConfigError: the kind of network does not fit the observations, or a head the actions.
    """
    if spec.num_actions is None:
        policy = gaussian(spec.action_shape, agent.distribution == "tanh")
    else:
        policy = categorical(spec.num_actions)
    modules = {
        name: _module(agent, name, _width(head, policy, spec), spec) for name, head in heads.items()
    }
    dtype = jnp.int32 if spec.num_states is not None else jnp.float32

    def init(key: Key) -> dict[str, Any]:
        blank = jnp.zeros(spec.observation_shape, dtype)
        params = {name: module.init(key, blank)["params"] for name, module in modules.items()}
        return params if agent.network == "table" else with_kernels(params, key)

    def with_kernels(params: PyTree, key: Key) -> PyTree:
        where = [(head, layer) for head, layers in params.items() for layer in _in_order(layers)]
        shapes = [params[head][layer]["kernel"].shape for head, layer in where]
        gains = [
            _GAINS.get(head, 1.0) if layer == _in_order(params[head])[-1] else _HIDDEN_GAIN
            for head, layer in where
        ]
        drawn = kernels.draw(agent.initialisation, key, shapes, gains)
        for (head, layer), kernel in zip(where, drawn, strict=True):
            params[head][layer]["kernel"] = kernel
        return params

    def act(params: PyTree, observation: PyTree) -> Outputs:
        outputs: dict[str, Array] = {}
        for name, module in modules.items():
            out: Any = module.apply({"params": params[name]}, observation)
            if heads[name].per_action:
                out = out.reshape(*out.shape[:-1], spec.num_actions, -1)
            outputs[name] = out
        return outputs

    def unroll(params: PyTree, experience: Experience) -> tuple[Outputs, Outputs]:
        return act(params, experience.observation), act(params, experience.next_observation)

    def layout(params: PyTree) -> PyTree:
        def places(head: str, layers: Mapping[str, PyTree]) -> dict[str, PyTree]:
            return {
                layer: jax.tree.map(lambda _, depth=depth: Place(head, depth), layers[layer])
                for depth, layer in enumerate(_in_order(layers))
            }

        return {head: places(head, layers) for head, layers in params.items()}

    return Network(
        init=init,
        act=act,
        sample=policy.sample,
        mode=policy.mode,
        unroll=unroll,
        log_prob=policy.log_prob,
        entropy=policy.entropy,
        kl=policy.kl,
        layout=layout,
        noise_size=policy.noise_size,
    )
