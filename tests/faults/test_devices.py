"""On any number of devices a search is the same, bit for bit, and nothing in it holds them all."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.generation import CONFIG

SCRIPT = Path(__file__).with_name("generation.py")
LIVES, GROUP = 2 * CONFIG.evolution.pairs, CONFIG.evolution.group
GROUPS = LIVES // GROUP


def on(
    count: int, environment: dict[str, str], estimator: str = "evolution", dump: Path | None = None
) -> dict[str, Any]:
    flags = environment.get("XLA_FLAGS", "")
    if dump is not None:
        flags += f" --xla_dump_to={dump} --xla_dump_hlo_as_text"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(count), estimator],
        env=environment | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert told.pop("devices") == count
    return told


def arrays(line: str) -> list[int]:
    """Elements of each array that a line of a compiled program names."""
    return [
        math.prod(int(size) for size in sizes.split(",") if size)
        for sizes in re.findall(r"\b(?:f|bf|s|u|pred)\d*\[([\d,]*)\]", line)
    ]


def results(line: str) -> list[int]:
    """Elements of the arrays that an operation gives: left of its name."""
    return arrays(line.partition(" = ")[2].partition("all-gather")[0])


def test_one_device_and_eight(environment: dict[str, str], tmp_path: Path) -> None:
    """Candidates, tasks, scores, state and metrics; and what the programs of eight hold."""
    one = on(1, environment)
    eight = on(8, environment, dump=tmp_path)
    assert one == eight
    assert {"1 candidates", "1 tasks", "1 scores", "2 state"} <= set(one)
    parameters = one["parameters"]
    programs = {p: p.read_text() for p in tmp_path.glob("*after_optimizations.txt")}
    assert any("jit_program" in path.name for path in programs)
    assert any("jit_group_sums" in path.name for path in programs)
    # A fourth of the population at most: what a group, or a sum of each group, has of theta.
    most = max(GROUP, GROUPS) * parameters
    assert most * 4 == LIVES * parameters
    gathers = 0
    for path, text in programs.items():
        for line in text.splitlines():
            assert max(arrays(line), default=0) <= most, (path.name, line)
            if " all-gather" in line:
                gathers += 1
                assert sum(results(line)) <= GROUPS * parameters, (path.name, line)
    assert gathers > 0, "lives are gathered from eight devices"


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["evolution", "windows", "gradient"])
def test_any_number_of_devices(environment: dict[str, str], estimator: str) -> None:
    one = on(1, environment, estimator)
    for count in (2, 4, 8):
        assert on(count, environment, estimator) == one, count
