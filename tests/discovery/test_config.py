"""Configurations: one thing on the command line, in Python and on disk."""

import dataclasses
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.config import (
    PRESETS,
    Config,
    ConfigError,
    check,
    from_dict,
    from_json,
    nearest,
    population,
    preset,
    tasks,
    to_dict,
    to_json,
)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_run_and_come_back_from_json(name: str) -> None:
    config = preset(name)
    assert config.preset == name
    check(config)
    assert from_json(to_json(config)) == config
    assert from_dict(to_dict(config)) == config


def test_a_preset_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(to_json(replace(preset("smoke"), seed=7)))
    assert preset(str(path)).seed == 7
    with pytest.raises(ConfigError, match=r"cannot read .*none\.json: No such file"):
        preset(str(tmp_path / "none.json"))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot read"):
        preset(str(path))


def test_no_clip_comes_back_from_json() -> None:
    config = changed(agent={"clip": math.inf})
    check(config)
    text = to_json(config)
    assert json.loads(text, parse_constant=pytest.fail)["agent"]["clip"] == "inf"
    assert from_json(text) == config


def test_missing_fields_keep_their_defaults() -> None:
    assert from_dict({"objective": {"width": 8}}) == replace(
        Config(), objective=replace(Config().objective, width=8)
    )
    assert from_dict({"evolution": {"sigma": 1}}).evolution.sigma == 1.0


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"sede": 1}, "unknown field of configuration 'sede'; did you mean seed"),
        (
            {"objective": {"with": 1}},
            "unknown field of configuration.objective 'with'; did you mean",
        ),
        ({"seed": "1"}, "configuration.seed must be a whole number, not '1'"),
        ({"seed": True}, "configuration.seed must be a whole number, not True"),
        ({"evolution": {"sigma": "x"}}, "configuration.evolution.sigma must be a number, not 'x'"),
        (
            {"agent": {"network": "tabel"}},
            "unknown configuration.agent.network 'tabel'; did you mean",
        ),
        ({"agent": {"hidden": 3}}, "configuration.agent.hidden must be a list, not 3"),
        (
            {"agent": {"hidden": [3, "x"]}},
            "configuration.agent.hidden[1] must be a whole number, not 'x'",
        ),
        ({"life": []}, "configuration.life must be an object, not list"),
        ([], "configuration must be an object, not list"),
    ],
)
def test_what_is_wrong_is_named(data: Any, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_dict(data)
    assert str(caught.value).startswith(line)


NAMES = sorted(
    {"unknown"}
    | {field.name for field in dataclasses.fields(Config)}
    | {
        field.name
        for section in dataclasses.fields(Config)
        if dataclasses.is_dataclass(getattr(Config(), section.name))
        for field in dataclasses.fields(getattr(Config(), section.name))
    }
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-5, 200)
    | st.integers()
    | st.floats()
    | st.sampled_from(["", "table", "paired", "final", "zero", "small"])
    | st.text(max_size=5)
)
DATA = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6)
    ),
    max_leaves=12,
)


def sound(data: Any) -> Config | None:
    """A configuration, or none where it was refused: nothing else may happen."""
    try:
        return from_dict(data)
    except ConfigError as error:
        assert "\n" not in str(error)
        return None


@given(DATA)
def test_any_data_is_a_configuration_or_refused(data: Any) -> None:
    config = sound(data)
    if config is not None:
        again = from_dict(json.loads(to_json(config)))
        # NaN is not equal to itself, and JSON text is.
        assert to_json(again) == to_json(config)


@given(st.text(max_size=40) | st.binary(max_size=40).map(lambda b: b.decode("latin-1")))
def test_any_text_is_a_configuration_or_refused(text: str) -> None:
    try:
        assert isinstance(from_json(text), Config)
    except ConfigError as error:
        assert str(error)


def test_deep_nonsense_is_refused() -> None:
    with pytest.raises(ConfigError, match="configuration is not JSON"):
        from_json("[" * 100_000)


SIZES = st.integers(-3, 300)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "generations": SIZES,
            "log_every": SIZES,
            "checkpoint_every": SIZES,
            "evolution": st.fixed_dictionaries({}, optional={"pairs": SIZES, "group": SIZES}),
            "horizon": st.fixed_dictionaries({}, optional={"shortest": SIZES, "longest": SIZES}),
        },
    )
)
def test_sizes_fit_or_are_refused(data: dict[str, Any]) -> None:
    config = from_dict(data)
    try:
        check(config)
    except ConfigError as error:
        assert "\n" not in str(error)
        return
    if config.evolution.group:  # else left open
        assert (2 * config.evolution.pairs) % config.evolution.group == 0
    assert config.checkpoint_every % config.log_every == 0
    assert 1 <= config.horizon.shortest <= config.horizon.longest


def changed(**sections: Any) -> Config:
    """The smoke preset with some fields of its sections changed."""
    config = preset("smoke")
    for name, value in sections.items():
        old = getattr(config, name)
        new = replace(old, **value) if isinstance(value, dict) else value
        config = replace(config, **{name: new})
    return config


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        ({"evolution": {"pairs": 0}}, "pairs must be at least 1, not 0"),
        ({"evolution": {"group": 5}}, "group 5 must be even (whole pairs): try 4"),
        ({"evolution": {"group": 6}}, "group 6 does not divide the population 16: try 4"),
        (
            {"evolution": {"pairs": 5, "group": 4}},
            "group 4 does not divide the population 10: try 2",
        ),
        (
            {"log_every": 3, "checkpoint_every": 10},
            "checkpoint_every 10 is no multiple of log_every",
        ),
        ({"horizon": {"shortest": 9}}, "longest horizon 8 is below the shortest, 9"),
        ({"objective": {"clock": "fractoin"}}, "unknown clock 'fractoin'; did you mean fraction"),
        ({"seed": -1}, "seed must be from 0"),
        ({"evolution": {"pairs": 10**12}}, "pairs must be at most 10,000,000, not 1000000000000"),
        ({"evolution": {"pairs": 9_999_991}}, "group 4 does not divide the population 19999982"),
        ({"evolution": {"sigma": 0.0}}, "sigma must be a finite number above 0, not 0.0"),
        ({"evolution": {"sigma": math.inf}}, "sigma must be a finite number above 0, not inf"),
        ({"evolution": {"rate": math.nan}}, "rate must be a finite number above 0, not nan"),
        ({"evolution": {"rate_floor": -1.0}}, "rate_floor must be a finite number from 0, not -1"),
        ({"evolution": {"beta1": 1.0}}, "beta1 must be from 0 to below 1, not 1.0"),
        ({"evolution": {"signal_every": -1}}, "signal_every must be at least 0, not -1"),
        (
            {"estimator": "gradient", "evolution": {"shared_task": True}},
            "shared_task is for whole lives in one environment",
        ),
        (
            {"curriculum": {"curriculum": "groove"}, "evolution": {"shared_task": True}},
            "a curriculum chooses a task for each pair",
        ),
        ({"objective": {"clock_gate": math.nan}}, "clock_gate must be a finite number, not nan"),
        ({"rival": {"a2c_value_rate": math.inf}}, "a2c_value_rate must be a finite number from 0"),
        ({"agent": {"clip": math.nan}}, "clip must be above 0 (inf for none), not nan"),
        ({"agent": {"hidden": (8, 0)}}, "hidden must be at least 1, not 0"),
        ({"agent": {"policy_rate": -1.0}}, "policy_rate must be a finite number from 0, not -1.0"),
        ({"gradient": {"agents": 0}}, "agents must be at least 1, not 0"),
        (
            {"gradient": {"agents_group": 10**8}},
            "agents_group must be at most 10,000,000, not 1000",
        ),
        ({"curriculum": {"buffer": -1}}, "buffer must be at least 1, not -1"),
        ({"curriculum": {"antagonists": 0}}, "antagonists must be at least 1, not 0"),
        (
            {"estimator": "gradient", "gradient": {"agents": 12, "agents_group": 5}},
            "agents_group 5 does not divide 12 agents: try 4",
        ),
        ({"window": {"window": -1}}, "window.window must be at least 0 (whole lives), not -1"),
        (
            {"estimator": "windows", "window": {"window": 0}},
            "evolution over whole lives is --estimator evolution, not windows of 0",
        ),
        (
            {
                "estimator": "gradient",
                "window": {"window": 0},
                "horizon": {"longest": 1001},
            },
            "a window of 1001 updates does not fit: lower --longest to 1000, or give --window 5",
        ),
        (
            {"estimator": "windows", "window": {"window": 1001}},
            "a window of 1001 updates does not fit: lower --window to 1000, or give --window 5",
        ),
        (
            {"estimator": "windows", "evolution": {"fitness": "area"}},
            "windows are scored by --score along, not by --fitness area",
        ),
        (
            {"estimator": "windows", "evolution": {"signal_every": 3}},
            "signal_every repeats whole lives, and windows have none: give 0",
        ),
        (
            {"estimator": "windows", "evolution": {"shared_stream": False}},
            "partners share the stream of a window: leave out --no-shared-stream",
        ),
        (
            {"curriculum": {"curriculum": "groove", "buffer": 79}},
            "a buffer of 79 is too small for 8 tasks at once and 64 antagonists: at least 80",
        ),
        (
            {"estimator": "gradient", "curriculum": {"curriculum": "groove", "buffer": 1087}},
            "a buffer of 1087 is too small for 512 tasks at once and 64 antagonists: at least 1088",
        ),
        ({"gradient": {"meta_clip": 0.0}}, "meta_clip must be above 0 (inf for none), not 0.0"),
        (
            {"gradient": {"meta_clip": math.nan}},
            "meta_clip must be above 0 (inf for none), not nan",
        ),
        ({"gradient": {"meta_beta1": -0.1}}, "meta_beta1 must be from 0 to below 1, not -0.1"),
        ({"gradient": {"meta_beta2": 1.0}}, "meta_beta2 must be from 0 to below 1, not 1.0"),
        ({"gradient": {"meta_epsilon": 0.0}}, "meta_epsilon must be a finite number above 0, not"),
        (
            {"gradient": {"meta_rate": math.inf}},
            "meta_rate must be a finite number from 0, not inf",
        ),
        ({"curriculum": {"temperature": 0.0}}, "temperature must be a finite number above 0, not"),
        ({"gradient": {"entropy_weight": math.nan}}, "entropy_weight must be a finite number, not"),
        (
            {"gradient": {"prediction_entropy_weight": math.inf}},
            "prediction_entropy_weight must be a finite number, not inf",
        ),
        ({"gradient": {"pi_hat_weight": -math.inf}}, "pi_hat_weight must be a finite number, not"),
        ({"gradient": {"y_hat_weight": math.nan}}, "y_hat_weight must be a finite number, not nan"),
        ({"gradient": {"discount": 1.01}}, "discount must be from 0 to 1, not 1.01"),
        ({"gradient": {"trace": math.nan}}, "trace must be from 0 to 1, not nan"),
        ({"curriculum": {"replay": -0.5}}, "replay must be from 0 to 1, not -0.5"),
    ],
)
def test_sizes_that_do_not_fit_name_the_nearest_that_do(
    sections: dict[str, Any], line: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check(changed(**sections))
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize(
    "sections",
    [
        # Of an estimator or a curriculum that is not chosen, only the types and ranges count.
        {"gradient": {"agents": 12, "agents_group": 5}},
        {"window": {"window": 0}},
        {"curriculum": {"buffer": 1}},
        # At the ends of what fits.
        {"estimator": "gradient", "window": {"window": 0}, "horizon": {"longest": 1000}},
        {"estimator": "windows", "window": {"window": 1}},
        {"estimator": "gradient", "evolution": {"fitness": "area", "shared_stream": False}},
        {"curriculum": {"curriculum": "groove", "buffer": 80, "replay": 1.0}},
        {"gradient": {"meta_clip": math.inf, "meta_rate": 0.0, "discount": 1.0, "trace": 0.0}},
        {"gradient": {"entropy_weight": -1.0, "meta_beta1": 0.0}},
    ],
)
def test_what_fits_is_not_refused_and_comes_back_from_json(sections: dict[str, Any]) -> None:
    config = changed(**sections)
    check(config)
    assert from_json(to_json(config)) == config


def test_lives_and_tasks_of_a_generation() -> None:
    sizes = {"agents": 12, "agents_group": 4}
    for estimator in ("evolution", "windows"):
        config = changed(estimator=estimator, gradient=sizes)
        assert (population(config), tasks(config)) == ((16, 4), 8)
    config = changed(estimator="gradient", gradient=sizes)
    assert (population(config), tasks(config)) == ((12, 4), 12)


def test_meta_gradient_presets_have_twins() -> None:
    """The blind one differs in its clock alone, and with a curriculum in that alone."""
    for size in ("", "-cpu"):
        aware, blind, groove = (
            replace(preset(f"{name}{size}"), preset="")
            for name in ("ta-lpg-mg", "lpg-mg", "groove")
        )
        assert aware.estimator == "gradient"
        assert replace(aware, objective=replace(aware.objective, clock="none")) == blind
        assert groove.curriculum.curriculum == "groove"
        assert replace(groove, curriculum=blind.curriculum) == blind


def test_every_field_has_a_name_of_its_own() -> None:
    """The command line and the comparison of two configurations tell them by it."""

    def leaves(data: dict[str, Any]) -> list[str]:
        inner = [leaves(value) for value in data.values() if isinstance(value, dict)]
        own = [name for name, value in data.items() if not isinstance(value, dict)]
        return sum(inner, own)

    names = leaves(to_dict(Config()))
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("section", "field", "value", "line"),
    [
        ("agent", "network", "tabel", "unknown configuration.agent.network 'tabel'; did you mean"),
        (
            "evolution",
            "pairs",
            "8",
            "configuration.evolution.pairs must be a whole number, not '8'",
        ),
        ("evolution", "shared_stream", 1, "configuration.evolution.shared_stream must be true or"),
        ("evolution", "shaping", "coin", "unknown configuration.evolution.shaping 'coin'; did you"),
        ("window", "score", "ende", "unknown configuration.window.score 'ende'; did you mean end"),
        ("window", "vote", 1, "unknown configuration.window.vote '1'; known: life, window"),
        (
            "curriculum",
            "curriculum",
            "grove",
            "unknown configuration.curriculum.curriculum 'grove'",
        ),
        (
            "curriculum",
            "sampling",
            "ranks",
            "unknown configuration.curriculum.sampling 'ranks'; did",
        ),
        ("gradient", "entropy_decay", 0.5, "configuration.gradient.entropy_decay must be true or"),
        (
            "gradient",
            "train_critic",
            "no",
            "configuration.gradient.train_critic must be true or fal",
        ),
    ],
)
def test_fields_that_python_was_given_wrongly_are_named(
    section: str, field: str, value: Any, line: str
) -> None:
    config = changed(**{section: {}})
    # Outside the tests nothing looks at the types of a dataclass's fields.
    object.__setattr__(getattr(config, section), field, value)
    with pytest.raises(ConfigError) as caught:
        check(config)
    assert str(caught.value).startswith(line)


def test_an_unknown_estimator_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        from_dict({"estimator": "gradients"})
    assert str(caught.value) == (
        "unknown configuration.estimator 'gradients'; did you mean gradient?"
    )


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("quickstrat", "unknown preset 'quickstrat'; did you mean quickstart?"),
        ("zzzzzzz", "unknown preset 'zzzzzzz'; known: a, quickstart"),
    ],
)
def test_nearest_names(name: str, line: str) -> None:
    assert nearest(name, ["quickstart", "a"], "preset") == line
