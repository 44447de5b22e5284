"""Killed at random moments, a search ends with the bytes of one that nobody disturbed."""

import json
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from discovery.config import to_json
from discovery.runs import checkpoint, logs
from tests.faults.conftest import Command
from tests.faults.kills import CONFIG

HARNESS = Path(__file__).with_name("kills.py")


def harness(environment: dict[str, str], folder: Path, kills: int, *words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(HARNESS), str(folder), str(kills), *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    print(told)
    assert told["kills"] == kills
    assert told["searches"] > 0
    return dict(told)


def test_twenty_kills(environment: dict[str, str], tmp_path: Path) -> None:
    told = harness(environment, tmp_path, 20, "--plain", "--seed", "1")
    assert told["kills while a checkpoint was written"] > 0


@pytest.mark.slow
def test_three_hundred_kills(environment: dict[str, str], tmp_path: Path) -> None:
    """Two at a time, since one life keeps one core busy."""
    with ThreadPoolExecutor() as pool:
        seeds = ("0", "1")
        both = list(
            pool.map(lambda seed: harness(environment, tmp_path / seed, 150, "--seed", seed), seeds)
        )
    for told in both:
        assert told["kills while a checkpoint was written"] > 10
        assert told["SIGTERM"] + told["SIGINT"] > 2


def command_killed(kairos: Command, where: Path, kills: int) -> None:
    """Kill the command at random moments, and compare what it leaves in the end."""
    rng = random.Random(kills)
    (where / "tiny.json").write_text(to_json(CONFIG))
    begin = ("evolve", "--preset", "tiny.json", "--out")
    began = time.monotonic()
    whole = kairos(*begin, "whole")
    said, _ = whole.communicate(timeout=400)
    assert whole.returncode == 0, said
    length = time.monotonic() - began
    spent = 0
    while spent < kills or not (where / "run" / "objective.safetensors").exists():
        known = (where / "run" / "config.json").exists()
        before = checkpoint.latest(where / "run" / "checkpoints")
        process = kairos(*(("evolve", "--resume", "run") if known else (*begin, "run")))
        if spent < kills:
            # A life that finds its programs compiled is shorter than the first.
            time.sleep(rng.uniform(0, length / 2))
            process.send_signal(signal.SIGKILL)
        said, _ = process.communicate(timeout=400)
        assert "Traceback" not in said
        assert process.returncode in (0, -signal.SIGKILL), said
        if process.returncode:
            spent += 1
            assert (checkpoint.latest(where / "run" / "checkpoints") or 0) >= (before or 0)
        elif spent < kills:
            (where / "run").rename(where / f"done-{spent}")
    for done in (where / "run", *where.glob("done-*")):
        for name in ("objective.safetensors", "config.json"):
            assert (done / name).read_bytes() == (where / "whole" / name).read_bytes()
        assert untimed(done) == untimed(where / "whole")


def untimed(folder: Path) -> list[dict[str, Any]]:
    rows = logs.read(folder / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k not in logs.TIMES} for row in rows]


@pytest.mark.parametrize("kills", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_the_command(kairos: Command, tmp_path: Path, kills: int) -> None:
    command_killed(kairos, tmp_path, kills)
