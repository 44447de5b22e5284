"""From a configuration to the static parts of a life, and to the numbers of an agent's update."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal

import jax

from discovery.config import (
    AgentConfig,
    ConfigError,
    LifeConfig,
    ObjectiveConfig,
    UpdateConfig,
    mixed,
)
from discovery.inner.agent import acting, make_network
from discovery.inner.lifetime import World
from discovery.inner.scaling import Scales
from envs.base import Environment
from learned_objectives.base import Objective


@functools.cache
def make_environment(name: str) -> Environment:
    """An environment by name, the same object each time, so that programs are shared.

    Args:
      name: of one, or several with commas between them: each level is then one of one of them.

    Raises:
      UnknownName: nothing has this name.
      MissingExtra: its package is not installed.
      ConfigError: a file of yours fails or makes something else, or no agent could live in all.
    """
    from envs.mixture import mixture
    from envs.registry import MissingExtra, UnknownName, make

    parts = mixed(name)
    if len(parts) > 1:
        try:
            return mixture([make_environment(part) for part in parts])
        except ValueError as error:
            if isinstance(error, UnknownName | ConfigError):
                raise
            raise ConfigError(str(error)) from None
    try:
        return make(name)
    except (UnknownName, MissingExtra):
        raise
    except Exception as error:  # a person's file may raise anything
        file = name.rpartition(":")[0]
        if not file.endswith(".py"):
            raise
        told = (str(error).strip() or "no message").splitlines()[0]
        if not told.startswith(file):
            told = f"{name} fails: {type(error).__name__}: {told}"
        raise ConfigError(told) from error


def make_objective(config: ObjectiveConfig, agent: AgentConfig) -> Objective:
    """The update rule of a configuration, for an agent.

    Args:
      config: the rule's name, and values for those of its fields that it has.
      agent: tells optimiser, epochs and minibatches, where the rule has fields of these names.

    Returns:
      The rule, hashable: programs are found again by it.

    Raises:
      ObjectiveError: no rule has this name, or a file of yours fails.
      ConfigError: a rule of yours that cannot be hashed.
    """
    from learned_objectives.library import make_rule

    fields = {
        "width": config.width,
        "predictions": config.predictions,
        "embedding": config.embedding,
        "clock": config.clock,
        "log_ends": config.log_ends,
        "discount_input": config.discount_input,
        "products": config.products,
        "ppo_term": config.ppo_term,
        **_update_fields(agent),
    }
    if config.clip_log is not None:
        fields["clip_log"] = config.clip_log
    rule = _with_fields(make_rule(config.rule), fields)
    try:
        hash(rule)
    except TypeError:
        raise ConfigError(
            f"rule {config.rule} cannot be hashed: make {type(rule).__name__} a frozen dataclass"
        ) from None
    return rule


def with_optimizer(objective: Objective, agent: AgentConfig) -> Objective:
    """The same rule for agents of another optimiser, other epochs and minibatches."""
    return _with_fields(objective, _update_fields(agent))


def _update_fields(agent: AgentConfig) -> dict[str, Any]:
    """What of an agent's update a program is compiled for, by the names that rules have.

    Rules know no devices: what is faster on those of this process is chosen here.
    """
    read_ahead = jax.default_backend() != "cpu"
    return {"optimizer": agent.optimizer, "read_ahead": read_ahead, **_static(agent.update)}


def _static(update: UpdateConfig) -> dict[str, Any]:
    return {
        "epochs": update.epochs,
        "minibatches": update.minibatches,
        "segments": update.segments,
        "segment": update.segment,
        "recompute": update.recompute,
        "adam_epsilon": update.adam_epsilon,
    }


def _with_fields(objective: Objective, values: dict[str, Any]) -> Objective:
    """The rule with other values for the fields that it has."""
    if not dataclasses.is_dataclass(objective):
        return objective
    known = {field.name for field in dataclasses.fields(objective) if field.init}
    chosen = {name: value for name, value in values.items() if name in known}
    try:
        return dataclasses.replace(objective, **chosen)
    except ValueError as error:  # fields that do not go together, in the rule's own words
        raise ConfigError(str(error)) from None


def core(objective: Any) -> Any:
    """The rule inside of what stands around it (schedules, false clocks), or the rule itself."""
    for name in ("rule", "objective"):
        inner = getattr(objective, name, None)
        if hasattr(inner, "update"):
            return core(inner)
    return objective


def is_mirror(objective: Objective) -> bool:
    """Whether it is one of mirror learning, whatever stands around it: PPO, DPO, LPO, TA-LPO."""
    from learned_objectives.mirror import Mirror

    return isinstance(core(objective), Mirror)


def make_hyper(objective: Objective, agent: AgentConfig, clock_gate: float = 1.0) -> Any:
    """Numbers of an agent's update: those of the configuration that the rule knows.

    A rule with a value head (A2C, PPO) learns it at the agent's ``prediction_rate``.
    """
    update = agent.update
    wanted = {
        "policy_rate": agent.policy_rate,
        "prediction_rate": agent.prediction_rate,
        "value_rate": agent.prediction_rate,
        "prediction_weight": agent.prediction_weight,
        "reward_scale": agent.reward_scale,
        "clip": agent.clip,
        "clock_gate": clock_gate,
        "anneal": update.anneal,
        "discount": update.gamma,
        "trace": update.gae_lambda,
        "entropy_weight": update.entropy_bonus,
        "value_weight": update.value_weight,
        "value_clip": update.value_clip,
        "clip_ratio": update.clip_ratio,
    }
    known = getattr(objective.hyper(), "_fields", ())
    return objective.hyper(**{k: v for k, v in wanted.items() if k in known})


def static(agent: AgentConfig) -> AgentConfig:
    """What of an agent a program is compiled for; its numbers, which are data, at their defaults.

    Example:
      >>> static(AgentConfig(policy_rate=1.0)) == static(AgentConfig(policy_rate=2.0))
      True
    """
    return AgentConfig(
        network=agent.network,
        hidden=agent.hidden,
        value_hidden=agent.value_hidden,
        activation=agent.activation,
        initialisation=agent.initialisation,
        distribution=agent.distribution,
        normalise_observations=agent.normalise_observations,
        normalise_rewards=agent.normalise_rewards,
        optimizer=agent.optimizer,
        update=UpdateConfig(**_static(agent.update)),
    )


@functools.cache
def _acting(name: str, distribution: Literal["tanh", "clipped"]) -> Environment:
    """The environment in which agents act, the same object each time."""
    return acting(make_environment(name), distribution)


def make_world(objective: Objective, env: str, agent: AgentConfig, life: LifeConfig) -> World:
    """Everything static about a life.

    Raises:
      ConfigError: the rule, the agent and the environment do not go together.
    """
    environment = make_environment(env)
    reason = objective.unsupported(environment.spec)
    if reason:
        raise ConfigError(reason)
    misfit = getattr(core(objective), "misfit", None)
    if misfit is not None and (reason := misfit(life.rollout, life.environments)):
        raise ConfigError(reason)
    return World(
        env=_acting(env, agent.distribution),
        objective=objective,
        network=make_network(agent, objective.heads, environment.spec),
        environments=life.environments,
        steps=life.rollout,
        episodes=life.evaluation_environments,
        bootstrap=life.time_limit == "bootstrap",
        scales=Scales(agent.normalise_observations, agent.normalise_rewards),
    )
