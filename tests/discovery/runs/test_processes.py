"""The command as a process, with the real search, killed at a bad moment."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from discovery.runs import checkpoint, logs

SIZES = ("--preset", "smoke", "--generations", "6", "--log-every", "1", "--checkpoint-every", "2")


@pytest.mark.slow
def test_killed_and_resumed_equals_undisturbed(tmp_path: Path) -> None:
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)

    def kairos(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "discovery.cli", "evolve", *words],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    whole = kairos(*SIZES, "--out", "whole")
    said, _ = whole.communicate(timeout=400)
    assert whole.returncode == 0, said

    for number, status in ((signal.SIGKILL, -9), (signal.SIGINT, 130)):
        folder = tmp_path / f"stopped-{status}"
        process = kairos(*SIZES, "--out", folder.name)
        deadline = time.monotonic() + 400
        while checkpoint.latest(folder / "checkpoints") is None:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        said, _ = process.communicate(timeout=100)
        assert process.returncode == status, said
        assert "Traceback" not in said
        resumed = kairos("--resume", folder.name)
        said, _ = resumed.communicate(timeout=400)
        assert resumed.returncode == 0, said
        assert "going on from generation " in said
        for name in ("objective.safetensors", "config.json"):
            assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
        rows = [logs.read(place / "metrics.jsonl") for place in (folder, tmp_path / "whole")]
        for ours, theirs in zip(*rows, strict=True):
            for name in logs.TIMES:
                ours.pop(name, None)
                theirs.pop(name, None)
            assert ours == theirs
