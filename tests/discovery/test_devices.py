"""What a run runs on."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from discovery import devices
from discovery.config import ConfigError


def test_devices_in_words() -> None:
    assert devices.describe() == f"{len(jax.devices())} x cpu"


def test_memory_is_what_there_is() -> None:
    found = devices.memory()
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert found.shared
    assert 2**20 < found.available <= total
    assert devices.gibibytes(3 * 2**29) == "1.5 GiB"
    assert devices.gibibytes(3 * 2**20) == "3 MiB"


def test_memory_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/proc/meminfo": "MemTotal: 9 kB\nMemAvailable:   2048 kB\n",
        "/sys/fs/cgroup/memory.max": "1500000\n",
        "/sys/fs/cgroup/memory.current": "500000\n",
    }
    monkeypatch.setattr(devices, "_text", lambda path: files.get(str(path), ""))
    assert devices.host_memory() == 1_000_000
    files["/sys/fs/cgroup/memory.max"] = "max\n"
    assert devices.host_memory() == 2048 * 1024


def test_devices_are_asked_for_before_jax_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    count = len(jax.devices())
    devices.start()
    devices.start(count)
    with pytest.raises(ConfigError, match=f"JAX has already started with {count}"):
        devices.start(count + 1)
    with pytest.raises(ConfigError, match="devices must be at least 1, not 0"):
        devices.start(0)
    monkeypatch.setenv("KAIROS_DEVICES", "two")
    with pytest.raises(ConfigError, match="KAIROS_DEVICES must be a whole number, not 'two'"):
        devices.start()


def test_versions_name_what_decides_the_bits() -> None:
    found = devices.versions()
    assert found["jax"] == jax.__version__
    assert {"python", "platform", "cpu", "kairos-rl", "numpy", "optax"} <= set(found)


def test_cache_folder_differs_by_version_and_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.setenv("XLA_FLAGS", "")
    plain = devices.cache_folder()
    assert plain.parent == Path("/somewhere/kairos")
    assert plain.name.startswith(f"jax-{jax.__version__}-")
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    assert devices.cache_folder() != plain
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/chosen")
    assert devices.cache_folder() == Path("/chosen")


_SCRIPT = """
from discovery import devices
devices.start(cache=True)
import jax, jax.numpy as jnp
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
print(len(jax.devices()), jax.jit(lambda x: jnp.sin(x) @ x, inline=False)(jnp.eye(3))[0, 0])
"""


_KILLED = """
import os, signal
from jax._src import lru_cache
whole = type(lru_cache.pathlib.Path("."))
writes = whole.write_bytes
def half(path, data):
    writes(path, data[: len(data) // 2])
    os.kill(os.getpid(), signal.SIGKILL)
whole.write_bytes = half
"""
"""A process that is killed while it writes its first entry."""


@pytest.mark.parametrize("how", ["cut", "killed while it is written"])
def test_a_cut_cache_entry_is_deleted_and_made_anew(tmp_path: Path, how: str) -> None:
    environment = {
        **{k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"},
        "XDG_CACHE_HOME": str(tmp_path),
        "KAIROS_DEVICES": "3",
    }
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)

    def run() -> tuple[str, str]:
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        # What XLA logs by itself is another matter: some versions do at every load.
        ours = [
            line for line in done.stderr.splitlines(True) if not re.match(r"[IWEF]\d{4} ", line)
        ]
        return done.stdout, "".join(ours)

    def only(pattern: str) -> Path:
        [folder] = (tmp_path / "kairos").iterdir()
        [found] = folder.glob(pattern)
        return found

    if how == "cut":
        assert run() == ("3 0.84147096\n", "")
        entry = only("*lambda*-cache")
        entry.write_bytes(entry.read_bytes()[: entry.stat().st_size // 2])
    else:
        dead = subprocess.run(
            [sys.executable, "-c", _KILLED + _SCRIPT], env=environment, check=False
        )
        assert dead.returncode == -signal.SIGKILL
        entry = only("*-cache")
    cut = entry.stat().st_size
    assert run() == ("3 0.84147096\n", "a damaged entry of the compile cache was deleted\n")
    assert entry.stat().st_size > cut
    assert run() == ("3 0.84147096\n", "")
