"""The page of a run: whole in one file, true to what the folder tells, safe whatever that is."""

import base64
import html
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from PIL import Image

from discovery.cli import main
from discovery.config import ConfigError
from discovery.evaluation import table
from discovery.report import page
from discovery.report.folder import cleaned

ROOT = Path(__file__).parents[3]
KINDS = ("begun", "ended", "compared", "several", "meta-gradients", "windows")
HOSTILE = "</style><script>alert(1)</script><img src=//evil.example/x onerror=alert(2)>\"'&"


@pytest.fixture(scope="module")
def folders(sample: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    assert tuple(sample.KINDS) == KINDS
    folder = tmp_path_factory.mktemp("pages")
    made = {name: make(folder / name) for name, make in sample.KINDS.items()}
    for each in made.values():
        page.write(each)
    return made


@pytest.fixture
def whole(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a run of which there is everything, to be damaged."""
    return Path(shutil.copytree(folders["compared"], tmp_path / "compared"))


def text_of(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


# --- one file, whole --------------------------------------------------------------------------


def check_is_alone(text: str, parsed: Any) -> Any:
    """Nothing refers to anything outside, nothing runs, and a phone can show it."""
    found = parsed(text)
    tags = {tag for tag, _ in found.tags}
    assert not tags & {
        "script",
        "link",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
        "use",
        "image",
    }
    sources = found.attributes("src")
    for source in sources:
        kind, _, data = source.partition(",")
        assert kind in ("data:image/png;base64", "data:image/svg+xml;base64")
        if "png" in kind:
            Image.open(io.BytesIO(base64.b64decode(data, validate=True))).load()
    assert all(href.startswith("#") for href in found.attributes("href"))
    for name in ("srcset", "action", "background", "poster", "style", "xlink:href"):
        assert found.attributes(name) == []
    assert not any(name.startswith("on") for _, attrs in found.tags for name in attrs)
    for forbidden in ("url(", "@import", "expression(", "@font-face"):
        assert forbidden not in found.styles
    metas = [attrs for tag, attrs in found.tags if tag == "meta"]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in metas
    [policy] = [m["content"] for m in metas if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:")
    assert [attrs["lang"] for tag, attrs in found.tags if tag == "html"] == ["en"]
    assert all(attrs["alt"].strip() for tag, attrs in found.tags if tag == "img")
    widths = re.findall(r"(?<!max-)(?<!min-)width: *([\d.]+)(px|rem)", found.styles)
    assert all(float(size) * (1 if unit == "px" else 16) <= 360 for size, unit in widths)
    lowest = re.findall(r"min-width: *([\d.]+)(px|rem)", found.styles)
    assert all(float(size) * (1 if unit == "px" else 16) <= 360 for size, unit in lowest)
    assert "width" not in {name for tag, attrs in found.tags if tag == "img" for name in attrs}
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_one_file(folders: dict[str, Path], parsed: Any, kind: str) -> None:
    found = check_is_alone(text_of(folders[kind]), parsed)
    assert f"{kind}: a search by Kairos" in found.text
    assert "nan" not in found.text.lower().split()
    assert "None" not in found.text


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_names_no_place_of_the_machine(folders: dict[str, Path], kind: str) -> None:
    text = html.unescape(text_of(folders[kind]))
    for place in (folders[kind].parent, ROOT, Path.home(), "/home/", "/tmp/", "somebody"):
        assert str(place) not in text


def test_the_same_folder_makes_the_same_bytes(folders: dict[str, Path]) -> None:
    for folder in (folders["several"], folders["meta-gradients"]):
        before = text_of(folder)
        page.write(folder)
        assert text_of(folder) == before


def test_every_picture_is_there(folders: dict[str, Path], parsed: Any) -> None:
    for folder, inner in (
        (folders["compared"], ()),
        (folders["several"], ("ta-lpg", "lpg")),
    ):
        wanted = {
            path.read_bytes()
            for place in (folder, *(folder / name for name in inner))
            for path in (place / "figures").glob("*.png")
        }
        sources = parsed(text_of(folder)).attributes("src")
        assert {base64.b64decode(source.partition(",")[2]) for source in sources} == wanted
        assert len(wanted) >= 2


def test_jax_is_not_imported(folders: dict[str, Path]) -> None:
    script = (
        "import sys\n"
        "from discovery.cli import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "heavy = {'jax', 'jaxlib', 'orbax', 'flax', 'gymnax', 'evosax', 'matplotlib'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)\n"
    )
    call = [sys.executable, "-c", script, "report", str(folders["compared"])]
    done = subprocess.run(call, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"page: {folders['compared'] / 'report.html'}\n"


# --- what it says -----------------------------------------------------------------------------


def test_what_was_run(folders: dict[str, Path], parsed: Any) -> None:
    text = parsed(text_of(folders["compared"])).text
    for words in (
        "finished",
        "40 of 40 generations, 80 million environment steps of training and 2:00 of computing",
        "LPG (learned policy gradient)",
        "the share of the life that is done, n/N, and how long it is, log N",
        "small (drawn grid worlds, side 4-6, 1-3 objects, 20-100 steps)",
        "2 to 8 updates, drawn anew for each task",
        "16 varied objectives a generation, in 8 mirrored pairs",
        "2 x cpu",
        "fedcba987654, with changes that are in no commit",
        "kairos evolve --like compared",
        "found = load('compared')",
        "kairos train --objective compared --env small --horizon 8",
    ):
        assert words in text
    for term in ("agent", "objective", "horizon N", "generation", "normalised score", "score"):
        assert term in text
    assert "--resume" not in text


def test_who_is_ahead_at_which_horizon(folders: dict[str, Path], parsed: Any) -> None:
    """The sentences say what the numbers of the table say, and no more."""
    folder = folders["compared"]
    text = parsed(text_of(folder)).text
    rows = [row for row in table.read(folder / "evaluation.csv") if row.clock == table.TRUE]
    compared = table.compare(rows, "compared", "a2c")
    ahead = [c.horizon for c in compared if c.low > 0]
    behind = [c.horizon for c in compared if c.high < 0]
    assert (ahead, behind) == ([40, 160], [2, 5])
    low, high = (f"{c.estimate:.2f}" for c in compared if c.low > 0)
    assert f"compared against a2c: ahead at N = 40 and 160 (by {low} to {high};" in text
    high, low = (f"{-c.estimate:.2f}" for c in compared if c.high < 0)
    assert f"behind at N = 2 and 5 (by {low} to {high}; the 95 % interval excludes zero)." in text
    assert "Which of the two is better depends on the horizon." in text
    # One interval of four excludes zero, and does not once they are taken together.
    twin = table.compare(rows, "compared", "lpg, its horizon-blind twin")
    assert [c.horizon for c in twin if c.low > 0] == [160] and all(c.holm > 0.05 for c in twin)
    assert "not told apart at N = 2, 5 and 40 (the interval includes zero). Corrected" in text
    assert "Corrected for looking at 4 horizons (Holm), it holds nowhere." in text
    assert "Another seed of the same search could do better or worse." in text
    assert "The search had horizons of 2 to 8: N = 40 and 160 it never met." in text
    for c in compared:
        assert f"{c.estimate:+.2f} *" in text


def test_what_false_clocks_cost(folders: dict[str, Path], parsed: Any) -> None:
    text = parsed(text_of(folders["compared"])).text
    assert (
        "told a false time (frozen-0.5 at N = 5 and 40; reversed at N = 5 and 40; half at" in text
    )
    assert "untrained compared (nothing learned, for comparison): no false clock costs it" in text
    assert "time runs backwards" in text


def test_two_runs_on_one_page(folders: dict[str, Path], parsed: Any) -> None:
    """As a quickstart leaves them: horizon-aware first, and its twin the first of the others."""
    found = parsed(text_of(folders["several"]))
    for words in (
        "several/ta-lpg: 40 of 40 generations",
        "The same as several/ta-lpg, but for:",
        "its clock is multiplied by 0",
        "TA-LPG against LPG (blind twin): ahead at N = 2 (by 0.07;",
        "kairos evolve --like several/ta-lpg\nkairos evolve --like several/lpg",
    ):
        assert words in found.text
    assert found.text.index("TA-LPG against LPG") < found.text.index("TA-LPG against A2C")


def test_a_run_that_is_not_finished(folders: dict[str, Path], parsed: Any) -> None:
    text = parsed(text_of(folders["windows"])).text
    for words in (
        "not finished",
        "20 of 40 generations",
        "20 of them are saved",
        "kairos evolve --resume windows",
        "own.py:make: a rule of its author's own",
        "windows of 5 updates of 16 lives",
        "its score went from 0.20 (generation 0) to 0.69 (generation 20).",
        "nothing is known of how it compares",
        "kairos evaluate windows a2c random",
        "Not written yet",
    ):
        assert words in text
    begun = parsed(text_of(folders["begun"])).text
    assert "0 of 40 generations; nothing is saved yet" in begun
    assert "No validation score is recorded yet." in begun


def test_meta_gradients_and_a_curriculum(folders: dict[str, Path], parsed: Any) -> None:
    text = parsed(text_of(folders["meta-gradients"])).text
    for words in (
        "meta-gradients through 5 updates at a time of 64 agents",
        "GROOVE: 50 % of the tasks are repeated",
        "dense (grid world, side 11",
        "sparse (grid world, side 13",
        "nothing of time: it is blind to its horizon",
    ):
        assert words in text


def test_a_search_that_did_not_improve(sample: Any, tmp_path: Path, parsed: Any) -> None:
    folder = sample.begin(tmp_path / "flat")
    lines = [{"generation": g, "validation": 0.5 - g / 100, "nonfinite": g} for g in (0, 10, 20)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = parsed(page.page(folder)).text
    assert "to 0.30 (generation 20): the search did not improve on its start" in text
    assert "30 lives turned non-finite" in text


def test_rows_of_an_earlier_state_are_left_out(whole: Path, sample: Any, parsed: Any) -> None:
    """Extended and evaluated again, a run has two thetas of one name in its table."""
    path = whole / "evaluation.csv"
    old = [
        row._replace(digest="aaaaaaaaaaaa-abcd", normalised=0.0)
        for row in table.read(path)
        if row.objective == "compared" and row.clock == table.TRUE
    ]
    before = parsed(page.page(whole)).text
    table.append(path, old)
    assert parsed(page.page(whole)).text == before
    card = json.loads((whole / "card.json").read_text()) | {"sha256": "e" * 64}
    (whole / "card.json").write_text(json.dumps(card))
    text = parsed(page.page(whole)).text
    assert "None of these is the objective that is in the run folder now" in text
    assert "nothing is known of how it compares" in text


def test_the_second_kind_of_actions_is_told_below(whole: Path, parsed: Any) -> None:
    path = whole / "evaluation.csv"
    greedy = [row._replace(actions="greedy") for row in table.read(path)]
    table.append(path, greedy)
    text = parsed(page.page(whole)).text
    short, _, rest = text.partition("Words")
    assert "compared in small, sampled actions" in short
    assert "greedy" not in short
    assert short.count("against a2c:") == rest.count("against a2c:") == 1


def test_few_searches_claim_nothing(sample: Any, tmp_path: Path, parsed: Any) -> None:
    """Of two or four searches of one name there are points and no intervals."""
    folder = sample.end(tmp_path / "few")
    rows = sample.rows("few", {"a2c": 0.15})
    more = [row._replace(digest=f"b{row.digest}") for row in rows if row.objective == "a2c"]
    table.write(folder / "evaluation.csv", [*rows, *more])
    text = parsed(page.page(folder)).text
    assert "there are too few searches of one kind to claim anything" in text
    assert "few against a2c: ahead" not in text


# --- whatever a folder holds ------------------------------------------------------------------


def test_hostile_words_are_words(whole: Path, parsed: Any) -> None:
    """Whatever a file says is shown as text."""
    config = json.loads((whole / "config.json").read_text())
    config |= {"preset": HOSTILE, "env": HOSTILE}
    config["objective"]["rule"] = config["objective"]["clock"] = HOSTILE
    (whole / "config.json").write_text(json.dumps(config))
    card = json.loads((whole / "card.json").read_text())
    card |= dict.fromkeys(("name", "summary", "rule", "licence", "notes"), HOSTILE)
    (whole / "card.json").write_text(json.dumps(card | {HOSTILE: HOSTILE}))
    (whole / "versions.json").write_text(json.dumps({"commit": HOSTILE, HOSTILE: HOSTILE}))
    rows = [
        row._replace(objective=row.objective + HOSTILE, environment=HOSTILE)
        for row in table.read(whole / "evaluation.csv")
    ]
    table.write(whole / "evaluation.csv", rows)
    use = table.read_clock_uses(whole / "evaluation-clock.csv")[0]
    table.write_clock_uses(
        whole / "evaluation-clock.csv", [use._replace(objective=HOSTILE, measure=HOSTILE)]
    )
    (whole / "figures" / "<b onclick=x>.png").write_bytes(
        (whole / "figures" / "learning.png").read_bytes()
    )
    found = check_is_alone(page.page(whole), parsed)
    assert found.text.count("alert(1)") >= 10
    assert any("<b onclick" in alt for alt in found.attributes("alt"))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    # Names that configurations, cards and metrics have, so that some of it is believed.
    | st.sampled_from(["inf", "lpg", "evolution", "/home/me/x.py:make", HOSTILE, 10**400, -1]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["generation", "validation", "sha256", "objective", "rule", "resumed"])
            | st.text(max_size=8),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
FILES = ("config.json", "versions.json", "card.json", "metrics.jsonl")


@settings(max_examples=40)
@given(
    damage=st.dictionaries(st.sampled_from(FILES), st.binary(max_size=40) | JSON, min_size=1),
    field=st.tuples(st.sampled_from(["horizon", "evolution", "objective", "life", "seed"]), JSON),
)
def test_no_file_breaks_a_page(
    folders: dict[str, Path],
    parsed: Any,
    tmp_path_factory: pytest.TempPathFactory,
    damage: dict[str, Any],
    field: tuple[str, Any],
) -> None:
    source, folder = folders["ended"], tmp_path_factory.mktemp("fuzz")
    for name in FILES:
        data = damage.get(name, (source / name).read_bytes())
        (folder / name).write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    if "config.json" not in damage:
        config = json.loads((folder / "config.json").read_text()) | dict([field])
        (folder / "config.json").write_text(json.dumps(config))
    check_is_alone(page.write(folder).read_text(encoding="utf-8"), parsed)


def deep(path: Path) -> None:
    path.write_text("[" * 100_000)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def missing(path: Path) -> None:
    path.unlink()


def binary(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 9)


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [deep, directory, pipe, missing, binary, half])
def test_a_file_that_is_none(whole: Path, parsed: Any, damage: Callable[[Path], None]) -> None:
    """One file after another, a page still tells the rest, and what it could not read."""
    names = ("evaluation.csv", "versions.json", "card.json", "metrics.jsonl")
    for name in (*names, "evaluation-clock.csv", "figures/learning.png"):
        damage(whole / name)
        found = check_is_alone(page.page(whole), parsed)
        assert "LPG (learned policy gradient)" in found.text
        if damage is binary:
            assert Path(name).name in found.text.partition("What could not be read")[2]


def test_a_picture_that_is_not_whole_is_left_out(whole: Path, parsed: Any) -> None:
    (whole / "evaluation.csv").unlink()  # nothing to be computed again each time
    picture = whole / "figures" / "learning.png"
    (whole / "figures" / "learning.svg").unlink()
    data = picture.read_bytes()
    for wrong in (data[:-1], data[:500] + b"x" + data[501:], data + b"<script>", b""):
        picture.write_bytes(wrong)
        found = check_is_alone(page.page(whole), parsed)
        assert len(found.attributes("src")) == 1
        assert "learning.png is not a whole picture" in found.text


def test_a_page_takes_an_svg_where_there_is_no_png(whole: Path, parsed: Any) -> None:
    (whole / "figures" / "learning.png").unlink()
    sources = parsed(page.page(whole)).attributes("src")
    assert sum(source.startswith("data:image/svg+xml;base64,") for source in sources) == 1


def test_huge_numbers_are_survived(sample: Any, tmp_path: Path, parsed: Any) -> None:
    folder = sample.end(tmp_path / "huge")
    rows = sample.rows("huge", {"a2c": 0.1})
    rows = [row._replace(normalised=1e300 * (i % 3 - 1)) for i, row in enumerate(rows)]
    rows += [row._replace(horizon=-row.horizon, score=math.nan) for row in rows]
    table.write(folder / "evaluation.csv", rows)
    horizon = replace(sample.CONFIG.horizon, shortest=-5, longest=10**30)
    sample.write_json(
        folder / "config.json",
        json.loads((folder / "config.json").read_text())
        | {"horizon": {"shortest": horizon.shortest, "longest": horizon.longest}},
    )
    check_is_alone(page.page(folder), parsed)


@pytest.mark.parametrize(
    ("path", "left"),
    [
        ("/home/me/own.py:make", "own.py:make"),
        ("../../me/my rules/own.py:make", "own.py:make"),
        ("read /data/runs/a, then b", "read a, then b"),
        (r"C:\Users\me\x.json", "x.json"),
        ("file:///home/me/notes", "notes"),
        ("~/runs/a", "a"),
        ("brax/ant/spring", "brax/ant/spring"),
        ("n/N and 1 / 2", "n/N and 1 / 2"),
        ("https://example.org/a/b", "https://example.org/a/b"),
    ],
)
def test_paths_are_cut_to_their_last_name(path: str, left: str) -> None:
    assert cleaned({path: [path]}) == {left: [left]}


# --- the verb, and at the end of others ---------------------------------------------------------


def test_a_folder_that_is_no_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert f"{tmp_path} is not a run: it has no config.json" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "none")]) == 2
    assert f"there is no run folder {tmp_path / 'none'}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError):
        page.write(tmp_path)


def test_a_page_that_cannot_be_written_costs_a_line(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    page.renew(whole, said.append)
    assert said == [f"page: {whole / 'report.html'}"]
    before = (whole / "report.html").read_bytes()

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page, "write_whole", full)
    page.renew(whole, said.append)
    assert said[1:] == [f"no page of {whole}: No space left on device"]
    assert (whole / "report.html").read_bytes() == before
    page.renew(tmp_path, said.append)
    assert len(said) == 2
