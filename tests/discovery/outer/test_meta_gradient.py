"""Meta-gradients: against finite differences, by hand on a chain, and as a search."""

import functools
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from inspect import unwrap
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, TypeCheckError

import envs
from discovery.config import (
    AgentConfig,
    Config,
    ConfigError,
    GradientConfig,
    HorizonConfig,
    LifeConfig,
    ObjectiveConfig,
    WindowConfig,
)
from discovery.inner.agent import make_network
from discovery.inner.build import make_hyper, make_objective, make_world
from discovery.inner.lifetime import Life, Task, World, collect, learn, next_keys
from discovery.outer import meta_gradient as module
from discovery.outer.evolution import fresh_adam, strongly_typed
from discovery.outer.meta_gradient import (
    VALUE,
    Ascent,
    Critic,
    Weights,
    Window,
    assess,
    climb,
    credit,
    told_by,
    train_critic,
    weights_of,
    window,
)
from discovery.outer.persistent import Agents, Newborn, draw_births
from discovery.outer.search import Search, SearchState, beginning, make_search
from learned_objectives import descent
from learned_objectives.base import Experience, Key, Learner, Network, Theta, Time
from learned_objectives.lpg import LPG

Listen = Callable[[], AbstractContextManager[list[str]]]
K, T, B = 5, 8, 4
INF = float("inf")
LAST = 2**31
"""Folded into a life's key for the rollout that trains no agent."""


@pytest.fixture(scope="module", autouse=True)
def fast_compiles() -> Generator[None]:
    """Programs here run for a moment and compile for seconds."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def numbers(metrics: dict[str, Array]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


def plain(tree: Any) -> Any:
    """In NumPy, keys as their data."""

    def one(leaf: Any) -> np.ndarray:
        typed = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if typed else leaf)

    return jax.tree.map(one, tree)


def content(tree: Any) -> bytes:
    return b"".join(leaf.tobytes() for leaf in jax.tree.leaves(plain(tree)))


def at(tree: Any, i: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[i], tree)


def zeros(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(np.zeros(leaf.shape, leaf.dtype)), tree)


# --- one agent, in double precision -----------------------------------------------------------


class Kit(NamedTuple):
    """Who lives under which rule."""

    world: World
    critic: Network
    kind: descent.Kind
    theta: Theta
    hyper: Any
    weights: Weights


WEIGHTS = GradientConfig(
    entropy_weight=0.3,
    prediction_entropy_weight=0.2,
    pi_hat_weight=0.1,
    y_hat_weight=0.4,
    entropy_decay=True,
)
RATES = {"sgd": (20.0, 4.0), "adam": (0.3, 0.2)}


def double(tree: Any) -> Any:
    def cast(leaf: Any) -> Any:
        leaf = jnp.asarray(leaf)
        if jnp.issubdtype(leaf.dtype, jnp.signedinteger):
            return leaf.astype(jnp.int32)
        return leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return strongly_typed(jax.tree.map(cast, tree))


@pytest.fixture
def x64() -> Generator[None]:
    with jax.enable_x64(True):
        yield


@functools.cache
def kit(kind: descent.Kind) -> Kit:
    policy, prediction = RATES[kind]
    agent = AgentConfig(optimizer=kind, policy_rate=policy, prediction_rate=prediction, clip=INF)
    objective: Any = make_objective(ObjectiveConfig(width=5, predictions=2, embedding=2), agent)
    world = make_world(objective, "chain", agent, LifeConfig(environments=B, rollout=T))
    random = np.random.default_rng(2)
    shapes = jax.eval_shape(objective.init, jax.random.key(0))
    theta, hyper, weights = double(
        (
            jax.tree.map(lambda leaf: 0.5 * random.normal(size=leaf.shape), shapes),
            make_hyper(objective, agent),
            weights_of(WEIGHTS, agent, False, False),
        )
    )
    critic = make_network(agent, VALUE, world.env.spec)
    return Kit(world, critic, kind, theta, hyper, weights)


def given(kind: descent.Kind, **changed: Any) -> tuple[Theta, Any, Weights]:
    """What a window reads besides the agent; weak types would be other programs."""
    k = kit(kind)._replace(**changed)
    return strongly_typed((k.theta, k.hyper, k.weights))


def newborn(horizon: int, goal: float = 1.0, rest: float = 0.3) -> Newborn:
    """On a chain of four steps."""
    level = envs.make("chain").gym.default_params.replace(length=4, goal=goal, rest=rest)
    task = double(Task(level, jnp.asarray(horizon, jnp.int32)))
    return Newborn(task, task.horizon, jax.random.key(3))


@functools.cache
def born(kind: descent.Kind) -> tuple[Life, Critic]:
    k = kit(kind)
    task = newborn(1).task
    begin = functools.partial(module.newborn_agent, k.world, k.critic, kind)
    return jax.jit(begin)(k.theta, k.hyper, task, newborn(1).key)


def someone(kind: descent.Kind, n: int, horizon: int, scale: float = 1.0, **level: float) -> Agents:
    """An agent of n updates; for ``scale`` above 0, one that knows something."""
    random = np.random.default_rng(1)
    life, critic = born(kind)
    params, value = jax.tree.map(
        lambda leaf: jnp.asarray(scale * random.normal(size=leaf.shape)),
        (life.learner.params, critic.params),
    )
    life = life._replace(learner=life.learner._replace(params=params), n=jnp.asarray(n, jnp.int32))
    task = newborn(horizon, **level).task
    alive, slot = jnp.asarray(False), jnp.asarray(0, jnp.int32)
    critic = critic._replace(params=value)
    return strongly_typed(Agents(life, critic, task, task.horizon, alive, slot))


@functools.cache
def through(kind: descent.Kind, updates: int, each: bool, remat: bool) -> Any:
    """``(theta, hyper, weights, agent, newborn) -> ((J, (agent, vote, numbers)), gradient)``."""
    k = kit(kind)
    live = functools.partial(window, k.world, k.critic, kind, updates, each, remat)
    return jax.jit(jax.value_and_grad(live, has_aux=True))


def differentiate(
    kind: descent.Kind,
    updates: int,
    agent: Agents,
    new: Newborn | None = None,
    each: bool = False,
    remat: bool = True,
    **changed: Any,
) -> Any:
    """``((J, (agent, vote, numbers)), gradient)`` of the window itself."""
    return through(kind, updates, each, remat)(*given(kind, **changed), agent, new or newborn(7))


# --- the same update by update ----------------------------------------------------------------


class Told(NamedTuple):
    """What a plain loop over the updates of a window tells."""

    objective: float
    life: Life
    critic: Critic
    record: Experience
    """Rollouts, the last one included, ``[K + 1, ...]``; ``memory`` holds what else is constant."""
    norms: list[float]
    """Of the gradients of the policy, before the clip."""


@functools.cache
def one_update(kind: descent.Kind) -> Any:
    world, critic, *_ = kit(kind)

    @jax.jit
    def update(theta: Theta, hyper: Any, weights: Weights, task: Task, life: Life, state: Critic):
        act_key, update_key = next_keys(life)
        after, experience = collect(world, task, life, act_key)
        advantage, target = assess(critic, state.params, experience, weights)
        learner, report = learn(world, theta, hyper, task, life, experience, update_key)
        trained, _ = train_critic(kind, critic, state, experience, target, weights)
        kept = {"params": life.learner.params, "advantage": advantage, "target": target}
        after = after._replace(learner=learner, n=life.n + 1)
        return after, trained, experience._replace(memory=kept), report

    return update


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def entropy(head: Any, experience: Experience) -> float:
    log_p = log_softmax(np.asarray(head["table"])[np.asarray(experience.observation)])
    return -np.sum(np.exp(log_p) * log_p, axis=-1).mean()


def credit_by_hand(policy: Any, experience: Experience) -> float:
    log_pi = log_softmax(np.asarray(policy["table"])[np.asarray(experience.observation)])
    action = np.asarray(experience.action)
    advantage = np.asarray(experience.memory["advantage"])
    normal = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    assert normal.shape == action.shape == (T, B)
    return sum(log_pi[t, b, action[t, b]] * normal[t, b] for t, b in np.ndindex(T, B)) / (T * B)


def live(kind: descent.Kind, updates: int, agent: Agents, each: bool = False, **changed) -> Told:
    """K updates and one more rollout, tables in NumPy."""
    theta, hyper, weights = given(kind, **changed)
    life, state, task = agent.life, agent.critic, agent.task
    horizon, objective, norms = int(task.horizon), 0.0, []
    records, credits = [], []
    lived = min(updates, horizon - int(life.n))
    for _ in range(lived):
        share = 1 - int(life.n) / horizon
        life, state, experience, report = one_update(kind)(theta, hyper, weights, task, life, state)
        params, penalties = life.learner.params, report.penalties
        decay = share if weights.entropy_decay else 1.0
        objective += weights.entropy * decay * entropy(params["policy"], experience) / lived
        objective += weights.prediction_entropy * entropy(params["prediction"], experience) / lived
        objective -= weights.pi_hat * penalties["pi_hat"] / lived
        objective -= weights.y_hat * penalties["y_hat"] / lived
        norms.append(float(report.metrics["gradient_norm"]))
        records.append(experience)
        credits.append(credit_by_hand(experience.memory["params"]["policy"], experience))

    last = life._replace(key=jax.random.fold_in(life.key, LAST))
    after, state, experience, _ = one_update(kind)(theta, hyper, weights, task, last, state)
    credits.append(credit_by_hand(life.learner.params["policy"], experience))
    # The first rollout is of the agent before any of these updates.
    objective += np.mean(credits[1:]) if each else credits[-1]
    life = life._replace(observation=after.observation, state=after.state)
    # As many as of the longest window: programs are then the same.
    records += [experience] * (K + 1 - lived)
    record = jax.tree.map(lambda *leaves: jnp.stack(leaves), *records)
    return Told(float(objective), life, state, record, norms)


@dataclass(frozen=True)
class Recorded(LPG):
    """What U reads of an agent was recorded with the rollout."""

    def signals(
        self,
        theta: Theta,
        hyper: Any,
        network: Network,
        learner: Learner,
        experience: Experience,
        time: Time,
    ) -> dict[str, Array]:
        seen = learner._replace(params=experience.memory["params"])
        return super().signals(theta, hyper, network, seen, experience, time)


@functools.cache
def replayed(kind: descent.Kind, each: bool) -> Any:
    """``(thetas [D, P], hyper, weights, agent, record) -> J [D]`` of five updates.

    All that no gradient passes through is as recorded, whatever theta.
    """
    k = kit(kind)
    world = replace(
        k.world, objective=Recorded(width=5, predictions=2, embedding=2, optimizer=kind)
    )
    unravel = ravel_pytree(k.theta)[1]

    @jax.jit
    def values(thetas: Array, hyper: Any, weights: Weights, agent: Agents, record: Experience):
        def told(world: World, task: Task, life: Life, key: Key) -> tuple[Life, Experience]:
            return life, at(record, life.n - agent.life.n)

        def assessed(critic: Network, params: Any, experience: Experience, weights: Weights):
            return experience.memory["advantage"], experience.memory["target"]

        def value(theta: Array) -> Array:
            return window(
                world,
                k.critic,
                kind,
                K,
                each,
                False,
                unravel(theta),
                hyper,
                weights,
                agent,
                newborn(7),
            )[0]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "collect", told)
            patch.setattr(module, "assess", assessed)
            patch.setattr(module, "newborn_agent", lambda *_: (agent.life, agent.critic))
            return jax.vmap(value)(thetas)

    return values


def slopes(
    kind: descent.Kind, agent: Agents, record: Experience, each: bool, **changed: Any
) -> tuple[float, np.ndarray, np.ndarray]:
    """J, directions in theta and the central differences of J along them."""
    theta, hyper, weights = given(kind, **changed)
    flat = np.asarray(ravel_pytree(theta)[0])
    random = np.random.default_rng(0)
    several = random.normal(size=(6, flat.size))
    single = np.eye(flat.size)[random.choice(flat.size, 10, replace=False)]
    directions = np.concatenate([several / np.linalg.norm(several, axis=1, keepdims=True), single])
    epsilon = 1e-5
    moves = np.concatenate([np.zeros((1, flat.size)), epsilon * directions, -epsilon * directions])
    j = np.asarray(replayed(kind, each)(flat + moves, hyper, weights, agent, record))
    up, down = np.split(j[1:], 2)
    return j[0], directions, (up - down) / (2 * epsilon)


def close(first: Any, second: Any, tolerance: float = 1e-10) -> None:
    same = functools.partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance)
    jax.tree.map(same, plain(first), plain(second))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("kind", "updates", "each", "clip", "n", "horizon"),
    [
        ("sgd", 1, False, INF, 11, 12),
        ("sgd", 1, False, 0.001, 11, 12),
        ("sgd", K, False, INF, 3, 12),
        ("sgd", K, False, 0.01, 3, 12),
        ("sgd", K, False, INF, 4, 7),
        ("sgd", K, True, INF, 0, 4),
        ("adam", K, False, INF, 3, 12),
        ("adam", K, False, 0.01, 0, 3),
    ],
)
def test_the_gradient_is_that_of_finite_differences(
    kind: descent.Kind, updates: int, each: bool, clip: float, n: int, horizon: int
) -> None:
    """Also where the life ends inside the window; and all else is what a plain loop says."""
    agent = someone(kind, n, horizon)
    hyper = kit(kind).hyper._replace(clip=jnp.asarray(clip))
    by_hand = live(kind, updates, agent, each, hyper=hyper)
    assert np.any(np.asarray(by_hand.norms) > clip) == np.isfinite(clip), "it is active, or not"
    assert by_hand.record.observation.max() < 5, "rows that are never visited"

    (j, (after, vote, told)), gradient = differentiate(kind, updates, agent, each=each, hyper=hyper)
    assert j == pytest.approx(by_hand.objective, rel=1e-6), "n/N is in single precision"
    assert told["objective"] == j
    assert vote == 1
    close((after.life, after.critic), (by_hand.life, by_hand.critic))
    lived = min(updates, horizon - n)
    assert after.life.n == n + lived
    assert told["updates"] == lived
    assert after.ended == told["ended"] == (n + lived == horizon)

    again, directions, expected = slopes(kind, agent, by_hand.record, each, hyper=hyper)
    assert again == pytest.approx(float(j), rel=1e-10)
    found = directions @ np.asarray(ravel_pytree(gradient)[0])
    assert np.linalg.norm(ravel_pytree(gradient)[0]) > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.usefixtures("x64")
def test_a_life_that_ends_is_that_of_a_window_of_what_is_left() -> None:
    """One update before its end, a window of five is one of one."""
    agent = someone("sgd", 11, 12)
    (j, (after, _, told)), gradient = differentiate("sgd", K, agent)
    (k, (alone, _, short)), expected = differentiate("sgd", 1, agent)
    close((j, after, told, gradient), (k, alone, short, expected))
    assert after.life.n == 12
    assert after.ended


@pytest.mark.usefixtures("x64")
def test_recomputing_changes_nothing() -> None:
    agent = someone("sgd", 3, 12)
    close(differentiate("sgd", K, agent), differentiate("sgd", K, agent, remat=False))


@pytest.mark.usefixtures("x64")
def test_whole_lives_credit_the_agents_of_all_their_updates() -> None:
    """Of updates 1 to N, not the one of birth; see also the differences above."""
    agent = someone("sgd", 0, 4)
    (_, (_, _, every)), _ = differentiate("sgd", K, agent, each=True)
    (_, (_, _, last)), _ = differentiate("sgd", K, agent)
    assert every["credit"] != pytest.approx(float(last["credit"]), rel=1e-2)
    named = every.keys() - {"credit", "objective"}
    close({name: every[name] for name in named}, {name: last[name] for name in named})


@pytest.mark.usefixtures("x64")
def test_an_agent_whose_life_has_ended_begins_anew() -> None:
    old = someone("sgd", 12, 12, rest=-1.0)._replace(ended=jnp.asarray(True))
    new = newborn(7)
    (j, (after, _, told)), gradient = differentiate("sgd", K, old)
    begun, critic = born("sgd")
    fresh = Agents(begun, critic, new.task, new.until, jnp.asarray(False), old.slot)
    (again, (same, _, _)), expected = differentiate("sgd", K, fresh)
    close((j, after, gradient), (again, same, expected))
    assert after.life.n == told["updates"] == K
    assert after.task.horizon == 7
    cut = new._replace(until=jnp.asarray(2, jnp.int32))
    (_, (after, _, told)), _ = differentiate("sgd", K, old, new=cut)
    assert (after.life.n, after.until, after.task.horizon) == (2, 2, 7), "cut, and the clock honest"
    assert (bool(after.ended), float(told["ended"])) == (True, 0.0)


# --- parts of the objective -------------------------------------------------------------------

NAMES = {
    "entropy": ("entropy", 1),
    "prediction_entropy": ("prediction_entropy", 1),
    "pi_hat": ("pi_hat", -1),
    "y_hat": ("y_hat", -1),
}
"""Weight -> what is told of it, and where it pulls this."""


def only(**chosen: float) -> Weights:
    """No coefficient but these, numbers of the advantage apart."""
    weights = {**dict.fromkeys(NAMES, 0.0), "entropy_decay": 0.0, **chosen}
    return double(kit("sgd").weights._replace(**weights))


def nothing_to_gain(n: int = 3) -> Agents:
    """No reward, and a critic that expects none: no credit."""
    agent = someone("sgd", n, 12, goal=0.0, rest=0.0)
    return agent._replace(critic=zeros(agent.critic))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("weight", NAMES)
def test_each_regulariser_moves_what_it_names(weight: str) -> None:
    agent, (name, sign) = nothing_to_gain(), NAMES[weight]
    theta = kit("sgd").theta
    (j, (_, _, told)), gradient = differentiate("sgd", K, agent, weights=only(**{weight: 0.7}))
    assert told["credit"] == 0
    assert j == pytest.approx(0.7 * sign * float(told[name]))
    size = np.linalg.norm(ravel_pytree(gradient)[0])
    assert size > 1e-6
    up = jax.tree.map(lambda w, g: w + 1e-4 * g / size, *plain((theta, gradient)))
    (_, (_, _, after)), _ = differentiate("sgd", K, agent, theta=up, weights=only())
    assert sign * (after[name] - told[name]) > 1e-5 * size


@pytest.mark.usefixtures("x64")
def test_without_weights_and_credit_nothing_moves() -> None:
    (j, (_, vote, _)), gradient = differentiate("sgd", K, nothing_to_gain(), weights=only())
    assert (j, vote) == (0, 1)
    assert not np.any(ravel_pytree(gradient)[0])


@pytest.mark.usefixtures("x64")
def test_entropy_counts_less_late_in_a_life_if_told_so() -> None:
    for n in (0, 7):
        agent, steady = nothing_to_gain(n), only(entropy=1.0)
        falling = only(entropy=1.0, entropy_decay=1.0)
        (full, (_, _, told)), _ = differentiate("sgd", K, agent, weights=steady)
        (less, _), _ = differentiate("sgd", K, agent, weights=falling)
        assert full == pytest.approx(float(told["entropy"]))
        # Shares 1 - n/N of the five updates.
        assert 1 - (n + 4) / 12 < less / full < 1 - n / 12


@pytest.mark.parametrize("kind", ["sgd", "adam"])
@pytest.mark.parametrize("precision", [jnp.float32, jnp.float64])
def test_where_nothing_has_a_slope_there_is_no_nan(kind: descent.Kind, precision: Any) -> None:
    """Theta zero, tables zero, no reward: every gradient of the agent is exactly zero."""

    def cast(leaf: Array) -> Any:
        real = jnp.issubdtype(leaf.dtype, jnp.floating)
        return np.asarray(leaf).astype(precision) if real else leaf

    with jax.enable_x64(True):
        theta = zeros(kit(kind).theta)
        agent = someone(kind, 0, 7, 0.0, goal=0.0, rest=0.0)
        arguments = jax.tree.map(cast, (*given(kind, theta=theta), agent, newborn(7)))
    with jax.enable_x64(precision == jnp.float64):
        (j, (after, vote, told)), gradient = through(kind, K, False, True)(*arguments)
        learner, critic = after.life.learner.params, after.critic.params
        j, vote, told, gradient, learner, critic = jax.device_get(
            (j, vote, told, gradient, learner, critic)
        )
    assert vote == 1
    assert told["nonfinite"] == told["credit"] == 0
    assert j.dtype == precision
    for leaf in jax.tree.leaves((j, gradient, learner, critic)):
        assert np.isfinite(leaf).all()
    assert not np.any(learner["policy"]["table"])


# --- advantage, credit and critic by hand -----------------------------------------------------


def experience_of(observation: Any, following: Any, action: Any, reward: Any, **ends: Any):
    """Columns are environments."""
    shape = np.shape(observation)
    return Experience(
        observation=jnp.asarray(observation),
        action=jnp.asarray(action),
        reward=jnp.asarray(reward, jnp.float32),
        terminated=jnp.asarray(ends.get("terminated", np.zeros(shape, bool))),
        truncated=jnp.asarray(ends.get("truncated", np.zeros(shape, bool))),
        next_observation=jnp.asarray(following),
        behaviour={},
    )


def test_advantages_and_targets_by_hand() -> None:
    """Discount and trace 1/2; a goal of 1 reached at the third step, and a step limit at the
    second."""
    critic = make_network(AgentConfig(), VALUE, envs.make("chain").spec)
    values = np.zeros((9, 1), np.float32)
    values[[2, 3, 4]] = [[0.5], [9.0], [2.0]]
    params = {"value": {"table": jnp.asarray(values)}}
    experience = experience_of(
        observation=[[0, 0], [1, 1], [2, 0]],
        following=[[1, 1], [2, 4], [3, 1]],
        action=[[1, 1], [1, 1], [1, 1]],
        reward=[[0, 0], [0, 0], [1, 4]],
        terminated=np.array([[0, 0], [0, 0], [1, 0]], bool),
        truncated=np.array([[0, 0], [0, 1], [0, 0]], bool),
    )
    weights = weights_of(GradientConfig(discount=0.5, trace=0.5), AgentConfig(), False, False)
    advantage, target = assess(critic, params, experience, weights)
    # First: deltas 0, V(2)/2 = 1/4, 1 - V(2) = 1/2, and no value behind the goal.
    # Second: deltas 0, V(4)/2 = 1, 4; nothing of the 4 passes the step limit.
    np.testing.assert_allclose(
        advantage, [[0 + 0.375 / 4, 0 + 1 / 4], [0.25 + 0.5 / 4, 1], [0.5, 4]]
    )
    np.testing.assert_allclose(target - advantage, [[0, 0], [0, 0], [0.5, 0]])


def chain_of_four() -> tuple[Network, Experience]:
    """One environment: rest, forward, forward, rest in four states."""
    heads = LPG(predictions=2).heads
    network = make_network(AgentConfig(), heads, envs.make("chain").spec)
    steps = [[0], [1], [2], [3]]
    return network, experience_of(steps, steps, [[0], [1], [1], [0]], np.zeros((4, 1)))


def test_credit_lands_on_the_step_that_earned_it() -> None:
    network, experience = chain_of_four()
    params = network.init(jax.random.key(0))
    table = np.zeros((9, 2), np.float32)
    table[1] = [0, np.log(3)]  # forward with probability 3/4
    params = {**params, "policy": {"table": jnp.asarray(table)}}
    # Mean 2 and deviation 5: normalised, 1, -1, 1, -1.
    advantage = jnp.asarray([[7.0], [-3.0], [7.0], [-3.0]])
    value, gradient = jax.value_and_grad(credit, argnums=1)(network, params, experience, advantage)
    log_half = np.log(1 / 2)
    assert value == pytest.approx((log_half - np.log(3 / 4) + log_half - log_half) / 4, rel=1e-5)
    expected = np.zeros((9, 2))
    # (what was done - probability) times the advantage, over four steps.
    expected[0] = np.array([1 / 2, -1 / 2]) / 4
    expected[1] = -np.array([-1 / 4, 1 / 4]) / 4
    expected[2] = np.array([-1 / 2, 1 / 2]) / 4
    expected[3] = -np.array([1 / 2, -1 / 2]) / 4
    np.testing.assert_allclose(gradient["policy"]["table"], expected, rtol=1e-5)
    assert not np.any(gradient["prediction"]["table"])


def test_an_advantage_of_another_shape_is_refused() -> None:
    """Checked also where annotations are not."""
    network, one = chain_of_four()
    experience = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf], axis=1), one)
    params = network.init(jax.random.key(0))
    assert credit(network, params, experience, jnp.ones((4, 2))).shape == ()
    for shape in ((4, 1), (1, 2), (2, 4)):
        with pytest.raises(TypeCheckError):
            credit(network, params, experience, jnp.ones((*shape, 1)))
        with pytest.raises(AssertionError):
            unwrap(credit)(network, params, experience, jnp.ones(shape))


@pytest.mark.usefixtures("x64")
def test_the_critic_learns_what_its_agent_earns() -> None:
    """One that always goes forward; theta zero teaches it nothing else."""
    theta = zeros(kit("sgd").theta)
    agent = someone("sgd", 0, 1000, 0.0, goal=1.0, rest=0.0)
    agent.life.learner.params["policy"]["table"] += jnp.asarray([-50.0, 50.0])
    errors = []
    for rate in [0.0, 0.0] + [1.0] * 10:
        weights = kit("sgd").weights._replace(critic_rate=jnp.asarray(rate))
        before = agent.critic.params
        (_, (agent, _, told)), _ = differentiate("sgd", K, agent, theta=theta, weights=weights)
        moved = agent.critic.params["value"]["table"] != before["value"]["table"]
        assert np.any(moved) == (rate > 0)
        errors.append(float(told["critic_loss"]))
    assert errors[1] == errors[0] > 0.1, "at rate zero it stays untrained"
    assert errors[-1] < 1e-4 * errors[1]
    value = 0.99 ** np.array([3, 2, 1, 0])
    np.testing.assert_allclose(agent.critic.params["value"]["table"][:4, 0], value, rtol=0.01)


def test_coefficients_are_those_of_the_configuration() -> None:
    rates = AgentConfig(prediction_rate=3.0, clip=0.25)
    weights = weights_of(WEIGHTS, rates, False, True)
    assert numbers(weights._asdict()) == pytest.approx(
        {
            "entropy": 0.3,
            "prediction_entropy": 0.2,
            "pi_hat": 0.1,
            "y_hat": 0.4,
            "entropy_decay": 1.0,
            "discount": 0.99,
            "trace": 0.95,
            "critic_rate": 3.0,
            "critic_clip": 0.25,
            "end_only": 0.0,
            "by_life": 1.0,
        }
    )
    untrained = weights_of(replace(WEIGHTS, train_critic=False), rates, True, False)
    assert (untrained.critic_rate, untrained.end_only, untrained.by_life) == (0, 1, 0)


# --- one step along the gradient of all -------------------------------------------------------


def told(gradients: list[list[float]], votes: list[float]) -> Window:
    """Of groups, for a theta of two numbers."""
    count = jnp.ones(len(votes))
    names = ("agents", "nonfinite", "ended", "updates", "objective")
    return Window(
        {"w": jnp.asarray(gradients)}, jnp.asarray(votes), dict.fromkeys(names, 2 * count)
    )


def ascent() -> Ascent:
    theta = {"w": jnp.asarray([1.0, -1.0])}
    return Ascent(theta, fresh_adam(theta, 0.9, 0.999, 1e-8))


def step_of(window: Window, clip: float) -> tuple[Ascent, dict[str, float]]:
    after, metrics = climb(strongly_typed(ascent()), window, jnp.float32(0.01), jnp.float32(clip))
    return after, numbers(metrics)


def momentum(state: Ascent) -> Any:
    """First moment of Adam, which descends."""
    return state.adam.inner_state[0].mu


def test_the_mean_gradient_is_clipped_before_adam() -> None:
    # (6 + 3, 8 + 4) over 3 votes: (3, 4), of norm 5.
    window = told([[6.0, 8.0], [3.0, 4.0]], [1.0, 2.0])
    after, metrics = step_of(window, INF)
    np.testing.assert_allclose(momentum(after)["w"], [-0.3, -0.4], rtol=1e-5)
    after, clipped = step_of(window, 0.5)
    np.testing.assert_allclose(momentum(after)["w"], [-0.03, -0.04], rtol=1e-5)
    # Adam's first step is the rate, up.
    np.testing.assert_allclose(after.theta["w"], [1.01, -0.99], rtol=1e-5)
    assert metrics == clipped
    assert metrics == pytest.approx(
        {
            "gradient_norm": 5.0,
            "votes": 3.0,
            "objective": 1.0,
            "nonfinite": 4.0,
            "ended": 4.0,
            "updates": 4.0,
        }
    )


def test_without_votes_there_is_no_gradient() -> None:
    after, metrics = step_of(told([[0.0, 0.0], [0.0, 0.0]], [0.0, 0.0]), 0.5)
    assert content(after.theta) == content(ascent().theta)
    assert metrics["gradient_norm"] == metrics["votes"] == 0
    assert np.isfinite([*metrics.values()]).all()


def test_groups_are_added_in_their_order() -> None:
    """Floats do not associate: the 1 is lost between the large ones, and kept behind them."""
    votes = [1.0, 0.0, 0.0]
    lost = step_of(told([[1e8, 0.0], [1.0, 0.0], [-1e8, 0.0]], votes), INF)
    kept = step_of(told([[1e8, 0.0], [-1e8, 0.0], [1.0, 0.0]], votes), INF)
    assert (lost[1]["gradient_norm"], kept[1]["gradient_norm"]) == (0, 1)


def test_a_sum_that_is_no_number_moves_nothing() -> None:
    """Too large for a float, or too large for the square of one."""
    for far in (3e38, 1e30):
        after, metrics = step_of(told([[far, 1.0], [far, 1.0]], [1.0, 0.0]), 0.5)
        assert content(after.theta) == content(ascent().theta)
        assert np.isinf(metrics["gradient_norm"])
        assert not np.any(momentum(after)["w"])
    after, _ = step_of(told([[INF, 1.0], [-INF, 1.0]], [1.0, 0.0]), 0.5)
    assert content(after.theta) == content(ascent().theta)


def test_a_gradient_that_is_no_number_is_nobodys() -> None:
    """Nor anybody else's; nor is one of which the norm is none."""
    slopes = jnp.asarray([np.nan, 1.0, INF, 4.0, 1e30])
    agents = Agents((), (), (), slopes, jnp.zeros(5, bool), jnp.arange(5))

    def value(theta: Array, agent: Agents, newborn: Newborn) -> Any:
        numbers = {"agents": 1.0, "nonfinite": 0.0, "updates": 5.0, "objective": 7.0}
        return theta * agent.until, (agent, jnp.ones(()), numbers)

    each = jax.vmap(functools.partial(told_by, value, jnp.float32(1.0)))
    after, told = each(agents, Newborn((), jnp.arange(5), jnp.arange(5)))
    assert told.gradient.tolist() == [0, 1, 0, 4, 0]
    assert told.votes.tolist() == [0, 1, 0, 1, 0]
    assert after.ended.tolist() == [True, False, True, False, True], "to be born again"
    assert {name: value.tolist() for name, value in told.metrics.items()} == {
        "agents": [0, 1, 0, 1, 0],
        "nonfinite": [1, 0, 1, 0, 1],
        "updates": [5] * 5,
        "objective": [0, 7, 0, 7, 0],
    }


# --- the search whole -------------------------------------------------------------------------

AGENTS, GROUP = 24, 4


class Record(NamedTuple):
    """A search and its first steps."""

    config: Config
    search: Search
    states: list[SearchState]
    metrics: list[dict[str, float]]
    validation: list[dict[str, float]]
    compiled: list[list[str]]
    memory: int


def changed(config: Config, **fields: Any) -> Config:
    """With other numbers of its gradient."""
    return replace(config, gradient=replace(config.gradient, **fields))


@pytest.fixture(scope="module")
def record(tiny: Config, compiled: Listen, fast_compiles: None) -> Record:
    gradient = GradientConfig(agents=AGENTS, agents_group=GROUP, meta_rate=0.01)
    config = replace(
        tiny,
        estimator="gradient",
        validation_levels=32,
        # Sizes that no other test has: none then compiles what is counted here, nor the reverse.
        objective=replace(tiny.objective, width=5),
        horizon=HorizonConfig(shortest=3, longest=12),
        window=WindowConfig(window=K),
        gradient=gradient,
    )
    search = make_search(config)
    states, metrics, validation, programs = [search.init()], [], [], []
    for _ in range(5):
        with compiled() as names:
            needed = search.memory(states[-1])
            state, told = search.step(states[-1])
            if len(states) < 3:
                validation.append(numbers(search.validate(state)))
        states.append(state)
        metrics.append(numbers(told))
        programs.append(list(names))
    return Record(config, search, states, metrics, validation, programs, needed)


def births(record: Record, state: SearchState) -> Newborn:
    """What agents begin with that are born in the step after a state, the first one apart."""
    world, law = record.search.world, record.config.horizon
    tasks, keys, _, _ = draw_births(
        state.key, state.generation, world.env.sample_level, law, AGENTS
    )
    return Newborn(tasks, tasks.horizon, keys)


def planted(state: SearchState, plant: Callable[[Agents], Agents]) -> SearchState:
    """With other agents, where those were."""
    there = jax.tree.map(lambda leaf: leaf.sharding, state.agents)
    return state._replace(agents=jax.device_put(plant(state.agents), there))


def with_tables(agents: Agents, plant: Callable[[Array], Array]) -> Agents:
    learner = agents.life.learner
    learner = learner._replace(params=jax.tree.map(plant, learner.params))
    critic = agents.critic._replace(params=jax.tree.map(plant, agents.critic.params))
    return agents._replace(life=agents.life._replace(learner=learner), critic=critic)


def test_every_program_is_compiled_once_and_numbers_are_data(
    record: Record, compiled: Listen
) -> None:
    first, *others = record.compiled
    for program in ("draw_births", "first_cut", "apply", "climb", "moved", "program"):
        assert first.count(f"jit({program})") == 1, program
    assert others == [[]] * 4, "nothing is compiled after the first step"
    config = record.config
    other = replace(
        changed(
            config,
            meta_rate=0.1,
            meta_beta1=0.5,
            meta_beta2=0.9,
            meta_epsilon=1e-3,
            meta_clip=0.01,
            entropy_weight=1.0,
            prediction_entropy_weight=1.0,
            pi_hat_weight=1.0,
            y_hat_weight=1.0,
            entropy_decay=True,
            discount=0.5,
            trace=0.5,
            train_critic=False,
        ),
        seed=7,
        agent=replace(config.agent, policy_rate=1.0, prediction_rate=1.0, clip=0.1),
        window=WindowConfig(window=K, score="end", vote="life"),
    )
    search = make_search(other)
    state = search.init()
    with compiled() as names:
        search.memory(state)
        state, metrics = search.step(state)
        search.validate(state)
    assert names == []
    assert metrics["rate"] == pytest.approx(0.1)
    mine = state.strategy.adam.hyperparams
    assert [float(mine[name]) for name in ("b1", "b2", "eps")] == pytest.approx([0.5, 0.9, 1e-3])


def test_what_is_told_of_a_step(record: Record) -> None:
    for i, metrics in enumerate(record.metrics):
        before, after = (record.states[j].agents for j in (i, i + 1))
        assert all(np.isfinite(value) for value in metrics.values())
        begun = np.where(before.ended, 0, before.life.n)
        updates = np.asarray(after.life.n) - begun
        assert (updates == np.minimum(K, np.asarray(after.until) - begun)).all()
        assert metrics["steps"] == (updates.sum() + AGENTS) * T * B, "the last rollout counts too"
        assert metrics["votes"] == AGENTS
        assert metrics["ended"] == np.sum(after.life.n == after.task.horizon)
        assert metrics["nonfinite"] == 0
        assert metrics["rate"] == pytest.approx(0.01)
        assert metrics["theta_norm"] > 0 < metrics["update_norm"]
    names = {"objective", "credit", "entropy", "prediction_entropy", "pi_hat", "y_hat"}
    assert names | {"critic_loss", "reward", "gradient_norm"} <= record.metrics[0].keys()
    assert np.isfinite([*record.validation[0].values()]).all()
    assert record.validation[0] != record.validation[1], "theta has moved"
    # At least two tables of two columns and one of one, for each agent of a group.
    assert GROUP * 9 * 5 * 4 < record.memory < 2**28
    assert not record.search.columns(record.states[-1])


def test_first_lives_end_early_so_that_ages_differ(record: Record) -> None:
    first, second = record.states[1].agents, record.states[5].agents
    horizon, until = np.asarray(first.task.horizon), np.asarray(first.until)
    assert (until >= 1).all()
    assert (until <= horizon).all()
    assert np.sum(until < horizon) > AGENTS / 2
    assert len(set(until.tolist())) > 5
    assert (first.life.n == np.minimum(until, K)).all()
    # Those born later live as long as they were told.
    later = np.asarray(second.task.horizon) == np.asarray(second.until)
    assert later.all()
    assert len(set(np.asarray(second.life.n).tolist())) > 3


def test_a_life_that_has_ended_is_followed_by_another(record: Record) -> None:
    """The agents here know and expect much; whoever is born does not."""
    before = record.states[2]
    ended = np.asarray(before.agents.ended)
    assert 0 < ended.sum() < AGENTS
    state, _ = record.search.step(planted(before, lambda a: with_tables(a, lambda t: t + 1e3)))
    old, new, born = before.agents, state.agents, births(record, before)
    assert (np.abs(new.life.learner.params["policy"]["table"]).max(axis=(1, 2)) < 500)[ended].all()
    assert (np.abs(new.critic.params["value"]["table"]).max(axis=(1, 2)) < 500)[ended].all()
    assert (np.abs(new.critic.params["value"]["table"]).min(axis=(1, 2)) > 500)[~ended].all()
    told = born.task, born.until
    assert content(at(plain((new.task, new.until)), ended)) == content(at(plain(told), ended))
    assert (np.asarray(old.task.level.rest) != np.asarray(new.task.level.rest))[ended].all()
    assert (
        new.life.n
        == np.where(ended, 0, old.life.n)
        + np.minimum(K, np.asarray(new.until) - np.where(ended, 0, old.life.n))
    ).all()
    # Untouched: the task of whoever lives on, and the root of its random numbers.
    kept = [at(plain((a.task, a.until, a.life.key)), ~ended) for a in (old, new)]
    assert content(kept[0]) == content(kept[1])
    assert content(old.life.key[ended]) != content(new.life.key[ended])


@pytest.mark.parametrize(
    ("score", "vote"), [("along", "window"), ("end", "window"), ("along", "life")]
)
def test_a_step_is_what_its_agents_say_one_by_one(record: Record, score: Any, vote: Any) -> None:
    """Whatever the group; whose life comes to its horizon votes, or each by its share of a life."""
    choice = WindowConfig(window=K, score=score, vote=vote)
    config = changed(replace(record.config, window=choice), meta_clip=INF)
    before = record.states[3]
    fresh = record.states[0].strategy.adam
    before = before._replace(strategy=before.strategy._replace(adam=fresh))
    state, metrics = make_search(config).step(before)

    theta, agents, born = jax.device_get(
        (before.strategy.theta, before.agents, births(record, before))
    )
    weights = weights_of(config.gradient, config.agent, score == "end", vote == "life")
    hyper = strongly_typed(jax.tree.map(jnp.asarray, record.search.hyper))
    alone = [
        through("sgd", K, False, True)(theta, hyper, weights, at(agents, i), at(born, i))
        for i in range(AGENTS)
    ]
    votes = [float(vote_) for (_, (_, vote_, _)), _ in alone]
    after = state.agents
    for i, ((_, (mine, _, _)), _) in enumerate(alone):
        close(mine, at(plain(after), i), 1e-3)
    begun = np.where(agents.ended, 0, agents.life.n)
    updates = np.asarray(after.life.n) - begun
    horizon, at_end = np.asarray(after.task.horizon), np.asarray(after.life.n == after.task.horizon)
    expected = {
        ("along", "window"): np.ones(AGENTS),
        ("end", "window"): at_end,
        ("along", "life"): updates / horizon,
    }
    np.testing.assert_allclose(votes, expected[score, vote], rtol=1e-6)
    assert 0 < at_end.sum() < AGENTS
    assert metrics["votes"] == pytest.approx(sum(votes), rel=1e-5)
    mean = sum(ravel_pytree(gradient)[0] for _, gradient in alone) / sum(votes)
    assert metrics["gradient_norm"] == pytest.approx(np.linalg.norm(mean), rel=1e-3)
    found = -10 * ravel_pytree(momentum(state.strategy))[0]
    np.testing.assert_allclose(found, mean, rtol=1e-2, atol=1e-3 * np.abs(mean).max())


def test_an_agent_that_breaks_is_counted_dropped_and_born_again(record: Record) -> None:
    before, healthy = record.states[3], record.states[4]
    broken = int(np.flatnonzero(~np.asarray(before.agents.ended))[0])
    state, metrics = record.search.step(
        planted(before, lambda a: with_tables(a, lambda t: t.at[broken].set(jnp.nan)))
    )
    assert (metrics["nonfinite"], metrics["votes"]) == (1, AGENTS - 1)
    assert metrics["steps"] == record.metrics[3]["steps"]
    assert np.isfinite([*numbers(metrics).values()]).all()
    assert np.isfinite(np.frombuffer(content(state.strategy.theta), np.float32)).all()
    others = np.arange(AGENTS) != broken
    assert content(at(plain(state.agents), others)) == content(at(plain(healthy.agents), others))
    assert state.agents.ended[broken]
    state, metrics = record.search.step(state)
    assert metrics["nonfinite"] == 0
    assert state.agents.life.n[broken] == min(K, int(state.agents.until[broken]))
    assert np.isfinite(state.agents.life.learner.params["policy"]["table"]).all()


def test_if_all_break_theta_goes_on(record: Record) -> None:
    state, metrics = record.search.step(
        planted(record.states[3], lambda a: with_tables(a, lambda t: jnp.full_like(t, jnp.nan)))
    )
    ended = int(record.states[3].agents.ended.sum())
    assert (metrics["nonfinite"], metrics["votes"]) == (AGENTS - ended, ended)
    assert np.isfinite(np.frombuffer(content(state.strategy), np.float32)).all()
    assert np.isfinite([*numbers(metrics).values()]).all()


def test_the_same_seed_gives_the_same_bytes_on_one_device(
    record: Record, one_device: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_programs", module._programs.__wrapped__)
    search = make_search(record.config)
    state = search.init()
    for i in range(3):
        state, metrics = search.step(state)
        assert numbers(metrics) == record.metrics[i]
    assert search.cohort.replicated.mesh.size == 1
    assert record.search.cohort.replicated.mesh.size == 2
    assert content(state) == content(record.states[3])


def test_theta_begins_as_that_of_evolution_from_the_rules_own_start(record: Record) -> None:
    config, objective = record.config, record.search.objective
    evolution = replace(config.evolution, start="init")
    other = replace(config, estimator="evolution", evolution=evolution)
    theta = record.search.theta(record.states[0])
    assert content(theta) == content(beginning(objective, other)[1])
    assert content(theta) != content(beginning(objective, replace(config, seed=1))[1])


def test_state_is_strongly_typed(record: Record) -> None:
    for state in record.states:
        assert not any(jax.typeof(leaf).weak_type for leaf in jax.tree.leaves(state))


def test_whole_lives_are_born_and_end_in_one_step(record: Record, compiled: Listen) -> None:
    """Of at most five updates, scored at the end, in the program of windows of five."""
    law, whole = HorizonConfig(shortest=1, longest=K), WindowConfig(window=0, score="end")
    search, state = make_search(replace(record.config, horizon=law, window=whole)), record.states[0]
    with compiled() as names:
        for _ in range(2):
            key, before = state.agents.life.key, state.agents.task.level.rest
            state, metrics = search.step(state)
            agents = state.agents
            assert agents.ended.all()
            assert (agents.life.n == agents.until).all(), "none is cut"
            assert (agents.life.n == agents.task.horizon).all()
            assert (agents.task.level.rest != before).all()
            assert content(key) != content(agents.life.key)
            assert metrics["votes"] == metrics["ended"] == AGENTS
            assert metrics["steps"] == (int(agents.life.n.sum()) + AGENTS) * T * B
    assert "jit(apply)" not in names


@pytest.mark.parametrize("score", ["along", "end"])
def test_whole_lives_are_as_long_as_the_longest(
    record: Record, score: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And credited along; each has one vote, whatever a window would have."""
    seen: list[Any] = []
    programs, weights = module._programs, module.weights_of
    monkeypatch.setattr(module, "_programs", lambda *a: (seen.append(a), programs(*a))[1])
    monkeypatch.setattr(module, "weights_of", lambda *a: (seen.append(a), weights(*a))[1])
    whole = WindowConfig(window=0, score=score, vote="life")
    make_search(replace(record.config, horizon=HorizonConfig(2, 9), window=whole))
    (*_, updates, each), (*_, end_only, by_life) = seen
    assert (updates, each) == (9, score == "along")
    assert (end_only, by_life) == (False, False)


def test_a_rule_without_parameters_cannot_be_searched(record: Record) -> None:
    rule = replace(record.config.objective, rule="a2c")
    with pytest.raises(ConfigError, match="rule a2c has no parameters to search over"):
        make_search(replace(record.config, objective=rule))


def test_a_few_dozen_steps_improve_the_validation_score(record: Record) -> None:
    """The best earns 2.55; the program is that of the other tests."""
    law = HorizonConfig(shortest=10, longest=20)
    search = make_search(replace(changed(record.config, meta_rate=0.03), horizon=law))
    state = record.states[0]
    start = search.validate(state)["validation"]
    for _ in range(30):
        state, _ = search.step(state)
    end = search.validate(state)["validation"]
    assert start < 0.5
    assert end > 1.5
