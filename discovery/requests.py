"""What a person may ask of the command: a frozen dataclass a verb, every field a flag.

The Python API takes the same objects. No JAX here. Each field is followed by its help.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from discovery.config import Config, ConfigError


@dataclass(frozen=True)
class ListConfig:
    """Objectives, environments, presets and figures."""

    preset: str = ""
    """Print this preset whole; edited and saved as a file, it can be given to --preset."""
    json: bool = False
    """Print data instead of a page."""


@dataclass(frozen=True)
class EvolveConfig:
    """Search for an objective. --preset gives the defaults of all that describes the search."""

    config: Config = field(default_factory=Config)
    objective: str = ""
    """Short for --rule."""
    out: str = ""
    """Run folder; by default runs/<preset>-<seed>."""
    overwrite: bool = False
    """Remove the run that is in the run folder."""
    resume: str = ""
    """Run folder to go on with, exactly where it stopped; only --generations may differ."""
    from_generation: int | None = None
    """With --resume: go on from this checkpoint instead of the newest."""
    like: str = ""
    """Run folder whose search to do again, from its beginning, in <folder>-again; it is told what
    differs, and in the end whether the bytes are the same."""
    seeds: str = ""
    """One run folder a seed, such as 0-4 or 0,3,7."""
    max_minutes: float | None = None
    """Save and stop after this time."""
    devices: int | None = None
    """Virtual CPU devices; by default one a core."""
    hosts: str = ""
    """Other processes of this run: ADDRESS:PORT,COUNT,INDEX of this one; auto, for JAX to find out;
    alone. By default as a launcher tells (SLURM, Open MPI, workers of a TPU)."""
    keep_nonfinite: bool = False
    """Keep the parameters of candidates and agents whose lives were not finite, in nonfinite/."""
    debug_nans: bool = False
    """Stop at the first life or number of the search that is not finite, and name its first leaf
    that is not. The host then waits for every generation."""
    tensorboard: bool = False
    """Also write TensorBoard's event files."""
    wandb: bool = False
    """Also log to Weights & Biases."""
    quiet: bool = False
    """Print nothing but errors."""


@dataclass(frozen=True)
class TuneConfig:
    """Tune a hand-written rule (a2c-scheduled-n, ppo-constant, ...): the search that a learned
    objective gets, and random draws; the better of both on validation levels is kept."""

    config: Config = field(default_factory=Config)
    draws: int = 256
    """Log-uniform draws of the rule's numbers, besides the reference."""
    out: str = ""
    """Folder; by default runs/tuned-<rule>-<seed>."""
    overwrite: bool = False
    """Begin anew where something is."""
    max_minutes: float | None = None
    """Stop the search after this time; the same command goes on."""
    devices: int | None = None
    """Virtual CPU devices; by default one a core."""


@dataclass(frozen=True)
class EvaluateConfig:
    """Score objectives at several horizons: one tidy table."""

    objectives: tuple[str, ...]
    """Run folders, shipped or hand-written objectives, or file.py:make."""
    env: str = "small"
    """Environment or family of levels, or file.py:make."""
    envs: tuple[str, ...] = ()
    """Several of them, one after another, instead of --env."""
    horizons: tuple[int, ...] = (5, 10, 25, 50, 100, 250)
    """Horizons, in updates."""
    seeds: int = 1
    """Agents a level and horizon."""
    levels: int = 64
    """Levels of the stream."""
    stream: Literal["validation", "test"] = "test"
    """Which fixed levels: those for choosing, or those for reporting."""
    actions: Literal["sampled", "greedy", "both"] = "sampled"
    """How a trained agent acts when it is scored."""
    area: bool = False
    """Also score agents along their lives."""
    reference: bool = False
    """Where no best return is known, normalise by a tuned PPO at the longest horizon, measured
    first and kept beside the table."""
    profiles: bool = False
    """Also draw performance profiles: the share of agents above every score."""
    sharpen: bool = False
    """Also score the same agents by a sharper policy, its temperature chosen on validation levels
    for each objective."""
    false_clocks: bool = False
    """Also lie to the objectives about time, and tell what score that costs them."""
    nulls: tuple[str, ...] = ()
    """With --false-clocks: objectives of searches that could learn nothing, to compare with."""
    environments: int | None = None
    """Parallel environments of one agent; by default as the first objective was trained."""
    rollout: int | None = None
    """Steps of one rollout; by default as the first objective was trained."""
    group: int = 32
    """Lives computed together; more: faster, more memory."""
    times: bool = True
    """Keep wall times in the table; without them it is the same bytes however often it was stopped
    and gone on with."""
    out: str = ""
    """Table, .csv or .parquet; by default evaluation.csv in the first run folder, else here."""
    max_minutes: float | None = None
    """Save what is done and stop after this time."""
    devices: int | None = None
    """Virtual CPU devices; by default one a core."""


@dataclass(frozen=True)
class TrainConfig:
    """One agent, one life, with a curve."""

    objective: str = "a2c"
    """Run folder, shipped or hand-written objective, or file.py:make."""
    env: str = "small"
    """Environment or family of levels, or file.py:make."""
    horizon: int = 250
    """Updates of the life."""
    seed: int = 0
    """Root of every random number."""
    environments: int | None = None
    """Parallel environments; by default as the objective was trained."""
    rollout: int | None = None
    """Steps of one rollout; by default as the objective was trained."""
    out: str = ""
    """Folder of curve and figure; by default runs/train-<objective>-<env>-<seed>."""
    overwrite: bool = False
    """Write over what is there."""
    max_minutes: float | None = None
    """Save and stop after this time."""
    devices: int | None = None
    """Virtual CPU devices; by default one a core."""


@dataclass(frozen=True)
class InspectConfig:
    """What an objective does over a life, and whether it uses its clock: pictures."""

    objective: str
    """Run folder, shipped or hand-written objective, or file.py:make."""
    env: str = ""
    """Environment whose agents are watched; by default the one it was found in, else small."""
    horizons: tuple[int, ...] = (10, 50, 250)
    """Horizons, in updates."""
    levels: int = 16
    """Levels watched."""
    nulls: tuple[str, ...] = ()
    """Run folders of searches that could learn nothing (--shaping coin_flip), beside whose use of
    the clock its own is shown; its untrained start is always there."""
    seed: int = 0
    """Root of every random number."""
    out: str = ""
    """Folder of the figures; by default figures/ in the run folder, else inspect-<objective>."""
    devices: int | None = None
    """Virtual CPU devices; by default one a core."""


@dataclass(frozen=True)
class QuickstartConfig:
    """The main job on a laptop: evolve an objective and its horizon-blind twin, compare them."""

    out: str = "runs/quickstart"
    """Folder of everything it makes."""
    seed: int = 0
    """Root of every random number."""
    generations: int | None = None
    """Generations of each search; by default those of the preset."""
    levels: int = 256
    """Held-out levels of the comparison."""
    overwrite: bool = False
    """Remove what an earlier quickstart left there."""
    max_minutes: float | None = None
    """Save and stop after this time."""
    devices: int | None = None
    """Virtual CPU devices; by default one a core."""


@dataclass(frozen=True)
class ReproduceConfig:
    """Published claims: their searches, their tables, their pictures (kairos list names them)."""

    figures: tuple[str, ...]
    """What to reproduce, such as claim-3."""
    all: bool = False
    """Every figure there is, and a page of them all: index.html and index.md."""
    size: str = ""
    """cpu or full; by default cpu."""
    seeds: str = ""
    """Search seeds, such as 0-4 or 0,3,7; by default as many as the figure claims."""
    cells: tuple[str, ...] = ()
    """Only these cells, such as E1 E3; by default all."""
    draw: bool = False
    """Search nothing: draw the tables there are, or those that come with the package."""
    rerun: bool = False
    """Remove what there is of the chosen searches, and begin them from nothing."""
    tables: str = ""
    """Folder of the tables; by default the repository's, else tables in --out."""
    runs: str = "runs/reproduce"
    """Folder of the run folders, in one folder a figure."""
    out: str = "results"
    """Folder of pictures and page."""
    max_minutes: float | None = None
    """Save and stop after this time; the same command goes on."""
    devices: int | None = None
    """Virtual CPU devices; by default one a core."""


@dataclass(frozen=True)
class ReportConfig:
    """One page that tells all of a run: what was run, what came out, what it means."""

    folder: str
    """Run folder, or that of a quickstart; the page is report.html in it."""


@dataclass(frozen=True)
class DoctorConfig:
    """Devices, versions, memory, and which `envs` Python finds."""

    preset: str = ""
    """Also compile this preset and say what memory it takes."""
    devices: int | None = None
    """Virtual CPU devices; by default one a core."""


def seeds(text: str) -> tuple[int, ...]:
    """Seeds from text such as ``0-4`` or ``0,3,7``.

    Raises:
      ConfigError: it is something else, or names a seed twice.

    Example:
      >>> seeds("0-2,7")
      (0, 1, 2, 7)
    """
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ConfigError(f"seeds must be like 0-4 or 0,3,7, not {text!r}")
        low, high = int(first), int(last or first)
        if high < low or high - low >= 1000:
            raise ConfigError(f"seeds {part.strip()}: from low to high, at most 1,000")
        found.extend(range(low, high + 1))
    if len(set(found)) < len(found):
        raise ConfigError(f"seeds {text!r} name one seed twice")
    return tuple(found)
