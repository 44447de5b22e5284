"""What a run runs on: flags before JAX starts, devices, memory, the compile cache.

No JAX at import: the command's help reads versions and folders from here.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from discovery.config import ConfigError

PACKAGES = (
    "kairos-rl",
    "jax",
    "jaxlib",
    "numpy",
    "flax",
    "optax",
    "evosax",
    "orbax-checkpoint",
    "gymnax",
    "brax",
)
"""Distributions whose versions a run remembers."""


class Memory(NamedTuple):
    """Memory that a program may take."""

    available: int
    """Bytes: of the whole machine for CPU devices, of the fullest device otherwise."""
    shared: bool
    """All devices take from it together."""


def cores() -> int:
    """CPU cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def start(devices: int | None = None, most: int | None = None, cache: bool = False) -> None:
    """Set JAX up; to be called before anything of JAX runs, and harmless afterwards.

    On a CPU there is one virtual device a core, since one program does not keep several cores
    busy. A number set by the user (``KAIROS_DEVICES``, ``JAX_NUM_CPU_DEVICES``, or XLA's own flag)
    stands.

    Args:
      devices: virtual CPU devices; ``None`` for one a core.
      most: devices that the work can use; more are not made unless asked for.
      cache: keep compiled programs in the user's cache folder.

    Raises:
      ConfigError: a number of devices that cannot be had.
    """
    import jax

    jax.config.update("jax_default_prng_impl", "threefry2x32")
    asked = devices if devices is not None else _asked()
    if asked is not None and asked < 1:
        raise ConfigError(f"devices must be at least 1, not {asked}")
    chosen = (
        "JAX_NUM_CPU_DEVICES" in os.environ
        or "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    )
    if asked is not None or not chosen:
        count = asked or min(cores(), most or cores())
        try:
            jax.config.update("jax_num_cpu_devices", count)
        except RuntimeError:
            # In a notebook JAX may be running; what it has is used unless something else was asked.
            found = jax.device_count("cpu")
            if asked is not None and found != asked:
                raise ConfigError(
                    f"devices {asked}: JAX has already started with {found}; ask before it starts"
                ) from None
    if cache:
        _start_cache()


def _asked() -> int | None:
    text = os.environ.get("KAIROS_DEVICES", "")
    if not text:
        return None
    if not text.isdecimal():
        raise ConfigError(f"KAIROS_DEVICES must be a whole number, not {text!r}")
    return int(text)


def describe() -> str:
    """The devices in words, such as ``2 x cpu``."""
    import jax

    found = jax.devices()
    return f"{len(found)} x {found[0].device_kind}"


def memory() -> Memory:
    """What the devices have left."""
    import jax

    stats = [device.memory_stats() for device in jax.local_devices()]
    free = [s["bytes_limit"] - s.get("bytes_in_use", 0) for s in stats if s and "bytes_limit" in s]
    if free:
        return Memory(min(free), shared=False)
    return Memory(host_memory(), shared=True)


def host_memory() -> int:
    """Bytes of memory that a process of this machine (of this container) can still take."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    bounds = [total]
    meminfo = _text(Path("/proc/meminfo"))
    if found := re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, re.MULTILINE):
        bounds.append(int(found[1]) * 1024)
    group = Path("/sys/fs/cgroup")
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        top, now = _text(group / limit).strip(), _text(group / used).strip()
        if top.isdecimal() and now.isdecimal():
            bounds.append(max(0, int(top) - int(now)))
    return min(bounds)


def gibibytes(size: int) -> str:
    """A size in words: ``1.5 GiB``, ``12 MiB``."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def versions() -> dict[str, str]:
    """Versions that decide the bits of a result; reads package metadata and imports nothing."""
    found = {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu("model name") or platform.processor(),
    }
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if commit := _commit():
        found["commit"] = commit
    return found


def _commit() -> str:
    """The commit of the checkout this package lies in, ``-dirty`` if changed; else nothing."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return ""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def cache_folder() -> Path:
    """Where compiled programs are kept: one folder per JAX version, CPU and compiler flags.

    A program compiled for one CPU may not run on another, and home folders are often shared.
    """
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if chosen:
        return Path(chosen)
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    facts = (platform.machine(), _cpu("flags|Features") or platform.processor())
    mark = hashlib.sha256("|".join((*facts, os.environ.get("XLA_FLAGS", ""))).encode()).hexdigest()
    return base / "kairos" / f"jax-{importlib.metadata.version('jax')}-{mark[:12]}"


def _start_cache() -> None:
    import jax

    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # a home that cannot be written costs compile time, nothing else
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    heal(folder)


_DAMAGED = re.compile(r"Error reading persistent compilation cache entry for '([\w.-]+)'")


def heal(folder: Path) -> None:
    """Delete a damaged entry of the compile cache when JAX warns of it.

    JAX writes entries without a rename, and never replaces one that exists: an entry cut by a kill
    would warn in every later process.
    """
    show = warnings.showwarning

    def showwarning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: Any = None,
        line: str | None = None,
    ) -> None:
        found = _DAMAGED.match(str(message))
        if found is None:
            show(message, category, filename, lineno, file, line)
            return
        for entry in folder.glob(f"{found[1]}*"):
            entry.unlink(missing_ok=True)
        print("a damaged entry of the compile cache was deleted", file=sys.stderr)

    warnings.showwarning = showwarning


def _cpu(field: str) -> str:
    """A field of the first processor, where the system tells."""
    text = _text(Path("/proc/cpuinfo"))
    found = re.search(rf"^(?:{field})\s*:(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
