"""Claim 4, *TA-LPO beats LPO and PPO on environments that it was never trained on*.

Drifts are evolved on one game, with a clock, without, and with one that stands still, at one
budget; then they are frozen and play games they never saw, beside PPO, DPO and a PPO whose numbers
follow a tuned schedule. Everything is done twice: with constant rates, where time can enter through
the drift alone, and with rates that fall to nothing, as is usual. No JAX.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from discovery.config import MINATAR_AGENT, MINATAR_LIFE, PRESETS, AgentConfig, Config, LifeConfig
from discovery.evaluation import statistics, transfer
from discovery.evaluation.claims import Conclusion, Grid
from discovery.evaluation.papers import Job
from discovery.evaluation.statistics import FEWEST_SEEDS
from discovery.evaluation.transfer import PLAYED, TEST, Place, Played, Suite, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = Any

TABLES = (PLAYED,)
AWARE, BLIND = "TA-LPO", "LPO"
SCHEDULED = "scheduled PPO"
LEARNED: dict[str, tuple[str, str]] = {
    AWARE: ("lpo", "fraction"),
    BLIND: ("lpo", "none"),
    "constant": ("lpo", "constant"),
    SCHEDULED: ("ppo-scheduled", "none"),
}
"""Cell -> rule and clock that are searched with one budget."""
HANDWRITTEN = {"PPO": "ppo", "DPO": "dpo"}
RIVALS = (BLIND, "constant", "PPO", "DPO", SCHEDULED)
CONDITIONS = {"constant rate": 0.0, "linear rate": 1.0}
"""Group -> how far agents' rates fall over a life."""
RATES = (3e-4, 1e-3, 3e-3, 1e-2)
"""Of agents, from which each objective gets its own in each condition."""
GAMES, APART = "games", "games, rate apart"
"""Suites: a rate chosen on the training game, or for each game and horizon."""
TUNING = 0.1
"""Sigma of a search for the numbers of a hand-written rule: a factor 1.35 in each."""


class Game(NamedTuple):
    """A game, and how its agents live."""

    env: str
    life: LifeConfig


class Size(NamedTuple):
    """How large everything is."""

    base: Config
    """The search for TA-LPO; its environment is the training game."""
    games: tuple[Game, ...]
    """Others, never trained on."""
    horizons: tuple[int, ...]
    """That are tested."""
    apart: tuple[int, ...]
    """Of these, where a rate is chosen for each game too."""
    agents: int
    episodes: int
    """That score an agent."""


_CPU = PRESETS["ta-lpo-cpu"][1]
SIZES = {
    "cpu": Size(
        base=replace(
            _CPU,
            preset="claim-4",
            generations=60,
            log_every=10,
            checkpoint_every=20,
            validation_levels=32,
        ),
        games=(
            Game("CartPole-v1", _CPU.life),
            Game("Asterix-MinAtar", replace(_CPU.life, environments=16, rollout=32)),
            Game("Breakout-MinAtar", replace(_CPU.life, environments=16, rollout=32)),
        ),
        horizons=(6, 24, 96),
        apart=(24,),
        agents=8,
        episodes=16,
    ),
    "full": Size(
        base=replace(PRESETS["ta-lpo"][1], preset="claim-4"),
        games=tuple(
            Game(f"{name}-MinAtar", MINATAR_LIFE) for name in ("Asterix", "Breakout", "Freeway")
        ),
        horizons=(61, 122, 305, 1220, 2440),
        apart=(1220,),
        agents=16,
        episodes=64,
    ),
}
"""Every number of the entry; the rest follows."""


def _agent(base: Config, anneal: float) -> AgentConfig:
    """The agent of the training game, its rates constant or falling."""
    update = replace(base.agent.update, anneal=anneal)
    return replace(base.agent, update=update)


def suites(size: Size, anneal: float) -> tuple[Suite, ...]:
    """The games, in one condition.

    Args:
      size: numbers.
      anneal: how far agents' rates fall over a life.

    Returns:
      The suite whose rate is chosen on the training game; and where there is any, that of rates
      chosen for each game.
    """
    base = size.base
    agent = _agent(base, anneal)

    def place(game: Game, horizons: tuple[int, ...]) -> Place:
        life = replace(game.life, evaluation_environments=size.episodes)
        own = agent if game.env == base.env else _fitting(agent, life)
        return Place(game.env, own, life, horizons, size.agents)

    training = Game(base.env, base.life)
    everywhere = (training, *size.games)
    trained = place(training, (base.horizon.longest,))
    found = [Suite(GAMES, tuple(place(g, size.horizons) for g in everywhere), RATES, trained)]
    if size.apart:
        found.append(Suite(APART, tuple(place(g, size.apart) for g in everywhere), RATES))
    return tuple(found)


def _fitting(agent: AgentConfig, life: LifeConfig) -> AgentConfig:
    """As many minibatches as share out a rollout, of those of the training game or MinAtar's."""
    steps = life.environments * life.rollout
    few, many = agent.update.minibatches, MINATAR_AGENT.update.minibatches
    chosen = many if steps >= MINATAR_LIFE.environments * MINATAR_LIFE.rollout else few
    return replace(agent, update=replace(agent.update, minibatches=chosen))


def jobs(size: str, seeds: Sequence[int]) -> list[Job]:
    """Searches of both conditions and what is played beside them, seed by seed.

    Args:
      size: a key of :data:`SIZES`.
      seeds: of the searches.

    Returns:
      The jobs.
    """
    chosen = SIZES[size]
    found = []
    for number, seed in enumerate(seeds):
        for condition, anneal in CONDITIONS.items():
            config = replace(chosen.base, seed=seed, agent=_agent(chosen.base, anneal))
            games = suites(chosen, anneal)
            if not number:  # once: nothing is searched
                found += [
                    Job(condition, cell, source, seed, config, games, source=source)
                    for cell, source in HANDWRITTEN.items()
                ]
            found += [
                Job(condition, cell, rule, seed, _searched(config, rule, clock), games)
                for cell, (rule, clock) in LEARNED.items()
            ]
    return found


def _searched(config: Config, rule: str, clock: str) -> Config:
    """The search for one contender."""
    objective = replace(config.objective, rule=rule, clock=clock)
    config = replace(config, objective=objective)
    if rule == "lpo":
        return config
    # Its start is PPO as it stands, as it is for drifts.
    return replace(config, evolution=replace(config.evolution, sigma=TUNING, sigma_floor=0.03))


# --- what the tables say ----------------------------------------------------------------------

BySeed = dict[int, float]


class Numbers(NamedTuple):
    """What the tables say."""

    scores: transfer.Scores
    """Returns, mean over agents."""
    tasks: list[Task]
    rates: dict[tuple[str, str], dict[int, float]]
    """Condition and cell -> search seed -> the rate chosen on the training game."""
    trained: str
    """The training game."""


def gather(size: str, rows: Sequence[Played]) -> Numbers:
    """Scores, tasks, and the rates that were chosen.

    Args:
      size: a key of :data:`SIZES`.
      rows: of the table, of one size.

    Returns:
      The numbers.
    """
    scores = transfer.tested(rows)
    order = list(CONDITIONS)
    tasks = {task for by_task in scores.values() for task in by_task}
    rates: dict[tuple[str, str], dict[int, float]] = {}
    for row in rows:
        if row.stage == TEST and row.suite == GAMES:
            rates.setdefault((row.group, row.cell), {})[row.seed] = row.rate
    trained = SIZES[size].base.env

    def place(task: Task) -> tuple[Any, ...]:
        return order.index(task.group), task.suite, task.environment != trained, task[2:]

    return Numbers(scores, sorted(tasks, key=place), rates, trained)


def difference(numbers: Numbers, task: Task, rival: str) -> BySeed:
    """How far TA-LPO is above a rival on a task, by search seed."""
    ours, theirs = (numbers.scores.get(cell, {}).get(task, {}) for cell in (AWARE, rival))
    return transfer.less(ours, theirs)


def decided(values: BySeed) -> int:
    """1 if an interval over search seeds is above zero, -1 if below, 0 if it holds zero or none is.

    None is with fewer than five search seeds.
    """
    if len(values) < FEWEST_SEEDS:
        return 0
    found = statistics.student_interval([*values.values()])
    return int(found.low > 0) - int(found.high < 0)


def verdict(size: str, numbers: Numbers) -> str:
    """What the numbers say of the claim, and what they do not say.

    Args:
      size: of the entry.
      numbers: from :func:`gather`.

    Returns:
      Paragraphs.
    """
    chosen = SIZES[size]
    seeds = {s for by in numbers.scores.get(AWARE, {}).values() for s in by}
    few = len(seeds) < FEWEST_SEEDS
    said = [
        f"Size {size}, {len(seeds)} search seed{'s' * (len(seeds) != 1)}"
        f"{': points, and no interval is claimed' if few else ''}. Drifts were evolved on "
        f"{chosen.base.env} at N = {chosen.base.horizon.longest} for {chosen.base.generations} "
        f"generations of {2 * chosen.base.evolution.pairs} lives, and frozen; {chosen.agents} "
        "agents a game and horizon. The claim is made for this size only. Intervals are over "
        "search seeds (Student's); PPO and DPO are not searched for and have one number each. The "
        f"agents' rate is chosen from {', '.join(f'{rate:g}' for rate in RATES)} on the training "
        "game for each theta and condition."
    ]
    for condition in CONDITIONS:
        tasks = [t for t in numbers.tasks if t.group == condition and t.suite == GAMES]
        if not tasks or not seeds:
            continue
        games = list(dict.fromkeys(task.environment for task in tasks))
        told = [_of_game(numbers, [t for t in tasks if t.environment == g], g) for g in games]
        said.append(f"{condition.capitalize()}. {' '.join(told)}")
    return "\n\n".join(said)


def _of_game(numbers: Numbers, tasks: Sequence[Task], game: str) -> str:
    """TA-LPO less each rival on one game, by horizon."""
    parts = []
    for rival in RIVALS:
        found = {task.horizon: difference(numbers, task, rival) for task in tasks}
        found = {n: values for n, values in found.items() if values}
        if found:
            told = ", ".join(_told(values) for values in found.values())
            parts.append(f"{rival} {told}")
    ns = ", ".join(str(task.horizon) for task in tasks)
    told = "; ".join(parts) or "no rival is in the tables yet"
    return f"{game}, {AWARE} less each rival at N = {ns}: {told}."


def _told(values: BySeed) -> str:
    """A mean, starred where its interval excludes zero."""
    mean = math.fsum(values.values()) / len(values)
    return f"{mean:+.3g}{'*' * abs(decided(values))}"


def grids(numbers: Numbers) -> tuple[Grid, ...]:
    """Returns of all objectives, mean over search seeds, a table for each condition."""
    cells = [cell for cell in (*LEARNED, *HANDWRITTEN) if cell in numbers.scores]
    found = []
    for condition in CONDITIONS:
        rows = []
        for task in numbers.tasks:
            if task.group != condition:
                continue
            label = task.environment if task.suite == GAMES else f"{task.environment}, rate apart"
            told = []
            for cell in cells:
                values = numbers.scores[cell].get(task, {}).values()
                told.append(f"{math.fsum(values) / len(values):.3g}" if values else "")
            rows.append((f"{label}, {task.horizon}", *told))
        if rows:
            title = f"{condition}: return of trained agents, mean over search seeds"
            found.append(Grid(title, ("game, N", *cells), rows))
    rates = [
        (condition, cell, " ".join(f"{rate:g}" for rate in by_seed.values()))
        for (condition, cell), by_seed in sorted(numbers.rates.items())
    ]
    if rates:
        found.append(
            Grid("rates chosen on the training game", ("condition", "objective", "rate"), rates)
        )
    return tuple(found)


def conclude(size: str, tables: Mapping[str, Sequence[Any]]) -> Conclusion:
    """What the tables of one size say.

    Args:
      size: of the entry.
      tables: rows of :data:`TABLES`, by name.

    Returns:
      Tables for people, words and figure.
    """
    numbers = gather(size, tables[PLAYED.name])

    def draw() -> Figure:
        from discovery.evaluation.figures_transfer import claim_4

        return claim_4(numbers)

    return Conclusion(grids(numbers), verdict(size, numbers), draw, _facts(size, numbers))


def _facts(size: str, numbers: Numbers) -> dict[str, str]:
    chosen = SIZES[size]
    base = chosen.base
    seeds = {s for by in numbers.scores.get(AWARE, {}).values() for s in by}
    steps = base.life.environments * base.life.rollout
    lives = 2 * base.evolution.pairs * base.generations
    return {
        "size": f"{size}: {base.env}, N = {base.horizon.longest} updates of {steps:,} steps",
        "budget of a search": f"{lives:,} lives of {base.horizon.longest * steps:,} environment "
        "steps, for every contender",
        "search seeds": str(len(seeds)),
        "agents": f"{chosen.agents} a game and horizon, {chosen.episodes} episodes a score",
        "intervals": f"95 %, Student's over search seeds; none of fewer than {FEWEST_SEEDS} seeds",
    }
