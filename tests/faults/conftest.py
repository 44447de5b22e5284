"""Processes that are killed, and what is thrown at readers."""

import functools
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

Command = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One device a process, and a compile cache that the tests of a session share."""
    cache = tmp_path_factory.getbasetemp() / "compiled"
    kept = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    return kept | {
        "JAX_PLATFORMS": "cpu",
        "KAIROS_DEVICES": "1",
        "XDG_CACHE_HOME": str(cache),
        "PYTHONPATH": str(ROOT),
    }


@pytest.fixture
def kairos(tmp_path: Path, environment: dict[str, str]) -> Command:
    """Begins the real command in a folder of the test's own."""

    def begin(*words: str, limit: tuple[Any, ...] = ()) -> "subprocess.Popen[str]":
        """``limit``: as ``resource.setrlimit`` takes it."""
        return subprocess.Popen(
            [sys.executable, "-m", "discovery.cli", *words],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=functools.partial(resource.setrlimit, *limit) if limit else None,
        )

    return begin
