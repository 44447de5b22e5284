import dataclasses
import doctest
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learned_objectives import scheduled
from learned_objectives.handwritten import A2C
from learned_objectives.library import load, make_rule, save
from learned_objectives.lpg import LPG
from learned_objectives.mirror import DPO, PPO
from learned_objectives.scheduled import AnnealedLPG, Scheduled, number, sharpened

FORMS = ("constant", "scheduled", "scheduled_N")
SHARED_OUT = {"epochs": 2, "minibatches": 3, "optimizer": "sgd"}
SMALL_LPG = {"width": 4, "predictions": 3, "embedding": 2}
NAMES = {
    "a2c-constant": {"optimizer": "adam"},
    "a2c-scheduled": {},
    "a2c-scheduled-n": {},
    "ppo-constant": {"epochs": 2, "segments": True, "segment": 5},
    "ppo-scheduled": {"adam_epsilon": 1e-8},
    "ppo-scheduled-n": {"minibatches": 4, "optimizer": "sgd"},
    "lpg-annealed": SMALL_LPG | {"clock": "none"},
}
"""Every name, with some fields that are not its defaults."""


def random_theta(objective, seed=0, scale=0.3):
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(scale * random.normal(size=leaf.shape), leaf.dtype),
        jax.eval_shape(objective.init, jax.random.key(0)),
    )


def by_hand(reference, knobs, n, N, unit=1.0):
    """The formula with the exponents and the sigmoid as it is told in words."""
    a, b, q = (float(knobs.get(knob, 0)) for knob in ("a", "b", "q"))
    log = (math.log(N * unit) - math.log(50)) / math.log(5)
    c = 2 / (1 + math.exp(-6 * q))
    level = math.log(reference) + 3 * a + 3 * b * log
    return math.exp(level) * (1 - (1 - c) * n / N)


# --- one number -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rule", [A2C(), PPO(), DPO()])
def test_every_number_follows_the_formula(rule, form, make_time):
    objective = Scheduled(rule, form)
    moved = {"policy_rate", "value_rate", "entropy_weight"}
    moved |= {"clip_ratio"} if isinstance(rule, PPO) else set()
    with jax.enable_x64(True):
        theta, reference = random_theta(objective), objective.hyper()
        assert set(theta) == set(objective.numbers) == moved
        for n, N, unit in [(0, 1, 1.0), (0, 250, 1.0), (5, 10, 0.25), (49, 50, 1.0), (7, 7, 2.0)]:
            found = objective.at(theta, reference, make_time(n, N, unit))
            for name, value in found._asdict().items():
                known = getattr(reference, name)
                if name not in moved:
                    assert value == known
                    continue
                assert value.dtype == jnp.float64
                expected = by_hand(known, theta[name], n, N, unit)
                np.testing.assert_allclose(value, expected, rtol=1e-6 if unit != 1 else 1e-12)


def test_forms_differ_by_what_they_are_told(make_time):
    """Time moves no constant; a schedule sees the share of life alone."""
    told = {}
    for form in FORMS:
        objective = Scheduled(A2C(), form)
        theta = random_theta(objective, seed=1)
        told[form] = [
            float(objective.at(theta, objective.hyper(), make_time(n, N)).policy_rate)
            for n, N in [(0, 20), (10, 20), (50, 100)]
        ]
    assert len(set(told["constant"])) == 1
    assert told["scheduled"][0] != told["scheduled"][1] == told["scheduled"][2]
    assert len(set(told["scheduled_N"])) == 3


def test_a_step_of_a_tenth_is_a_factor(make_time):
    zeros = {knob: jnp.zeros(()) for knob in ("a", "b", "q")}

    def factor(knob, size, n, N):
        return float(number(1.0, {**zeros, knob: jnp.asarray(size)}, make_time(n, N)))

    assert factor("a", 0.1, 3, 20) == pytest.approx(1.35, abs=1e-3)
    assert factor("a", -0.1, 3, 20) == pytest.approx(1 / 1.35, abs=1e-3)
    assert factor("b", 0.1, 3, 250) == pytest.approx(1.35, abs=1e-3)
    assert factor("b", 0.1, 3, 10) == pytest.approx(1 / 1.35, abs=1e-3)
    assert factor("b", 0.1, 3, 50) == pytest.approx(1.0, abs=1e-6)
    up, down = (factor("q", size, 20, 20) for size in (0.1, -0.1))
    assert up / down == pytest.approx(1.35**2, rel=2e-3)
    assert down < 0.75
    assert up > 1.25
    assert factor("q", 0.1, 0, 20) == 1.0


def test_zeros_are_the_reference_to_the_last_bit(make_time):
    for objective in (Scheduled(PPO(), "scheduled_N"), AnnealedLPG(**SMALL_LPG)):
        theta = random_theta(objective, scale=0.0)
        reference = jax.tree.map(jnp.float32, objective.hyper())
        program = jax.jit(objective.at)
        for n, N in [(0, 3), (2, 3), (977, 1000)]:
            for at in (objective.at, program):
                told = at(theta, reference, make_time(n, N))
                assert tuple(map(float, told)) == tuple(map(float, reference))


def test_settled_is_what_a_life_is_told(make_time):
    objective = Scheduled(PPO(), "scheduled_N")
    theta, reference = random_theta(objective, seed=2), objective.hyper(policy_rate=0.7)
    for name, plain in objective.settled(theta, reference).items():
        told = [
            float(getattr(objective.at(theta, reference, make_time(n, N)), name))
            for n, N in [(0, 50), (50, 50), (0, 100)]
        ]
        expected = [plain.start, plain.end, plain.start * plain.per_octave]
        np.testing.assert_allclose(told, expected, rtol=1e-5)


# --- the update -------------------------------------------------------------------------------

REFERENCES = {
    A2C: {"policy_rate": 2.0, "value_rate": 0.5, "entropy_weight": 0.3},
    PPO: {"policy_rate": 3.0, "value_rate": 0.7, "entropy_weight": 0.3, "clip_ratio": 0.1},
    LPG: {"policy_rate": 2.0, "prediction_rate": 0.5},
}


@pytest.fixture
def updates(make_table, make_experience, make_time):
    """``(objective) -> (theta, reference, n, N) -> `` new parameters and their slope in theta."""

    def make(objective, inner):
        network, params = make_table(objective)
        seen = make_experience()
        seen = seen._replace(behaviour=network.act(params, seen.observation))

        def update(objective, theta, hyper, time):
            born = objective.birth(theta, hyper, network, params)
            arguments = network, born, seen, time, jax.random.key(1)
            return objective.update(theta, hyper, *arguments)[0].params

        def slope(theta, hyper, time):
            new = update(objective, theta, hyper, time)
            return sum(jnp.sum(leaf**3) for leaf in jax.tree.leaves(new)), new

        both = jax.jit(jax.vmap(jax.grad(slope, has_aux=True), (0, None, None)))

        def run(thetas, hyper, n, N):
            gradient, new = both(thetas, hyper, make_time(n, N))
            return new, gradient

        plain = jax.jit(lambda theta, hyper, time: update(inner, theta, hyper, time))
        return run, lambda theta, hyper, n, N: plain(theta, hyper, make_time(n, N))

    return make


@pytest.mark.parametrize(
    ("objective", "inner"),
    [
        (make_rule("a2c-scheduled-n"), A2C()),
        (make_rule("ppo-scheduled-n", **SHARED_OUT), PPO(**SHARED_OUT)),
        (AnnealedLPG(**SMALL_LPG), LPG(**SMALL_LPG)),
    ],
    ids=["a2c", "ppo", "lpg"],
)
def test_an_update_is_the_rules_own_at_the_numbers_of_the_moment(objective, inner, updates):
    """Over two thetas at once; zeros are the rule itself; a gradient reaches the knobs."""
    run, plain = updates(objective, inner)
    reference = jax.tree.map(jnp.float32, objective.hyper(**REFERENCES[type(inner)]))
    moving = random_theta(objective, seed=3)
    if isinstance(objective, AnnealedLPG):
        still = {**moving, "anneal": jax.tree.map(jnp.zeros_like, moving["anneal"])}
        said, knobs = moving["lpg"], moving["anneal"]
    else:
        still = objective.init(jax.random.key(0))
        said, knobs = (), moving
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), still, moving)
    new, slope = run(both, reference, 3, 20)

    told = {name: by_hand(float(getattr(reference, name)), knobs[name], 3, 20) for name in knobs}
    for name, value in told.items():
        assert abs(value / float(getattr(reference, name)) - 1) > 0.05
    replaced = reference._replace(**jax.tree.map(jnp.float32, told))
    for i, hyper in enumerate((reference, replaced)):
        expected = plain(said, hyper, 3, 20)
        for found, value in zip(jax.tree.leaves(new), jax.tree.leaves(expected), strict=True):
            assert found.dtype == value.dtype
            np.testing.assert_allclose(found[i], value, rtol=1e-5, atol=1e-6)
    for name in told:
        otherwise = replaced._replace(**{name: getattr(reference, name)})
        heads = zip(*map(jax.tree.leaves, (expected, plain(said, otherwise, 3, 20))), strict=True)
        assert any(not np.allclose(*pair, rtol=1e-3) for pair in heads), name

    # What PPO's clip leaves of a gradient is all or nothing: a change of its bound has slope zero.
    flat = slope.pop("clip_ratio", {})
    assert all((leaf == 0).all() for leaf in flat.values())
    for leaf in jax.tree.leaves(slope):
        assert np.isfinite(leaf).all()
        assert np.any(leaf.reshape(2, -1) != 0, axis=1).all()


def test_what_is_said_is_what_the_rule_says(make_learner, make_experience, make_time):
    objective = make_rule("a2c-scheduled")
    network, learner = make_learner(objective)
    arguments = network, learner, make_experience(), make_time(2, 5)
    found = objective.signals(random_theta(objective), objective.hyper(), *arguments)
    expected = A2C().signals((), A2C().hyper(), *arguments)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


# --- theta ------------------------------------------------------------------------------------


def test_a_random_search_draws_log_uniformly():
    objective, count = Scheduled(PPO(), "scheduled_N"), 1024
    theta = objective.random_search(jax.random.key(4), count)
    assert jax.tree.structure(theta) == jax.tree.structure(objective.init(jax.random.key(0)))
    for name, reach in [("policy_rate", 30), ("entropy_weight", 10), ("clip_ratio", 4)]:
        levels = 3 * np.asarray(theta[name]["a"]) / math.log(reach)
        powers = 3 * np.asarray(theta[name]["b"]) / math.log(4)
        ends = np.log(2 / (1 + np.exp(-6 * np.asarray(theta[name]["q"])))) / math.log(0.02)
        for drawn, low in [(levels, -1), (powers, -1), (ends, 0)]:
            assert drawn.shape == (count,)
            assert drawn.min() >= low - 1e-4
            assert drawn.max() <= 1 + 1e-4
            quarters = np.quantile(drawn, [0.25, 0.5, 0.75])
            np.testing.assert_allclose(quarters, np.linspace(low, 1, 5)[1:4], atol=0.1)
    leaves = jax.tree.leaves(theta)
    assert len({leaf[0].item() for leaf in leaves}) == len(leaves)
    assert objective.random_search(jax.random.key(5), 2)["policy_rate"]["a"][0] != leaves[0][0]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_saved_is_what_is_loaded(name, tmp_path):
    objective = make_rule(name, **NAMES[name])
    theta = random_theta(objective)
    save(tmp_path, objective, theta, {"summary": "tuned"})
    again = load(tmp_path)
    assert again.objective == objective
    assert again.card["rule"] == name
    assert again.card["fields"].keys() >= NAMES[name].keys()
    assert jax.tree.structure(again.theta) == jax.tree.structure(theta)
    for ours, theirs in zip(jax.tree.leaves(theta), jax.tree.leaves(again.theta), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_names_are_the_forms_of_their_rules():
    for name in NAMES.keys() - {"lpg-annealed"}:
        objective = make_rule(name, **NAMES[name])
        rule, _, form = name.partition("-")
        assert objective.form == form.replace("-n", "_N")
        fields = {
            field.name: getattr(objective, field.name)
            for field in dataclasses.fields(make_rule(rule))
        }
        assert objective.rule == make_rule(rule, **fields)
        assert objective.rule == make_rule(rule, **NAMES[name])
        assert hash(objective) == hash(make_rule(name, **NAMES[name]))
    for rule, cls in [(A2C, scheduled.A2CScheduled), (PPO, scheduled.PPOScheduled)]:
        own, theirs = (
            {field.name: field.default for field in dataclasses.fields(each) if field.init}
            for each in (rule, cls)
        )
        assert own == theirs


# --- LPG ----------------------------------------------------------------------------------------


def test_an_annealed_lpg_can_lose_its_clock_and_keeps_its_schedule(
    make_learner, make_experience, make_time
):
    objective = AnnealedLPG(**SMALL_LPG, clock="fraction_log")
    theta = random_theta(objective)
    network, learner = make_learner(objective)
    arguments = network, learner, make_experience(), make_time(2, 5)

    def said(objective, theta, **hyper):
        return objective.signals(theta, objective.hyper(**hyper), *arguments)["pi_hat"]

    for blind, baked in (objective.without_clock(theta), objective.baked(theta, 0.0)):
        assert blind == AnnealedLPG(**SMALL_LPG, clock="none")
        np.testing.assert_allclose(
            said(blind, baked), said(objective, theta, clock_gate=0.0), rtol=1e-5, atol=1e-6
        )
        assert baked["anneal"] is theta["anneal"]
    same, half = objective.baked(theta, 0.5)
    assert same == objective
    np.testing.assert_allclose(
        said(same, half), said(objective, theta, clock_gate=0.5), rtol=1e-5, atol=1e-6
    )
    plain = objective.settled(theta, objective.hyper())
    assert plain["policy_rate"].end != plain["policy_rate"].start
    assert plain["prediction_rate"].per_octave == 1


# --- a sharpened policy -------------------------------------------------------------------------


def test_a_sharpened_policy_is_the_policy_to_a_power(make_table, make_experience):
    network, params = make_table(A2C())
    seen = make_experience()
    traces = []

    @jax.jit
    def outputs(temperature):
        traces.append(temperature)
        cool = sharpened(network, temperature)
        acted = cool.act(params, seen.observation)
        return acted, cool.unroll(params, seen), cool.entropy(acted), cool.mode(acted)

    before = network.act(params, seen.observation)
    for temperature in (0.25, 1.0, 3.0):
        acted, (now, after), entropy, mode = outputs(jnp.float32(temperature))
        power = np.exp(before["policy"]) ** (1 / temperature)
        power /= power.sum(axis=-1, keepdims=True)
        np.testing.assert_allclose(jax.nn.softmax(acted["policy"]), power, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(acted["value"], before["value"])
        np.testing.assert_array_equal(now["policy"], acted["policy"])
        scaled = network.unroll(params, seen)[1]["policy"] / temperature
        np.testing.assert_allclose(after["policy"], scaled, rtol=1e-6)
        np.testing.assert_array_equal(mode, network.mode(before))
        if temperature == 1:
            np.testing.assert_array_equal(acted["policy"], before["policy"])
        else:
            assert (entropy > network.entropy(before)).all() == (temperature > 1)
    assert len(traces) == 1


def test_examples_in_docstrings():
    failed, tried = doctest.testmod(scheduled)
    assert tried
    assert not failed
