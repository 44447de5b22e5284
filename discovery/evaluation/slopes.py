"""Numbers of a schedule: slopes over the share of life, and curves of several horizons. No JAX.

Shape legend: ``U`` shares of life told, ``N`` updates of a life.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

TENTHS = np.arange(10) / 10
"""Shares of life that are told, one after another, of one experience."""
AGES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of life at which experience is recorded; 1 stands for the last update."""
REACH = 10.0
"""Turns of a drift are looked for at ratios from 1 up to this, or down to its inverse."""
_FEWEST = 2
"""Horizons, or shares of life, of which something can be said."""


def shares(horizon: int) -> Float[np.ndarray, " U"]:
    """Shares of life that are told: tenths, and the last that a life of this horizon sees.

    Example:
      >>> shares(20)[[0, 1, -2, -1]].round(2).tolist()
      [0.0, 0.1, 0.9, 0.95]
    """
    return np.unique(np.append(TENTHS, (horizon - 1) / horizon))


def ages(horizon: int) -> tuple[int, ...]:
    """Updates done when experience is recorded; a short life has fewer ages, none counts twice.

    Example:
      >>> ages(20), ages(2)
      ((0, 5, 10, 15, 19), (0, 1))
    """
    return tuple(sorted({min(int(age * horizon), horizon - 1) for age in AGES}))


def slope(
    times: Float[np.ndarray, " U"], values: Float[np.ndarray, "*more U"]
) -> Float[np.ndarray, "*more"]:
    """Least-squares slope over the last axis; of values that do not change exactly 0.

    Example:
      >>> float(slope(np.array([0.0, 0.5, 1.0]), np.array([3.0, 2.0, 1.0])))
      -2.0
    """
    if len(times) < _FEWEST:
        raise ValueError("a slope needs at least two times")
    centred = times - times.mean()
    return np.asarray((values - values[..., :1]) @ centred / (centred @ centred))


def same_sign(slopes: Sequence[float], sign: float) -> float:
    """Share of slopes that have this sign; one of exactly zero has none.

    Example:
      >>> same_sign([-1.0, -2.0, 0.5, 0.0], -1.0)
      0.5
    """
    return sum(sign * each > 0 for each in slopes) / len(slopes)


class Stretch(NamedTuple):
    """How far curves of lives of several horizons lie apart, mean over pairs of horizons."""

    by_share: float
    """Aligned by n/N: 0 if the schedule stretches with the horizon."""
    by_age: float
    """Aligned by n: 0 if it counts updates."""


def stretch(curves: Mapping[int, Float[np.ndarray, "..."]]) -> Stretch:
    r"""Do curves lie closer aligned by share of life, or by age?

    For two horizons M < N and curves x, y of a value at each update, both at the M updates of the
    shorter life:

    .. math:: \frac{1}{M} \sum_n |x(n) - y(n N / M)|, \quad \frac{1}{M} \sum_n |x(n) - y(n)|

    with y interpolated linearly between updates.

    Args:
      curves: horizon N -> a value at each of its updates, ``[N]``; at least two.

    Returns:
      Both distances, averaged over pairs of horizons.

    Example:
      >>> stretch({2: np.array([1.0, 0.5]), 4: np.array([1.0, 0.75, 0.5, 0.25])})
      Stretch(by_share=0.0, by_age=0.125)
    """
    if len(curves) < _FEWEST:
        raise ValueError("a schedule stretches from one horizon to another: give at least two")
    apart: list[tuple[float, float]] = []
    for short, long in itertools.combinations(sorted(curves), 2):
        x, y = curves[short], curves[long]
        at = np.arange(short) * (long / short)
        stretched = np.interp(at, np.arange(long), y)
        apart.append((float(np.abs(x - stretched).mean()), float(np.abs(x - y[:short]).mean())))
    return Stretch(*(math.fsum(column) / len(apart) for column in zip(*apart, strict=True)))


def reached(half: Float[np.ndarray, "*more"], advantage: float) -> Float[np.ndarray, "*more"]:
    """Logarithms of ratios, at :data:`REACH` where there is none: what a slope is taken of.

    Args:
      half: ratios; NaN where the drift turns nowhere within reach.
      advantage: whose sign tells the side.

    Returns:
      Finite numbers.
    """
    return np.log(np.where(np.isnan(half), REACH ** math.copysign(1, advantage), half))
