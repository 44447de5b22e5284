from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from discovery.inner.lifetime import POINTS, Measure, Task, advance, birth, grow, live
from discovery.inner.rollout import episode_return
from learned_objectives.clock import BASE_STEPS
from learned_objectives.handwritten import A2C
from learned_objectives.library import make_rule

OWN = Path(__file__).parents[2] / "data" / "own_objective.py"


def measure(points=1, modes=1):
    return Measure(jnp.int32(points), jnp.int32(modes))


def task(level, horizon):
    return Task(level, jnp.int32(horizon))


KEY = jax.random.key


# --- lives worked by hand: the spy rests after updates 1 and 3 and goes forward after update 2 ---


@pytest.fixture(scope="module")
def spied(make_world, spy):
    """``(task, measure, hyper) -> Outcome`` of a life under the spy, compiled once."""
    world = make_world(spy)

    @jax.jit
    def run(task, key, measure, hyper):
        return live(world, (), hyper, task, key, measure)

    def lived(task, points=1, modes=1, step=1.0):
        return run(task, KEY(0), measure(points, modes), spy.hyper(step=jnp.float32(step)))

    return lived


def test_lives_of_one_two_and_three_updates(spied, spy, make_level):
    level = make_level(length=3, goal=7.0, rest=0.5, limit=10)
    resting, going = 5.0, 7.0
    digits = {1: 1.0, 2: 11.0, 3: 111.0}
    for horizon, score in [(1, resting), (2, going), (3, resting)]:
        outcome = spied(task(level, horizon), modes=2)
        assert float(outcome.final[1]) == score
        assert np.isfinite(outcome.final).all()
        assert bool(outcome.finite)
        # Metrics are means over the life: one digit for every n that was shown.
        np.testing.assert_allclose(outcome.metrics["digits"] * horizon, digits[horizon], rtol=1e-6)
        assert float(outcome.metrics["horizon"]) == horizon
        np.testing.assert_allclose(outcome.metrics["unit"], 2 * 3 / BASE_STEPS, rtol=1e-6)


def test_scores_along_a_life(spied, make_level):
    level = make_level(length=3, goal=7.0, rest=0.5, limit=10)
    # Greedy scores after n updates; a tie of the newborn goes to the first action, rest.
    after = np.array([5.0, 5.0, 7.0, 5.0])
    for horizon, points in [(1, POINTS), (2, POINTS), (3, POINTS), (3, 3)]:
        outcome = spied(task(level, horizon), points, modes=2)
        n = np.array([round(k * horizon / points) for k in range(points + 1)])
        np.testing.assert_array_equal(outcome.returns[1, : points + 1], after[n])
        np.testing.assert_array_equal(outcome.final, outcome.returns[:, points])
        assert np.isnan(outcome.returns[:, points + 1 :]).all()
        for mode in range(2):
            curve = np.asarray(outcome.returns[mode, : points + 1])
            area = np.trapezoid(curve, n) / horizon
            np.testing.assert_allclose(outcome.area[mode], area, rtol=1e-6)


def test_greedy_scores_only_if_asked_for(spied, make_level):
    outcome = spied(task(make_level(), 1))
    assert np.isfinite(outcome.final[0])
    assert np.isnan(outcome.final[1])
    np.testing.assert_array_equal(outcome.final[0], spied(task(make_level(), 1), modes=2).final[0])


def test_an_agent_that_is_not_finite_is_flagged(spied, make_level):
    assert bool(spied(task(make_level(), 2)).finite)
    # NaN logits still act and give a finite return.
    broken = spied(task(make_level(), 2), step=np.nan)
    assert np.isfinite(broken.final[0])
    assert not bool(broken.finite)
    # A finite agent whose return is not; an infinite logit.
    assert not bool(spied(task(make_level(rest=np.inf), 1)).finite)
    assert not bool(spied(task(make_level(), 1), step=np.inf).finite)


def test_everything_about_a_life_is_data(spied, spy, make_level):
    spied(task(make_level(), 2))
    traced = len(spy.traces)
    spied(task(make_level(goal=2.0, limit=20), 50), points=POINTS, modes=2, step=0.5)
    assert len(spy.traces) == traced


def test_time_limits_are_kept_apart_or_shown_as_terminations(make_world, spy, make_level):
    # Two agents that rest are cut at every third of nine steps.
    level = task(make_level(length=8, limit=3), 1)
    resting = {"policy": {"table": jnp.zeros((9, 2)).at[:, 0].set(50.0)}}
    for bootstrap, shown in [(True, (6, 0)), (False, (0, 6))]:
        world = make_world(spy, steps=9, bootstrap=bootstrap)

        def update(key, world=world):
            life = birth(world, (), spy.hyper(), level, key)
            life = life._replace(learner=life.learner._replace(params=resting))
            return grow(world, (), spy.hyper(), level, life)[1:]

        experience, report = jax.jit(update)(KEY(0))
        assert (report.metrics["truncated"], report.metrics["terminated"]) == shown
        assert (experience.truncated.sum(), experience.terminated.sum()) == shown
        np.testing.assert_array_equal(experience.next_observation, 0)


# --- growing, freezing -------------------------------------------------------------------------


def test_a_life_past_its_horizon_stays_frozen(make_world, spy, make_level):
    world, hyper, level = make_world(spy), spy.hyper(), make_level()
    horizons = jnp.asarray([1, 3], jnp.int32)

    @jax.jit
    def lives(keys):
        newborn = jax.vmap(lambda N, key: birth(world, (), hyper, Task(level, N), key))
        older = jax.vmap(lambda N, life: advance(world, (), hyper, Task(level, N), life))

        def year(lives, _):
            lives, experience, report = older(horizons, lives)
            return lives, (lives, experience, report)

        return jax.lax.scan(year, newborn(horizons, keys), length=4)[1]

    grown, experience, report = lives(jax.random.split(KEY(0), 2))
    np.testing.assert_array_equal(grown.n, [[1, 1], [1, 2], [1, 3], [1, 3]])
    logit = grown.learner.params["policy"]["table"][..., 0, 1]
    np.testing.assert_array_equal(logit, [[-1, -1], [-1, 1], [-1, 0], [-1, 0]])

    def at(year, lane):
        life = grown._replace(key=jax.random.key_data(grown.key))
        return jax.tree.map(lambda leaf: leaf[year, lane], life)

    for year, lane in [(1, 0), (2, 0), (3, 0), (3, 1)]:
        last = at(0, 0) if lane == 0 else at(2, 1)
        jax.tree.map(np.testing.assert_array_equal, at(year, lane), last)
    assert experience.reward.shape == (4, 2, 3, 2)
    assert report.metrics["digits"].shape == (4, 2)


def test_every_update_draws_anew(make_world, spy, make_level):
    """An agent that does not change acts otherwise in each rollout, and alike under one key."""
    world, hyper, one = make_world(spy), spy.hyper(step=0.0), task(make_level(), 4)

    @jax.jit
    def two(key):
        life = birth(world, (), hyper, one, key)
        life, first, report = grow(world, (), hyper, one, life)
        _, second, later = grow(world, (), hyper, one, life)
        return first.action, second.action, report.metrics["draw"], later.metrics["draw"]

    first, second, draw, later = two(KEY(0))
    assert (first != second).any()
    assert draw != later
    jax.tree.map(np.testing.assert_array_equal, two(KEY(0)), (first, second, draw, later))
    assert (two(KEY(1))[0] != first).any()


def test_a_life_equals_a_plain_loop(learned, make_level):
    world, theta, hyper = learned.world, learned.theta, learned.hyper
    one = task(make_level(goal=2.0), 4)
    outcome = learned.live(theta, hyper, one, KEY(3), measure(2, 2))

    grown = jax.jit(lambda life: grow(world, theta, hyper, one, life))
    score = jax.jit(
        lambda params, key, greedy: episode_return(
            world.env, world.network, params, one.level, key, world.episodes, greedy
        )
    )
    birth_key, score_key = jax.random.split(KEY(3))
    life = jax.jit(lambda key: birth(world, theta, hyper, one, key))(birth_key)
    returns, entropy = np.full((2, 3), np.nan), []
    for n in range(5):
        if n in (0, 2, 4):
            key = jax.random.fold_in(score_key, 2 - n // 2)
            for greedy in (False, True):
                returns[int(greedy), n // 2] = score(life.learner.params, key, jnp.asarray(greedy))
        if n < 4:
            life, _, report = grown(life)
            entropy.append(float(report.metrics["entropy"]))
    assert int(life.n) == 4
    np.testing.assert_allclose(outcome.returns[:, :3], returns, rtol=1e-6)
    np.testing.assert_allclose(outcome.metrics["entropy"], np.mean(entropy), rtol=1e-5)
    # The agent did learn something: this is no comparison of newborns.
    assert len(set(entropy)) == 4


def test_the_end_of_life_does_not_depend_on_how_often_it_was_scored(learned, make_level):
    one = task(make_level(length=5, goal=2.0, rest=0.3), 3)
    outcomes = {
        points: learned.live(learned.theta, learned.hyper, one, KEY(0), measure(points, 2))
        for points in (1, 3, POINTS)
    }
    once = outcomes[1]
    assert np.isnan(once.area).all()
    assert np.isnan(once.returns[:, 0]).all()
    for often in outcomes.values():
        np.testing.assert_array_equal(often.final, once.final)
    # Other episodes, other scores: the newborn agent of one life in two measures.
    assert outcomes[3].returns[0, 0] != outcomes[POINTS].returns[0, 0]


def test_a_sweep_traces_once(learned, make_level):
    """Horizons, rates, levels, the clock's gate, measures: none of them is another program."""
    theta, hyper = learned.theta, learned.hyper
    learned.live(theta, hyper, task(make_level(), 1), KEY(0), measure())
    traced = len(learned.traces)
    for horizon in (2, 7, 100):
        learned.live(theta, hyper, task(make_level(), horizon), KEY(0), measure())
    for other in (
        hyper._replace(policy_rate=jnp.float32(0.1)),
        hyper._replace(clock_gate=jnp.float32(0)),
    ):
        learned.live(theta, other, task(make_level(length=5), 2), KEY(1), measure(POINTS, 2))
    assert len(learned.traces) == traced


# --- learning ----------------------------------------------------------------------------------


def test_a2c_reaches_most_of_the_optimal_return(make_world):
    """Eight drawn grid worlds: the median agent gets most of what there is."""
    env, objective = envs.make("small"), A2C()
    world = make_world(objective, env=env, environments=16, steps=20, episodes=64)

    @jax.jit
    def agents(key):
        levels = jax.vmap(env.sample_level)(jax.random.split(key, 8))

        def life(level, key):
            return live(world, (), objective.hyper(), task(level, 60), key, measure(POINTS))

        outcome = jax.vmap(life)(levels, jax.random.split(key, 8))
        low, high = jax.vmap(env.bounds)(levels)
        return (outcome.returns[:, 0] - low[:, None]) / (high - low)[:, None]

    normalised = np.median(agents(KEY(0)), axis=0)
    assert abs(normalised[0]) < 0.2
    assert normalised[-1] > 0.7


def test_an_objective_of_ones_own(make_world, make_level):
    """A file of some thirty lines is all it takes; its theta is the log of a learning rate."""
    objective = make_rule(f"{OWN}:make")
    world = make_world(objective, environments=16, steps=10, episodes=64)
    level = task(make_level(length=2, goal=1.0, rest=-0.1, limit=10), 40)

    @jax.jit
    def final(theta):
        return live(world, theta, objective.hyper(), level, KEY(0), measure()).final[0]

    still, learning = final(jnp.float32(-20.0)), final(jnp.float32(2.0))
    assert float(still) < 0.9
    assert float(learning) > 0.95
