import subprocess
import sys

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats
from hypothesis import given

from discovery.evaluation import statistics
from discovery.evaluation.statistics import (
    holm,
    interquartile_mean,
    interval,
    over_horizons,
    paired_difference,
    performance_profile,
    pooled,
    probability_of_improvement,
)


def test_interquartile_mean_by_hand() -> None:
    # 8 numbers: 2 cut at each end, 3 4 5 6 stay.
    assert interquartile_mean(np.array([100.0, 3, 4, 1, 5, 6, -50, 7])) == pytest.approx(4.5)
    # 5 numbers: floor(5/4) = 1 cut at each end.
    assert interquartile_mean(np.array([0.0, 1, 2, 6, 99])) == pytest.approx(3.0)
    rows = np.array([[0.0, 1, 2, 30], [4, 4, 4, 4]])
    assert interquartile_mean(rows, axis=1).tolist() == [1.5, 4.0]
    assert interquartile_mean(np.array([7.0])) == 7


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_ranks_worst(bad: float) -> None:
    assert interquartile_mean(np.array([bad, 1.0, 2.0, 3.0])) == pytest.approx(1.5)
    assert interquartile_mean(np.array([bad, bad, 2.0, 3.0])) == -np.inf
    assert probability_of_improvement(np.array([[bad]]), np.array([[-9.0]])).estimate == 0
    assert probability_of_improvement(np.array([[bad]]), np.array([[bad]])).estimate == 0.5
    scores = np.full((3, 4), bad)
    assert interval(scores, resamples=20) == (-np.inf, -np.inf, -np.inf)
    assert paired_difference(scores, scores, resamples=20) == (0, 0, 0, 1)


def test_primary_endpoint_by_hand() -> None:
    # One seed, four levels, two horizons: interquartile means 1.5 and 15.
    scores = np.array([[0.0, 0], [1, 10], [2, 20], [30, 300]])[None, None]
    assert over_horizons(scores).tolist() == [8.25]
    assert pooled(scores[..., 0]).tolist() == [1.5]


def test_interval_is_the_percentile_bootstrap() -> None:
    # Against SciPy's own, with one search seed: then only levels are drawn.
    scores = np.random.default_rng(0).normal(size=40)
    ours = interval(scores[None], confidence=0.9, resamples=8_000)
    theirs = scipy.stats.bootstrap(
        (scores,),
        lambda x, axis: scipy.stats.trim_mean(x, 0.25, axis=axis),
        confidence_level=0.9,
        n_resamples=8_000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert ours.estimate == pytest.approx(scipy.stats.trim_mean(scores, 0.25))
    assert ours.low == pytest.approx(theirs.low, abs=0.02)
    assert ours.high == pytest.approx(theirs.high, abs=0.02)


def test_same_seed_same_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(0).normal(size=(4, 5))
    once = interval(scores, resamples=500)
    assert interval(scores, resamples=500) == once
    assert interval(scores, resamples=500, seed=1) != once
    monkeypatch.setattr(statistics, "_BLOCK", 64 * scores.size)
    blocks = interval(scores, resamples=500)
    assert blocks.estimate == once.estimate
    assert blocks.low == pytest.approx(once.low, abs=0.2)
    assert blocks.low < blocks.estimate < blocks.high


def mean(scores: np.ndarray) -> np.ndarray:
    return scores.reshape(len(scores), -1).mean(axis=1)


def test_intervals_cover_at_the_stated_rate() -> None:
    # Scores = luck of the search + luck of the level + luck of the agent; the truth is 0. Levels
    # are common to all seeds: intervals that drew them for each seed apart would be too short.
    rng = np.random.default_rng(0)
    covered = {"pooled": 0, "mean": 0}
    repeats = 200
    for repeat in range(repeats):
        scores = (
            0.3 * rng.normal(size=(20, 1))
            + 0.5 * rng.normal(size=(1, 25))
            + 0.5 * rng.normal(size=(20, 25))
        )
        for name, statistic in (("pooled", pooled), ("mean", mean)):
            low, high = interval(scores, statistic, confidence=0.9, resamples=300, seed=repeat)[1:]
            covered[name] += low <= 0 <= high
    # Three standard errors of 200 draws are 6 %; a percentile interval is a little short.
    assert 0.83 <= covered["mean"] / repeats <= 0.97
    assert 0.83 <= covered["pooled"] / repeats <= 0.97


def test_paired_intervals_cover_and_are_shorter() -> None:
    rng = np.random.default_rng(1)
    repeats, covered, narrower = 150, 0, 0
    for repeat in range(repeats):
        level = rng.normal(size=(1, 20))
        seed = 0.5 * rng.normal(size=(12, 1))
        # The gain itself varies with the level and with the search.
        gain = 0.2 + 0.3 * rng.normal(size=(1, 20)) + 0.2 * rng.normal(size=(12, 1))
        a, b = (level + seed + 0.3 * rng.normal(size=(12, 20)) for _ in range(2))
        paired = paired_difference(a + gain, b, mean, confidence=0.9, resamples=300, seed=repeat)
        alone = interval(a, mean, confidence=0.9, resamples=300, seed=repeat)
        covered += paired.low <= 0.2 <= paired.high
        narrower += paired.high - paired.low < alone.high - alone.low
    assert 0.82 <= covered / repeats <= 0.97
    assert narrower == repeats


def test_p_values_of_paired_differences() -> None:
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(10, 30))
    better = paired_difference(noise + 1, noise, resamples=999)
    assert better.p == pytest.approx(2 / 1000)
    assert better.estimate == pytest.approx(1)
    assert paired_difference(noise, noise, resamples=99).p == 1
    # Under no difference, small p-values are as rare as they say.
    p = [
        paired_difference(*rng.normal(size=(2, 15, 15)), mean, resamples=200, seed=i).p
        for i in range(100)
    ]
    assert np.mean(np.array(p) < 0.2) < 0.35
    assert np.mean(np.array(p) < 0.6) > 0.4


def test_unequal_numbers_of_search_seeds_are_drawn_apart() -> None:
    rng = np.random.default_rng(3)
    learned, handwritten = rng.normal(size=(5, 12)) + 3, rng.normal(size=(1, 12))
    found = paired_difference(learned, handwritten, resamples=500)
    assert found.low > 1
    with pytest.raises(ValueError, match="levels do not pair"):
        paired_difference(learned, handwritten[:, :3])


def test_probability_of_improvement_by_hand() -> None:
    a = np.array([[1.0, 0.0], [2.0, 0.0]])
    b = np.array([[1.0, 5.0], [0.0, 0.0], [3.0, 0.0]])
    # Level 0: 1 ties 1 and beats 0, 2 beats 1 and 0: 3.5 of 6. Level 1: 4 ties: 2 of 6.
    assert probability_of_improvement(a, b).estimate == pytest.approx(5.5 / 12)
    assert probability_of_improvement(b, a).estimate == pytest.approx(6.5 / 12)
    low, high = probability_of_improvement(a, b)[1:]
    assert low < 5.5 / 12 < high
    with pytest.raises(ValueError, match="levels do not pair"):
        probability_of_improvement(a, b[:, :1])


def test_holm_by_hand() -> None:
    # Sorted .01 .02 .03 .04 times 4 3 2 1: .04 .06 .06 .04, made monotone.
    assert holm(np.array([0.04, 0.01, 0.03, 0.02])) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm(np.array([0.5, 0.9])) == pytest.approx([1, 1])
    assert holm(np.array([])).shape == (0,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_nothing_and_bonferroni(p: list[float]) -> None:
    raw, adjusted = np.array(p), holm(np.array(p))
    assert np.all(adjusted >= raw)
    assert np.all(adjusted <= np.minimum(1, raw * len(raw)) + 1e-12)
    order = np.argsort(raw, kind="stable")
    assert np.all(np.diff(adjusted[order]) >= 0)


def test_performance_profile_by_hand() -> None:
    scores = np.array([[0.0, 0.5], [0.5, np.nan]])
    share, low, high = performance_profile(scores, np.array([-1.0, 0.0, 0.4, 0.5]))
    assert share.tolist() == [0.75, 0.5, 0.5, 0.0]
    assert np.all(low <= share)
    assert np.all(share <= high)
    more = performance_profile(scores[..., None].repeat(3, axis=2), np.array([0.0]))
    assert more[0].tolist() == [0.5]


def test_scores_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="search seeds, levels"):
        statistics._checked(np.zeros(3))
    with pytest.raises(ValueError, match="search seeds, levels"):
        interval(np.zeros((0, 3)))


def test_no_jax() -> None:
    code = (
        "import sys, discovery.evaluation.statistics, discovery.evaluation.table;"
        "import discovery.evaluation.figures; sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
