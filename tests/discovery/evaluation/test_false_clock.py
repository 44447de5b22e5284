"""False clocks: what is told, that it is believed, and that who has no clock loses nothing."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from discovery.config import AgentConfig, LifeConfig, preset
from discovery.evaluation import horizons
from discovery.evaluation.false_clock import CLOCKS, FalseClock, Told, length, told
from learned_objectives.base import Experience, Learner, Network, Objective, Report, Time
from learned_objectives.handwritten import Random
from learned_objectives.library import Saved, load, make_rule

LIFE = LifeConfig(environments=2, rollout=4, evaluation_environments=8)
HOW = horizons.Setting(AgentConfig(), LIFE, preset("smoke").rival, "a test")
LIES = CLOCKS[1:]
LENGTH = 8


def lpg(clock: str) -> Saved:
    """An objective whose words depend on its clock, if it has one."""
    rule = make_rule("lpg", width=4, predictions=2, embedding=2, clock=clock)
    theta = jax.tree.map(lambda x: 3 * x, rule.init(jax.random.key(0)))
    return Saved(clock, rule, theta, {}, clock)


@pytest.fixture(scope="module")
def levels() -> horizons.Levels:
    return horizons.held_out("chain", "test", 4)


def enter(saved: Saved, clock: int = LENGTH) -> horizons.Contestant:
    return horizons.enter(saved, "chain", HOW, group=2, capacity=4, clock=clock)


def scores(who: horizons.Contestant, levels: horizons.Levels, clock: str, seed: int = 0) -> Any:
    outcome = horizons.score(who, levels.levels, 6, seed, greedy=False, clock=clock)
    return outcome.final[:, 0]


@pytest.mark.parametrize(
    ("clock", "n", "horizon"),
    [
        ("true", [0, 1, 2, 3, 4, 5, 6, 7], 8),
        ("frozen-0", [0] * 8, 8),
        ("frozen-0.5", [4] * 8, 8),
        ("frozen-0.95", [7.6] * 8, 8),
        ("reversed", [7, 6, 5, 4, 3, 2, 1, 0], 8),
        ("quarter", [0, 1, 1, 1, 1, 1, 1, 1], 2),
        ("fourfold", [0, 1, 2, 3, 4, 5, 6, 7], 32),
        ("half", [0, 1, 2, 3, 4, 5, 6, 7], 16),
    ],
)
def test_what_is_told_by_hand(clock: str, n: list[float], horizon: float) -> None:
    found = told(clock, 8, 10)
    np.testing.assert_allclose(found.n, [*n, n[-1], n[-1]], rtol=1e-6)
    assert float(found.N) == horizon
    assert found.n.dtype == found.N.dtype == np.float32


def test_a_permutation_is_fixed_by_its_seed() -> None:
    one, again, other = (told("permuted", 30, 30, seed).n for seed in (0, 0, 1))
    assert sorted(one.tolist()) == list(range(30))
    assert one.tolist() == again.tolist() != other.tolist()


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("horizon", [1, 2, 3, 50])
def test_a_believed_life_is_never_over(clock: str, horizon: int) -> None:
    found = told(clock, horizon, 64)
    assert (found.n >= 0).all()
    assert (found.n < found.N).all()
    assert found.N >= 1
    assert found.n.shape == (64,)


def test_what_cannot_be_told(levels: horizons.Levels) -> None:
    with pytest.raises(ValueError, match="unknown clock 'late'; known: true, frozen-0,"):
        told("late", 5, 8)
    with pytest.raises(ValueError, match="a life of 9 updates does not fit 8"):
        told("true", 9, 8)
    with pytest.raises(ValueError, match="random was entered with the true clock alone"):
        scores(enter(load("random"), clock=0), levels, "reversed")
    assert [length(n) for n in (1, 64, 65, 250)] == [64, 64, 128, 256]


TRACES: list[int] = []


@dataclass(frozen=True)
class Honest(Random):
    """It says what it was told, and counts how often it is compiled."""

    def update(self, theta: Any, hyper: Any, *rest: Any) -> Any:
        learner, time = rest[1], rest[3]
        TRACES.append(0)
        elapsed = time.n.astype(jnp.float32)
        report = {"n": elapsed, "n2": elapsed**2, "N": time.N.astype(jnp.float32) * time.unit}
        return learner, Report(report)


def believed(who: horizons.Contestant, levels: horizons.Levels) -> Iterator[tuple[str, Any, Told]]:
    for clock in CLOCKS:
        outcome = horizons.score(who, levels.levels, 6, 3, greedy=False, clock=clock)
        yield clock, outcome.metrics, told(clock, 6, LENGTH, 3)


def test_every_clock_is_believed_in_one_program(levels: horizons.Levels) -> None:
    who = enter(Saved("honest", Honest(), (), {}, "d"))
    scores(who, levels, "true")
    before = len(TRACES)
    assert before > 0
    for clock, seen, expected in believed(who, levels):
        lived = expected.n[:6]
        np.testing.assert_allclose(seen["n"], lived.mean(), rtol=1e-5, err_msg=clock)
        np.testing.assert_allclose(seen["n2"], np.square(lived).mean(), rtol=1e-5, err_msg=clock)
        # The unit of logarithms stays: 2 environments x 4 steps.
        np.testing.assert_allclose(seen["N"], expected.N * 8 / 1280, rtol=1e-5, err_msg=clock)
    horizons.score(who, levels.levels, 4, 0, greedy=False, clock="reversed")
    assert len(TRACES) == before


def test_the_truth_is_what_it_was(levels: horizons.Levels) -> None:
    """An objective that is told the truth scores as one to which nobody ever lies."""
    aware = lpg("fraction_log")
    plain = scores(enter(aware, clock=0), levels, "true")
    np.testing.assert_array_equal(scores(enter(aware), levels, "true"), plain)


def test_who_has_a_clock_lives_another_life(levels: horizons.Levels) -> None:
    who = enter(lpg("fraction_log"))
    true = scores(who, levels, "true")
    # "half" is told the same share of life at other ages; all of them move the words.
    for clock in LIES:
        assert not np.array_equal(scores(who, levels, clock), true), clock


def test_who_has_no_clock_loses_exactly_nothing(levels: horizons.Levels) -> None:
    who = enter(lpg("none"))
    true = scores(who, levels, "true")
    for clock in LIES:
        np.testing.assert_array_equal(scores(who, levels, clock), true, clock)
    assert not np.array_equal(scores(who, levels, "true", seed=1), true)


def test_a_closed_gate_loses_exactly_nothing(levels: horizons.Levels) -> None:
    who = enter(lpg("fraction_log"))
    who = who._replace(hyper=who.hyper._replace(clock_gate=0.0))
    true = scores(who, levels, "true")
    for clock in LIES:
        np.testing.assert_array_equal(scores(who, levels, clock), true, clock)


def test_it_is_an_objective() -> None:
    inner = lpg("fraction_log")
    objective = FalseClock(inner.objective)
    assert isinstance(objective, Objective)
    assert objective == FalseClock(replace(inner.objective))  # type: ignore[type-var]
    assert objective.heads == inner.objective.heads
    same = jax.tree.map(
        np.array_equal,
        objective.init(jax.random.key(1)),
        inner.objective.init(jax.random.key(1)),
    )
    assert all(jax.tree.leaves(same))
    numbers = objective.hyper(clip=2.0)
    assert numbers.hyper == inner.objective.hyper(clip=2.0)
    assert numbers.told is None


def test_nobody_lies_by_default() -> None:
    """Without anything told, the true time is passed on."""

    @dataclass(frozen=True)
    class Listener(Random):
        def signals(self, theta: Any, hyper: Any, network: Any, *rest: Any) -> Any:
            return rest[-1]._asdict()

    objective = FalseClock(Listener())
    time = Time(jnp.int32(3), jnp.int32(9), jnp.float32(1))
    nothing: Any = (Network(*[None] * 10), Learner((), ()), Experience(*[None] * 7))
    heard = objective.signals((), objective.hyper(), *nothing, time)
    assert heard["n"] is time.n and heard["N"] is time.N
    lied = objective.hyper()._replace(told=told("reversed", 9, 9))
    heard = objective.signals((), lied, *nothing, time)
    assert (float(heard["n"]), float(heard["N"])) == (5, 9)
