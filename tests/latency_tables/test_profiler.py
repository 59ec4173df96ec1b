"""A tiny registration, measured for real; only the judge of the machine's steadiness is lenient."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from hwnas.latency_tables import chunks as chunks_module
from hwnas.latency_tables import profiler as profiler_module
from hwnas.latency_tables.chunks import Chunk
from hwnas.latency_tables.device import Precision
from hwnas.latency_tables.journal import Journal
from hwnas.latency_tables.plan import anchors, precision_pairs, uniform_precision
from hwnas.latency_tables.profiler import Plan, extend, prepare, profile_space, slowness
from hwnas.latency_tables.records import Records, own_times
from hwnas.latency_tables.runtimes import OperatorTime
from hwnas.latency_tables.runtimes.onnxruntime import OnnxExecutable, OnnxRuntime
from hwnas.latency_tables.steadiness import Steadiness
from hwnas.latency_tables.table import LatencyTable, Role
from hwnas.latency_tables.timing import Protocol, Timing
from hwnas.spaces import Space, load_space
from hwnas.spaces.errors import NoisyMeasurementError

LENIENT = Protocol(rounds=2, burst_s=0.002, min_runs=3, warmup_runs=1, max_spread=1e9)
PLAN = Plan(
    seconds=60, checks=4, min_networks=24, max_networks=24, profiled_networks=0, profiled_runs=8, protocol=LENIENT
)


def always_steady() -> Steadiness:
    """Finds the machine undisturbed whatever else it does: tests may share it."""
    return Steadiness(work=lambda: None, clock=lambda: 0.0)


@pytest.fixture(scope="module")
def space() -> Space:
    return load_space("mbconv", input_shape=(1, 8, 8), num_classes=10)


Registered = tuple[LatencyTable, tuple[Precision, ...], list[tuple[str, float]]]


@pytest.fixture(scope="module")
def registered(space: Space) -> Registered:
    said: list[tuple[str, float]] = []
    found = profile_space(
        space, OnnxRuntime(), np.random.default_rng(0), PLAN, steadiness=always_steady(),
        progress=lambda text, share: said.append((text, share)),
    )  # fmt: skip
    return found.table, found.precisions, said


def test_as_many_networks_as_planned(space: Space, registered: Registered) -> None:
    table, _, _ = registered
    assert len(table.with_role("fit")) == 24
    assert len(table.with_role("check")) == 4
    assert len({n.digest for n in table.networks}) == 28
    first = [n.digest for n in table.networks[:12]]
    uniform = [space.decode(uniform_precision(space, *pair)).digest for pair in precision_pairs(space)]
    assert first == uniform


def test_networks_hold_what_their_candidates_lower_to(space: Space, registered: Registered) -> None:
    table, _, _ = registered
    count = dict.fromkeys((row.operator for row in table.operators), 0)
    for network in table.networks:
        assert json.loads(network.space) == space.spec
        operators = space.workload(json.loads(network.candidate)).operators
        assert table.operators_of(network) == list(operators)
        assert 0 < network.latency_ms_p50 <= network.latency_ms_p90 < 1000
        assert network.runs >= LENIENT.rounds * LENIENT.min_runs
        for operator in set(operators):
            count[operator] += 1
    assert {row.operator: row.count for row in table.operators} == count
    assert len(count) == len(table.operators), "no operator has two rows"


def test_operators_are_timed_inside_the_reference_networks(space: Space, registered: Registered) -> None:
    table, _, _ = registered
    inside = {
        o for pair in precision_pairs(space) for o in space.workload_of_row(uniform_precision(space, *pair)).operators
    }
    for row in table.operators:
        assert (row.latency_ms_p50 is not None) == (row.operator in inside)
        assert row.latency_ms_p50 is None or row.latency_ms_p50 >= 0
        assert row.energy_mj is None, "no meter, no energy"
    kernels = {k for row in table.operators for k in row.kernels}
    assert {"QLinearConv", "DequantizeLinear"} <= kernels


def test_every_network_says_what_it_allocates(space: Space, registered: Registered) -> None:
    table, _, _ = registered
    for network in table.networks:
        operators = space.workload(json.loads(network.candidate)).operators
        float_output = max(4 * o.out_channels * o.out_size[0] * o.out_size[1] for o in operators if not o.integer)
        assert network.peak_memory_bytes is not None
        assert float_output <= network.peak_memory_bytes < 2**20


def test_enough_networks_say_what_they_allocate(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiler_module, "MEMORY_NETWORKS", 12)
    monkeypatch.setattr(OnnxExecutable, "peak_memory_bytes", lambda _: 1000)
    found = profile_space(
        space, OnnxRuntime(), np.random.default_rng(0), PLAN, steadiness=always_steady()
    )  # the first twelve are profiled
    told = [(n.role, n.peak_memory_bytes) for n in found.table.networks]
    assert told.count(("fit", 1000)) == 12
    assert told.count(("fit", None)) == 12
    assert told.count(("check", 1000)) == 4


def test_precisions_of_every_pair(space: Space, registered: Registered) -> None:
    _, precisions, _ = registered
    found = {(p.weight_bits, p.act_bits): p for p in precisions}
    assert list(found) == precision_pairs(space)
    assert found[32, 32].execution == "native"
    assert found[32, 32].relative_latency == 1.0
    assert found[8, 8].execution == "native"
    assert found[4, 8].execution == "stored only"
    assert found[8, 32].execution == found[32, 8].execution == "emulated"
    assert "QLinearConv" in found[8, 8].kernels


def test_progress_is_reported(registered: Registered) -> None:
    _, _, said = registered
    assert said[0] == ("measuring precisions", 0.0)
    assert re.fullmatch(r"measured 24 networks(, \d+ of them at another speed of the machine)?", said[-1][0])
    assert said[-1][1] == 1.0
    assert all(0 <= share <= 1 for _, share in said)


def test_the_table_can_be_kept(registered: Registered, tmp_path: Path) -> None:
    table, _, _ = registered
    table.save(tmp_path)
    assert LatencyTable.load(tmp_path) == table


def test_what_is_known_stays_and_more_is_added(registered: Registered) -> None:
    table, _, _ = registered
    other = load_space("mbconv", input_shape=(1, 8, 8), num_classes=7, joint=())
    plan = Plan(seconds=0, checks=2, min_networks=0, max_networks=2, profiled_runs=2, protocol=LENIENT)
    found = profile_space(other, OnnxRuntime(), np.random.default_rng(1), plan, known=table, steadiness=always_steady())
    both, precisions = found.table, found.precisions
    assert both.networks[:28] == table.networks
    assert [n.role for n in both.networks[28:]] == ["fit", "check", "check"], "no time left for more than these"
    assert [r.operator for r in both.operators[: len(table.operators)]] == [r.operator for r in table.operators]
    assert len(precisions) == 1
    head = next(i for i, r in enumerate(table.operators) if r.operator.kind == "pool")
    assert both.operators[head].count >= table.operators[head].count


def test_a_table_is_extended_by_networks_of_ones_choice(space: Space, registered: Registered) -> None:
    table, _, _ = registered
    rows = space.sample(np.random.default_rng(77), 3)
    more = extend(table, space, OnnxRuntime(), rows, PLAN, steadiness=always_steady())
    assert more.networks[:28] == table.networks
    assert [(n.digest, n.role) for n in more.networks[28:]] == [(space.decode(r).digest, "fit") for r in rows]
    measured = {r.operator: r for r in table.operators}
    for row in more.operators:
        if row.operator in measured and row.count == measured[row.operator].count:
            assert row == measured[row.operator]


def test_anchors_of_several_kinds_tell_how_slow_the_machine_is(space: Space, registered: Registered) -> None:
    table, _, _ = registered
    rows = anchors(space)
    assert space.decode(rows[0]) == space.reference()
    assert len({space.decode(row).digest for row in rows}) == 6
    usual = [table.latency_of(space.decode(row).digest, space.key) for row in rows]
    now = [ms * f for ms, f in zip(usual, (1.4, 2.0, 1.7, 1.7, 1.8, 1.9), strict=True) if ms]
    assert slowness(space, table, now) == pytest.approx(1.75), "the median"
    assert slowness(space, LatencyTable(), now) == 1.0


def test_nothing_to_add_changes_nothing(space: Space, registered: Registered) -> None:
    table, _, _ = registered
    none = np.empty((0, len(space.decisions)), dtype=np.int16)
    assert extend(table, space, OnnxRuntime(), none, PLAN, steadiness=always_steady()) == table


SLOW = [1.0, 1.0, 1.9, 1.0, 1.4, 1.0]
"""How slow the machine is in each chunk; 5 networks to learn from are in the slow ones."""


class Planted:
    """Profiles where networks take 7, 8, 9 … ms times how slow the machine is in their chunk."""

    def __init__(
        self, space: Space, patch: pytest.MonkeyPatch, slowness: list[float], least: int, profiled: int = 0
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
    monkeypatch.setattr(OnnxExecutable, "operator_times", lambda *_: {"head": head})
    planted = Planted(space, monkeypatch, [1.9, 1.0, 1.0, 1.0, 1.0], 11)
    assert planted.learnt() == pytest.approx([*range(7, 19), 7, 8, 9, 7, 8, 9, 7, 8, 9, 7, 8])
    heads = sorted(r.latency_ms_p50 for r in planted.found.table.operators if r.latency_ms_p50)
    assert heads == pytest.approx(list(range(7, 19))), "all of each network's latency"


def test_nothing_is_learnt_from_the_operators_of_held_out_networks(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        OnnxExecutable,
        "operator_times",
        lambda *_: {name: OperatorTime(1.0, 1, ("Conv",)) for name in ("stem", "head")},
    )
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


def test_a_space_of_few_precisions_has_few_anchors() -> None:
    space = load_space("mbconv", input_shape=(1, 8, 8), num_classes=10, joint=())
    assert [space.decode(row) for row in anchors(space)] == [space.reference()]


def test_there_are_never_fewer_networks_than_the_least() -> None:
    space = load_space("mbconv", input_shape=(1, 8, 8), num_classes=10, joint=())
    plan = Plan(seconds=0, checks=2, min_networks=4, max_networks=4, profiled_runs=1, protocol=LENIENT)
    found = profile_space(space, OnnxRuntime(), np.random.default_rng(0), plan, steadiness=always_steady())
    assert len(found.table.with_role("fit")) == 4


def test_a_machine_that_cannot_repeat_is_refused(space: Space) -> None:
    impossible = Protocol(rounds=2, burst_s=0.0, min_runs=1, warmup_runs=0, max_spread=-1.0, patience=1)
    plan = Plan(seconds=1, checks=2, min_networks=2, max_networks=2, profiled_runs=1, protocol=impossible)
    with pytest.raises(NoisyMeasurementError, match=r"^network [0-9a-f]{16} does not repeat"):
        profile_space(space, OnnxRuntime(), np.random.default_rng(0), plan, steadiness=always_steady())


def ran(ms: float, nodes: int) -> OperatorTime:
    return OperatorTime(ms, nodes, ("Conv",) * nodes)


def test_the_profilers_own_cost_is_taken_off_each_node_alike() -> None:
    times = {"a": ran(0.5, 1), "b": ran(0.7, 3), "c": ran(0.3, 1)}
    own = own_times(times, 1.0)  # 0.5 ms too much, 0.1 ms a node
    assert own == pytest.approx({"a": 0.4, "b": 0.4, "c": 0.2})
    assert sum(own.values()) == pytest.approx(1.0)


def test_times_that_do_not_exceed_the_latency_are_left_alone() -> None:
    times = {"a": ran(0.25, 1), "b": ran(0.5, 2)}
    assert own_times(times, 0.75) == {"a": 0.25, "b": 0.5}
    assert own_times(times, 9.0) == {"a": 0.25, "b": 0.5}


def test_no_time_is_negative() -> None:
    own = own_times({"tiny": ran(0.01, 2), "big": ran(1.0, 1)}, 0.5)
    assert own["tiny"] == 0.0
    assert 0 < own["big"] < 1.0


def test_own_times_sum_to_the_latency_when_small_nodes_are_cut_off() -> None:
    own = own_times({"tiny": ran(0.01, 2), "big": ran(1.0, 1)}, 0.5)
    assert sum(own.values()) == pytest.approx(0.5)


def test_own_times_of_a_real_network_sum_to_its_latency(space: Space) -> None:
    row = uniform_precision(space, 32, 32)
    times = prepare(space, row, OnnxRuntime()).operator_times(20)
    total, nodes = sum(t.ms for t in times.values()), sum(t.nodes for t in times.values())
    smallest = min(t.ms / t.nodes for t in times.values())
    latency = total - 0.5 * smallest * nodes  # as if the profiler took half of the smallest node
    assert sum(own_times(times, latency).values()) == pytest.approx(latency)
