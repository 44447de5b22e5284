"""The wheel holds what it should, and notices a foreign `envs` beside it."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("discovery", "envs", "learned_objectives")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, offline: dict[str, str]) -> Path:
    tree = tmp_path_factory.mktemp("tree")
    skip = shutil.ignore_patterns("__pycache__")
    for name in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=skip)
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, tree)
    # Stands for any result that ships, so that the test needs none.
    pretrained = tree / "learned_objectives" / "pretrained"
    pretrained.mkdir(exist_ok=True)
    for name in ("sample.safetensors", "sample.json", "notes.txt"):
        (pretrained / name).write_text("{}")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "out", "."],
        cwd=tree,
        env=offline,
        check=True,
        capture_output=True,
    )
    [built] = (tree / "out").iterdir()
    return built


@pytest.fixture(scope="module")
def installed(
    wheel: Path, tmp_path_factory: pytest.TempPathFactory, offline: dict[str, str]
) -> Path:
    target = tmp_path_factory.mktemp("target")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target, wheel],
        env=offline,
        check=True,
        capture_output=True,
    )
    return target


def imports_discovery(*paths: Path) -> subprocess.CompletedProcess[str]:
    """Imports it from `paths` and the standard library alone (-S: no site-packages)."""
    return subprocess.run(
        [sys.executable, "-S", "-c", "import discovery; print(discovery.__file__)"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))},
        cwd=paths[0],
        capture_output=True,
        text=True,
    )


def test_wheel_holds_every_module_of_the_three_packages(wheel: Path) -> None:
    assert wheel.name == "kairos_rl-0.1.0-py3-none-any.whl"
    files = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    modules = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    }
    assert {name for name in files if name.endswith(".py")} == modules
    assert {f"{package}/py.typed" for package in PACKAGES} <= files
    pretrained = {name for name in files if name.startswith("learned_objectives/pretrained/")}
    assert {Path(name).suffix for name in pretrained} == {".json", ".safetensors"}


def test_wheel_names_its_command_licence_and_that_it_stays_here(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    info = "kairos_rl-0.1.0.dist-info"
    assert "kairos = discovery.cli:main" in archive.read(f"{info}/entry_points.txt").decode()
    assert "Apache License" in archive.read(f"{info}/licenses/LICENSE").decode()
    metadata = archive.read(f"{info}/METADATA").decode()
    assert "Classifier: Private :: Do Not Upload" in metadata


def test_installed_wheel_imports_lazily(installed: Path) -> None:
    done = imports_discovery(installed)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(installed)


@pytest.mark.parametrize("name", ["envs", "learned_objectives"])
def test_foreign_package_is_named(installed: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise SystemExit('it was imported')\n")
    done = imports_discovery(tmp_path, installed)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: Kairos needs its own package `{name}`, but Python finds another one "
        f"at {tmp_path / name}: use a virtual environment of its own (see README)"
    )


def test_missing_package_is_named(installed: Path, tmp_path: Path) -> None:
    shutil.copytree(installed / "discovery", tmp_path / "discovery")
    done = imports_discovery(tmp_path)
    assert "package `envs`, and Python finds none" in done.stderr.splitlines()[-1]


def pins(lock: str) -> list[Requirement]:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    return [
        Requirement(line.rstrip("\\ "))
        for line in text.splitlines()
        if re.match(r"[a-z0-9]", line, re.IGNORECASE)
    ]


def pinned(lock: str, python: str) -> dict[str, str]:
    """The version that `lock` gives each package on Linux under one Python."""
    system = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
    where = {
        **default_environment(),
        **system,
        "python_version": python,
        "python_full_version": f"{python}.0",
    }
    return {
        pin.name: str(pin.specifier).removeprefix("==")
        for pin in pins(lock)
        if pin.marker is None or pin.marker.evaluate(where)
    }


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize(
    ("lock", "extras"),
    [("run", ("gym", "brax")), ("dev", ("gym", "brax", "dev", "notebooks"))],
)
def test_locks_satisfy_the_project(lock: str, extras: tuple[str, ...], python: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = list(project["project"]["dependencies"]) + project["build-system"]["requires"]
    for extra in extras:
        wanted += project["project"]["optional-dependencies"][extra]
    found = pinned(lock, python)
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(Version(found[requirement.name.lower()]))


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_development_lock_holds_every_pin_of_the_other(python: str) -> None:
    assert pinned("run", python).items() <= pinned("dev", python).items()


def test_locks_name_hashes_and_no_place() -> None:
    for lock in ("uv", "run", "dev"):
        text = (ROOT / "requirements" / f"{lock}.txt").read_text()
        assert text.count("--hash=sha256:") >= len(pins(lock)) > 0
        assert not re.search(r"://|--index|--find-links|/", text)
