"""Several processes run one search: the same bytes, one end for all, and another number after."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from discovery.cli import main
from discovery.config import (
    Config,
    ConfigError,
    CurriculumConfig,
    GradientConfig,
    WindowConfig,
    to_json,
)
from discovery.devices import Place, parse_hosts
from discovery.runs import checkpoint
from tests.faults.kills import CONFIG
from tests.faults.test_kills import untimed

Start = Callable[..., "list[subprocess.Popen[str]]"]

CHAIN = Path(__file__).parents[1] / "data" / "restful_chain.py"
HOSTS = replace(
    CONFIG,
    env=f"{CHAIN}:make",
    generations=4,
    evolution=replace(CONFIG.evolution, pairs=8),
)
"""Four groups of lives."""

WITHIN_S = 60.0
"""In which a process that is left by another has to end."""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def start(tmp_path: Path, environment: dict[str, str]) -> Generator[Start]:
    """Begins the same command in several processes that find each other on this machine."""
    begun: list[subprocess.Popen[str]] = []

    def begin(count: int, devices: int, *words: str) -> "list[subprocess.Popen[str]]":
        port = free_port()
        several = [
            subprocess.Popen(
                [sys.executable, "-m", "discovery.cli", "evolve", *words]
                + ["--devices", str(devices)]
                + (["--hosts", f"127.0.0.1:{port},{count},{index}"] if count > 1 else []),
                cwd=tmp_path,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for index in range(count)
        ]
        begun.extend(several)
        return several

    yield begin
    for process in begun:
        if process.poll() is None:
            process.kill()
        if process.stdout is not None and not process.stdout.closed:
            process.communicate()


def ended(processes: "list[subprocess.Popen[str]]", status: int = 0) -> list[str]:
    """What each of some processes said, once all have ended as they should."""
    said = [process.communicate(timeout=400)[0] for process in processes]
    assert [p.returncode for p in processes] == [status] * len(said), said
    for text in said:
        assert "Traceback" not in text
    return said


def same(a: Path, b: Path) -> None:
    for name in ("objective.safetensors", "config.json"):
        assert (a / name).read_bytes() == (b / name).read_bytes()
    assert untimed(a) == untimed(b)


def write(where: Path, config: Config) -> tuple[str, ...]:
    (where / "tiny.json").write_text(to_json(config))
    return ("--preset", "tiny.json", "--out")


def without_gloo(text: str) -> str:
    """What is not Gloo's: its threads write their lines in pieces, which may stand among others."""
    words = r"\[Gloo\]|Rank|is connected to|peer ranks\.|Expected number of connected peer ranks is"
    return re.sub(rf"{words}|[\d:\s]", "", text)


# --- what is asked for ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "environment", "found"),
    [
        ("10.0.0.1:12,4,3", {}, Place("10.0.0.1:12", 4, 3)),
        ("[::1]:12,2,0", {}, Place("[::1]:12", 2, 0)),
        ("", {}, "alone"),
        ("", {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "8"}, "alone"),
        ("", {"SLURM_STEP_NUM_TASKS": "8"}, "auto"),
        ("alone", {"SLURM_STEP_NUM_TASKS": "8"}, "alone"),
        ("", {"OMPI_COMM_WORLD_SIZE": "2"}, "alone"),
        ("", {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://h:1"}, "auto"),
        ("", {"TPU_WORKER_HOSTNAMES": "one"}, "alone"),
        ("", {"TPU_WORKER_HOSTNAMES": "one,two"}, "auto"),
        ("", {"MEGASCALE_COORDINATOR_ADDRESS": "one"}, "auto"),
        ("auto", {}, "auto"),
        ("", {"SLURM_STEP_NUM_TASKS": "8", "KAIROS_HOSTS": "alone"}, "alone"),
        ("auto", {"KAIROS_HOSTS": "alone"}, "auto"),
    ],
)
def test_what_hosts_ask_for(text: str, environment: dict[str, str], found: Any) -> None:
    assert parse_hosts(text, environment) == found


@pytest.mark.parametrize(
    "text",
    ["here", "a:1", "a:1,2", "a:1,2,2", "a:1,0,0", ":1,2,0", "a:x,2,0", "a:1,2,-1", "a:1,2,0,0"],
)
def test_hosts_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="hosts"):
        parse_hosts(text, {})


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", "a2c", "--out", "table.csv"),
        ("train", "--objective", "a2c", "--out", "life"),
        ("inspect", "ta-lpg-cpu", "--out", "pictures"),
        ("tune", "--preset", "smoke", "--rule", "a2c-constant", "--out", "tuned"),
        ("reproduce", "claim-6", "--out", "results"),
        ("quickstart", "--out", "quick"),
    ],
)
def test_only_a_search_is_of_several_processes(
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Started by a launcher, each would do all of the work and write over the others."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    assert main(list(words)) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("kairos: several processes run kairos evolve only: start one process")
    assert f"kairos {words[0]}, or set KAIROS_HOSTS=alone" in line
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_gloos_is_seen() -> None:
    line = "[Gloo] Rank 3 is connected to 3 peer ranks. "
    line += "Expected number of connected peer ranks is : 3"
    assert without_gloo(f"[Gloo] Rank {line}\n{line[12:]}\n") == ""
    assert without_gloo(f"{line}\ngeneration 3/4") == "generation/"


# --- processes --------------------------------------------------------------------------------


def test_two_processes_are_one(start: Start, tmp_path: Path) -> None:
    """Two of two devices against one of one; only the first talks."""
    out = write(tmp_path, HOSTS)
    first, second = ended(start(2, 2, *out, "two"))
    assert "4 x cpu, 2 processes" in first
    assert "objective: " in first
    assert without_gloo(second) == ""
    ended(start(1, 1, *out, "one"))
    same(tmp_path / "one", tmp_path / "two")


def estimators() -> dict[str, Config]:
    groove = CurriculumConfig("groove", buffer=64, antagonists=2)
    gradient = GradientConfig(agents=8, agents_group=2, meta_rate=0.01)
    windows: Any = replace(HOSTS, estimator="windows", window=WindowConfig(window=2))
    meta: Any = replace(HOSTS, estimator="gradient", gradient=gradient)
    return {
        "evolution": HOSTS,
        "groove": replace(HOSTS, curriculum=groove),
        "windows": replace(windows, window=WindowConfig(window=2)),
        "gradient": replace(meta, curriculum=groove, window=WindowConfig(window=2)),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", list(estimators()))
@pytest.mark.parametrize("count", [2, 4])
def test_every_estimator_on_any_number(start: Start, tmp_path: Path, name: str, count: int) -> None:
    """Half of the way by several processes, the other half by one, and the other way round."""
    config = estimators()[name]
    out = write(tmp_path, config)
    ended(start(1, 1, *out, "one"))
    for parts, folder in (((count, 1), "several-one"), ((1, count), "one-several")):
        ended(start(parts[0], 1, *out, folder, "--generations", "2"))
        resume = ("--resume", folder, "--generations", "4")
        said = ended(start(parts[1], 1 if parts[1] > 1 else 2, *resume))
        assert "going on from generation 2" in said[0]
        assert "bits may differ" in said[0]
        same(tmp_path / "one", tmp_path / folder)


def until_saved(processes: "list[subprocess.Popen[str]]", folder: Path, generation: int) -> None:
    until = time.monotonic() + 400
    while (checkpoint.latest(folder / "checkpoints") or 0) < generation:
        assert all(process.poll() is None for process in processes)
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_one_that_is_killed_ends_all(start: Start, tmp_path: Path, victim: int) -> None:
    out = write(tmp_path, replace(HOSTS, generations=1_000_000))
    processes = start(2, 1, *out, "run")
    until_saved(processes, tmp_path / "run", 4)
    processes[victim].kill()
    died = time.monotonic()
    said, _ = processes[1 - victim].communicate(timeout=WITHIN_S)
    assert time.monotonic() - died < WITHIN_S
    assert processes[1 - victim].returncode == 1, said
    line = [line for line in said.splitlines() if line.startswith("kairos: ")][-1]
    assert "another process was lost" in line
    assert "go on with: kairos evolve --resume run" in line
    assert "Traceback" not in said
    # Another number of processes goes on with it, and ends where one would have.
    [told] = ended(start(1, 1, "--resume", "run", "--max-minutes", "0.02"))
    assert "going on from generation " in told
    assert "2 x cpu, 2 processes" in told


@pytest.mark.slow
def test_one_that_hangs_ends_all(start: Start, tmp_path: Path) -> None:
    """It does not answer, and nothing of it is closed: its heartbeat is missed."""
    out = write(tmp_path, replace(HOSTS, generations=1_000_000))
    processes = start(2, 1, *out, "run")
    until_saved(processes, tmp_path / "run", 4)
    children = Path(f"/proc/{processes[1].pid}/task/{processes[1].pid}/children").read_text()
    os.kill(int(children), signal.SIGSTOP)
    stopped = time.monotonic()
    said, _ = processes[0].communicate(timeout=2 * WITHIN_S)
    print(f"ended {time.monotonic() - stopped:.0f} s after the other had stopped")
    assert time.monotonic() - stopped < WITHIN_S
    assert processes[0].returncode == 1, said
    assert "another process was lost" in said
    os.kill(int(children), signal.SIGCONT)


@pytest.mark.slow
@pytest.mark.parametrize("asked", [0, 1])
def test_one_that_is_told_to_end_saves_for_all(start: Start, tmp_path: Path, asked: int) -> None:
    out = write(tmp_path, replace(HOSTS, generations=1_000_000))
    processes = start(2, 1, *out, "run")
    until_saved(processes, tmp_path / "run", 4)
    processes[asked].send_signal(signal.SIGTERM)
    said = ended(processes, 143)
    assert "go on with: kairos evolve --resume run" in said[0]


@pytest.mark.slow
def test_what_one_refuses_none_begins(start: Start, tmp_path: Path) -> None:
    out = write(tmp_path, HOSTS)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("text")
    said = ended(start(2, 1, *out, "taken"), 2)
    assert "something that is not a run" in said[0]
    assert "process 0 refused, and says why" in said[1]
    said = ended(start(3, 1, *out, "run"), 2)
    assert "4 groups of lives do not spread evenly over 3 processes" in said[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_processes_that_do_not_find_each_other(environment: dict[str, str], tmp_path: Path) -> None:
    script = (
        "import jax; from discovery import devices; old = jax.distributed.initialize;"
        "jax.distributed.initialize = lambda **k: old(**k | {'initialization_timeout': 3});"
        "import sys; from discovery.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    asked = (*write(tmp_path, HOSTS), "run", "--hosts", f"127.0.0.1:{free_port()},2,1")
    done = subprocess.run(
        [sys.executable, "-c", script, "evolve", *asked],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (1, 2), done.stderr
    assert done.stderr.splitlines()[-1].startswith("kairos: ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
