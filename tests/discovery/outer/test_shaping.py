"""Shapings: numbers worked by hand, ties, and scores that are no numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from discovery.outer.search import judge
from discovery.outer.shaping import SHAPINGS, coin_flip, tied

NAN, INF = np.nan, np.inf
M = 6
# Jitted: one program for a shape, where every operation would be one.
ALL = {name: jax.jit(shaping) for name, shaping in SHAPINGS.items()}
pair, centred_rank, group_z = ALL["pair"], ALL["centred_rank"], ALL["group_z"]

scores_of = arrays(
    np.float32, (M, 2), elements=st.floats(width=32, allow_nan=True, allow_infinity=True)
)
horizons_of = arrays(np.int32, (M,), elements=st.integers(1, 6))


def test_pair_by_hand() -> None:
    scores = jnp.array([[2.0, 1.0], [-3.0, 0.0], [5.0, 5.0]])
    assert pair(scores, jnp.ones(3, int)).tolist() == [[1, 0], [0, 1], [0.5, 0.5]]


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_pair_takes_what_is_not_finite_for_the_worst(bad: float) -> None:
    scores = jnp.array([[bad, -1e30], [0.0, bad], [bad, NAN]])
    assert pair(scores, jnp.ones(3, int)).tolist() == [[0, 1], [1, 0], [0.5, 0.5]]


def test_centred_ranks_by_hand() -> None:
    # In rising order: nan and inf (places 0 and 1), 2, 3 and 3 (3 and 4), 7.
    scores = jnp.array([[NAN, 3.0], [7.0, 3.0], [2.0, INF]])
    expected = np.array([[0.5, 3.5], [5, 3.5], [2, 0.5]]) / 5 - 0.5
    np.testing.assert_allclose(centred_rank(scores, jnp.ones(3, int)), expected, atol=1e-7)


@given(arrays(np.int32, (M, 2), elements=st.integers(-3, 3)))
def test_centred_ranks_are_those_of_scipy(scores: np.ndarray) -> None:
    ranks = scipy.stats.rankdata(scores, method="average").reshape(scores.shape)
    found = ALL["centred_rank"](scores.astype(np.float32), np.ones(M, np.int32))
    np.testing.assert_allclose(found, (ranks - 1) / (2 * M - 1) - 0.5, atol=1e-6)


def test_group_z_standardises_octaves_apart() -> None:
    # Horizons 4 to 7 are one octave of 8 candidates, 8 to 15 another; 16 stands alone.
    horizons = jnp.array([4, 5, 7, 7, 8, 8, 9, 15, 16])
    scores = np.arange(18, dtype=np.float32).reshape(9, 2) ** 2
    found = np.asarray(group_z(jnp.asarray(scores), horizons))
    for octave in (scores[:4], scores[4:8]):
        expected = (octave - octave.mean()) / octave.std()
        start = 0 if octave[0, 0] == 0 else 4
        np.testing.assert_allclose(found[start : start + 4], expected, rtol=1e-5)
    assert found[8].tolist() == [0, 1], "an octave of two candidates is shaped in pairs"


def test_group_z_knows_every_power_of_two() -> None:
    # At 2^k - 1 and 2^k an octave ends and the next begins, however logarithms round.
    for k in range(3, 31):
        horizons = np.array([2**k - 1] * 4 + [2**k] * 4, np.int32)
        scores = np.concatenate([np.arange(8), 100 + np.arange(8)]).reshape(8, 2)
        found = np.asarray(group_z(scores.astype(np.float32), horizons))
        np.testing.assert_allclose(found[:4], found[4:], atol=1e-5)


def test_group_z_sets_what_is_not_finite_to_the_worst_of_its_octave() -> None:
    horizons = jnp.array([8, 8, 8, 8, 16, 16, 16, 16])
    scores = np.array([[1, NAN], [3, 5], [INF, 2], [4, -INF]] + [[-9, NAN]] * 4, np.float32)
    clean = np.array([[1, 1], [3, 5], [1, 2], [4, 1]], np.float32)
    found = np.asarray(group_z(jnp.asarray(scores), horizons))
    np.testing.assert_allclose(found[:4], (clean - clean.mean()) / clean.std(), rtol=1e-5)
    assert (found[4:] == 0).all()


def test_group_z_of_scores_too_large_to_square_is_shaped_in_pairs() -> None:
    scores = jnp.array([[1e30, 2e30], [0.0, 0.0], [1.0, 0.0], [3e38, -3e38]])
    expected = [[0, 1], [0.5, 0.5], [1, 0], [1, 0]]
    assert group_z(scores, jnp.full(4, 8)).tolist() == expected


@pytest.mark.parametrize("name", SHAPINGS)
@given(scores=scores_of, horizons=horizons_of)
def test_every_shaping(name: str, scores: np.ndarray, horizons: np.ndarray) -> None:
    weights = np.asarray(ALL[name](scores, horizons))
    assert weights.shape == scores.shape
    assert np.isfinite(weights).all(), "whatever the scores, a search gets numbers"
    worst = np.where(np.isfinite(scores), scores, -INF)
    first, second = worst.T
    difference = weights[:, 0] - weights[:, 1]
    assert (difference[first == second] == 0).all(), "a tie adds nothing"
    assert (difference[first > second] >= 0).all(), "higher is better"
    # No partner is preferred: exchanging them exchanges their weights.
    swapped = np.asarray(ALL[name](scores[:, ::-1].copy(), horizons))
    np.testing.assert_allclose(swapped[:, ::-1], weights, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SHAPINGS)
def test_scores_of_which_none_is_finite_all_tie(name: str) -> None:
    weights = ALL[name](np.full((M, 2), NAN, np.float32), np.full(M, 8, np.int32))
    assert len(np.unique(weights)) == 1


def test_a_coin_tells_the_winner_of_each_pair() -> None:
    flip = jax.jit(coin_flip, static_argnums=1)
    weights = np.asarray(flip(jax.random.key(0), 4000))
    assert set(weights.ravel()) == {0, 1}
    assert (weights.sum(axis=1) == 1).all()
    # Fair: the standard error of the mean is 0.008.
    assert abs(weights[:, 0].mean() - 0.5) < 0.032
    assert np.array_equal(flip(jax.random.key(0), 4000), weights)
    assert (flip(jax.random.key(1), 4000) != weights).any()


@given(scores=scores_of, horizons=horizons_of)
def test_a_coin_knows_nothing_of_scores(scores: np.ndarray, horizons: np.ndarray) -> None:
    key, twice = jax.random.key(7), np.repeat(horizons, 2)
    weights, told = judge(scores.ravel(), twice, "coin_flip", key)
    assert np.array_equal(weights, coin_flip(key, M))
    _, others = judge(scores.ravel(), twice, "pair", key)
    assert set(told) == {"fitness", "nonfinite", "tied"}
    np.testing.assert_equal(jax.device_get(told), jax.device_get(others))


def test_share_of_tied_pairs() -> None:
    scores = jnp.array([[1.0, 1.0], [NAN, INF], [NAN, 0.0], [2.0, 1.0]])
    assert jax.jit(tied)(scores) == 0.5
