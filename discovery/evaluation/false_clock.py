"""Lies about time: an objective that is told another clock than the one it lives by.

What an objective is told is data, looked up by the updates that were truly done, so one program
serves the truth and every lie. Shape legend: ``L`` updates that can be looked up, at least as many
as the longest life.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from discovery.evaluation.table import TRUE
from learned_objectives.base import (
    Experience,
    Head,
    Key,
    Learner,
    Network,
    Objective,
    Report,
    Spec,
    Theta,
    Time,
)

HALF = "half"
"""The lie of a life that is stopped halfway through what it was told."""
SHORTEST = 64
"""Fewest updates that are tabulated, so that programs for short lives are shared."""


class Told(NamedTuple):
    """What an objective is told of time; numbers need not be whole."""

    n: Float[Array, " L"] | Float[np.ndarray, " L"]
    """By the updates that were truly done: those it believes were."""
    N: Float[Array, ""] | Float[np.ndarray, ""]
    """The horizon that it believes in."""


class Lied(NamedTuple):
    """Numbers of an agent's update under a :class:`FalseClock`; traced."""

    hyper: Any
    """Those of the objective itself."""
    told: Told | None = None
    """``None``: the truth."""


def _reversed(n: np.ndarray, horizon: int, seed: int) -> tuple[np.ndarray, float]:
    return horizon - 1 - n, float(horizon)


def _permuted(n: np.ndarray, horizon: int, seed: int) -> tuple[np.ndarray, float]:
    return np.random.default_rng([horizon, seed]).permutation(horizon), float(horizon)


def _quarter(n: np.ndarray, horizon: int, seed: int) -> tuple[np.ndarray, float]:
    """Past its believed end a life stays at its believed last update."""
    believed = max(1.0, horizon / 4)
    return np.minimum(n, believed - 1), believed


def _frozen(share: float) -> Callable[[np.ndarray, int, int], tuple[np.ndarray, float]]:
    return lambda n, horizon, seed: (np.full(horizon, share * horizon), float(horizon))


_TOLD: dict[str, Callable[[np.ndarray, int, int], tuple[np.ndarray, float]]] = {
    TRUE: lambda n, horizon, seed: (n, float(horizon)),
    "frozen-0": _frozen(0.0),
    "frozen-0.5": _frozen(0.5),
    "frozen-0.95": _frozen(0.95),
    "reversed": _reversed,
    "permuted": _permuted,
    "quarter": _quarter,
    "fourfold": lambda n, horizon, seed: (n, 4.0 * horizon),
    HALF: lambda n, horizon, seed: (n, 2.0 * horizon),
}
CLOCKS: tuple[str, ...] = tuple(_TOLD)
"""The truth, then every lie."""


def told(clock: str, horizon: int, length: int, seed: int = 0) -> Told:
    r"""What an objective is told along a life of N updates.

    With n updates truly done: ``true`` :math:`(n, N)`; ``frozen-t`` :math:`(t N, N)`; ``reversed``
    :math:`(N - 1 - n, N)`; ``permuted`` :math:`(\sigma(n), N)` for a permutation of 0 to N - 1;
    ``quarter`` :math:`N' = \max(1, N/4)`, :math:`n' = \min(n, N' - 1)`; ``fourfold``
    :math:`(n, 4N)`; ``half`` :math:`(n, 2N)`. The unit of the logarithm stays as it is.

    Args:
      clock: one of :data:`CLOCKS`.
      horizon: N, of the life that is lived.
      length: L; the same for all horizons that shall share a program.
      seed: of the permutation.

    Returns:
      Told, as NumPy arrays; past the horizon it stays at the last update.

    Raises:
      ValueError: no such clock, or a life longer than L.

    Example:
      >>> told("reversed", 3, 4).n.tolist()
      [2.0, 1.0, 0.0, 0.0]
    """
    if clock not in _TOLD:
        raise ValueError(f"unknown clock {clock!r}; known: {', '.join(CLOCKS)}")
    if not 1 <= horizon <= length:
        raise ValueError(f"a life of {horizon} updates does not fit {length}")
    n, believed = _TOLD[clock](np.arange(horizon), horizon, seed)
    padded = np.concatenate([n, np.full(length - horizon, n[-1])])
    return Told(padded.astype(np.float32), np.asarray(believed, np.float32))


def length(longest: int) -> int:
    """Updates to tabulate for lives of up to so many: the next power of two."""
    return max(SHORTEST, 1 << (longest - 1).bit_length())


@dataclass(frozen=True)
class FalseClock:
    """An objective that is told what its ``hyper`` says of time, whatever the time is."""

    objective: Objective

    @property
    def heads(self) -> Mapping[str, Head]:
        """Those of the objective."""
        return self.objective.heads

    def unsupported(self, spec: Spec) -> str | None:
        """As the objective says."""
        return self.objective.unsupported(spec)

    def init(self, key: Key) -> Theta:
        """Fresh parameters of the objective."""
        return self.objective.init(key)

    def hyper(self, **overrides: float) -> Lied:
        """The objective's own numbers, and no lie."""
        return Lied(self.objective.hyper(**overrides))

    def birth(self, theta: Theta, hyper: Lied, network: Network, params: Any) -> Learner:
        """A learner of the objective."""
        return self.objective.birth(theta, hyper.hyper, network, params)

    def signals(
        self,
        theta: Theta,
        hyper: Lied,
        network: Network,
        learner: Learner,
        experience: Experience,
        time: Time,
    ) -> dict[str, Array]:
        """What the objective says when it believes what it is told."""
        time = _believed(time, hyper.told)
        return self.objective.signals(theta, hyper.hyper, network, learner, experience, time)

    def update(
        self,
        theta: Theta,
        hyper: Lied,
        network: Network,
        learner: Learner,
        experience: Experience,
        time: Time,
        key: Key,
    ) -> tuple[Learner, Report]:
        """The objective's update when it believes what it is told."""
        time = _believed(time, hyper.told)
        return self.objective.update(theta, hyper.hyper, network, learner, experience, time, key)


def _believed(time: Time, told: Told | None) -> Time:
    """The time that an objective is told; it stands in for the clock, so it reads its fields."""
    if told is None:
        return time
    return time._replace(n=jnp.take(told.n, time.n, mode="clip"), N=jnp.asarray(told.N))
