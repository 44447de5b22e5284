"""The schedule of an objective: against rules whose schedule is known, and by hand."""

import math
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

from discovery.config import AgentConfig, LifeConfig, preset
from discovery.evaluation import horizons, schedule, slopes
from learned_objectives.base import Learner, Report
from learned_objectives.clock import remaining_share
from learned_objectives.handwritten import Random
from learned_objectives.library import Saved, load, make_rule

LIFE = LifeConfig(environments=2, rollout=4, evaluation_environments=4)
HOW = horizons.Setting(AgentConfig(), LIFE, preset("smoke").rival, "a test")
PUSH, BONUS = 0.4, 1.5


@dataclass(frozen=True)
class Known(Random):
    """Every state's first action gains by a constant, and by a bonus for entropy."""

    falls: bool = True

    def update(
        self,
        theta: Any,
        hyper: Any,
        network: Any,
        learner: Any,
        experience: Any,
        time: Any,
        key: Any,
    ) -> Any:
        left = remaining_share(time, jnp.float32) if self.falls else 1.0
        table = learner.params["policy"]["table"]

        def entropy(table: jax.Array) -> jax.Array:
            return network.entropy({"policy": table}).sum()

        grown = table.at[:, 0].add(PUSH) + BONUS * left * jax.grad(entropy)(table)
        params = {**learner.params, "policy": {"table": grown}}
        return Learner(params, ()), Report({"loss": jnp.zeros(())})


def enter(saved: Saved, how: horizons.Setting = HOW) -> horizons.Contestant:
    return horizons.enter(saved, "chain", how, group=2, capacity=4)


def levels(count: int) -> Any:
    return horizons.held_out("chain", "validation", count).levels


def moved(rule: Any, horizon: int, count: int = 2) -> schedule.Moved:
    who = enter(Saved("known", rule, (), {}, str(rule)))
    return schedule.moved(who.world, who.source, who.hyper, levels(count), horizon, 0)


# --- one update, told another time --------------------------------------------------------------


def by_hand(horizon: int, ages: Any, shares: Any) -> np.ndarray:
    """Changes of entropy of two actions whose logits differ by d, ``[K, U]``."""

    def entropy(d: float) -> float:
        p = 1 / (1 + math.exp(-d))
        return -p * math.log(p) - (1 - p) * math.log(1 - p)

    def grown(d: float, left: float) -> float:
        p = 1 / (1 + math.exp(-d))
        # Half of the slope of the entropy goes to each logit, with opposite signs.
        return d + PUSH + 2 * BONUS * left * (-d * p * (1 - p))

    d, found = 0.0, []
    for n in range(horizon):
        if n in ages:
            found.append([entropy(grown(d, 1 - t)) - entropy(d) for t in shares])
        d = grown(d, 1 - n / horizon)
    return np.array(found)


def test_a_bonus_for_entropy_that_falls_with_the_time() -> None:
    found = moved(Known(), 20)
    assert found.ages.tolist() == [0, 5, 10, 15, 19]
    assert found.shares.tolist() == pytest.approx([0, *np.arange(1, 10) / 10, 0.95])
    expected = by_hand(20, found.ages, found.shares)
    for level in found.entropy:
        np.testing.assert_allclose(level, expected, atol=1e-5)
    assert found.finite.all()
    entropy, kl = found.mean()
    np.testing.assert_allclose(entropy, expected.mean(axis=0), atol=1e-5)
    assert slopes.slope(found.shares, entropy) < -0.05
    # At birth the policy is uniform, where entropy has no slope: the clock changes nothing.
    assert slopes.slope(found.shares, found.entropy[:, 0]) == pytest.approx(0, abs=1e-6)
    assert (kl > 0).all()


def test_an_objective_without_a_clock_moves_by_exactly_nothing() -> None:
    for rule in (Known(falls=False), load("a2c").objective):
        found = moved(rule, 6)
        assert np.ptp(found.entropy, axis=-1).max() == 0
        assert (slopes.slope(found.shares, found.kl) == 0).all()
        assert np.abs(found.entropy).max() > 1e-4, "it learns"


def test_a_short_life_counts_no_age_twice() -> None:
    found = moved(Known(), 2)
    assert found.ages.tolist() == [0, 1]
    assert found.shares.tolist() == pytest.approx(np.arange(10) / 10)
    np.testing.assert_allclose(found.entropy[0], by_hand(2, [0, 1], found.shares), atol=1e-5)


def test_agents_that_broke_are_left_out() -> None:
    change = np.tile([0.0, 1.0, 2.0], (2, 1, 1))
    change[1, 0, 2] = np.nan
    found = schedule.Moved(np.array([0.0, 0.5, 1.0]), np.array([0]), change, change + 1)
    assert found.finite.tolist() == [[True], [False]]
    assert found.mean()[1].tolist() == [1, 2, 3]
    assert found.by_age()[0].tolist() == [[0, 1, 2]]
    lost = found._replace(kl=np.full_like(change, np.inf))
    assert np.isnan(lost.mean()[0]).all() and np.isnan(lost.by_age()[1]).all()


def test_what_the_clock_of_lpg_moves() -> None:
    """The same update as in a life, but for the time: one theta with its clock and without."""
    rule = make_rule("lpg", width=4, predictions=2, embedding=2)
    theta = jax.tree.map(lambda x: 3 * x, rule.init(jax.random.key(0)))
    who = enter(Saved("lpg", rule, theta, {}, "lpg"))
    found = schedule.moved(who.world, theta, who.hyper, levels(2), 4, 0)
    assert np.ptp(found.entropy, axis=-1).max() > 1e-4
    blind = schedule.moved(who.world, theta, who.hyper._replace(clock_gate=0.0), levels(2), 4, 0)
    assert np.ptp(blind.entropy, axis=-1).max() == 0


# --- a drift --------------------------------------------------------------------------------------


def turns(name: str, advantage: float, **update: Any) -> schedule.Turns:
    rule = load(name).objective if name in ("ppo", "dpo") else make_rule(name)
    how = horizons.setting([load("ppo")], horizons.make_environment("chain"))
    agent = replace(how.agent, update=replace(how.agent.update, **update))
    theta = rule.init(jax.random.key(0))
    who = enter(Saved(name, rule, theta, {}, name), how._replace(agent=agent))
    return schedule.turns(who.world, theta, who.hyper, 10, advantage, np.array([0.0, 0.5]))


@pytest.mark.parametrize("clip", [0.2, 0.3])
def test_ppo_stops_the_policy_at_its_clip(clip: float) -> None:
    above, below = (turns("ppo", sign, clip_ratio=clip) for sign in (1.0, -1.0))
    assert above.half == pytest.approx([1 + clip] * 2, rel=1e-5)
    assert below.half == pytest.approx([1 - clip] * 2, rel=1e-5)
    assert np.isnan(above.back).all() and np.isnan(below.back).all(), "it never pushes back"
    assert slopes.reached(below.half, -1.0) == pytest.approx([math.log(1 - clip)] * 2, rel=1e-4)


def test_where_dpo_turns() -> None:
    above, below = (turns("dpo", sign) for sign in (1.0, -1.0))
    # A = 1: g = sech^2((p - 1) / 2), a half at p = 1 + 2 artanh(1 / sqrt 2); never below zero.
    assert above.half == pytest.approx([1 + 2 * math.atanh(math.sqrt(0.5))] * 2, rel=1e-4)
    assert np.isnan(above.back).all()

    # A = -1: g / A = 1 - tanh^2(u / .6) e^u with u = -ln p.
    def left(u: float) -> float:
        return 1 - math.tanh(u / 0.6) ** 2 * math.exp(u)

    assert below.half[0] == pytest.approx(
        math.exp(-brentq(lambda u: left(u) - 0.5, 0, 1)), rel=1e-4
    )
    assert below.back[0] == pytest.approx(
        math.exp(-brentq(lambda u: left(u) + schedule.SLACK, 0, 1)), rel=1e-4
    )


def test_a_schedule_of_the_clip_is_seen() -> None:
    """PPO whose bound falls to a half along a life turns later at birth than at the end."""
    rule = make_rule("ppo-scheduled")
    theta = rule.init(jax.random.key(0))
    theta["clip_ratio"]["q"] = jnp.asarray(-9.0)
    how = horizons.setting([load("ppo")], horizons.make_environment("chain"))
    who = enter(Saved("s", rule, theta, {}, "s"), how)
    found = schedule.turns(who.world, theta, who.hyper, 10, 1.0, np.array([0.0, 0.25, 0.5]))
    assert found.half == pytest.approx([1.2, 1.15, 1.1], rel=1e-4)
    assert slopes.slope(np.array([0.0, 0.25, 0.5]), slopes.reached(found.half, 1.0)) < 0


def test_a_drift_that_lets_everything_pass_is_censored() -> None:
    found = schedule.Turns(np.array([2.0, np.nan]), np.array([np.nan, np.nan]))
    assert slopes.reached(found.half, 1.0) == pytest.approx([math.log(2), math.log(slopes.REACH)])
    assert slopes.reached(found.half, -1.0)[1] == pytest.approx(-math.log(slopes.REACH))


# --- lives ----------------------------------------------------------------------------------------


def test_lives_are_watched() -> None:
    who = enter(Saved("known", Known(), (), {}, "known"))
    along = schedule.along_lives(who.world, (), who.hyper, levels(2), 6, 0)
    d = [0.0]
    for n in range(6):
        p = 1 / (1 + math.exp(-d[-1]))
        d.append(d[-1] + PUSH + 2 * BONUS * (1 - n / 6) * (-d[-1] * p * (1 - p)))
    p = 1 / (1 + np.exp(-np.array(d)))
    entropy = -p * np.log(p) - (1 - p) * np.log(1 - p)
    change = p[:-1] * np.log(p[:-1] / p[1:]) + (1 - p[:-1]) * np.log((1 - p[:-1]) / (1 - p[1:]))
    for level in range(2):
        np.testing.assert_allclose(along.entropy[level], entropy[:-1], atol=1e-5)
        np.testing.assert_allclose(along.change[level], change, atol=1e-5)
    # At birth each state's first logit is pushed alone.
    states = who.world.env.spec.num_states
    assert states is not None
    assert along.norm[0, 0] == pytest.approx(PUSH * math.sqrt(states), rel=1e-5)


def test_a_life_that_is_blind_to_its_horizon_is_part_of_a_longer_one() -> None:
    who = enter(Saved("blind", Known(falls=False), (), {}, "blind"))
    aware = enter(Saved("known", Known(), (), {}, "known"))
    found = []
    for each in (who, aware):
        curves = {
            n: schedule.along_lives(each.world, (), each.hyper, levels(2), n, 0).entropy[0]
            for n in (3, 6)
        }
        found.append(slopes.stretch(curves))
    assert found[0].by_age == 0 < found[0].by_share
    assert found[1].by_age > 0


def test_curves_that_stretch_and_curves_that_count() -> None:
    ns = (5, 20, 80)
    by_share = slopes.stretch({n: 1 - np.arange(n) / n for n in ns})
    assert by_share.by_share == pytest.approx(0, abs=1e-12)
    pairs = [(m, n) for m in ns for n in ns if m < n]
    expected = np.mean([np.mean(np.arange(m) * (1 / m - 1 / n)) for m, n in pairs])
    assert by_share.by_age == pytest.approx(expected)
    by_age = slopes.stretch({n: np.exp(-np.arange(n) / 10) for n in ns})
    assert by_age.by_age == 0 < by_age.by_share
    with pytest.raises(ValueError, match="at least two"):
        slopes.stretch({5: np.zeros(5)})


def test_slopes() -> None:
    times = np.array([0.0, 0.25, 1.0])
    assert slopes.slope(times, 3 - 2 * times) == pytest.approx(-2)
    assert slopes.slope(times, np.full((2, 3), 0.1)).tolist() == [0, 0]
    noisy = np.array([1.0, 5.0, 2.0])
    assert slopes.slope(times, noisy) == pytest.approx(np.polyfit(times, noisy, 1)[0])
    with pytest.raises(ValueError, match="at least two"):
        slopes.slope(times[:1], times[:1])
