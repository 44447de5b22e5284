"""Evolution over windows: what partners share, what a window is, and what its end is worth."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jaxtyping import Array

from discovery.config import AgentConfig, Config, ConfigError, CurriculumConfig, WindowConfig
from discovery.inner.lifetime import birth, grow
from discovery.inner.rollout import episode_return
from discovery.outer import curriculum as curriculum_module
from discovery.outer import windows as module
from discovery.outer.evolution import Source, noise, perturbed, stored
from discovery.outer.persistent import Agents, Newborn, first_cut, staggered
from discovery.outer.search import Search, SearchState, make_search
from discovery.outer.windows import Told, Who, candidates, closed, votes, weighed

Listen = Callable[[], AbstractContextManager[list[str]]]
With = Callable[..., Config]

K, M = 3, 16
GENERATIONS = 4
V = 4
GROOVE = CurriculumConfig("groove", buffer=64, antagonists=V)


class Seen(NamedTuple):
    """One generation: what its program got and gave, and what the strategy was told."""

    source: Any
    hyper: Any
    before: Agents
    newborn: Newborn
    who: Who
    after: Agents
    told: Told
    weights: np.ndarray
    ended: np.ndarray


class Record(NamedTuple):
    """A search and its first generations."""

    search: Search
    states: list[SearchState]
    metrics: list[dict[str, float]]
    seen: list[Seen]
    compiled: list[list[str]]
    memory: int


class Spy(NamedTuple):
    """A program, and what it was called with and gave."""

    program: Any
    seen: list[Any]

    def __call__(self, *arguments: Any) -> Any:
        found = self.program(*arguments)
        self.seen.append((*arguments, *found[0]))
        return found

    @property
    def lower(self) -> Any:
        return self.program.lower


def watched(config: Config, generations: int, listen: Listen, tell_memory: bool = False) -> Record:
    """Step a search, and write down what passes between its parts."""
    programs, strategies = module._programs, module.make_strategy
    lived: list[Any] = []
    told: list[Any] = []

    def spied_programs(*sizes: Any) -> Any:
        world, cohort, everyone, mesh = programs(*sizes)
        return world, cohort, Spy(everyone, lived), mesh

    def spied_strategy(*arguments: Any, **options: Any) -> Any:
        real = strategies(*arguments, **options)

        def tell(state: Any, source: Any, weights: Array) -> Any:
            told.append(np.asarray(weights))
            return real.tell(state, source, weights)

        def forget(state: Any, ended: Array) -> Any:
            told.append(np.asarray(ended))
            return real.forget(state, ended)

        return real._replace(tell=tell, forget=forget)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_programs", spied_programs)
        patch.setattr(module, "make_strategy", spied_strategy)
        search = make_search(config)
        states, metrics, compiled, needed = [search.init()], [], [], 0
        for g in range(generations):
            with listen() as names:
                if g == 0 and tell_memory:
                    needed = search.memory(states[-1])
                state, numbers = search.step(states[-1])
            states.append(state)
            metrics.append({name: float(value) for name, value in numbers.items()})
            compiled.append(list(names))
    of_strategy = zip(told[::2], told[1::2], strict=True)
    seen = [Seen(*one, *two) for one, two in zip(lived, of_strategy, strict=True)]
    return Record(search, states, metrics, seen, compiled, needed)


@pytest.fixture(scope="module")
def windowed(tiny: Config) -> Config:
    """Lives of which some end in the middle of a window, and some after several."""
    return replace(
        tiny,
        estimator="windows",
        window=WindowConfig(window=K),
        horizon=replace(tiny.horizon, shortest=2, longest=7),
    )


@pytest.fixture(scope="module")
def record(windowed: Config, compiled: Listen) -> Record:
    return watched(windowed, GENERATIONS, compiled, tell_memory=True)


@pytest.fixture(scope="module")
def persistent(windowed: Config, with_evolution: With, compiled: Listen) -> Record:
    config = with_evolution(
        windowed, strategy="PersistentES", sigma=0.3, rate=0.05, rate_decay=0.9, rate_floor=0.0
    )
    return watched(config, GENERATIONS, compiled)


@pytest.fixture(params=["record", "persistent"])
def either(request: pytest.FixtureRequest) -> Record:
    """What holds for both kinds."""
    return request.getfixturevalue(request.param)


def host(tree: Any) -> Any:
    """On the host, keys as their data."""

    def bring(leaf: Any) -> np.ndarray:
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if is_key else leaf)

    return jax.tree.map(bring, tree)


def content(tree: Any) -> bytes:
    return b"".join(leaf.tobytes() for leaf in jax.tree.leaves(host(tree)))


def flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def of_partners(tree: Any) -> np.ndarray:
    """Whether the partners of each pair are the same in every leaf ``[L, ...]``."""
    leaves = [leaf.reshape(2 * M, -1) for leaf in jax.tree.leaves(host(tree))]
    return np.all([(leaf[0::2] == leaf[1::2]).all(axis=1) for leaf in leaves], axis=0)


# --- a window ---------------------------------------------------------------------------------


def test_every_program_is_compiled_once(record: Record, windowed: Config, compiled: Listen) -> None:
    first, *others = record.compiled
    for program in ("draw_births", "apply", "closed", "votes", "judge", "weighed", "climb"):
        assert first.count(f"jit({program})") <= 1, program
    assert others == [[]] * (GENERATIONS - 1)
    tables = 8 * 4 * (2 + 2)
    assert tables < record.memory < 2**28
    # Numbers are data.
    other = replace(
        windowed, seed=5, evolution=replace(windowed.evolution, sigma=0.1, rate=0.2, beta1=0.5)
    )
    with compiled() as names:
        watched(other, 1, compiled)
    assert "jit(apply)" not in names


def test_states_are_strongly_typed(either: Record) -> None:
    for state in either.states:
        assert not any(jax.typeof(leaf).weak_type for leaf in jax.tree.leaves(state))


def test_partners_share_everything_but_what_they_learn(either: Record) -> None:
    for seen, state in zip(either.seen, either.states[1:], strict=True):
        assert of_partners(seen.newborn).all()
        assert (seen.who.pair == np.repeat(np.arange(M), 2)).all()
        assert (seen.who.sign == np.tile([1.0, -1.0], M)).all()
        agents = state.agents
        shared = (agents.task, agents.until, agents.life.n, agents.life.key, agents.ended)
        assert of_partners(shared).all(), "a task, a horizon, a stream, and one end"
        assert not of_partners(agents.life.learner.params).any(), "they are under two candidates"
        keys = host(agents.life.key)[0::2]
        assert len(np.unique(keys, axis=0)) == M, "pairs differ"
        tasks = host(seen.newborn.task.level.rest)[0::2]
        assert len(np.unique(tasks)) == M
    born = [host(seen.newborn.key)[0::2] for seen in either.seen]
    assert len(np.unique(np.concatenate(born), axis=0)) == GENERATIONS * M, "fresh each time"


def test_who_is_asked() -> None:
    who = host(candidates(jax.random.key(3), 4000))
    assert (who.heir[0::2] == who.heir[1::2]).all(), "one agent for both"
    # A fair coin: the standard error of the mean is 0.008.
    assert set(who.heir) == {0, 1}
    assert abs(who.heir.mean() - 0.5) < 0.032
    assert (host(candidates(jax.random.key(3), 4000)).heir == who.heir).all()
    assert (host(candidates(jax.random.key(4), 4000)).heir != who.heir).any()


class Hand(NamedTuple):
    """Births, single updates and scores of many agents, each one program."""

    born: Callable[..., Any]
    grown: Callable[..., Any]
    scored: Callable[..., Array]


@pytest.fixture(scope="module")
def hand(record: Record) -> Hand:
    world = record.search.world

    def scored(life: Any, level: Any) -> Array:
        key = jax.random.fold_in(jax.random.fold_in(life.key, 2**31), life.n)
        params, greedy = life.learner.params, jnp.zeros((), bool)
        return episode_return(
            world.env, world.network, params, level, key, world.episodes, greedy, life.scaling
        )

    def grown(theta: Any, hyper: Any, task: Any, life: Any, alive: Array) -> Any:
        after = grow(world, theta, hyper, task, life)[0]
        return jax.tree.map(functools.partial(jnp.where, alive), after, life)

    return Hand(
        jax.jit(jax.vmap(functools.partial(birth, world), (0, None, 0, 0))),
        jax.jit(jax.vmap(grown, (0, None, 0, 0, 0))),
        jax.jit(jax.vmap(scored)),
    )


@jax.jit
def chosen(condition: Array, new: Any, old: Any) -> Any:
    """Leaves ``[L, ...]`` of one of two trees, life by life."""
    return jax.vmap(lambda c, a, b: jax.tree.map(functools.partial(jnp.where, c), a, b))(
        condition, new, old
    )


def begin_as(seen: Seen, goes_on: bool) -> np.ndarray:
    """The agent of the last window as which each of this one begins."""
    index = np.arange(2 * M)
    return index if goes_on else index - index % 2 + np.asarray(seen.who.heir)


def test_a_window_is_k_updates_by_hand(
    either: Record, persistent: Record, hand: Hand, request: pytest.FixtureRequest
) -> None:
    """From a birth, from the heir of the last window, or from oneself; scored where it ends."""
    frozen = resumed = 0
    for seen in either.seen:
        begin = begin_as(seen, goes_on=either is persistent)
        seen = jax.device_put(seen, jax.local_devices()[0])
        candidate = perturbed if isinstance(seen.source, Source) else stored
        of_lives = jax.vmap(candidate, (None, 0, 0))
        theta = jax.jit(of_lives)(seen.source, seen.who.pair, seen.who.sign)
        born = seen.before.ended
        task = chosen(born, seen.newborn.task, seen.before.task)
        until = chosen(born, seen.newborn.until, seen.before.until)
        life = jax.tree.map(lambda leaf, begin=begin: leaf[begin], seen.before.life)
        life = chosen(born, hand.born(theta, seen.hyper, task, seen.newborn.key), life)
        resumed += int(np.sum(~born))
        lived = np.zeros(2 * M)
        for _ in range(K):
            alive = life.n < until
            life = hand.grown(theta, seen.hyper, task, life, alive)
            lived += np.asarray(alive)
        frozen += int(np.sum(lived < K))

        found = seen.after
        assert content((found.task, found.until)) == content((task, until))
        assert content((found.life.n, found.life.key)) == content((life.n, life.key))
        assert (found.life.n <= until).all(), "a life is frozen where it ends"
        assert (found.ended == (life.n >= until)).all()
        assert (seen.told.updates == lived).all()
        for ours, expected in zip(
            jax.tree.leaves(host(found.life)), jax.tree.leaves(host(life)), strict=True
        ):
            np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4)
        # Of fresh episodes, under a key that no update and no other window has.
        scores = hand.scored(life, task.level)
        np.testing.assert_allclose(seen.told.score, scores, rtol=1e-3, atol=1e-4)
    assert frozen > 0
    assert resumed > 0


def test_what_is_told_of_a_generation(record: Record, windowed: Config) -> None:
    for metrics, seen, state in zip(record.metrics, record.seen, record.states[1:], strict=True):
        assert all(np.isfinite(value) for value in metrics.values())
        assert metrics["nonfinite"] == 0
        score = np.asarray(seen.told.score)
        assert metrics["fitness"] == pytest.approx(score.mean(), rel=1e-5)
        assert metrics["tied"] == (score[0::2] == score[1::2]).mean()
        assert metrics["steps"] == 4 * 8 * np.asarray(seen.told.updates).sum()
        assert metrics["evaluation_steps"] == 2 * M * 4 * 10
        agents = host(state.agents)
        assert metrics["ended"] == (agents.life.n >= agents.task.horizon)[0::2].sum()
        assert metrics["sigma"] == windowed.evolution.sigma
    assert {"entropy", "update_norm", "theta_norm", "rate"} <= record.metrics[0].keys()


def test_first_lives_are_cut_at_a_uniform_update_and_no_others(either: Record) -> None:
    first, *others = host(either.seen)
    horizon, until = first.newborn.task.horizon, first.newborn.until
    assert ((until >= 1) & (until <= horizon)).all()
    assert (until < horizon).any()
    for seen in others:
        assert (seen.newborn.until == seen.newborn.task.horizon).all()
    # The clock stays honest: what is cut short has the horizon that it was told.
    assert (first.after.task.horizon == horizon).all()
    ages = {tuple(seen.after.life.n[0::2]) for seen in [first, *others]}
    assert len(ages) > 1
    cut = jax.jit(staggered)(jax.random.key(0), jnp.full(5000, 5))
    counts = np.bincount(np.asarray(cut), minlength=6)
    assert counts[0] == 0
    # Standard error 28.
    assert (abs(counts[1:] - 1000) < 120).all()
    uncut = first_cut(jnp.int32(1), jax.random.key(0), jnp.full(5000, 5))
    assert (uncut == 5).all()


def test_candidates_that_are_the_same_all_tie(
    windowed: Config, with_evolution: With, compiled: Listen
) -> None:
    """Beside numbers of order one this sigma is nothing, and partners have one stream."""
    found = watched(with_evolution(windowed, sigma=1e-30), 3, compiled)
    for seen, metrics in zip(found.seen, found.metrics, strict=True):
        assert of_partners((seen.told.score, seen.after.life.observation)).all()
        assert (metrics["tied"], metrics["update_norm"]) == (1, 0)
    assert len(np.unique(found.seen[-1].told.score)) > M / 2, "pairs differ"


def test_agents_that_break_are_born_again(windowed: Config, compiled: Listen) -> None:
    broken = replace(windowed, agent=AgentConfig(policy_rate=float("nan")))
    found = watched(broken, 2, compiled)
    for seen, metrics in zip(found.seen, found.metrics, strict=True):
        assert np.isnan(seen.told.score).all()
        assert seen.ended.all()
        assert (metrics["nonfinite"], metrics["tied"], metrics["update_norm"]) == (32, 1, 0)
    born = found.seen[1]
    assert np.asarray(born.before.ended).all()
    assert content(born.after.task) == content(born.newborn.task)


def test_a_pair_ends_for_both_at_once(record: Record) -> None:
    """Whichever partner breaks; and it is at its horizon only if it got there."""
    agents = host(record.states[1].agents)
    n = np.repeat([3, 3, 5, 5, 2], 2)
    ended = [True, False, False, False, False, True, True, True, False, False]
    horizon = np.repeat([7, 7, 5, 5, 2], 2)
    few = jax.tree.map(lambda leaf: jnp.asarray(leaf[:10]), agents)
    few = few._replace(
        life=few.life._replace(n=jnp.asarray(n)),
        task=few.task._replace(horizon=jnp.asarray(horizon)),
        ended=jnp.asarray(ended),
    )
    after, of_pairs, at_end = closed(few)
    assert of_pairs.tolist() == [True, False, True, True, False]
    assert at_end.tolist() == [False, False, True, True, False]
    assert after.ended.tolist() == np.repeat(of_pairs, 2).tolist()
    assert content(after._replace(ended=few.ended)) == content(few)


# --- votes ------------------------------------------------------------------------------------


def test_votes_by_hand() -> None:
    horizon = jnp.asarray(np.repeat([2, 4, 8, 8], 2))
    n = jnp.asarray(np.repeat([2, 3, 8, 5], 2))
    updates = jnp.asarray(np.repeat([2, 3, 2, 4], 2))

    def of(end_only: bool, by_life: bool) -> tuple[list[bool], list[float]]:
        counts, vote = votes(horizon, n, updates, end_only, by_life)
        return counts.tolist(), vote.tolist()

    assert of(False, False) == ([True] * 4, [1, 1, 1, 1])
    assert of(True, False) == ([True, False, True, False], [1, 0, 1, 0])
    # Shares of their lives: 1, 3/4, 1/4, 1/2; of mean 5/8.
    assert of(False, True) == ([True] * 4, pytest.approx([1.6, 1.2, 0.4, 0.8]))
    # Every life has one last window: that is its vote.
    assert of(True, True) == of(True, False)


lengths = arrays(np.int32, (6,), elements=st.integers(1, 300))


@pytest.mark.parametrize("by_life", [False, True])
@pytest.mark.parametrize("end_only", [False, True])
@settings(max_examples=20)
@given(horizon=lengths, n=lengths, updates=lengths)
def test_votes_are_of_mean_one_over_those_that_count(
    end_only: bool, by_life: bool, horizon: np.ndarray, n: np.ndarray, updates: np.ndarray
) -> None:
    n = np.minimum(n, horizon)
    updates = np.minimum(updates, n)
    of_lives = (jnp.repeat(x, 2) for x in (horizon, n, updates))
    counts, vote = host(votes(*of_lives, end_only, by_life))
    assert (counts == ((n == horizon) | (not end_only))).all()
    assert (vote[~counts] == 0).all()
    if counts.any():
        assert vote[counts].mean() == pytest.approx(1, rel=1e-5)
        share = updates / horizon if by_life and not end_only else np.ones(6)
        worth = vote[counts] / share[counts]
        np.testing.assert_allclose(worth, worth[0], rtol=1e-5)


def test_the_windows_of_a_life_have_one_vote_together() -> None:
    """Whatever the horizon, and whether it is a multiple of K."""
    for horizon in (1, 4, 5, 6, 23):
        n = np.minimum(np.arange(5, horizon + 5, 5), horizon)
        updates = np.diff(n, prepend=0)
        lives = (np.repeat(x, 2) for x in (np.full(len(n), horizon), n, updates))
        counts, vote = votes(*map(jnp.asarray, lives), False, True)
        # Votes are told of mean one: before that they are shares of the life.
        assert counts.all()
        np.testing.assert_allclose(vote / vote.sum(), updates / horizon, rtol=1e-6)


@settings(max_examples=20)
@given(
    arrays(np.float32, (6, 2), elements=st.floats(-8, 8, width=16)),
    arrays(np.float32, (6,), elements=st.floats(0, 4, width=16)),
)
def test_a_vote_scales_the_difference_and_keeps_the_middle(
    weights: np.ndarray, vote: np.ndarray
) -> None:
    found = host(weighed(jnp.asarray(weights), jnp.asarray(vote)))
    np.testing.assert_allclose(found.mean(axis=1), weights.mean(axis=1), atol=1e-5)
    difference = weights[:, 0] - weights[:, 1]
    np.testing.assert_allclose(found[:, 0] - found[:, 1], vote * difference, atol=1e-4)
    assert (found[vote == 0, 0] == found[vote == 0, 1]).all(), "no vote, no difference at all"


@pytest.mark.parametrize("score", ["along", "end"])
def test_the_gradient_is_that_of_the_votes(
    windowed: Config, compiled: Listen, score: Literal["along", "end"]
) -> None:
    """One vote a life; pairs that have none are left out."""
    voting = replace(windowed, window=WindowConfig(window=K, score=score, vote="life"))
    found = watched(voting, GENERATIONS, compiled)
    for seen, metrics in zip(found.seen, found.metrics, strict=True):
        lived = host(seen.after)
        counts = np.ones(M, bool)
        vote = (host(seen.told.updates) / lived.task.horizon)[0::2]
        if score == "end":
            counts = (lived.life.n == lived.task.horizon)[0::2]
            assert counts.any()
            assert not counts.all()
            vote = counts.astype(float)  # the last window of a life is its one vote
        assert metrics["evaluation_steps"] == 2 * counts.sum() * 4 * 10
        scores = host(seen.told.score)
        won = np.sign(scores[0::2] - scores[1::2])
        expected = won * vote * counts.sum() / vote.sum()
        np.testing.assert_allclose(seen.weights[:, 0] - seen.weights[:, 1], expected, atol=1e-5)
        np.testing.assert_allclose(seen.weights.mean(axis=1), 0.5, atol=1e-6)
    # Adam's first step is the rate along the sign of the gradient.
    first, start = found.seen[0], found.search.theta(found.states[0])
    drawn = jax.jit(jax.vmap(lambda j: noise(first.source.key, j, start)))(np.arange(M))
    pull = first.weights[:, 0] - first.weights[:, 1]
    after = found.search.theta(found.states[1])
    for moved, z in zip(jax.tree.leaves(after), jax.tree.leaves(drawn), strict=True):
        expected = voting.evolution.rate * np.sign(np.tensordot(pull, np.asarray(z), axes=1))
        np.testing.assert_allclose(moved, expected, rtol=1e-3)


def test_a_window_in_which_no_life_ends_moves_nothing(windowed: Config, compiled: Listen) -> None:
    later = replace(
        windowed,
        window=WindowConfig(window=K, score="end"),
        horizon=replace(windowed.horizon, shortest=6, longest=6),
    )
    found = watched(later, 2, compiled)
    first, second = found.metrics
    assert (first["ended"], first["evaluation_steps"], first["update_norm"]) == (0, 0, 0)
    assert second["ended"] > 0
    assert second["update_norm"] > 0


# --- persistent evolution strategies ----------------------------------------------------------


def test_persistent_updates_by_hand(persistent: Record, windowed: Config) -> None:
    r"""The gradient is the sum of cost times accumulated perturbation over :math:`\sigma^2 P`."""
    search, sigma, population = persistent.search, 0.3, 2 * M
    gone_on = np.zeros(M)
    mean = flat(search.theta(persistent.states[0])).astype(np.float64)
    accumulated = np.zeros((population, mean.size))
    moment = square = np.zeros(mean.size)
    b1, b2 = windowed.evolution.beta1, windowed.evolution.beta2
    for g, (seen, state) in enumerate(zip(persistent.seen, persistent.states[1:], strict=True)):
        rows = [leaf.reshape(population, -1) for leaf in jax.tree.leaves(seen.source.population)]
        moved = np.concatenate(rows, axis=1) - mean
        np.testing.assert_allclose(moved[:M], -moved[M:], atol=1e-5, err_msg="antithetic")
        assert moved.std() == pytest.approx(sigma, rel=0.1)
        accumulated = accumulated + moved
        # By pair: candidates j and j + M are its partners.
        cost = -np.concatenate([seen.weights[:, 0], seen.weights[:, 1]])
        gradient = cost @ accumulated / (sigma**2 * population)
        moment = b1 * moment + (1 - b1) * gradient
        square = b2 * square + (1 - b2) * gradient**2
        step = moment / (1 - b1 ** (g + 1)) / (np.sqrt(square / (1 - b2 ** (g + 1))) + 1e-8)
        mean = mean - 0.05 * 0.9**g * step
        found = flat(search.theta(state))
        np.testing.assert_allclose(found, mean, rtol=1e-3, atol=2e-4)

        inner = state.strategy.state
        gone_on = np.where(seen.ended, 0, gone_on + 1)
        accumulated[np.tile(seen.ended, 2)] = 0
        assert (np.asarray(inner.pert_accum)[np.tile(seen.ended, 2)] == 0).all()
        np.testing.assert_allclose(inner.pert_accum, accumulated, atol=1e-4)
        mean = found.astype(np.float64)
    ends = np.stack([seen.ended for seen in persistent.seen])
    assert len(np.unique(ends, axis=1).T) > 2, "pairs end at different times"
    assert gone_on.max() > 1, "some have accumulated over several windows"


def test_persistent_partners_go_on_as_themselves(persistent: Record, record: Record) -> None:
    """What they were after a window is where the next begins, as the windows by hand say; so they
    stay apart, while truncated ones meet again."""
    apart, together = [], []
    for found, generations in ((apart, persistent.seen), (together, record.seen)):
        for seen in generations[1:]:
            begin = begin_as(seen, goes_on=found is apart)
            params = host(seen.before.life.learner.params)
            same = of_partners(jax.tree.map(lambda leaf, begin=begin: leaf[begin], params))
            found += same[~np.asarray(seen.before.ended)[0::2]].tolist()
    assert len(apart) > 5
    assert not any(apart)
    assert len(together) > 5
    assert all(together)


def test_what_counts_windows_by_itself_is_refused(windowed: Config, with_evolution: With) -> None:
    with pytest.raises(ConfigError) as caught:
        make_search(with_evolution(windowed, strategy="NoiseReuseES"))
    assert str(caught.value) == (
        "NoiseReuseES counts windows of lives of one length: use PersistentES"
    )


# --- with a curriculum, and on any number of devices ------------------------------------------


class Finished(NamedTuple):
    """What a curriculum was told of a generation."""

    before: Any
    ended: np.ndarray
    counted: np.ndarray
    slots: np.ndarray
    results: np.ndarray


@pytest.fixture(scope="module")
def taught(windowed: Config, compiled: Listen) -> tuple[Record, list[Finished]]:
    """A search with a curriculum, and what that was told."""
    real, told = curriculum_module.finish, []

    def finish(state: Any, *lives: Any) -> Any:
        told.append(Finished(state, *map(np.asarray, lives)))
        return real(state, *lives)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curriculum_module, "finish", finish)
        return watched(replace(windowed, curriculum=GROOVE), 6, compiled), told


def test_agents_live_on_the_tasks_of_the_curriculum(
    taught: tuple[Record, list[Finished]],
) -> None:
    record, told = taught
    replayed = 0
    for g, (seen, state, metrics, one) in enumerate(
        zip(record.seen, record.states[1:], record.metrics, told, strict=True)
    ):
        agents, buffer = host(state.agents), host(one.before.buffer)
        assert of_partners(agents.slot).all()
        slots = agents.slot[0::2]
        assert (one.slots == slots).all()
        assert len(np.unique(slots)) == M, "no task is lived on twice"
        mine = jax.tree.map(lambda leaf, slots=slots: leaf[slots], (buffer.level, buffer.horizon))
        assert content(mine) == content(jax.tree.map(lambda leaf: leaf[0::2], tuple(agents.task)))
        born = np.asarray(seen.before.ended)[0::2]
        entered = buffer.next_id - (host(told[g - 1].before.buffer).next_id if g else 0)
        replayed += born.sum() - entered
        if born.any():
            assert metrics["replayed"] == pytest.approx((born.sum() - entered) / born.sum())
        # What a pair returned is the mean of its partners.
        score = host(seen.told.score)
        np.testing.assert_allclose(one.results, (score[0::2] + score[1::2]) / 2, rtol=1e-5)
        assert (one.ended == seen.ended).all()
        assert (one.counted == (agents.life.n >= agents.task.horizon)[0::2]).all()
    first = told[0]
    assert (first.ended & ~first.counted).any(), "a first life that is cut short has no regret"
    assert replayed > 0


def test_ended_lives_wait_for_their_regret(taught: tuple[Record, list[Finished]]) -> None:
    """Found for four at once; their entries are active until then, and so are those lived on."""
    record, told = taught
    waiting = scored = 0
    for one, state in zip(told, record.states[1:], strict=True):
        after = host(state.curriculum)
        waiting += (one.ended & one.counted).sum()
        scored, waiting = scored + waiting // V * V, waiting % V
        assert after.queue.length == waiting
        assert after.buffer.active.sum() == waiting + (~one.ended).sum()
    assert scored > 0
    known = after.buffer.score[after.buffer.scored]
    assert np.isfinite(known).all()
    assert len(np.unique(known)) > 1
    columns = record.search.columns(record.states[-1])
    assert columns["scored"].sum() == after.buffer.scored.sum()


def test_the_state_does_not_depend_on_devices(
    record: Record,
    taught: tuple[Record, list[Finished]],
    windowed: Config,
    one_device: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bit for bit, agents and curriculum too."""
    monkeypatch.setattr(module, "_programs", functools.cache(module._programs.__wrapped__))
    two = taught[0]
    search = make_search(replace(windowed, curriculum=GROOVE))
    state = search.init()
    assert len(state.agents.until.sharding.device_set) == 1
    assert len(two.states[0].agents.until.sharding.device_set) == 2
    for g in range(1, 4):
        state, metrics = search.step(state)
        assert content(state) == content(two.states[g])
        found = {name: np.float32(value) for name, value in metrics.items()}
        np.testing.assert_equal(found, {n: np.float32(x) for n, x in two.metrics[g - 1].items()})
    alone = make_search(windowed)
    state = alone.init()
    for g in range(1, 4):
        state, _ = alone.step(state)
        assert content(state) == content(record.states[g])


def test_scores_improve(windowed: Config, with_evolution: With) -> None:
    """A random agent earns about 0, the best 2.55; the program is that of the other tests."""
    gentle = with_evolution(windowed, sigma=0.3, rate=0.03)
    longer = replace(gentle.horizon, shortest=10, longest=20)
    search = make_search(replace(gentle, seed=1, validation_levels=32, horizon=longer))
    state = search.init()
    start = search.validate(state)["validation"]
    for _ in range(60):
        state, _ = search.step(state)
    end = search.validate(state)["validation"]
    assert abs(start) < 0.5
    assert end > 1.2
