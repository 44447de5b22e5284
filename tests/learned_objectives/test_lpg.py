import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.base import EnvSpec
from learned_objectives.base import Perturbed, count_parameters
from learned_objectives.lpg import LPG

SMALL = LPG(width=4, predictions=3, embedding=2)
"""TA-LPG, small."""


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def random_theta(objective, seed=0):
    """Every weight and bias random, in JAX's default float."""
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(random.normal(size=leaf.shape)),
        jax.eval_shape(objective.init, jax.random.key(0)),
    )


def words_by_hand(theta, params, experience, clock, width):
    """U over each trajectory, one environment and one step at a time, last first."""
    theta = jax.tree.map(np.asarray, theta)
    policy, prediction = (np.asarray(params[head]["table"]) for head in ("policy", "prediction"))
    embed, cell = theta["embed"], theta["cell"]

    def e(state):
        hidden = np.maximum(softmax(prediction[state]) @ embed["w1"] + embed["b1"], 0)
        return (hidden @ embed["w2"] + embed["b2"])[0]

    def gru(x, h):
        r, z, c = (slice(i * width, (i + 1) * width) for i in range(3))
        read, recurrent = x @ cell["wx"] + cell["bx"], h @ cell["wh"]
        reset, keep = sigmoid(read[r] + recurrent[r]), sigmoid(read[z] + recurrent[z])
        candidate = np.tanh(read[c] + reset * (recurrent[c] + cell["bh"]))
        return (1 - keep) * candidate + keep * h

    T, B = experience.reward.shape
    pi_hat, y_hat = np.zeros((T, B)), np.zeros((T, B, prediction.shape[1]))
    for b in range(B):
        h = np.zeros(width)
        for t in reversed(range(T)):
            terminated = bool(experience.terminated[t, b])
            if terminated or experience.truncated[t, b]:
                h = np.zeros(width)
            s, a = experience.observation[t, b], experience.action[t, b]
            there = 0.0 if terminated else e(experience.next_observation[t, b])
            probability = softmax(policy[s])[a]
            seen = [experience.reward[t, b], float(terminated), probability, e(s), there, *clock]
            h = gru(np.asarray(seen), h)
            hidden = np.maximum(h, 0)
            pi_hat[t, b] = (hidden @ theta["pi"]["w"] + theta["pi"]["b"])[0]
            y_hat[t, b] = softmax(hidden @ theta["y"]["w"] + theta["y"]["b"])
    return pi_hat, y_hat


@pytest.fixture(scope="module")
def said(make_learner, make_experience, make_time):
    """``(objective, theta, hyper, n, N) -> `` its words on the one experience."""
    programs = {}

    def say(objective, theta, hyper=None, n=2, N=5):
        def signals(theta, hyper, time):
            network, learner = make_learner(objective)
            return objective.signals(theta, hyper, network, learner, make_experience(), time)

        program = programs.setdefault(objective, jax.jit(signals))
        return program(theta, hyper or objective.hyper(), make_time(n, N))

    return say


def assert_same(first, second, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), first, second)


# --- U ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("clock", "parameters"), [("none", 203_946), ("fraction_log", 205_482)])
def test_published_size(clock, parameters):
    shapes = jax.eval_shape(LPG(clock=clock).init, jax.random.key(0))
    assert count_parameters(shapes) == parameters


def test_initialisation():
    theta = jax.jit(dataclasses.replace(SMALL, width=8).init)(jax.random.key(0))
    for gate in np.split(np.asarray(theta["cell"]["wh"]), 3, axis=1):
        np.testing.assert_allclose(gate @ gate.T, np.eye(8), atol=1e-6)
    for part in theta.values():
        for name, leaf in part.items():
            assert (name[0] == "b") == (not np.any(leaf))


def test_the_recurrence_is_flaxs():
    theta = random_theta(SMALL)
    weights, x = theta["cell"], np.random.default_rng(1).normal(size=(6, 2, 7)).astype(np.float32)
    wx, wh, bx = (np.split(np.asarray(weights[name]), 3, axis=-1) for name in ("wx", "wh", "bx"))
    flax = {f"i{gate}": {"kernel": wx[i], "bias": bx[i]} for i, gate in enumerate("rzn")}
    flax |= {f"h{gate}": {"kernel": wh[i]} for i, gate in enumerate("rzn")}
    flax["hn"]["bias"] = weights["bh"]
    cell, h, expected = nn.GRUCell(4), jnp.zeros((2, 4)), []
    for x_t in x[::-1]:
        h, _ = cell.apply({"params": flax}, h, x_t)
        expected.append(h)
    found = SMALL._recur(weights, jnp.asarray(x), jnp.zeros((6, 2), bool))
    np.testing.assert_allclose(found, np.stack(expected[::-1]), rtol=1e-5, atol=1e-6)


def test_words_equal_a_plain_loop(said, make_table, make_experience):
    with jax.enable_x64(True):
        theta = random_theta(SMALL)
        found, experience = said(SMALL, theta, n=2, N=5), make_experience()
        _, params = make_table(SMALL)
    pi_hat, y_hat = words_by_hand(theta, params, experience, (2 / 5, np.log(5)), SMALL.width)
    assert found["pi_hat"].dtype == jnp.float64
    np.testing.assert_allclose(found["pi_hat"], pi_hat, rtol=1e-10)
    np.testing.assert_allclose(np.exp(found["log_y_hat"]), y_hat, rtol=1e-10)


def test_words_depend_on_later_steps_of_the_same_episode_only(
    make_learner, make_experience, make_time
):
    # Wide enough that at no step all ReLUs sleep.
    objective, experience = dataclasses.replace(SMALL, width=16), make_experience()
    theta, time = random_theta(objective), make_time(2, 5)
    network, learner = make_learner(objective)

    def pi_hat(reward):
        seen = experience._replace(reward=reward)
        said = objective.signals(theta, objective.hyper(), network, learner, seen, time)
        return said["pi_hat"]

    credit = np.asarray(jax.jit(jax.jacfwd(pi_hat))(experience.reward)) != 0
    T, B = experience.reward.shape
    ended = np.asarray(experience.terminated | experience.truncated)
    expected = np.zeros((T, B, T, B), bool)
    for b in range(B):
        for t in range(T):
            for later in range(t, T):
                expected[t, b, later, b] = not ended[t:later, b].any()
    np.testing.assert_array_equal(credit, expected)


def test_low_rank_weights_say_what_their_sum_says(said):
    theta, random = random_theta(SMALL), np.random.default_rng(3)

    def split(leaf):
        if leaf.ndim < 2:
            return leaf
        left, right = (random.normal(size=(n, 2)).astype(np.float32) for n in leaf.shape)
        return Perturbed(*map(jnp.asarray, (np.asarray(leaf) - left @ right.T, left, right)))

    assert_same(said(SMALL, jax.tree.map(split, theta)), said(SMALL, theta), rtol=1e-3, atol=1e-4)


# --- the clock --------------------------------------------------------------------------------


def test_time_matters(said):
    theta = random_theta(SMALL)
    young, old, longer = (
        said(SMALL, theta, n=n, N=N)["pi_hat"] for n, N in [(0, 5), (4, 5), (0, 9)]
    )
    assert not np.allclose(young, old)
    assert not np.allclose(young, longer)


def test_with_its_clock_weights_zero_it_is_lpg(said):
    theta = random_theta(SMALL)
    theta["cell"]["wx"] = theta["cell"]["wx"].at[-2:].set(0)
    blind, weights = SMALL.without_clock(theta)
    assert blind == dataclasses.replace(SMALL, clock="none")
    assert count_parameters(weights) == count_parameters(theta) - 2 * 3 * SMALL.width
    assert_same(said(SMALL, theta, n=1), said(blind, weights, n=3), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gate", [0.0, 0.5, 1.0])
def test_a_gate_is_baked_into_the_weights(gate, said):
    theta = random_theta(SMALL)
    gated = said(SMALL, theta, SMALL.hyper(clock_gate=gate), n=2)
    baked, weights = SMALL.baked(theta, gate)
    assert baked.clock == ("none" if gate == 0 else SMALL.clock)
    assert_same(gated, said(baked, weights, n=2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clock", ["raw", "remaining"])
def test_a_closed_gate_is_the_blind_objective(clock, said):
    objective = dataclasses.replace(SMALL, clock=clock, clip_log=True, discount_input=True)
    theta = random_theta(objective)
    shut = said(objective, theta, objective.hyper(clock_gate=0.0))
    blind, weights = objective.without_clock(theta)
    assert (blind.clock, blind.clip_log, blind.discount_input) == ("none", False, True)
    assert_same(shut, said(blind, weights), rtol=1e-5, atol=1e-6)


def test_the_discount_is_seen_only_if_asked_for(said):
    asked = dataclasses.replace(SMALL, discount_input=True)
    for objective, seen in ((SMALL, False), (asked, True)):
        theta = random_theta(objective)
        first, second = (
            said(objective, theta, objective.hyper(discount=gamma))["pi_hat"]
            for gamma in (0.9, 0.99)
        )
        assert np.allclose(first, second) != seen


# --- the agent's step -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def moved(make_learner, make_experience, make_time):
    """``(objective, theta, hyper) -> `` learner before and after, and the report."""
    programs = {}

    def move(objective, theta, hyper):
        network, learner = make_learner(objective)

        def update(theta, hyper, learner):
            arguments = (make_experience(), make_time(2, 5), jax.random.key(0))
            return objective.update(theta, hyper, network, learner, *arguments)

        program = programs.setdefault(objective, jax.jit(update))
        return learner, *program(theta, hyper, learner)

    return move


def test_the_agents_step_is_the_gradient_worked_by_hand(moved, said, make_experience):
    with jax.enable_x64(True):
        theta = random_theta(SMALL)
        hyper = SMALL.hyper(
            policy_rate=1.0, prediction_rate=1.0, prediction_weight=0.7, clip=float("inf")
        )
        before, after, report = moved(SMALL, theta, hyper)
        words, experience = said(SMALL, theta), make_experience()
    pi_hat, log_y_hat = np.asarray(words["pi_hat"]), np.asarray(words["log_y_hat"])
    policy, prediction = (
        np.asarray(before.params[head]["table"]) for head in ("policy", "prediction")
    )
    policy_slope, prediction_slope = np.zeros_like(policy), np.zeros_like(prediction)
    for t, b in np.ndindex(pi_hat.shape):
        s, a = experience.observation[t, b], experience.action[t, b]
        pi, y = softmax(policy[s]), softmax(prediction[s])
        gap = np.log(y) - log_y_hat[t, b]
        policy_slope[s] += pi_hat[t, b] * (np.eye(3)[a] - pi) / pi_hat.size
        prediction_slope[s] += 0.7 * y * (gap - np.sum(y * gap)) / pi_hat.size
    np.testing.assert_allclose(after.params["policy"]["table"], policy - policy_slope, rtol=1e-9)
    np.testing.assert_allclose(
        after.params["prediction"]["table"], prediction - prediction_slope, rtol=1e-9
    )
    np.testing.assert_allclose(report.penalties["pi_hat"], np.mean(pi_hat**2), rtol=1e-9)
    np.testing.assert_allclose(
        report.penalties["y_hat"], np.mean(np.sum(np.exp(log_y_hat) ** 2, -1)), rtol=1e-9
    )
    np.testing.assert_allclose(
        report.metrics["gradient_norm"], np.linalg.norm(policy_slope), rtol=1e-9
    )


def test_heads_are_clipped_apart_and_alpha_comes_before_the_clip(moved):
    theta = random_theta(SMALL)

    def steps(alpha):
        hyper = SMALL.hyper(
            policy_rate=2.0, prediction_rate=3.0, prediction_weight=alpha, clip=1e-3
        )
        before, after, _ = moved(SMALL, theta, hyper)
        return {
            head: np.asarray(after.params[head]["table"] - before.params[head]["table"])
            for head in ("policy", "prediction")
        }

    weak, strong = steps(0.5), steps(500.0)
    np.testing.assert_allclose(np.linalg.norm(weak["policy"]), 2e-3, rtol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(weak["prediction"]), 3e-3, rtol=1e-3)
    # After the clip, alpha would make the second step a thousand times as long.
    assert_same(weak, strong, rtol=1e-2, atol=1e-6)


def test_the_agent_takes_words_as_constants(moved):
    """U reads pi and y, and yet the agent's gradient does not pass through what U says."""
    theta, through = random_theta(SMALL), dataclasses.replace(SMALL, through_inputs=True)
    cut, passed = (moved(objective, theta, SMALL.hyper())[1] for objective in (SMALL, through))
    jax.tree.map(np.testing.assert_array_equal, cut.params, passed.params)


# --- the meta-gradient ------------------------------------------------------------------------


@pytest.fixture
def meta_loss(make_learner, make_experience, make_time):
    """``objective, states, updates -> (theta -> J, slope)``: what updates make of both heads."""

    def make(objective, states=5, updates=2):
        network, born = make_learner(objective, states)
        rollouts = [make_experience(seed) for seed in range(updates)]
        rollouts = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rollouts)
        hyper, last = objective.hyper(policy_rate=1.0, prediction_rate=1.0), make_experience(9)

        def loss(theta):
            def update(learner, now):
                n, seen = now
                time = make_time(0, updates)._replace(n=n)
                key = jax.random.key(0)
                return objective.update(theta, hyper, network, learner, seen, time, key)[0], None

            learner, _ = jax.lax.scan(update, born, (jnp.arange(updates), rollouts))
            outputs, _ = network.unroll(learner.params, last)
            log_y = jax.nn.log_softmax(outputs["prediction"])
            return jnp.mean(network.log_prob(outputs, last.action) + log_y[..., 0])

        return jax.jit(jax.value_and_grad(loss))

    return make


def test_the_meta_gradient_is_a_finite_difference(meta_loss):
    through = dataclasses.replace(SMALL, through_inputs=True)
    with jax.enable_x64(True):
        theta, along = (jax.tree.map(np.asarray, random_theta(SMALL, seed)) for seed in (0, 9))
        ahead, behind = (
            jax.tree.map(lambda w, d, e=e: w + e * d, theta, along) for e in (1e-6, -1e-6)
        )
        for objective, updates, exact in [
            # What U reads depends on theta from the second update on, and is cut by default.
            (SMALL, 1, True),
            (SMALL, 2, False),
            (through, 2, True),
        ]:
            loss = meta_loss(objective, updates=updates)
            slope = jax.tree.map(lambda g, d: np.sum(np.asarray(g) * d), loss(theta)[1], along)
            found = sum(jax.tree.leaves(slope))
            expected = (loss(ahead)[0] - loss(behind)[0]) / 2e-6
            assert abs(expected) > 1e-4
            assert np.isclose(found, expected, rtol=1e-5) == exact


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_meta_gradient_is_finite_where_no_agent_ever_was(optimizer, meta_loss):
    """40 rows of which 35 are never visited; at theta = 0 the policy's gradient is zero too."""
    objective = dataclasses.replace(SMALL, optimizer=optimizer)
    loss = meta_loss(objective, states=40)
    theta = random_theta(objective)
    for point in (theta, jax.tree.map(np.zeros_like, theta)):
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(loss(point)))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(loss(theta)[1]))


def test_continuous_actions_are_refused_in_one_line():
    spec = EnvSpec("Pendulum-v1", (3,), None, None, (1,))
    assert "Pendulum-v1 has continuous actions" in SMALL.unsupported(spec)
    assert SMALL.unsupported(spec._replace(num_actions=2)) is None


def test_a_cell_of_bfloat16_products_says_nearly_the_same():
    theta = LPG(width=8, predictions=3).init(jax.random.key(0))["cell"]
    x = jax.random.normal(jax.random.key(1), (6, 4, theta["wx"].shape[0]))
    cut = jnp.zeros((6, 4))

    def both(theta, **fields):
        rule = LPG(width=8, predictions=3, **fields)
        return rule._recur(theta, x, cut), jax.grad(lambda t: rule._recur(t, x, cut).sum())(theta)

    exact, rounded = both(theta), both(theta, products="bfloat16")
    ahead = both(theta, products="bfloat16", read_ahead=True)
    for ours, theirs in zip(*map(jax.tree.leaves, (exact, rounded)), strict=True):
        assert ours.dtype == theirs.dtype == jnp.float32
        np.testing.assert_allclose(ours, theirs, rtol=0.05, atol=0.05)
    assert np.abs(exact[0] - rounded[0]).max() > 1e-4
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-2), rounded, ahead
    )


def test_inputs_read_ahead_or_in_the_loop_are_the_same():
    """What an accelerator computes, beside what a CPU does; a gradient too."""
    theta = LPG(width=8, predictions=3).init(jax.random.key(0))["cell"]
    x = jax.random.normal(jax.random.key(1), (6, 4, theta["wx"].shape[0]))
    cut = jax.random.bernoulli(jax.random.key(2), 0.3, (6, 4))
    products = []

    def both(ahead):
        rule = LPG(width=8, predictions=3, read_ahead=ahead)

        def total(theta):
            return jnp.square(rule._recur(theta, x, cut)).sum()

        traced = [one.primitive.name for one in jax.make_jaxpr(total)(theta).eqns]
        products.append(traced.count("dot_general"))  # outside of the loop
        return rule._recur(theta, x, cut), jax.grad(total)(theta)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), both(True), both(False)
    )
    assert products == [1, 0]
