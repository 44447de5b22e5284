"""Low-rank noise: against the dense matrices its factors stand for, alone and in a search."""

import functools
import importlib.util
import io
import json
import os
import signal
from collections.abc import Callable, Generator
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jaxtyping import Array
from rich.console import Console
from safetensors.numpy import load_file

from discovery import cli
from discovery.config import (
    AgentConfig,
    Config,
    ConfigError,
    EvolutionConfig,
    WindowConfig,
    check,
    preset,
    to_json,
)
from discovery.devices import home, put
from discovery.evaluation.horizons import evaluate
from discovery.inner.cohort import Lives, bytes_of, population_mesh
from discovery.inner.lifetime import Outcome, live
from discovery.outer import autopsy, several
from discovery.outer import search as module
from discovery.outer.evolution import (
    Source,
    Strategy,
    group_sums,
    make_strategy,
    noise,
    perturbed,
    perturbed_by,
)
from discovery.outer.low_rank import Factors, check_products, factored, whole
from discovery.outer.scoring import fitness, lived, measure
from discovery.outer.search import Search, SearchState, draw, make_search
from discovery.outer.shaping import SHAPINGS
from discovery.outer.tasks import paired_lives
from discovery.requests import EvaluateConfig
from discovery.runs import ending, folders, logs
from discovery.runs.run import evolve
from learned_objectives.base import Perturbed, dense
from learned_objectives.library import load
from learned_objectives.lpg import LPG

TARGET = {
    "column": jnp.array([[1.0], [-2.0], [0.5]]),
    "matrix": jnp.linspace(-1, 1, 20).reshape(4, 5),
    "vector": jnp.array([1.0, -1.0, 2.0]),
}
CONFIG = EvolutionConfig(pairs=8, group=4, sigma=0.3, rate=0.1, rate_decay=0.9, rate_floor=0.06)
SIGNS = jnp.array([1.0, -1.0])


def flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def content(tree: Any) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def dense_noise(key: Array, pair: int, rank: int, like: Any = TARGET) -> Any:
    """The matrices that the factors stand for."""
    return jax.tree.map(
        lambda _, z: z.left @ z.right.T if isinstance(z, Factors) else z,
        like,
        noise(key, jnp.int32(pair), like, rank),
    )


# --- noise ------------------------------------------------------------------------------------


def test_which_leaves_have_factors() -> None:
    z = noise(jax.random.key(0), jnp.int32(0), TARGET, 2)
    assert [type(leaf) is Factors for leaf in z.values()] == [False, True, False]
    assert (z["matrix"].left.shape, z["matrix"].right.shape) == ((4, 2), (5, 2))
    # Three of four rows and five columns would hold 27 numbers of a matrix of 20.
    assert not factored(TARGET["matrix"], 3)
    assert not factored(TARGET["matrix"], 0)
    assert not factored(jnp.zeros((9, 9, 9)), 1)


@pytest.mark.parametrize("rank", [1, 2])
def test_moments_are_those_of_full_noise(rank: int) -> None:
    count = 20_000
    draws = jax.jit(jax.vmap(lambda j: noise(jax.random.key(3), j, TARGET, rank)["matrix"]))
    left, right = draws(np.arange(count))
    z = np.asarray(jnp.einsum("nir,nor->nio", left, right)).reshape(count, 20)
    # A product of two normal numbers has a fourth moment of 9, three times a normal one's: squares
    # have a standard error of 8 ** .5 / 20,000 ** .5 = .02, means and products of .007.
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=0.04)
    np.testing.assert_allclose(z.T @ z / count, np.eye(20), atol=0.12)
    fourth = (z**4).mean()
    assert fourth == pytest.approx(3 + 6 / rank, abs=0.5), "it is of rank r, not normal"


@pytest.mark.parametrize("rank", [1, 2])
def test_candidates_stand_on_both_sides_of_the_mean(rank: int) -> None:
    source = Source(TARGET, jnp.float32(0.5), jax.random.key(5))
    z = dense_noise(source.key, 2, rank)
    for sign in (1.0, -1.0, 0.0):
        found = perturbed_by(rank)(source, jnp.int32(2), jnp.float32(sign))
        assert isinstance(found["matrix"], Perturbed)
        expected = jax.tree.map(lambda m, z, s=sign: m + s * 0.5 * z, TARGET, z)
        np.testing.assert_allclose(flat(whole(found)), flat(expected), rtol=1e-5, atol=1e-6)
    assert (flat(whole(found)) == flat(TARGET)).all(), "sign 0 is the mean, exactly"


def test_without_a_rank_nothing_is_new() -> None:
    source = Source(TARGET, jnp.float32(0.5), jax.random.key(5))
    assert perturbed_by(0) is perturbed
    assert perturbed_by(2) is perturbed_by(2), "programs are found again by it"
    found = perturbed(source, jnp.int32(2), jnp.float32(1))
    drawn = jax.random.normal(jax.random.fold_in(source.key, 2), (26,))
    np.testing.assert_allclose(flat(found), flat(TARGET) + 0.5 * drawn, rtol=1e-6)


def test_a_population_shares_the_product_with_the_mean() -> None:
    """One product of all rows with W; what is of each candidate's own is of width R."""
    source = Source({"w": jnp.ones((32, 48))}, jnp.float32(0.1), jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (6, 7, 32))

    def said(pair: Array, x: Array) -> Array:
        return dense(x, perturbed_by(1)(source, pair, jnp.float32(1))["w"])

    pairs = jnp.arange(6)
    shapes = []
    for equation in jax.make_jaxpr(jax.vmap(said))(pairs, x).eqns:
        if equation.primitive.name == "dot_general":
            batch = equation.params["dimension_numbers"][1]
            shapes.append((equation.invars[1].aval.shape, batch))
    assert ((32, 48), ((), ())) in shapes, "the mean has no axis of candidates"
    own = [shape for shape, batch in shapes if batch != ((), ())]
    assert sorted(own) == [(6, 1, 48), (6, 32, 1)], "of each candidate there are its factors"
    z = [dense_noise(source.key, pair, 1, source.mean)["w"] for pair in range(6)]
    expected = [one @ (1 + 0.1 * z) for one, z in zip(x, z, strict=True)]
    np.testing.assert_allclose(jax.vmap(said)(pairs, x), expected, rtol=1e-4, atol=1e-4)


def products(jaxpr: Any) -> Generator[tuple[tuple[int, ...], bool]]:
    """Shapes of the second factors of a traced program, and whether they have an axis of lives."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            batch = equation.params["dimension_numbers"][1]
            yield equation.invars[1].aval.shape, batch != ((), ())
        for part in jax.tree.leaves([*equation.params.values()], is_leaf=lambda x: x is None):
            if hasattr(inner := getattr(part, "jaxpr", part), "eqns"):
                yield from products(inner)


def test_a_group_of_lives_shares_the_products_with_the_mean(searched: Any, low: Config) -> None:
    """Through the loops of a whole life and of its recurrent cell."""
    search, states, _ = searched
    source, lives = noise_of(search, states[2]), lives_of(search, states[2], low)
    group = jax.tree.map(lambda leaf: leaf[: low.evolution.group], lives)

    def lived_together(source: Source, group: Lives) -> Any:
        def one(life: Lives) -> Any:
            theta = search.cohort.candidate(source, life.id, life.sign)
            return live(search.world, theta, search.hyper, life.task, life.key, measure("final"))

        return jax.vmap(one)(group)

    seen = set(products(jax.make_jaxpr(lived_together)(source, group).jaxpr))
    matrices = {leaf.shape for leaf in jax.tree.leaves(source.mean) if factored(leaf, 1)}
    assert len(matrices) == 3
    assert {(shape, False) for shape in matrices} <= seen
    assert not {((8, *shape), True) for shape in matrices} & seen


# --- the update -------------------------------------------------------------------------------


def test_it_moves_as_open_es_of_evosax_does_with_the_same_matrices() -> None:
    from evosax.algorithms import Open_ES
    from evosax.core.fitness_shaping import identity_fitness_shaping_fn

    with jax.enable_x64(True):
        start = jax.tree.map(lambda x: np.asarray(x, np.float64), TARGET)
        decay = optax.exponential_decay(
            CONFIG.rate, 1, CONFIG.rate_decay, end_value=CONFIG.rate_floor
        )
        oracle = Open_ES(
            population_size=16,
            solution=start,
            optimizer=optax.adam(decay, b1=CONFIG.beta1, b2=CONFIG.beta2, eps=CONFIG.epsilon),
            fitness_shaping_fn=identity_fitness_shaping_fn,
        )
        params = oracle.default_params
        strategy = make_strategy(replace(CONFIG, rank=2), start)

        @jax.jit
        def halves(source: Source) -> Any:
            one = lambda sign, pair: whole(strategy.candidate(source, pair, sign))  # noqa: E731
            both = jax.vmap(jax.vmap(one, (None, 0)), (0, None))(SIGNS, jnp.arange(8))
            return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), both)

        state = strategy.init(jax.random.key(0), start)
        other = oracle.init(jax.random.key(0), start, params)
        for g in range(5):
            source, state = strategy.ask(state, jax.random.key(g))
            weights = jax.random.normal(jax.random.key(g), (8, 2))
            state = strategy.tell(state, source, weights)
            other = other.replace(std=source.sigma)
            told = halves(source), -weights.T.ravel(), other, params
            other, _ = oracle.tell(jax.random.key(0), *told)
        found, expected = flat(strategy.mean(state)), flat(oracle.get_mean(other))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert np.median(np.abs(found - flat(TARGET))) > 0.1, "both have moved"


def moved(strategy: Strategy) -> list[bytes]:
    """The state after a few generations."""
    state = strategy.init(jax.random.key(0), TARGET)
    for g in range(3):
        source, state = strategy.ask(state, jax.random.key(g))
        state = strategy.tell(state, source, jax.random.normal(jax.random.key(g), (8, 2)))
    return content(state)


def test_the_state_does_not_depend_on_devices(one_device: None) -> None:
    config = replace(CONFIG, rank=2)
    with pytest.MonkeyPatch.context() as patch:
        only = jax.local_devices()
        alone = moved(make_strategy(config, TARGET))
        patch.undo()
    assert len(only) == 1
    everywhere = jax.devices()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "local_devices", lambda **which: everywhere)
        assert moved(make_strategy(config, TARGET)) == alone


def test_no_population_of_matrices_is_made() -> None:
    """The noise of 32 pairs would be 8 MiB, of rank 1 it is 64 KiB; a group's sum is 1/4 MiB."""
    source = Source({"w": jnp.zeros((256, 256))}, jnp.float32(1), jax.random.key(0))
    mesh = population_mesh(1)
    full, low = (bytes_of(group_sums, source, jnp.ones((1, 32)), mesh, rank) for rank in (0, 1))
    assert low < 2**20 < 2**23 < full


# --- a search ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def low(tiny: Config) -> Config:
    return replace(tiny, evolution=replace(tiny.evolution, rank=1))


@pytest.fixture(scope="module")
def searched(low: Config) -> tuple[Search, list[SearchState], dict[str, Array]]:
    search = make_search(low)
    states = [search.init()]
    for _ in range(2):
        state, metrics = search.step(states[-1])
        states.append(state)
    return search, states, metrics


def test_a_search(searched: Any) -> None:
    search, states, metrics = searched
    theta = search.theta(states[2])
    assert all(type(leaf) is not Perturbed for leaf in theta["cell"].values())
    assert all(np.isfinite(float(number)) for number in metrics.values())
    assert float(metrics["update_norm"]) > 0
    assert np.isfinite(float(search.validate(states[2])["validation"]))


def test_a_search_does_not_depend_on_devices(
    searched: Any, low: Config, one_device: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "program", functools.cache(module.program.__wrapped__))
    search = make_search(low)
    assert search.cohort.replicated.mesh.size == 1
    state = search.step(search.step(search.init())[0])[0]
    assert content(state.strategy) == content(searched[1][2].strategy)


def noise_of(search: Search, state: SearchState) -> Source:
    """Candidates of the generation after a state."""
    key = jax.random.split(jax.random.fold_in(state.key, state.generation), 4)[0]
    return Source(search.theta(state), jnp.float32(0.5), key)


def lives_of(search: Search, state: SearchState, config: Config) -> Lives:
    """What is lived in that generation."""
    sample, pairs = search.world.env.sample_level, config.evolution.pairs
    _, _, tasks, streams = draw(state.key, state.generation, sample, config.horizon, pairs)
    return paired_lives(tasks, streams[0], True)


def test_lives_are_those_under_the_dense_matrices(searched: Any, low: Config) -> None:
    search, states, _ = searched
    source, lives = noise_of(search, states[2]), lives_of(search, states[2], low)
    found = put(search.cohort.run(source, search.hyper, lives, measure("final")), home())

    @jax.jit
    def alone(place: Array) -> Array:
        life = jax.tree.map(lambda leaf: leaf[place], lives)
        theta = whole(search.cohort.candidate(source, life.id, life.sign))
        lived = live(search.world, theta, search.hyper, life.task, life.key, measure("final"))
        return lived.metrics["entropy"]

    for place in (0, 13, 31):
        # Rounding may flip a sampled action, after which lives differ: so what is compared is told
        # along the life, loosely. An objective of other matrices is further off.
        expected = float(alone(jnp.int32(place)))
        assert float(found.metrics["entropy"][place]) == pytest.approx(expected, abs=1e-4)


def of_noise(source: Source, weights: Array) -> Any:
    """Sum of weights times the dense matrices of a search's noise, ``[M]``."""
    total = jax.tree.map(jnp.zeros_like, source.mean)
    for pair, weight in enumerate(weights):
        z = dense_noise(source.key, pair, 1, source.mean)
        total = jax.tree.map(lambda t, z, w=weight: t + w * z, total, z)
    return total


def test_a_candidate_whose_agent_breaks_loses(
    searched: Any, low: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every agent on the far side of the mean is said to be not finite, whatever its return."""

    def breaking(cohort: Any, source: Any, hyper: Any, lives: Lives, kind: str) -> Outcome:
        outcome = lived(cohort, source, hyper, lives, kind)
        return outcome._replace(finite=outcome.finite & (lives.sign < 0), final=outcome.final + 9)

    monkeypatch.setattr(module, "lived", breaking)
    search, states, _ = searched
    after, metrics = make_search(low).step(states[0])
    assert (metrics["nonfinite"], metrics["tied"]) == (16, 0)
    # Each pair pulls towards -z, and Adam's first step is the rate.
    pull = of_noise(noise_of(search, states[0]), -np.ones(16))
    for moved, towards in zip(*map(jax.tree.leaves, (search.theta(after), pull)), strict=True):
        np.testing.assert_allclose(moved, low.evolution.rate * np.sign(towards), rtol=1e-3)


def test_groups_of_another_size_search_alike(searched: Any, low: Config) -> None:
    search, states, _ = searched
    source = noise_of(search, states[2])
    pair, sign = jnp.repeat(jnp.arange(16, dtype=jnp.int32), 2), jnp.tile(SIGNS, 16)

    @functools.partial(jax.jit, static_argnums=0)
    def candidates(group: int) -> Any:
        one = lambda who: jax.tree.leaves(search.cohort.candidate(source, *who))  # noqa: E731
        return jax.lax.map(one, (pair, sign), batch_size=group)

    assert content(candidates(8)) == content(candidates(4)) == content(candidates(1))
    other = make_search(replace(low, evolution=replace(low.evolution, group=4)))
    scores = [
        fitness(
            lived(each.cohort, source, search.hyper, lives_of(search, states[2], low), "final"),
            "final",
        )
        for each in (search, other)
    ]
    assert np.isfinite(scores).all()
    # Rounding may flip a sampled action of a life, after which it is another.
    assert np.isclose(*scores, rtol=1e-4, atol=1e-5).mean() >= 0.9


def test_behind_a_closed_gate_the_clock_changes_nothing(
    searched: Any, low: Config, tmp_path: Path
) -> None:
    search, states, _ = searched
    twin = make_search(replace(low, objective=replace(low.objective, clock_gate=0.0)))
    assert (twin.hyper.clock_gate, search.hyper.clock_gate) == (0, 1)
    plain = noise_of(search, states[2])
    louder = np.array(plain.mean["cell"]["wx"])
    louder[-2:] += 3.0
    cell = {**plain.mean["cell"], "wx": jnp.asarray(louder)}
    noisy = plain._replace(mean={**plain.mean, "cell": cell})
    lives = lives_of(search, states[2], low)

    def scores(of: Search, source: Source) -> list[bytes]:
        return content(fitness(lived(of.cohort, source, of.hyper, lives, "area"), "area"))

    assert scores(twin, plain) == scores(twin, noisy)
    assert scores(search, plain) != scores(search, noisy)
    theta = jax.device_get(twin.theta(states[2]))
    ending.write_card(
        tmp_path,
        replace(low, objective=replace(low.objective, clock_gate=0.0)),
        twin.objective,
        theta,
    )
    saved = load(tmp_path)
    assert saved.objective.clock == "none"
    np.testing.assert_array_equal(saved.theta["cell"]["wx"], theta["cell"]["wx"][:-2])


def test_a_generation_of_two_kinds_of_environments(
    low: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of the first kind the program is that of the search in one environment.
    evolution = replace(low.evolution, pairs=32)
    config = replace(low, env=f"{low.env},small", evolution=evolution)
    seen: list[tuple[Array, Array]] = []

    def spied(*arguments: Any) -> Outcome:
        outcome = lived(*arguments)
        seen.append((arguments[3].id, fitness(outcome, "final")))
        return outcome

    monkeypatch.setattr(several, "lived", spied)
    search = make_search(config)
    before = search.init()
    after, metrics = search.step(before)
    assert all(np.isfinite(float(number)) for number in metrics.values())
    assert [ids[::2].tolist() for ids, _ in seen] == [[*range(16)], [*range(16, 32)]]
    weights = jnp.concatenate(
        [SHAPINGS["pair"](s.reshape(-1, 2), jnp.ones(16, int)) for _, s in seen]
    )
    # The first step of Adam goes by the signs of the sum over all pairs of both kinds.
    slope = of_noise(noise_of(search, before), weights[:, 0] - weights[:, 1])
    for new, towards in zip(*map(jax.tree.leaves, (search.theta(after), slope)), strict=True):
        clear = np.abs(towards) > 1e-4
        assert clear.any()
        assert (np.sign(new)[clear] == np.sign(towards)[clear]).all()


# --- a run ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undrawn() -> Generator[None]:
    """Learning curves take longer than all else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ending, "write_figure", lambda where, _: where / "figures" / "learning.png")
        yield


def run_of(low: Config, estimator: Any) -> Config:
    """Four generations, saved after every second."""
    return replace(
        low,
        estimator=estimator,
        window=WindowConfig(window=2),
        generations=4,
        log_every=2,
        checkpoint_every=2,
    )


@pytest.fixture(scope="module", params=["evolution", "windows"])
def ran(
    request: pytest.FixtureRequest,
    low: Config,
    tmp_path_factory: pytest.TempPathFactory,
    undrawn: None,
) -> Path:
    """An undisturbed run of each estimator that has noise."""
    folder = tmp_path_factory.mktemp("ran") / "run"
    evolve(run_of(low, request.param), folder, quiet=True)
    return folder


def untimed(folder: Path) -> list[dict[str, Any]]:
    rows = logs.read(folder / folders.METRICS)
    return [{k: v for k, v in row.items() if k not in logs.TIMES} for row in rows]


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(ran: Path, tmp_path: Path) -> None:
    config = folders.load_config(ran)
    assert config.evolution.rank == 1
    search, folder = make_search(config), tmp_path / "run"

    def step(state: SearchState) -> Any:
        if state.generation == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return search.step(state)

    stopped = evolve(config, folder, quiet=True, make=lambda _: search._replace(step=step))
    assert stopped.stopped == "interrupt"
    assert 2 <= stopped.generation < 4
    evolve(resume=folder, quiet=True)
    for name in ("objective.safetensors", "config.json"):
        assert (folder / name).read_bytes() == (ran / name).read_bytes()
    assert untimed(folder) == untimed(ran)
    rows = untimed(ran)
    assert all(np.isfinite(rows[-1][name]) for name in ("fitness", "validation"))
    assert rows[0]["validation"] != rows[-1]["validation"], "it has moved"


def test_a_run_is_done_again_with_its_rank(ran: Path, tmp_path: Path) -> None:
    request = cli._parse_evolve(["--like", str(ran)])
    assert request.config == folders.load_config(ran)
    out = io.StringIO()
    evolve(request.config, tmp_path / "run", like=ran, console=Console(file=out, width=400))
    assert f"the same bytes as {ran}" in out.getvalue()


def test_what_is_saved_is_plain_arrays_that_evaluate_reads(ran: Path, tmp_path: Path) -> None:
    saved = load(ran)
    expected = jax.eval_shape(saved.objective.init, jax.random.key(0))
    assert jax.tree.map(np.shape, saved.theta) == jax.tree.map(lambda leaf: leaf.shape, expected)
    assert saved.card["config"]["evolution"]["rank"] == 1
    table = tmp_path / "scores.csv"
    request = EvaluateConfig((str(ran),), "chain", horizons=(1,), levels=2, group=2, out=str(table))
    rows = evaluate(request, lambda line: None)
    assert np.isfinite([row.score for row in rows]).all() and len(rows) == 2


def test_a_candidate_that_is_not_finite_is_kept_as_plain_arrays(
    low: Config, tmp_path: Path, undrawn: None
) -> None:
    """Perturbations so large that some agents do not stay finite."""
    agent = AgentConfig(policy_rate=1.0, clip=float("inf"))
    wild = replace(
        run_of(low, "evolution"),
        generations=1,
        log_every=1,
        checkpoint_every=1,
        agent=agent,
        evolution=replace(low.evolution, sigma=2e19),
    )
    evolve(wild, tmp_path / "run", quiet=True, keep_nonfinite=True)
    search = make_search(wild)
    state = search.init()
    found = autopsy.lost(search, state, 99)
    lost = logs.read(tmp_path / "run" / folders.METRICS)[-1]["nonfinite"]
    assert 0 < lost == len(found) < 32
    kept = tmp_path / "run" / folders.NONFINITE / "1.safetensors"
    arrays = load_file(kept)
    assert list(json.loads(kept.with_suffix(".json").read_text())) == [o.name for o in found[:16]]
    source = noise_of(search, state)._replace(sigma=jnp.float32(2e19))
    for one in found[:16]:
        pair, sign = jnp.int32(one.name[:-1]), jnp.float32({"+": 1, "-": -1}[one.name[-1]])
        theta = whole(perturbed(source, pair, sign, rank=1))
        for place, leaf in jax.tree_util.tree_flatten_with_path(theta)[0]:
            at = jax.tree_util.keystr(place, simple=True, separator="/")
            np.testing.assert_allclose(arrays[f"{one.name}/theta/{at}"], leaf, rtol=1e-5)


# --- where it cannot be -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda c: replace(c, evolution=replace(c.evolution, rank=-1)), "rank must be at least 0"),
        (lambda c: replace(c, estimator="gradient"), "rank is of evolution's noise"),
        (
            lambda c: replace(c, evolution=replace(c.evolution, strategy="SNES")),
            "SNES of evosax draws full noise: give --rank 0, or --strategy paired",
        ),
    ],
)
def test_what_has_no_low_rank_noise_is_refused(
    change: Callable[[Config], Config], line: str
) -> None:
    config = preset("smoke")
    config = replace(config, evolution=replace(config.evolution, rank=1))
    check(config)
    with pytest.raises(ConfigError, match=f"^{line}"):
        check(change(config))


def test_a_rule_without_large_matrices_is_refused(low: Config) -> None:
    large = replace(low, evolution=replace(low.evolution, rank=50))
    with pytest.raises(ConfigError, match=r"^lpg has no matrix large enough for rank 50: give"):
        make_search(large)


class Plain(LPG):
    """A rule of which one product does not go through ``dense``."""

    def _recur(self, theta: Any, x: Array, cut: Array) -> Array:
        return (x @ theta["wx"])[..., : self.width]


def test_a_rule_that_takes_matrices_otherwise_is_refused(searched: Any, low: Config) -> None:
    search, states, _ = searched
    like = search.theta(states[0])
    strategy = make_strategy(low.evolution, like)
    plain = Plain(**{f.name: getattr(search.objective, f.name) for f in fields(search.objective)})
    world = replace(search.world, objective=plain)
    with pytest.raises(ConfigError, match=r"^lpg takes a matrix .*dense \(.*\): give --rank 0"):
        check_products(low, world, strategy, like, search.hyper)


# --- beside full noise ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    source = Path(__file__).parents[3] / "benchmarks" / "searches.py"
    spec = importlib.util.spec_from_file_location("benchmark_searches", source)
    assert spec and spec.loader
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_the_benchmark_has_a_row_for_each_rank(
    benchmark: ModuleType,
    tiny: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here, sizes = tmp_path / "here", tmp_path / "tiny.json"
    sizes.write_text(to_json(tiny))
    here.mkdir()
    monkeypatch.chdir(here)
    flags = "--generations 2 --levels 4 --seeds 1 --seed-first 7 --ranks 0 1"
    benchmark.main(["--preset", str(sizes), *flags.split()])
    told = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("seed 7, rank 1, generation ") for line in told) == 2
    *_, titles, _, full, low = told
    assert titles.startswith("| how | score, generation 1 | minus the first | score, gen")
    assert (full[:14], low[:10]) == ("| full noise |", "| rank 1 |")
    for row in (full, low):
        after_1, less_1, after_2, less_2, speed, ratio = row.split(" | ")[1:]
        scores = [float(cell) for cell in (after_1, less_1, after_2, less_2)]
        assert np.isfinite(scores).all()
        assert float(speed.split()[0].replace(",", "")) > 0
        assert float(ratio.removesuffix(" |")) > 0
        assert row == low or scores[1] == scores[3] == 0
    assert not list(here.iterdir()), "it writes nothing"


def test_the_benchmark_says_how_many_lives_are_computed_at_once(
    benchmark: ModuleType, low: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_cohort, told, plain = module.make_cohort, [], module.program

    def spied(*sizes: Any) -> Any:
        told.append(sizes[-1])
        return make_cohort(*sizes)

    monkeypatch.setattr(module, "make_cohort", spied)
    monkeypatch.setattr(module, "program", functools.cache(plain.__wrapped__))
    for abreast in (0, 2):
        with benchmark.at_once(abreast):
            make_search(low)
    make_search(low)
    assert told == [0, 2], "and as ever afterwards, by the program that is there"
