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
from typing import Any, Literal, NamedTuple

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
    clip_log: bool | None = None
    """Hold the scaled log of the horizon in [-1, 1] (clocks ``horizon`` and ``fraction_scaled``);
    by default as the rule has it: LPO yes, LPG no."""
    log_ends: tuple[float, ...] = (10.0, 250.0)
    """Horizons, in updates of 1,280 environment steps, told as -1 and 1 by the scaled log."""
    discount_input: bool = False
    """Show LPG the discount."""
    products: Literal["float32", "bfloat16"] = "float32"
    """Of LPG's recurrent cell: ``bfloat16`` is 1.6 times as fast on a CPU at width 256, and rounds
    what is multiplied to eight bits."""
    ppo_term: bool = True
    """LPO's drift stands on top of PPO's; else it is the network's alone."""


@dataclass(frozen=True)
class UpdateConfig:
    """The update of an agent in mirror learning: PPO, DPO, LPO, TA-LPO. Defaults are MinAtar's."""

    epochs: int = 4
    """Passes over a rollout."""
    minibatches: int = 8
    """Parts of a pass, a gradient step each."""
    segments: bool = False
    """Minibatches of segments, one environment each, instead of single steps."""
    segment: int = 0
    """Steps of a segment; 0 for the whole rollout."""
    recompute: bool = False
    """Advantages and targets from the critic as it is at each minibatch, in the form of Brax."""
    adam_epsilon: float = 1e-5
    """Epsilon of the agent's Adam."""
    anneal: float = 0.0
    """How far the agent's rates fall over a life: 0 constant, 1 linearly to zero."""
    gamma: float = 0.99
    """Discount; of A2C too, and what LPG is shown of it."""
    gae_lambda: float = 0.95
    """lambda of the advantage; of A2C too."""
    entropy_bonus: float = 0.01
    """Weight of the policy's entropy; of A2C too."""
    value_weight: float = 0.5
    """Weight of the value loss."""
    value_clip: float = 0.2
    """How far a value may move from the one when acting before its loss saturates; inf for no
    bound."""
    clip_ratio: float = 0.2
    """Bound of PPO's ratio; of its term in LPO's drift, too."""


@dataclass(frozen=True)
class AgentConfig:
    """Who lives under the objective."""

    network: Literal["table", "mlp", "cnn"] = "table"
    """Kind of network; a table needs an environment whose observation is a state index."""
    hidden: tuple[int, ...] = ()
    """Widths of the hidden layers of an MLP (of the dense part of a CNN)."""
    value_hidden: tuple[int, ...] | None = None
    """The same for a value head, if it has widths of its own."""
    activation: Literal["relu", "tanh", "swish"] = "relu"
    """After each hidden layer."""
    initialisation: Literal["lecun_normal", "lecun_uniform", "orthogonal"] = "lecun_normal"
    """Of kernels; ``orthogonal`` has gain sqrt 2 for hidden layers, .01 for the last layer of the
    policy head and 1 for that of the others."""
    distribution: Literal["tanh", "clipped"] = "tanh"
    """How a Gaussian's continuous action is brought into its bounds."""
    normalise_observations: bool = False
    """Scale observations by their running mean and deviation, clipped to 5."""
    normalise_rewards: bool = False
    """Scale rewards by the running deviation of their discounted sum, clipped to 10."""
    reward_scale: float = 1.0
    """Rewards are multiplied by this where an agent learns; scores stay as they are."""
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
    # Not in the text of an agent, by which tables know their rows: few rules read it.
    update: UpdateConfig = field(default_factory=UpdateConfig, repr=False)
    """Epochs, minibatches and weights of PPO, DPO, LPO and TA-LPO."""


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
    """Lives computed together, even; groups share one length. More: faster on an accelerator, more
    memory. 0: chosen when a run begins, and written down (``outer/grouping.py``)."""
    rank: int = 0
    """Perturb matrices by products of this rank, so that all candidates share one large product
    (strategy ``paired``); 0 for full noise."""
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
    shaping: Literal["pair", "centred_rank", "group_z", "coin_flip"] = "pair"
    """How scores become weights; ``coin_flip`` ignores them, for a search that learns nothing."""
    fitness: Literal["final", "area"] = "final"
    """Score at the end of a life, or averaged along it."""
    shared_stream: bool = True
    """Partners of a pair share every random number of their lives."""
    shared_task: bool = False
    """All pairs of a generation live on one task, a level and a horizon, instead of one each."""
    signal_every: int = 0
    """Every so many generations, repeat one with other random numbers to see how much of a pair's
    difference is luck; 0 for never. The host then waits for every generation."""
    start: Literal["zero", "init"] = "zero"
    """The mean at generation 0: zeros, or the network's own initialisation."""


@dataclass(frozen=True)
class WindowConfig:
    """Which part of a life the outer loop sees at once, unless it evolves over whole lives."""

    window: int = 5
    """Updates K of a window, static; 0 for whole lives, every agent newborn."""
    score: Literal["along", "end"] = "along"
    """Score every window (of whole lives: every update), or only where a life has come to its
    horizon."""
    vote: Literal["window", "life"] = "window"
    """One vote a window, or one a life: a window then counts as much as it is of its life."""


@dataclass(frozen=True)
class GradientConfig:
    """Meta-gradients through the updates of a window, followed by Adam."""

    agents: int = 512
    """Agents that live on from step to step, each on a task of its own."""
    agents_group: int = 16
    """Agents differentiated together. More: faster, more memory."""
    meta_rate: float = 1e-4
    """Learning rate of the outer Adam."""
    meta_beta1: float = 0.9
    """First-moment decay of the outer Adam."""
    meta_beta2: float = 0.999
    """Second-moment decay of the outer Adam."""
    meta_epsilon: float = 1e-8
    """Epsilon of the outer Adam."""
    meta_clip: float = 0.5
    """Norm to which the meta-gradient is clipped, before Adam; inf for none."""
    entropy_weight: float = 0.05
    """beta_0, reward for the entropy of the agents' policies."""
    prediction_entropy_weight: float = 0.001
    """beta_1, reward for the entropy of the agents' predictions."""
    pi_hat_weight: float = 0.005
    """beta_2, penalty on the square of pi_hat."""
    y_hat_weight: float = 0.001
    """beta_3, penalty on the square of y_hat."""
    entropy_decay: bool = False
    """beta_0 falls to zero over an agent's life, as 1 - n/N."""
    discount: float = 0.99
    """gamma of the meta-objective's advantage."""
    trace: float = 0.95
    """lambda of the meta-objective's advantage."""
    train_critic: bool = True
    """Train each agent's critic; without, its advantage is that of a value of zero (tables)."""


@dataclass(frozen=True)
class CurriculumConfig:
    """GROOVE: which tasks, a level and a horizon each, are learned on."""

    curriculum: Literal["none", "groove"] = "none"
    """Fresh tasks only, or replay of those on which A2C is furthest ahead."""
    buffer: int = 4000
    """Tasks remembered."""
    replay: float = 0.5
    """Probability that a newborn agent's task is replayed."""
    sampling: Literal["rank", "proportional"] = "rank"
    """Whether the chance of being replayed falls with the rank of a task's regret or with the
    regret itself."""
    temperature: float = 1.0
    """Lower: more of the replay goes to the tasks of highest regret."""
    antagonists: int = 64
    """Lives of A2C trained together, once so many tasks wait for their regret."""


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
    estimator: Literal["evolution", "windows", "gradient"] = "evolution"
    """The outer loop: evolution over whole lives, evolution over windows of lives that go on, or
    meta-gradients."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    life: LifeConfig = field(default_factory=LifeConfig)
    horizon: HorizonConfig = field(default_factory=HorizonConfig)
    evolution: EvolutionConfig = field(default_factory=EvolutionConfig)
    window: WindowConfig = field(default_factory=WindowConfig)
    gradient: GradientConfig = field(default_factory=GradientConfig)
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    rival: RivalConfig = field(default_factory=RivalConfig)


MINATAR_AGENT = AgentConfig(
    network="mlp",
    hidden=(64, 64),
    value_hidden=None,
    activation="relu",
    initialisation="orthogonal",
    distribution="tanh",
    normalise_observations=False,
    normalise_rewards=False,
    reward_scale=1.0,
    optimizer="adam",
    policy_rate=1e-3,
    prediction_rate=1e-3,
    clip=0.5,
    prediction_weight=0.5,
    update=UpdateConfig(
        epochs=4,
        minibatches=8,
        segments=False,
        segment=0,
        recompute=False,
        adam_epsilon=1e-5,
        anneal=0.0,
        gamma=0.99,
        gae_lambda=0.95,
        entropy_bonus=0.01,
        value_weight=0.5,
        value_clip=0.2,
        clip_ratio=0.2,
    ),
)
"""An agent of PPO, DPO, LPO or TA-LPO for MinAtar, as evolved objectives were published there; the
constant rate is ours."""

MINATAR_LIFE = LifeConfig(
    environments=64, rollout=128, evaluation_environments=64, time_limit="bootstrap"
)


class BraxNumbers(NamedTuple):
    """What differs between Brax environments in LPO's published setting."""

    steps: float
    """Environment steps of a life."""
    gamma: float
    epochs: int
    segment: int
    """Steps of a segment: the unroll length of Brax's own PPO."""
    segments: int
    """Segments of a minibatch, of which there are 32."""
    entropy_bonus: float
    reward_scale: float


BRAX: dict[str, BraxNumbers] = {
    "ant": BraxNumbers(3e7, 0.97, 4, 5, 1024, 1e-2, 10.0),
    "humanoid": BraxNumbers(5e7, 0.97, 8, 10, 1024, 1e-3, 0.1),
    "halfcheetah": BraxNumbers(1e8, 0.95, 8, 20, 512, 1e-3, 1.0),
    "walker2d": BraxNumbers(5e7, 0.97, 8, 20, 256, 1e-3, 0.1),
    # Published with an action repeat of 4, which is an option of the environment's.
    "reacher": BraxNumbers(1e8, 0.95, 8, 50, 256, 1e-3, 5.0),
    # Ours, run with 256 environments. In segments of 5 steps the one agent that was tried stayed at
    # a return of 150, where Brax's own PPO came to 1,000.
    "inverted_pendulum": BraxNumbers(2e6, 0.97, 4, 20, 256, 1e-2, 10.0),
}
"""By environment (Discovered Policy Optimisation, NeurIPS 2022; the last one is ours)."""

_BRAX_ENVIRONMENTS, _BRAX_MINIBATCHES = 2048, 32


def brax_numbers(kind: str) -> BraxNumbers:
    """Those of an environment such as ``ant``; ant's with raw rewards where none are published."""
    return BRAX.get(kind, BRAX["ant"]._replace(reward_scale=1.0))


def brax_agent(kind: str) -> AgentConfig:
    """An agent of PPO, DPO, LPO or TA-LPO for a Brax environment, as LPO was published there."""
    numbers = brax_numbers(kind)
    return AgentConfig(
        network="mlp",
        hidden=(32,) * 4,
        value_hidden=(256,) * 5,
        activation="swish",
        initialisation="lecun_uniform",
        distribution="tanh",
        normalise_observations=True,
        normalise_rewards=False,
        reward_scale=numbers.reward_scale,
        optimizer="adam",
        policy_rate=3e-4,
        prediction_rate=3e-4,
        clip=math.inf,
        prediction_weight=0.5,
        update=UpdateConfig(
            epochs=numbers.epochs,
            minibatches=_BRAX_MINIBATCHES,
            segments=True,
            segment=numbers.segment,
            recompute=True,
            adam_epsilon=1e-8,
            anneal=0.0,
            gamma=numbers.gamma,
            gae_lambda=0.95,
            entropy_bonus=numbers.entropy_bonus,
            value_weight=0.5,
            value_clip=math.inf,
            clip_ratio=0.2,
        ),
    )


def brax_life(kind: str) -> LifeConfig:
    """Its sizes: 2,048 environments and as many steps as its 32 minibatches share out.

    Example:
      >>> life = brax_life("ant")
      >>> life.environments * life.rollout
      163840
    """
    numbers = brax_numbers(kind)
    segments = numbers.segments * _BRAX_MINIBATCHES // _BRAX_ENVIRONMENTS
    return LifeConfig(
        environments=_BRAX_ENVIRONMENTS,
        rollout=segments * numbers.segment,
        evaluation_environments=64,
        time_limit="bootstrap",
    )


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
    estimator="evolution",
    objective=ObjectiveConfig(
        rule="lpg",
        clock="fraction_log",
        width=256,
        predictions=8,
        embedding=16,
        clock_gate=1.0,
        clip_log=None,
        log_ends=(10.0, 250.0),
        discount_input=False,
        products="float32",
        ppo_term=True,
    ),
    agent=AgentConfig(
        network="table",
        hidden=(),
        value_hidden=None,
        activation="relu",
        initialisation="lecun_normal",
        distribution="tanh",
        normalise_observations=False,
        normalise_rewards=False,
        reward_scale=1.0,
        optimizer="sgd",
        policy_rate=40.0,
        prediction_rate=4.0,
        clip=0.5,
        prediction_weight=0.5,
        update=UpdateConfig(
            epochs=4,
            minibatches=8,
            segments=False,
            segment=0,
            recompute=False,
            adam_epsilon=1e-5,
            anneal=0.0,
            gamma=0.99,
            gae_lambda=0.95,
            entropy_bonus=0.01,
            value_weight=0.5,
            value_clip=0.2,
            clip_ratio=0.2,
        ),
    ),
    life=LifeConfig(
        environments=64, rollout=20, evaluation_environments=64, time_limit="bootstrap"
    ),
    horizon=HorizonConfig(shortest=10, longest=250),
    evolution=EvolutionConfig(
        strategy="paired",
        pairs=512,
        group=0,
        rank=0,
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
        shared_task=False,
        signal_every=0,
        start="zero",
    ),
    window=WindowConfig(window=5, score="along", vote="window"),
    gradient=GradientConfig(
        agents=512,
        agents_group=16,
        meta_rate=1e-4,
        meta_beta1=0.9,
        meta_beta2=0.999,
        meta_epsilon=1e-8,
        meta_clip=0.5,
        entropy_weight=0.05,
        prediction_entropy_weight=0.001,
        pi_hat_weight=0.005,
        y_hat_weight=0.001,
        entropy_decay=False,
        discount=0.99,
        trace=0.95,
        train_critic=True,
    ),
    curriculum=CurriculumConfig(
        curriculum="none",
        buffer=4000,
        replay=0.5,
        sampling="rank",
        temperature=1.0,
        antagonists=64,
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
    evolution=replace(_TA_LPG.evolution, pairs=64, group=4, sigma=0.2, rate=0.02),
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
    evolution=replace(_TA_LPG_CPU.evolution, group=16),
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


# Meta-gradients at the published numbers: 5,000 outer steps instead of 2,500 generations.
_TA_LPG_MG = replace(_TA_LPG, preset="ta-lpg-mg", estimator="gradient", generations=5000)
_TA_LPG_MG_CPU = replace(
    _TA_LPG_CPU,
    preset="ta-lpg-mg-cpu",
    estimator="gradient",
    generations=2000,
    log_every=20,
    checkpoint_every=100,
    gradient=replace(_TA_LPG.gradient, agents=64, agents_group=32),
)


def _groove(blind: Config, preset: str, buffer: int, antagonists: int) -> Config:
    """A meta-gradient preset with its curriculum."""
    chosen = replace(
        _TA_LPG.curriculum, curriculum="groove", buffer=buffer, antagonists=antagonists
    )
    return replace(blind, preset=preset, curriculum=chosen)


# TA-LPO on MinAtar at the published size of evolved LPO: 1e7 environment steps a life, 64 lives a
# generation; rates fall linearly, from one chosen for PPO on this game. The same under a constant
# rate, where time can enter through the drift alone: --anneal 0 and a lower --policy-rate and
# --prediction-rate.
_TA_LPO = replace(
    _TA_LPG,
    preset="ta-lpo",
    env="SpaceInvaders-MinAtar",
    generations=800,
    log_every=5,
    checkpoint_every=10,
    validation_levels=16,
    objective=replace(_TA_LPG.objective, rule="lpo", clock="fraction", width=128),
    agent=replace(
        MINATAR_AGENT,
        policy_rate=7e-3,
        prediction_rate=7e-3,
        update=replace(MINATAR_AGENT.update, anneal=1.0),
    ),
    life=MINATAR_LIFE,
    horizon=HorizonConfig(shortest=1220, longest=1220),
    evolution=replace(
        _TA_LPG.evolution,
        pairs=32,
        group=0,
        sigma=0.03,
        sigma_decay=0.99,
        sigma_floor=0.01,
        rate=0.03,
        rate_decay=0.99,
        rate_floor=0.001,
        shaping="centred_rank",
    ),
    # Of the public code, for Adam; not tuned for lives of this size.
    rival=RivalConfig(a2c_policy_rate=5e-4, a2c_value_rate=5e-4),
)

# LPO as published, on another backend of another version of Brax: 3e7 environment steps a life.
_LPO_BRAX = replace(
    _TA_LPO,
    preset="lpo-brax",
    env="brax/ant/positional",
    generations=1025,
    objective=replace(_TA_LPO.objective, clock="none"),
    agent=brax_agent("ant"),
    life=brax_life("ant"),
    horizon=HorizonConfig(shortest=183, longest=183),
    evolution=replace(
        _TA_LPO.evolution,
        pairs=16,
        group=0,
        sigma=0.04,
        sigma_decay=0.999,
        sigma_floor=0.01,
        rate=0.01,
        rate_decay=0.999,
        rate_floor=0.001,
        shaping="group_z",
    ),
    rival=RivalConfig(a2c_policy_rate=3e-4, a2c_value_rate=3e-4),
)

# Catch in 3,072 steps, where PPO at the better of two constant rates catches 86 of 100 balls.
_TA_LPO_CPU = replace(
    _TA_LPO,
    preset="ta-lpo-cpu",
    env="Catch-bsuite",
    generations=400,
    log_every=10,
    checkpoint_every=50,
    validation_levels=64,
    agent=replace(
        MINATAR_AGENT,
        policy_rate=0.01,
        prediction_rate=0.01,
        update=replace(MINATAR_AGENT.update, minibatches=4),
    ),
    life=replace(MINATAR_LIFE, environments=8, rollout=16),
    horizon=HorizonConfig(shortest=24, longest=24),
    evolution=replace(_TA_LPO.evolution, group=32, sigma=0.1, sigma_floor=0.03),
)

PRESETS: dict[str, tuple[str, Config]] = {
    "smoke": ("under a minute on a CPU after compilation; used by the tests", _SMOKE),
    "quickstart": ("the main job on a laptop, a few minutes", _QUICKSTART),
    "ta-lpg-cpu": ("TA-LPG at a size for 2 CPU cores, 5-20 minutes", _TA_LPG_CPU),
    "lpg-cpu": ("its horizon-blind twin at the same size", _blind(_TA_LPG_CPU, "lpg-cpu")),
    "ta-lpg": ("TA-LPG as published, for an accelerator", _TA_LPG),
    "lpg": ("LPG at the published setting of TA-LPG, for an accelerator", _blind(_TA_LPG, "lpg")),
    "ta-lpg-mg-cpu": ("TA-LPG by meta-gradients, for 2 CPU cores", _TA_LPG_MG_CPU),
    "lpg-mg-cpu": ("LPG by meta-gradients, for 2 CPU cores", _blind(_TA_LPG_MG_CPU, "lpg-mg-cpu")),
    "groove-cpu": (
        "the same with a curriculum of levels and horizons (GROOVE)",
        _groove(_blind(_TA_LPG_MG_CPU, ""), "groove-cpu", buffer=500, antagonists=64),
    ),
    "ta-lpg-mg": ("TA-LPG by meta-gradients as published, for an accelerator", _TA_LPG_MG),
    "lpg-mg": ("LPG by meta-gradients, for an accelerator", _blind(_TA_LPG_MG, "lpg-mg")),
    "groove": (
        "LPG by meta-gradients with a curriculum (GROOVE), for an accelerator",
        _groove(_blind(_TA_LPG_MG, ""), "groove", buffer=4000, antagonists=64),
    ),
    "ta-lpo-cpu": ("TA-LPO on a small game, for 2 CPU cores, 10-20 minutes", _TA_LPO_CPU),
    "lpo-cpu": ("its horizon-blind twin at the same size", _blind(_TA_LPO_CPU, "lpo-cpu")),
    "ta-lpo": ("TA-LPO on a MinAtar game as LPO was published there, for accelerators", _TA_LPO),
    "lpo": ("LPO on a MinAtar game as published, for accelerators", _blind(_TA_LPO, "lpo")),
    "lpo-brax": ("LPO on Brax's ant as published, for accelerators", _LPO_BRAX),
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
    g, c, update = config.gradient, config.curriculum, config.agent.update
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
        epochs=update.epochs,
        minibatches=update.minibatches,
        shortest=h.shortest,
        longest=h.longest,
        pairs=e.pairs,
        group=e.group or None,
        agents=g.agents,
        agents_group=g.agents_group,
        buffer=c.buffer,
        antagonists=c.antagonists,
    )
    for width in agent.hidden:
        check_sizes(hidden=width)
    for width in agent.value_hidden or ():
        check_sizes(value_hidden=width)
    check_seed(config.seed)
    if config.objective.clock not in CLOCKS:
        raise ConfigError(nearest(config.objective.clock, CLOCKS, "clock"))
    ends = config.objective.log_ends
    if len(ends) != 2 or not 0 < ends[0] < ends[1] < math.inf:
        raise ConfigError(f"log_ends must be two rising numbers above 0, not {ends}")
    if h.longest < h.shortest:
        raise ConfigError(f"longest horizon {h.longest} is below the shortest, {h.shortest}")
    if e.group and (e.group % 2 or (2 * e.pairs) % e.group):
        problem = "must be even (whole pairs)"
        if e.group % 2 == 0:
            problem = f"does not divide the population {2 * e.pairs}"
        raise ConfigError(f"group {e.group} {problem}: try {_nearest_group(e.pairs, e.group)}")
    if config.estimator == "gradient" and g.agents % g.agents_group:
        fits = min(_divisors(g.agents), key=lambda d: abs(d - g.agents_group))
        raise ConfigError(
            f"agents_group {g.agents_group} does not divide {g.agents} agents: try {fits}"
        )
    _check_window(config)
    _check_curriculum(config)
    _check_update(update)
    _check_mixture(config)
    if config.checkpoint_every % config.log_every:
        close = max(1, round(config.checkpoint_every / config.log_every)) * config.log_every
        raise ConfigError(
            f"checkpoint_every {config.checkpoint_every} is no multiple of log_every "
            f"{config.log_every}: try {close}"
        )
    if e.shared_task and (config.estimator != "evolution" or len(mixed(config.env)) > 1):
        raise ConfigError("shared_task is for whole lives in one environment: leave it out")
    if e.shared_task and c.curriculum != "none":
        raise ConfigError("a curriculum chooses a task for each pair: leave out --shared-task")
    _check_rank(config)
    if e.signal_every < 0:
        raise ConfigError(f"signal_every must be at least 0, not {e.signal_every}")
    if not agent.clip > 0:
        raise ConfigError(f"clip must be above 0 (inf for none), not {agent.clip}")
    if not g.meta_clip > 0:
        raise ConfigError(f"meta_clip must be above 0 (inf for none), not {g.meta_clip}")
    betas = (
        ("beta1", e.beta1),
        ("beta2", e.beta2),
        ("meta_beta1", g.meta_beta1),
        ("meta_beta2", g.meta_beta2),
    )
    for name, beta in betas:
        if not 0 <= beta < 1:
            raise ConfigError(f"{name} must be from 0 to below 1, not {beta}")
    above = {
        "sigma": e.sigma,
        "sigma_decay": e.sigma_decay,
        "rate": e.rate,
        "rate_decay": e.rate_decay,
        "epsilon": e.epsilon,
        "meta_epsilon": g.meta_epsilon,
        "temperature": c.temperature,
        "reward_scale": agent.reward_scale,
        "adam_epsilon": update.adam_epsilon,
        "clip_ratio": update.clip_ratio,
    }
    for name, value in above.items():
        if not (value > 0 and math.isfinite(value)):
            raise ConfigError(f"{name} must be a finite number above 0, not {value}")
    from_zero = {
        "meta_rate": g.meta_rate,
        "sigma_floor": e.sigma_floor,
        "rate_floor": e.rate_floor,
        "policy_rate": agent.policy_rate,
        "prediction_rate": agent.prediction_rate,
        "prediction_weight": agent.prediction_weight,
        "value_weight": update.value_weight,
        "a2c_policy_rate": rival.a2c_policy_rate,
        "a2c_value_rate": rival.a2c_value_rate,
    }
    for name, value in from_zero.items():
        if not (value >= 0 and math.isfinite(value)):
            raise ConfigError(f"{name} must be a finite number from 0, not {value}")
    finite = {
        "clock_gate": config.objective.clock_gate,
        "entropy_bonus": update.entropy_bonus,
        "entropy_weight": g.entropy_weight,
        "prediction_entropy_weight": g.prediction_entropy_weight,
        "pi_hat_weight": g.pi_hat_weight,
        "y_hat_weight": g.y_hat_weight,
    }
    for name, value in finite.items():
        if not math.isfinite(value):
            raise ConfigError(f"{name} must be a finite number, not {value}")
    shares = {
        "discount": g.discount,
        "trace": g.trace,
        "replay": c.replay,
        "anneal": update.anneal,
        "gamma": update.gamma,
        "gae_lambda": update.gae_lambda,
    }
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise ConfigError(f"{name} must be from 0 to 1, not {value}")


def _check_window(config: Config) -> None:
    """Refuse windows that the estimator does not have."""
    w = config.window
    if w.window < 0:
        raise ConfigError(f"window.window must be at least 0 (whole lives), not {w.window}")
    if config.estimator == "windows" and w.window == 0:
        raise ConfigError("evolution over whole lives is --estimator evolution, not windows of 0")
    updates = w.window or config.horizon.longest
    if config.estimator != "evolution" and updates > 1000:
        flag = "--window" if w.window else "--longest"
        raise ConfigError(
            f"a window of {updates} updates does not fit: lower {flag} to 1000, or give --window 5"
        )
    if config.estimator == "windows":
        _check_windows(config.evolution)


def _check_rank(config: Config) -> None:
    """Refuse low-rank noise where there is none."""
    e = config.evolution
    if not 0 <= e.rank <= LARGEST:
        raise ConfigError(f"rank must be at least 0 (full noise), not {e.rank}")
    if e.rank and config.estimator == "gradient":
        raise ConfigError("rank is of evolution's noise, and meta-gradients have none: give 0")
    if e.rank and e.strategy != "paired":
        raise ConfigError(
            f"{e.strategy} of evosax draws full noise: give --rank 0, or --strategy paired"
        )


def _check_windows(e: EvolutionConfig) -> None:
    """Refuse what evolution over windows would not listen to."""
    if e.fitness == "area":
        raise ConfigError("windows are scored by --score along, not by --fitness area")
    if e.signal_every:
        raise ConfigError("signal_every repeats whole lives, and windows have none: give 0")
    if not e.shared_stream:
        raise ConfigError("partners share the stream of a window: leave out --no-shared-stream")


def _check_update(update: UpdateConfig) -> None:
    """Refuse minibatches that mirror learning does not have."""
    if update.segment < 0:
        raise ConfigError(f"segment must be at least 0 (the whole rollout), not {update.segment}")
    for name in ("recompute", "segment"):
        if getattr(update, name) and not update.segments:
            raise ConfigError(f"{name} is for minibatches of segments: give --segments")
    if not update.value_clip > 0:
        raise ConfigError(f"value_clip must be above 0 (inf for none), not {update.value_clip}")


def mixed(env: str) -> tuple[str, ...]:
    """The environments of a search: several stand in one name with commas between them.

    Example:
      >>> mixed("dense,sparse")
      ('dense', 'sparse')
    """
    path, _, attribute = env.rpartition(":")
    if "," not in attribute and Path(path).is_file():  # one of your own, whatever its path
        return (env,)
    return tuple(part.strip() for part in env.split(","))


def _check_mixture(config: Config) -> None:
    """Refuse to rank returns of one environment among those of another."""
    shaping = config.evolution.shaping
    # Evolution over whole lives keeps environments apart (``outer/several.py``).
    ranks = config.estimator == "windows" and shaping in ("centred_rank", "group_z")
    if ranks and len(mixed(config.env)) > 1:
        raise ConfigError(
            f"returns of {config.env.replace(',', ' and ')} do not compare, and {shaping} ranks "
            "them together: use --shaping pair"
        )


def _check_curriculum(config: Config) -> None:
    """Refuse a buffer that its active tasks could fill."""
    c = config.curriculum
    if c.curriculum == "none":
        return
    living = tasks(config)
    least = 2 * living + c.antagonists
    if c.buffer < least:
        raise ConfigError(
            f"a buffer of {c.buffer} is too small for {living} tasks at once and "
            f"{c.antagonists} antagonists: at least {least}"
        )


def tasks(config: Config) -> int:
    """Tasks that are lived on at once: one an agent, or one a pair of candidates."""
    return config.gradient.agents if config.estimator == "gradient" else config.evolution.pairs


def population(config: Config) -> tuple[int, int]:
    """Lives of a generation, and how many of them are computed together (0: left open)."""
    if config.estimator == "gradient":
        return config.gradient.agents, config.gradient.agents_group
    return 2 * config.evolution.pairs, config.evolution.group


def _nearest_group(pairs: int, group: int) -> int:
    """The even divisor of a population of pairs that is nearest to a group."""
    return min((2 * d for d in _divisors(pairs)), key=lambda g: abs(g - group))


def _divisors(number: int) -> list[int]:
    low = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return sorted({*low, *(number // d for d in low)})
