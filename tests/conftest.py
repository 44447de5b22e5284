"""What holds for every test: CPU devices, checked shapes, signs of life."""

import gc
import os
import threading
from collections.abc import Generator
from pathlib import Path
from typing import IO

# Before anything imports JAX. Two devices, so that sharding is tested without
# processes of its own; without LLVM's costly passes programs compile a quarter faster.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")
os.environ.setdefault("XLA_FLAGS", "--xla_llvm_disable_expensive_passes=true")
os.environ.setdefault("MPLBACKEND", "Agg")

import hypothesis
import jaxtyping
import pytest

# Every annotated function of ours checks the types and shapes it meets.
jaxtyping.install_import_hook(
    ("discovery", "envs", "learned_objectives"), typechecker="beartype.beartype"
)

# The first example compiles, so time limits would only measure that.
hypothesis.settings.register_profile("kairos", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("kairos")

_SIGN_OF_LIFE_S = 10.0
_screen = pytest.StashKey[IO[str]]()


def pytest_configure(config: pytest.Config) -> None:
    # A copy of the screen from before pytest captures what tests print.
    config.stash[_screen] = os.fdopen(os.dup(1), "w")


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[_screen].close()


# A process has some 65,000 memory mappings at most; programs take several, XLA crashes beyond.
_MOST_MAPPINGS = 20_000


def _mappings() -> int:
    maps = Path("/proc/self/maps")  # where there is such a limit
    return maps.read_bytes().count(b"\n") if maps.is_file() else 0


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Drops compiled programs between two files once they are many."""
    if nextitem is not None and nextitem.path != item.path and _mappings() > _MOST_MAPPINGS:
        import jax

        jax.clear_caches()
        gc.collect()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Says every few seconds that a long test is still running."""
    if item.config.get_verbosity() < 0:
        return (yield)
    over = threading.Event()
    screen = item.config.stash[_screen]

    def tick() -> None:
        seconds = _SIGN_OF_LIFE_S
        while not over.wait(_SIGN_OF_LIFE_S):
            print(f"\n    {item.nodeid}: {seconds:.0f} s ", end="", file=screen, flush=True)
            seconds += _SIGN_OF_LIFE_S

    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    try:
        return (yield)
    finally:
        over.set()
        ticker.join()


@pytest.fixture(scope="session")
def offline() -> dict[str, str]:
    """An environment in which package clients find the network refused."""
    refused = "http://127.0.0.1:9"
    proxies = {f"{scheme}_proxy": refused for scheme in ("http", "https", "all")}
    proxies |= {name.upper(): refused for name in proxies}
    return os.environ | proxies | {"PIP_NO_INDEX": "1", "UV_OFFLINE": "1"}
