"""What the profiler makes of a machine that changes its speed; timings are planted."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from hwnas.latency_tables import chunks as chunks_module
from hwnas.latency_tables import profiler as profiler_module
from hwnas.latency_tables.chunks import Chunk
from hwnas.latency_tables.journal import Journal
from hwnas.latency_tables.profiler import Plan, profile_space
from hwnas.latency_tables.records import Records
from hwnas.latency_tables.runtimes import OperatorTime
from hwnas.latency_tables.runtimes.onnxruntime import OnnxRuntime
from hwnas.latency_tables.table import LatencyTable, Role
from hwnas.latency_tables.timing import Timing
from hwnas.spaces import Space
from hwnas.spaces.errors import NoisyMeasurementError

from .profiling import LENIENT, always_steady, ran

SLOW = [1.0, 1.0, 1.9, 1.0, 1.4, 1.0]
"""How slow the machine is in each chunk; 5 networks to learn from are in the slow ones."""


class Unbuilt:
    """An executable of a network that is never built: its timings are planted."""

    def __init__(self, times: Mapping[str, OperatorTime]) -> None:
        self.times = times

    def run(self) -> None:
        """Nothing is to be run."""

    def operator_times(self, _: int) -> Mapping[str, OperatorTime]:
        return self.times

    def peak_memory_bytes(self) -> None:
        """This runtime does not say."""


STEM_AND_HEAD = {name: OperatorTime(1.0, 1, ("Conv",)) for name in ("stem", "head")}


class Planted:
    """Profiles where networks take 7, 8, 9 … ms times how slow the machine is in their chunk."""

    def __init__(
        self,
        space: Space,
        patch: pytest.MonkeyPatch,
        slowness: list[float],
        least: int,
        profiled: int = 0,
        times: Mapping[str, OperatorTime] = STEM_AND_HEAD,
    ) -> None:
        slow = iter(slowness)
        self.counts: list[int] = []
        self.said: list[str] = []
        self.steadiness = always_steady()

        def planted(items: list[object], *_: object, **__: object) -> list[Timing]:
            self.counts.append(len(items) - 6)
            factor = next(slow)
            self.steadiness.settle(0.1 * factor)
            return [Timing(factor * (i + 1), factor * (i + 1), 0.0, 1) for i in range(len(items))]

        patch.setattr(chunks_module, "measure", planted)
        patch.setattr(profiler_module, "prepare", lambda *_: Unbuilt(times))
        patch.setattr(profiler_module, "CHUNK", 3)
        plan = Plan(
            seconds=60,
            checks=4,
            min_networks=least,
            max_networks=23,
            profiled_networks=profiled,
            profiled_runs=1,
            protocol=LENIENT,
        )
        self.found = profile_space(
            space, OnnxRuntime(), np.random.default_rng(0), plan, steadiness=self.steadiness,
            progress=lambda text, _: self.said.append(text),
        )  # fmt: skip

    def learnt(self, role: Role = "fit") -> list[float]:
        return [n.latency_ms_p50 for n in self.found.table.with_role(role)]


@pytest.mark.parametrize(
    ("slowness", "least", "counts", "learnt", "checks", "said_last"),
    [
        ([1.0] * 5, 23, [12, 4, 4, 4, 3], [12, 3, 3, 3, 2], [10, 10, 10, 9], "measured 23 networks"),
        (
            SLOW, 18, [12, 5, 5, 3, 2, 2], [12, 3, 3], [10, 11, 7, 8],
            "measured 23 networks, 5 of them left out: at another speed of the machine",
        ),
        (
            SLOW, 19, [12, 5, 5, 3, 2, 2], [12, 3, 3, 3, 2], [10, 11, 7, 8],
            "measured 23 networks, 5 of them at another speed of the machine",
        ),
        (
            [1.0, 1.0, 1.9, 1.9, 1.0], 15, [12, 7, 3, 3, 2], [12, 3, 2], [10, 11, 12, 13],
            "measured 23 networks, 6 of them left out: at another speed of the machine",
        ),
    ],
)  # fmt: skip
def test_what_was_measured_at_another_speed_is_left_out_or_where_it_is_needed_brought_to_the_usual_one(
    space: Space,
    monkeypatch: pytest.MonkeyPatch,
    slowness: list[float],
    least: int,
    counts: list[int],
    learnt: list[int],
    checks: list[int],
    said_last: str,
) -> None:
    planted = Planted(space, monkeypatch, slowness, least)
    assert planted.counts == counts, "held-out networks are spread over the chunks"
    assert planted.learnt() == pytest.approx([7 + i for n in learnt for i in range(n)])
    assert planted.learnt("check") == pytest.approx(checks)
    assert planted.said[-1] == said_last
    assert planted.found.off_speed == sum(n for n, s in zip([3, 3, 3, 2], slowness[1:], strict=False) if s > 1)
    assert planted.found.left_out == ("left out" in said_last)
    assert planted.found.probe_ms == pytest.approx(0.1), "what the table is for, wherever the machine ended"
    table = planted.found.table
    used = {o for network in table.networks for o in table.operators_of(network)}
    assert {row.operator for row in table.operators} == used


@pytest.mark.parametrize("again", [1.0, 1.9])
def test_held_out_networks_measured_at_another_speed_are_measured_again_and_never_left_out(
    space: Space, monkeypatch: pytest.MonkeyPatch, again: float
) -> None:
    planted = Planted(space, monkeypatch, [1.0, 1.9, 1.0, 1.0, 1.0, again], 20)
    assert planted.counts == [12, 5, 5, 3, 2, 2]
    assert planted.learnt() == pytest.approx([*range(7, 19), 7, 8, 9, 7, 8, 9, 7, 8])
    assert planted.learnt("check") == pytest.approx([10, 11, 7, 8])
    assert planted.found.off_speed == 3
    assert "measuring held-out networks again" in planted.said


def test_the_first_networks_are_never_left_out_and_their_operators_are_brought_to_the_usual_speed(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = OperatorTime(1.9, 1, ("Conv",))
    planted = Planted(space, monkeypatch, [1.9, 1.0, 1.0, 1.0, 1.0], 11, times={"head": head})
    assert planted.learnt() == pytest.approx([*range(7, 19), 7, 8, 9, 7, 8, 9, 7, 8, 9, 7, 8])
    heads = sorted(r.latency_ms_p50 for r in planted.found.table.operators if r.latency_ms_p50)
    assert heads == pytest.approx(list(range(7, 19))), "all of each network's latency"


def test_nothing_is_learnt_from_the_operators_of_held_out_networks(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Planted(space, monkeypatch, [1.0] * 5, 23, profiled=99).found.table
    timed, learnt, held_out = (
        {r.operator for r in table.operators if r.latency_ms_p50 is not None},
        *({o for n in table.with_role(role) for o in table.operators_of(n)} for role in ("fit", "check")),
    )
    assert held_out - learnt, "some operators are in held-out networks alone"
    assert timed == learnt


@pytest.mark.parametrize(
    ("slow", "taken"), [([1, 1], 0), ([2, 1, 1], 1), ([1, 2, 1, 1], 2), ([2, 1.7, 1.5, 1.6, 1.9], 2)]
)
def test_operators_are_timed_while_the_machine_is_steady_or_in_the_steadiest_attempt(
    space: Space, slow: list[float], taken: int
) -> None:
    """The machine's slowness at each probe; an attempt lies between two of them."""
    clock = iter(slow)
    steadiness = always_steady()
    steadiness.settle(0.1)
    steadiness.probe = lambda: 0.1 * next(clock)  # type: ignore[method-assign]
    attempts: list[int] = []

    class Attempted:
        def operator_times(self, runs: int) -> dict[str, OperatorTime]:
            attempts.append(runs)
            return {"stem": OperatorTime(float(len(attempts) - 1), 1, ("Conv",))}

    plan = Plan(profiled_runs=8, protocol=LENIENT)
    bench = profiler_module._Bench(space, OnnxRuntime(), plan, LatencyTable(), steadiness, Journal())
    said = bench._operator_times(Attempted(), 8)  # type: ignore[arg-type]
    assert said["stem"].ms == taken
    assert len(attempts) == len(slow) - 1


def test_a_held_out_network_that_never_repeats_is_done_without(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = space.decode(space.sample(np.random.default_rng(0), 4)[1]).digest
    calls: list[tuple[int, bool]] = []

    def planted(items: list[object], *_: object, names: list[str], **__: object) -> list[Timing]:
        calls.append((len(items) - 6, any(bad in name for name in names)))
        if calls[-1][1]:
            raise NoisyMeasurementError(f"network {bad} does not repeat")
        return [Timing(1.0 + i, 1.0 + i, 0.0, 1) for i in range(len(items))]

    monkeypatch.setattr(chunks_module, "measure", planted)
    monkeypatch.setattr(profiler_module, "prepare", lambda *_: Unbuilt(STEM_AND_HEAD))
    monkeypatch.setattr(profiler_module, "CHUNK", 3)
    plan = Plan(seconds=60, checks=4, min_networks=23, max_networks=23, profiled_networks=0, protocol=LENIENT)
    found = profile_space(space, OnnxRuntime(), np.random.default_rng(0), plan, steadiness=always_steady())
    assert len(found.table.with_role("check")) == 3
    assert len(found.table.with_role("fit")) == 20, "the networks of one chunk are lost with it"
    assert sum(held for _, held in calls) == 6, "three attempts, and three in the end"


def test_operators_timed_in_what_is_left_out_are_left_out_too(space: Space) -> None:
    rows = space.sample(np.random.default_rng(0), 4)
    records = Records(space, LatencyTable())
    head = next(o for o in space.workload_of_row(rows[0]).operators if o.name == "head")
    for i, slow in enumerate((1.0, 1.0, 1.0, 1.9)):
        timing = Timing(slow, slow, 0.0, 1)
        records.add(
            rows[:1] if i else rows,
            ["fit"] * (1 if i else 4),
            Chunk((timing,) * (1 if i else 4), (slow,) * 6, 0.1 * slow),
        )
        records.add_operators(rows[0], timing, {"head": ran(slow * (7.0 if slow > 1 else 1.0), 1), "stem": ran(1.0, 1)})
    deviations = [
        {row.operator: row.latency_ms_std for row in records.table(leave_out).operators}[head]
        for leave_out in (True, False)
    ]
    assert deviations == [0.0, pytest.approx(0.2165, abs=1e-3)]
    assert [n.latency_ms_p50 for n in records.table(leave_out=True).networks] == pytest.approx([1.0] * 6)
