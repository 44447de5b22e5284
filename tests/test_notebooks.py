"""The notebooks: pairs agree, stored outputs are whole and in full, twins run in the quick mode."""

import ast
import io
import re
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
TWINS = sorted((ROOT / "notebooks").glob("[0-9]*.py"))
BOOKS = [twin.with_suffix(".ipynb") for twin in TWINS]
MOST_BYTES = 700_000

every_book = pytest.mark.parametrize("book", BOOKS, ids=lambda path: path.stem)
every_twin = pytest.mark.parametrize("twin", TWINS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code(path: Path) -> list[Any]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def texts(cell: Any) -> list[str]:
    """Everything that a cell put out, as text; pictures left out."""
    found = []
    for output in cell.outputs:
        found.append(output.get("text", ""))
        data = output.get("data", {})
        found += [str(value) for kind, value in data.items() if kind != "image/png"]
    return found


def test_there_are_notebooks_and_nothing_else() -> None:
    assert len(TWINS) == 7
    found = {path for path in (ROOT / "notebooks").iterdir() if path.is_file()}
    assert found == {*TWINS, *BOOKS}


@every_book
def test_a_notebook_is_its_twin(book: Path) -> None:
    ours, twin = read(book), jupytext.read(book.with_suffix(".py"))
    assert [(c.cell_type, c.source) for c in ours.cells] == [
        (c.cell_type, c.source) for c in twin.cells
    ]
    assert ours.metadata.kernelspec.name == twin.metadata.kernelspec.name == "python3"


@every_book
def test_stored_outputs_are_whole_and_in_full(book: Path) -> None:
    nbformat.validate(read(book))
    assert book.stat().st_size < MOST_BYTES
    cells = code(book)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert texts(cells[0]) == ["sizes: full\n"]
    for cell in cells:
        assert all(o.output_type in ("stream", "execute_result") for o in cell.outputs)
        assert not any(o.get("name") == "stderr" for o in cell.outputs)
        if shows(cell.source):
            assert cell.outputs, cell.source
    pictures = [o for cell in cells for o in cell.outputs if "image/png" in o.get("data", {})]
    assert pictures


def shows(source: str) -> bool:
    """Whether a cell prints, or ends with an expression that is not text to be thrown away."""
    tree = ast.parse(plain(source))
    if any(isinstance(part, ast.FunctionDef) for part in tree.body[:1]) and len(tree.body) == 1:
        return False
    last = tree.body[-1]
    return isinstance(last, ast.Expr) or re.search(r"^(print|say)\(", source, re.M) is not None


@every_book
def test_a_notebook_names_no_machine_and_nothing_outside(book: Path) -> None:
    for cell in read(book).cells:
        found = [cell.source, *(texts(cell) if cell.cell_type == "code" else [])]
        for text in found:
            assert "\x1b" not in text
            assert not re.search(r"(^|[\s'\"(=])/[a-zA-Z]\w*/|[A-Z]:\\|\b\w+@\w+:", text), text
            assert not re.search(r"https?://|<img|<script|!\[", text), text
            assert not re.search(r"\d(\.\d+)? ?(s|ms|min) (in all|left|so far)|0x[0-9a-f]{6}", text)


@every_book
def test_commands_of_a_notebook_exist(book: Path) -> None:
    from discovery.cli import VERBS

    for cell in read(book).cells:
        verbs = re.findall(r"kairos ([a-z]+) ", cell.source)
        assert set(verbs) <= set(VERBS)


def plain(source: str) -> str:
    """A cell without IPython's own commands."""
    return "\n".join(line for line in source.split("\n") if not line.startswith("%"))


def execute(twin: Path) -> list[Figure]:
    """Run a twin cell by cell, as a notebook does; figures at the end of a cell are drawn."""
    names: dict[str, Any] = {"__name__": "__main__"}
    shown = []
    for number, cell in enumerate(jupytext.read(twin).cells):
        if cell.cell_type != "code":
            continue
        tree = ast.parse(plain(cell.source), f"{twin.name}, cell {number}")
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"{twin.name}, cell {number}", "exec"), names)
        if isinstance(last, ast.Expr):
            where = f"{twin.name}, cell {number}"
            value = eval(compile(ast.Expression(last.value), where, "eval"), names)
            if isinstance(value, Figure):
                value.savefig(io.BytesIO(), format="png", dpi=40)
                shown.append(value)
    return shown


@every_twin
def test_a_twin_runs_in_the_quick_mode(
    twin: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAIROS_QUICK", "1")
    figures = execute(twin)
    assert capsys.readouterr().out.startswith("sizes: quick\n")
    assert figures
    for figure in figures:
        assert any(axes.get_xlabel() for axes in figure.axes)
        assert any(axes.get_ylabel() or axes.get_yticklabels() for axes in figure.axes)


@pytest.mark.slow
def test_a_notebook_runs_in_a_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `make notebooks` does it, but for the sizes: with a kernel, in a folder of its own."""
    from nbclient import NotebookClient

    monkeypatch.setenv("KAIROS_QUICK", "1")
    book = jupytext.read(ROOT / "notebooks" / "5_lpg.py")
    NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert cells[0].outputs[0].text == "sizes: quick\n"
    assert any("image/png" in o.get("data", {}) for cell in cells for o in cell.outputs)
