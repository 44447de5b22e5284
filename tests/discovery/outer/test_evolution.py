"""Strategies: the paired one against its formula and evosax; all of them up a hill."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jaxtyping import Array

from discovery.config import ConfigError, EvolutionConfig
from discovery.outer.evolution import (
    Evosax,
    Paired,
    Source,
    Strategy,
    decayed,
    make_strategy,
    noise,
    perturbed,
    shared_weights,
    strongly_typed,
)
from discovery.outer.shaping import SHAPINGS

LIKE = {"a": jnp.zeros(3), "b": jnp.zeros((2, 2))}
TARGET = {"a": jnp.array([1.0, -2.0, 0.5]), "b": jnp.array([[3.0, 0.0], [-1.0, 1.0]])}
CONFIG = EvolutionConfig(
    pairs=8,
    group=4,
    sigma=0.3,
    sigma_decay=0.9,
    sigma_floor=0.2,
    rate=0.1,
    rate_decay=0.9,
    rate_floor=0.06,
)


def population(strategy: Strategy, source: Any, pairs: int) -> Any:
    """All candidates, ``[M, 2, ...]``."""
    over_signs = jax.vmap(strategy.candidate, (None, None, 0))
    both = jnp.array([1.0, -1.0])
    return jax.vmap(over_signs, (None, 0, None))(source, jnp.arange(pairs), both)


@pytest.fixture(scope="module")
def strategy() -> Strategy:
    """The paired one, so that most tests share its programs."""
    return make_strategy(CONFIG, LIKE)


def flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def height(theta: Any) -> Array:
    """A hill with its top at the target."""
    square = jax.tree.map(lambda x, y: jnp.sum(jnp.square(x - y)), theta, TARGET)
    return -sum(jax.tree.leaves(square), jnp.zeros(()))


# --- the paired strategy ----------------------------------------------------------------------


def test_noise_of_a_pair_is_its_own() -> None:
    drawn = jax.jit(jax.vmap(lambda j: noise(jax.random.key(5), j, LIKE)))
    few, many = (jax.device_get(drawn(np.arange(pairs))) for pairs in (3, 50))
    for one, other in zip(jax.tree.leaves(few), jax.tree.leaves(many), strict=True):
        assert np.array_equal(one, other[:3])
    everything = flat(many)
    assert len(np.unique(everything)) == everything.size == 350
    # Standard errors of mean and standard deviation: 0.053 and 0.038.
    assert abs(everything.mean()) < 0.2
    assert abs(everything.std() - 1) < 0.15


def test_candidates_stand_on_both_sides_of_the_mean() -> None:
    source = Source(TARGET, jnp.float32(0.5), jax.random.key(5))
    z = noise(source.key, jnp.int32(2), LIKE)
    for sign in (1.0, -1.0, 0.0):
        found = perturbed(source, jnp.int32(2), jnp.float32(sign))
        expected = jax.tree.map(lambda m, z, s=sign: m + s * 0.5 * z, TARGET, z)
        np.testing.assert_allclose(flat(found), flat(expected), rtol=1e-6)
    assert (flat(found) == flat(TARGET)).all(), "sign 0 is the mean, exactly"


def test_decay_stops_at_the_floor() -> None:
    found = [float(decayed(0.4, 0.5, 0.06, jnp.int32(g))) for g in range(5)]
    assert found == pytest.approx([0.4, 0.2, 0.1, 0.06, 0.06])


def test_sigma_and_rate_decay_by_generation(strategy: Strategy) -> None:
    state = strategy.init(jax.random.key(0), LIKE)
    told = []
    for g in range(7):
        source, state = strategy.ask(state, jax.random.key(g))
        numbers = strategy.numbers(state)
        assert source.sigma == numbers["sigma"]
        told.append((float(numbers["sigma"]), float(numbers["rate"])))
        state = strategy.tell(state, source, jnp.ones((8, 2)))
    sigmas = [max(0.3 * 0.9**g, 0.2) for g in range(7)]
    rates = [max(0.1 * 0.9**g, 0.06) for g in range(7)]
    np.testing.assert_allclose(told, np.transpose([sigmas, rates]), rtol=1e-5)


def test_the_first_step_by_hand(strategy: Strategy) -> None:
    """g = sum_j (w+ - w-) z_j / (2 M sigma); Adam's first step is rate * sign(g)."""
    source, state = strategy.ask(strategy.init(jax.random.key(0), TARGET), jax.random.key(1))
    weights = jax.random.normal(jax.random.key(2), (8, 2))
    z = np.stack([flat(noise(jax.random.key(1), jnp.int32(j), LIKE)) for j in range(8)])
    g = np.asarray(weights[:, 0] - weights[:, 1]) @ z / (2 * 8 * 0.3)
    after = strategy.tell(state, source, weights)
    first_moment = flat(after.adam.inner_state[0].mu)
    np.testing.assert_allclose(first_moment, -(1 - CONFIG.beta1) * g, rtol=1e-4)
    np.testing.assert_allclose(
        flat(strategy.mean(after)), flat(TARGET) + 0.1 * np.sign(g), rtol=1e-4
    )


def test_paired_moves_as_open_es_of_evosax_does() -> None:
    """The same noise, weights, decaying rate and decaying sigma: the same mean.

    In double precision: evosax finds its noise again from candidates, which rounds.
    """
    from evosax.algorithms import Open_ES
    from evosax.core.fitness_shaping import identity_fitness_shaping_fn

    with jax.enable_x64(True):
        start = jax.tree.map(lambda x: np.asarray(x, np.float64), TARGET)
        oracle = Open_ES(
            population_size=16,
            solution=start,
            optimizer=optax.adam(
                optax.exponential_decay(
                    CONFIG.rate, 1, CONFIG.rate_decay, end_value=CONFIG.rate_floor
                ),
                b1=CONFIG.beta1,
                b2=CONFIG.beta2,
                eps=CONFIG.epsilon,
            ),
            fitness_shaping_fn=identity_fitness_shaping_fn,
        )
        params = oracle.default_params
        strategy = make_strategy(CONFIG, start)
        made = jax.jit(lambda source: population(strategy, source, 8))
        state = strategy.init(jax.random.key(0), start)
        other = oracle.init(jax.random.key(0), start, params)
        for g in range(8):
            source, state = strategy.ask(state, jax.random.key(g))
            candidates = made(source)
            weights = jax.random.normal(jax.random.key(g), (8, 2))
            state = strategy.tell(state, source, weights)
            halves = jax.tree.map(lambda x: jnp.concatenate([x[:, 0], x[:, 1]]), candidates)
            other = other.replace(std=source.sigma)
            other, _ = oracle.tell(jax.random.key(0), halves, -weights.T.ravel(), other, params)
        found, expected = flat(strategy.mean(state)), flat(oracle.get_mean(other))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert np.abs(found - flat(TARGET)).min() > 0.01, "both have moved"


def test_the_state_does_not_depend_on_devices(strategy: Strategy, one_device: None) -> None:
    """Bit for bit; a program for one device is simplified otherwise than one for two."""
    states = []
    for each in (strategy, make_strategy(CONFIG, LIKE)):
        state = each.init(jax.random.key(0), LIKE)
        for g in range(5):
            source, state = each.ask(state, jax.random.key(g))
            state = each.tell(state, source, jax.random.normal(jax.random.key(g), (8, 2)))
        states.append([leaf.tobytes() for leaf in map(np.asarray, jax.tree.leaves(state))])
    assert states[0] == states[1]


# --- evosax -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "near"), [("SNESS", "SNES"), ("pared", "paired"), ("cma-es", "CMA_ES")]
)
def test_an_unknown_name_is_told_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=rf"unknown strategy '{name}'.*{near}"):
        make_strategy(replace(CONFIG, strategy=name), LIKE)


@pytest.mark.parametrize("name", ["RandomSearch", "SV_Open_ES", "DifferentialEvolution"])
def test_what_needs_more_than_a_size_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="unknown strategy"):
        make_strategy(replace(CONFIG, strategy=name), LIKE)


def test_recombination_weights_are_those_of_the_ranks_and_ties_share_them() -> None:
    class Params:
        weights = jnp.array([0.6, 0.3, 0.1, -0.2, -0.8])

    def weights(*cost: int) -> list[float]:
        return shared_weights(None, jnp.array(cost, float), None, Params).tolist()

    assert weights(3, 1, 5, 2, 4) == pytest.approx([0.1, 0.6, -0.8, 0.3, -0.2])
    assert weights(0, 1, 0, 1, 1) == pytest.approx([0.45, -0.3, 0.45, -0.3, -0.3])
    assert weights(7, 7, 7, 7, 7) == pytest.approx([0, 0, 0, 0, 0], abs=1e-7)


# --- both kinds -------------------------------------------------------------------------------

NAMES = ["paired", "Open_ES", "SNES", "PGPE", "CMA_ES"]


@pytest.mark.parametrize("name", NAMES)
def test_a_strategy(name: str, compiled: Callable[[], AbstractContextManager[list[str]]]) -> None:
    """It stands still when all tie, climbs, and compiles for its first generation only."""
    settings = replace(
        CONFIG, strategy=name, pairs=32, sigma_decay=1.0, rate=0.3, rate_decay=0.97, rate_floor=0.0
    )
    strategy = make_strategy(settings, jax.eval_shape(lambda: LIKE))
    start = strategy.init(jax.random.key(0), LIKE)
    assert flat(strategy.mean(start)).tolist() == [0] * 7

    source, asked = strategy.ask(start, jax.random.key(0))
    still = strategy.tell(asked, source, jnp.full((32, 2), 0.5))
    assert (flat(strategy.mean(still)) == 0).all(), "a generation that tells nothing moves nothing"
    for sign in (1.0, -1.0, 0.0):
        alone = strategy.candidate(strategy.still(TARGET), jnp.int32(3), jnp.float32(sign))
        assert (flat(alone) == flat(TARGET)).all(), "a still source holds one theta"

    @jax.jit
    def heights(source: Any) -> Array:
        return jax.vmap(jax.vmap(height))(population(strategy, source, 32))

    # Pairs tell who won and nothing else: ties inside a half must not leave a random step.
    for shaping in ("centred_rank", "pair"):
        weights_of = jax.jit(SHAPINGS[shaping])
        state = start
        for g in range(50):
            with compiled() as names:
                source, state = strategy.ask(state, jax.random.key(g))
                state = strategy.tell(state, source, weights_of(heights(source), jnp.ones(32, int)))
                numbers = strategy.numbers(state)
            assert not any(jax.typeof(x).weak_type for x in jax.tree.leaves((source, state)))
            assert g == 0 or names == []
        assert height(strategy.mean(state)) > 0.2 * height(LIKE), shaping
        assert all(np.isfinite(float(number)) for number in numbers.values())


def test_a_tie_of_all_leaves_paired_its_momentum_only(strategy: Strategy) -> None:
    source, state = strategy.ask(strategy.init(jax.random.key(0), LIKE), jax.random.key(1))
    moved = strategy.tell(state, source, jax.random.normal(jax.random.key(2), (8, 2)))
    again = strategy.tell(moved, source, jnp.full((8, 2), 0.5))
    assert isinstance(again, Paired)
    mu, nu = (flat(m) for m in moved.adam.inner_state[0][1:])
    b1, b2 = CONFIG.beta1, CONFIG.beta2
    step = (b1 * mu / (1 - b1**2)) / (np.sqrt(b2 * nu / (1 - b2**2)) + CONFIG.epsilon)
    np.testing.assert_allclose(
        flat(again.mean), flat(moved.mean) - 0.09 * step, rtol=1e-4, atol=1e-6
    )
    assert again.generation == 2


# --- lives that go on -------------------------------------------------------------------------

PERSISTENT = replace(CONFIG, strategy="PersistentES", sigma_decay=1.0)


def told(strategy: Strategy, state: Any, g: int) -> tuple[np.ndarray, Any]:
    """A generation: perturbations of the candidates ``[P, 7]``, and the state that was told."""
    before = flat(strategy.mean(state))
    source, state = strategy.ask(state, jax.random.key(g))
    rows = [np.reshape(leaf, (16, -1)) for leaf in jax.tree.leaves(source.population)]
    weights = SHAPINGS["pair"](jax.random.normal(jax.random.key(g), (8, 2)), jnp.ones(8, int))
    return np.concatenate(rows, axis=1) - before, strategy.tell(state, source, weights)


def test_persistent_accumulates_until_told_to_forget() -> None:
    """Whatever its own counter would say: lives end at different times."""
    strategy = make_strategy(PERSISTENT, LIKE, windows=True)
    state = strategy.init(jax.random.key(0), LIKE)
    expected = np.zeros((16, 7))
    for g, ended in enumerate([[], [0, 3], [3], range(8), [7]]):
        perturbed_by, state = told(strategy, state, g)
        expected = expected + perturbed_by
        np.testing.assert_allclose(state.state.pert_accum, expected, atol=1e-5)
        mask = np.isin(np.arange(8), list(ended))
        state = strategy.forget(state, jnp.asarray(mask))
        expected[np.tile(mask, 2)] = 0
        assert (np.asarray(state.state.pert_accum)[np.tile(mask, 2)] == 0).all()
        assert not any(jax.typeof(leaf).weak_type for leaf in jax.tree.leaves(state))
    assert (np.abs(expected).sum(axis=1) > 0).sum() == 14


def test_persistent_over_whole_lives_forgets_every_generation() -> None:
    """It is then OpenES: each step is along the perturbations of its own generation."""
    strategy = make_strategy(PERSISTENT, LIKE)
    state = strategy.init(jax.random.key(0), LIKE)
    for g in range(3):
        _, asked = strategy.ask(state, jax.random.key(g))
        perturbed_by, state = told(strategy, state, g)
        np.testing.assert_allclose(asked.state.pert_accum, perturbed_by, atol=1e-5)
        # Every life of a generation ends with it.
        state = strategy.forget(state, jnp.ones(8, bool))
        assert not np.asarray(state.state.pert_accum).any()


@pytest.mark.parametrize("name", ["paired", "SNES", "Rm_ES"])
def test_others_have_nothing_to_forget(name: str) -> None:
    strategy = make_strategy(replace(CONFIG, strategy=name), LIKE, windows=True)
    state = strategy.init(jax.random.key(0), LIKE)
    after = strategy.forget(state, jnp.ones(8, bool))
    if isinstance(state, Evosax):
        assert (jax.random.key_data(after.key) == jax.random.key_data(state.key)).all()
        state, after = state.state, after.state
    jax.tree.map(np.testing.assert_array_equal, after, state)


def test_a_strategy_that_counts_windows_itself_is_refused_for_windows_only() -> None:
    config = replace(CONFIG, strategy="NoiseReuseES")
    with pytest.raises(ConfigError, match=r"^NoiseReuseES counts windows .*: use PersistentES$"):
        make_strategy(config, LIKE, windows=True)
    assert flat(make_strategy(config, LIKE).init(jax.random.key(0), LIKE).state.mean).size == 7


def test_strongly_typed_keeps_values_and_keys() -> None:
    weak = {"x": jnp.asarray(2.0), "n": jnp.asarray(3), "key": jax.random.key(1)}
    assert weak["x"].weak_type
    strong = strongly_typed(weak)
    assert not strong["x"].weak_type
    assert not strong["n"].weak_type
    assert (strong["x"], strong["n"]) == (2, 3)
    assert strong["key"] is weak["key"]


@pytest.mark.slow
def test_every_strategy_of_evosax_that_is_offered() -> None:
    """A generation each: finite numbers, strong types, and the mean in theta's shapes."""
    with pytest.raises(ConfigError) as told:
        make_strategy(replace(CONFIG, strategy="!"), LIKE)
    names = str(told.value).split("known: ")[1].split(", ")
    assert len(names) > 20
    weights = SHAPINGS["centred_rank"](
        jax.random.normal(jax.random.key(0), (8, 2)), jnp.ones(8, int)
    )
    for name in set(names) - {"paired"}:
        strategy = make_strategy(replace(CONFIG, strategy=name), LIKE)
        state = strategy.init(jax.random.key(0), TARGET)
        source, state = strategy.ask(state, jax.random.key(1))
        state = strategy.tell(state, source, weights)
        assert jax.tree.map(jnp.shape, strategy.mean(state)) == jax.tree.map(jnp.shape, LIKE), name
        assert np.isfinite(flat((source, strategy.mean(state)))).all(), name
        assert not any(jax.typeof(leaf).weak_type for leaf in jax.tree.leaves(state)), name
