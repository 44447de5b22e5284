"""What the README says is there, is there."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from discovery import cli
from discovery.cli import VERBS
from discovery.config import Config, check, preset, to_json
from learned_objectives.base import Time
from learned_objectives.library import load

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_its_objective_is_the_one_that_is_tested() -> None:
    assert (ROOT / "tests/data/own_objective.py").read_text().strip() in README


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert len(links) >= 3
    missing = [link for link in links if not (ROOT / link).exists()]
    assert not missing


def test_its_verbs_exist() -> None:
    verbs = re.findall(r"^kairos (\w+)", README, re.MULTILINE)
    assert len(verbs) >= 7
    assert set(verbs) <= set(VERBS)


def test_every_verb_is_shown() -> None:
    assert all(f"kairos {verb}" in README or f"make {verb}" in README for verb in VERBS)


# --- what can be pasted ---------------------------------------------------------------------------


DOCUMENTS = ("README.md", "TPU_SETUP.md", "RESULTS.md", "CONTRIBUTING.md")
"""Those whose commands are for everybody."""


def blocks(document: str, language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(document: str) -> list[list[str]]:
    """The words of every command of the shell's, comments left out."""
    lines = [
        line
        for block in blocks(document, "bash")
        for line in block.replace("\\\n", " ").splitlines()
    ]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def of_kairos(document: str) -> list[list[str]]:
    """What follows ``kairos`` in those that start it, by a launcher or not."""
    found = []
    for words in commands(document):
        if "kairos" in words:
            rest = words[words.index("kairos") + 1 :]
            found.append([word for word in rest if word != "&"])
    return found


class UnderstoodError(Exception):
    """A request was read whole; nothing was done."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone in which the commands before this one have been run, as far as they are needed."""
    for name in ("tests", "learned_objectives", "discovery", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name)
    for run in ("runs/a", "check", "scratch/a"):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / "config.json").write_text(to_json(preset("smoke")))
    (tmp_path / "my_env.py").write_text((ROOT / "tests/data/restful_chain.py").read_text())
    monkeypatch.setenv("SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_is_understood(
    document: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse, read = cli._parse, []

    def only_parse(kind: Any, verb: str, arguments: list[str], default: Any = None) -> Any:
        read.append(parse(kind, verb, arguments, default))
        raise UnderstoodError

    monkeypatch.setattr(cli, "_parse", only_parse)
    told = of_kairos(document)
    for words in told:
        if words[0] == "help" or words[0].startswith("-"):
            continue
        with pytest.raises(UnderstoodError):
            cli._dispatch([os.path.expandvars(word) for word in words])
        config = getattr(read[-1], "config", None)
        if isinstance(config, Config):
            check(config)
    assert document in ("CONTRIBUTING.md",) or len(told) >= 2


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_other_command_is_there(document: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for words in commands(document):
        if words[0] == "make":
            assert set(words[1:]) <= {*targets} or "=" in words[-1], words
        elif words[0] in ("python", ".venv/bin/python") and words[1] != "-m":
            assert (ROOT / words[1]).is_file(), words
        elif words[0].startswith("tools/"):
            assert os.access(ROOT / words[0], os.X_OK), words


def test_its_python_runs_as_pasted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "runs" / "from-python").parent.mkdir(exist_ok=True)
    names: dict[str, Any] = {"__name__": "pasted"}
    for block in blocks("README.md", "python"):
        if "class Reinforce" not in block:  # a file of its own, tested as such
            exec(compile(block, "README.md", "exec"), names)
    said = capsys.readouterr().out
    assert "{'rule': 'lpg'" in said or "lpg" in said
    # The drift in NumPy is ours.
    ours = load("ta-lpo")
    for p, advantage, t in ((1.5, 1.0, 0.0), (0.4, -2.0, 0.75), (3.0, -1.0, 0.5), (1.0, 1.0, 0.5)):
        time = Time(n=jnp.asarray(100 * t), N=jnp.asarray(100.0), unit=jnp.asarray(1.0))
        wanted = ours.objective.drift(
            ours.theta, ours.objective.hyper(), jnp.log(p), jnp.asarray(advantage), time
        )
        assert names["drift"](p, advantage, t) == pytest.approx(float(wanted), abs=1e-5)


@pytest.mark.slow
def test_every_command_of_the_readme_runs_as_pasted(folder: Path) -> None:
    """Searches and games stop after some seconds; all else is run to its end."""
    for words in of_kairos("README.md"):
        limit = []
        if words[0] in ("evolve", "tune") and not {"smoke", "--resume"} & {*words}:
            limit = ["--max-minutes", "0.3"]
            if "--max-minutes" in words:
                at = words.index("--max-minutes")
                words = words[:at] + words[at + 2 :]
        if "quickstart" in words and "runs/a" in words:  # others read what it leaves
            limit = ["--overwrite", "--generations", "20"]
        done = subprocess.run(
            [sys.executable, "-m", "discovery.cli", *words, *limit],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, (words, done.stdout[-500:], done.stderr[-500:])
