"""Registrations that are cut off, and go on; timings are planted."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwnas.latency_tables import journal as journal_module
from hwnas.latency_tables.device import Device, list_devices, load_device
from hwnas.latency_tables.runtimes import make_runtime
from hwnas.latency_tables.timing import Protocol
from hwnas.predictors import registration
from hwnas.predictors.registration import UNFINISHED
from hwnas.spaces.errors import NoisyMeasurementError, UnavailableError, UnknownNameError

from .resumable import BITS, NAME, PLAN, SLOWNESS, Machine, entries, known_of, uninterrupted
from .synthetic import digits_space


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Machine, Device]:
    return uninterrupted(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("chunks", range(6))
def test_what_was_measured_is_not_measured_again_and_the_device_is_the_same(
    chunks: int, machine: Machine, own_devices: Path, whole: tuple[Machine, Device]
) -> None:
    machine.begin(chunks)
    assert len(entries(own_devices)) == chunks
    assert list_devices() == []
    with pytest.raises(UnknownNameError):
        load_device(NAME)
    notes: list[str] = []
    device = machine.register(note=notes.append)
    other, undisturbed = whole
    assert machine.chunks == other.chunks
    assert [len(chunk) for chunk in machine.chunks] == [12, 5, 5, 3, 2, 2]
    assert known_of(device) == known_of(undisturbed)
    assert machine.profiled == other.profiled == 15
    assert load_device(NAME) == device
    assert sorted(path.name for path in (own_devices / NAME).iterdir()) == [
        "networks.parquet", "profile.yaml", "table.parquet",
    ]  # fmt: skip
    measured = [0, 12, 17, 22, 25, 27][chunks]
    said = rf"going on with {measured} networks measured before \(\d+ s\); to begin anew, remove (.*)"
    assert len(notes) == (chunks > 0)
    for note in notes:
        assert (found := re.fullmatch(said, note))
        assert Path(found[1]).parent == own_devices / NAME / UNFINISHED


def test_it_may_be_cut_off_again_and_again(machine: Machine, whole: tuple[Machine, Device]) -> None:
    for chunks in range(6):
        machine.begin(chunks)
    assert known_of(machine.register()) == known_of(whole[1])
    assert "measuring networks (18 done, 18 of them before)" in machine.said


def test_the_machines_speed_is_remembered(machine: Machine) -> None:
    machine.begin(4)
    machine.register()
    assert machine.usual_ms == [np.inf, *(0.1 * slow for slow in SLOWNESS[:3]), 0.1, 0.1 * SLOWNESS[4]]


@pytest.mark.parametrize("at", [3, 14])
def test_operators_that_were_not_timed_are_timed_without_measuring_their_networks_again(
    at: int, machine: Machine, whole: tuple[Machine, Device]
) -> None:
    machine.profiling_breaks = {at}
    with pytest.raises(KeyboardInterrupt):
        machine.register()
    machine.profiled, machine.profiling_breaks = 0 if at < 13 else 12, set()
    device = machine.register()
    other, undisturbed = whole
    assert machine.chunks == other.chunks
    assert machine.profiled == 15
    assert known_of(device) == known_of(undisturbed)


def noisy(times: int) -> list[BaseException]:
    return [NoisyMeasurementError(f"network {i} does not repeat") for i in range(times)]


def test_refused_networks_are_left_out_again_where_others_were_measured_after_them(
    machine: Machine, tmp_path: Path
) -> None:
    machine.breaks[2] = noisy(3)
    machine.begin(4)
    device = machine.register()
    other, undisturbed = uninterrupted(tmp_path / "other", {2: noisy(3)})
    assert machine.chunks == other.chunks
    assert [len(chunk) for chunk in machine.chunks[:4]] == [12, 5, 5, 2]
    assert known_of(device) == known_of(undisturbed)


def test_a_registration_refused_late_keeps_what_it_measured_and_tries_the_rest_again(
    machine: Machine, own_devices: Path, tmp_path: Path
) -> None:
    plan = replace(PLAN, seconds=0.0, min_networks=33, max_networks=33)
    machine.breaks[2] = noisy(3)
    with pytest.raises(NoisyMeasurementError, match="network 2 does not repeat"):
        machine.register(plan=plan)
    assert len(entries(own_devices)) == 2
    assert list_devices() == []
    device = machine.register(plan=plan)
    other, undisturbed = uninterrupted(tmp_path / "other", plan=plan)
    assert machine.chunks == other.chunks
    assert known_of(device) == known_of(undisturbed)


def test_nothing_is_kept_of_a_registration_that_measured_nothing(machine: Machine, own_devices: Path) -> None:
    machine.breaks[0] = noisy(3)
    with pytest.raises(NoisyMeasurementError):
        machine.register()
    assert not own_devices.exists()


def test_a_torn_entry_and_what_follows_it_is_measured_again(
    machine: Machine, own_devices: Path, whole: tuple[Machine, Device]
) -> None:
    machine.begin(4)
    path = entries(own_devices)[1]
    path.write_bytes(path.read_bytes()[:100])
    del machine.chunks[1:]
    machine.profiled = 12
    device = machine.register()
    assert machine.chunks == whole[0].chunks
    assert known_of(device) == known_of(whole[1])


def test_what_another_version_measured_is_not_used(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(journal_module, "version", lambda _: "0.0.7\x1b[2J")
        machine.begin(2)
    machine.register()
    assert "beginning anew: what was measured before is of version 0.0.7?[2J of hwnas" in machine.said
    assert [len(chunk) for chunk in machine.chunks[:4]] == [12, 5, 12, 5]


@pytest.mark.parametrize(
    ("options", "then", "now"),
    [
        ({"seed": 2}, "seed 1", "seed 2"),
        ({"plan": replace(PLAN, checks=5)}, "checks 4", "checks 5"),
        ({"plan": replace(PLAN, protocol=Protocol(rounds=7))}, "rounds 16", "rounds 7"),
        ({"runtime": make_runtime("onnxruntime", {"threads": 2})}, "threads 1", "threads 2"),
    ],
)
def test_what_was_begun_with_something_else_is_not_mixed_and_not_lost(
    options: dict[str, Any], then: str, now: str, machine: Machine, own_devices: Path
) -> None:
    machine.begin(2)
    (folder,) = (own_devices / NAME / UNFINISHED).iterdir()
    with pytest.raises(UnavailableError) as caught:
        machine.register(**options)
    assert str(caught.value) == (
        f"a registration that was begun with {then} is unfinished, and its figures cannot be mixed with those of "
        f"{now}. Finish it as it was begun, or remove the folder {folder} to begin anew"
    )
    machine.register()
    assert [len(chunk) for chunk in machine.chunks] == [12, 5, 5, 3, 2, 2]


def test_another_machine_does_not_go_on(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.begin(2)
    facts = registration.machine_facts()
    monkeypatch.setattr(registration, "machine_facts", lambda: facts | {"processor": "another\x1b"})
    with pytest.raises(
        UnavailableError, match=r"begun with processor .* cannot be mixed with those of processor another"
    ):
        machine.register()


def test_each_space_has_its_own_and_what_is_registered_stays(machine: Machine, own_devices: Path) -> None:
    machine.begin(2)
    first = machine.register(())
    assert load_device(NAME) == first
    assert len(entries(own_devices)) == 2, "of the other space"
    with pytest.raises(UnavailableError, match="was begun with seed 1 is unfinished"):
        machine.register(known=first, seed=2)
    assert load_device(NAME) == first
    both = machine.register(known=first)
    assert load_device(NAME) == both
    assert both.table.networks[: len(first.table.networks)] == first.table.networks
    assert {n.space for n in both.table.networks} == {digits_space(()).key, digits_space(BITS).key}
    assert not (own_devices / NAME / UNFINISHED).exists()
