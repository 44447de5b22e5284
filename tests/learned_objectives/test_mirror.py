import doctest
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from envs.base import EnvSpec
from learned_objectives import mirror
from learned_objectives.lpo import LPO
from learned_objectives.mirror import DPO, PPO, Mirror, MirrorHyper, shuffled

STEP = {"epochs": 1, "minibatches": 1, "optimizer": "sgd"}
T, B = 7, 3

RATES = MirrorHyper(
    policy_rate=1.5,
    value_rate=0.7,
    clip=float("inf"),
    discount=0.9,
    trace=0.8,
    reward_scale=2.0,
    value_weight=0.6,
    entropy_weight=0.3,
    clip_ratio=0.3,
    value_clip=0.4,
)


# --- drifts in numbers --------------------------------------------------------------------------


def ppo_by_hand(p, a, eps, theta):
    return p * a - min(p * a, min(max(p, 1 - eps), 1 + eps) * a)


def dpo_by_hand(p, a, eps, theta):
    gain, loss = (p - 1) * a, a * np.log(p)
    if a >= 0:
        return max(gain - 2 * np.tanh(gain / 2), 0)
    return max(loss - 0.6 * np.tanh(loss / 0.6), 0)


def lpo_by_hand(p, a, eps, theta):
    x = np.array([np.log(p), np.log(p) ** 2, 1 - p, (1 - p) ** 2])
    x = np.concatenate([x, a * x])
    x = np.concatenate([x, 0.4 * x])  # n = 2 of N = 5
    said = np.tanh(x @ theta["w1"]) @ theta["w2"][:, 0]
    return max(ppo_by_hand(p, a, eps, theta) + said - 1e-4, 0)


@pytest.fixture
def drift_of(make_time):
    def drift(objective, ratio, advantage):
        log_ratio, advantage = jnp.log(jnp.asarray(ratio)), jnp.asarray(advantage)
        return objective.drift((), objective.hyper(), log_ratio, advantage, make_time(0, 1))

    return drift


def test_ppo_takes_the_smaller_of_two(drift_of):
    random = np.random.default_rng(0)
    with jax.enable_x64(True):
        p, a = np.exp(random.normal(size=200)), random.normal(size=200)
        found = p * a - drift_of(PPO(), p, a)
    np.testing.assert_allclose(found, np.minimum(p * a, np.clip(p, 0.8, 1.2) * a), atol=1e-14)


@pytest.mark.parametrize(
    ("p", "a", "expected"),
    [
        (1.5, 1.0, 0.010163),
        (3.0, 1.0, 0.476812),
        (0.5, -1.0, 0.201457),
        (0.2, -2.0, 2.618902),
        (3.0, -1.0, 0.0),
        (0.5, 1.0, 0.0),
    ],
)
def test_dpo_has_the_published_values(p, a, expected, drift_of):
    np.testing.assert_allclose(drift_of(DPO(), p, a), expected, atol=5e-7)


def test_the_slope_of_a_surface_is_the_one_in_p(make_time):
    random = np.random.default_rng(1)
    for objective in (PPO(), DPO()):
        with jax.enable_x64(True):
            p, a = np.exp(random.normal(size=300)), random.normal(size=300)

            def surface(p, a=a, objective=objective):
                arguments = jnp.log(p), jnp.asarray(a), make_time(0, 1)
                return objective.drift_surface((), objective.hyper(), *arguments)

            told = [surface(x) for x in (p, p + 1e-6, p - 1e-6)]
        (value, slope), (ahead, _), (behind, _) = jax.tree.map(np.asarray, told)
        assert np.count_nonzero(value) > 50
        np.testing.assert_allclose(slope, (ahead - behind) / 2e-6, rtol=1e-5, atol=1e-8)


# --- the update ---------------------------------------------------------------------------------


def log_softmax(x):
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def advantages_by_hand(value, experience, hyper, segment=None):
    """Advantages and lambda-returns, one environment and one step at a time, last first."""
    advantage, target = np.zeros((2, *experience.reward.shape))
    steps = len(advantage)
    for b in range(B):
        later = 0.0
        for t in reversed(range(steps)):
            last = (t + 1) % (segment or steps) == 0
            here = value[experience.observation[t, b], 0]
            there = value[experience.next_observation[t, b], 0]
            alive = 0.0 if experience.terminated[t, b] else 1.0
            reward = hyper.reward_scale * experience.reward[t, b]
            if last or experience.terminated[t, b] or experience.truncated[t, b]:
                later = 0.0
            later = reward + hyper.discount * (alive * there + hyper.trace * later) - here
            target[t, b] = later + here
            advantage[t, b] = later
            if segment:
                follows = there if last or experience.truncated[t, b] else target[t + 1, b]
                advantage[t, b] = reward + hyper.discount * alive * follows - here
    return advantage, target


def loss_by_hand(params, places, words, experience, hyper, drift, theta):
    """The loss on some steps of a rollout, one step at a time."""
    advantage, target = (np.array([word[place] for place in places]) for word in words)
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    total = 0.0
    for place, a, v in zip(places, advantage, target, strict=True):
        state, action = experience.observation[place], experience.action[place]
        log_pi = log_softmax(params["policy"][state])
        before = log_softmax(experience.behaviour["policy"][place])
        p = np.exp(log_pi[action] - before[action])
        value, old = params["value"][state, 0], experience.behaviour["value"][place][0]
        near = min(max(value, old - hyper.value_clip), old + hyper.value_clip)
        total -= p * a - drift(p, a, hyper.clip_ratio, theta)
        total += hyper.value_weight * max((value - v) ** 2, (near - v) ** 2) / 2
        total += hyper.entropy_weight * np.sum(np.exp(log_pi) * log_pi)
    return total / len(places)


def slope_by_hand(loss, params):
    """Finite differences, one entry of one table at a time."""
    slope = {head: np.zeros_like(table) for head, table in params.items()}
    for head, table in params.items():
        for entry in np.ndindex(table.shape):
            sides = []
            for e in (1e-6, -1e-6):
                moved = table.copy()
                moved[entry] += e
                sides.append(loss(params | {head: moved}))
            slope[head][entry] = (sides[0] - sides[1]) / 2e-6
    return slope


def update_by_hand(objective, params, experience, hyper, drift, theta, orders, pace):
    """All minibatches of one iteration on tables: new tables, and the norms of the gradients."""
    rates = {"policy": pace * hyper.policy_rate, "value": pace * hyper.value_rate}
    mean, square = (dict.fromkeys(params, 0.0) for _ in range(2))
    words, length = advantages_by_hand(params["value"], experience, hyper), objective.segment
    norms = []
    for step, order in enumerate(orders, 1):
        if objective.segments:
            starts = [divmod(int(unit), B) for unit in order]
            places = [(row * length + t, b) for row, b in starts for t in range(length)]
        else:
            places = [divmod(int(unit), B) for unit in order]
        if objective.recompute:
            words = advantages_by_hand(params["value"], experience, hyper, length)
        arguments = places, words, experience, hyper, drift, theta
        slope = slope_by_hand(lambda params, told=arguments: loss_by_hand(params, *told), params)
        norms.append(np.sqrt(sum(np.sum(np.square(s)) for s in slope.values())))
        new = {}
        for head, table in params.items():
            direction = slope[head] * min(1.0, hyper.clip / norms[-1])
            if objective.optimizer == "adam":
                mean[head] = 0.9 * mean[head] + 0.1 * direction
                square[head] = 0.999 * square[head] + 0.001 * direction**2
                root = np.sqrt(square[head] / (1 - 0.999**step))
                direction = mean[head] / (1 - 0.9**step) / (root + objective.adam_epsilon)
            new[head] = table - rates[head] * direction
        params = new
    return params, norms


@pytest.fixture(scope="module")
def acted(make_learner, make_experience):
    """A network, a learner, and experience of a policy and critic a little different."""

    def make(objective, apart=0.3):
        network, learner = make_learner(objective)
        random = np.random.default_rng(5)
        older = jax.tree.map(
            lambda leaf: leaf + apart * random.normal(size=leaf.shape), learner.params
        )
        steps = T - 1 if objective.segment else T  # seven is a prime
        seen = jax.tree.map(lambda leaf: leaf[:steps], make_experience())
        return network, learner, seen._replace(behaviour=network.act(older, seen.observation))

    return make


@pytest.fixture(scope="module")
def moved(acted, make_time):
    """``(objective, theta, hyper) -> `` learner and experience, the learner after, the report."""
    programs = {}

    def move(objective, hyper, theta=(), apart=0.3, n=2, N=5):
        network, learner, experience = acted(objective, apart)

        def update(theta, hyper, learner, experience, time):
            key = jax.random.key(3)
            return objective.update(theta, hyper, network, learner, experience, time, key)

        program = programs.setdefault(objective, jax.jit(update))
        after = program(theta, hyper, learner, experience, make_time(n, N))
        return learner, experience, *after

    return move


STEPS = PPO(**STEP)
SHARED = PPO(epochs=2, minibatches=3, adam_epsilon=1e-3)
CUT = {"epochs": 2, "minibatches": 3, "optimizer": "sgd", "segments": True, "segment": 3}
LEARNED = LPO(**STEP, width=4)


@pytest.mark.parametrize(
    ("objective", "changes", "drift"),
    [
        (STEPS, {}, ppo_by_hand),
        (STEPS, {"clip": 0.05, "value_clip": float("inf"), "anneal": 1.0}, ppo_by_hand),
        (DPO(**STEP), {}, dpo_by_hand),
        (LEARNED, {}, lpo_by_hand),
        (SHARED, {"policy_rate": 0.05, "value_rate": 0.02, "clip": 0.2}, ppo_by_hand),
        (PPO(**CUT), {"policy_rate": 0.5, "anneal": 0.5}, ppo_by_hand),
        (PPO(**CUT, recompute=True), {"policy_rate": 0.5}, ppo_by_hand),
    ],
    ids=[
        "ppo",
        "ppo-clipped-annealed",
        "dpo",
        "lpo",
        "ppo-steps",
        "ppo-segments",
        "ppo-recomputed",
    ],
)
def test_an_update_equals_one_by_hand(objective, changes, drift, moved):
    hyper = RATES._replace(**changes)
    with jax.enable_x64(True):
        random = np.random.default_rng(2)
        theta = jax.tree.map(
            lambda leaf: random.normal(size=leaf.shape),
            jax.eval_shape(objective.init, jax.random.key(0)),
        )
        learner, experience, after, report = moved(objective, hyper, theta)
        units = 2 * B if objective.segments else T * B
        bits = jax.random.bits(jax.random.key(3), (objective.epochs, units), jnp.uint32)
        orders = [shuffled(row) for row in bits]
        orders = np.concatenate(
            [np.split(o, objective.minibatches) for o in map(np.asarray, orders)]
        )
    for head in ("policy", "value"):
        assert after.params[head]["table"].dtype == jnp.float64
    tables = {head: np.asarray(learner.params[head]["table"]) for head in ("policy", "value")}
    expected, norms = update_by_hand(
        objective,
        tables,
        jax.tree.map(np.asarray, experience),
        hyper,
        drift,
        theta,
        orders,
        1 - hyper.anneal * 2 / 5,
    )
    for head, table in expected.items():
        assert np.abs(table - tables[head]).max() > 1e-3
        np.testing.assert_allclose(after.params[head]["table"], table, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(report.metrics["gradient_norm"], np.mean(norms), rtol=1e-6)
    assert set(report.metrics) == {
        "entropy",
        "value_loss",
        "kl",
        "clip_share",
        "drift",
        "gradient_norm",
    }
    assert not report.penalties


def test_what_is_reported(moved):
    with jax.enable_x64(True):
        learner, experience, _, report = moved(STEPS, RATES)
    tables = jax.tree.map(np.asarray, learner.params)
    states = np.asarray(experience.observation)
    log_pi = log_softmax(tables["policy"]["table"])[states]
    before = log_softmax(np.asarray(experience.behaviour["policy"]))
    action = np.asarray(experience.action)[..., None]
    ratio = np.exp(np.take_along_axis(log_pi - before, action, -1))
    share = np.mean(np.abs(ratio - 1) > 0.3)
    assert 0 < share < 1
    for name, expected in {
        "entropy": -np.sum(np.exp(log_pi) * log_pi, -1).mean(),
        "kl": np.sum(np.exp(before) * (before - log_pi), -1).mean(),
        "clip_share": share,
    }.items():
        np.testing.assert_allclose(report.metrics[name], expected, rtol=1e-10)


@dataclass(frozen=True)
class Distance(Mirror):
    """A drift that is zero only where nothing has moved."""

    def drift(self, theta, hyper, log_ratio, advantage, time):
        return jnp.abs(log_ratio)


def test_the_first_minibatch_finds_the_policy_that_acted(moved):
    first = moved(Distance(epochs=1, minibatches=1), RATES, apart=0.0)[-1].metrics
    assert (first["drift"], first["kl"], first["clip_share"]) == (0, 0, 0)
    second = moved(Distance(epochs=2, minibatches=1), RATES, apart=0.0)[-1].metrics
    assert second["drift"] > 0


def test_words_are_constants_of_the_agent(acted, make_time):
    network, learner, experience = acted(SHARED)

    def said(params):
        now = learner._replace(params=params)
        words = SHARED.signals((), RATES, network, now, experience, make_time(0, 1))
        return sum(jnp.sum(word) for word in words.values())

    for slope in jax.tree.leaves(jax.jit(jax.grad(said))(learner.params)):
        np.testing.assert_array_equal(slope, 0)


def test_many_agents_at_once(acted, make_time):
    network, learner, experience = acted(SHARED)
    rates = jnp.asarray([1e-2, 1e-3])

    def update(rate, key):
        hyper = SHARED.hyper()._replace(policy_rate=rate)
        time = make_time(0, 2)
        return SHARED.update((), hyper, network, learner, experience, time, key)[0].params

    keys = jnp.stack([jax.random.key(0), jax.random.key(1)])
    both = jax.jit(jax.vmap(update))(rates, keys)
    single = jax.jit(update)(rates[1], keys[1])
    for together, alone in zip(jax.tree.leaves(both), jax.tree.leaves(single), strict=True):
        np.testing.assert_allclose(together[1], alone, rtol=1e-5, atol=1e-6)
        assert not np.allclose(together[0], together[1])


# --- what does not fit --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "sizes", "line"),
    [
        (
            {"minibatches": 8},
            (7, 3),
            "7 x 3 steps cannot be shared out evenly among 8 minibatches: "
            "the nearest number that fits is 7",
        ),
        (
            {"minibatches": 2, "segments": True},
            (8, 3),
            "3 segments cannot be shared out evenly among 2 minibatches: "
            "the nearest number that fits is 1",
        ),
        (
            {"minibatches": 2, "segments": True, "segment": 5},
            (8, 4),
            "8 steps cannot be cut into segments of 5: the nearest length that fits is 4",
        ),
        ({"minibatches": 8}, (128, 64), None),
        ({"minibatches": 4, "segments": True}, (7, 64), None),
        ({"minibatches": 32, "segments": True, "segment": 5}, (80, 2), None),
    ],
)
def test_minibatches_that_do_not_fit_get_one_line(fields, sizes, line):
    assert PPO(**fields).misfit(*sizes) == line


def test_an_update_that_cannot_be_refuses(acted, make_time):
    def update(objective, experience):
        arguments = experience, make_time(0, 1), jax.random.key(0)
        return objective.update((), objective.hyper(), network, learner, *arguments)

    network, learner, experience = acted(PPO())
    with pytest.raises(ValueError, match=r"^7 x 3 steps cannot .* fits is 7$"):
        update(PPO(), experience)
    remembering = experience._replace(memory=jnp.zeros((B, 2)))
    for objective in (SHARED, PPO(minibatches=3, segments=True, segment=1)):
        with pytest.raises(ValueError, match="memory needs minibatches of whole rollouts"):
            update(objective, remembering)


def test_a_memory_goes_with_its_environment(acted, make_time):
    objective = PPO(epochs=1, minibatches=3, segments=True)
    network, learner, experience = acted(objective)

    def unroll(params, part):
        now, after = network.unroll(params, part)
        known = part.memory == part.reward[0]
        return now | {"value": jnp.where(known[:, None], now["value"], jnp.nan)}, after

    def value_loss(memory):
        reward = jnp.broadcast_to(jnp.arange(3.0), (T, B))
        seen = experience._replace(reward=reward, memory=memory)
        reading = network._replace(unroll=unroll)
        arguments = seen, make_time(0, 1), jax.random.key(0)
        update = objective.update((), objective.hyper(), reading, learner, *arguments)
        return update[1].metrics["value_loss"]

    program = jax.jit(value_loss)
    assert np.isfinite(program(jnp.arange(3.0)))
    assert np.isnan(program(jnp.arange(3.0)[::-1]))


def test_fields_that_do_not_fit():
    with pytest.raises(ValueError, match="recompute needs segments"):
        PPO(recompute=True)
    with pytest.raises(ValueError, match="segment is a length"):
        PPO(segment=5)
    with pytest.raises(ValueError, match="at least 1"):
        PPO(minibatches=0)


def test_a_ratio_exists_anywhere():
    assert PPO().unsupported(EnvSpec("Pendulum-v1", (3,), None, None, (1,))) is None


def test_examples_in_docstrings():
    failed, tried = doctest.testmod(mirror)
    assert tried
    assert not failed


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 1000, 2**16, 2**16 + 1])
def test_what_is_shuffled_is_all_there(count):
    found = np.asarray(shuffled(jax.random.bits(jax.random.key(count), count)))
    assert found.dtype == np.int32
    np.testing.assert_array_equal(np.sort(found), np.arange(count))
    assert count < 1000 or not np.array_equal(found, np.arange(count))


def test_every_order_is_as_likely():
    """Of five places all 120 orders; of a thousand, where each place goes to on average."""
    bits = jax.random.bits(jax.random.key(0), (24_000, 5))
    orders = np.asarray(jax.jit(jax.vmap(shuffled))(bits))
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 120
    assert stats.chisquare(counts).pvalue > 1e-3
    bits = jax.random.bits(jax.random.key(1), (2000, 1000))
    many = np.asarray(jax.jit(jax.vmap(shuffled))(bits))
    means = (many.mean(axis=0) - 499.5) / np.sqrt((1000**2 - 1) / 12 / 2000)
    assert stats.kstest(means, "norm").pvalue > 1e-3
