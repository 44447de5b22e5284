"""What a run is: frozen dataclasses and named presets.

The command line, the Python API and a run folder's ``config.json`` are this one thing. No JAX here:
the command's help must answer in a moment. Each field is followed by its help.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

CLOCKS = (
    "none",
    "constant",
    "elapsed",
    "horizon",
    "fraction",
    "fraction_log",
    "fraction_scaled",
    "remaining",
    "raw",
    "raw_scaled",
)


LARGEST = 10_000_000
"""Largest count there can be: beyond, programs that count in float32 and int32 would be wrong."""


class ConfigError(ValueError):
    """A configuration that cannot run; its text is what a person reads (exit status 2)."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is searched over."""

    rule: str = "lpg"
    """Name of an update rule, or ``file.py:make`` for one of your own."""
    clock: str = "fraction_log"
    """What the objective sees of time; ``none`` is the horizon-blind form."""
    width: int = 256
    """Width of the recurrent cell."""
    predictions: int = 8
    """Classes Y of the agent's prediction head."""
    embedding: int = 16
    """Width of the embedding of a prediction."""
    clock_gate: float = 1.0
    """The clock is multiplied by this: 0 makes the horizon-blind twin in the same program."""


@dataclass(frozen=True)
class AgentConfig:
    """Who lives under the objective."""

    network: Literal["table", "mlp", "cnn"] = "table"
    """Kind of network; a table needs an environment whose observation is a state index."""
    hidden: tuple[int, ...] = ()
    """Widths of the hidden layers of an MLP (of the dense part of a CNN)."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """The agent's optimiser."""
    policy_rate: float = 40.0
    """Learning rate of the policy head."""
    prediction_rate: float = 4.0
    """Learning rate of the prediction (or value) head."""
    clip: float = 0.5
    """Global-norm clip of each head's gradient."""
    prediction_weight: float = 0.5
    """Weight of the prediction loss, alpha_y; multiplied before the clip."""


@dataclass(frozen=True)
class RivalConfig:
    """Numbers of A2C, the hand-written rival, tuned on validation levels for this size of life."""

    a2c_policy_rate: float = 40.0
    """Learning rate of its policy head."""
    a2c_value_rate: float = 4.0
    """Learning rate of its value head."""


@dataclass(frozen=True)
class LifeConfig:
    """How an agent lives and how its life is scored."""

    environments: int = 64
    """Parallel environments B of one agent."""
    rollout: int = 20
    """Steps T of one rollout: one update."""
    evaluation_environments: int = 64
    """Fresh episodes that score a trained agent."""
    time_limit: Literal["bootstrap", "terminate"] = "bootstrap"
    """How the objective sees an episode cut by its step limit."""


@dataclass(frozen=True)
class HorizonConfig:
    """How long the lives of a search are, in updates."""

    shortest: int = 10
    """Shortest horizon."""
    longest: int = 250
    """Longest horizon; equal to the shortest for a fixed one."""


@dataclass(frozen=True)
class EvolutionConfig:
    """Evolution strategies over whole lives."""

    strategy: str = "paired"
    """``paired`` (antithetic OpenES, noise drawn where it is used), or an algorithm of evosax."""
    pairs: int = 512
    """Antithetic pairs M; the population is 2 M."""
    group: int = 16
    """Lives computed together, even; groups share one length. More: faster, more memory."""
    sigma: float = 0.1
    """Standard deviation of the perturbations."""
    sigma_decay: float = 1.0
    """Factor on sigma each generation."""
    sigma_floor: float = 0.0
    """Smallest sigma."""
    rate: float = 0.01
    """Learning rate of the outer Adam."""
    rate_decay: float = 0.999
    """Factor on the rate each generation."""
    rate_floor: float = 1e-5
    """Smallest rate."""
    beta1: float = 0.99
    """First-moment decay of the outer Adam."""
    beta2: float = 0.999
    """Second-moment decay of the outer Adam."""
    epsilon: float = 1e-8
    """Epsilon of the outer Adam."""
    shaping: Literal["pair", "centred_rank", "group_z"] = "pair"
    """How scores become weights."""
    fitness: Literal["final", "area"] = "final"
    """Score at the end of a life, or averaged along it."""
    shared_stream: bool = True
    """Partners of a pair share every random number of their lives."""
    signal_every: int = 0
    """Every so many generations, repeat one with other random numbers to see how much of a pair's
    difference is luck; 0 for never."""
    start: Literal["zero", "init"] = "zero"
    """The mean at generation 0: zeros, or the network's own initialisation."""


@dataclass(frozen=True)
class Config:
    """One search, whole: everything needed to run it again."""

    preset: str = ""
    """Name of the preset this began as."""
    env: str = "all"
    """Environment or family of levels, or ``file.py:make`` for one of your own."""
    seed: int = 0
    """Root of every random number of the search."""
    generations: int = 2500
    """Generations to run."""
    log_every: int = 10
    """Generations a chunk: how often metrics are written."""
    checkpoint_every: int = 50
    """Generations between checkpoints; a multiple of ``log_every``."""
    keep_checkpoints: int = 3
    """Checkpoints kept."""
    validation_levels: int = 64
    """Fixed held-out levels on which the mean is scored, spread over the horizons."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    life: LifeConfig = field(default_factory=LifeConfig)
    horizon: HorizonConfig = field(default_factory=HorizonConfig)
    evolution: EvolutionConfig = field(default_factory=EvolutionConfig)
    rival: RivalConfig = field(default_factory=RivalConfig)


# The published setting of TA-LPG (reference code with its authors' later correction of rate and
# sigma), every number written out: a change of a default above changes no preset.
_TA_LPG = Config(
    preset="ta-lpg",
    env="all",
    seed=0,
    generations=2500,
    log_every=10,
    checkpoint_every=50,
    keep_checkpoints=3,
    validation_levels=256,
    objective=ObjectiveConfig(
        rule="lpg", clock="fraction_log", width=256, predictions=8, embedding=16, clock_gate=1.0
    ),
    agent=AgentConfig(
        network="table",
        hidden=(),
        optimizer="sgd",
        policy_rate=40.0,
        prediction_rate=4.0,
        clip=0.5,
        prediction_weight=0.5,
    ),
    life=LifeConfig(
        environments=64, rollout=20, evaluation_environments=64, time_limit="bootstrap"
    ),
    horizon=HorizonConfig(shortest=10, longest=250),
    evolution=EvolutionConfig(
        strategy="paired",
        pairs=512,
        group=16,
        sigma=0.1,
        sigma_decay=1.0,
        sigma_floor=0.0,
        rate=0.01,
        rate_decay=0.999,
        rate_floor=1e-5,
        beta1=0.99,
        beta2=0.999,
        epsilon=1e-8,
        shaping="pair",
        fitness="final",
        shared_stream=True,
        signal_every=0,
        start="zero",
    ),
    rival=RivalConfig(a2c_policy_rate=40.0, a2c_value_rate=4.0),
)

_TA_LPG_CPU = replace(
    _TA_LPG,
    preset="ta-lpg-cpu",
    env="small",
    generations=1000,
    validation_levels=64,
    objective=replace(_TA_LPG.objective, width=32),
    life=replace(_TA_LPG.life, environments=16, evaluation_environments=16),
    horizon=HorizonConfig(shortest=5, longest=100),
    evolution=replace(_TA_LPG.evolution, pairs=64, group=16, sigma=0.2, rate=0.02),
    # The best of 100 log-uniform draws on 64 validation levels at N = 5, 10, 25, 50, 100.
    rival=RivalConfig(a2c_policy_rate=140.0, a2c_value_rate=0.21),
)

_QUICKSTART = replace(
    _TA_LPG_CPU,
    preset="quickstart",
    generations=400,
    log_every=10,
    checkpoint_every=50,
    objective=replace(_TA_LPG.objective, width=16),
    life=replace(_TA_LPG.life, environments=8, evaluation_environments=16),
    horizon=HorizonConfig(shortest=5, longest=80),
    # The best of 120 log-uniform draws on 64 validation levels at N = 5, 10, 20, 40, 80.
    rival=RivalConfig(a2c_policy_rate=90.0, a2c_value_rate=0.22),
)

_SMOKE = replace(
    _QUICKSTART,
    preset="smoke",
    generations=4,
    log_every=1,
    checkpoint_every=2,
    validation_levels=8,
    objective=replace(_TA_LPG.objective, width=8, predictions=4, embedding=4),
    life=replace(_TA_LPG.life, environments=4, rollout=8, evaluation_environments=4),
    horizon=HorizonConfig(shortest=2, longest=8),
    evolution=replace(_QUICKSTART.evolution, pairs=8, group=4),
)


def _blind(config: Config, preset: str) -> Config:
    """The horizon-blind form of a preset."""
    return replace(config, preset=preset, objective=replace(config.objective, clock="none"))


PRESETS: dict[str, tuple[str, Config]] = {
    "smoke": ("under a minute on a CPU after compilation; used by the tests", _SMOKE),
    "quickstart": ("the main job on a laptop, a few minutes", _QUICKSTART),
    "ta-lpg-cpu": ("TA-LPG at a size for 2 CPU cores, 20-40 minutes", _TA_LPG_CPU),
    "lpg-cpu": ("its horizon-blind twin at the same size", _blind(_TA_LPG_CPU, "lpg-cpu")),
    "ta-lpg": ("TA-LPG as published, for an accelerator", _TA_LPG),
    "lpg": ("LPG at the published setting of TA-LPG, for an accelerator", _blind(_TA_LPG, "lpg")),
}
"""Name -> (one line, configuration)."""


def nearest(name: str, known: Iterable[str], what: str) -> str:
    """The line a person gets for an unknown name, with the nearest known ones."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(sorted(known))}"
    return f"unknown {what} {name!r}; {hint}"


def preset(name: str) -> Config:
    """A preset by name, or from a JSON file that ``kairos list --preset NAME --json`` printed.

    Raises:
      ConfigError: the name is not known, or the file is not a configuration.
    """
    if name in PRESETS:
        return PRESETS[name][1]
    if name.endswith(".json"):
        return from_json(_read(Path(name)), source=name)
    raise ConfigError(nearest(name, PRESETS, "preset"))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or error}"
        ) from None


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON-able data."""
    return _plain(dataclasses.asdict(config))


def _plain(value: Any) -> Any:
    """Data that JSON can hold, which has no infinity: that is text there."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def to_json(config: Any) -> str:
    """A configuration as JSON text that a person can read and edit."""
    return json.dumps(to_dict(config), indent=2) + "\n"


def from_json(text: str, source: str = "configuration") -> Config:
    """The inverse of :func:`to_json`; a missing field keeps its default.

    Raises:
      ConfigError: not JSON, an unknown field, or a value of another type.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source} is not JSON: {error}") from None
    return from_dict(data, source=source)


def from_dict(data: Any, source: str = "configuration") -> Config:
    """A configuration from plain data, every field checked by name and type."""
    return _build(Config, data, source)


def _build(cls: type, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise ConfigError(f"{where} must be an object, not {type(data).__name__}")
    hints = typing.get_type_hints(cls)
    for name in data:
        if name not in hints:
            raise ConfigError(nearest(name, hints, f"field of {where}"))
    values = {name: _value(hints[name], value, f"{where}.{name}") for name, value in data.items()}
    return cls(**values)


_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def _value(hint: Any, value: Any, where: str) -> Any:
    """One value, checked against its annotation."""
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type, hint), value, where)
    origin = typing.get_origin(hint)
    if origin is Literal:
        options = typing.get_args(hint)
        if value not in options:
            raise ConfigError(nearest(str(value), map(str, options), where))
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where} must be a list, not {value!r}")
        inner = typing.get_args(hint)[0]
        return tuple(_value(inner, item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in typing.get_args(hint):
            return None
        inner = next(arg for arg in typing.get_args(hint) if arg is not type(None))
        return _value(inner, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 1e300 else math.inf
    if hint is float and value in ("inf", "-inf"):
        value = float(value)
    if type(value) is not hint:
        raise ConfigError(f"{where} must be {_KINDS[hint]}, not {value!r}")
    return value


def check_sizes(**sizes: int | None) -> None:
    """Refuse counts that are not from 1 to :data:`LARGEST`; ``None`` stands for a default.

    Raises:
      ConfigError: one line with the name and the number.
    """
    for name, size in sizes.items():
        if size is not None and not 1 <= size <= LARGEST:
            bound = "at least 1" if size < 1 else f"at most {LARGEST:,}"
            raise ConfigError(f"{name} must be {bound}, not {size}")


def check_seed(seed: int) -> None:
    """Refuse a seed of which a random stream cannot be made.

    Raises:
      ConfigError: one line with the number.
    """
    if not 0 <= seed < 2**63:
        raise ConfigError(f"seed must be from 0 to 2^63 - 1, not {seed}")


def check_minutes(minutes: float | None) -> None:
    """Refuse a time limit that is over before it began; ``None`` stands for no limit.

    Raises:
      ConfigError: one line with the number.
    """
    if minutes is not None and not minutes > 0:
        raise ConfigError(f"max_minutes must be above 0, not {minutes}")


def check(config: Config) -> None:
    """Refuse what cannot run before anything compiles.

    Raises:
      ConfigError: one line with the numbers and the nearest that fit.
    """
    # Fields that Python was given are of any type, and a Literal of any value.
    _build(Config, dataclasses.asdict(config), "configuration")
    e, h, agent, rival = config.evolution, config.horizon, config.agent, config.rival
    check_sizes(
        generations=config.generations,
        log_every=config.log_every,
        checkpoint_every=config.checkpoint_every,
        keep_checkpoints=config.keep_checkpoints,
        validation_levels=config.validation_levels,
        width=config.objective.width,
        predictions=config.objective.predictions,
        embedding=config.objective.embedding,
        environments=config.life.environments,
        rollout=config.life.rollout,
        evaluation_environments=config.life.evaluation_environments,
        shortest=h.shortest,
        longest=h.longest,
        pairs=e.pairs,
        group=e.group,
    )
    for width in agent.hidden:
        check_sizes(hidden=width)
    check_seed(config.seed)
    if config.objective.clock not in CLOCKS:
        raise ConfigError(nearest(config.objective.clock, CLOCKS, "clock"))
    if h.longest < h.shortest:
        raise ConfigError(f"longest horizon {h.longest} is below the shortest, {h.shortest}")
    if e.group % 2 or (2 * e.pairs) % e.group:
        problem = "must be even (whole pairs)"
        if e.group % 2 == 0:
            problem = f"does not divide the population {2 * e.pairs}"
        raise ConfigError(f"group {e.group} {problem}: try {_nearest_group(e.pairs, e.group)}")
    if config.checkpoint_every % config.log_every:
        close = max(1, round(config.checkpoint_every / config.log_every)) * config.log_every
        raise ConfigError(
            f"checkpoint_every {config.checkpoint_every} is no multiple of log_every "
            f"{config.log_every}: try {close}"
        )
    if e.signal_every < 0:
        raise ConfigError(f"signal_every must be at least 0, not {e.signal_every}")
    if not agent.clip > 0:
        raise ConfigError(f"clip must be above 0 (inf for none), not {agent.clip}")
    for name, beta in (("beta1", e.beta1), ("beta2", e.beta2)):
        if not 0 <= beta < 1:
            raise ConfigError(f"{name} must be from 0 to below 1, not {beta}")
    above = {
        "sigma": e.sigma,
        "sigma_decay": e.sigma_decay,
        "rate": e.rate,
        "rate_decay": e.rate_decay,
        "epsilon": e.epsilon,
    }
    for name, value in above.items():
        if not (value > 0 and math.isfinite(value)):
            raise ConfigError(f"{name} must be a finite number above 0, not {value}")
    from_zero = {
        "sigma_floor": e.sigma_floor,
        "rate_floor": e.rate_floor,
        "policy_rate": agent.policy_rate,
        "prediction_rate": agent.prediction_rate,
        "prediction_weight": agent.prediction_weight,
        "a2c_policy_rate": rival.a2c_policy_rate,
        "a2c_value_rate": rival.a2c_value_rate,
    }
    for name, value in from_zero.items():
        if not (value >= 0 and math.isfinite(value)):
            raise ConfigError(f"{name} must be a finite number from 0, not {value}")
    if not math.isfinite(config.objective.clock_gate):
        raise ConfigError(f"clock_gate must be a finite number, not {config.objective.clock_gate}")


def _nearest_group(pairs: int, group: int) -> int:
    """The even divisor of a population of pairs that is nearest to a group."""
    low = [d for d in range(1, math.isqrt(pairs) + 1) if pairs % d == 0]
    fits = sorted({2 * d for d in low} | {2 * (pairs // d) for d in low})
    return min(fits, key=lambda g: abs(g - group))
