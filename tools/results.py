"""Writes into RESULTS.md what the tables say, claim by claim, and the pictures it shows.

What stands between the two marks of a claim is replaced; the words around them are ours.
``--check`` writes nothing, and fails if the file would change.
"""

import hashlib
import re
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "RESULTS.md"
PICTURES = ROOT / "docs" / "results"
TABLES = "discovery/evaluation/tables"


def marks(name):
    """The two lines around what is made of one claim."""
    return f"<!-- {name}: made by tools/results.py -->", f"<!-- end of {name} -->"


def digest(path):
    """Eight digits that tell whether a table is the one that was read."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]


def tables(name):
    """The tables of a claim."""
    return sorted((ROOT / TABLES).glob(f"{name}-*.csv"))


def block(name, conclusion):
    """What the tables of one claim say, as Markdown."""
    shown = ", ".join(f"[{t.name}]({TABLES}/{t.name}) ({digest(t)})" for t in tables(name))
    lines = [f"![{name}](docs/results/{name}.png)", ""]
    lines += [re.sub(r"([_*<>|`])", r"\\\1", conclusion.text), ""]
    lines += [f"- {what}: {told}" for what, told in conclusion.facts.items()]
    lines += [f"- tables: {shown}", f"- drawn by `kairos reproduce {name} --draw`"]
    return "\n".join(lines)


def filled(text, found):
    """The page with every claim's part made anew."""
    for name, conclusion in found.items():
        first, last = marks(name)
        before, _, rest = text.partition(first)
        _, _, after = rest.partition(last)
        text = f"{before}{first}\n\n{block(name, conclusion)}\n\n{last}{after}"
    return text


def main():
    """Write or check."""
    from discovery.evaluation.papers import reproduce
    from discovery.requests import ReproduceConfig

    with tempfile.TemporaryDirectory() as folder:
        request = ReproduceConfig(figures=(), all=True, draw=True, out=folder)
        found = reproduce(request, report=lambda _: None)
        text = PAGE.read_text(encoding="utf-8")
        new = filled(text, found)
        if "--check" in sys.argv[1:]:
            return 0 if new == text else "RESULTS.md is older than its tables: make results"
        PICTURES.mkdir(parents=True, exist_ok=True)
        for name in found:
            shutil.copyfile(Path(folder, f"{name}.png"), PICTURES / f"{name}.png")
        PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
