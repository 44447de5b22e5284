"""Learned policy gradient: LPG; with a clock, TA-LPG.

Shape legend: ``T`` steps, ``B`` environments, ``Y`` classes of the prediction, ``H`` width of the
recurrent cell, ``F`` features of the clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from learned_objectives import clock as clocks
from learned_objectives import descent
from learned_objectives.base import (
    Experience,
    Head,
    Key,
    Learner,
    Network,
    Outputs,
    Products,
    Report,
    Spec,
    Theta,
    Time,
    dense,
)


class LPGHyper(NamedTuple):
    """Numbers of an agent's update under LPG; traced."""

    policy_rate: Any = 40.0
    """Learning rate of the policy head."""
    prediction_rate: Any = 4.0
    """Learning rate of the prediction head."""
    prediction_weight: Any = 0.5
    """alpha_y, multiplied before the clip."""
    clip: Any = 0.5
    """Norm to which each head's gradient is clipped."""
    clock_gate: Any = 1.0
    """The clock's features are multiplied by this: 0 blinds the objective to time."""
    discount: Any = 0.99
    """Seen by the objective only with ``discount_input``."""
    reward_scale: Any = 1.0
    """Rewards are multiplied by this before the objective reads them."""


@dataclass(frozen=True)
class LPG:
    r"""The learned policy gradient, blind to time or aware of it.

    A network U runs backwards over each trajectory. At step t it reads

    .. math:: x_t = [r_t, d_t, \pi(a_t|s_t), e(y(s_t)), e(y(s_{t+1})), \text{clock}]

    through a gated recurrent unit and puts out :math:`\hat\pi_t` (a number) and :math:`\hat y_t` (a
    distribution over Y classes). The agent takes one gradient step on

    .. math:: L = \mathrm{mean}_{b,t}[\hat\pi_t \log\pi(a_t|s_t)
              + \alpha_y \mathrm{KL}(y(s_t) \| \hat y_t)]

    with U's words held constant, so :math:`\hat\pi` acts as minus an advantage. A termination shows
    to U as :math:`d_t = 1`; both endings cut the recurrence, so a truncation looks like the end of
    a rollout.

    Source: Discovering Reinforcement Learning Algorithms (NeurIPS 2020), section 3; Discovering
    Temporally-Aware Reinforcement Learning Algorithms (ICLR 2024), section 4, for the clock. A
    gated recurrent unit of width 256 and Y = 8 are the choices of the latter's public code.
    """

    width: int = 256
    predictions: int = 8
    embedding: int = 16
    clock: str = "fraction_log"
    clip_log: bool = False
    log_ends: tuple[float, float] = clocks.RANGE
    """N', in updates of 1,280 environment steps, that the scaled log tells as -1 and 1."""
    optimizer: descent.Kind = "sgd"
    through_inputs: bool = False
    """Let a meta-gradient pass through what U reads of the agent."""
    discount_input: bool = False
    """Show U the discount, as the papers have it and their public code has not."""
    products: Products = "float32"
    """Of the recurrent cell: ``bfloat16`` is faster where it is wide, and rounds to eight bits."""
    read_ahead: bool = field(default=False, metadata={"card": False})
    """Multiply U's inputs of a rollout in one product, before its loop over the steps.

    An accelerator wants few and large products. On a CPU what comes of that product has left the
    cache when a step needs it: a small product in each step is twice as fast
    (``benchmarks/README.md``). They agree but for rounding, so no card tells it: who builds a
    program chooses.
    """

    def __post_init__(self) -> None:
        clocks.check_ends(self.log_ends)

    @property
    def heads(self) -> Mapping[str, Head]:
        """A policy and a prediction without given meaning."""
        return {"policy": Head("actions"), "prediction": Head(self.predictions)}

    def unsupported(self, spec: Spec) -> str | None:
        """LPG reads pi(a|s), a probability: actions must be discrete."""
        if spec.num_actions is None:
            return f"LPG reads action probabilities, and {spec.name} has continuous actions"
        return None

    def init(self, key: Key) -> Theta:
        """LeCun-normal kernels, orthogonal recurrent kernel, zero biases."""
        lecun = jax.nn.initializers.lecun_normal()
        orthogonal = jax.nn.initializers.orthogonal()
        keys = iter(jax.random.split(key, 6))
        inputs = 5 + clocks.size(self.clock) + int(self.discount_input)
        y, e, h = self.predictions, self.embedding, self.width

        def gates(initializer: Any, rows: int) -> Array:
            """One draw for each of the three gates, side by side."""
            draw = jax.vmap(lambda key: initializer(key, (rows, h)))
            return jnp.concatenate(draw(jax.random.split(next(keys), 3)), axis=1)

        return {
            "embed": {
                "w1": lecun(next(keys), (y, e)),
                "b1": jnp.zeros(e),
                "w2": lecun(next(keys), (e, 1)),
                "b2": jnp.zeros(1),
            },
            "cell": {
                "wx": gates(lecun, inputs),
                "bx": jnp.zeros(3 * h),
                "wh": gates(orthogonal, h),
                "bh": jnp.zeros(h),
            },
            "pi": {"w": lecun(next(keys), (h, 1)), "b": jnp.zeros(1)},
            "y": {"w": lecun(next(keys), (h, y)), "b": jnp.zeros(y)},
        }

    def hyper(self, **overrides: float) -> LPGHyper:
        """Rates, clip and weights, with the published ones as default."""
        return LPGHyper(**overrides)

    def birth(self, theta: Theta, hyper: LPGHyper, network: Network, params: Any) -> Learner:
        """A fresh optimiser; LPG keeps nothing else."""
        return Learner(params=params, optimizer=descent.init(self.optimizer, params))

    def signals(
        self,
        theta: Theta,
        hyper: LPGHyper,
        network: Network,
        learner: Learner,
        experience: Experience,
        time: Time,
    ) -> dict[str, Array]:
        """What U says: ``pi_hat [T, B]`` and ``log_y_hat [T, B, Y]``."""
        params = learner.params if self.through_inputs else jax.lax.stop_gradient(learner.params)
        now, after = network.unroll(params, experience)
        x = self._inputs(theta, hyper, network, now, after, experience, time)
        hidden = self._recur(theta["cell"], x, experience.terminated | experience.truncated)
        hidden = jax.nn.relu(hidden)
        pi_hat = dense(hidden, theta["pi"]["w"])[..., 0] + theta["pi"]["b"][0]
        log_y_hat = jax.nn.log_softmax(dense(hidden, theta["y"]["w"]) + theta["y"]["b"])
        return {"pi_hat": pi_hat, "log_y_hat": log_y_hat}

    def _inputs(
        self,
        theta: Theta,
        hyper: LPGHyper,
        network: Network,
        now: Outputs,
        after: Outputs,
        experience: Experience,
        time: Time,
    ) -> Float[Array, "T B I"]:
        """What U reads at every step, the clock last."""
        dtype = theta["cell"]["bx"].dtype
        probability = jnp.exp(network.log_prob(now, experience.action))
        here = self._embed(theta["embed"], jax.nn.softmax(now["prediction"]))
        there = self._embed(theta["embed"], jax.nn.softmax(after["prediction"]))
        there = jnp.where(experience.terminated, 0, there)
        ended = experience.terminated
        reward = hyper.reward_scale * experience.reward
        columns = [x.astype(dtype) for x in (reward, ended, probability, here, there)]
        told = hyper.clock_gate * clocks.features(
            self.clock, time, dtype, self.clip_log, self.log_ends
        )
        if self.discount_input:
            told = jnp.concatenate([jnp.asarray(hyper.discount, dtype)[None], told])
        told = jnp.broadcast_to(told.astype(dtype), (*ended.shape, told.size))
        return jnp.concatenate([jnp.stack(columns, axis=-1), told], axis=-1)

    def _embed(self, theta: Theta, y: Float[Array, "T B Y"]) -> Float[Array, "T B"]:
        """A prediction as one number."""
        hidden = jax.nn.relu(dense(y, theta["w1"]) + theta["b1"])
        return (dense(hidden, theta["w2"]) + theta["b2"])[..., 0]

    def _recur(self, theta: Theta, x: Float[Array, "T B I"], cut: Array) -> Float[Array, "T B H"]:
        """The gated recurrent unit, last step first; nothing is carried over an ending."""

        def read(rows: Array) -> Array:
            return dense(rows, theta["wx"], self.products) + theta["bx"]

        carry_on = 1 - cut.astype(x.dtype)[..., None]

        def cell(later: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
            x_t, carry_on_t = now
            read_t = x_t if self.read_ahead else read(x_t)
            h = later * carry_on_t
            recurrent = dense(h, theta["wh"], self.products)
            xr, xz, xc = jnp.split(read_t, 3, axis=-1)
            hr, hz, hc = jnp.split(recurrent, 3, axis=-1)
            reset, keep = jax.nn.sigmoid(xr + hr), jax.nn.sigmoid(xz + hz)
            candidate = jnp.tanh(xc + reset * (hc + theta["bh"]))
            h = (1 - keep) * candidate + keep * h
            return h, h

        start = jnp.zeros((x.shape[1], self.width), x.dtype)
        every = read(x) if self.read_ahead else x, carry_on
        return jax.lax.scan(cell, start, every, reverse=True)[1]

    def update(
        self,
        theta: Theta,
        hyper: LPGHyper,
        network: Network,
        learner: Learner,
        experience: Experience,
        time: Time,
        key: Key,
    ) -> tuple[Learner, Report]:
        """One gradient step of the agent on L."""
        said = self.signals(theta, hyper, network, learner, experience, time)

        def loss(params: Any) -> tuple[Array, dict[str, Array]]:
            outputs, _ = network.unroll(params, experience)
            log_pi = network.log_prob(outputs, experience.action)
            chex.assert_equal_shape([said["pi_hat"], log_pi])
            log_y = jax.nn.log_softmax(outputs["prediction"])
            kl = jnp.sum(jnp.exp(log_y) * (log_y - said["log_y_hat"]), axis=-1)
            total = jnp.mean(said["pi_hat"] * log_pi + hyper.prediction_weight * kl)
            metrics = {
                "entropy": network.entropy(outputs).mean(),
                "prediction_loss": kl.mean(),
            }
            return total, metrics

        gradient, metrics = jax.grad(loss, has_aux=True)(learner.params)
        params, optimizer = descent.step(
            self.optimizer,
            gradient,
            learner.optimizer,
            learner.params,
            {"policy": hyper.policy_rate, "prediction": hyper.prediction_rate},
            hyper.clip,
        )
        penalties = {
            "pi_hat": jnp.mean(jnp.square(said["pi_hat"])),
            "y_hat": jnp.mean(jnp.sum(jnp.exp(2 * said["log_y_hat"]), axis=-1)),
        }
        metrics["gradient_norm"] = descent.norm(gradient["policy"])
        return Learner(params, optimizer, learner.memory), Report(metrics, penalties)

    def without_clock(self, theta: Theta) -> tuple[LPG, Theta]:
        """The horizon-blind objective that ignores the clock's weights: what a twin is saved as."""
        rows = theta["cell"]["wx"].shape[0] - clocks.size(self.clock)
        cell = {**theta["cell"], "wx": theta["cell"]["wx"][:rows]}
        blind = replace(self, clock="none", clip_log=False, log_ends=clocks.RANGE)
        return blind, {**theta, "cell": cell}

    def baked(self, theta: Theta, gate: float) -> tuple[LPG, Theta]:
        """The same objective with the clock's gate in its weights: for gate 0, without a clock."""
        if gate == 0:
            return self.without_clock(theta)
        rows = theta["cell"]["wx"].shape[0] - clocks.size(self.clock)
        scale = np.where(np.arange(theta["cell"]["wx"].shape[0]) < rows, 1.0, gate)
        wx = theta["cell"]["wx"] * scale[:, None].astype(theta["cell"]["wx"].dtype)
        return self, {**theta, "cell": {**theta["cell"], "wx": wx}}
