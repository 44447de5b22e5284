"""``train``, ``inspect`` and ``quickstart``: what they leave, and that it is right."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from discovery import quickstart as quick
from discovery import train
from discovery.config import Config, ConfigError, LifeConfig, RivalConfig, preset, to_dict
from discovery.evaluation import horizons, inspection
from discovery.evaluation.clock_use import MEASURES
from discovery.evaluation.false_clock import CLOCKS
from discovery.evaluation.training import PARTS
from discovery.requests import InspectConfig, QuickstartConfig, TrainConfig
from discovery.runs.errors import RunError
from discovery.runs.folders import write_json
from discovery.runs.run import Run
from discovery.runs.stop import Stopped
from learned_objectives.library import load, make_rule, save

LIFE = LifeConfig(environments=2, rollout=4, evaluation_environments=4)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an objective that depends on its clock."""
    folder = tmp_path_factory.mktemp("runs") / "aware"
    rule = make_rule("lpg", width=4, predictions=2, embedding=2)
    theta = jax.tree.map(lambda x: 3 * x, rule.init(jax.random.key(1)))
    config = replace(preset("smoke"), env="chain", life=LIFE)
    save(folder, rule, theta, {"config": to_dict(config)})
    return folder


def read(path: Path) -> list[dict[str, float]]:
    with path.open() as file:
        return [{k: float(v) for k, v in line.items()} for line in csv.DictReader(file)]


def test_training_leaves_a_curve(tmp_path: Path) -> None:
    said: list[str] = []
    request = TrainConfig(
        "a2c", env="chain", horizon=60, environments=16, rollout=10, out=str(tmp_path / "t")
    )
    trained = train(request, said.append)
    lines = read(tmp_path / "t" / "curve.csv")
    assert [line["update"] for line in lines] == trained.curve.updates.tolist()
    assert lines[0]["update"] == 0 and lines[-1]["update"] == 60
    assert len(lines) == PARTS + 1
    assert lines[-1]["steps"] == 60 * 16 * 10
    assert np.isnan(lines[0]["entropy"]) and np.isfinite(lines[-1]["entropy"])
    assert (tmp_path / "t" / "curve.png").stat().st_size > 10_000
    # It learned: the end of its life is better than the beginning, and nearly certain of it.
    assert lines[-1]["sampled"] > lines[0]["sampled"]
    assert lines[-1]["entropy"] < lines[1]["entropy"]
    with pytest.raises(ConfigError, match="holds a curve already"):
        train(request, said.append)
    assert np.array_equal(
        train(replace(request, overwrite=True), said.append).curve.sampled, trained.curve.sampled
    )


def test_training_stops_in_time(tmp_path: Path) -> None:
    said: list[str] = []
    request = TrainConfig(
        "random", env="chain", horizon=10, environments=1, rollout=2, out=str(tmp_path / "t")
    )
    trained = train(replace(request, max_minutes=1e-9), said.append)
    assert trained.curve.updates.tolist() == [0]
    assert any("stopped after 0 of 10" in line for line in said)


def test_what_an_objective_says(run: Path) -> None:
    """The response comes from the objective's own words, clock included."""
    how = horizons.Setting(preset("smoke").agent, LIFE, RivalConfig(), "a test")
    who = horizons.enter(load(str(run)), "chain", how)
    said = inspection.respond(who.world, who.source, who.hyper, (8, 80)).pi_hat
    shape = (len(inspection.SHARES), len(inspection.REWARDS), len(inspection.PROBABILITIES))
    assert said.shape == (2, *shape)
    for axis, what in enumerate(("horizon", "share of life", "reward", "probability")):
        assert np.ptp(said, axis=axis).max() > 1e-3, what
    blind = inspection.respond(who.world, who.source, who.hyper._replace(clock_gate=0.0), (8, 80))
    assert np.ptp(blind.pi_hat, axis=(0, 1)).max() == 0
    rival = horizons.enter(load("a2c"), "chain", how)
    words = inspection.respond(rival.world, (), rival.hyper, (8,)).pi_hat
    assert (np.diff(words, axis=2) <= 1e-5).all(), "more reward, more of it"
    assert np.ptp(words, axis=1).max() == 0


def test_inspection_leaves_tables_and_pictures(run: Path) -> None:
    said: list[object] = []
    pictures = inspection.inspect(
        InspectConfig(str(run), env="", horizons=(2, 5), levels=3, nulls=(str(run),)),
        said.append,
    )
    assert {p.name for p in pictures} == {
        "response.png",
        "entropies.png",
        "changes.png",
        "norms.png",
        "rewards.png",
        "schedule.png",
        "clock.png",
    }
    assert all(p.parent == run / "figures" for p in pictures)
    lives = read(run / "figures" / "lives.csv")
    assert [(line["horizon"], line["update"]) for line in lives] == [
        (n, u) for n in (2, 5) for u in range(n)
    ]
    assert lives[0]["entropy"] == pytest.approx(np.log(2), rel=1e-5), "a table is born uniform"
    assert all(line["change"] >= -1e-6 for line in lives)
    assert all(line["norm"] > 0 for line in lives)
    response = read(run / "figures" / "response.csv")
    assert {line["horizon"] for line in response} == {2, 5}
    told = read(run / "figures" / "schedule.csv")
    assert {(line["horizon"], line["age"]) for line in told} == {
        *((2, age) for age in range(2)),
        *((5, age) for age in range(5)),
    }
    assert {line["share"] for line in told} == {u / 10 for u in range(10)}
    assert np.ptp([line["entropy"] for line in told if line["age"] == 1]) > 1e-6, "the clock"
    assert any(str(line).startswith("N = 5: slope of the change of entropy") for line in said)
    assert any("parameters, trained in chain" in str(line) for line in said)
    with (run / "figures" / "clock.csv").open() as file:
        uses = list(csv.DictReader(file))
    assert {(use["objective"], use["null"], use["horizon"]) for use in uses} == {
        (name, null, n)
        for name, null in (
            ("aware", "false"),
            ("aware (2)", "true"),
            ("untrained aware", "true"),
        )
        for n in ("2", "5")
    }
    assert {use["measure"] for use in uses} == {*CLOCKS[1:], *MEASURES}
    assert all(use["levels"] == "3" for use in uses)


def test_who_has_no_clock_is_told_no_lies(tmp_path: Path) -> None:
    said: list[str] = []
    request = InspectConfig("random", env="chain", horizons=(2,), levels=1, out=str(tmp_path))
    pictures = inspection.inspect(request, said.append)
    assert "no clock to lie about: an update of random reads none" in said
    assert not {"clock.png", "schedule.png"} & {picture.name for picture in pictures}


def test_the_quickstart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two searches, one comparison, a figure; stopped, it goes on; done, it is quick."""
    smoke = preset("smoke")
    tiny = replace(
        smoke,
        preset="quickstart",
        env="chain",
        generations=2,
        life=LIFE,
        evolution=replace(smoke.evolution, pairs=4),
    )
    monkeypatch.setattr(quick, "preset", lambda name: tiny)
    monkeypatch.setattr(quick, "HORIZONS", (1, 3))
    said: list[object] = []
    request = QuickstartConfig(out=str(tmp_path / "q"), levels=8)
    assert quick.quickstart(replace(request, max_minutes=1e-9), said.append) == []
    assert said[-1] == f"stopped before the comparison; go on with: {quick._command(request)}"
    comparisons = quick.quickstart(request, said.append)
    assert {(c.second, c.horizon) for c in comparisons} == {
        (name, n) for name in (quick.TWIN, quick.BORN, quick.RIVAL, quick.NOTHING) for n in (1, 3)
    }
    # Zeros say nothing, so the untrained objective leaves the policy as it was born.
    by_name = {c.second: c.estimate for c in comparisons if c.horizon == 3}
    assert by_name[quick.BORN] == pytest.approx(by_name[quick.NOTHING])
    assert (tmp_path / "q" / "figures" / "horizons.png").stat().st_size > 10_000
    assert said[-1] == f"page: {tmp_path / 'q' / 'report.html'}"
    for name in ("ta-lpg", "lpg"):
        assert (tmp_path / "q" / name / "report.html").is_file()
    blind = load(str(tmp_path / "q" / "lpg"))
    assert getattr(blind.objective, "clock", None) == "none", "a twin is saved without a clock"
    assert quick.quickstart(request, said.append) == comparisons


@pytest.mark.parametrize(
    ("stopped", "where", "status"),
    [("interrupt", "before", 130), ("terminate", "before", 143), ("", "during", 130)],
)
def test_a_stopped_quickstart_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: Stopped, where: str, status: int
) -> None:
    def evolve(config: Config, folder: Path, **options: Any) -> Run:
        options["make"](config)
        return Run(folder, config, 3, stopped, None, None)

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(quick, "evolve", evolve)
    monkeypatch.setattr(quick, "_compare", interrupted)
    request = QuickstartConfig(out="a b", seed=2, overwrite=True, max_minutes=9.0)
    with pytest.raises(RunError) as caught:
        quick.quickstart(request, lambda line: None)
    assert caught.value.status == status
    command = "kairos quickstart --out 'a b' --seed 2"
    assert str(caught.value) == f"stopped {where} the comparison; go on with: {command}"


def test_another_quickstart_is_not_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "ta-lpg").mkdir()
    write_json(tmp_path / "ta-lpg" / "config.json", to_dict(preset("quickstart")))
    with pytest.raises(ConfigError, match=r"of another quickstart \(another seed\): begin anew"):
        quick.quickstart(QuickstartConfig(out=str(tmp_path), seed=2), lambda line: None)
