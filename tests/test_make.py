"""`make` finds a Python that runs, and needs no network the second time."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_second_make_needs_no_network(offline: dict[str, str]) -> None:
    if Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("the tests do not run in the environment that make made")
    stamps = [ROOT / ".venv" / f"installed-{lock}" for lock in ("run", "dev")]
    before = [stamp.stat().st_mtime_ns for stamp in stamps]
    start = time.monotonic()
    done = subprocess.run(
        ["make", "--no-print-directory", "venv"],
        cwd=ROOT,
        env=offline,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [stamp.stat().st_mtime_ns for stamp in stamps] == before
    assert time.monotonic() - start < 10


def find_python(folder: Path, *hollow: str) -> subprocess.CompletedProcess[str]:
    """Looks for a Python where the names in `hollow` are shims with nothing behind them."""
    for name in ("python", "python3", "python3.11", "python3.12", "python3.13"):
        if name in hollow:
            (folder / name).write_text("#!/bin/sh\necho command not found >&2\nexit 127\n")
            (folder / name).chmod(0o755)
        else:
            (folder / name).symlink_to(sys.executable)
    environment = os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("PYTHON", None)
    return subprocess.run(
        [ROOT / "tools" / "find-python.sh"], env=environment, capture_output=True, text=True
    )


def test_a_hollow_shim_is_passed_over(tmp_path: Path) -> None:
    done = find_python(tmp_path, "python3", "python3.13", "python3.12")
    assert (done.returncode, done.stdout.strip()) == (0, "python3.11")


def test_no_python_is_said_in_a_line(tmp_path: Path) -> None:
    done = find_python(tmp_path, "python", "python3", "python3.11", "python3.12", "python3.13")
    assert done.returncode == 1
    assert done.stderr.startswith("Kairos needs Python 3.11 or later, with pip and venv")
