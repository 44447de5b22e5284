"""From a configuration to the static parts of a life, and to the numbers of an agent's update."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from discovery.config import AgentConfig, ConfigError, LifeConfig, ObjectiveConfig
from discovery.inner.agent import make_network
from discovery.inner.lifetime import World
from envs.base import Environment
from learned_objectives.base import Objective


@functools.cache
def make_environment(name: str) -> Environment:
    """An environment by name, the same object each time, so that programs are shared.

    Raises:
      UnknownName: nothing has this name.
      MissingExtra: its package is not installed.
      ConfigError: a file of yours fails, or makes something else.
    """
    from envs.registry import MissingExtra, UnknownName, make

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
    """The update rule of a configuration, with the agent's optimiser.

    Args:
      config: the rule's name, and values for those of its fields that it has.
      agent: tells the optimiser, where the rule has a field of that name.

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
        "optimizer": agent.optimizer,
    }
    rule = _with_fields(make_rule(config.rule), fields)
    try:
        hash(rule)
    except TypeError:
        raise ConfigError(
            f"rule {config.rule} cannot be hashed: make {type(rule).__name__} a frozen dataclass"
        ) from None
    return rule


def with_optimizer(objective: Objective, agent: AgentConfig) -> Objective:
    """The same rule for agents that use another optimiser."""
    return _with_fields(objective, {"optimizer": agent.optimizer})


def _with_fields(objective: Objective, values: dict[str, Any]) -> Objective:
    """The rule with other values for the fields that it has."""
    if not dataclasses.is_dataclass(objective):
        return objective
    known = {field.name for field in dataclasses.fields(objective) if field.init}
    chosen = {name: value for name, value in values.items() if name in known}
    return dataclasses.replace(objective, **chosen)


def make_hyper(objective: Objective, agent: AgentConfig, clock_gate: float = 1.0) -> Any:
    """Numbers of an agent's update: those of the configuration that the rule knows.

    A rule with a value head (A2C) learns it at the agent's ``prediction_rate``.
    """
    wanted = {
        "policy_rate": agent.policy_rate,
        "prediction_rate": agent.prediction_rate,
        "value_rate": agent.prediction_rate,
        "prediction_weight": agent.prediction_weight,
        "clip": agent.clip,
        "clock_gate": clock_gate,
    }
    known = getattr(objective.hyper(), "_fields", ())
    return objective.hyper(**{k: v for k, v in wanted.items() if k in known})


def static(agent: AgentConfig) -> AgentConfig:
    """What of an agent a program is compiled for; its numbers, which are data, at their defaults.

    Example:
      >>> static(AgentConfig(policy_rate=1.0)) == static(AgentConfig(policy_rate=2.0))
      True
    """
    return AgentConfig(network=agent.network, hidden=agent.hidden, optimizer=agent.optimizer)


def make_world(objective: Objective, env: str, agent: AgentConfig, life: LifeConfig) -> World:
    """Everything static about a life.

    Raises:
      ConfigError: the rule, the agent and the environment do not go together.
    """
    environment = make_environment(env)
    reason = objective.unsupported(environment.spec)
    if reason:
        raise ConfigError(reason)
    return World(
        env=environment,
        objective=objective,
        network=make_network(agent, objective.heads, environment.spec),
        environments=life.environments,
        steps=life.rollout,
        episodes=life.evaluation_environments,
        bootstrap=life.time_limit == "bootstrap",
    )
