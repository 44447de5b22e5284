"""Mirror learning: one update around any drift, with PPO and DPO as two of them.

Shape legend: ``T`` steps, ``B`` environments, ``L`` steps of a segment, ``U`` units that
minibatches are made of (``T B`` steps, or ``T B / L`` segments), ``M`` units of one minibatch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree, UInt32

from learned_objectives import clock as clocks
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
from learned_objectives.returns import advantage_over_return, generalized_advantage, normalise

Scalar = float | Float[Array, ""]


class MirrorHyper(NamedTuple):
    """Numbers of an agent's update in mirror learning; traced."""

    policy_rate: Any = 3e-4
    """Learning rate of the policy head."""
    value_rate: Any = 3e-4
    """Learning rate of the value head."""
    anneal: Any = 0.0
    """How far both rates fall over a life: 0 constant, 1 linearly to zero, ``x (1 - n/N)``."""
    clip: Any = 0.5
    """Norm to which the gradient of all heads together is clipped."""
    discount: Any = 0.99
    """gamma."""
    trace: Any = 0.95
    """lambda of the advantage."""
    reward_scale: Any = 1.0
    """Rewards are multiplied by this."""
    value_weight: Any = 0.5
    """c_v, weight of the value loss."""
    value_clip: Any = 0.2
    """How far a value may move from the one when acting before its loss saturates; inf for no
    bound."""
    entropy_weight: Any = 0.01
    """c_H, weight of the mean entropy."""
    clip_ratio: Any = 0.2
    """eps, bound of PPO's ratio; of its term in LPO's drift, too."""
    clock_gate: Any = 1.0
    """Read by a drift with a clock, whose features are multiplied by it."""


def clipped_excess(
    log_ratio: Float[Array, "*batch"], advantage: Float[Array, "*batch"], clip_ratio: Scalar
) -> Float[Array, "*batch"]:
    r"""PPO as a drift: what its clip takes from :math:`p A`.

    :math:`\mathrm{ReLU}((p - \mathrm{clip}(p, 1 - \epsilon, 1 + \epsilon)) A)`, so that
    :math:`p A` less this is :math:`\min(p A, \mathrm{clip}(p) A)`.

    Args:
      log_ratio: :math:`\ln p`, ``[...]``.
      advantage: A, ``[...]``.
      clip_ratio: :math:`\epsilon`.

    Returns:
      ``[...]``, zero or above.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(clipped_excess(jnp.log(1.5), jnp.asarray(2.0), 0.2)), 3)
      0.6

    Source: Schulman et al. 2017, equation 7; as a drift, Kuba et al. 2022.
    """
    ratio = jnp.exp(log_ratio)
    # relu has slope 0 at 0, where maximum would have 1/2.
    return jax.nn.relu((ratio - jnp.clip(ratio, 1 - clip_ratio, 1 + clip_ratio)) * advantage)


@dataclass(frozen=True)
class Mirror(ABC):
    r"""Epochs of minibatches on the surrogate of a drift; a subclass is its drift.

    With :math:`p = \pi/\pi_{old}` and A normalised within each minibatch, the loss is

    .. math:: -\mathrm{mean}[p A - D(p, A)] + c_v L_V - c_H \mathrm{mean} H

    with :math:`L_V = \frac12 \mathrm{mean} \max((V - v)^2, (\mathrm{clip}(V, V_{old} \pm c) -
    v)^2)` and v the lambda-return. One update is one iteration: n is the same for all its epochs
    and minibatches, which are drawn afresh every epoch. A drift is never negative, and is zero with
    slope zero at p = 1.

    Source: Mirror Learning (ICML 2022) for the surrogate; Discovered Policy Optimisation
    (NeurIPS 2022) for its use; losses and epochs are those of PPO (Schulman et al. 2017).
    """

    epochs: int = 4
    minibatches: int = 8
    optimizer: descent.Kind = "adam"
    adam_epsilon: float = 1e-5
    segments: bool = False
    """Minibatches of segments, one environment each, instead of single steps."""
    segment: int = 0
    """L, steps of a segment; 0 for the whole rollout."""
    recompute: bool = False
    """Advantages and targets from the critic as it is at each minibatch, in the form of Brax;
    else once an iteration, from the critic that acted."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.minibatches < 1:
            raise ValueError("epochs and minibatches must be at least 1")
        if self.recompute and not self.segments:
            raise ValueError("recompute needs segments: single steps have no lambda-return")
        if self.segment < 0 or (self.segment and not self.segments):
            raise ValueError("segment is a length, for minibatches of segments only")

    @abstractmethod
    def drift(
        self,
        theta: Theta,
        hyper: MirrorHyper,
        log_ratio: Float[Array, "*batch"],
        advantage: Float[Array, "*batch"],
        time: Time,
    ) -> Float[Array, "*batch"]:
        """D at ``log p`` and A, ``[...]``."""

    def drift_surface(
        self,
        theta: Theta,
        hyper: MirrorHyper,
        log_ratio: Float[Array, "*batch"],
        advantage: Float[Array, "*batch"],
        time: Time,
    ) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
        """The drift and its slope in p, for pictures.

        Args:
          theta: the objective's parameters.
          hyper: numbers of the update.
          log_ratio: ``log p``, ``[...]``.
          advantage: A, of the same shape.
          time: where in its life the agent is told to be.

        Returns:
          ``D`` and ``dD/dp``, each ``[...]``; ``A - dD/dp`` is what the policy is pushed by.
        """
        value, slope = jax.jvp(
            lambda x: self.drift(theta, hyper, x, advantage, time),
            (log_ratio,),
            (jnp.ones_like(log_ratio),),
        )
        return value, slope * jnp.exp(-log_ratio)

    @property
    def heads(self) -> Mapping[str, Head]:
        """A policy and a value."""
        return {"policy": Head("actions"), "value": Head(1)}

    def unsupported(self, spec: Spec) -> str | None:
        """A ratio of probabilities, or of densities, exists anywhere."""
        return None

    def misfit(self, steps: int, environments: int) -> str | None:
        """The one line a person gets if minibatches do not share out a rollout, or ``None``."""
        if self.segment and steps % self.segment:
            return (
                f"{steps} steps cannot be cut into segments of {self.segment}: "
                f"the nearest length that fits is {_nearest_divisor(steps, self.segment)}"
            )
        units = self._units(steps, environments)
        if units % self.minibatches == 0:
            return None
        whole = f"{units} segments" if self.segments else f"{steps} x {environments} steps"
        return (
            f"{whole} cannot be shared out evenly among {self.minibatches} minibatches: "
            f"the nearest number that fits is {_nearest_divisor(units, self.minibatches)}"
        )

    def init(self, key: Key) -> Theta:
        """Nothing is learned about the rule itself."""
        return ()

    def hyper(self, **overrides: float) -> MirrorHyper:
        """Rates, weights and bounds, with common ones as default."""
        return MirrorHyper(**overrides)

    def birth(self, theta: Theta, hyper: MirrorHyper, network: Network, params: Any) -> Learner:
        """A fresh optimiser."""
        return Learner(params=params, optimizer=descent.init(self.optimizer, params))

    def signals(
        self,
        theta: Theta,
        hyper: MirrorHyper,
        network: Network,
        learner: Learner,
        experience: Experience,
        time: Time,
    ) -> dict[str, Array]:
        """``advantage`` as it is before normalising, ``target`` of the critic, and ``pi_hat``.

        ``pi_hat`` is minus the advantage normalised over the whole rollout, as A2C has it: what
        pushes the policy while ``p = 1``, where a drift has no say.
        """
        now, after = network.unroll(jax.lax.stop_gradient(learner.params), experience)
        value, next_value = now["value"][..., 0], after["value"][..., 0]
        reward = hyper.reward_scale * experience.reward
        ends = experience.terminated, experience.truncated
        advantage = generalized_advantage(
            reward, value, next_value, *ends, hyper.discount, hyper.trace
        )
        target = advantage + value
        if self.recompute:
            advantage = advantage_over_return(
                reward, value, next_value, target, *ends, hyper.discount
            )
        return {"advantage": advantage, "target": target, "pi_hat": -normalise(advantage)}

    def update(
        self,
        theta: Theta,
        hyper: MirrorHyper,
        network: Network,
        learner: Learner,
        experience: Experience,
        time: Time,
        key: Key,
    ) -> tuple[Learner, Report]:
        """One iteration: all epochs and minibatches on one rollout.

        Raises:
          ValueError: minibatches do not share out the rollout, or would tear a memory apart.
        """
        steps, environments = experience.reward.shape
        if problem := self.misfit(steps, environments):
            raise ValueError(problem)
        if jax.tree.leaves(experience.memory) and (not self.segments or self.segment):
            raise ValueError(
                "a network with a memory needs minibatches of whole rollouts: segments"
            )
        experience = experience._replace(behaviour=jax.lax.stop_gradient(experience.behaviour))
        said = (
            {} if self.recompute else self._words(theta, hyper, network, learner, experience, time)
        )
        parts, said = (self._cut(tree) for tree in (experience._replace(memory=()), said))
        left = clocks.remaining_share(time, experience.reward.dtype)
        pace = (1 - hyper.anneal) + hyper.anneal * left
        rates = {"policy": pace * hyper.policy_rate, "value": pace * hyper.value_rate}

        def minibatch(now: Learner, order: Int[Array, " M"]) -> tuple[Learner, dict[str, Array]]:
            part = _part(parts, order)
            part = part._replace(memory=jax.tree.map(lambda leaf: leaf[order], experience.memory))
            words = (
                self._words(theta, hyper, network, now, part, time)
                if self.recompute
                else _part(said, order)
            )

            def loss(params: Any) -> tuple[Array, dict[str, Array]]:
                return self._loss(theta, hyper, network, params, part, words, time)

            gradient, metrics = jax.grad(loss, has_aux=True)(now.params)
            metrics["gradient_norm"] = descent.norm(gradient)
            params, optimizer = descent.step(
                self.optimizer,
                descent.clip(gradient, hyper.clip),
                now.optimizer,
                now.params,
                rates,
                None,  # clipped already, all heads together
                self.adam_epsilon,
            )
            return now._replace(params=params, optimizer=optimizer), metrics

        def epoch(now: Learner, bits: Array) -> tuple[Learner, dict[str, Array]]:
            return jax.lax.scan(minibatch, now, shuffled(bits).reshape(self.minibatches, -1))

        bits = jax.random.bits(key, (self.epochs, self._units(steps, environments)), jnp.uint32)
        learner, metrics = jax.lax.scan(epoch, learner, bits)
        return learner, Report(jax.tree.map(jnp.mean, metrics))

    def _units(self, steps: int, environments: int) -> int:
        """U, the number of segments or of single steps in a rollout."""
        length = (self.segment or steps) if self.segments else 1
        return steps // length * environments

    def _words(self, *arguments: Any) -> dict[str, Array]:
        """What of the signals a loss reads."""
        said = self.signals(*arguments)
        return {name: said[name] for name in ("advantage", "target")}

    def _cut(self, tree: PyTree) -> PyTree:
        """A rollout ``[T, B, ...]`` as its units: ``[L, U, ...]``, single steps ``[1, U, ...]``."""

        def cut(leaf: Array) -> Array:
            steps, environments, *rest = leaf.shape
            length = (self.segment or steps) if self.segments else 1
            rows = leaf.reshape(-1, length, environments, *rest)
            return jnp.moveaxis(rows, 0, 1).reshape(length, -1, *rest)

        return jax.tree.map(cut, tree)

    def _loss(
        self,
        theta: Theta,
        hyper: MirrorHyper,
        network: Network,
        params: Any,
        part: Experience,
        words: dict[str, Array],
        time: Time,
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """The loss on one minibatch, and what of it is reported."""
        outputs, _ = network.unroll(params, part)
        acted = part.behaviour
        log_ratio = network.log_prob(outputs, part.action) - network.log_prob(acted, part.action)
        advantage, target = normalise(words["advantage"]), words["target"]
        value, old = outputs["value"][..., 0], acted["value"][..., 0]
        chex.assert_equal_shape([log_ratio, advantage, value, old, target])

        ratio = jnp.exp(log_ratio)
        drift = self.drift(theta, hyper, log_ratio, advantage, time)
        near = jnp.clip(value, old - hyper.value_clip, old + hyper.value_clip)
        worse = jnp.maximum(jnp.square(value - target), jnp.square(near - target))
        value_loss = jnp.mean(worse) / 2
        entropy = network.entropy(outputs).mean()
        total = -jnp.mean(ratio * advantage - drift)
        total += hyper.value_weight * value_loss - hyper.entropy_weight * entropy
        metrics = {
            "entropy": entropy,
            "value_loss": value_loss,
            "kl": network.kl(acted, outputs).mean(),
            "clip_share": jnp.mean(jnp.abs(ratio - 1) > hyper.clip_ratio, dtype=ratio.dtype),
            "drift": drift.mean(),
        }
        return total, metrics


def shuffled(bits: UInt32[Array, " U"]) -> Int[Array, " U"]:
    """The numbers from 0 in random order.

    Random bits are sorted that carry their place in the lowest bits: one array instead of the pairs
    that ``jax.random.permutation`` sorts twice, which took a third of an iteration of PPO on a CPU
    (``benchmarks/README.md``). Two places whose other bits are equal stay in order: the odds of any
    two are even but for 1e-5, at most.

    Args:
      bits: random ones.

    Returns:
      ``[U]``.

    Example:
      >>> sorted(shuffled(jax.random.bits(jax.random.key(0), 5)).tolist())
      [0, 1, 2, 3, 4]
    """
    places = (bits.size - 1).bit_length()
    if places > 16:  # too few bits are left to be random
        return jnp.argsort(bits).astype(jnp.int32)
    marked = (bits >> places << places) | jnp.arange(bits.size, dtype=jnp.uint32)
    return (jnp.sort(marked) & (2**places - 1)).astype(jnp.int32)


def _part(tree: PyTree, order: Int[Array, " M"]) -> PyTree:
    """Some units of a rollout that is cut into them, ``[L, M, ...]``."""
    return jax.tree.map(lambda leaf: leaf[:, order], tree)


def _nearest_divisor(whole: int, wanted: int) -> int:
    divisors = [n for n in range(1, whole + 1) if whole % n == 0]
    return min(divisors, key=lambda n: abs(n - wanted))


@dataclass(frozen=True)
class PPO(Mirror):
    r"""Proximal policy optimisation: :math:`p A - D = \min(p A, \mathrm{clip}(p) A)`.

    Source: Schulman et al. 2017, equation 7.
    """

    def drift(
        self,
        theta: Theta,
        hyper: MirrorHyper,
        log_ratio: Float[Array, "*batch"],
        advantage: Float[Array, "*batch"],
        time: Time,
    ) -> Float[Array, "*batch"]:
        """What PPO's clip takes."""
        return clipped_excess(log_ratio, advantage, hyper.clip_ratio)


ALPHA, BETA = 2.0, 0.6
"""Of DPO's closed form: what was discovered, not numbers of an agent."""


@dataclass(frozen=True)
class DPO(Mirror):
    r"""Discovered policy optimisation, a closed form read off a learned drift.

    .. math:: D = \mathrm{ReLU}((p - 1) A - \alpha \tanh((p - 1) A / \alpha)), \quad A \ge 0

    .. math:: D = \mathrm{ReLU}(A \ln p - \beta \tanh(A \ln p / \beta)), \quad A < 0

    with :math:`\alpha = 2, \beta = 0.6`.

    Source: Discovered Policy Optimisation (NeurIPS 2022).
    """

    def drift(
        self,
        theta: Theta,
        hyper: MirrorHyper,
        log_ratio: Float[Array, "*batch"],
        advantage: Float[Array, "*batch"],
        time: Time,
    ) -> Float[Array, "*batch"]:
        """The closed form."""
        gain, loss = jnp.expm1(log_ratio) * advantage, log_ratio * advantage
        return jnp.where(
            advantage >= 0,
            jax.nn.relu(gain - ALPHA * jnp.tanh(gain / ALPHA)),
            jax.nn.relu(loss - BETA * jnp.tanh(loss / BETA)),
        )
