"""Teachers: chance, and a curriculum whose rival is replaced by one that is known."""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from discovery.config import Config, CurriculumConfig
from discovery.inner.build import make_objective, make_world
from discovery.inner.lifetime import Task
from discovery.inner.rollout import episode_return
from discovery.outer import curriculum
from discovery.outer.teaching import Teacher, known_returns, make_teacher, scored_agents

PAIRS, V = 16, 4


class Level(NamedTuple):
    """A level of which its number and its step limit are known."""

    number: Any
    max_steps_in_episode: Any


def tasks(start: int) -> Task:
    number = np.arange(start, start + PAIRS, dtype=np.int32)
    level = Level(jnp.asarray(number), jnp.asarray(20 + number))
    return Task(level, jnp.asarray(10 + number))


def example() -> Task:
    return jax.tree.map(lambda leaf: leaf[0], tasks(0))


class Asked(NamedTuple):
    """One request for regrets."""

    key: np.ndarray
    numbers: list[int]
    returns: list[float]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """Requests for regrets, which are of a rival that always earns 100."""
    seen: list[Asked] = []

    def antagonists(config: Config) -> Callable[..., Array]:
        def regrets(key: Array, of: Task, returns: Array) -> Array:
            data = np.asarray(jax.random.key_data(key))
            seen.append(Asked(data, of.level.number.tolist(), returns.tolist()))
            return 100 - returns

        return regrets

    monkeypatch.setattr(curriculum, "make_antagonists", antagonists)
    return seen


@pytest.fixture
def groove(tiny: Config) -> Config:
    return replace(tiny, curriculum=CurriculumConfig("groove", buffer=64, antagonists=V))


def everyone(value: bool = True) -> Array:
    return jnp.full(PAIRS, value)


def born(teacher: Teacher, state: Any, key: int, fresh: Task) -> tuple[Any, Task, Array, Any]:
    slots = jnp.zeros(PAIRS, jnp.int32)
    return teacher.assign(state, jax.random.key(key), everyone(), fresh, slots)


def test_chance_gives_fresh_tasks_and_remembers_nothing(tiny: Config) -> None:
    teacher = make_teacher(tiny, known_returns)
    state = teacher.begin(example(), jnp.zeros(()))
    state, given, slots, told = born(teacher, state, 0, tasks(5))
    assert given.level.number.tolist() == tasks(5).level.number.tolist()
    assert given.horizon.tolist() == tasks(5).horizon.tolist()
    assert (slots.tolist(), told) == ([0] * PAIRS, {})
    ended = (everyone(), everyone(), slots, jnp.zeros(PAIRS))
    assert teacher.finish(state, jax.random.key(1), *ended) == ((), {})
    assert not jax.tree.leaves(state)
    assert teacher.columns(state) == {}


def test_regrets_are_found_for_many_ended_lives_at_once(groove: Config, asked: list[Asked]) -> None:
    """Ten of sixteen lives end, of which one does not count: two times four, and one waits."""
    teacher = make_teacher(groove, known_returns)
    state = teacher.begin(example(), jnp.zeros(()))
    state, given, slots, told = born(teacher, state, 0, tasks(0))
    assert given.level.number.tolist() == list(range(PAIRS))
    assert told["replayed"] == 0
    assert told["filled"] == PAIRS / 64

    ended = jnp.arange(PAIRS) < 10
    counted = jnp.arange(PAIRS) != 3
    returns = 2.0 * jnp.arange(PAIRS)
    state, spent = teacher.finish(state, jax.random.key(1), ended, counted, slots, returns)
    # Eight lives of A2C, of N updates of 4 x 8 steps, each scored by 4 episodes to the limit.
    numbers = [0, 1, 2, 4, 5, 6, 7, 8]
    assert spent == {"rival_steps": sum(32 * (10 + n) + 4 * (20 + n) for n in numbers)}
    assert [one.numbers for one in asked] == [[0, 1, 2, 4], [5, 6, 7, 8]]
    assert [one.returns for one in asked] == [[0, 2, 4, 8], [10, 12, 14, 16]]
    assert (asked[0].key != asked[1].key).any(), "no two antagonists have one stream"
    assert state.queue.length == 1
    buffer = jax.device_get(state.buffer)
    of = dict(zip(buffer.level.number[buffer.scored], buffer.score[buffer.scored], strict=True))
    assert of == {n: 100 - 2 * n for n in (0, 1, 2, 4, 5, 6, 7, 8)}
    assert sorted(buffer.level.number[buffer.active]) == [9, 10, 11, 12, 13, 14, 15]
    assert teacher.columns(state)["id"].tolist() == list(range(PAIRS))

    # The one that waited comes first, with what it returned then.
    ended = jnp.arange(PAIRS) >= 13
    state, _ = teacher.finish(state, jax.random.key(2), ended, everyone(), slots, returns + 1)
    assert asked[2].numbers == [9, 13, 14, 15]
    assert asked[2].returns == [18, 27, 29, 31]
    assert state.queue.length == 0


def test_too_few_ended_lives_ask_nobody(groove: Config, asked: list[Asked]) -> None:
    teacher = make_teacher(groove, known_returns)
    state, _, slots, _ = born(teacher, teacher.begin(example(), jnp.zeros(())), 0, tasks(0))
    three = jnp.arange(PAIRS) < V - 1
    state, spent = teacher.finish(state, jax.random.key(1), three, three, slots, jnp.zeros(PAIRS))
    assert (asked, spent) == ([], {"rival_steps": 0})
    assert state.queue.length == V - 1
    after, _ = teacher.finish(state, jax.random.key(1), ~everyone(), three, slots, jnp.zeros(PAIRS))
    assert after.queue.length == V - 1


def test_the_hardest_are_replayed(groove: Config, asked: list[Asked]) -> None:
    """Replay is certain here, and so cold that the tasks of highest regret come first."""
    sure = replace(groove.curriculum, replay=1.0, temperature=0.01)
    teacher = make_teacher(replace(groove, curriculum=sure), known_returns)
    state = teacher.begin(example(), jnp.zeros(()))
    for turn, start in enumerate((0, 100)):
        # Nothing can be replayed while all that is known is active; then as many as are born can.
        state, given, slots, told = born(teacher, state, turn, tasks(start))
        assert told["replayed"] == turn
        assert sorted(given.level.number.tolist()) == list(range(PAIRS))
        returns = given.level.number.astype(jnp.float32)
        of_lives = (everyone(), everyone(), slots, returns)
        state, _ = teacher.finish(state, jax.random.key(turn), *of_lives)
    assert given.level.number.tolist() == list(range(PAIRS)), "lowest return first"


def test_agents_that_were_kept_are_scored_by_sampled_actions(tiny: Config) -> None:
    objective = make_objective(tiny.objective, tiny.agent)
    world = make_world(objective, tiny.env, tiny.agent, tiny.life)
    keys = jax.random.split(jax.random.key(1), V)
    level = jax.vmap(world.env.sample_level)(keys)
    # Agents that differ much, and whose greedy actions do not earn what sampled ones do.
    params = jax.tree.map(
        lambda leaf: jax.random.normal(jax.random.key(2), leaf.shape),
        jax.vmap(world.network.init)(keys),
    )
    task, kept = Task(level, jnp.arange(1, V + 1)), (params, ())
    key = jax.random.key(3)
    found = scored_agents(world)(key, task, kept)

    def alone(key: Array, level: Any, params: Any) -> Array:
        of = functools.partial(episode_return, world.env, world.network, params, level, key)
        return jax.vmap(lambda greedy: of(world.episodes, greedy))(jnp.asarray([False, True]))

    sampled, greedy = jax.jit(jax.vmap(alone))(jax.random.split(key, V), level, params).T
    np.testing.assert_allclose(found, sampled, rtol=1e-5)
    assert (np.asarray(found) != np.asarray(greedy)).any()

    # An agent that is not finite acts and earns, and has no return all the same.
    lost = jax.tree.map(lambda leaf: leaf.at[0].set(jnp.nan), params)
    assert np.isnan(scored_agents(world)(key, task, (lost, ()))).tolist() == [True] + [False] * 3


def test_what_was_known_is_told() -> None:
    returns = jnp.asarray([1.0, jnp.nan, 3.0])
    task = jax.tree.map(lambda leaf: leaf[:3], tasks(0))
    np.testing.assert_array_equal(known_returns(jax.random.key(0), task, returns), returns)
