"""``kairos doctor``: what this machine offers, in one page."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

from discovery import devices
from discovery.config import Config

_OPTIONAL = (
    ("gymnax", "gym", "classic control, MinAtar, bsuite"),
    ("brax", "brax", "continuous control"),
    ("pyarrow", "parquet", "tables as Parquet"),
    ("tensorboardX", "tensorboard", "event files"),
    ("wandb", "wandb", "Weights & Biases"),
)
"""Module, extra, what it is for."""


def examine(config: Config | None, count: int | None, say: Callable[[str], None]) -> None:
    """Tell versions, packages, devices, memory and folders.

    Args:
      config: also compile this search and tell what memory a generation takes.
      count: virtual CPU devices, by default one a core.
      say: takes a line.

    Raises:
      ConfigError: the configuration cannot run.
    """
    say("versions")
    for name, version in devices.versions().items():
        say(f"  {name:<18} {version}")
    say("packages")
    for name in ("discovery", "envs", "learned_objectives"):
        spec = importlib.util.find_spec(name)
        where = Path(spec.origin).parent if spec and spec.origin else "not found"
        say(f"  {name:<18} {where} (ours)")
    say("optional packages")
    for module, extra, use in _OPTIONAL:
        found = module in sys.modules or importlib.util.find_spec(module) is not None
        told = "yes" if found else f"no: pip install 'kairos-rl[{extra}]'"
        say(f"  {module:<18} {told} ({use})")
    devices.start(count, cache=True)
    free = devices.memory()
    whose = "together" if free.shared else "each"
    say("machine")
    say(f"  {'devices':<18} {devices.describe()} ({devices.cores()} CPU cores)")
    say(f"  {'memory free':<18} {devices.gibibytes(free.available)} {whose}")
    cache = devices.cache_folder()
    held = [entry.stat().st_size for entry in cache.glob("*")] if cache.is_dir() else []
    say(f"  {'compile cache':<18} {cache}, {len(held)} entries, {devices.gibibytes(sum(held))}")
    if config is not None:
        _estimate(config, free, say)


def _estimate(config: Config, free: devices.Memory, say: Callable[[str], None]) -> None:
    from discovery.config import check, population
    from discovery.outer.search import make_search
    from discovery.runs.memory import fitting, needed

    check(config)
    config, search = fitting(config, make_search, free)
    if getattr(search, "memory", None) is None:
        say(f"  {'memory needed':<18} this search cannot tell")
        return
    say(f"  {'preset':<18} {config.preset}: compiling ...")
    need = needed(search, search.init(), free)
    together = population(config)[1]
    say(f"  {'memory needed':<18} {devices.gibibytes(need)}, {together} lives together")
