"""What CITATION.cff and CONTRIBUTING.md say is so."""

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]


def citation() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "CITATION.cff").read_text())


def test_the_citation_is_of_this_version_and_licence() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = citation()
    assert {"cff-version", "message", "title", "authors"} <= set(found)
    assert found["cff-version"] == "1.2.0"
    assert (found["version"], found["license"]) == (project["version"], project["license"])


def test_the_citation_names_the_papers() -> None:
    papers = {paper["identifiers"][0]["value"]: paper for paper in citation()["references"]}
    first = {name: paper["authors"][0]["family-names"] for name, paper in papers.items()}
    assert first == {
        "arXiv:2007.08794": "Oh",
        "arXiv:2210.05639": "Lu",
        "arXiv:2402.05828": "Jackson",
    }
    assert [len(paper["authors"]) for paper in papers.values()] == [7, 6, 6]
    assert all(paper["conference"]["name"] and paper["year"] for paper in papers.values())


def test_what_contributing_says_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = {
        "".join(pair) for pair in re.findall(r"`make ([a-z-]+)|^make ([a-z-]+)", text, re.MULTILINE)
    }
    assert len(asked) >= 8
    assert asked <= targets
    links = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    assert all((ROOT / link).exists() for link in links)
    files = re.findall(r"`((?:tests|tools|envs|discovery|learned_objectives)/[\w./]+)`", text)
    assert len(files) >= 6
    assert all((ROOT / name).exists() for name in files), files
