import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax

from learned_objectives.returns import advantage_over_return, generalized_advantage, normalise

GAMMA, LAMBDA = 0.9, 0.8


def by_hand(reward, value, next_value, terminated, truncated):
    """One environment, one step at a time, last first."""
    advantage = np.zeros_like(reward)
    later = 0.0
    for t in reversed(range(len(reward))):
        bootstrap = 0.0 if terminated[t] else GAMMA * next_value[t]
        if terminated[t] or truncated[t]:
            later = 0.0
        later = reward[t] + bootstrap - value[t] + GAMMA * LAMBDA * later
        advantage[t] = later
    return advantage


def drawn(steps, seed=0, truncations=True):
    """A trace of four environments; values of next states differ from the next row's at endings."""
    random = np.random.default_rng(seed)
    reward, value, other = random.normal(size=(3, steps, 4))
    terminated = random.random((steps, 4)) < 0.25
    truncated = (random.random((steps, 4)) < 0.25) & ~terminated & truncations
    next_value = np.concatenate([value[1:], other[:1]])
    next_value = np.where(terminated | truncated, other, next_value)
    return reward, value, next_value, terminated, truncated


def ours(trace):
    return generalized_advantage(*map(jnp.asarray, trace), GAMMA, LAMBDA)


def test_numbers_worked_by_hand():
    # gamma = lambda = 1/2. delta = 1 + .5 * 4 - 2 = 1, then 3 + 0 - 4 = -1 (terminated), then
    # 2 + .5 * 6 - 1 = 4 (cut, value of the last state kept), then 0 + .5 * 2 - 1 = 0.
    trace = [
        jnp.asarray(x)
        for x in (
            [1.0, 3.0, 2.0, 0.0],
            [2.0, 4.0, 1.0, 1.0],
            [4.0, 9.0, 6.0, 2.0],
            [False, True, False, False],
            [False, False, True, False],
        )
    ]
    np.testing.assert_allclose(generalized_advantage(*trace, 0.5, 0.5), [0.75, -1.0, 4.0, 0.0])


def test_a_plain_loop_with_terminations_and_truncations():
    with jax.enable_x64(True):
        trace = drawn(12)
        found = ours(trace)
        assert found.dtype == jnp.float64
    for b in range(4):
        np.testing.assert_allclose(found[:, b], by_hand(*(x[:, b] for x in trace)), rtol=1e-12)


@pytest.mark.parametrize("truncations", [False, True])
def test_rlax_agrees(truncations):
    """rlax reads the next row's value, so it gets what lies between two truncations as a trace."""
    reward, value, next_value, terminated, truncated = drawn(24, truncations=truncations)
    assert truncated[:-1].any() == truncations
    found = ours((reward, value, next_value, terminated, truncated))
    for b in range(4):
        ends = [*(np.flatnonzero(truncated[:, b]) + 1), 24]
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            part = slice(start, end)
            if start == end:  # the last step is cut
                continue
            expected = rlax.truncated_generalized_advantage_estimation(
                jnp.asarray(reward[part, b]),
                jnp.asarray(GAMMA * ~terminated[part, b]),
                LAMBDA,
                jnp.asarray(np.append(value[part, b], next_value[end - 1, b])),
            )
            np.testing.assert_allclose(found[part, b], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ending", ["terminated", "truncated"])
def test_a_concatenated_trace_equals_its_two_parts(ending):
    first, second = drawn(5, seed=1), drawn(5, seed=2)
    first[3][-1] = ending == "terminated"
    first[4][-1] = ending == "truncated"
    whole = [np.concatenate(pair) for pair in zip(first, second, strict=True)]
    parts = np.concatenate([ours(first), ours(second)])
    np.testing.assert_allclose(ours(whole), parts, rtol=1e-5, atol=1e-6)


def test_lambda_returns_obey_their_recursion():
    """``v_t = r_t + gamma ((1 - lambda) V(s_{t+1}) + lambda v_{t+1})`` but at endings."""
    with jax.enable_x64(True):
        trace = drawn(12, seed=4)
        target = np.asarray(ours(trace) + trace[1])
    reward, _, next_value, terminated, truncated = trace
    for t, b in np.ndindex(target.shape):
        last = t == 11 or truncated[t, b]
        following = next_value[t, b] if last else target[t + 1, b]
        mixed = (1 - LAMBDA) * next_value[t, b] + LAMBDA * following
        expected = reward[t, b] + (0 if terminated[t, b] else GAMMA * mixed)
        np.testing.assert_allclose(target[t, b], expected, rtol=1e-12)


def test_advantage_over_the_return_that_follows():
    # gamma = 1/2. 1 + .5 * 8 - 2, then 3 + 0 - 4 (terminated), then 2 + .5 * 6 - 1 (cut, value of
    # the last state), then 0 + .5 * 2 - 1 (end of the rollout, value of the last state).
    trace = [
        jnp.asarray(x)
        for x in (
            [1.0, 3.0, 2.0, 0.0],
            [2.0, 4.0, 1.0, 1.0],
            [4.0, 9.0, 6.0, 2.0],
            [7.0, 8.0, 5.0, 3.0],
            [False, True, False, False],
            [False, False, True, False],
        )
    ]
    np.testing.assert_allclose(advantage_over_return(*trace, 0.5), [3.0, -1.0, 4.0, 0.0])


def test_normalise():
    found = normalise(jnp.asarray([[1.0, 2.0], [3.0, 6.0]]))
    # mean 3, variance (4 + 1 + 0 + 9) / 4
    np.testing.assert_allclose(found, (np.array([[1, 2], [3, 6]]) - 3) / np.sqrt(3.5), rtol=1e-6)
    np.testing.assert_array_equal(normalise(jnp.full((2, 3), 7.0)), 0)
