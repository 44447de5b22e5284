"""RESULTS.md says what the tables say."""

import importlib.util
import re

import pytest

from discovery.evaluation import papers

spec = importlib.util.spec_from_file_location("results", "tools/results.py")
assert spec is not None and spec.loader is not None
results = importlib.util.module_from_spec(spec)
spec.loader.exec_module(results)
PAGE = results.PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [entry.name for entry in papers.REGISTRY])
def test_it_was_made_from_these_tables(name: str) -> None:
    first, last = results.marks(name)
    told = PAGE.partition(first)[2].partition(last)[0]
    found = dict(re.findall(r"\[([\w.-]+)\]\([\w./-]+\) \((\w{8})\)", told))
    assert found == {t.name: results.digest(t) for t in results.tables(name)}, "make results"
    assert (results.PICTURES / f"{name}.png").is_file()


@pytest.mark.slow
def test_it_says_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["results.py", "--check"])
    assert results.main() == 0
