"""``report.html`` of a run: one page that holds everything, to be read and sent anywhere.

The same folder makes the same bytes.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from discovery.config import ConfigError
from discovery.evaluation import table
from discovery.evaluation.table import TRUE, Comparison, Row, Summary
from discovery.report import chart, markup, words
from discovery.report.folder import Picture, Scored, Told, pictures, read, runs_in, scored
from discovery.requests import ReportConfig
from discovery.runs.errors import first_line
from discovery.runs.folders import FIGURES
from learned_objectives.library import ARRAYS, RULES, write_whole

REPORT = "report.html"
_SHOWN = ("name", "summary", "rule", "parameters", "trained_by", "licence", "notes", "sha256")
"""Fields of a card that are shown at once."""

Part = tuple[str, list[Row], list[Summary], list[Comparison]]
"""What a part of an evaluation is called, its rows, scores, and differences to the run's own."""


def report(request: ReportConfig, report: Callable[[str], None] = print) -> Path:
    """Write the page of a run, or of the runs that a folder compares.

    Args:
      request: which folder.
      report: told where the page is.

    Returns:
      Its path, ``report.html`` in that folder.

    Raises:
      ConfigError: it is no run folder.
      OSError: the disk is full or read-only; an old page is untouched.

    Example:
      >>> report(ReportConfig("runs/mine"))  # doctest: +SKIP
    """
    path = write(Path(request.folder))
    report(f"page: {path}")
    return path


def write(folder: Path) -> Path:
    """Write the page of a folder; see :func:`report`."""
    path = folder / REPORT
    # A lone surrogate, as JSON can hold one, is no letter of any page.
    write_whole(path, page(folder).encode("utf-8", "replace"))
    return path


def renew(folder: Path, report: Callable[[str], None]) -> None:
    """Write the page of a folder at the end of something longer, which it must not cost.

    Args:
      folder: of a run; nothing happens if it is none.
      report: told in a line where the page is, or why there is none.
    """
    try:
        report(f"page: {write(folder)}")
    except ConfigError:
        return
    except Exception as error:  # what the page is about is safe on disk
        report(f"no page of {folder}: {first_line(error)}")


def page(folder: Path) -> str:
    """The page of a folder, as HTML.

    Raises:
      ConfigError: it is no run folder.
    """
    places = runs_in(folder)
    alone = places == [folder]
    runs = [read(place, None if alone else folder) for place in places]
    found = scored(folder)
    drawn, problems = pictures(folder / FIGURES)
    more, others = pictures(folder)  # profiles stand beside their table
    drawn += [each for each in more if each.name.startswith("evaluation-")]
    if not alone:
        for place, run in zip(places, runs, strict=True):
            each, spoilt = pictures(place / FIGURES)
            drawn += [one._replace(name=f"{run.name}: {one.name}") for one in each]
            others += spoilt
    problems += [line for line in others if line.startswith("evaluation-") or not alone]
    for run in runs:
        problems += [f"{run.name}: {line}" for line in run.problems]
    name = runs[0].name if alone else runs[0].name.partition("/")[0]
    scores = _parts(runs, found)
    parts = [
        _head(name, runs),
        _short(runs, scores),
        _terms(),
        _setting(runs),
        _learning(runs),
        _scores(runs[0], found, scores),
        _pictures(drawn),
        _objective(runs[0]),
        _again(runs),
        _problems([*problems, *found.problems]),
    ]
    return markup.document(f"{name}: a search by Kairos", "".join(parts))


# --- what it is -------------------------------------------------------------------------------


def _head(name: str, runs: Sequence[Told]) -> str:
    run = runs[0]
    done = all(each.finished for each in runs)
    kind = "done" if done else "open"
    parts = [
        f"<h1>{markup.say(name)}</h1>\n",
        f'<p><span class="state {kind}">{"finished" if done else "not finished"}</span> '
        f"{markup.say('; '.join(_stated(each, runs) for each in runs))}</p>\n",
    ]
    for each in runs:
        if not each.finished:
            parts.append(markup.paragraph(f"To go on exactly where {each.name} stopped:"))
            parts.append(markup.code(f"kairos evolve --resume {shlex.quote(each.name)}"))
    what = (
        "Kairos searches for objectives: rules by which agents of reinforcement learning are "
        "trained. It lets many agents live whole lives under varied rules, and keeps what made "
        "them end well."
    )
    if run.config:
        sees = words.clock(run.config)
        what += f" Here it is {words.rule(run.config)}."
        what += f" Of time it sees {sees}." if sees else ""
        what += (
            f" Its agents lived in {words.environments(run.config)}; "
            f"a life was {words.horizons(run.config.horizon)}."
        )
    return "".join([*parts, markup.paragraph(what)])


def _stated(run: Told, runs: Sequence[Told]) -> str:
    return words.state(run) if len(runs) == 1 else f"{run.name}: {words.state(run)}"


def _short(runs: Sequence[Told], parts: Sequence[Part]) -> str:
    """What came out, in a few lines."""
    lines = [_learned(run, runs) for run in runs]
    for title, rows, summaries, comparisons in parts:
        if not _is_first(rows, parts):
            continue
        own = _own(rows, runs[0])
        mine = [entry for entry in summaries if entry.objective == own]
        lines += [words.reached(mine, title)] if mine else []
        lines += [words.verdict(group) for group in _by_rival(comparisons)]
    if any(comparisons for *_, comparisons in parts):
        if all(entry.search_seeds == 1 for _, _, summaries, _ in parts for entry in summaries):
            lines.append(
                "Each of these objectives is of one search: this compares them, not the ways in "
                "which they were found. Another seed of the same search could do better or worse."
            )
    else:
        lines.append(
            "It was not scored beside other objectives, so nothing is known of how it compares."
        )
    return f"<h2>In short</h2>\n{markup.bullets(dict.fromkeys(lines))}"


def _is_first(rows: Sequence[Row], parts: Sequence[Part]) -> bool:
    """Whether a part is of the kind of actions that comes first; of others it is told below."""
    return not parts[0][1] or not rows or rows[0].actions == parts[0][1][0].actions


def _learned(run: Told, runs: Sequence[Told]) -> str:
    told = words.learned(run)
    return told if len(runs) == 1 else f"{run.name}: {told[0].lower()}{told[1:]}"


def _terms() -> str:
    return f"<h2>Words</h2>\n{markup.facts(words.TERMS, 'words')}"


def _setting(runs: Sequence[Told]) -> str:
    run = runs[0]
    parts = ["<h2>What was run</h2>\n", markup.facts(words.setting(run))]
    for other in runs[1:]:
        told = words.setting(other)
        same = words.setting(run)
        apart = {name: text for name, text in told.items() if same.get(name) != text}
        parts.append(f"<h3>{markup.say(other.name)}</h3>\n")
        parts.append(markup.paragraph(f"The same as {run.name}, but for:" if apart else "As above"))
        parts.append(markup.facts(apart))
    parts.append("<h3>With what</h3>\n" + markup.facts(words.machine(run)))
    if run.data:
        parts.append(markup.more("the whole configuration", markup.code(_json(run.data))))
    return "".join(parts)


def _json(data: Any) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False)


# --- what came out ----------------------------------------------------------------------------


def _learning(runs: Sequence[Told]) -> str:
    """The learning curve."""
    parts = ["<h2>What came out</h2>\n<h3>The search</h3>\n"]
    drawn = []
    for run in runs:
        law = run.config.horizon if run.config else None
        for metric, label in words.SCORES.items():
            # Of lives of one length there are no short and long ones; two runs are enough lines.
            if metric != "validation" and (
                len(runs) > 1 or law is None or law.shortest == law.longest
            ):
                continue
            x, y = words.column(run, metric)
            title = label if len(runs) == 1 else run.name
            drawn.append(chart.Line(title, x, y))
    drawn = [line for line in drawn if line.x]
    drawn = drawn if len(drawn) > 1 else [chart.Line("validation levels", d.x, d.y) for d in drawn]
    parts += [markup.paragraph(_learned(run, runs)) for run in runs]
    parts.append(
        chart.lines(
            drawn,
            x="generation",
            y="score on validation levels",
            alt="The search: score on validation levels against generation. "
            + " ".join(_learned(run, runs) for run in runs),
        )
    )
    return "".join(parts)


def _parts(runs: Sequence[Told], found: Scored) -> list[Part]:
    """An evaluation, split into what compares: one environment, kind of actions, size of life."""
    run, *others = runs
    told = [row for row in found.rows if row.clock == TRUE]
    kinds: dict[tuple[str, ...], list[Row]] = {}
    for row in told:
        kinds.setdefault((row.environment, row.level_hash, row.actions), []).append(row)
    parts: list[Part] = []
    # Sampled actions are those that agents learned by.
    for (environment, level_hash, actions), rows in sorted(
        kinds.items(), key=lambda kind: kind[0][2] != "sampled"
    ):
        for batch, group in words.batches(rows).items():
            mine = _current(group, run)
            name = f"{environment}, {actions} actions"
            if len({key[1] for key in kinds if key[0] == environment}) > 1:
                name += f", level set {level_hash}"
            if len(words.batches(rows)) > 1:
                name += f", {batch:,} environment steps an update"
            parts.append((name, mine, *_compared(mine, _own(mine, run), others)))
    return parts


def _current(rows: Sequence[Row], run: Told) -> list[Row]:
    """Rows without those of the run's own objective before it was searched on."""
    own = _own(rows, run)
    return [row for row in rows if row.objective != own or _is_of(row, run)]


def _own(rows: Iterable[Row], run: Told) -> str:
    """What the run's own objective is called in a table; empty if it is not in it."""
    return next((row.objective for row in rows if _is_of(row, run)), "")


def _is_of(row: Row, run: Told) -> bool:
    return bool(run.theta) and row.digest.partition("-")[0] == run.theta


def _compared(
    rows: list[Row], own: str, others: Sequence[Told]
) -> tuple[list[Summary], list[Comparison]]:
    """Scores, and differences to the run's own objective; other runs of the page come first."""
    try:
        summaries = table.summary(rows)
    except table.TableError:  # nothing that all searches of a name share
        return [], []
    here = {row.objective for row in rows if any(_is_of(row, other) for other in others)}
    names = dict.fromkeys(row.objective for row in rows)
    order = sorted(names, key=lambda name: (name != own, name not in here))
    summaries.sort(key=lambda entry: (order.index(entry.objective), entry.horizon))
    rivals = [name for name in order if name != own]
    comparisons: list[Comparison] = []
    for rival in rivals if own else []:
        try:
            comparisons += table.compare(rows, own, rival)
        except table.TableError:
            continue
    return summaries, comparisons


def _by_rival(comparisons: Iterable[Comparison]) -> list[list[Comparison]]:
    found: dict[str, list[Comparison]] = {}
    for each in comparisons:
        found.setdefault(each.second, []).append(each)
    return list(found.values())


def _scores(run: Told, found: Scored, scores: Sequence[Part]) -> str:
    """Scores by horizon, paired differences and false clocks."""
    if not found.rows:
        name = shlex.quote(run.name)
        return (
            "<h3>Score by horizon</h3>\n"
            + markup.paragraph("Not scored yet. To score it beside others on held-out levels:")
            + markup.code(f"kairos evaluate {name} a2c random")
        )
    parts = []
    for title, rows, summaries, comparisons in scores:
        parts.append(f"<h3>Score by horizon: {markup.say(title)}</h3>\n")
        if not summaries:
            parts.append(markup.paragraph("Its rows share no levels, so that none compare."))
            continue
        parts.append(_table(run, rows, summaries))
        if comparisons:
            parts.append(_differences(comparisons, told=_is_first(rows, scores)))
        elif not _own(rows, run):
            parts.append(
                markup.paragraph(
                    "None of these is the objective that is in the run folder now, so no "
                    "differences are told.",
                    "note",
                )
            )
    if found.uses:
        parts.append(_lies(found, _own(found.rows, run)))
    return "".join(parts)


def _table(run: Told, rows: Sequence[Row], summaries: Sequence[Summary]) -> str:
    names = list(dict.fromkeys(entry.objective for entry in summaries))
    horizons = sorted({entry.horizon for entry in summaries})
    cells = {
        (entry.horizon, entry.objective): f"{words.number(entry.estimate)}\n"
        f"{words.between(entry.low, entry.high)}"
        for entry in summaries
    }
    value = words.VALUES.get(summaries[0].value, summaries[0].value)
    batch = next(iter(words.batches(rows)))
    drawn = []
    for name in names:
        mine = [entry for entry in summaries if entry.objective == name]
        drawn.append(
            chart.Line(
                name,
                [float(entry.horizon) for entry in mine],
                [entry.estimate for entry in mine],
                [entry.low for entry in mine],
                [entry.high for entry in mine],
                marked=True,
            )
        )
    told = [words.trained_part(run.config, horizons), words.counted(summaries, batch)]
    return (
        chart.lines(
            drawn,
            x="horizon N (updates)",
            y=value,
            alt=f"{value} against horizon; the numbers are in the table below",
            log=True,
            ticks=[float(n) for n in horizons],
            shade=_trained(run),
            shaded="horizons of the search",
        )
        + markup.grid(
            ["N", *names],
            [[f"{n:,}", *(cells.get((n, name), "") for name in names)] for n in horizons],
            value,
        )
        + markup.paragraph(" ".join(filter(None, told)), "note")
    )


def _trained(run: Told) -> tuple[float, float] | None:
    """The horizons of a search, where they can be drawn."""
    law = run.config.horizon if run.config else None
    if law is None or not 0 < law.shortest <= law.longest < 1e12:
        return None
    return float(law.shortest), float(law.longest)


def _differences(comparisons: Sequence[Comparison], told: bool) -> str:
    """Paired differences, in words too unless these are told already."""
    own = comparisons[0].first
    rivals = list(dict.fromkeys(each.second for each in comparisons))
    horizons = sorted({each.horizon for each in comparisons})
    cells = {
        (each.horizon, each.second): f"{words.number(each.estimate, '+')}"
        f"{' *' if each.low > 0 or each.high < 0 else ''}\n"
        f"{words.between(each.low, each.high, '+')}"
        for each in comparisons
    }
    return (
        f"<h3>{markup.say(own)} against the others</h3>\n"
        + markup.bullets([] if told else map(words.verdict, _by_rival(comparisons)))
        + markup.grid(
            ["N", *rivals],
            [[f"{n:,}", *(cells.get((n, name), "") for name in rivals)] for n in horizons],
            f"{own} less each of the others, on the same levels; above 0 it is ahead",
        )
        + markup.paragraph("* the 95 % interval excludes zero.", "note")
    )


def _lies(found: Scored, own: str) -> str:
    """What false clocks cost."""
    parts = [
        "<h3>Does it use its clock?</h3>\n",
        markup.paragraph(
            "The same objective lived on the same levels and was lied to about time. Score that is "
            "lost under a lie shows that what its agents learn depends on the clock."
        ),
        markup.bullets(words.lies(found.uses, own)),
    ]
    horizons = sorted({use.horizon for use in found.uses})
    for name in dict.fromkeys(use.objective for use in found.uses):
        mine = [use for use in found.uses if use.objective == name]
        cells = {}
        for use in mine:
            sign = "" if use.measure.startswith("S_") else "+"
            star = " *" if sign and (use.low > 0 or use.high < 0) else ""
            interval = words.between(use.low, use.high, sign)
            cells[use.measure, use.horizon] = f"{words.number(use.value, sign)}{star}\n{interval}"
        measures = list(dict.fromkeys(use.measure for use in mine))
        parts.append(
            markup.grid(
                ["told", *(f"N = {n:,}" for n in horizons)],
                [
                    [
                        f"{measure}\n{words.LIES.get(measure, '')}",
                        *(cells.get((measure, n), "") for n in horizons),
                    ]
                    for measure in measures
                ],
                f"{name}: score lost when told a false clock"
                + (", and sensitivities (0: none)" if any("S_" in m for m in measures) else ""),
            )
        )
    parts.append(markup.paragraph("* the 95 % interval excludes zero.", "note"))
    return "".join(parts)


def _pictures(drawn: Sequence[Picture]) -> str:
    """Every picture there is, those of a known kind first."""
    if not drawn:
        return ""
    known = list(words.PICTURES)

    def place(picture: Picture) -> tuple[int, str]:
        stem = picture.name.rpartition(": ")[2]
        return known.index(stem) if stem in known else len(known), picture.name

    parts = ["<h2>Figures</h2>\n"]
    for number, each in enumerate(sorted(drawn, key=place)):
        run, _, stem = each.name.rpartition(": ")
        told = words.PICTURES.get(stem, stem.replace("-", " "))
        told = f"{run}: {told}" if run else told
        parts.append(markup.picture(each.data, told, number, each.kind))
    return "".join(parts)


# --- the objective, and how to go on ----------------------------------------------------------


def _objective(run: Told) -> str:
    """The card, and three lines to use it."""
    parts = ["<h2>The objective</h2>\n"]
    if not run.card:
        parts.append(
            markup.paragraph("Not written yet: it is once the last generation of the search is.")
        )
        return "".join(parts)
    told = {
        name.replace("_", " "): words.plain(run.card[name]) for name in _SHOWN if _has(run, name)
    }
    parts.append(markup.facts(told))
    rest = {name: value for name, value in run.card.items() if name not in ("config", "versions")}
    parts.append(markup.more("the whole card", markup.code(_json(rest))))
    rule = str(run.card.get("rule") or "")
    own = "" if rule in RULES else f"{rule if ':' in rule else 'own.py:make'}@"
    parts += [
        "<h3>To use it</h3>\n",
        markup.paragraph(
            f"Start Python, and the commands below, in the folder that holds {run.name}."
        ),
        markup.code(
            "from discovery import load\n"
            f"found = load({own + run.name!r})\n"
            "rule, parameters = found.objective, found.theta\n"
        ),
        markup.paragraph("Its parameters are plain arrays, which open without Kairos, too:"),
        markup.code(
            f"from safetensors.numpy import load_file\nload_file({f'{run.name}/{ARRAYS}'!r})\n"
        ),
    ]
    if run.config:
        horizon = max(1, run.config.horizon.longest)
        name = shlex.quote(own + run.name)
        env = shlex.quote(run.config.env.partition(",")[0])
        parts.append(markup.paragraph("An agent that is trained by it:"))
        parts.append(
            markup.code(f"kairos train --objective {name} --env {env} --horizon {horizon}")
        )
    return "".join(parts)


def _has(run: Told, name: str) -> bool:
    return run.card.get(name) not in (None, "", [], {})


def _again(runs: Sequence[Told]) -> str:
    commands = "\n".join(f"kairos evolve --like {shlex.quote(run.name)}" for run in runs)
    return (
        "<h2>To run it again</h2>\n"
        + markup.paragraph(
            "The same search from its beginning; in the end it says whether the bytes are the same:"
        )
        + markup.code(commands)
        + markup.paragraph(
            "Without the run folder: save the whole configuration (above) as same.json, and"
        )
        + markup.code("kairos evolve --preset same.json")
    )


def _problems(lines: Sequence[str]) -> str:
    if not lines:
        return ""
    return f"<h2>What could not be read</h2>\n{markup.bullets(lines)}"


__all__ = ["page", "renew", "report", "write"]
