"""Agents: tables, MLPs and CNNs with the heads that an objective asks for.

Each head is a network of its own, without bias or hidden layer for a table. An agent has no input
of time: what it knows of its horizon reaches it through its objective alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PyTree

from discovery.config import AgentConfig, ConfigError
from envs.base import EnvSpec
from learned_objectives.base import Experience, Head, Key, Network, Outputs, Place


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
    """ReLU layers on a flat observation; LeCun-normal kernels, zero biases."""

    hidden: tuple[int, ...]
    width: int
    rank: int

    @nn.compact
    def __call__(self, observation: Array) -> Array:
        """``[..., *shape] -> [..., width]`` with ``rank`` dimensions in ``shape``."""
        batch = observation.shape[: observation.ndim - self.rank]
        x = observation.reshape(*batch, -1).astype(jnp.float32)
        for size in self.hidden:
            x = nn.relu(nn.Dense(size)(x))
        return nn.Dense(self.width)(x)


class CNN(nn.Module):
    """One 3 x 3 convolution with 16 filters, then ReLU layers: the published network of MinAtar."""

    hidden: tuple[int, ...]
    width: int

    @nn.compact
    def __call__(self, observation: Array) -> Array:
        """``[..., H, W, C] -> [..., width]``."""
        batch = observation.shape[:-3]
        x = nn.relu(nn.Conv(16, (3, 3), padding="VALID")(observation.astype(jnp.float32)))
        x = x.reshape(*batch, -1)
        for size in self.hidden:
            x = nn.relu(nn.Dense(size)(x))
        return nn.Dense(self.width)(x)


def _module(agent: AgentConfig, width: int, spec: EnvSpec) -> nn.Module:
    if agent.network == "table":
        if spec.num_states is None:
            raise ConfigError(
                f"a table needs states that can be counted, and {spec.name} shows observations "
                f"of shape {spec.observation_shape}: use --network mlp"
            )
        return Table(spec.num_states, width)
    if spec.num_states is not None:
        raise ConfigError(
            f"{spec.name} shows the index of a state, which only a table reads: use --network table"
        )
    if agent.network == "cnn":
        if len(spec.observation_shape) != 3:
            raise ConfigError(
                f"a CNN needs images, and {spec.name} shows observations of shape "
                f"{spec.observation_shape}: use --network mlp"
            )
        return CNN(agent.hidden, width)
    return MLP(agent.hidden, width, len(spec.observation_shape))


def _width(head: Head, actions: int) -> int:
    size = actions if head.size == "actions" else head.size
    return size * actions if head.per_action else size


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


def make_network(agent: AgentConfig, heads: Mapping[str, Head], spec: EnvSpec) -> Network:
    """The network of an agent for these heads in this environment.

    Args:
      agent: kind and widths.
      heads: what the objective asks for; ``"policy"`` acts.
      spec: of the environment.

    Returns:
      Pure functions over one agent's parameters, which are a mapping from head to network.

    Raises:
      ConfigError: the kind of network does not fit the observations, or actions are continuous.
    """
    if spec.num_actions is None:
        raise ConfigError(f"{spec.name} has continuous actions, and agents have discrete ones")
    actions = spec.num_actions
    modules = {name: _module(agent, _width(head, actions), spec) for name, head in heads.items()}
    dtype = jnp.int32 if spec.num_states is not None else jnp.float32

    def init(key: Key) -> dict[str, Any]:
        blank = jnp.zeros(spec.observation_shape, dtype)
        keys = jax.random.split(key, len(modules))
        return {
            name: module.init(k, blank)["params"]
            for k, (name, module) in zip(keys, modules.items(), strict=True)
        }

    def act(params: PyTree, observation: PyTree) -> Outputs:
        outputs: dict[str, Array] = {}
        for name, module in modules.items():
            out: Any = module.apply({"params": params[name]}, observation)
            if heads[name].per_action:
                out = out.reshape(*out.shape[:-1], actions, -1)
            outputs[name] = out
        return outputs

    def unroll(params: PyTree, experience: Experience) -> tuple[Outputs, Outputs]:
        return act(params, experience.observation), act(params, experience.next_observation)

    def layout(params: PyTree) -> PyTree:
        def places(head: str, layers: Mapping[str, PyTree]) -> dict[str, PyTree]:
            # By length first: Dense_10 stands behind Dense_2.
            order = sorted(layers, key=lambda layer: (len(layer), layer))
            return {
                layer: jax.tree.map(lambda _, depth=depth: Place(head, depth), layers[layer])
                for depth, layer in enumerate(order)
            }

        return {head: places(head, layers) for head, layers in params.items()}

    return Network(
        init=init,
        act=act,
        sample=_sample,
        mode=_mode,
        unroll=unroll,
        log_prob=_log_prob,
        entropy=_entropy,
        kl=_kl,
        layout=layout,
        noise_size=1,
    )
