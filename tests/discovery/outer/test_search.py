"""The search whole, on the chain, as small as it can be."""

import functools
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from discovery.config import AgentConfig, Config, ConfigError, CurriculumConfig
from discovery.inner.cohort import Lives
from discovery.inner.lifetime import Measure, Outcome, Task, live
from discovery.outer import curriculum
from discovery.outer import search as module
from discovery.outer.evolution import noise
from discovery.outer.scoring import correlation, fitness, lived, signal
from discovery.outer.search import Search, SearchState, make_search
from discovery.outer.tasks import spread_horizons
from envs.levels import level_set
from learned_objectives.library import load, save

Listen = Callable[[], AbstractContextManager[list[str]]]
With = Callable[..., Config]

GROOVE = CurriculumConfig("groove", buffer=64, antagonists=4)


class Record(NamedTuple):
    """A search and its first three generations, each validated."""

    search: Search
    states: list[SearchState]
    metrics: list[dict[str, float]]
    validation: list[dict[str, float]]
    compiled: list[list[str]]
    memory: int


def numbers(metrics: dict[str, Array]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


def host(leaf: Array) -> np.ndarray:
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def content(tree: Any) -> bytes:
    return b"".join(host(leaf).tobytes() for leaf in jax.tree.leaves(tree))


@pytest.fixture(scope="module")
def record(tiny: Config, compiled: Listen) -> Record:
    search = make_search(tiny)
    states, metrics, validation, programs = [search.init()], [], [], []
    for _ in range(3):
        with compiled() as names:
            needed = search.memory(states[-1])
            state, told = search.step(states[-1])
            validation.append(numbers(search.validate(state)))
        states.append(state)
        metrics.append(numbers(told))
        programs.append(list(names))
    return Record(search, states, metrics, validation, programs, needed)


def run(config: Config, generations: int = 3) -> tuple[Search, SearchState, dict[str, float]]:
    search = make_search(config)
    state = search.init()
    for _ in range(generations):
        state, metrics = search.step(state)
    return search, state, numbers(metrics)


def spied(
    monkeypatch: pytest.MonkeyPatch, real: Callable[..., Outcome] = lived
) -> list[tuple[Lives, Array]]:
    """Lives of each generation stepped from now on, and their scores."""
    seen: list[tuple[Lives, Array]] = []

    def spy(cohort: Any, source: Any, hyper: Any, lives: Lives, kind: str) -> Outcome:
        outcome = real(cohort, source, hyper, lives, kind)
        seen.append((lives, fitness(outcome, kind)))
        return outcome

    monkeypatch.setattr(module, "lived", spy)
    return seen


class Finished(NamedTuple):
    """What a curriculum was told of a generation."""

    before: Any
    ended: np.ndarray
    counted: np.ndarray
    slots: np.ndarray
    results: np.ndarray


class Regrets(NamedTuple):
    """A request for regrets, and its answer."""

    key: Array
    tasks: Task
    returns: np.ndarray
    regrets: np.ndarray


class Taught(NamedTuple):
    """A search with a curriculum, and what passed between the two."""

    search: Search
    states: list[SearchState]
    metrics: list[dict[str, float]]
    lives: list[tuple[Lives, Array]]
    finished: list[Finished]
    regrets: list[list[Regrets]]


def teach(config: Config, generations: int, real: Callable[..., Outcome] = lived) -> Taught:
    """Step a search with a curriculum."""
    finished: list[Finished] = []
    regrets: list[list[Regrets]] = []
    finish, make = curriculum.finish, curriculum.make_antagonists

    def spied_finish(state: Any, *lives: Any) -> Any:
        finished.append(Finished(state, *map(np.asarray, lives)))
        regrets.append([])
        return finish(state, *lives)

    def spied_make(config: Config) -> Callable[..., Array]:
        real = make(config)

        def found(key: Array, tasks: Task, returns: Array) -> Array:
            regret = real(key, tasks, returns)
            regrets[-1].append(Regrets(key, tasks, np.asarray(returns), np.asarray(regret)))
            return regret

        return found

    with pytest.MonkeyPatch.context() as patch:
        lives = spied(patch, real)
        patch.setattr(curriculum, "finish", spied_finish)
        patch.setattr(curriculum, "make_antagonists", spied_make)
        search = make_search(config)
        states, metrics = [search.init()], []
        for _ in range(generations):
            state, told = search.step(states[-1])
            states.append(state)
            metrics.append(numbers(told))
    return Taught(search, states, metrics, lives, finished, regrets)


@pytest.fixture(scope="module")
def taught(tiny: Config) -> Taught:
    return teach(replace(tiny, curriculum=GROOVE), 3)


# --- the same, and not the same ---------------------------------------------------------------


def test_memory_is_told_of_the_program_that_runs(record: Record) -> None:
    """At least the two tables of every agent that lives at once; see also the next test."""
    tables = record.search.cohort.group * 4 * (2 + 2)
    assert tables < record.memory < 2**28


def test_every_program_is_compiled_once(record: Record, compiled: Listen, tiny: Config) -> None:
    first, *others = record.compiled
    for program in ("draw", "program", "judge", "group_sums", "climb", "moved"):
        assert first.count(f"jit({program})") <= 1, program
    assert others == [[], []], "nothing is compiled after the first generation"
    # Numbers are data: other rates, horizons and seeds run in the same programs.
    other = replace(
        tiny,
        seed=3,
        agent=replace(tiny.agent, policy_rate=7.0, clip=0.1),
        horizon=replace(tiny.horizon, longest=6),
        evolution=replace(tiny.evolution, sigma=0.1, rate=0.2, shaping="group_z", fitness="area"),
    )
    with compiled() as names:
        _, _, metrics = run(other, 1)
    assert "jit(judge)" in names, "another shaping is another program"
    assert not {"jit(program)", "jit(group_sums)", "jit(climb)", "jit(moved)"} & set(names)
    assert np.isfinite(metrics["fitness"])


def test_the_same_seed_gives_the_same_bytes(record: Record, tiny: Config) -> None:
    _, state, metrics = run(tiny)
    assert content(state.strategy) == content(record.states[3].strategy)
    assert metrics == record.metrics[2]
    assert state.generation == 3


@pytest.mark.parametrize("seed", [1, 2**32])
def test_another_seed_does_not(record: Record, tiny: Config, seed: int) -> None:
    """Both halves of a seed count."""
    search, state, _ = run(replace(tiny, seed=seed), 1)
    assert content(search.theta(state)) != content(record.search.theta(record.states[1]))


def test_the_state_does_not_depend_on_devices(
    record: Record, taught: Taught, tiny: Config, one_device: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "program", functools.cache(module.program.__wrapped__))
    search, state, _ = run(tiny)
    assert search.cohort.replicated.mesh.size == 1
    assert record.search.cohort.replicated.mesh.size == 2
    assert content(state.strategy) == content(record.states[3].strategy)
    assert numbers(search.validate(state)) == record.validation[2]
    _, state, _ = run(replace(tiny, curriculum=GROOVE))
    assert content(state) == content(taught.states[3])


def test_state_is_strongly_typed(record: Record, taught: Taught) -> None:
    for state in [*record.states, *taught.states]:
        assert not any(jax.typeof(leaf).weak_type for leaf in jax.tree.leaves(state))


# --- a generation -----------------------------------------------------------------------------


def test_what_is_told_of_a_generation(record: Record, tiny: Config) -> None:
    for g, metrics in enumerate(record.metrics):
        assert all(np.isfinite(value) for value in metrics.values())
        assert metrics["nonfinite"] == 0
        assert 0 <= metrics["tied"] <= 1
        # Whole updates of 4 environments x 8 steps, the same number for both partners.
        updates = metrics["steps"] / 32
        assert updates == int(updates)
        assert updates % 2 == 0
        assert 32 * 1 <= updates <= 32 * 4
        assert metrics["sigma"] == tiny.evolution.sigma
        old, new = (record.search.theta(record.states[i]) for i in (g, g + 1))
        leaves = zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True)
        square = sum(float(np.sum((np.asarray(a) - np.asarray(b)) ** 2)) for a, b in leaves)
        assert metrics["update_norm"] == pytest.approx(np.sqrt(square), rel=1e-5)
    assert {"entropy", "theta_norm", "rate"} <= record.metrics[0].keys()
    assert record.search.theta(record.states[0])["pi"]["w"].tolist() == [[0], [0], [0], [0]]


@pytest.mark.parametrize("shared", [True, False])
def test_partners_share_a_task_and_perhaps_their_stream(
    tiny: Config, with_evolution: With, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = spied(monkeypatch)
    run(with_evolution(tiny, shared_stream=shared), 2)
    keys, rests = [], []
    for lives, _ in seen:
        task = jax.tree.map(np.asarray, lives.task)
        for leaf in jax.tree.leaves(task):
            assert (leaf[0::2] == leaf[1::2]).all(), "partners share level and horizon"
        assert (np.diff(task.horizon) >= 0).all(), "sorted by horizon"
        key = np.asarray(jax.random.key_data(lives.key))
        assert (key[0::2] == key[1::2]).all() == shared
        keys.append(key)
        rests.append(task.level.rest[0::2])
    assert len(np.unique(np.concatenate(keys), axis=0)) == (32 if shared else 64)
    assert len(np.unique(np.concatenate(rests))) == 32, "pairs differ, and are fresh each time"


def test_tasks_are_paired_between_searches_of_one_seed(
    tiny: Config, with_evolution: With, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Searches that compare objectives see the same tasks, generation by generation."""
    seen = spied(monkeypatch)
    run(tiny, 2)
    run(with_evolution(tiny, shaping="centred_rank", sigma=0.1), 2)
    for first, second in zip(seen[:2], seen[2:], strict=True):
        assert content(first[0].task) == content(second[0].task)


def test_a_repeat_under_other_random_numbers_tells_luck(
    tiny: Config, with_evolution: With, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = spied(monkeypatch)
    search = make_search(with_evolution(tiny, signal_every=2))
    state, first = search.step(search.init())
    state, second = search.step(state)
    assert "signal" in first
    assert "signal" not in second
    (lives, scores), (again, repeat), _ = seen
    assert content((lives.task, lives.id, lives.sign)) == content(
        (again.task, again.id, again.sign)
    )
    data = [np.asarray(jax.random.key_data(x.key)) for x in (lives, again)]
    assert (data[0] != data[1]).any(axis=1).all()
    expected = np.corrcoef(*(np.asarray(x)[0::2] - np.asarray(x)[1::2] for x in (scores, repeat)))
    assert float(first["signal"]) == pytest.approx(expected[0, 1], abs=1e-5)
    assert content(state.strategy) == content(record.states[2].strategy), "it changes nothing else"


def test_correlation_by_hand() -> None:
    nan = np.nan
    first = [1.0, 2.0, nan, 4.0, 9.0]
    of = jax.jit(lambda x, y: correlation(jnp.asarray(x, float), jnp.asarray(y, float)))
    assert of(first, [2.0, 4.0, 7.0, 8.0, nan]) == pytest.approx(1)
    assert of(first, [1.0, 0.0, 7.0, -2.0, nan]) == pytest.approx(-1)
    assert of(first, [1.0] * 5) == 0
    assert of([nan] * 5, first) == 0
    # Differences of the pairs: 1, -1, 2 and 2, -2, 4.
    scores = np.array([1, 0, 0, 1, 2, 0], np.float32)
    assert signal(jnp.asarray(scores), jnp.asarray(2 * scores + 5)) == pytest.approx(1)


# --- scores that are no numbers ---------------------------------------------------------------


def test_a_candidate_whose_agent_breaks_loses_and_is_counted(
    tiny: Config, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every agent on the far side of the mean is said to be not finite, whatever its return."""

    def breaking(cohort: Any, source: Any, hyper: Any, lives: Lives, kind: str) -> Outcome:
        outcome = lived(cohort, source, hyper, lives, kind)
        return outcome._replace(finite=outcome.finite & (lives.sign < 0), final=outcome.final + 9)

    monkeypatch.setattr(module, "lived", breaking)
    search, state, metrics = run(tiny, 1)
    assert (metrics["nonfinite"], metrics["tied"]) == (16, 0)
    assert np.isfinite([*metrics.values()]).all()
    key = jax.random.split(jax.random.fold_in(state.key, 0), 4)[0]
    drawn = jax.vmap(lambda j: noise(key, j, search.theta(state)))(np.arange(16, dtype=np.int32))
    # Each pair pulls towards -z, and Adam's first step is the rate.
    for moved, z in zip(jax.tree.leaves(search.theta(state)), jax.tree.leaves(drawn), strict=True):
        expected = -tiny.evolution.rate * np.sign(np.asarray(z).sum(axis=0))
        np.testing.assert_allclose(moved, expected, rtol=1e-3)


@pytest.mark.parametrize("shaping", ["pair", "centred_rank", "group_z"])
def test_a_generation_without_a_finite_score_moves_nothing(
    tiny: Config, with_evolution: With, shaping: str
) -> None:
    broken = replace(tiny, agent=AgentConfig(policy_rate=float("nan")))
    search, state, metrics = run(with_evolution(broken, shaping=shaping), 2)
    assert (metrics["nonfinite"], metrics["tied"], state.generation) == (32, 1, 2)
    assert np.isnan(metrics["fitness"])
    assert not np.frombuffer(content(search.theta(state)), np.float32).any()


# --- a curriculum -----------------------------------------------------------------------------


def test_every_pair_ends_with_its_generation(taught: Taught) -> None:
    for one, state in zip(taught.finished, taught.states[1:], strict=True):
        assert one.ended.all()
        assert one.counted.all()
        assert state.curriculum.queue.length == 0
        assert not np.asarray(state.curriculum.buffer.active).any()
    assert jax.tree.leaves(taught.states[-1].agents) == []


def test_tasks_are_sorted_after_replay_and_their_entries_follow(taught: Taught) -> None:
    known = 0
    for (lives, _), one, metrics in zip(taught.lives, taught.finished, taught.metrics, strict=True):
        horizon = np.asarray(lives.task.horizon)
        assert (np.diff(horizon) >= 0).all()
        pairs = jax.tree.map(lambda leaf: leaf[0::2], lives.task)
        assert content(pairs) == content(jax.tree.map(lambda leaf: leaf[1::2], lives.task))
        buffer = one.before.buffer
        there = jax.tree.map(lambda leaf, one=one: leaf[one.slots], (buffer.level, buffer.horizon))
        assert content(there) == content(tuple(pairs))
        assert len(np.unique(one.slots)) == 16
        # Tasks are moved, so that candidates are not.
        assert (np.asarray(lives.id) == np.repeat(np.arange(16), 2)).all()
        assert (np.asarray(lives.sign) == np.tile([1, -1], 16)).all()
        entered = np.asarray(buffer.id)[one.slots] >= known
        assert metrics["replayed"] == 1 - entered.mean()
        known = int(buffer.next_id)
    assert max(metrics["replayed"] for metrics in taught.metrics) > 0


def test_a_regret_is_that_of_the_mean_of_a_pair(taught: Taught, tiny: Config) -> None:
    rival = curriculum.make_antagonists(replace(tiny, curriculum=GROOVE))
    keys = []
    for (lives, scores), one, regrets, state in zip(
        taught.lives, taught.finished, taught.regrets, taught.states[1:], strict=True
    ):
        score = np.asarray(scores)
        np.testing.assert_allclose(one.results, (score[0::2] + score[1::2]) / 2, rtol=1e-5)
        assert len(regrets) == 4, "four at once, until none waits"
        for i, few in enumerate(regrets):
            mine = slice(8 * i, 8 * i + 8, 2)
            assert content(few.tasks) == content(
                jax.tree.map(lambda leaf, mine=mine: leaf[mine], lives.task)
            )
            assert (few.returns == one.results[4 * i : 4 * i + 4]).all()
            alone = np.asarray(rival(few.key, few.tasks, jnp.zeros(4)))
            np.testing.assert_allclose(few.regrets, alone - few.returns, rtol=1e-5, atol=1e-6)
            keys.append(host(few.key))
        found = np.asarray(state.curriculum.buffer.score)[one.slots]
        assert (found == np.concatenate([few.regrets for few in regrets])).all()
    assert len(np.unique(np.stack(keys), axis=0)) == 12, "each rival has a stream of its own"


def test_what_is_told_of_a_curriculum(taught: Taught, record: Record) -> None:
    first, *others = taught.metrics
    unknown = {"regret_low", "regret_median", "regret_high", "replayed_horizon"}
    assert {name for name, value in first.items() if not np.isfinite(value)} <= unknown | {
        "replayable_horizon"
    }
    assert (first["replayed"], first["filled"]) == (0, 16 / 64)
    for metrics in others:
        assert np.isfinite([*metrics.values()]).all()
        assert metrics["regret_low"] <= metrics["regret_median"] <= metrics["regret_high"]
        assert metrics["regret_nonfinite"] == 0
    for metrics in taught.metrics:
        # A rival for each pair of lives, over the same updates; 4 episodes of 10 steps each.
        assert metrics["rival_steps"] == metrics["steps"] / 2 + 16 * 4 * 10
    # Without it the first generation is the same: nothing is replayed in that.
    assert first.items() >= record.metrics[0].items()
    assert content(taught.states[1].strategy) == content(record.states[1].strategy)
    assert content(taught.states[2].strategy) != content(record.states[2].strategy)
    columns = taught.search.columns(taught.states[-1])
    assert columns["scored"].all()
    assert record.search.columns(record.states[-1]) == {}


def test_a_pair_of_which_one_breaks_is_judged_by_the_other(tiny: Config) -> None:
    """Of the first eight pairs one side breaks, and of the first pair both."""

    def breaking(cohort: Any, source: Any, hyper: Any, lives: Lives, kind: str) -> Outcome:
        outcome = lived(cohort, source, hyper, lives, kind)
        broken = ((lives.id < 8) & (lives.sign < 0)) | (lives.id == 0)
        return outcome._replace(finite=outcome.finite & ~broken)

    found = teach(replace(tiny, curriculum=GROOVE), 2, breaking)
    (_, scores), one = found.lives[0], found.finished[0]
    first, second = np.asarray(scores).reshape(-1, 2).T
    assert np.isnan(one.results[0])
    assert (one.results[1:8] == first[1:8]).all()
    np.testing.assert_allclose(one.results[8:], (first[8:] + second[8:]) / 2, rtol=1e-5)
    buffer = found.states[1].curriculum.buffer
    assert not buffer.scored[one.slots[0]], "without a return there is no regret"
    assert np.asarray(buffer.scored)[one.slots[1:]].all()
    assert found.metrics[1]["regret_nonfinite"] == 1
    assert found.metrics[1]["replayed"] == 0, "fifteen are not enough for sixteen pairs"


def test_coins_search_without_looking(record: Record, tiny: Config, with_evolution: With) -> None:
    """Other lives, and the same walk; which is none of those that scores lead to."""
    blind = with_evolution(tiny, shaping="coin_flip")
    _, state, metrics = run(blind, 2)
    weak = replace(blind, agent=replace(tiny.agent, policy_rate=0.5))
    _, other, others = run(weak, 2)
    assert content(state.strategy) == content(other.strategy)
    assert metrics["fitness"] != others["fitness"]
    assert metrics["update_norm"] == others["update_norm"] > 0
    assert content(state.strategy) != content(record.states[2].strategy)


# --- what is searched over --------------------------------------------------------------------


def scores(search: Search, theta: Any, gate: float) -> Array:
    """Of one theta on eight lives, by the search's own program."""
    level = jax.vmap(search.world.env.sample_level)(jax.random.split(jax.random.key(1), 8))
    lives = Lives(
        id=jnp.zeros(8, jnp.int32),
        sign=jnp.zeros(8),
        task=Task(level, jnp.full(8, 4, jnp.int32)),
        key=jax.random.split(jax.random.key(2), 8),
    )
    hyper = search.hyper._replace(clock_gate=gate)
    return fitness(lived(search.cohort, search.still(theta), hyper, lives, "area"), "area")


def test_behind_a_closed_gate_the_clock_changes_nothing(
    record: Record, tiny: Config, compiled: Listen
) -> None:
    search = record.search
    plain = noise(jax.random.key(5), jnp.int32(0), search.theta(record.states[0]))
    louder = np.array(plain["cell"]["wx"])
    louder[-2:] += 3.0
    noisy = {**plain, "cell": {**plain["cell"], "wx": jnp.asarray(louder)}}
    with compiled() as names:
        assert content(scores(search, plain, 0.0)) == content(scores(search, noisy, 0.0))
        assert content(scores(search, plain, 1.0)) != content(scores(search, noisy, 1.0))
    assert "jit(program)" not in names
    twin = make_search(replace(tiny, objective=replace(tiny.objective, clock_gate=0.0)))
    assert twin.hyper.clock_gate == 0
    assert search.hyper.clock_gate == 1


def test_what_is_saved_scores_as_what_was_trained(
    record: Record, tiny: Config, tmp_path: Path
) -> None:
    """Through files and ``live`` alone, without the search's program."""
    search, state = record.search, record.states[3]
    save(tmp_path, search.objective, jax.device_get(search.theta(state)), {})
    saved = load(tmp_path)
    count = tiny.validation_levels
    root = jax.random.key(zlib.crc32(b"validation lives"))
    tasks = Task(
        level_set(search.world.env, "validation", count).levels,
        spread_horizons(tiny.horizon, count),
    )
    keys = jnp.stack([jax.random.fold_in(root, i) for i in range(count)])
    world = replace(search.world, objective=saved.objective)

    def one(task: Task, key: Array) -> Array:
        points = Measure(points=jnp.int32(1), modes=jnp.int32(1))
        return live(world, saved.theta, search.hyper, task, key, points).final[0]

    alone = np.asarray(jax.jit(jax.vmap(one))(tasks, keys))
    found = record.validation[2]
    assert found["validation"] == pytest.approx(alone.mean(), rel=1e-5)
    for i, third in enumerate(("short", "middle", "long")):
        assert found[f"validation_{third}"] == pytest.approx(
            alone[3 * i : 3 * i + 3].mean(), rel=1e-5
        )
    assert found != record.validation[0], "the mean has moved"


def test_the_mean_may_start_at_the_rules_own_initialisation(
    tiny: Config, with_evolution: With
) -> None:
    search = make_search(with_evolution(tiny, start="init"))
    theta = search.theta(search.init())
    shapes = jax.eval_shape(search.objective.init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, theta) == jax.tree.map(lambda leaf: leaf.shape, shapes)
    recurrent = np.asarray(theta["cell"]["wh"][:, :4])
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(4), atol=1e-5)
    other = make_search(replace(with_evolution(tiny, start="init"), seed=1))
    assert content(other.theta(other.init())) != content(theta)


def test_a_strategy_of_evosax_searches(
    tiny: Config, with_evolution: With, compiled: Listen
) -> None:
    search = make_search(with_evolution(tiny, strategy="SNES", shaping="centred_rank"))
    state, first = search.step(search.init())
    before = numbers(search.validate(state))
    with compiled() as names:
        state, second = search.step(state)
        after = numbers(search.validate(state))
    assert names == []
    assert np.isfinite([*numbers(second).values(), *before.values(), *after.values()]).all()
    assert second["update_norm"] > 0
    assert second["sigma"] != first["sigma"], "SNES adapts it"


def test_a_rule_without_parameters_cannot_be_searched(tiny: Config) -> None:
    with pytest.raises(ConfigError, match="rule a2c has no parameters to search over"):
        make_search(replace(tiny, objective=replace(tiny.objective, rule="a2c")))


# --- it learns --------------------------------------------------------------------------------


def test_a_few_dozen_generations_improve_the_validation_score(tiny: Config) -> None:
    """A random agent earns about 0, the best 2.55; the program is that of the other tests."""
    search = make_search(
        replace(tiny, validation_levels=32, horizon=replace(tiny.horizon, shortest=10, longest=20))
    )
    state = search.init()
    start = search.validate(state)["validation"]
    for _ in range(30):
        state, _ = search.step(state)
    end = search.validate(state)["validation"]
    assert abs(start) < 0.3
    assert end > 1.5
