import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learned_objectives.handwritten import A2C, Random

RATES = {"policy_rate": 1.5, "value_rate": 0.7, "entropy_weight": 0.3, "discount": 0.9}


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def step_by_hand(params, experience, rate, limit):
    """A2C on tables, one environment and one step at a time: new tables."""
    experience = jax.tree.map(np.asarray, experience)
    logits, value = (np.asarray(params[head]["table"]) for head in ("policy", "value"))
    T, B = experience.reward.shape
    advantage = np.zeros((T, B))
    for b in range(B):
        later = 0.0
        for t in reversed(range(T)):
            here, there = experience.observation[t, b], experience.next_observation[t, b]
            target = experience.reward[t, b]
            if not experience.terminated[t, b]:
                target += rate.discount * value[there, 0]
            if experience.terminated[t, b] or experience.truncated[t, b]:
                later = 0.0
            later = target - value[here, 0] + rate.discount * rate.trace * later
            advantage[t, b] = later
    scaled = (advantage - advantage.mean()) / (advantage.std() + 1e-8)

    policy_slope, value_slope = np.zeros_like(logits), np.zeros_like(value)
    for t in range(T):
        for b in range(B):
            s, a = experience.observation[t, b], experience.action[t, b]
            pi = softmax(logits[s])
            entropy = -np.sum(pi * np.log(pi))
            policy_slope[s] -= scaled[t, b] * (np.eye(len(pi))[a] - pi)
            policy_slope[s] -= rate.entropy_weight * -pi * (np.log(pi) + entropy)
            # The target A + V is the critic's before this step: its error is minus A.
            value_slope[s, 0] += 2 * -advantage[t, b]
    new = {}
    for head, table, slope, speed in (
        ("policy", logits, policy_slope / (T * B), rate.policy_rate),
        ("value", value, value_slope / (T * B), rate.value_rate),
    ):
        size = np.linalg.norm(slope)
        new[head] = table - speed * slope * min(1.0, limit / size)
    return new


@pytest.mark.parametrize("limit", [np.inf, 0.05])
def test_a2c_equals_a_step_by_hand(limit, make_learner, make_experience, make_time):
    objective = A2C()
    with jax.enable_x64(True):
        network, learner = make_learner(objective)
        hyper, experience = objective.hyper(clip=limit, **RATES), make_experience()
        new, report = jax.jit(
            lambda learner: objective.update(
                (), hyper, network, learner, experience, make_time(0, 1), jax.random.key(0)
            )
        )(learner)
    expected = step_by_hand(learner.params, experience, hyper, limit)
    for head in ("policy", "value"):
        np.testing.assert_allclose(new.params[head]["table"], expected[head], rtol=1e-10)
    assert set(report.metrics) == {"entropy", "value_loss", "gradient_norm"}


def test_a2c_has_the_published_numbers():
    assert A2C().hyper()[:6] == (40.0, 4.0, 0.01, 0.5, 0.99, 0.95)


def test_random_never_learns(make_learner, make_experience, make_time):
    objective = Random()
    network, learner = make_learner(objective)
    arguments = (make_experience(), make_time(0, 1), jax.random.key(0))
    new, report = objective.update((), objective.hyper(), network, learner, *arguments)
    assert new is learner
    assert float(report.metrics["entropy"]) > 0
    said = objective.signals((), objective.hyper(), network, learner, *arguments[:2])
    np.testing.assert_array_equal(said["pi_hat"], jnp.zeros((7, 3)))
