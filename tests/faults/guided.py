"""The file readers under a fuzzer that looks at which code an input reached.

It needs ``atheris``, which is no dependency of ours, in an environment of its own:

    .venv/bin/uv venv .build/atheris
    .venv/bin/uv pip install --python .build/atheris/bin/python -c requirements/dev.txt atheris .
    .build/atheris/bin/python tests/faults/guided.py .build/corpus -max_total_time=300

The first byte of an input chooses a reader. Whatever a reader raises that is not its own error ends
the fuzzer, which leaves the input beside it; so does a claim of memory that a file does not hold.
"""

import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(
    include=["learned_objectives.library", "discovery.config", "discovery.evaluation.table",
             "discovery.runs.logs", "discovery.runs.folders", "discovery.runs.checkpoint"]
):  # fmt: skip
    from discovery.config import ConfigError, check, from_json, preset, to_json
    from discovery.evaluation import table
    from discovery.runs import checkpoint, folders, logs
    from learned_objectives import library

WHERE = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
SHIPPED = Path(library.__file__).parent / "pretrained"

ROW = table.Row(
    objective="a", digest="b", environment="c", level_hash="d", level=1, horizon=5, steps=9, seed=0,
    actions="sampled", score=0.5, normalised=None, random=None, optimal=1.0, area=None, episodes=4,
    finite=True, wall_seconds=0.1, versions="jax 1", clock=table.TRUE,
)  # fmt: skip


class Arrays:
    """Of one small shipped objective, under a card that is true of whatever bytes there are."""

    def __init__(self) -> None:
        self.data = min(SHIPPED.glob("*.safetensors"), key=lambda p: p.stat().st_size).read_bytes()
        length = int.from_bytes(self.data[:8], "little")
        header = json.loads(self.data[8 : 8 + length])
        self.identity = json.loads(header.pop("__metadata__")["objective"])
        self.expected = {name: (tuple(e["shape"]), e["dtype"]) for name, e in header.items()}

    def read(self, path: Path) -> None:
        card = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "arrays": {}}
        found = library._read_arrays(path, self.expected, card, path, self.identity)
        assert {name: leaf.shape for name, leaf in found.items()} == {
            name: shape for name, (shape, _) in self.expected.items()
        }


def read_card(path: Path) -> None:
    library._read_card(path)


def read_table(path: Path) -> None:
    rows = table.read(path)
    table.summary(rows)


def read_config(path: Path) -> None:
    check(from_json(path.read_bytes().decode("utf-8", "replace")))


def read_run(path: Path) -> None:
    """Metrics, then the versions of a run."""
    logs.read(path)
    folders._sessions(path)


def read_seal(path: Path) -> None:
    """A seal says what differs, whatever it is."""
    assert checkpoint.broken(path.parent)


OURS = (ConfigError, table.TableError, library.ObjectiveError)


def main() -> None:
    arrays = Arrays()
    readers: list[tuple[str, Any]] = [
        ("arrays.safetensors", arrays.read),
        ("card.json", read_card),
        ("table.csv", read_table),
        ("config.json", read_config),
        ("metrics.jsonl", read_run),
        (checkpoint.SEAL, read_seal),
    ]

    def one(data: bytes) -> None:
        if not data:
            return
        name, read = readers[data[0] % len(readers)]
        path = WHERE / name
        path.write_bytes(data[1:])
        try:
            read(path)
        except OURS as error:
            assert "\n" not in str(error), error

    corpus = Path(next((word for word in sys.argv[1:] if not word.startswith("-")), "corpus"))
    corpus.mkdir(parents=True, exist_ok=True)
    table.write(WHERE / "seed.csv", [ROW])
    seeds = [
        arrays.data,
        min(SHIPPED.glob("*.json"), key=lambda p: p.stat().st_size).read_bytes(),
        (WHERE / "seed.csv").read_bytes(),
        to_json(preset("smoke")).encode(),
        b'{"generation": 2, "validation": 0.5}\n{"jax": "1", "resumed": [{"jax": "2"}]}\n',
        json.dumps(checkpoint.sealed({"files": {"state/a": [1, "00"]}})).encode(),
    ]
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(bytes([number]) + seed)
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
