r"""Meta-gradients: agents live on, and theta follows the gradient through a window of their lives.

One step of the search: K updates of every agent, differentiated; one more rollout, by the agent
that they made, for the meta-objective

.. math:: J(\theta) = \mathrm{mean}_{b,t}[\log\pi_K(a|s) A] + \beta_0 H(\pi) + \beta_1 H(y)
          - \beta_2 |\hat\pi|^2 - \beta_3 |\hat y|^2,

which theta reaches through the agent's parameters alone: actions, rollouts and advantages are
constants. Agents go on from where they are; ended ones are born again on new tasks.

Shape legend: ``A`` agents, ``G`` groups that are differentiated together, ``K`` updates of a
window, ``T`` steps and ``B`` environments of a rollout.

Source: Oh et al. 2020 (LPG), section 3.4; Discovering Temporally-Aware Reinforcement Learning
Algorithms (2024), its public code, without that code's defects in the critic and the advantage.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, PyTree

from discovery.config import (
    AgentConfig,
    Config,
    GradientConfig,
    LifeConfig,
)
from discovery.devices import home, put
from discovery.inner.agent import make_network
from discovery.inner.build import make_hyper, make_objective, make_world, static
from discovery.inner.cohort import Cohort, bytes_of, make_cohort, population_mesh
from discovery.inner.lifetime import (
    Life,
    Task,
    World,
    birth,
    collect,
    is_finite,
    learn,
    next_keys,
    where,
)
from discovery.outer.evolution import at_rate, fresh_adam, outer_adam, strongly_typed
from discovery.outer.persistent import (
    Agents,
    Newborn,
    draw_births,
    first_cut,
    over_groups,
    placeholders,
    placement,
)
from discovery.outer.scoring import LivedOn, make_validation, witness
from discovery.outer.search import (
    Search,
    SearchState,
    beginning,
    example_task,
    moved,
    root_key,
    shapes,
)
from discovery.outer.teaching import make_teacher, player, scored_agents
from learned_objectives import descent
from learned_objectives.base import Experience, Head, Key, Network, Objective, Theta
from learned_objectives.returns import generalized_advantage, normalise

VALUE = {"value": Head(1)}
"""What a critic's network puts out."""
_LAST = 2**31
"""Folded into a life's key for the rollout that trains no agent; no update has this number."""


class Weights(NamedTuple):
    """Every coefficient of the meta-objective; traced."""

    entropy: Any
    """beta_0."""
    prediction_entropy: Any
    """beta_1."""
    pi_hat: Any
    """beta_2."""
    y_hat: Any
    """beta_3."""
    entropy_decay: Any
    """1 to let beta_0 fall over a life as 1 - n/N, else 0."""
    discount: Any
    """gamma of the advantage."""
    trace: Any
    """lambda of the advantage."""
    critic_rate: Any
    """Learning rate of the agents' critics."""
    critic_clip: Any
    """Norm to which a critic's gradient is clipped."""
    end_only: Any
    """1 if a window counts only where the life has come to its horizon, else 0."""
    by_life: Any
    """1 if a window counts as much as it is of its life, else 0."""


class Critic(NamedTuple):
    """An agent's own value function, which trains no agent."""

    params: PyTree
    optimizer: PyTree


class Ascent(NamedTuple):
    """State of the outer optimiser."""

    theta: Theta
    adam: PyTree


class Window(NamedTuple):
    """What an agent, or a group of them, tells of a window."""

    gradient: Theta
    """Of the sum of ``votes`` times J."""
    votes: Float[Array, ""]
    """Their sum."""
    metrics: dict[str, Float[Array, ""]]
    """Sums over the agents, and how many these are."""


# --- one agent --------------------------------------------------------------------------------


def assess(
    critic: Network, params: PyTree, experience: Experience, weights: Weights
) -> tuple[Float[Array, "T B"], Float[Array, "T B"]]:
    """Advantages, not normalised, and the targets of the critic itself; constants."""
    now, after = critic.unroll(params, experience)
    value = now["value"][..., 0]
    advantage = generalized_advantage(
        experience.reward,
        value,
        after["value"][..., 0],
        experience.terminated,
        experience.truncated,
        weights.discount,
        weights.trace,
    )
    return jax.lax.stop_gradient((advantage, advantage + value))


def credit(
    network: Network, params: PyTree, experience: Experience, advantage: Float[Array, "T B"]
) -> Float[Array, ""]:
    r""":math:`\mathrm{mean}_{b,t}[\log\pi(a|s) A]`, normalised over the rollout; one A a step.

    Args:
      network: the agent's.
      params: the agent's, through which theta is reached.
      experience: a constant.
      advantage: a constant.

    Returns:
      A scalar.
    """
    outputs, _ = network.unroll(params, experience)
    log_pi = network.log_prob(outputs, experience.action)
    chex.assert_equal_shape([log_pi, advantage])
    return jnp.mean(log_pi * jax.lax.stop_gradient(normalise(advantage)))


def train_critic(
    kind: descent.Kind,
    critic: Network,
    state: Critic,
    experience: Experience,
    target: Float[Array, "T B"],
    weights: Weights,
) -> tuple[Critic, Float[Array, ""]]:
    r"""One step on :math:`\mathrm{mean}(V - \mathrm{target})^2`; and that loss before the step."""

    def loss(params: PyTree) -> Array:
        value = critic.unroll(params, experience)[0]["value"][..., 0]
        chex.assert_equal_shape([value, target])
        return jnp.mean(jnp.square(value - target))

    error, gradient = jax.value_and_grad(loss)(state.params)
    rates = {"value": weights.critic_rate}
    moved = descent.step(kind, gradient, state.optimizer, state.params, rates, weights.critic_clip)
    return Critic(*moved), error


def window(
    world: World,
    critic: Network,
    kind: descent.Kind,
    updates: int,
    each: bool,
    remat: bool,
    theta: Theta,
    hyper: Any,
    weights: Weights,
    agent: Agents,
    newborn: Newborn,
) -> tuple[Float[Array, ""], tuple[Agents, Float[Array, ""], dict[str, Array]]]:
    """Live through K updates and one more rollout.

    Args:
      world: who lives where.
      critic: network of the critic.
      kind: its optimiser.
      updates: K.
      each: credit the agent after every update, not after the last one alone.
      remat: keep no intermediate of an update for its gradient; compute it again.
      theta: the objective's parameters: what J is differentiated by.
      hyper: numbers of the agent's updates.
      weights: coefficients.
      agent: one agent.
      newborn: what it begins with if its life has ended.

    Returns:
      J times the agent's vote; and the agent after the window, its vote, and numbers to be told.
    """
    new = newborn_agent(world, critic, kind, theta, hyper, newborn.task, newborn.key)
    life, state = where(agent.ended, new, (agent.life, agent.critic))
    task, until = where(agent.ended, (newborn.task, newborn.until), (agent.task, agent.until))

    def after_update(theta: Theta, life: Life, experience: Experience, key: Key) -> Any:
        learner, report = learn(world, theta, hyper, task, life, experience, key)
        outputs, _ = world.network.unroll(learner.params, experience)
        terms = {"entropy": world.network.entropy(outputs).mean(), **report.penalties}
        if "prediction" in outputs:
            log_y = jax.nn.log_softmax(outputs["prediction"])
            terms["prediction_entropy"] = -jnp.sum(jnp.exp(log_y) * log_y, axis=-1).mean()
        return learner, terms

    # Inside a scan nothing could be shared that would undo the rematerialisation.
    update_once = jax.checkpoint(after_update, prevent_cse=False) if remat else after_update

    def step(carry: tuple[Life, Critic], _: None) -> tuple[tuple[Life, Critic], Any]:
        life, state = carry
        alive = life.n < until
        act_key, update_key = next_keys(life)
        after, experience = collect(world, task, life, act_key)
        advantage, target = assess(critic, state.params, experience, weights)
        made = jnp.zeros(())
        if each:
            # The agent of the update before this rollout; of none at birth.
            made = credit(world.network, life.learner.params, experience, advantage)
            made = jnp.where(life.n > 0, made, 0)
        learner, terms = update_once(theta, life, experience, update_key)
        trained, error = train_critic(kind, critic, state, experience, target, weights)
        share = life.n / task.horizon
        terms["decayed_entropy"] = terms["entropy"] * (1 - weights.entropy_decay * share)
        grown = after._replace(learner=learner, n=life.n + 1)
        reward = experience.reward.mean()
        told = {**terms, "credit": made, "critic_loss": error, "reward": reward}
        told = {name: jnp.where(alive, value, 0) for name, value in told.items()}
        return where(alive, (grown, trained), (life, state)), (told, alive)

    (life, state), (told, alive) = jax.lax.scan(step, (life, state), None, length=updates)
    lived = alive.sum()
    mean = {name: values.sum() / lived for name, values in told.items()}

    act_key, _ = next_keys(life._replace(key=jax.random.fold_in(life.key, _LAST)))
    after, experience = collect(world, task, life, act_key)
    advantage, target = assess(critic, state.params, experience, weights)
    last = credit(world.network, life.learner.params, experience, advantage)
    state, _ = train_critic(kind, critic, state, experience, target, weights)
    life = after  # its learner and its updates are those of before

    # After N updates N agents were credited: those of the updates 1 to N.
    credited = (told["credit"].sum() + last) / lived if each else last
    objective = credited + weights.entropy * mean["decayed_entropy"]
    objective -= weights.pi_hat * mean.get("pi_hat", 0.0)
    objective -= weights.y_hat * mean.get("y_hat", 0.0)
    objective += weights.prediction_entropy * mean.get("prediction_entropy", 0.0)

    good = is_finite(life.learner.params) & jnp.isfinite(objective)
    at_end = life.n >= task.horizon
    share = jnp.where(weights.by_life > 0, lived / task.horizon, 1.0)
    vote = jnp.where(weights.end_only > 0, jnp.where(at_end, 1.0, 0.0), share)
    vote = jnp.where(good, vote, 0.0)
    gone_on = Agents(life, state, task, until, (life.n >= until) | ~good, agent.slot)
    numbers = {
        "objective": objective,
        **{name: value for name, value in mean.items() if name != "decayed_entropy"},
        "credit": credited,
        "ended": at_end.astype(jnp.float32),
    }
    numbers = {name: jnp.where(good, value, 0) for name, value in numbers.items()}
    numbers |= {"agents": jnp.where(good, 1.0, 0.0), "nonfinite": jnp.where(good, 0.0, 1.0)}
    numbers["updates"] = lived.astype(jnp.float32)  # took place, whatever came of them
    return vote * jnp.where(good, objective, 0), jax.lax.stop_gradient((gone_on, vote, numbers))


def told_by(
    value: Callable[[Theta, Agents, Newborn], Any], theta: Theta, agent: Agents, newborn: Newborn
) -> tuple[Agents, Window]:
    """One agent after a window, and what it tells; by agent, so that none takes others with it.

    Args:
      value: :func:`window` of theta, agent and newborn.
      theta: the objective's parameters.
      agent: one agent.
      newborn: what it begins with if its life has ended.

    Returns:
      The agent after the window, to be born again if its gradient is not finite; and what it tells,
      nothing in that case.
    """
    gradient, (gone_on, vote, numbers) = jax.grad(value, has_aux=True)(theta, agent, newborn)
    # Its norm may overflow where its leaves do not, and would cancel everybody's step. The norm of
    # ``descent`` is 0 for NaN.
    finite = jnp.isfinite(optax.tree.norm(gradient))
    told = jax.tree.map(lambda leaf: jnp.where(finite, leaf, 0), Window(gradient, vote, numbers))
    nonfinite = jnp.where(finite, numbers["nonfinite"], 1.0)
    told.metrics.update(nonfinite=nonfinite, updates=numbers["updates"])
    return gone_on._replace(ended=gone_on.ended | ~finite), told


def newborn_agent(
    world: World,
    critic: Network,
    kind: descent.Kind,
    theta: Theta,
    hyper: Any,
    task: Task,
    key: Key,
) -> tuple[Life, Critic]:
    """One agent at the start of its life, with a critic that knows nothing."""
    life_key, critic_key = jax.random.split(key)
    params = critic.init(critic_key)
    life = birth(world, theta, hyper, task, life_key)
    return life, Critic(params, descent.init(kind, params))


# --- all agents -------------------------------------------------------------------------------


@functools.lru_cache(maxsize=8)
def _programs(
    objective: Objective,
    env: str,
    agent: AgentConfig,
    life: LifeConfig,
    agents: int,
    group: int,
    updates: int,
    each: bool,
) -> tuple[World, Network, Cohort, Any, Any, Mesh]:
    """The programs of all searches of these sizes."""
    world = make_world(objective, env, agent, life)
    critic = make_network(agent, VALUE, world.env.spec)
    mesh = population_mesh(agents // group)
    cohort = make_cohort(world, lambda theta, pair, sign: theta, group, agents)
    through_window = functools.partial(window, world, critic, agent.optimizer, updates, each, True)

    def of_group(
        theta: Theta, hyper: Any, weights: Weights, mine: Agents, newborn: Newborn
    ) -> tuple[tuple[Agents, Array], Window]:
        def value(theta: Theta, one: Agents, born: Newborn) -> Any:
            return through_window(theta, hyper, weights, one, born)

        gone_on, told = jax.vmap(functools.partial(told_by, value, theta))(mine, newborn)
        finite = told.metrics["nonfinite"] == 0
        return (gone_on, finite), jax.tree.map(lambda leaf: leaf.sum(axis=0), told)

    everyone = jax.jit(over_groups(mesh, group, of_group, shared=3))
    alone = jax.jit(lambda *arguments: jax.grad(through_window, has_aux=True)(*arguments)[0])
    return world, critic, cohort, everyone, alone, mesh


@jax.jit
def climb(
    state: Ascent, told: Window, rate: Float[Array, ""], clip: Float[Array, ""]
) -> tuple[Ascent, dict[str, Array]]:
    """One step of Adam along the clipped mean gradient of all agents.

    Args:
      state: theta and Adam.
      told: by the groups, leaves ``[G, ...]``.
      rate: learning rate.
      clip: norm to which the mean gradient is clipped.

    Returns:
      The state after, and the numbers of the step.
    """

    def add(total: Window, part: Window) -> tuple[Window, None]:
        return jax.tree.map(jnp.add, total, part), None

    # One after another: a reduction would add in an order of its own.
    blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:], leaf.dtype), told)
    total, _ = jax.lax.scan(add, blank, told)
    votes = jnp.where(total.votes > 0, total.votes, 1)
    gradient = jax.tree.map(lambda leaf: leaf / votes, total.gradient)
    norm = optax.tree.norm(gradient)
    gradient = jax.tree.map(lambda leaf: jnp.where(jnp.isfinite(norm), leaf, 0), gradient)
    down = jax.tree.map(jnp.negative, descent.clip(gradient, clip))
    step, adam = outer_adam().update(down, at_rate(state.adam, rate))
    theta = optax.apply_updates(state.theta, step)

    agents = jnp.maximum(total.metrics.pop("agents"), 1)
    whole = {name: total.metrics.pop(name) for name in ("nonfinite", "ended")}
    updates = total.metrics.pop("updates")
    metrics = {name: value / agents for name, value in total.metrics.items()}
    metrics |= {"votes": total.votes, "gradient_norm": norm, **whole}
    return strongly_typed(Ascent(theta, adam)), {**metrics, "updates": updates}


@jax.jit
def ends(agents: Agents) -> tuple[Array, Array, Array, PyTree]:
    """Whose life ended, whose at its horizon, on which task of the curriculum, and as what."""
    counted = agents.ended & (agents.life.n >= agents.task.horizon)
    return agents.ended, counted, agents.slot, player(agents.life)


def weights_of(
    config: GradientConfig, agent: AgentConfig, end_only: bool, by_life: bool
) -> Weights:
    """The coefficients of a configuration."""
    numbers = Weights(
        entropy=config.entropy_weight,
        prediction_entropy=config.prediction_entropy_weight,
        pi_hat=config.pi_hat_weight,
        y_hat=config.y_hat_weight,
        entropy_decay=float(config.entropy_decay),
        discount=config.discount,
        trace=config.trace,
        critic_rate=agent.prediction_rate * config.train_critic,
        critic_clip=agent.clip,
        end_only=float(end_only),
        by_life=float(by_life),
    )
    return Weights(*(jnp.asarray(number, jnp.float32) for number in numbers))


def make_gradient_search(config: Config) -> Search:
    """A search by meta-gradients.

    Args:
      config: checked with ``config.check``; its ``evolution`` is not read.

    Returns:
      Its functions, as of :func:`discovery.outer.search.make_search`.

    Raises:
      ConfigError: the parts do not go together, or there is nothing to search over.
    """
    g, w = config.gradient, config.window
    objective: Any = make_objective(config.objective, config.agent)
    shapes(objective, config)  # refuses what has nothing to search over
    whole = w.window == 0
    updates = config.horizon.longest if whole else w.window
    world, critic, cohort, everyone, alone, mesh = _programs(
        objective,
        config.env,
        static(config.agent),
        config.life,
        g.agents,
        g.agents_group,
        updates,
        whole and w.score == "along",
    )
    hyper = make_hyper(objective, config.agent, config.objective.clock_gate)
    weights = weights_of(
        g, config.agent, w.score == "end" and not whole, w.vote == "life" and not whole
    )
    kind = config.agent.optimizer
    validation = make_validation(world.env, config.horizon, config.validation_levels, cohort, hyper)
    teacher = make_teacher(config, scored_agents(world))
    shared, split = placement(mesh)

    def init() -> SearchState:
        _, theta = beginning(objective, config)
        task = example_task(world.env)
        agents = placeholders(
            functools.partial(newborn_agent, world, critic, kind, theta, hyper), task, g.agents
        )
        ascent = Ascent(theta, fresh_adam(theta, g.meta_beta1, g.meta_beta2, g.meta_epsilon))
        one = jax.tree.map(lambda leaf: leaf[0], agents.life)
        state = SearchState(
            strategy=put(strongly_typed(ascent), home()),
            key=put(root_key(config.seed), home()),
            generation=put(jnp.zeros((), jnp.int32), home()),
            agents=put(strongly_typed(agents), split),
            curriculum=put(teacher.begin(task, player(one)), home()),
        )
        return state

    def step(state: SearchState) -> tuple[SearchState, dict[str, Array]]:
        born, slots = put((state.agents.ended, state.agents.slot), home())
        fresh, life_keys, teach_key, cut_key = draw_births(
            state.key, state.generation, world.env.sample_level, config.horizon, g.agents
        )
        task_key, end_key = jax.random.split(teach_key)
        curriculum, tasks, slots, taught = teacher.assign(
            state.curriculum, task_key, born, fresh, slots
        )
        until = tasks.horizon
        if not whole:
            until = first_cut(state.generation, cut_key, until)
        newborn = Newborn(tasks, until, life_keys)
        theta = state.strategy.theta
        (agents, finite), told = everyone(
            *put((theta, hyper, weights), shared),
            state.agents._replace(slot=put(slots, split)),
            put(newborn, split),
        )
        witness(lambda: watched_window(state, newborn, finite))
        rate = jnp.asarray(g.meta_rate, jnp.float32)
        ascent, metrics = climb(
            state.strategy,
            put(told, home()),
            rate,
            jnp.asarray(g.meta_clip, jnp.float32),
        )
        batch = float(config.life.environments * config.life.rollout)
        metrics["steps"] = (metrics.pop("updates") + g.agents) * batch
        metrics |= moved(theta, ascent.theta) | {"rate": rate} | taught
        if curriculum:
            ended, counted, slots, params = put(ends(agents), home())
            curriculum, learned = teacher.finish(curriculum, end_key, ended, counted, slots, params)
            metrics |= learned
        return SearchState(ascent, state.key, state.generation + 1, agents, curriculum), metrics

    def watched_window(state: SearchState, newborn: Newborn, finite: Array) -> LivedOn:
        theta = state.strategy.theta
        number = jnp.arange(g.agents, dtype=jnp.int32)
        return LivedOn(
            cohort,
            theta,
            hyper,
            number,
            jnp.zeros(g.agents),
            put(state.agents, home()),
            newborn,
            updates,
            put(finite, home()),
            functools.partial(alone, *put((theta, hyper, weights), home())),
        )

    def memory(state: SearchState) -> int:
        fresh, life_keys, _, _ = draw_births(
            state.key, state.generation, world.env.sample_level, config.horizon, g.agents
        )
        newborn = put(Newborn(fresh, fresh.horizon, life_keys), split)
        replicated = put((state.strategy.theta, hyper, weights), shared)
        return bytes_of(everyone, *replicated, state.agents, newborn)

    def theta_of(state: SearchState) -> Theta:
        return state.strategy.theta

    return Search(
        init=init,
        step=step,
        validate=lambda state: validation(theta_of(state)),
        theta=theta_of,
        objective=objective,
        world=world,
        cohort=cohort,
        still=lambda theta: theta,
        hyper=hyper,
        memory=memory,
        columns=lambda state: teacher.columns(state.curriculum),
    )
