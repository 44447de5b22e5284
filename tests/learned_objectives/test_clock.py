import jax
import jax.numpy as jnp
import numpy as np
import pytest

from discovery import config
from learned_objectives import clock
from learned_objectives.clock import CLOCKS, features
from learned_objectives.library import ObjectiveError, make_rule

# ln 5 = 1.609438, ln 6 = 1.791759, ln 10 = 2.302585, ln 50 = 3.912023, ln 250 = 5.521461
HALFWAY = {
    "none": [],
    "constant": [0.5, 3.912023],
    "elapsed": [1.791759 / 5.521461],
    "horizon": [-1.0],
    "fraction": [0.5],
    "fraction_log": [0.5, 2.302585],
    "fraction_scaled": [0.5, -1.0],
    "remaining": [0.5, 1.609438],
    "raw": [5.0, 10.0],
    "raw_scaled": [0.02, 0.04],
}
"""n = 5 of N = 10."""

TENTH = HALFWAY | {
    "elapsed": [0.405465 / 5.521461],  # ln 1.5
    "horizon": [-2.430677],  # -ln 50 / ln 5
    "fraction_log": [0.5, 0.0],
    "fraction_scaled": [0.5, -2.430677],
    "remaining": [0.5, -0.693147],  # ln 0.5
}
"""The same with a tenth of the steps an update: N' = 1, n' = 1/2, in the logarithms only."""

SINGLE = {
    "none": [],
    "constant": [0.5, 3.912023],
    "elapsed": [0.0],
    "horizon": [-2.430677],
    "fraction": [0.0],
    "fraction_log": [0.0, 0.0],
    "fraction_scaled": [0.0, -2.430677],
    "remaining": [1.0, 0.0],
    "raw": [0.0, 1.0],
    "raw_scaled": [0.0, 0.004],
}
"""The only update of a life: n = 0 of N = 1."""


@pytest.mark.parametrize("form", CLOCKS)
def test_features_worked_by_hand(form, make_time):
    for time, expected in [
        (make_time(5, 10), HALFWAY),
        (make_time(5, 10, unit=0.1), TENTH),
        (make_time(0, 1), SINGLE),
    ]:
        found = features(form, time, jnp.float32)
        assert found.shape == (clock.size(form),)
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, expected[form], rtol=1e-5, atol=1e-6)


def test_time_runs_from_zero_to_one_update_short_of_one(make_time):
    told = [float(features("fraction", make_time(n, 4), jnp.float32)[0]) for n in range(4)]
    assert told == [0.0, 0.25, 0.5, 0.75]


def test_the_last_update_has_no_remaining_logarithm(make_time):
    found = features("remaining", make_time(9, 10), jnp.float32)
    np.testing.assert_allclose(found, [0.1, 0.0], rtol=1e-6)


@pytest.mark.parametrize("form", ["horizon", "fraction_scaled"])
@pytest.mark.parametrize(
    ("N", "plain", "held"), [(2, -2.0, -1.0), (10, -1.0, -1.0), (250, 1.0, 1.0), (1250, 2.0, 1.0)]
)
def test_clip_log_holds_the_scaled_log(form, N, plain, held, make_time):
    time = make_time(0, N)
    np.testing.assert_allclose(features(form, time, jnp.float32)[-1], plain, rtol=1e-5)
    np.testing.assert_allclose(features(form, time, jnp.float32, True)[-1], held, rtol=1e-5)


def test_a_search_has_ends_of_its_own(make_time):
    ends = (100.0, 1600.0)
    for N, told in ((100, -1.0), (400, 0.0), (1600, 1.0), (6400, 2.0)):
        found = features("fraction_scaled", make_time(0, N), jnp.float32, ends=ends)
        np.testing.assert_allclose(found, [0.0, told], atol=1e-6)
        held = features("horizon", make_time(0, N), jnp.float32, True, ends)
        np.testing.assert_allclose(held, [min(told, 1.0)], atol=1e-6)
    paper = features("fraction_log", make_time(0, 400), jnp.float32, ends=ends)
    np.testing.assert_allclose(paper, [0.0, np.log(400)], rtol=1e-6)


@pytest.mark.parametrize("ends", [(10.0, 10.0), (0.0, 5.0), (1.0, float("inf"))])
@pytest.mark.parametrize("rule", ["lpg", "lpo"])
def test_ends_that_are_none(rule, ends):
    with pytest.raises(ObjectiveError, match="two rising numbers above 0"):
        make_rule(rule, log_ends=ends)


def test_clip_log_leaves_the_other_forms_alone(make_time):
    time = make_time(1000, 4000)
    for form in CLOCKS.keys() - {"horizon", "fraction_scaled"}:
        plain, held = (features(form, time, jnp.float32, clip) for clip in (False, True))
        np.testing.assert_array_equal(plain, held)


@pytest.mark.parametrize("form", CLOCKS)
def test_a_finished_life_is_told_finite_numbers(form, make_time):
    # Frozen lives are still computed, and 0 * inf would be a NaN in a meta-gradient.
    assert np.isfinite(features(form, make_time(10, 10), jnp.float32)).all()


@pytest.mark.parametrize("form", CLOCKS)
def test_float64(form, make_time):
    with jax.enable_x64(True):
        found = features(form, make_time(1, 3), jnp.float64)
        assert found.dtype == jnp.float64
        if form == "fraction_log":
            np.testing.assert_allclose(found, [1 / 3, np.log(3)], rtol=1e-15)


def test_what_is_left_of_a_life(make_time):
    left = [clock.remaining_share(make_time(n, 4), jnp.float32) for n in range(6)]
    assert list(map(float, left)) == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert left[0].dtype == jnp.float32


def test_unknown_form(make_time):
    with pytest.raises(ValueError, match=r"'sundial'; known: none, .*raw_scaled"):
        features("sundial", make_time(0, 1), jnp.float32)


def test_the_configuration_knows_every_form():
    assert tuple(CLOCKS) == config.CLOCKS
