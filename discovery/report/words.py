"""What a page says, in plain words: what was run, whether it learned, who is ahead and where.

Every function takes plain data and returns text; the claims stand on the intervals of
:mod:`discovery.evaluation.table` and go no further.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from discovery.config import Config, HorizonConfig, mixed, population
from discovery.evaluation.table import ClockUse, Comparison, Row, Summary
from discovery.report.folder import Told
from discovery.runs.logs import duration
from envs.registry import REGISTRY
from learned_objectives.library import RULES

TERMS: dict[str, str] = {
    "agent": "a policy that acts in an environment; it is born random, and trained",
    "objective": "the rule by which an agent is trained: it turns what the agent has seen into a "
    "change of its parameters. Here the rule itself is what is learned",
    "update": "one such change, after the agent has acted for a fixed number of steps",
    "horizon N": "how many updates an agent is given in its life; n of them are done",
    "clock": "what the objective is shown of n and N; an objective without one is blind to them",
    "level": "one setting of an environment; held-out levels were never used by the search",
    "generation": "one step of the search: agents live under varied objectives, and the objective "
    "moves towards those under which they scored higher",
    "score": "the return (sum of rewards) of an agent at the end of its life, when it is trained, "
    "on fresh episodes; higher is better",
    "normalised score": "the same on a scale on which 0 is a policy that acts at random and 1 the "
    "best there is (or a reference, where that is not known)",
    "sampled, greedy": "how a trained agent acts while it is scored: by chance, as its policy "
    "says, or always as is most likely",
    "95 % interval": "a range around an estimate; of a hundred such ranges about 95 hold the true "
    "value. It tells how much the choice of levels matters, and of searches where there are five",
}
"""Every term that a page uses, in a line."""

_RULES: dict[str, str] = {
    "lpg": "LPG (learned policy gradient): a small recurrent network reads what an agent has lived "
    "through, and says how its policy and its predictions shall change",
    "lpo": "LPO (learned policy optimisation): updates like those of PPO, in which a small network "
    "says how strongly a change of the policy is held back (its drift)",
}
"""Of the kinds that searches are mostly over, more than the library's line."""

_CLOCKS: dict[str, str] = {
    "none": "nothing of time: it is blind to its horizon",
    "constant": "two numbers that never change: a clock that stands still, as a control",
    "elapsed": "how many updates are done, but not how many there will be",
    "horizon": "how long the life is, but not how far it has come",
    "fraction": "the share of the life that is done, n/N",
    "fraction_log": "the share of the life that is done, n/N, and how long it is, log N",
    "fraction_scaled": "the share of the life that is done, n/N, and how long it is, log N scaled",
    "remaining": "the share of the life that remains, and how many updates, as a logarithm",
    "raw": "n and N as they are",
    "raw_scaled": "n and N, divided by 250",
}
_CLOCKED = ("lpg", "lpo", "lpg-annealed")

LIES: dict[str, str] = {
    "frozen-0": "always at the start of life",
    "frozen-0.5": "always at half of life",
    "frozen-0.95": "always near the end of life",
    "reversed": "time runs backwards",
    "permuted": "times of life in random order",
    "quarter": "a life of a quarter of the length",
    "fourfold": "a life of four times the length",
    "half": "the life is stopped halfway through what it was told",
    "S_pi_fraction": "sensitivity of its word on actions to n/N",
    "S_pi_horizon": "sensitivity of its word on actions to N",
    "S_y_fraction": "sensitivity of its word on predictions to n/N",
    "S_y_horizon": "sensitivity of its word on predictions to N",
}
"""What an objective was told of time, and the other measures of how it uses its clock."""

PICTURES: dict[str, str] = {
    "learning": "The search, generation by generation: scores on validation levels, and its health",
    "horizons": "Score against horizon, on held-out levels",
    "curriculum": "The tasks on which it was learned, and how they were chosen",
    "response": "What the objective says of a rewarded action, at several times of life",
    "drift": "The penalty (drift) that the objective puts on a change of the policy",
    "drift-surface": "The same, for every ratio of probabilities and every advantage",
    "drift-map": "What its drift leaves of the push towards better actions",
    "turns": "Where its drift turns a change of the policy away, along a life",
    "schedule": "What one update does when only the time it is told is moved",
    "entropies": "How random the agents' policies are along a life",
    "changes": "How much one update changes the policy along a life",
    "norms": "The size of what one update adds to the policy along a life",
    "rewards": "Reward per step along a life",
    "clock": "The score that is lost under false clocks, and how far its words follow the clock",
}
"""Name of a picture -> what is seen on it; in the order of a page."""

SCORES: dict[str, str] = {
    "validation": "all",
    "validation_short": "short horizons",
    "validation_middle": "middle horizons",
    "validation_long": "long horizons",
}
"""Metric -> what validation levels it is of."""

VALUES: dict[str, str] = {
    "normalised": "normalised score (0 random, 1 best)",
    "score": "return",
}


# --- numbers ----------------------------------------------------------------------------------


def number(value: float, sign: str = "") -> str:
    """A score as people write it.

    Example:
      >>> number(0.123), number(-12.34), number(0.5, "+"), number(float("nan"))
      ('0.12', '-12.3', '+0.50', 'not finite')
    """
    size = abs(value)
    if not math.isfinite(value):
        return "not finite"
    if size >= 1e6:
        return f"{value:{sign}.3g}"
    # A third digit tells a small difference from none.
    digits = 3 if 0 < size < 0.01 else 2 if size < 10 else 1 if size < 1000 else 0
    return f"{value:{sign},.{digits}f}"


def between(low: float, high: float, sign: str = "") -> str:
    """An interval; nothing where none is claimed."""
    return "" if math.isnan(low) else f"[{number(low, sign)}, {number(high, sign)}]"


def count(value: float) -> str:
    """A large count as people say it.

    Example:
      >>> count(78_643_200), count(1280)
      ('78.6 million', '1,280')
    """
    for size, unit in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:,.0f}"


def listed(things: Iterable[object], last: str = "and") -> str:
    """Things in a sentence.

    Example:
      >>> listed([5, 10, 20])
      '5, 10 and 20'
    """
    *some, end = [f"{x:,}" if isinstance(x, int) else str(x) for x in things] or [""]
    return f"{', '.join(some)} {last} {end}" if some else end


# --- what was run -----------------------------------------------------------------------------


def rule(config: Config) -> str:
    """The kind of objective."""
    name = config.objective.rule
    if name in _RULES:
        return _RULES[name]
    if name in RULES:
        return f"{name}: {RULES[name][0].partition(';')[0]}"
    return f"{name}: a rule of its author's own"


def clock(config: Config) -> str:
    """What the objective sees of time; nothing for a rule that has no clock to choose."""
    objective = config.objective
    if objective.rule not in _CLOCKED:
        return ""
    if objective.clock != "none" and objective.clock_gate == 0:
        return "nothing of time: its clock is multiplied by 0, which makes it a horizon-blind twin"
    return _CLOCKS.get(objective.clock, objective.clock)


def environments(config: Config) -> str:
    """Where agents live."""
    lines = {entry.name: entry.line for entry in REGISTRY}
    told = []
    for name in mixed(config.env):
        line = lines.get(name) or lines.get(name.rpartition("/")[0])
        own = name.rpartition(":")[0].endswith(".py")
        told.append(f"{name} ({line or ('of its author' if own else 'not one of ours')})")
    return "; ".join(told)


def horizons(law: HorizonConfig) -> str:
    """How long lives are."""
    if law.shortest == law.longest:
        return f"{law.longest:,} updates"
    return f"{law.shortest:,} to {law.longest:,} updates, drawn anew for each task"


def estimator(config: Config) -> str:
    """How the search moves."""
    lives, _ = population(config)
    how, window = config.evolution, config.window.window
    if config.estimator == "gradient":
        return (
            f"meta-gradients through {window:,} updates at a time of {lives:,} agents, "
            "each of which lives on from step to step"
        )
    told = (
        f"evolution strategies over whole lives: {lives:,} varied objectives a generation, "
        f"in {how.pairs:,} mirrored pairs"
    )
    if config.estimator == "windows" and window:
        told = (
            f"evolution strategies over windows of {window:,} updates of {lives:,} lives that go "
            "on from generation to generation"
        )
    if how.strategy != "paired":
        told += f", by {how.strategy} of evosax"
    if how.shaping == "coin_flip":
        told += "; scores were replaced by coin flips, so that nothing could be learned: a control"
    return told


def agents(config: Config) -> str:
    """Who lives under the objective."""
    agent, life = config.agent, config.life
    widths = " x ".join(map(str, agent.hidden))
    network = "a table of states" if agent.network == "table" else f"{agent.network} {widths}"
    return (
        f"{network.strip()}, {agent.optimizer}; an update after {life.environments:,} environments "
        f"x {life.rollout:,} steps = {life.environments * life.rollout:,} environment steps"
    )


def curriculum(config: Config) -> str:
    """How tasks were chosen; nothing if they were always fresh."""
    chosen = config.curriculum
    if chosen.curriculum == "none":
        return ""
    return (
        f"GROOVE: {100 * chosen.replay:g} % of the tasks are repeated, those most often on which "
        "the hand-written A2C was furthest ahead"
    )


def setting(told: Told) -> dict[str, str]:
    """What was run, as names and facts; what does not apply is left out."""
    config = told.config
    if config is None:
        return {}
    found = {
        "kind of objective": rule(config),
        "what it sees of time": clock(config),
        "environment": environments(config),
        "horizons": horizons(config.horizon),
        "agents": agents(config),
        "search": estimator(config),
        "curriculum": curriculum(config),
        "generations": f"{config.generations:,}",
        "validated on": f"{config.validation_levels:,} fixed held-out levels",
        "seed": str(config.seed),
        "preset": config.preset,
    }
    return {name: text for name, text in found.items() if text}


def machine(told: Told) -> dict[str, str]:
    """With what it was run."""
    versions = told.versions
    named = {"devices": "devices", "cpu": "processor", "platform": "platform", "commit": "commit"}
    packages = [
        f"{name} {version}"
        for name, version in versions.items()
        if name not in named and isinstance(version, str)
    ]
    found = {label: str(versions[name]) for name, label in named.items() if versions.get(name)}
    if commit := found.get("commit"):
        changed = ", with changes that are in no commit" if commit.endswith("-dirty") else ""
        found["commit"] = f"{commit.removesuffix('-dirty')[:12]}{changed}"
    found["versions"] = ", ".join(packages)
    if told.resumed:
        other = sorted({name for each in told.resumed for name in each if name != "generation"})
        found["gone on with"] = f"{len(told.resumed)} times with another {listed(other)}"
    return {name: text for name, text in found.items() if text}


# --- whether it learned -----------------------------------------------------------------------


def state(told: Told) -> str:
    """How far it is."""
    if told.config is None:
        return f"{told.generation:,} generations are recorded"
    done, total = told.generation, told.config.generations
    last = told.metrics[-1] if told.metrics else {}
    spent = []
    if last.get("steps"):
        spent.append(f"{count(last['steps'])} environment steps of training")
    if last.get("seconds"):
        spent.append(f"{duration(last['seconds'])} of computing")
    used = f", {listed(spent)}" if spent else ""
    if told.finished:
        return f"{done:,} of {total:,} generations{used}"
    if done >= total:
        return f"{done:,} of {total:,} generations{used}; its objective is not written yet"
    saved = "nothing is saved yet" if told.saved is None else f"{told.saved:,} of them are saved"
    return f"{done:,} of {total:,} generations{used}; {saved}"


def column(told: Told, name: str) -> tuple[list[float], list[float]]:
    """Generations and values of one metric."""
    found = [(row["generation"], row[name]) for row in told.metrics if name in row]
    return [x for x, _ in found], [y for _, y in found]


def learned(told: Told) -> str:
    """What the validation score says."""
    generations, scores = column(told, "validation")
    if not scores:
        return "No validation score is recorded yet."
    if len(scores) == 1:
        return f"Its validation score before the first generation is {number(scores[0])}."
    best = max(range(len(scores)), key=lambda i: scores[i])
    first, last = number(scores[0]), number(scores[-1])
    text = (
        f"On validation levels, which the search does not learn from, its score went from {first} "
        f"(generation {generations[0]:,.0f}) to {last} (generation {generations[-1]:,.0f})"
    )
    if scores[-1] <= scores[0]:
        text += ": the search did not improve on its start"
    elif best != len(scores) - 1:
        text += (
            f"; the highest was {number(scores[best])} (generation {generations[best]:,.0f}), and "
            "the highest of many is partly luck"
        )
    lost = sum(column(told, "nonfinite")[1])
    if lost:
        text += f". {lost:,.0f} lives turned non-finite (a number overflowed) and ranked worst"
    return text + "."


# --- who is ahead -----------------------------------------------------------------------------


def verdict(found: Sequence[Comparison]) -> str:
    """What the paired differences of two objectives say, horizon by horizon.

    Args:
      found: of one pair of objectives, at one or more horizons.

    Returns:
      A sentence or two; nothing is claimed where an interval holds zero.
    """
    first, second = found[0].first, found[0].second
    ahead = [c for c in found if c.low > 0]
    behind = [c for c in found if c.high < 0]
    unclear = [c for c in found if c.low <= 0 <= c.high]
    unclaimed = [c for c in found if math.isnan(c.low)]
    parts = [
        f"{word} at {_at(group)} (by {_span(group)}; the 95 % interval excludes zero)"
        for word, group in (("ahead", ahead), ("behind", behind))
        if group
    ]
    if unclear:
        parts.append(f"not told apart at {_at(unclear)} (the interval includes zero)")
    if unclaimed:
        parts.append(
            f"at {_at(unclaimed)} there are too few searches of one kind to claim anything"
        )
    text = f"{first} against {second}: {'; '.join(parts)}."
    clear = [*ahead, *behind]
    if ahead and behind:
        text += " Which of the two is better depends on the horizon."
    held = [c for c in clear if c.holm < 0.05]
    if len(held) < len(clear):
        corrected = f"only at {_at(held)}" if held else "nowhere"
        text += f" Corrected for looking at {len(found)} horizons (Holm), it holds {corrected}."
    return text


def reached(summaries: Sequence[Summary], where: str) -> str:
    """The scores of one objective from the shortest horizon to the longest."""
    value = VALUES.get(summaries[0].value, summaries[0].value)
    ends = [summaries[0], summaries[-1]] if len(summaries) > 1 else list(summaries)
    told = " and ".join(
        f"{number(each.estimate)} {between(each.low, each.high)}".strip()
        + f" at {at_horizons([each.horizon])}"
        for each in ends
    )
    return f"{summaries[0].objective} in {where}: {value} {told}."


def _at(found: Sequence[Comparison] | Sequence[ClockUse]) -> str:
    return at_horizons(c.horizon for c in found)


def at_horizons(horizons: Iterable[int]) -> str:
    """Horizons in a sentence, of which no line begins with the sign."""
    return f"N\u00a0=\u00a0{listed(sorted(set(horizons)))}"


def _span(found: Sequence[Comparison]) -> str:
    """The sizes of differences."""
    sizes = sorted(abs(c.estimate) for c in found)
    low, high = number(sizes[0]), number(sizes[-1])
    return low if low == high else f"{low} to {high}"


def counted(summaries: Sequence[Summary], batch: int) -> str:
    """What the cells of a table of scores are."""
    agents = sorted({entry.n for entry in summaries})
    seeds = max(entry.search_seeds for entry in summaries)
    levels = max(entry.levels for entry in summaries)
    told = f"{agents[0]:,}" if len(agents) == 1 else f"{agents[0]:,} to {agents[-1]:,}"
    text = (
        f"N counts updates of {batch:,} environment steps. Each cell: the mean of the middle half "
        f"of {told} agents on {levels:,} held-out levels"
    )
    if all(math.isnan(entry.low) for entry in summaries):
        return f"{text}; there are too few searches of one kind for an interval."
    return f"{text}, with its 95 % interval over " + (
        "levels. One search each: another seed of the same search could do better or worse."
        if seeds == 1
        else "searches (where there are five) and levels."
    )


def trained_part(config: Config | None, horizons: Iterable[int]) -> str:
    """Which horizons of a table lie outside those of the search."""
    if config is None:
        return ""
    law = config.horizon
    outside = sorted({n for n in horizons if not law.shortest <= n <= law.longest})
    where = (
        f"{law.longest:,}"
        if law.shortest == law.longest
        else f"{law.shortest:,} to {law.longest:,}"
    )
    if not outside:
        return f"All of these horizons are among those of the search ({where})."
    return f"The search had horizons of {where}: {at_horizons(outside)} it never met."


def lies(uses: Sequence[ClockUse], own: str) -> list[str]:
    """What false clocks cost an objective, beside others that could learn nothing.

    Args:
      uses: losses and sensitivities.
      own: name of the objective that a page is about.

    Returns:
      Sentences.
    """
    found = []
    losses = [use for use in uses if not use.measure.startswith("S_")]
    for name in dict.fromkeys(use.objective for use in losses):
        mine = [use for use in losses if use.objective == name]
        clear = [use for use in mine if use.low > 0]
        who = f"{name} (nothing learned, for comparison)" if mine[0].null else name
        if all(math.isnan(use.low) for use in mine):
            found.append(f"{who}: too few levels or searches to claim a loss.")
        elif clear:
            which = (
                f"{measure} at {_at([use for use in clear if use.measure == measure])}"
                for measure in dict.fromkeys(use.measure for use in clear)
            )
            found.append(
                f"{who} loses score when it is told a false time ({'; '.join(which)}): "
                "what its agents learn depends on its clock there."
            )
        else:
            found.append(f"{who}: no false clock costs it score beyond doubt.")
    if any(use.objective == own for use in losses) and any(use.null for use in losses):
        found.append(
            "A clock that matters costs the learned objective more than it costs one that learned "
            "nothing: random numbers depend on a clock too."
        )
    return found


def batches(rows: Iterable[Row]) -> Mapping[int, list[Row]]:
    """Rows by the environment steps of one update: lives of other sizes do not compare."""
    found: dict[int, list[Row]] = {}
    for row in rows:
        found.setdefault(row.steps // max(row.horizon, 1), []).append(row)
    return found


def plain(value: Any) -> str:
    """A value of a card in a line."""
    if isinstance(value, list):
        return ", ".join(map(plain, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {plain(item)}" for name, item in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    text = f"{value:,}" if type(value) is int and 9999 < abs(value) < 1e15 else str(value)
    return text if len(text) < 1000 else f"{text[:1000]} ..."
