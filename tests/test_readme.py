"""What the README says is there, is there."""

import re
from pathlib import Path

from discovery.cli import VERBS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_its_objective_is_the_one_that_is_tested() -> None:
    assert (ROOT / "tests/data/own_objective.py").read_text().strip() in README


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert len(links) >= 3
    missing = [link for link in links if not (ROOT / link).exists()]
    assert not missing


def test_its_verbs_exist() -> None:
    verbs = re.findall(r"^kairos (\w+)", README, re.MULTILINE)
    assert len(verbs) >= 7
    assert set(verbs) <= set(VERBS)


def test_every_verb_is_shown() -> None:
    assert all(f"kairos {verb}" in README or f"make {verb}" in README for verb in VERBS)
