"""Hand-written rivals through the same protocol: A2C, and an agent that never learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array

from learned_objectives import descent
from learned_objectives.base import (
    Experience,
    Head,
    Key,
    Learner,
    Network,
    Report,
    Spec,
    Theta,
    Time,
)
from learned_objectives.returns import generalized_advantage, normalise


class A2CHyper(NamedTuple):
    """Numbers of an agent's update under A2C; traced."""

    policy_rate: Any = 40.0
    """Learning rate of the policy head."""
    value_rate: Any = 4.0
    """Learning rate of the value head."""
    entropy_weight: Any = 0.01
    """Weight of the mean entropy."""
    clip: Any = 0.5
    """Norm to which each head's gradient is clipped."""
    discount: Any = 0.99
    """gamma."""
    trace: Any = 0.95
    """lambda of the advantage."""
    reward_scale: Any = 1.0
    """Rewards are multiplied by this; through the critic alone it tells, since advantages are
    normalised."""


@dataclass(frozen=True)
class A2C:
    r"""Advantage actor-critic with generalized advantages, one step a rollout.

    Policy: :math:`\mathrm{mean}[-A \log\pi(a|s)] - c_H \mathrm{mean} H`; critic:
    :math:`\mathrm{mean}(V - (A + V_{old}))^2`. A comes from the critic before its step and is
    normalised over the rollout.

    Source: Mnih et al. 2016; numbers of the public code of Discovering Temporally-Aware
    Reinforcement Learning Algorithms (SGD 40 and 4 for tables).
    """

    optimizer: descent.Kind = "sgd"

    @property
    def heads(self) -> Mapping[str, Head]:
        """A policy and a value."""
        return {"policy": Head("actions"), "value": Head(1)}

    def unsupported(self, spec: Spec) -> str | None:
        """A2C can be used anywhere."""
        return None

    def init(self, key: Key) -> Theta:
        """Nothing is learned about the rule itself."""
        return ()

    def hyper(self, **overrides: float) -> A2CHyper:
        """Rates, clip and discount, with the tabular ones as default."""
        return A2CHyper(**overrides)

    def birth(self, theta: Theta, hyper: A2CHyper, network: Network, params: Any) -> Learner:
        """A fresh optimiser."""
        return Learner(params=params, optimizer=descent.init(self.optimizer, params))

    def signals(
        self,
        theta: Theta,
        hyper: A2CHyper,
        network: Network,
        learner: Learner,
        experience: Experience,
        time: Time,
    ) -> dict[str, Array]:
        """``pi_hat`` (minus the normalised advantage, as LPG has it) and the critic's targets."""
        now, after = network.unroll(jax.lax.stop_gradient(learner.params), experience)
        value, next_value = now["value"][..., 0], after["value"][..., 0]
        advantage = generalized_advantage(
            hyper.reward_scale * experience.reward,
            value,
            next_value,
            experience.terminated,
            experience.truncated,
            hyper.discount,
            hyper.trace,
        )
        return {"pi_hat": -normalise(advantage), "target": advantage + value}

    def update(
        self,
        theta: Theta,
        hyper: A2CHyper,
        network: Network,
        learner: Learner,
        experience: Experience,
        time: Time,
        key: Key,
    ) -> tuple[Learner, Report]:
        """One gradient step of policy and critic, each on its own head."""
        said = self.signals(theta, hyper, network, learner, experience, time)

        def loss(params: Any) -> tuple[Array, dict[str, Array]]:
            outputs, _ = network.unroll(params, experience)
            log_pi = network.log_prob(outputs, experience.action)
            chex.assert_equal_shape([said["pi_hat"], log_pi])
            entropy = network.entropy(outputs).mean()
            critic = jnp.mean(jnp.square(outputs["value"][..., 0] - said["target"]))
            policy = jnp.mean(said["pi_hat"] * log_pi) - hyper.entropy_weight * entropy
            return policy + critic, {"entropy": entropy, "value_loss": critic}

        gradient, metrics = jax.grad(loss, has_aux=True)(learner.params)
        params, optimizer = descent.step(
            self.optimizer,
            gradient,
            learner.optimizer,
            learner.params,
            {"policy": hyper.policy_rate, "value": hyper.value_rate},
            hyper.clip,
        )
        metrics["gradient_norm"] = descent.norm(gradient["policy"])
        return Learner(params, optimizer, learner.memory), Report(metrics)


class RandomHyper(NamedTuple):
    """An agent that never learns has no numbers."""


@dataclass(frozen=True)
class Random:
    """No update at all: the agent keeps the policy it was born with."""

    @property
    def heads(self) -> Mapping[str, Head]:
        """A policy."""
        return {"policy": Head("actions")}

    def unsupported(self, spec: Spec) -> str | None:
        """It can be used anywhere."""
        return None

    def init(self, key: Key) -> Theta:
        """Nothing is learned."""
        return ()

    def hyper(self, **overrides: float) -> RandomHyper:
        """No numbers."""
        return RandomHyper(**overrides)

    def birth(self, theta: Theta, hyper: RandomHyper, network: Network, params: Any) -> Learner:
        """The parameters as they are."""
        return Learner(params=params, optimizer=())

    def signals(
        self,
        theta: Theta,
        hyper: RandomHyper,
        network: Network,
        learner: Learner,
        experience: Experience,
        time: Time,
    ) -> dict[str, Array]:
        """It says zero."""
        return {"pi_hat": jnp.zeros_like(experience.reward)}

    def update(
        self,
        theta: Theta,
        hyper: RandomHyper,
        network: Network,
        learner: Learner,
        experience: Experience,
        time: Time,
        key: Key,
    ) -> tuple[Learner, Report]:
        """The learner as it is."""
        outputs, _ = network.unroll(learner.params, experience)
        return learner, Report({"entropy": network.entropy(outputs).mean()})
