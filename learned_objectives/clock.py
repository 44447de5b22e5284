"""The clock: the only place that knows ``n / N``, ``log N`` and remaining updates.

``n`` updates are done of ``N`` in all. ``t = n / N`` has no unit and runs from 0 to
``(N - 1) / N``. A logarithm has one: it counts updates of 1,280 environment steps (64 environments
x 20 steps), so an agent with another batch is told ``N' = N * B * T / 1280`` there, and only there.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from learned_objectives.base import Time

BASE_STEPS = 1280
"""Environment steps of one update of the published agent."""


def _fraction(time: Time, dtype: DTypeLike) -> Array:
    return time.n.astype(dtype) / time.N.astype(dtype)


def _log(updates: Array, time: Time, dtype: DTypeLike) -> Array:
    return jnp.log(updates.astype(dtype) * time.unit.astype(dtype))


def _remaining(time: Time) -> Array:
    """Updates that remain; at least 1, so that a life frozen at its end has finite features."""
    return jnp.maximum(time.N - time.n, 1)


RANGE = (10.0, 250.0)
"""N' at which the scaled log is -1 and 1, the horizons of the published search."""


def _scaled_log(time: Time, dtype: DTypeLike, ends: tuple[float, float] = RANGE) -> Array:
    """The log of the horizon, in [-1, 1] for N' between the two ends."""
    low, high = map(log, ends)
    return (_log(time.N, time, dtype) - (low + high) / 2) / ((high - low) / 2)


def _constant(time: Time, dtype: DTypeLike) -> tuple[Array, ...]:
    return jnp.asarray(0.5, dtype), jnp.asarray(log(50), dtype)


def _elapsed(time: Time, dtype: DTypeLike) -> tuple[Array, ...]:
    return (jnp.log1p(time.n.astype(dtype) * time.unit.astype(dtype)) / log(250),)


def _raw(time: Time, dtype: DTypeLike) -> tuple[Array, ...]:
    return time.n.astype(dtype), time.N.astype(dtype)


CLOCKS: dict[str, tuple[int, Callable[[Time, DTypeLike], tuple[Array, ...]]]] = {
    "none": (0, lambda time, dtype: ()),
    "constant": (2, _constant),
    "elapsed": (1, _elapsed),
    "horizon": (1, lambda time, dtype: (_scaled_log(time, dtype),)),
    "fraction": (1, lambda time, dtype: (_fraction(time, dtype),)),
    "fraction_log": (2, lambda time, dtype: (_fraction(time, dtype), _log(time.N, time, dtype))),
    "fraction_scaled": (
        2,
        lambda time, dtype: (_fraction(time, dtype), _scaled_log(time, dtype)),
    ),
    "remaining": (
        2,
        lambda time, dtype: (1 - _fraction(time, dtype), _log(_remaining(time), time, dtype)),
    ),
    "raw": (2, _raw),
    "raw_scaled": (2, lambda time, dtype: tuple(x / 250 for x in _raw(time, dtype))),
}
"""Form -> (number of features, what it computes)."""

LOGS = frozenset({"horizon", "fraction_scaled"})
"""Forms whose scaled log ``clip_log`` can hold in [-1, 1]."""


def size(clock: str) -> int:
    """Number of features of a clock.

    Raises:
      ValueError: the form is not known.
    """
    if clock not in CLOCKS:
        raise ValueError(f"unknown clock {clock!r}; known: {', '.join(CLOCKS)}")
    return CLOCKS[clock][0]


def features(
    clock: str,
    time: Time,
    dtype: DTypeLike,
    clip_log: bool = False,
    ends: tuple[float, float] = RANGE,
) -> Float[Array, " F"]:
    r"""What an objective sees of time.

    With :math:`t = n/N`, :math:`N' = N \cdot \text{unit}` and
    :math:`l = (\ln N' - \ln 50) / \ln 5` (-1 and 1 at the ``ends``, here 10 and 250):
    ``none`` nothing; ``constant`` :math:`(1/2, \ln 50)`; ``elapsed``
    :math:`\ln(1 + n') / \ln 250`; ``horizon`` :math:`l`; ``fraction`` :math:`t`; ``fraction_log``
    :math:`(t, \ln N')`, the form of the paper; ``fraction_scaled`` :math:`(t, l)`; ``remaining``
    :math:`(1 - t, \ln(N' - n'))`; ``raw`` :math:`(n, N)`; ``raw_scaled`` :math:`(n, N)/250`.

    Args:
      clock: one of the forms.
      time: where the agent stands.
      dtype: of the result.
      clip_log: hold ``l`` in [-1, 1], outside the horizons trained on.
      ends: N' at which ``l`` is -1 and 1, where a search has other horizons than the published one.

    Returns:
      The features, ``[size(clock)]``.

    Raises:
      ValueError: the form is not known.

    Example:
      >>> import jax.numpy as jnp
      >>> time = Time(n=jnp.asarray(5), N=jnp.asarray(10), unit=jnp.asarray(1.0))
      >>> [round(float(x), 3) for x in features("fraction_log", time, jnp.float32)]
      [0.5, 2.303]

    Source: Discovering Temporally-Aware Reinforcement Learning Algorithms, section 4; the forms
    other than ``fraction_log`` and ``raw`` are controls of our own.
    """
    if not size(clock):
        return jnp.zeros((0,), dtype)
    values = list(CLOCKS[clock][1](time, dtype))
    if clock in LOGS:
        values[-1] = _scaled_log(time, dtype, ends)
    if clip_log and clock in LOGS:
        values[-1] = jnp.clip(values[-1], -1, 1)
    return jnp.stack(values)


def check_ends(ends: object) -> None:
    """Refuse ends of the scaled log that are not two rising numbers above zero.

    Raises:
      ValueError: they are not.
    """
    numbers = isinstance(ends, tuple) and all(type(end) in (int, float) for end in ends)
    if not (numbers and len(ends) == 2 and 0 < ends[0] < ends[1] < float("inf")):  # type: ignore[arg-type, index]
        raise ValueError(f"log_ends must be two rising numbers above 0, not {ends!r}")


def remaining_share(time: Time, dtype: DTypeLike) -> Float[Array, ""]:
    """Share of a life that is left, ``1 - n/N``: 1 at birth, 1/N at the last update, 0 after it.

    Example:
      >>> import jax.numpy as jnp
      >>> time = Time(n=jnp.asarray(1), N=jnp.asarray(4), unit=jnp.asarray(1.0))
      >>> float(remaining_share(time, jnp.float32))
      0.75
    """
    return jnp.clip(1 - _fraction(time, dtype), 0, 1)
