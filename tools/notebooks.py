"""Makes the notebooks: ``notebooks/*.ipynb`` from their plain-Python twins, executed in full.

tools/notebooks.py                # all
tools/notebooks.py 5 6 7          # those whose names begin so
"""

import base64
import io
import os
import re
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
MINUTES = 60
"""A cell may take."""
PIXELS, COLOURS = 900, 128
"""Of a picture: its width at most, and its palette."""
LOST = re.compile(r"^(execution|iopub|shell|widgets?)")
"""Metadata that differ from day to day."""


def make(twin: Path) -> Path:
    """Execute a twin in a folder of its own, and write the notebook beside the twin.

    Raises:
      nbclient.exceptions.CellExecutionError: a cell failed; nothing is written.
    """
    book = jupytext.read(twin)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            book,
            timeout=60 * MINUTES,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
        )
        client.execute()
    clean(book)
    path = twin.with_suffix(".ipynb")
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(nbformat.writes(book, version=4) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    return path


def clean(book: nbformat.NotebookNode) -> None:
    """Leave what a reader sees: no times, no warnings; names of cells by their number.

    Raises:
      ValueError: an output is a warning, which is to be mended and not hidden.
    """
    book.metadata = {
        "jupytext": {"formats": "ipynb,py:percent"},
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(book.cells):
        cell.id = f"cell-{number}"
        cell.metadata = {k: v for k, v in cell.metadata.items() if not LOST.match(k)}
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stderr":
                raise ValueError(f"cell {number} wrote to stderr: {output.text}")
            for data in [output.get("data", {})]:
                if "image/png" in data:
                    data.pop("text/plain", None)  # <Figure size ...>
                    data["image/png"] = small(data["image/png"])


def small(picture: str) -> str:
    """A picture, base64, with as many pixels and colours as it takes to be read."""
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    if image.width > PIXELS:
        size = PIXELS, round(image.height * PIXELS / image.width)
        image = image.resize(size, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    # Not the commonest colours: a thin line keeps its own.
    few = image.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode() + "\n"


def main(chosen: list[str]) -> None:
    os.environ.pop("KAIROS_QUICK", None)
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    for twin in sorted(FOLDER.glob("[0-9]*.py")):
        if chosen and not any(twin.name.startswith(name) for name in chosen):
            continue
        print(f"==> {twin.stem}", flush=True)
        path = make(twin)
        print(f"    {path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
