"""Metrics on disk, lines on a screen, and others' boards."""

import io
import json
import resource
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from discovery.runs import logs
from envs.registry import MissingExtra


def test_lines_are_on_disk_as_they_happen(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    journal = logs.Journal(path)
    journal.write({"generation": 0, "fitness": float("nan"), "steps": 5})
    assert json.loads(path.read_text()) == {"generation": 0, "fitness": None, "steps": 5}
    journal.write({"generation": 2, "fitness": 0.1})
    journal.sync()
    assert [row["generation"] for row in logs.read(path)] == [0, 2]
    journal.close()


def test_disk_full(tmp_path: Path) -> None:
    journal = logs.Journal(tmp_path / "metrics.jsonl")
    journal.write({"generation": 0})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30, before[1]))
    try:
        with pytest.raises(OSError, match="No space left on device"):
            journal.write({"generation": 2, "validation": 0.5})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    journal.close()
    assert logs.read(tmp_path / "metrics.jsonl") == [{"generation": 0}]


@pytest.mark.parametrize(
    ("generation", "kept", "removed"), [(4, [0, 2, 4], 3), (3, [0, 2], 4), (-1, [], 6)]
)
def test_cut_back(tmp_path: Path, generation: int, kept: list[int], removed: int) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"generation": g, "x": 0.1 + 0.2}) for g in (0, 2, 4, 6, 7)]
    path.write_text("\n".join(lines) + '\n{"generation": 8, "x"')
    assert logs.cut(path, generation, 2) == removed
    assert [row["generation"] for row in logs.read(path)] == kept
    assert path.read_text() == "".join(line + "\n" for line in lines[: len(kept)])


def test_cut_back_to_between_two_chunks(tmp_path: Path) -> None:
    """A run that ended at 5 with chunks of 2 is extended: its last line will be completed."""
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"generation": {g}}}\n' for g in (0, 2, 4, 5)))
    assert logs.cut(path, 5, 2) == 1
    assert [row["generation"] for row in logs.read(path)] == [0, 2, 4]
    assert logs.cut(tmp_path / "none", 5, 2) == 0


@pytest.mark.parametrize("line", ["[1]", '{"generation": "1"}', "nonsense", '{"generation": true}'])
def test_reading_ends_at_the_first_line_that_is_none_of_ours(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"generation": 0}}\n{line}\n{{"generation": 2}}\n')
    assert logs.read(path) == [{"generation": 0}]


def screen_of(terminal: bool = False) -> tuple[logs.Screen, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120, color_system=None)
    return logs.Screen(console=console), out


def test_plain_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, out = screen_of()
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    screen.start(0, 100)
    for generation in range(1, 11):
        now[0] += 1.0
        screen.update(generation, 0.25, 412_345.0)
    assert out.getvalue().splitlines() == [
        "generation 5/100  score 0.250  412 k steps/s  1:35 left",
        "generation 10/100  score 0.250  412 k steps/s  1:30 left",
    ]
    screen.update(100, 0.5, 2e6)
    assert out.getvalue().splitlines()[-1] == "generation 100/100  score 0.500  2 M steps/s"


def test_a_bar_on_a_terminal() -> None:
    screen, out = screen_of(terminal=True)
    with screen:
        screen.start(0, 4)
        screen.update(2, 0.25, 1500.0)
        screen.update(4)
    text = out.getvalue()
    assert "generation 4/4" in text
    assert "score 0.250" in text
    assert "1.5 k steps/s" in text


@pytest.mark.parametrize("terminal", [False, True])
def test_what_takes_long_is_said_while_it_lasts(
    monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setattr(logs, "_EVERY_S", 0.05)
    screen, out = screen_of(terminal)
    with screen.working("compiling"):
        deadline = time.monotonic() + 10
        while "so far" not in out.getvalue() and not terminal and time.monotonic() < deadline:
            time.sleep(0.01)
    assert ("compiling: 0 s so far" in out.getvalue()) is not terminal
    assert "compiling: 0." in out.getvalue().splitlines()[-1]


def test_quiet_says_nothing() -> None:
    out = io.StringIO()
    with logs.Screen(quiet=True, console=Console(file=out)) as screen:
        screen.line("x")
        with screen.working("y"):
            screen.start(0, 2)
        screen.update(2, 1.0, 1.0)
    assert out.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1.0, "0 s"), (59.4, "59 s"), (60.0, "1:00"), (3725.0, "1:02:05")]
)
def test_durations(seconds: float, text: str) -> None:
    assert logs.duration(seconds) == text


def test_tensorboard_has_the_numbers(tmp_path: Path) -> None:
    board = logs.TensorBoard(tmp_path, 0)
    board.write({"generation": 3, "validation": 0.5, "missing": None})
    board.sync()
    board.close()
    [events] = (tmp_path / "tensorboard").iterdir()
    data = events.read_bytes()
    assert b"validation" in data
    assert b"missing" not in data


def test_weights_and_biases_goes_on_with_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    class Remote:
        def log(self, row: dict[str, float], step: int) -> None:
            told.append((row, step))

        def finish(self) -> None:
            told.append("finished")

    def init(**settings: Any) -> Remote:
        told.append(settings)
        return Remote()

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    for _ in range(2):
        board = logs.WeightsAndBiases(tmp_path, {"seed": 1})
        board.write({"generation": 3, "validation": 0.5})
        board.sync()
        board.close()
    assert told[0]["name"] == tmp_path.name
    assert told[0]["config"] == {"seed": 1}
    assert told[0]["id"] == told[3]["id"]
    assert told[1:3] == [({"validation": 0.5}, 3), "finished"]


@pytest.mark.parametrize(
    ("require", "module", "extra"),
    [
        (logs.require_tensorboard, "tensorboardX", "tensorboard"),
        (logs.require_wandb, "wandb", "wandb"),
    ],
)
def test_a_missing_package_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, require: Any, module: str, extra: str
) -> None:
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=rf"pip install 'kairos-rl\[{extra}\]'$"):
        require()
