"""Rivals that know the time: hand-written rules, and LPG's agents, on evolved schedules.

A learned objective with a clock is to be compared with rules whose numbers follow the same clock.
Here a search moves a handful of scalars around the numbers of ``hyper``, which stay data. Also
here: a policy sharpened by one temperature.

Shape legend: ``K`` draws of a random search. All other arrays are scalars ``[]``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from learned_objectives import clock as clocks
from learned_objectives import descent
from learned_objectives.base import (
    Experience,
    Head,
    Key,
    Learner,
    Network,
    Outputs,
    Report,
    Spec,
    Theta,
    Time,
)
from learned_objectives.handwritten import A2C
from learned_objectives.lpg import LPG, LPGHyper
from learned_objectives.mirror import DPO, PPO, Scalar

Form = Literal["constant", "scheduled", "scheduled_N"]
Knobs: TypeAlias = Mapping[str, Float[Array, "*K"]]
"""What a search moves of one number: ``a`` its level, ``q`` its fall, ``b`` its power of N."""

KNOBS: dict[Form, tuple[str, ...]] = {
    "constant": ("a",),
    "scheduled": ("a", "q"),
    "scheduled_N": ("a", "b", "q"),
}
"""Form -> what it moves of each number."""

SCALE = 3.0
"""Of all knobs: a step of .1 in one is a factor :math:`e^{.3} = 1.35` in the number."""


# --- one number -------------------------------------------------------------------------------


def number(reference: Scalar, knobs: Knobs, time: Time) -> Float[Array, ""]:
    r"""A number of an agent's update, at a point of its life.

    With :math:`t = n/N` and the scaled log of the horizon :math:`l` of ``clock.py``,

    .. math:: h(n, N) = e^{a_h + b_h l} (1 - (1 - c_h) t), \quad
              a_h = \ln h_{ref} + 3 a, \quad b_h = 3 b, \quad c_h = 2 \sigma(6 q) = 1 + \tanh 3q

    A knob that is absent is zero, and all knobs at zero are the reference itself, exactly. From
    there c goes both ways: a number can fall to nothing, or rise to twice its start. A step of .1
    is a factor 1.35 of the number for a; for b at :math:`|l| = 1`, the ends of horizons from 10 to
    250; and for q at the end of life, where steps of .1 down and up from zero differ by the factor
    :math:`1.35^2`, as they do for a.

    Args:
      reference: :math:`h_{ref}`, not negative; zero stays zero.
      knobs: ``a``, ``b`` and ``q``, or some of them.
      time: where the agent stands.

    Returns:
      The number, in the dtype of the knobs.

    Example:
      >>> time = Time(n=jnp.asarray(5), N=jnp.asarray(10), unit=jnp.asarray(1.0))
      >>> float(number(40.0, {"a": jnp.zeros(()), "q": jnp.zeros(())}, time))
      40.0
      >>> round(float(number(40.0, {"a": jnp.zeros(()), "q": jnp.asarray(-9.0)}, time)), 3)
      20.0

    Source: the form is our own; a rate that falls linearly to zero is common for PPO.
    """
    dtype = knobs["a"].dtype
    fraction, log = clocks.features("fraction_scaled", time, dtype)
    level = SCALE * knobs["a"]
    if "b" in knobs:
        level += SCALE * knobs["b"] * log
    start = jnp.asarray(reference, dtype) * jnp.exp(level)
    return start * (1 + jnp.tanh(SCALE * knobs["q"]) * fraction) if "q" in knobs else start


def _at(theta: Mapping[str, Knobs], hyper: Any, time: Time) -> Any:
    """The numbers of an update with those of theta on their schedules."""
    told = {name: number(getattr(hyper, name), knobs, time) for name, knobs in theta.items()}
    return hyper._replace(**told)


class Settled(NamedTuple):
    """A schedule in plain units."""

    start: float
    """The number at birth, for a horizon of 50 updates of 1,280 environment steps."""
    end: float
    """What it goes to along a life, at that horizon."""
    per_octave: float
    """The factor by which both are larger for twice the horizon."""


def _settled(theta: Mapping[str, Knobs], hyper: Any) -> dict[str, Settled]:
    def settle(reference: Any, knobs: Knobs) -> Settled:
        a, b, q = (SCALE * float(knobs.get(knob, 0)) for knob in ("a", "b", "q"))
        start = float(reference) * math.exp(a)
        return Settled(start, start * (1 + math.tanh(q)), 2 ** (b / math.log(5)))

    return {name: settle(getattr(hyper, name), knobs) for name, knobs in theta.items()}


# --- a hand-written rule ----------------------------------------------------------------------

LEVELS = {
    "policy_rate": 30.0,
    "value_rate": 30.0,
    "entropy_weight": 10.0,
    "clip_ratio": 4.0,
}
"""Number -> the factor, up or down, within which :meth:`Scheduled.random_search` draws it."""

LARGEST_POWER = 4.0
"""The same for the factor between a horizon of 50 updates and one of 250."""

SMALLEST_END = 0.02
"""The same for c, from here to 1."""


@dataclass(frozen=True)
class Scheduled:
    r"""A hand-written rule whose numbers a search tunes, and may put on a schedule.

    Policy rate, value rate, entropy weight and PPO's bound of the ratio each follow
    :func:`number`. Theta is ``{number: {knob: []}}``; ``hyper`` is the rule's own, and is the
    reference: theta means nothing without the one it was tuned around. ``constant`` moves the level
    of each number, ``scheduled`` its fall along a life too, and ``scheduled_N`` also its power of
    the horizon, so that it is told what a temporally-aware objective is told. An oracle is
    ``constant`` tuned apart for each horizon. MirrorHyper's own ``anneal`` multiplies the rates
    beside all this. Gradients reach every knob but those of the bound of PPO's ratio, in which an
    update is piecewise constant.
    """

    rule: A2C | PPO | DPO
    form: Form = "scheduled"

    @property
    def numbers(self) -> tuple[str, ...]:
        """Fields of ``hyper`` that theta moves."""
        common = ("policy_rate", "value_rate", "entropy_weight")
        return (*common, "clip_ratio") if isinstance(self.rule, PPO) else common

    @property
    def heads(self) -> Mapping[str, Head]:
        """Those of the rule."""
        return self.rule.heads

    def unsupported(self, spec: Spec) -> str | None:
        """As the rule says."""
        return self.rule.unsupported(spec)

    def init(self, key: Key) -> Theta:
        """Zeros, whatever the key: the reference, constant along a life."""
        return {name: {knob: jnp.zeros(()) for knob in KNOBS[self.form]} for name in self.numbers}

    def hyper(self, **overrides: float) -> Any:
        """The rule's own: the reference around which theta moves."""
        return self.rule.hyper(**overrides)

    def at(self, theta: Theta, hyper: Any, time: Time) -> Any:
        """The rule's numbers at a point of a life.

        Args:
          theta: knobs of each number.
          hyper: the reference.
          time: where the agent stands.

        Returns:
          As ``hyper``, the numbers of theta replaced.
        """
        return _at(theta, hyper, time)

    def settled(self, theta: Theta, hyper: Any) -> dict[str, Settled]:
        """What theta says, for people.

        Args:
          theta: of arrays, one candidate.
          hyper: the reference.

        Returns:
          For each number, where it starts, where it goes, and what twice the horizon does to it.

        Example:
          >>> rule = Scheduled(A2C(), "constant")
          >>> rule.settled(rule.init(jax.random.key(0)), rule.hyper())["policy_rate"]
          Settled(start=40.0, end=40.0, per_octave=1.0)
        """
        return _settled(theta, hyper)

    def random_search(self, key: Key, count: int) -> Theta:
        r"""Draws for tuning by validation alone, each number independent of the others.

        The start of a number, over its reference, is log-uniform within a factor 30 down or up for
        rates, 10 for the entropy weight and 4 for the bound of the ratio; its factor from a horizon
        of 50 to one of 250 is log-uniform in [1/4, 4]; c is log-uniform in [.02, 1].

        Args:
          key: consumed.
          count: K.

        Returns:
          Theta with leaves ``[K]``.

        Example:
          >>> rule = Scheduled(PPO(), "constant")
          >>> sorted(rule.random_search(jax.random.key(0), 256))
          ['clip_ratio', 'entropy_weight', 'policy_rate', 'value_rate']
        """

        def draw(key: Key, name: str, knob: str) -> Float[Array, " K"]:
            if knob == "q":
                log_end = jax.random.uniform(
                    key, (count,), minval=math.log(SMALLEST_END), maxval=0.0
                )
                return jnp.arctanh(jnp.expm1(log_end)) / SCALE
            reach = math.log(LEVELS[name] if knob == "a" else LARGEST_POWER)
            return jax.random.uniform(key, (count,), minval=-reach, maxval=reach) / SCALE

        knobs = KNOBS[self.form]
        keys = iter(jax.random.split(key, len(self.numbers) * len(knobs)))
        return {
            name: {knob: draw(next(keys), name, knob) for knob in knobs} for name in self.numbers
        }

    def birth(self, theta: Theta, hyper: Any, network: Network, params: Any) -> Learner:
        """A learner of the rule."""
        return self.rule.birth((), hyper, network, params)

    def signals(
        self,
        theta: Theta,
        hyper: Any,
        network: Network,
        learner: Learner,
        experience: Experience,
        time: Time,
    ) -> dict[str, Array]:
        """What the rule says."""
        now = self.at(theta, hyper, time)
        return self.rule.signals((), now, network, learner, experience, time)

    def update(
        self,
        theta: Theta,
        hyper: Any,
        network: Network,
        learner: Learner,
        experience: Experience,
        time: Time,
        key: Key,
    ) -> tuple[Learner, Report]:
        """The rule's update with the numbers of this moment."""
        now = self.at(theta, hyper, time)
        return self.rule.update((), now, network, learner, experience, time, key)


# --- by name: a rule's fields beside a fixed form, so that cards can tell them ------------------


@dataclass(frozen=True)
class A2CScheduled(Scheduled):
    """A2C whose numbers change along a life."""

    rule: A2C = field(init=False)
    form: Form = field(init=False, default="scheduled")
    optimizer: descent.Kind = "sgd"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rule", A2C(self.optimizer))


@dataclass(frozen=True)
class A2CConstant(A2CScheduled):
    """A2C whose numbers are tuned, constant."""

    form: Form = field(init=False, default="constant")


@dataclass(frozen=True)
class A2CScheduledN(A2CScheduled):
    """A2C whose numbers change along a life and with the horizon."""

    form: Form = field(init=False, default="scheduled_N")


@dataclass(frozen=True)
class PPOScheduled(Scheduled):
    """PPO whose numbers change along a life; its fields are those of PPO."""

    rule: PPO = field(init=False)
    form: Form = field(init=False, default="scheduled")
    epochs: int = 4
    minibatches: int = 8
    optimizer: descent.Kind = "adam"
    adam_epsilon: float = 1e-5
    segments: bool = False
    segment: int = 0
    recompute: bool = False

    def __post_init__(self) -> None:
        own = {each.name: getattr(self, each.name) for each in fields(PPO)}
        object.__setattr__(self, "rule", PPO(**own))


@dataclass(frozen=True)
class PPOConstant(PPOScheduled):
    """PPO whose numbers are tuned, constant."""

    form: Form = field(init=False, default="constant")


@dataclass(frozen=True)
class PPOScheduledN(PPOScheduled):
    """PPO whose numbers change along a life and with the horizon."""

    form: Form = field(init=False, default="scheduled_N")


# --- LPG ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AnnealedLPG(LPG):
    r"""LPG whose agents' two rates are ``scheduled``, evolved together with what it says.

    Theta is ``{"lpg": ..., "anneal": {"policy_rate": {"a": [], "q": []}, "prediction_rate": ...}}``
    with the knobs of :func:`number`; zeros in ``anneal`` are LPG. The fields are LPG's: without a
    clock of its own, time reaches its agents through their rates alone.
    """

    @property
    def plain(self) -> LPG:
        """LPG of the same fields."""
        return LPG(**vars(self))

    def init(self, key: Key) -> Theta:
        """LPG's own start; rates at their reference, constant."""
        names = ("policy_rate", "prediction_rate")
        anneal = {name: {knob: jnp.zeros(()) for knob in KNOBS["scheduled"]} for name in names}
        return {"lpg": self.plain.init(key), "anneal": anneal}

    def at(self, theta: Theta, hyper: LPGHyper, time: Time) -> LPGHyper:
        """LPG's numbers at a point of a life; see :meth:`Scheduled.at`."""
        now: LPGHyper = _at(theta["anneal"], hyper, time)
        return now

    def settled(self, theta: Theta, hyper: LPGHyper) -> dict[str, Settled]:
        """What the rates do, for people; see :meth:`Scheduled.settled`."""
        return _settled(theta["anneal"], hyper)

    def signals(
        self,
        theta: Theta,
        hyper: LPGHyper,
        network: Network,
        learner: Learner,
        experience: Experience,
        time: Time,
    ) -> dict[str, Array]:
        """What LPG says, which does not depend on rates."""
        return self.plain.signals(theta["lpg"], hyper, network, learner, experience, time)

    def update(
        self,
        theta: Theta,
        hyper: LPGHyper,
        network: Network,
        learner: Learner,
        experience: Experience,
        time: Time,
        key: Key,
    ) -> tuple[Learner, Report]:
        """LPG's update at the rates of this moment."""
        now = self.at(theta, hyper, time)
        return self.plain.update(theta["lpg"], now, network, learner, experience, time, key)

    def without_clock(self, theta: Theta) -> tuple[LPG, Theta]:
        """As LPG; the rates keep their schedule, which is not the clock's."""
        blind, said = self.plain.without_clock(theta["lpg"])
        return AnnealedLPG(**vars(blind)), {**theta, "lpg": said}

    def baked(self, theta: Theta, gate: float) -> tuple[LPG, Theta]:
        """As LPG; the rates keep their schedule."""
        gated, said = self.plain.baked(theta["lpg"], gate)
        return AnnealedLPG(**vars(gated)), {**theta, "lpg": said}


# --- a sharpened policy -------------------------------------------------------------------------


def sharpened(network: Network, temperature: Scalar) -> Network:
    r"""The same network with a policy at another temperature, :math:`\pi_T \propto \pi^{1/T}`.

    For policies over discrete actions, whose head holds logits: they are divided by T wherever the
    network puts them out. Other heads stay as they are.

    Args:
      network: of an agent with discrete actions.
      temperature: T, above 0; below 1 sharpens, and 1 changes nothing. Data: one compiled program
        serves all.

    Returns:
      A network over the same parameters.
    """

    def cooled(outputs: Outputs) -> Outputs:
        logits = outputs["policy"]
        return {**outputs, "policy": logits / jnp.asarray(temperature, logits.dtype)}

    def act(params: PyTree, observation: PyTree) -> Outputs:
        return cooled(network.act(params, observation))

    def unroll(params: PyTree, experience: Experience) -> tuple[Outputs, Outputs]:
        now, after = network.unroll(params, experience)
        return cooled(now), cooled(after)

    return network._replace(act=act, unroll=unroll)
