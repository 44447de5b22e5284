"""The curriculum against a model of it in plain Python, its laws, and the rival by itself."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from jaxtyping import Array

from discovery.config import Config, CurriculumConfig
from discovery.inner.build import make_world
from discovery.inner.lifetime import Measure, Task, live
from discovery.outer.curriculum import (
    Buffer,
    Curriculum,
    Numbers,
    assign,
    empty,
    finish,
    front,
    make_antagonists,
    metrics,
    numbers,
    probabilities,
    ready,
    score,
    snapshot,
)
from learned_objectives.handwritten import A2C

A, V, S = 3, 2, 8
Q = A + V
SIZES = CurriculumConfig("groove", buffer=S, antagonists=V)
NAN, INF = np.nan, np.inf


def at(replay: float, temperature: float) -> Numbers:
    """Of the type of :func:`numbers`, so that one program does."""
    return Numbers(np.float32(replay), np.float32(temperature))


SOMETIMES, ALWAYS = at(0.7, 1.0), at(1.0, 1.0)


class Level(NamedTuple):
    """A level with a step limit and something else."""

    max_steps_in_episode: Any
    wind: Any


def tasks(start: int, count: int = A) -> Task:
    """Tasks that are all different."""
    number = np.arange(start, start + count, dtype=np.int32)
    wind = np.stack([number, -number], axis=1).astype(np.float32)
    return Task(Level(100 + number, wind), 10 + number)


def blank(sizes: CurriculumConfig = SIZES, agents: int = A) -> Curriculum:
    """Its results are two arrays of different types."""
    result = {"return": jnp.zeros(()), "seen": jnp.zeros(2, jnp.int32)}
    return empty(jax.tree.map(lambda leaf: leaf[0], tasks(0)), result, sizes, agents)


def results(start: int) -> dict[str, np.ndarray]:
    number = np.arange(start, start + A)
    seen = np.stack([number, number], axis=1).astype(np.int32)
    return {"return": number.astype(np.float32), "seen": seen}


def remembering(
    scores: Sequence[float | None],
    active: Sequence[int] = (),
    sizes: CurriculumConfig = SIZES,
    agents: int = A,
) -> Curriculum:
    """Tasks 0, 1, ... with these scores, ``None`` for none, in the first entries."""
    curriculum, known = blank(sizes, agents), len(scores)
    entry = np.arange(sizes.buffer, dtype=np.int32)
    all_, score = tasks(0, sizes.buffer), np.zeros(sizes.buffer, np.float32)
    score[:known] = [0 if s is None else s for s in scores]
    buffer = Buffer(
        level=all_.level,
        horizon=all_.horizon,
        score=score,
        scored=np.isin(entry, [i for i, s in enumerate(scores) if s is not None]),
        filled=entry < known,
        active=np.isin(entry, active),
        id=np.where(entry < known, entry, np.int32(-1)),
        next_id=np.int32(known),
    )
    return curriculum._replace(buffer=buffer)


# --- any sequence of births, ends and regrets -------------------------------------------------


class Step(NamedTuple):
    """What happens in one step of a search, where there is someone for it to happen to."""

    seed: int
    born: tuple[bool, ...]
    ended: tuple[bool, ...]
    counted: tuple[bool, ...]
    regrets_first: bool
    """Regrets are found before agents are born again."""
    regrets: tuple[float, ...]


@dataclass
class Entry:
    id: int
    task: Task
    score: float | None = None
    active: bool = True


@dataclass
class Model:
    """The same in plain Python, beside the arrays; what is random is read from those, and judged.

    ``seen`` counts what happened, so that a test can tell that it happened.
    """

    curriculum: Curriculum = field(default_factory=blank)
    entries: list[Entry | None] = field(default_factory=lambda: [None] * S)
    queue: list[tuple[int, dict[str, np.ndarray]]] = field(default_factory=list)
    living: list[bool] = field(default_factory=lambda: [False] * A)
    slots: np.ndarray = field(default_factory=lambda: np.zeros(A, np.int32))
    ids: int = 0
    steps: int = 0
    nonfinite: int = 0
    seen: Counter[str] = field(default_factory=Counter)

    def step(self, step: Step, sampling: str = "rank") -> None:
        self.steps += 1
        self.finish(step)
        if step.regrets_first:
            self.score(step)
        self.assign(step, sampling)
        if not step.regrets_first:
            self.score(step)

    def assign(self, step: Step, sampling: str) -> None:
        born = np.asarray(step.born) & ~np.asarray(self.living)
        fresh = tasks(A * self.steps)
        free = {s for s, e in enumerate(self.entries) if e and not e.active}
        can = {s for s in free if self.entry(s).score is not None}
        before = {entry.id: entry for entry in self.entries if entry}
        self.curriculum, now, slots, replayed = jax.device_get(
            assign(
                self.curriculum,
                jax.random.key(step.seed),
                born,
                fresh,
                self.slots,
                SOMETIMES,
                sampling,
            )
        )
        assert not (replayed & ~born).any(), "only a newborn replays"
        assert (slots[~born] == self.slots[~born]).all(), "who lives on stays where it is"
        assert not replayed.any() or len(can) >= A
        chosen = slots[replayed].tolist()
        assert set(chosen) <= can, "without a regret, or lived on, nothing is replayed"
        assert len(set(chosen)) == len(chosen)
        for slot in chosen:
            self.entry(slot).active = True
        self.seen["replayed"] += len(chosen)
        # Whatever the chosen ones leave makes room in one order.
        for agent in np.flatnonzero(born & ~replayed):
            slot = min((s for s in range(S) if not self.busy(s)), key=self.turn)
            assert slots[agent] == slot
            self.seen[
                ("into an empty one", "over unscored", "over scored")[self.turn(slot)[0]]
            ] += 1
            self.entries[slot] = Entry(self.ids, jax.tree.map(lambda x, a=agent: x[a], fresh))
            self.ids += 1
        self.slots, self.living = slots, (np.asarray(self.living) | born).tolist()

        after = {entry.id for entry in self.entries if entry}
        assert not any(before[gone].active for gone in before.keys() - after)
        for agent in np.flatnonzero(self.living):
            mine = jax.tree.map(lambda leaf, a=agent: leaf[a], now)
            same(mine, self.entry(slots[agent]).task)
        self.check()

    def finish(self, step: Step) -> None:
        ended = np.asarray(step.ended) & self.living
        told = results(A * self.steps)
        self.curriculum = finish(self.curriculum, ended, np.asarray(step.counted), self.slots, told)
        for agent in np.flatnonzero(ended):
            if step.counted[agent]:
                one = jax.tree.map(lambda leaf, a=agent: leaf[a], told)
                self.queue.append((self.slots[agent], one))
            else:
                self.entry(self.slots[agent]).active = False
                self.seen["cut short"] += 1
        self.living = (self.living & ~ended).tolist()
        assert len(self.queue) <= Q
        self.check()

    def score(self, step: Step) -> None:
        regrets = iter(step.regrets)
        assert bool(ready(self.curriculum, V)) == (len(self.queue) >= V)
        while len(self.queue) >= V:
            waited, self.queue = self.queue[:V], self.queue[V:]
            where, told = front(self.curriculum, V)
            for place, (slot, result) in enumerate(waited):
                held = jax.tree.map(lambda leaf, i=place: leaf[i], (where, told))
                same(held, (self.entry(slot).task, result))
            found = np.asarray([next(regrets) for _ in range(V)], np.float32)
            self.curriculum = score(self.curriculum, found)
            for (slot, _), regret in zip(waited, found, strict=True):
                entry = self.entry(slot)
                self.seen["scored again"] += entry.score is not None
                entry.active = False
                entry.score = float(regret) if np.isfinite(regret) else None
                self.nonfinite += not np.isfinite(regret)
            self.check()

    def entry(self, slot: int) -> Entry:
        entry = self.entries[slot]
        assert entry is not None
        return entry

    def busy(self, slot: int) -> bool:
        entry = self.entries[slot]
        return entry is not None and entry.active

    def turn(self, slot: int) -> tuple[float, ...]:
        entry = self.entries[slot]
        if entry is None:
            return 0, 0, 0, slot
        return (1, 0, entry.id) if entry.score is None else (2, entry.score, entry.id)

    def check(self) -> None:
        """The arrays say what the model says."""
        buffer, queue, nonfinite = jax.device_get(self.curriculum)
        assert buffer.next_id == self.ids
        assert nonfinite == self.nonfinite
        for slot, entry in enumerate(self.entries):
            assert buffer.filled[slot] == (entry is not None)
            if entry is None:
                continue
            held = jax.tree.map(lambda leaf, s=slot: leaf[s], Task(buffer.level, buffer.horizon))
            same(held, entry.task)
            assert buffer.id[slot] == entry.id
            assert buffer.active[slot] == entry.active
            assert buffer.scored[slot] == (entry.score is not None)
            assert buffer.score[slot] == (entry.score or 0)
        assert queue.length == len(self.queue)
        assert queue.slot[: queue.length].tolist() == [slot for slot, _ in self.queue]
        ids = [entry.id for entry in self.entries if entry]
        assert len(set(ids)) == len(ids)
        # Active: living agents and the queue, each with an entry of its own.
        lived_on = [s for s, alive in zip(self.slots, self.living, strict=True) if alive]
        waiting = [slot for slot, _ in self.queue]
        assert sorted(lived_on + waiting) == np.flatnonzero(buffer.active & buffer.filled).tolist()


def same(first: Any, second: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, first, second)


flags = st.tuples(*[st.booleans()] * A)
regret_of = st.sampled_from([-2.0, -1.0, 0.0, 0.0, 0.5, 1.5, 1e30, NAN, INF])
step_of = st.builds(
    Step,
    seed=st.integers(0, 2**31 - 1),
    born=flags,
    ended=flags,
    counted=flags,
    regrets_first=st.booleans(),
    regrets=st.tuples(*[regret_of] * (A + V)),
)


@settings(max_examples=25, phases=[Phase.generate])  # to shrink a failure takes minutes
@given(st.lists(step_of, max_size=12))
def test_any_sequence_of_steps_is_that_of_the_model(steps: list[Step]) -> None:
    model = Model()
    for step in steps:
        model.step(step)


@pytest.mark.parametrize("sampling", ["rank", "proportional"])
def test_a_long_sequence_meets_every_case(sampling: str) -> None:
    random, model = np.random.default_rng(0), Model()
    for _ in range(100):
        born, ended, counted = (tuple(random.random(A) < p) for p in (0.8, 0.7, 0.8))
        regrets = tuple(random.choice([NAN, -INF, *random.normal(size=8)], A + V))
        first = bool(random.random() < 0.5)
        model.step(
            Step(int(random.integers(2**31)), born, ended, counted, first, regrets), sampling
        )
    every = {
        "replayed",
        "into an empty one",
        "over unscored",
        "over scored",
        "cut short",
        "scored again",
    }
    assert set(model.seen) == every
    assert all(count >= 5 for count in model.seen.values()), model.seen
    assert model.nonfinite >= 5


def test_numbers_are_data_and_nothing_is_compiled_twice(
    compiled: Callable[[], AbstractContextManager[list[str]]],
) -> None:
    curriculum, every = blank(), np.ones(A, bool)

    def go_on(curriculum: Curriculum, numbers: Numbers) -> Curriculum:
        curriculum, _, slots, replayed = assign(
            curriculum, jax.random.key(0), every, tasks(0), np.zeros(A, np.int32), numbers, "rank"
        )
        told = metrics(curriculum, slots, every, replayed, numbers, "rank")
        assert all(value.shape == () for value in told.values())
        curriculum = finish(curriculum, every, every, slots, results(0))
        while ready(curriculum, V):
            front(curriculum, V)
            curriculum = score(curriculum, jnp.ones(V))
        return curriculum

    curriculum = go_on(curriculum, numbers(SIZES))
    with compiled() as names:
        for temperature in (0.1, 1e-300, 1e300):
            curriculum = go_on(curriculum, numbers(replace(SIZES, temperature=temperature)))
    assert names == []


def test_a_life_that_finds_the_queue_full_does_not_count() -> None:
    every, slots = np.ones(A, bool), np.asarray([0, 1, 2], np.int32)
    curriculum = remembering([None] * 6, active=range(6))
    curriculum = finish(curriculum, every, every, slots, results(0))
    curriculum = finish(curriculum, every, every, slots + 3, results(0))
    assert curriculum.queue.length == Q == 5
    assert curriculum.queue.slot.tolist() == [0, 1, 2, 3, 4]
    assert np.flatnonzero(curriculum.buffer.active).tolist() == [0, 1, 2, 3, 4]


def test_more_regrets_than_lives_that_wait() -> None:
    curriculum = remembering([None] * 3, active=range(3))
    one = np.asarray([False, True, False])
    curriculum = finish(curriculum, one, one, np.asarray([0, 1, 2], np.int32), results(0))
    curriculum = score(curriculum, jnp.asarray([4.0, NAN]))
    assert curriculum.queue.length == 0
    assert curriculum.nonfinite == 0
    assert np.flatnonzero(curriculum.buffer.scored).tolist() == [1]
    assert np.flatnonzero(curriculum.buffer.active).tolist() == [0, 2]


def test_a_regret_that_is_no_number_leaves_none() -> None:
    """Also where there was one: the task is the first to go."""
    curriculum = remembering([1.0, 2.0, 3.0, 4.0, -5.0, -6.0, -7.0, -8.0], active=[1])
    only = np.asarray([True, False, False])
    slots = np.asarray([1, 0, 0], np.int32)
    curriculum = finish(curriculum, only, only, slots, results(0))
    curriculum = score(curriculum, jnp.asarray([NAN, 1.0]))
    assert not curriculum.buffer.scored[1]
    assert not curriculum.buffer.active[1]
    assert curriculum.nonfinite == 1
    _, _, slots, _ = assign(
        curriculum, jax.random.key(0), only, tasks(50), slots, at(0.0, 1.0), "rank"
    )
    assert slots[0] == 1


def test_a_buffer_that_could_be_full_of_active_tasks() -> None:
    with pytest.raises(ValueError, match="a buffer of 7 is below 2 x 3 tasks and 2 antagonists"):
        blank(replace(SIZES, buffer=7))


def test_examples_may_be_shapes_alone() -> None:
    given = jax.eval_shape(lambda: jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), tasks(0)))
    same(empty(given, jax.ShapeDtypeStruct((), jnp.float32), SIZES, A).buffer, blank().buffer)


# --- who is replayed --------------------------------------------------------------------------

PAIR = replace(SIZES, buffer=7)
"""Two agents, both born: who is drawn first and second."""
DRAWS = 20_000


@jax.jit
def by_rank(curriculum: Curriculum, keys: Array, temperature: Any) -> Array:
    return _draws(curriculum, keys, temperature, "rank")


@jax.jit
def by_regret(curriculum: Curriculum, keys: Array, temperature: Any) -> Array:
    return _draws(curriculum, keys, temperature, "proportional")


def _draws(curriculum: Curriculum, keys: Array, temperature: Any, sampling: Any) -> Array:
    def one(key: Array) -> Array:
        both, nowhere = jnp.ones(2, bool), jnp.zeros(2, jnp.int32)
        how = Numbers(1.0, temperature)
        return assign(curriculum, key, both, tasks(90, 2), nowhere, how, sampling)[2]

    return jax.vmap(one)(keys)


DRAW = {"rank": by_rank, "proportional": by_regret}


def pairs(sampling: str, scores: Sequence[float], temperature: float) -> np.ndarray:
    """How often each ordered pair of the scored was drawn; the others never are.

    After the scored ones come an active one of enormous regret and one without any.
    """
    known = len(scores)
    curriculum = remembering([*scores, 3.4e38, None], active=[known], sizes=PAIR, agents=2)
    keys = jax.random.split(jax.random.key(7), DRAWS)
    drawn = np.asarray(DRAW[sampling](curriculum, keys, jnp.float32(temperature)))
    assert drawn.max() < known
    counts = np.zeros((known, known), int)
    np.add.at(counts, (drawn[:, 0], drawn[:, 1]), 1)
    assert np.trace(counts) == 0, "without replacement"
    return counts


def likely(counts: np.ndarray, weights: np.ndarray) -> bool:
    """Are these draws without replacement by these weights?"""
    p = weights / weights.sum()
    law = p[:, None] * p[None, :] / (1 - p[:, None])
    off = ~np.eye(len(p), dtype=bool)
    expected = law[off] * counts.sum()
    assert expected.min() > 5, "too few for the test"
    return scipy.stats.chisquare(counts[off], expected).pvalue > 1e-3


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_rank_weights_are_followed(temperature: float) -> None:
    counts = pairs("rank", [3.0, -1.0, 5.0, 0.0], temperature)
    ranks = np.asarray([2.0, 4.0, 1.0, 3.0])
    assert likely(counts, (1 / ranks) ** (1 / temperature))
    assert not likely(counts, (1 / ranks) ** (1 / (temperature * 1.3)))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_proportional_weights_are_followed(temperature: float) -> None:
    scores = np.asarray([1.0, -1.0, 2.0, 0.0])
    counts = pairs("proportional", scores.tolist(), temperature)
    assert likely(counts, np.exp(scores / temperature))
    assert not likely(counts, np.exp(scores / (temperature * 1.3)))


@pytest.mark.parametrize("sampling", DRAW)
def test_temperature_goes_from_the_highest_alone_to_all_alike(sampling: str) -> None:
    scores = [3.0, -1.0, 5.0, 0.0]
    assert pairs(sampling, scores, 1e-3)[2, 0] == DRAWS, "the highest, then the next"
    assert likely(pairs(sampling, scores, 1e30), np.ones(4))


@pytest.mark.parametrize("sampling", DRAW)
def test_equal_regrets_are_equally_likely_however_cold(sampling: str) -> None:
    """Also below the highest, where weights are too small for a number."""
    first = pairs(sampling, [1.0, 5.0, 1.0, 0.0], 1e-30)
    assert first[1, [0, 2]].sum() == DRAWS
    assert scipy.stats.binomtest(int(first[1, 0]), DRAWS).pvalue > 1e-3
    assert likely(pairs(sampling, [5.0] * 4, 1e-30), np.ones(4))


@pytest.mark.parametrize("sampling", DRAW)
@pytest.mark.parametrize("temperature", [1e-30, 1.0, 3e38])
def test_no_score_and_no_temperature_overflow(sampling: str, temperature: float) -> None:
    scores = [1e30, -1e30, 3e38, -3e38]
    counts = pairs(sampling, scores, temperature)
    assert counts.sum() == DRAWS
    curriculum = remembering([*scores, 1e-30], sizes=PAIR, agents=2)
    chance = np.asarray(probabilities(curriculum.buffer, np.float32(temperature), sampling))
    assert chance.sum() == pytest.approx(1)
    if temperature == 1e-30:
        assert counts[2, 0] == DRAWS
        assert chance[2] == 1


def test_probabilities_by_hand() -> None:
    # Ranks 2.5 (shared), 2.5, 1 and 4; what is active or has no score has none.
    curriculum = remembering([2.0, 2.0, 3.0, 1.0, 9.0, None], active=[4])
    weights = np.asarray([1 / 2.5, 1 / 2.5, 1, 1 / 4, 0, 0, 0, 0])
    chance = probabilities(curriculum.buffer, np.float32(1.0), "rank")
    np.testing.assert_allclose(chance, weights / weights.sum(), rtol=1e-5)
    chance = probabilities(curriculum.buffer, np.float32(0.5), "rank")
    np.testing.assert_allclose(chance, weights**2 / np.sum(weights**2), rtol=1e-5)
    weights = np.asarray([*np.exp([0.0, 0.0, 0.5, -0.5]), 0, 0, 0, 0])
    chance = probabilities(curriculum.buffer, np.float32(2.0), "proportional")
    np.testing.assert_allclose(chance, weights / weights.sum(), rtol=1e-5)
    assert not np.asarray(probabilities(blank().buffer, np.float32(1.0), "rank")).any()


@pytest.mark.parametrize("born", [(True, True, True), (False, True, False)])
@pytest.mark.parametrize("known", [2, 3])
def test_replay_waits_until_as_many_are_replayable_as_there_are_agents(
    known: int, born: tuple[bool, ...]
) -> None:
    curriculum = remembering([float(i) for i in range(known)])
    for seed in range(3):
        _, _, slots, replayed = assign(
            curriculum,
            jax.random.key(seed),
            np.asarray(born),
            tasks(50),
            np.zeros(A, np.int32),
            ALWAYS,
            "rank",
        )
        assert replayed.tolist() == (list(born) if known >= A else [False] * A)
        assert (np.asarray(slots)[np.asarray(born)] < known).all() == (known >= A)


def test_the_share_of_replayed_is_the_probability() -> None:
    curriculum, every, seen = remembering([1.0] * 4), np.ones(A, bool), 0
    for seed in range(200):
        key, nowhere = jax.random.key(seed), np.zeros(A, np.int32)
        *_, replayed = assign(curriculum, key, every, tasks(50), nowhere, SOMETIMES, "rank")
        seen += int(replayed.sum())
    assert scipy.stats.binomtest(seen, 200 * A, SOMETIMES.replay).pvalue > 1e-3


def test_a_planted_hard_level_is_replayed_much_more_than_the_others() -> None:
    """Every agent is born in every step; the second task to come is the hard one."""
    curriculum, random, every, hard = blank(), np.random.default_rng(1), np.ones(A, bool), 1
    slots, counts, regret = np.zeros(A, np.int32), Counter[int](), results(0)
    for step in range(150):
        key, fresh = jax.random.key(step), tasks(A * step)
        curriculum, now, slots, replayed = assign(
            curriculum, key, every, fresh, slots, at(0.5, 0.5), "rank"
        )
        number = np.asarray(now.level.wind)[:, 0].astype(int)
        counts.update(number[np.asarray(replayed)].tolist())
        easy = random.uniform(-0.5, 0.5, A)
        regret["return"] = np.where(number == hard, 1.0, easy).astype(np.float32)
        curriculum = finish(curriculum, every, every, slots, regret)
        while ready(curriculum, V):
            curriculum = score(curriculum, front(curriculum, V)[1]["return"])
    others = [count for task, count in counts.items() if task != hard]
    assert counts[hard] > 5 * np.mean(others)
    assert counts[hard] > max(others)
    assert hard in snapshot(curriculum, SOMETIMES, "rank")["id"]


# --- what is told -----------------------------------------------------------------------------


def told(*arguments: Any) -> dict[str, float]:
    return {name: float(value) for name, value in metrics(*arguments, ALWAYS, "rank").items()}


def test_metrics_by_hand() -> None:
    # Horizons are 10 + the entry. Replayable: entries 0 (rank 2) and 2 (rank 1).
    curriculum = remembering([1.0, None, 3.0, 2.0, None], active=[3, 4])
    curriculum = curriculum._replace(nonfinite=np.int32(7))
    slots = np.asarray([3, 4, 1], np.int32)
    born, replayed = np.asarray([True, True, False]), np.asarray([True, False, False])
    assert told(curriculum, slots, born, replayed) == pytest.approx(
        {
            "regret_low": 1.2,
            "regret_median": 2.0,
            "regret_high": 2.8,
            "replayed": 0.5,
            "replayed_horizon": 13.0,
            "replayable_horizon": (2 / 3) * 12 + (1 / 3) * 10,
            "filled": 5 / 8,
            "regret_nonfinite": 7,
        }
    )


def test_metrics_of_nothing() -> None:
    nobody = np.zeros(A, bool)
    found = told(blank(), np.zeros(A, np.int32), nobody, nobody)
    assert found.pop("filled") == found.pop("regret_nonfinite") == 0
    assert len(found) == 6
    assert all(np.isnan(value) for value in found.values())


def test_a_snapshot_has_a_row_for_every_task() -> None:
    curriculum = remembering([1.0, None, 3.0, 2.0], active=[3])
    # The second entry holds a task that came last.
    buffer = curriculum.buffer._replace(id=np.asarray([0, 9, 2, 3, -1, -1, -1, -1], np.int32))
    found = snapshot(curriculum._replace(buffer=buffer), ALWAYS, "rank")
    assert {name: column.tolist() for name, column in found.items() if name != "score"} == {
        "id": [0, 2, 3, 9],
        "horizon": [10, 12, 13, 11],
        "scored": [True, True, True, False],
        "active": [False, False, True, False],
        "probability": pytest.approx([1 / 3, 2 / 3, 0, 0]),
        "step_limit": [100, 102, 103, 101],
    }
    np.testing.assert_array_equal(found["score"], [1, 3, 2, NAN])


def test_levels_need_no_step_limit() -> None:
    curriculum = empty(Task({"wind": jnp.zeros(2)}, jnp.int32(1)), (), SIZES, A)
    found = snapshot(curriculum, ALWAYS, "proportional")
    assert "step_limit" not in found
    assert all(column.shape == (0,) for column in found.values())


# --- the rival --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def groove(tiny: Config) -> Config:
    sizes = replace(tiny.curriculum, curriculum="groove", antagonists=4)
    rival = replace(tiny.rival, a2c_policy_rate=20.0, a2c_value_rate=2.0)
    return replace(tiny, curriculum=sizes, rival=rival)


def test_a_regret_is_what_the_rival_is_ahead(
    groove: Config, compiled: Callable[[], AbstractContextManager[list[str]]]
) -> None:
    world = make_world(A2C(), groove.env, groove.agent, groove.life)
    horizons = jnp.asarray([4, 1, 3, 2], jnp.int32)
    given = Task(jax.vmap(world.env.sample_level)(jax.random.split(jax.random.key(5), 4)), horizons)
    returns = jnp.asarray([0.5, NAN, -1.0, 2.0])
    key = jax.random.key(6)
    found = np.asarray(make_antagonists(groove)(key, given, returns))

    hyper = A2C().hyper(policy_rate=20.0, value_rate=2.0, clip=groove.agent.clip)
    measure = Measure(jnp.int32(1), jnp.int32(1))

    @jax.jit
    def alone(task: Task, i: Array) -> Array:
        return live(world, (), hyper, task, jax.random.fold_in(key, i), measure).final[0]

    rival = [alone(jax.tree.map(lambda x, i=i: x[i], given), jnp.int32(i)) for i in range(4)]
    assert len(set(map(float, rival))) == 4
    np.testing.assert_allclose(found, np.asarray(rival) - np.asarray(returns), rtol=1e-5)
    assert np.isnan(found).tolist() == [False, True, False, False]

    # Other rates are the same program. A rival that is torn tells nothing.
    torn = replace(groove, rival=replace(groove.rival, a2c_policy_rate=INF))
    with compiled() as names:
        assert np.isnan(make_antagonists(torn)(key, given, returns)).all()
    assert names == []
