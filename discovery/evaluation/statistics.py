"""Statistics over search seeds and levels: NumPy and SciPy, no JAX.

Shape legend: ``S`` search seeds, ``L`` levels, ``R`` resamples. Scores are ``[S, L, ...]``: one
column of levels for each objective that a search of its own found. Everyone is scored on the same
levels, so a resample draws search seeds and levels apart and takes every drawn seed on every drawn
level: levels drawn again for each seed would average away the luck of the draw of levels, which
seeds have in common, and the interval would be too short. The price: where scores vary neither with
the seed nor with the level but only with their meeting, it is too long, by at most sqrt(3).

A score that is not finite ranks worst, here as in the search: it counts as minus infinity.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from scipy.stats import kendalltau, rankdata, trim_mean
from scipy.stats import norm as normal
from scipy.stats import t as student

Scores = Float[np.ndarray, "S L *rest"]
Statistic = Callable[[np.ndarray], np.ndarray]
"""``[R, S, L, ...] -> [R]``."""

RESAMPLES = 10_000
FEWEST_SEEDS = 5
"""Search seeds below which points are shown and no interval is claimed."""

_BLOCK = 2_000_000
"""Numbers that one block of resamples may hold."""
_TOGETHER = 32
"""Resamples computed together on shared draws: a block that a cache holds."""


class Interval(NamedTuple):
    """An estimate and its percentile interval."""

    estimate: float
    low: float
    high: float


class Difference(NamedTuple):
    """A paired difference, its percentile interval and its two-sided bootstrap p-value."""

    estimate: float
    low: float
    high: float
    p: float


def worst_if_not_finite(scores: Shaped[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Scores with minus infinity for whatever is not a finite number."""
    scores = np.asarray(scores, dtype=float)
    return np.where(np.isfinite(scores), scores, -np.inf)


def interquartile_mean(
    scores: Shaped[np.ndarray, "..."], axis: int | None = None
) -> Float[np.ndarray, "..."]:
    r"""Mean of the middle half: a quarter of the scores is cut at each end.

    With :math:`x_{(1)} \le \dots \le x_{(n)}` and :math:`k = \lfloor n / 4 \rfloor`,

    .. math:: \mathrm{IQM} = \frac{1}{n - 2k} \sum_{i = k + 1}^{n - k} x_{(i)}

    Args:
      scores: any shape.
      axis: the axis to average over; all of them if ``None``.

    Returns:
      The mean, without that axis; minus infinity where more than a quarter is not finite.

    Example:
      >>> float(interquartile_mean(np.array([0.0, 1.0, 2.0, 30.0])))
      1.5
    """
    return np.asarray(trim_mean(worst_if_not_finite(scores), 0.25, axis=axis))


def pooled(scores: Float[np.ndarray, "R S L *rest"]) -> Float[np.ndarray, " R"]:
    """The interquartile mean over everything but resamples: the statistic of one cell."""
    return interquartile_mean(scores.reshape(len(scores), -1), axis=1)


def over_horizons(scores: Float[np.ndarray, "R S L H"]) -> Float[np.ndarray, " R"]:
    """Mean over horizons of the interquartile mean at each: the primary endpoint."""
    resamples, horizons = scores.shape[0], scores.shape[-1]
    return interquartile_mean(scores.reshape(resamples, -1, horizons), axis=1).mean(-1)


def interval(
    scores: Scores,
    statistic: Statistic = pooled,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """A statistic with its percentile bootstrap interval, over search seeds, then levels.

    Args:
      scores: ``[S, L, ...]``. With one search seed the interval speaks of levels only.
      statistic: ``[R, S, L, ...] -> [R]``.
      confidence: share of intervals that shall hold the truth.
      resamples: R; computed in blocks, so memory does not grow with it.
      seed: of the resampling.

    Returns:
      The statistic of the scores themselves, and the quantiles of its resamples.
    """
    scores = _checked(scores)
    drawn = _resampled([scores], statistic, resamples, seed, paired=True)[0]
    return Interval(float(statistic(scores[None])[0]), *_quantiles(drawn, confidence))


def paired_difference(
    a: Scores,
    b: Float[np.ndarray, "Z M *more"],
    statistic: Statistic = pooled,
    *,
    paired_seeds: bool = True,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    r"""How far ``a`` is above ``b``, on the same levels.

    The difference of statistics, recomputed on resamples that both share: the same drawn levels
    and, where they pair, the same drawn search seeds. The p-value is
    :math:`2 \min(P(d \le 0), P(d \ge 0))` over resamples, each with one added to its count and to
    R, at most 1.

    Args:
      a: ``[S, L, ...]``, search seeds in the order of their task streams.
      b: ``[S', L, ...]``; if S' is not S, the two are drawn apart.
      statistic: ``[R, S, L, ...] -> [R]``.
      paired_seeds: search i of both had the same task stream; else they are drawn apart.
      confidence: share of intervals that shall hold the truth.
      resamples: R.
      seed: of the resampling.

    Returns:
      Estimate, interval and p-value.
    """
    a, b = _checked(a), _checked(b)
    if a.shape[1:] != b.shape[1:]:
        raise ValueError(f"levels do not pair: {a.shape[1:]} against {b.shape[1:]}")
    paired = a.shape[0] == b.shape[0] and (paired_seeds or a.shape[0] == 1)
    drawn_a, drawn_b = _resampled([a, b], statistic, resamples, seed, paired=paired)
    drawn = _minus(drawn_a, drawn_b)
    tail = 1 + min(np.sum(drawn <= 0), np.sum(drawn >= 0))
    estimate = _minus(statistic(a[None]), statistic(b[None]))[0]
    return Difference(
        float(estimate), *_quantiles(drawn, confidence), min(1.0, 2 * float(tail) / (resamples + 1))
    )


def probability_of_improvement(
    a: Float[np.ndarray, "S L"],
    b: Float[np.ndarray, "Z M"],
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    r"""Chance that a search for ``a`` beats one for ``b`` on a level.

    .. math:: \frac{1}{L} \sum_l \frac{1}{S S'} \sum_{i, j}
        \left( [a_{il} > b_{jl}] + \tfrac{1}{2} [a_{il} = b_{jl}] \right)

    Args:
      a: scores, search seeds by levels.
      b: scores of the other on the same levels.
      confidence: share of intervals that shall hold the truth.
      resamples: R; search seeds of each side and levels are drawn apart.
      seed: of the resampling.

    Returns:
      The probability with its interval, 1/2 where neither is better.

    Example:
      >>> probability_of_improvement(np.array([[1.0, 0.0]]), np.array([[0.0, 0.0]])).estimate
      0.75
    """
    a, b = _checked(a), _checked(b)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"levels do not pair: {a.shape[1]} against {b.shape[1]}")
    won = np.where(a[:, None] == b[None], 0.5, (a[:, None] > b[None]).astype(float))
    rng = np.random.default_rng(seed)
    # A mean over resampled indices is a product with how often each index was drawn.
    weights = [rng.multinomial(n, np.full(n, 1 / n), size=resamples) / n for n in won.shape]
    drawn = np.einsum("ri,rj,rl,ijl->r", *weights, won, optimize=True)
    return Interval(float(won.mean()), *_quantiles(drawn, confidence))


def holm(p: Float[np.ndarray, " K"]) -> Float[np.ndarray, " K"]:
    r"""Holm's step-down correction of K p-values.

    .. math:: \tilde p_{(i)} = \max_{j \le i} \min(1, (K - j + 1) \, p_{(j)})

    Args:
      p: p-values in any order.

    Returns:
      Adjusted p-values in the same order: those at most alpha are significant together at alpha.

    Example:
      >>> holm(np.array([0.01, 0.04, 0.03])).round(2).tolist()
      [0.03, 0.06, 0.06]
    """
    p = np.asarray(p, dtype=float)
    order = np.argsort(p, kind="stable")
    stepped = np.minimum(1.0, p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(stepped)
    return adjusted


# --- many cells on one set of draws -----------------------------------------------------------


class Draws(NamedTuple):
    """Resamples that many cells share: how often each search seed and each level was drawn."""

    seeds: Float[np.ndarray, "R S"]
    levels: Float[np.ndarray, "R L"]


def drawn(seeds: int, levels: int, resamples: int = RESAMPLES, seed: int = 0) -> Draws:
    """Resamples of search seeds and of levels, apart.

    Args:
      seeds: S.
      levels: L.
      resamples: R.
      seed: of the resampling.

    Returns:
      Counts: each row adds up to S, or L.
    """
    rng = np.random.default_rng(seed)
    counts = (rng.multinomial(n, np.full(n, 1 / n), size=resamples) for n in (seeds, levels))
    return Draws(*(each.astype(np.float32) for each in counts))


def pooled_on(scores: Float[np.ndarray, "S L"], draws: Draws) -> Float[np.ndarray, " R"]:
    """:func:`pooled` of every resample, from one sort of the scores.

    Args:
      scores: search seeds by levels.
      draws: of as many seeds and levels.

    Returns:
      The interquartile mean of each resample.
    """
    scores = _checked(scores)
    order = np.argsort(scores, axis=None, kind="stable")
    values = scores.ravel()[order]
    row, column = np.divmod(order, scores.shape[1])
    cut, count = scores.size // 4, scores.size
    bad = int(np.sum(~np.isfinite(values)))  # the first ones
    weights = np.where(np.isfinite(values), values, 0.0)
    found = []
    for start in range(0, len(draws.seeds), _TOGETHER):
        part = slice(start, start + _TOGETHER)
        times = draws.seeds[part].T[row]
        times *= draws.levels[part].T[column]
        # Of all copies of a score, in rising order, those that lie in the middle half.
        last = np.cumsum(times, axis=0)
        kept = np.minimum(last, count - cut)
        kept -= np.maximum(last - times, cut)
        np.maximum(kept, 0, out=kept)
        means = weights @ kept.astype(float) / (count - 2 * cut)
        found.append(np.where(np.any(kept[:bad] > 0, axis=0), -np.inf, means))
    return np.concatenate(found)


class Cell(NamedTuple):
    """A statistic of one cell on draws that it shares with others; one may be taken from another.

    Cells of one comparison are of the same search seeds and levels.
    """

    estimate: float
    whole: Float[np.ndarray, " R"]
    """On resamples of seeds and levels."""
    seeds: Float[np.ndarray, " Q"]
    """On resamples of search seeds alone."""
    searches: int
    """How many seeds there are."""

    def less(self, other: Cell) -> Cell:
        """How far this one is above another."""
        estimate = float(_minus(np.array(self.estimate), np.array(other.estimate)))
        whole, seeds = _minus(self.whole, other.whole), _minus(self.seeds, other.seeds)
        return Cell(estimate, whole, seeds, self.searches)

    def interval(self, confidence: float = 0.95) -> Difference:
        r"""The percentile interval, widened for few search seeds, and its p-value against zero.

        Resamples of a few seeds vary too little: by :math:`\sqrt{(S - 1) / S}`, and in the way of
        a normal law where Student's t with S - 1 degrees is in place. With v the variance of
        resamples and :math:`v_S` that of seeds alone, deviations from the estimate are multiplied
        by k,

        .. math:: k^2 = 1 + (c^2 - 1) \min(1, v_S / v), \quad
                  c^2 = \frac{S}{S - 1} \frac{t_{S-1}^2}{z^2}
        """
        drawn = self.whole
        if self.searches > 1 and np.all(np.isfinite(drawn)) and np.all(np.isfinite(self.seeds)):
            tail = (1 + confidence) / 2
            ratio = float(student.ppf(tail, self.searches - 1) / normal.ppf(tail))
            factor = ratio**2 * self.searches / (self.searches - 1)
            spread = float(drawn.var())
            share = min(1.0, float(self.seeds.var()) / spread) if spread > 0 else 0.0
            drawn = self.estimate + math.sqrt(1 + (factor - 1) * share) * (drawn - self.estimate)
        tail_count = 1 + min(np.sum(drawn <= 0), np.sum(drawn >= 0))
        p = min(1.0, 2 * float(tail_count) / (len(drawn) + 1))
        return Difference(self.estimate, *_quantiles(drawn, confidence), p)


def mean_of(cells: Sequence[Cell]) -> Cell:
    """Mean of the statistics of several cells, such as over horizons: the primary endpoint."""
    return Cell(
        math.fsum(cell.estimate for cell in cells) / len(cells),
        np.mean([cell.whole for cell in cells], axis=0),
        np.mean([cell.seeds for cell in cells], axis=0),
        cells[0].searches,
    )


def cell(scores: Float[np.ndarray, "S L"], resamples: int = RESAMPLES, seed: int = 0) -> Cell:
    """The interquartile mean of a cell, on the same draws for all cells of its shape.

    Args:
      scores: search seeds by levels.
      resamples: R; of seeds alone, for which less will do, at most 1,000.
      seed: of the resampling.

    Returns:
      The cell.
    """
    draws = _draws(*scores.shape, resamples, seed)
    few = min(resamples, 1_000)
    alone = Draws(draws.seeds[:few], np.ones((few, scores.shape[1]), np.float32))
    estimate = float(interquartile_mean(scores))
    return Cell(estimate, pooled_on(scores, draws), pooled_on(scores, alone), scores.shape[0])


@functools.lru_cache(maxsize=16)
def _draws(seeds: int, levels: int, resamples: int, seed: int) -> Draws:
    return drawn(seeds, levels, resamples, seed)


def student_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    r"""Mean of one number a search seed, with Student's interval.

    .. math:: \bar x \pm t_{S-1} \, s / \sqrt{S}

    Args:
      values: S of them, finite.
      confidence: share of intervals that shall hold the truth, of normal numbers.

    Returns:
      Mean and ends; NaN for the ends of fewer than two values.

    Example:
      >>> [round(x, 2) for x in student_interval([1.0, 2.0, 3.0])]
      [2.0, -0.48, 4.48]
    """
    found = np.asarray(values, float)
    mean = float(found.mean()) if found.size else math.nan
    if found.size < 2:
        return Interval(mean, math.nan, math.nan)
    reach = float(student.ppf((1 + confidence) / 2, found.size - 1))
    half = reach * float(found.std(ddof=1)) / math.sqrt(found.size)
    return Interval(mean, mean - half, mean + half)


# --- ranks ------------------------------------------------------------------------------------


def rank_shares(
    scores: Sequence[Scores], *, resamples: int = 2_000, seed: int = 0
) -> Float[np.ndarray, "K K"]:
    """How often each of several objectives takes each rank, on resamples of seeds and levels.

    Args:
      scores: of each objective, ``[S, L, ...]``, on the same levels; search seeds may differ in
        number, and are drawn apart where they do.
      resamples: R, on shared levels.
      seed: of the resampling.

    Returns:
      Row k: the shares in which objective k is first, second, ...; who ties shares the ranks.

    Example:
      >>> rank_shares([np.ones((2, 3)), np.zeros((2, 3))]).tolist()
      [[1.0, 0.0], [0.0, 1.0]]
    """
    cells = [_checked(each) for each in scores]
    paired = len({len(cell) for cell in cells}) == 1
    drawn = np.stack(_resampled(cells, pooled, resamples, seed, paired=paired))
    better = np.sum(drawn[None] > drawn[:, None], axis=1)
    same = np.sum(drawn[None] == drawn[:, None], axis=1)
    ranks = np.arange(len(cells))[:, None, None]
    taken = (ranks >= better) & (ranks < better + same)
    return np.asarray((taken / same).mean(axis=-1).T)


def rank_agreement(values: Float[np.ndarray, "K A"]) -> float:
    r"""How far seeds agree on the order of objectives: Kendall's tau-b, mean over pairs of seeds.

    Args:
      values: of each objective under each seed; the same seeds for all.

    Returns:
      1 where every seed gives one order, about 0 where the order is luck; NaN of fewer than two
      seeds or objectives, or where a seed tells none apart.

    Example:
      >>> rank_agreement(np.array([[1.0, 2.0, 5.0], [0.0, 1.0, 9.0]])).__round__(2)
      -0.33
    """
    values = worst_if_not_finite(values)
    if not min(values.shape) > 1:
        return math.nan
    pairs = itertools.combinations(values.T, 2)
    # An order without ties is all that matters of values; of infinities there is no difference.
    return float(np.mean([kendalltau(rankdata(a), rankdata(b)).statistic for a, b in pairs]))


# --- profiles ---------------------------------------------------------------------------------


def performance_profile(
    scores: Scores,
    thresholds: Float[np.ndarray, " K"],
    *,
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, " K"], Float[np.ndarray, " K"]]:
    """Share of runs whose score is above each threshold, with pointwise intervals.

    Args:
      scores: ``[S, L, ...]``.
      thresholds: ``[K]``.
      confidence: share of intervals that shall hold the truth, at each threshold.
      resamples: R.
      seed: of the resampling.

    Returns:
      Shares, their lower and their upper ends, each ``[K]``.
    """
    scores = _checked(scores)
    above = scores[..., None] > np.asarray(thresholds)
    # [S, L, K]: all a resample needs of whatever else there is.
    share = above.reshape(*scores.shape[:2], -1, len(thresholds)).mean(axis=2)
    rng = np.random.default_rng(seed)
    seeds, levels = (
        rng.multinomial(n, np.full(n, 1 / n), size=resamples) / n for n in share.shape[:2]
    )
    drawn = np.einsum("rs,rl,slk->rk", seeds, levels, share, optimize=True)
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    return share.mean(axis=(0, 1)), low, high


def _checked(scores: np.ndarray) -> np.ndarray:
    scores = worst_if_not_finite(scores)
    if scores.ndim < 2 or 0 in scores.shape:
        raise ValueError(f"scores must be [search seeds, levels, ...], not {scores.shape}")
    return scores


def _resampled(
    cells: list[np.ndarray], statistic: Statistic, resamples: int, seed: int, *, paired: bool
) -> list[np.ndarray]:
    """The statistic of each cell on resamples that the cells share, each ``[R]``."""
    rng = np.random.default_rng(seed)
    drawn: list[list[np.ndarray]] = [[] for _ in cells]
    for size in _blocks(resamples, max(cell.size for cell in cells)):
        levels = rng.integers(cells[0].shape[1], size=(size, 1, cells[0].shape[1]))
        seeds = None
        for cell, found in zip(cells, drawn, strict=True):
            if seeds is None or not paired:
                seeds = rng.integers(cell.shape[0], size=(size, cell.shape[0], 1))
            found.append(statistic(cell[seeds, levels]))
    return [np.concatenate(found) for found in drawn]


def _blocks(resamples: int, cell: int) -> Iterator[int]:
    """Sizes of blocks of resamples of a cell of so many numbers."""
    most = max(1, _BLOCK // cell)
    for start in range(0, resamples, most):
        yield min(most, resamples - start)


def _minus(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Differences, 0 where both are infinitely bad."""
    with np.errstate(invalid="ignore"):
        return np.where(a == b, 0.0, a - b)


def _quantiles(drawn: np.ndarray, confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    # Not interpolated where an infinite resample would make a NaN of it.
    finite = bool(np.all(np.isfinite(drawn)))
    method: Literal["linear", "nearest"] = "linear" if finite else "nearest"
    low, high = np.quantile(drawn, [tail, 1 - tail], method=method)
    return float(low), float(high)
