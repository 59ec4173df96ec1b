"""A machine of planted timings, on which registrations can be cut off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from hwnas.latency_tables import chunks as chunks_module
from hwnas.latency_tables import profiler as profiler_module
from hwnas.latency_tables.device import Device
from hwnas.latency_tables.profiler import Plan
from hwnas.latency_tables.runtimes import OperatorTime
from hwnas.latency_tables.steadiness import Steadiness
from hwnas.latency_tables.timing import Protocol, Timing
from hwnas.predictors.registration import UNFINISHED, register

from .synthetic import digits_space

NAME = "laptop"
PLAN = Plan(seconds=60, checks=4, min_networks=20, max_networks=23, profiled_networks=15, profiled_runs=1)
SLOWNESS = (1.0, 1.0, 1.9, 1.0, 1.4, 1.0)
"""In each chunk: 12 networks, 3 with 2 checks, 3 with 2 checks, 3, 2, and the checks of the third one again."""
BITS = ("bits",)
SEED = 1
"""With it the few networks to learn from hold all kinds of operators that the checks hold."""


class Machine:
    """Networks take what their digests say, times how slow the machine is at that chunk.

    Before chunks that it is told of, by how many were measured until then, it breaks off instead, as often as told;
    before operators, too.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.slowness: tuple[float, ...] = SLOWNESS
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
        slow = self.slowness[min(len(self.chunks), 5)]
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


def uninterrupted(
    folder: Path, breaks: dict[int, list[BaseException]] | None = None, **options: Any
) -> tuple[Machine, Device]:
    """The same registration on another such machine, not cut off."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profiler_module, "CHUNK", 3)
        machine = Machine(patch)
        machine.breaks = breaks or {}
        return machine, machine.register(folder=folder, **options)


def entries(devices: Path) -> list[Path]:
    return sorted(devices.glob(f"{NAME}/{UNFINISHED}/*/chunk-*.json"))


def known_of(device: Device) -> dict[str, Any]:
    """All but the times of day."""
    profile = device.profile.model_dump(exclude={"registered", "registration_seconds", "verified"})
    assert device.profile.verified is not None
    return profile | device.profile.verified.model_dump(exclude={"when"}) | {"table": device.table}
