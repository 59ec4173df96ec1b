"""Registrations that are cut off, and go on; timings are planted, but for a process that is really killed."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwnas.latency_tables import chunks as chunks_module
from hwnas.latency_tables import journal as journal_module
from hwnas.latency_tables import profiler as profiler_module
from hwnas.latency_tables.device import Device, list_devices, load_device
from hwnas.latency_tables.journal import Journal
from hwnas.latency_tables.profiler import Plan, profile_space
from hwnas.latency_tables.runtimes import OperatorTime, make_runtime
from hwnas.latency_tables.steadiness import Steadiness
from hwnas.latency_tables.timing import Protocol, Timing
from hwnas.predictors import registration
from hwnas.predictors.registration import UNFINISHED, register
from hwnas.spaces.errors import NoisyMeasurementError, UnavailableError, UnknownNameError

from .synthetic import digits_space

NAME = "laptop"
PLAN = Plan(seconds=60, checks=4, min_networks=20, max_networks=23, profiled_networks=15, profiled_runs=1)
SLOWNESS = (1.0, 1.0, 1.9, 1.0, 1.4, 1.0)
"""In each chunk: 12 networks, 3 with 2 checks, 3 with 2 checks, 3, 2, and the checks of the third one again."""
BITS = ("bits",)
SEED = 1
"""With it the few networks to learn from hold all kinds of operators that the checks hold."""


@pytest.fixture(autouse=True)
def devices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HWNAS_DEVICES", str(tmp_path / "devices"))
    monkeypatch.setattr(profiler_module, "CHUNK", 3)
    return tmp_path / "devices"


class Machine:
    """Networks take what their digests say, times how slow the machine is at that chunk.

    Before chunks that it is told of, by how many were measured until then, it breaks off instead, as often as told;
    before operators, too.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.chunks: list[tuple[str, ...]] = []
        self.breaks: dict[int, list[BaseException]] = {}
        self.profiled = 0
        self.profiling_breaks: set[int] = set()
        self.clock_s = 0.0
        self.said: list[str] = []
        self.usual_ms: list[float] = []
        patch.setattr(chunks_module, "measure", self.measure)
        patch.setattr(profiler_module, "prepare", lambda *_: self)

    def peak_memory_bytes(self) -> None:
        """This runtime does not say."""

    def measure(
        self, items: Sequence[object], _: Protocol, *, names: Sequence[str], steadiness: Steadiness
    ) -> list[Timing]:
        if waiting := self.breaks.get(len(self.chunks)):
            raise waiting.pop(0)
        slow = SLOWNESS[min(len(self.chunks), 5)]
        self.chunks.append(tuple(names[6:]))
        self.clock_s += 10.0
        self.usual_ms.append(steadiness.usual_ms)
        steadiness.settle(0.1 * slow)
        ms = [slow * (1 + int(name.split()[1][:4], 16) / 2**16) for name in names]
        assert len(items) == len(names)
        return [Timing(own, 1.1 * own, 0.01, 7) for own in ms]

    def run(self) -> None:
        """Networks are never built."""

    def operator_times(self, _: int) -> Mapping[str, OperatorTime]:
        self.profiled += 1
        if self.profiled in self.profiling_breaks:
            raise KeyboardInterrupt
        return {"head": OperatorTime(0.3 + self.profiled % 2, 2, ("Conv", "Relu")), "stem": OperatorTime(0.1, 1, ())}

    def register(self, joint: tuple[str, ...] = BITS, **options: Any) -> Device:
        steady = Steadiness(work=lambda: None, clock=lambda: 0.0)
        common: dict[str, Any] = {"plan": PLAN, "seed": SEED, "steadiness": steady}
        common["progress"] = lambda text, _: self.said.append(text)
        return register(NAME, digits_space(joint), **common | options)

    def begin(self, chunks: int, **options: Any) -> None:
        """A registration that ends with Ctrl-C after so many chunks."""
        self.breaks[chunks] = [KeyboardInterrupt()]
        with pytest.raises(KeyboardInterrupt):
            self.register(**options)
        assert len(self.chunks) == chunks


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def uninterrupted(
    folder: Path, breaks: dict[int, list[BaseException]] | None = None, **options: Any
) -> tuple[Machine, Device]:
    """The same registration on another such machine, not cut off."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profiler_module, "CHUNK", 3)
        machine = Machine(patch)
        machine.breaks = breaks or {}
        return machine, machine.register(folder=folder, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Machine, Device]:
    return uninterrupted(tmp_path_factory.mktemp("whole"))


def entries(devices: Path) -> list[Path]:
    return sorted(devices.glob(f"{NAME}/{UNFINISHED}/*/chunk-*.json"))


def known_of(device: Device) -> dict[str, Any]:
    """All but the times of day."""
    profile = device.profile.model_dump(exclude={"registered", "registration_seconds", "verified"})
    assert device.profile.verified is not None
    return profile | device.profile.verified.model_dump(exclude={"when"}) | {"table": device.table}


@pytest.mark.parametrize("chunks", range(6))
def test_what_was_measured_is_not_measured_again_and_the_device_is_the_same(
    chunks: int, machine: Machine, devices: Path, whole: tuple[Machine, Device]
) -> None:
    machine.begin(chunks)
    assert len(entries(devices)) == chunks
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
    assert sorted(path.name for path in (devices / NAME).iterdir()) == [
        "networks.parquet", "profile.yaml", "table.parquet",
    ]  # fmt: skip
    measured = [0, 12, 17, 22, 25, 27][chunks]
    said = rf"going on with {measured} networks measured before \(\d+ s\); to begin anew, remove (.*)"
    assert len(notes) == (chunks > 0)
    for note in notes:
        assert (found := re.fullmatch(said, note))
        assert Path(found[1]).parent == devices / NAME / UNFINISHED


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
    machine: Machine, devices: Path, tmp_path: Path
) -> None:
    plan = replace(PLAN, seconds=0.0, min_networks=33, max_networks=33)
    machine.breaks[2] = noisy(3)
    with pytest.raises(NoisyMeasurementError, match="network 2 does not repeat"):
        machine.register(plan=plan)
    assert len(entries(devices)) == 2
    assert list_devices() == []
    device = machine.register(plan=plan)
    other, undisturbed = uninterrupted(tmp_path / "other", plan=plan)
    assert machine.chunks == other.chunks
    assert known_of(device) == known_of(undisturbed)


def test_nothing_is_kept_of_a_registration_that_measured_nothing(machine: Machine, devices: Path) -> None:
    machine.breaks[0] = noisy(3)
    with pytest.raises(NoisyMeasurementError):
        machine.register()
    assert not devices.exists()


def test_a_torn_entry_and_what_follows_it_is_measured_again(
    machine: Machine, devices: Path, whole: tuple[Machine, Device]
) -> None:
    machine.begin(4)
    path = entries(devices)[1]
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
    options: dict[str, Any], then: str, now: str, machine: Machine, devices: Path
) -> None:
    machine.begin(2)
    (folder,) = (devices / NAME / UNFINISHED).iterdir()
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


def test_each_space_has_its_own_and_what_is_registered_stays(machine: Machine, devices: Path) -> None:
    machine.begin(2)
    first = machine.register(())
    assert load_device(NAME) == first
    assert len(entries(devices)) == 2, "of the other space"
    with pytest.raises(UnavailableError, match="was begun with seed 1 is unfinished"):
        machine.register(known=first, seed=2)
    assert load_device(NAME) == first
    both = machine.register(known=first)
    assert load_device(NAME) == both
    assert both.table.networks[: len(first.table.networks)] == first.table.networks
    assert {n.space for n in both.table.networks} == {digits_space(()).key, digits_space(BITS).key}
    assert not (devices / NAME / UNFINISHED).exists()


class Sessions:
    """Measures a space for so many seconds of planted time, ten a chunk."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine, self.folder = machine, folder

    def profile(self, seconds: float) -> Journal:
        self.machine.clock_s += 1000.0
        journal = Journal(self.folder, clock=lambda: self.machine.clock_s)
        plan = replace(PLAN, seconds=seconds, min_networks=12, max_networks=60, profiled_networks=0)
        profile_space(
            digits_space(BITS), make_runtime("onnxruntime"), np.random.default_rng(0), plan, journal=journal,
            steadiness=Steadiness(work=lambda: None, clock=lambda: 0.0),
        )  # fmt: skip
        return journal


@pytest.mark.parametrize("chunks", [None, 2, 3])
def test_the_time_spent_counts_and_what_lies_between_does_not(
    chunks: int | None, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.SLOWNESS", (1.0,) * 6)
    sessions = Sessions(machine, tmp_path / "journal")
    if chunks is not None:
        machine.breaks[chunks] = [KeyboardInterrupt()]
        with pytest.raises(KeyboardInterrupt):
            sessions.profile(35)
    assert sessions.profile(35).spent_s == 40
    assert [len(chunk) for chunk in machine.chunks] == [12, 7, 3, 3]


@pytest.mark.parametrize(("seconds", "counts"), [(5, [12, 7, 3, 3]), (35, [12, 7, 3, 3]), (55, [12, 7, 3, 3, 3, 3])])
def test_the_time_may_be_changed_and_what_was_measured_counts(
    seconds: float, counts: list[int], machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.SLOWNESS", (1.0,) * 6)
    sessions = Sessions(machine, tmp_path / "journal")
    assert sessions.profile(35).spent_s == 40
    sessions.profile(seconds)
    assert [len(chunk) for chunk in machine.chunks] == counts


KILLED = """
import itertools, sys
from hwnas.latency_tables import profiler
from hwnas.latency_tables.profiler import Plan
from hwnas.latency_tables.steadiness import Steadiness
from hwnas.latency_tables.timing import Protocol
from hwnas.predictors.registration import register
from hwnas.spaces import load_space

profiler.CHUNK = 3
protocol = Protocol(rounds=2, burst_s=0.002, min_runs=3, warmup_runs=1, max_spread=1e9)
plan = Plan(seconds=60, checks=4, min_networks=40, max_networks=40, profiled_networks=10, profiled_runs=2,
            protocol=protocol)
steady = Steadiness(work=lambda: None, clock=itertools.count(0, 1e-4).__next__)
space = load_space("mbconv", input_shape=(1, 8, 8), num_classes=10, joint=())
device = register("laptop", space, plan=plan, steadiness=steady, progress=lambda text, _: print(text, flush=True))
print(*(network.digest for role in ("fit", "check") for network in device.table.with_role(role)))
"""


@pytest.mark.slow
def test_a_process_that_is_killed(devices: Path) -> None:
    command = [sys.executable, "-c", KILLED]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while len(entries(devices)) < 4 and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    kept = {path: path.read_bytes() for path in entries(devices)}
    assert 4 <= len(kept) < 14
    assert list_devices() == []
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    *said, measured = result.stdout.splitlines()
    asked = [json.loads(data)["asked"] for data in kept.values()]
    before = [own for a in asked for own in zip(a["roles"], a["networks"], strict=True)]
    assert any(text.startswith(f"going on with {len(before)} networks measured before (") for text in said)
    first = [digest for role, digest in before if role == "fit"]
    assert measured.split()[: len(first)] == first
    assert {digest for role, digest in before if role == "check"} <= set(measured.split()[40:])
    assert len(set(measured.split())) == 44
    assert list_devices() == [NAME]
    assert not entries(devices)
