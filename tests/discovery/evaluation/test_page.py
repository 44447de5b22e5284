"""The page of all claims: both files say all there is, and need nothing else."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

from matplotlib.figure import Figure

from discovery.evaluation import page
from discovery.evaluation.claims import Conclusion, Grid
from discovery.evaluation.page import Section

PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def sections(folder: Path) -> list[Section]:
    picture = folder / "claim-1.png"
    picture.write_bytes(PICTURE)
    grid = Grid(
        "scores <of> all", ("who", "a|b"), [("x_1", "+.05 [+.01, +.09]"), ("<y>", "")], ("a & b",)
    )
    found = Conclusion((grid,), "First *one*.\n\nSecond < 5.", Figure, {"seeds": "0-9"})
    return [
        Section("claim-1", "one beats <another>", "cpu", found, picture, ["t.csv"], "kairos x"),
        Section("claim-2", "nothing yet", "cpu", None, None, ["u.csv"], "kairos y"),
    ]


class Balance(HTMLParser):
    """Whether every element that is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_one_file_of_html_holds_everything(tmp_path: Path) -> None:
    _, path = page.write(tmp_path, sections(tmp_path))
    text = path.read_text()
    found = Balance()
    found.feed(text)
    assert found.open == []
    for words in (
        "Tested: one beats <another>.",
        "Second < 5.",
        "+.05 [+.01, +.09]",
        "a|b",
        "<y>",
        "a & b",
        "0-9",
        "kairos x",
        "t.csv",
        "nothing is searched yet",
    ):
        assert words in found.text
    sources = re.findall(r'src="([^"]+)"', text)
    assert [base64.b64decode(each.partition(",")[2]) for each in sources] == [PICTURE]
    assert re.findall(r'href="([^"]+)"', text) == ["#claim-1", "#claim-2"]


def test_markdown_keeps_its_cells_apart(tmp_path: Path) -> None:
    path, _ = page.write(tmp_path, sections(tmp_path))
    lines = path.read_text().splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert rows[0] == r"| who | a\|b |"
    assert rows[2] == r"| x\_1 | +.05 [+.01, +.09] |"
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3}
    assert "![claim-1](claim-1.png)" in lines
    assert "- seeds: 0-9" in lines
    assert r"First \*one\*." in lines
    before = path.read_bytes()
    page.write(tmp_path, sections(tmp_path))
    assert path.read_bytes() == before
