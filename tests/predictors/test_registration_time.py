"""The time that a registration may take, over all of its sessions; it is planted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwnas.latency_tables.journal import Journal
from hwnas.latency_tables.profiler import profile_space
from hwnas.latency_tables.runtimes import make_runtime
from hwnas.latency_tables.steadiness import Steadiness

from .resumable import BITS, PLAN, Machine
from .synthetic import digits_space


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
    chunks: int | None, machine: Machine, tmp_path: Path
) -> None:
    machine.slowness = (1.0,) * 6
    sessions = Sessions(machine, tmp_path / "journal")
    if chunks is not None:
        machine.breaks[chunks] = [KeyboardInterrupt()]
        with pytest.raises(KeyboardInterrupt):
            sessions.profile(35)
    assert sessions.profile(35).spent_s == 40
    assert [len(chunk) for chunk in machine.chunks] == [12, 7, 3, 3]


@pytest.mark.parametrize(("seconds", "counts"), [(5, [12, 7, 3, 3]), (35, [12, 7, 3, 3]), (55, [12, 7, 3, 3, 3, 3])])
def test_the_time_may_be_changed_and_what_was_measured_counts(
    seconds: float, counts: list[int], machine: Machine, tmp_path: Path
) -> None:
    machine.slowness = (1.0,) * 6
    sessions = Sessions(machine, tmp_path / "journal")
    assert sessions.profile(35).spent_s == 40
    sessions.profile(seconds)
    assert [len(chunk) for chunk in machine.chunks] == counts
