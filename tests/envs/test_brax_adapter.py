"""Brax's environments through our interface; most of it on a small one with Brax's own."""

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

import envs
from envs.brax_adapter import from_brax
from envs.registry import REGISTRY, MissingExtra, UnknownName

MJX_CONTACT = "ignore:Accessing `contact` directly from `Data` is deprecated:DeprecationWarning"
BRAX = [entry for entry in REGISTRY if "brax" in entry.target]


class State(struct.PyTreeNode):
    """As Brax has it."""

    pipeline_state: Any
    obs: Any
    reward: Any
    done: Any
    metrics: dict[str, Any] = struct.field(default_factory=dict)
    info: dict[str, Any] = struct.field(default_factory=dict)


class Track:
    """A point that starts anywhere in [0, 1), moves by the action, and is done beyond 3.

    Like some of Brax's it writes into the dictionaries that it is given, and is careless with
    types.
    """

    action_size = 1

    def reset(self, rng):
        at = jax.random.uniform(rng)
        zero = jnp.zeros(())
        return State(at, jnp.stack([at, at]), zero, zero, {"moved": zero}, {"steps": jnp.int32(0)})

    def step(self, state, action):
        at = state.pipeline_state + action[0]
        state.metrics.update(moved=action[0])
        state.info.update(steps=state.info["steps"] + 1)
        done = jnp.where(at > 3, 1.0, 0.0)
        return state.replace(pipeline_state=at, obs=jnp.stack([at, -at]), reward=1.0, done=done)


@pytest.fixture(scope="module")
def track():
    """Cut after 5 steps, with 3 starts."""
    return from_brax(Track(), "track", limit=5, starts=3)


@pytest.fixture(scope="module")
def go(track):
    """``(noise [T], action) -> (first observation, starts, transitions [T])`` with one action."""
    level = track.sample_level(jax.random.key(0))
    observation, state = track.reset(jax.random.key(1), level)

    @jax.jit
    def roll(noise, action):
        def step(state, noise):
            after = track.step(noise, state, jnp.full(1, action), level)
            return after.state, after

        return jax.lax.scan(step, state, noise)[1]

    return lambda noise, action: jax.device_get(
        (observation, state.starts, roll(jnp.asarray(noise), action))
    )


# --- episodes ---------------------------------------------------------------------------------


def test_the_protocol_is_kept(track):
    assert envs.check_env(track, steps=24) == []
    assert track.spec == ("track", (2,), None, None, (1,), 5)
    assert track.bounds is None


def test_a_termination_is_no_truncation_and_its_observation_is_kept(go):
    first, _, steps = go([0.5] * 5, 0.9)
    at = float(first[0])
    length = int(np.floor((3 - at) / 0.9)) + 1
    assert length < 5
    assert steps.terminated[:length].tolist() == [False] * (length - 1) + [True]
    assert not steps.truncated[:length].any()
    end = at + 0.9 * length
    np.testing.assert_allclose(steps.final_observation[length - 1], [end, -end], rtol=1e-6)
    assert float(steps.observation[length - 1, 0]) < 1
    assert int(steps.state.time[length - 1]) == 0
    assert int(steps.state.body.info["steps"][length - 1]) == 0


def test_a_truncation_is_no_termination_and_its_observation_is_kept(go):
    first, _, steps = go([0.5] * 10, -0.5)
    assert not steps.terminated.any()
    assert np.flatnonzero(steps.truncated).tolist() == [4, 9]
    np.testing.assert_allclose(steps.final_observation[4, 0], first[0] - 2.5, rtol=1e-5)
    second = steps.observation[4, 0]
    np.testing.assert_allclose(steps.final_observation[9, 0], second - 2.5, rtol=1e-5)
    going = [0, 1, 2, 3, 5, 6, 7, 8]
    assert (steps.observation[going] == steps.final_observation[going]).all()


def test_an_ending_at_the_limit_is_a_termination_only():
    env = from_brax(Track(), "track", limit=1)
    level = env.sample_level(jax.random.key(0))
    state = env.reset(jax.random.key(0), level)[1]
    state = state.replace(body=state.body.replace(pipeline_state=jnp.asarray(2.9)))
    step = env.step(jnp.asarray(0.5), state, jnp.ones(1), level)
    assert bool(step.terminated) and not bool(step.truncated)


def test_an_episode_that_ends_is_followed_by_any_of_the_starts(go):
    noise = [0.0] * 5 + [0.4] * 5 + [0.999999] * 5
    first, starts, steps = go(noise, -0.1)
    assert len(set(starts.obs[:, 0].tolist())) == 3
    assert float(first[0]) == float(starts.obs[0, 0])
    assert (steps.observation[[4, 9, 14]] == starts.obs).all()


def test_resets_differ(track):
    level = track.sample_level(jax.random.key(0))
    seen = jax.vmap(lambda key: track.reset(key, level)[1].starts.obs[:, 0])(
        jax.random.split(jax.random.key(0), 8)
    )
    assert len(set(seen.ravel().tolist())) == 24


def test_types_after_a_step_are_those_after_a_reset(track):
    level = track.sample_level(jax.random.key(0))
    state = track.reset(jax.random.key(0), level)[1]
    after = jax.eval_shape(lambda: track.step(jnp.asarray(0.5), state, jnp.ones(1), level)).state
    for leaf, new in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert (leaf.shape, leaf.dtype) == (new.shape, new.dtype)
        assert not (leaf.weak_type or new.weak_type)


# --- actions ----------------------------------------------------------------------------------


def test_actions_beyond_the_bounds_count_as_the_bound(go):
    first, _, steps = go([0.5], -7.0)
    np.testing.assert_allclose(steps.final_observation[0, 0], first[0] - 1, rtol=1e-6)


def test_a_repeated_action_adds_rewards_up_until_the_episode_is_done():
    env = from_brax(Track(), "track", limit=10, action_repeat=4)
    assert env.spec.max_steps == 3
    level = env.sample_level(jax.random.key(0))
    state = env.reset(jax.random.key(0), level)[1]
    step = jax.jit(env.step)
    for at, reward, done, end in ((0.5, 4, False, 2.5), (2.2, 2, True, 3.2)):
        now = state.replace(body=state.body.replace(pipeline_state=jnp.asarray(at)))
        after = step(jnp.asarray(0.5), now, jnp.full(1, 0.5), level)
        assert (float(after.reward), bool(after.terminated)) == (reward, done)
        np.testing.assert_allclose(after.final_observation[0], end, rtol=1e-6)


@pytest.mark.parametrize("what", ["limit", "action_repeat", "starts"])
def test_numbers_below_one_are_refused(what):
    with pytest.raises(ValueError, match=f"track: {what} must be at least 1, not 0"):
        from_brax(Track(), "track", **{what: 0})


def test_observations_have_to_be_one_array():
    class Several(Track):
        def reset(self, rng):
            state = super().reset(rng)
            return state.replace(obs={"state": state.obs})

    with pytest.raises(ValueError, match="several: an observation has to be one array"):
        from_brax(Several(), "several")


# --- names ------------------------------------------------------------------------------------


@pytest.fixture
def made(monkeypatch):
    """What is asked of Brax, which makes tracks."""
    asked = []

    def get_environment(kind, **options):
        asked.append((kind, options))
        return Track()

    fake = SimpleNamespace(envs=SimpleNamespace(get_environment=get_environment))
    monkeypatch.setitem(sys.modules, "brax", fake)
    return asked


@pytest.mark.parametrize(
    ("name", "called", "asked"),
    [
        ("brax/ant", "brax/ant/generalized", ("ant", {"backend": "generalized"})),
        ("brax/ant/spring", "brax/ant/spring", ("ant", {"backend": "spring"})),
        ("brax/hopper/mjx", "brax/hopper/mjx", ("hopper", {"backend": "mjx"})),
        ("brax/fast", "brax/fast", ("fast", {})),
    ],
)
def test_a_backend_is_a_part_of_the_name(made, name, called, asked):
    assert envs.make(name).spec.name == called
    assert made == [asked]


def test_options_go_through(made):
    assert envs.make("brax/reacher", action_repeat=4).spec.max_steps == 250


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("brax/ants", "brax/ant"), ("brax/ant/sprin", "brax/ant/spring")],
)
def test_unknown_names_answer_with_near_ones(wrong, right):
    with pytest.raises(UnknownName) as caught:
        envs.make(wrong)
    assert right in caught.value.nearest


@pytest.mark.parametrize("name", ["brax/swimmer", "brax/fast/spring"])
def test_what_does_not_work_has_no_name(name):
    with pytest.raises(UnknownName):
        envs.make(name)


def test_a_missing_brax_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "brax", None)
    with pytest.raises(MissingExtra) as caught:
        envs.make("brax/fast")
    assert str(caught.value) == "brax/fast needs an extra: pip install 'kairos-rl[brax]'"


def test_what_brax_prints_when_loaded_is_not_on_stdout(tmp_path):
    """Machine-readable output is."""
    package = tmp_path / "brax" / "envs"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("print('no warp')")
    (package / "__init__.py").write_text(
        "print('no mujoco_warp')\n"
        "def get_environment(kind, backend):\n"
        "    print('no lookup table')\n"
        "    raise SystemExit(0)\n"
    )
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport envs\nenvs.make('brax/ant')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


# --- Brax itself ------------------------------------------------------------------------------


@pytest.mark.brax
def test_fast_keeps_the_protocol():
    pytest.importorskip("brax")
    env = envs.make("brax/fast")
    assert env.spec == ("brax/fast", (2,), None, None, (1,), 1000)
    assert envs.check_env(env, steps=12) == []


@pytest.mark.slow
@pytest.mark.brax
@pytest.mark.filterwarnings(MJX_CONTACT)
@pytest.mark.parametrize("backend", ["generalized", "positional", "spring", "mjx"])
@pytest.mark.parametrize("name", [entry.name for entry in BRAX if entry.variants])
def test_shapes_of_all_of_brax(name, backend):
    pytest.importorskip("brax")
    env = envs.make(f"{name}/{backend}")
    assert env.spec.name == f"{name}/{backend}"
    assert envs.check_env(env, steps=0) == []


@pytest.mark.slow
@pytest.mark.brax
def test_a_pendulum_in_brax_falls():
    """Random pushes let it fall long before the limit, so episodes terminate."""
    pytest.importorskip("brax")
    env = envs.make("brax/inverted_pendulum/spring")
    level = env.sample_level(jax.random.key(0))
    noise = env.draw(jax.random.key(1), (150, 4))
    actions = jax.random.uniform(jax.random.key(2), (150, 4, 1), minval=-1)

    @jax.jit
    def roll(keys):
        def step(state, drawn):
            after = jax.vmap(env.step, (0, 0, 0, None))(drawn[0], state, drawn[1], level)
            return after.state, after._replace(state=())

        state = jax.vmap(env.reset, (0, None))(keys, level)[1]
        return jax.lax.scan(step, state, (noise, actions))[1]

    steps = roll(jax.random.split(jax.random.key(3), 4))
    assert steps.terminated.any() and not steps.truncated.any()
    assert np.isfinite(steps.observation).all()
    assert (abs(steps.final_observation[steps.terminated][:, 1]) > 0.2).all()
    assert (abs(steps.observation[steps.terminated][:, 1]) <= 0.01).all()
