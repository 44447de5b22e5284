"""What a run runs on: flags before JAX starts, processes, devices, memory, the compile cache.

Several processes run one search, each the same command. What a search knows of itself is computed
by each of them from the same data, and only lives are spread over the devices of all: what is
gathered is their scores. No JAX at import: the command's help reads versions and folders from here.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from discovery.config import ConfigError

if TYPE_CHECKING:
    import jax

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

SWITCHES = (
    "XLA_FLAGS",
    "LIBTPU_INIT_ARGS",
    "JAX_DEFAULT_MATMUL_PRECISION",
    "JAX_ENABLE_X64",
    "NVIDIA_TF32_OVERRIDE",
)
"""Variables of the environment that decide the bits of a result, and that a run remembers."""

HEARTBEAT_S = 30
"""Silence after which a process counts as dead."""


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


# --- processes --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where a process finds the others."""

    address: str
    """Host and port of process 0."""
    count: int
    index: int


def parse_hosts(text: str, environment: Mapping[str, str] = os.environ) -> Place | str:
    """What ``--hosts`` asks for.

    Args:
      text: ``ADDRESS:PORT,COUNT,INDEX``; ``auto``, for JAX to find out; ``alone``; or nothing, for
        ``KAIROS_HOSTS``.
      environment: where a launcher tells that there are several processes, if nothing else does.

    Returns:
      The place, ``auto`` or ``alone``.

    Raises:
      ConfigError: it is something else.

    Example:
      >>> parse_hosts("10.0.0.1:1234,2,0")
      Place(address='10.0.0.1:1234', count=2, index=0)
      >>> parse_hosts("", {"SLURM_STEP_NUM_TASKS": "4"})
      'auto'
    """
    text = text or environment.get("KAIROS_HOSTS", "")
    if text in ("auto", "alone"):
        return text
    if not text:
        return "auto" if _launched(environment) else "alone"
    address, *numbers = text.split(",")
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and len(numbers) == 2 and all(map(str.isdecimal, numbers))):
        raise ConfigError(f"hosts must be ADDRESS:PORT,COUNT,INDEX, auto or alone, not {text!r}")
    count, index = map(int, numbers)
    if index >= count:
        raise ConfigError(f"hosts {text}: of {count} processes the last has index {count - 1}")
    return Place(address, count, index)


def _launched(environment: Mapping[str, str]) -> bool:
    """Whether a launcher that JAX knows has started several processes of one job."""
    counts = [environment.get("SLURM_STEP_NUM_TASKS", "")]
    if "OMPI_MCA_orte_hnp_uri" in environment:
        counts.append(environment.get("OMPI_COMM_WORLD_SIZE", ""))
    workers = environment.get("TPU_WORKER_HOSTNAMES", "").split(",")
    slices = "MEGASCALE_COORDINATOR_ADDRESS" in environment
    return slices or len(workers) > 1 or any(c.isdecimal() and int(c) > 1 for c in counts)


def refuse_several(verb: str, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse work that is one process's where a launcher has started several.

    Each of them would do all of it, and write over what the others write.

    Raises:
      ConfigError: with what to do instead.
    """
    if parse_hosts("", environment) != "alone":
        raise ConfigError(
            f"several processes run kairos evolve only: start one process of kairos {verb}, or set "
            "KAIROS_HOSTS=alone if each has an --out of its own"
        )


def join(hosts: str = "", devices: int | None = None) -> bool:
    """Find the other processes of a run; to be called before JAX has its devices.

    Args:
      hosts: see :func:`parse_hosts`.
      devices: virtual CPU devices of each process, by default one a core.

    Returns:
      Whether there are others.

    Raises:
      ConfigError: they cannot be found.
    """
    place = parse_hosts(hosts)
    if place == "alone":
        return False
    import jax

    if not jax.distributed.is_initialized():
        start(devices)  # to ask how many processes there are is to start JAX
        jax.config.update("jax_enable_preemption_service", False)  # SIGTERM is ours to hear
        known: dict[str, Any] = {}
        if isinstance(place, Place):
            known = {
                "coordinator_address": place.address,
                "num_processes": place.count,
                "process_id": place.index,
                "cluster_detection_method": "deactivate",
            }
        try:
            jax.distributed.initialize(
                **known, initialization_timeout=120, heartbeat_timeout_seconds=HEARTBEAT_S
            )
        except Exception as error:  # of JAX, its launchers and its network
            first = str(error).strip().splitlines()
            raise ConfigError(
                f"hosts {hosts or 'auto'}: the processes do not find each other "
                f"({first[0] if first else type(error).__name__})"
            ) from None
    return processes() > 1


def processes() -> int:
    """Processes of this run."""
    if "jax" not in sys.modules:
        return 1
    import jax

    return jax.process_count() if jax.distributed.is_initialized() else 1


def index() -> int:
    """Which of them this one is; 0 is the one that writes."""
    if processes() == 1:
        return 0
    import jax

    return jax.process_index()


def home() -> jax.Device:
    """The device where a search's state is kept and moved, in each process one."""
    import jax

    return jax.local_devices()[0]


def put(tree: Any, place: Any) -> Any:
    """``jax.device_put``, also to and from arrays that are spread over several processes.

    Args:
      tree: of arrays; those that one process holds are the same in each.
      place: a device of this process, which then gets them whole, or a sharding over all.

    Returns:
      The tree there.
    """
    import jax

    if processes() == 1:
        return jax.device_put(tree, place)
    leaves, structure = jax.tree.flatten(tree)
    spread = [isinstance(x, jax.Array) and not x.is_fully_addressable for x in leaves]
    if any(spread):
        some = [_data(x) for x, is_spread in zip(leaves, spread, strict=True) if is_spread]
        whole = iter(_everywhere(some))
        leaves = [
            _like(x, next(whole).addressable_data(0)) if is_spread else x
            for x, is_spread in zip(leaves, spread, strict=True)
        ]
    if isinstance(place, jax.Device) or place.is_fully_addressable:
        moved = jax.device_put(leaves, place)
    else:
        moved = [_like(leaf, _spread(_data(leaf), place)) for leaf in leaves]
    return jax.tree.unflatten(structure, moved)


def _spread(leaf: Any, place: Any) -> Any:
    """An array that every process has, as one that is spread over all of them."""
    import jax
    import numpy as np

    cuts = place.addressable_devices_indices_map(leaf.shape)
    # A slice of a device's own would be a program for every place it is cut at.
    source = leaf if place.is_fully_replicated else np.asarray(leaf)
    parts = [
        jax.device_put(source if place.is_fully_replicated else source[cut], device)
        for device, cut in cuts.items()
    ]
    return jax.make_array_from_single_device_arrays(leaf.shape, place, parts)


def _everywhere(leaves: list[Any]) -> list[Any]:
    """Arrays that are spread over processes, whole on each device of their mesh."""
    return _copy(leaves[0].sharding.mesh)(leaves)


@functools.cache
def _copy(mesh: Any) -> Any:
    """A program that gathers arrays of a mesh on each of its devices."""
    import jax

    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.jit(lambda leaves: leaves, out_shardings=everywhere)


def _data(leaf: Any) -> Any:
    """An array of numbers: of a random key, its bits."""
    import jax
    import numpy as np

    if not isinstance(leaf, jax.Array):
        return np.asarray(leaf)
    is_key = jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf


def _like(leaf: Any, data: Any) -> Any:
    """What :func:`_data` was taken from, with other numbers."""
    import jax

    dtype = getattr(leaf, "dtype", None)
    if dtype is None or not jax.numpy.issubdtype(dtype, jax.dtypes.prng_key):
        return data
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))


def gathered(*numbers: int) -> Any:
    """Whole numbers of each process, on the way to all of them.

    Args:
      numbers: of this process, int32; every process gives as many.

    Returns:
      ``[processes, numbers]``; reading it waits for the others.
    """
    import jax
    import numpy as np

    mine = np.asarray([numbers], np.int32)
    if processes() == 1:
        return mine
    first = {device.process_index: device for device in reversed(jax.devices())}
    order = [first[process] for process in sorted(first)]
    mesh = jax.sharding.Mesh(np.asarray(order), ("process",))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("process"))
    part = jax.device_put(mine, first[jax.process_index()])
    together = jax.make_array_from_single_device_arrays((len(order), len(numbers)), split, [part])
    return _everywhere([together])[0].addressable_data(0)


# --- devices ----------------------------------------------------------------------------------


def start(devices: int | None = None, most: int | None = None, cache: bool = False) -> None:
    """Set JAX up; to be called before anything of JAX runs, and harmless afterwards.

    On a CPU there is one virtual device a core, since one program does not keep several cores
    busy. A number set by the user (``KAIROS_DEVICES``, ``JAX_NUM_CPU_DEVICES``, or XLA's own flag)
    stands.

    Args:
      devices: virtual CPU devices; ``None`` for one a core.
      most: devices that the work can use, of all processes together; more are not made unless
        asked for.
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
        enough = -(-most // processes()) if most else cores()
        count = asked or min(cores(), enough)
        try:
            jax.config.update("jax_num_cpu_devices", count)
        except RuntimeError:
            # In a notebook JAX may be running; what it has is used unless something else was asked.
            found = jax.local_device_count("cpu")
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
    """The devices in words, such as ``2 x cpu``, or ``4 x cpu, 2 processes``."""
    import jax

    found, several = jax.devices(), processes()
    told = f"{len(found)} x {found[0].device_kind}"
    return f"{told}, {several} processes" if several > 1 else told


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


def machine() -> dict[str, str]:
    """All that decides the bits of a result: versions, devices and switches; JAX has to run."""
    switches = {name: os.environ[name] for name in SWITCHES if os.environ.get(name)}
    return versions() | {"devices": describe()} | switches


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
