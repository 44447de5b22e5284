"""Learned policy optimisation: LPO; with a clock, TA-LPO.

Shape legend: ``W`` width of the network, ``K`` copies of the eight features that a clock adds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from learned_objectives import clock as clocks
from learned_objectives.base import Key, Theta, Time, dense
from learned_objectives.mirror import Mirror, MirrorHyper, clipped_excess

FEATURES = 8
"""What the network sees of ``p`` and ``A``."""

MARGIN = 1e-4
"""What is taken off before the ReLU: it keeps a neighbourhood of ``p = 1`` flat."""

LARGEST_LOG = 10.0
"""Features see ``log p`` held in this range; the surrogate does not."""


@dataclass(frozen=True)
class LPO(Mirror):
    r"""A drift that is a small network, blind to time or aware of it.

    .. math:: D = \mathrm{ReLU}(P + f(x) - 10^{-4}), \quad
              x = [\ln p, (\ln p)^2, 1 - p, (1 - p)^2, \text{the same times } A]

    with P the excess that PPO clips and f a layer of tanh without biases. All of x is zero at
    p = 1, so there D and its slope are zero whatever the weights. A clock keeps that by
    multiplying: with features :math:`c_1 \ldots c_K` the network reads
    :math:`[x; c_1 x; \ldots; c_K x]`.

    Source: Discovered Policy Optimisation (NeurIPS 2022) for the drift; Discovering
    Temporally-Aware Reinforcement Learning Algorithms (ICLR 2024), equation 10, for
    :math:`[x; t x]`, which is the default.
    """

    width: int = 128
    clock: str = "fraction"
    clip_log: bool = True
    log_ends: tuple[float, float] = clocks.RANGE
    """N', in updates of 1,280 environment steps, that the scaled log tells as -1 and 1."""
    ppo_term: bool = True
    """Learn on top of PPO; else the drift is the network's alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        clocks.check_ends(self.log_ends)

    @property
    def copies(self) -> int:
        """K: features of the clock. ``constant`` is the equal of ``fraction``, so it has one."""
        return 1 if self.clock == "constant" else clocks.size(self.clock)

    def init(self, key: Key) -> Theta:
        """LeCun-normal kernels."""
        lecun = jax.nn.initializers.lecun_normal()
        first, second = jax.random.split(key)
        return {
            "w1": lecun(first, (FEATURES * (1 + self.copies), self.width)),
            "w2": lecun(second, (self.width, 1)),
        }

    def drift(
        self,
        theta: Theta,
        hyper: MirrorHyper,
        log_ratio: Float[Array, "*batch"],
        advantage: Float[Array, "*batch"],
        time: Time,
    ) -> Float[Array, "*batch"]:
        """What the network says, on top of PPO's term or alone."""
        x = self.inputs(hyper, log_ratio, advantage, time)
        said = dense(jnp.tanh(dense(x, theta["w1"])), theta["w2"])[..., 0]
        if self.ppo_term:
            said = clipped_excess(log_ratio, advantage, hyper.clip_ratio) + said
        return jax.nn.relu(said - MARGIN)

    def inputs(
        self,
        hyper: MirrorHyper,
        log_ratio: Float[Array, "*batch"],
        advantage: Float[Array, "*batch"],
        time: Time,
    ) -> Float[Array, "*batch I"]:
        """What the network reads: the features, and a copy of them for each of the clock's."""
        held = jnp.clip(log_ratio, -LARGEST_LOG, LARGEST_LOG)
        gap = -jnp.expm1(held)
        x = jnp.stack([held, jnp.square(held), gap, jnp.square(gap)], axis=-1)
        x = jnp.concatenate([x, x * advantage[..., None]], axis=-1)
        told = clocks.features(self.clock, time, x.dtype, self.clip_log, self.log_ends)[
            : self.copies
        ]
        told = (hyper.clock_gate * told).astype(x.dtype)
        return jnp.concatenate([x, *(c * x for c in told)], axis=-1)

    def without_clock(self, theta: Theta) -> tuple[LPO, Theta]:
        """The horizon-blind objective that ignores the clock's weights: what a twin is saved as."""
        return replace(self, clock="none", clip_log=True, log_ends=clocks.RANGE), {
            **theta,
            "w1": theta["w1"][:FEATURES],
        }

    def baked(self, theta: Theta, gate: float) -> tuple[LPO, Theta]:
        """The same objective with the clock's gate in its weights: for gate 0, without a clock."""
        if gate == 0:
            return self.without_clock(theta)
        rows = np.arange(theta["w1"].shape[0])
        scale = np.where(rows < FEATURES, 1.0, gate).astype(theta["w1"].dtype)
        return self, {**theta, "w1": theta["w1"] * scale[:, None]}


def with_clock(objective: LPO, theta: Theta, clock: str) -> tuple[LPO, Theta]:
    """A horizon-blind LPO as a temporally-aware one that does not use its clock yet.

    Args:
      objective: with clock ``none``.
      theta: its parameters.
      clock: one of the forms of ``clock.py``.

    Returns:
      The objective with that clock and its parameters, the clock's rows at zero: it says what the
      first one said, at any time.

    Raises:
      ValueError: the objective has a clock already, or the form is not known.
    """
    if objective.clock != "none":
        raise ValueError(f"the objective has a clock already: {objective.clock}")
    aware = replace(objective, clock=clock)
    rows = jnp.zeros((FEATURES * aware.copies, objective.width), theta["w1"].dtype)
    return aware, {**theta, "w1": jnp.concatenate([theta["w1"], rows])}
