"""Groups that are left open."""

from dataclasses import replace

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.config import Config, check, preset
from discovery.outer import grouping
from discovery.outer.grouping import grouped
from discovery.outer.several import kinds


def search(pairs: int, env: str = "small", group: int = 0) -> Config:
    config = replace(preset("ta-lpg"), env=env)
    return replace(config, evolution=replace(config.evolution, pairs=pairs, group=group))


def chips(monkeypatch: pytest.MonkeyPatch, count: int, processes: int = 1) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "device_count", lambda: count)
    monkeypatch.setattr(grouping, "processes", lambda: processes)


@pytest.mark.parametrize(
    ("pairs", "count", "processes", "group"),
    [
        (512, 1, 1, 128),
        (512, 8, 8, 128),
        (512, 64, 16, 16),
        (192, 2, 2, 96),  # not 128, which would be three groups
        (192, 5, 2, 64),  # no group suits five chips: two processes at least
        (7, 2, 2, 2),  # none suits two processes either: the run refuses, and says what to do
        (1, 1, 1, 2),
    ],
)
def test_on_chips_every_one_has_as_many_groups(
    monkeypatch: pytest.MonkeyPatch, pairs: int, count: int, processes: int, group: int
) -> None:
    chips(monkeypatch, count, processes)
    assert grouped(search(pairs)).evolution.group == group


def test_on_a_cpu_devices_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = []
    for count in (1, 2, 8):
        monkeypatch.setattr(jax, "device_count", lambda count=count: count)
        groups.append(grouped(search(512)).evolution.group)
    assert groups == [grouping.CPU_GROUP] * 3


def test_kinds_of_environments_have_whole_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two look alike, so three names are two kinds of 32 pairs each."""
    chips(monkeypatch, 1)
    asked = search(64, "small,dense,chain")
    assert len(kinds(asked)) == 2
    assert grouped(asked).evolution.group == 64


@given(pairs=st.integers(1, 600), most=st.integers(2, 300), told=st.sampled_from((0, 2)))
def test_what_is_chosen_can_run(pairs: int, most: int, told: int) -> None:
    found = grouped(search(pairs, group=told), most)
    check(found)
    assert told in (0, found.evolution.group)
    assert found.evolution.group <= most
    assert grouped(found, 2) is found
