"""A tiny registration, measured for real; only the judge of the machine's steadiness is lenient."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from hwnas.latency_tables import profiler as profiler_module
from hwnas.latency_tables.beside_anchors import slowness
from hwnas.latency_tables.device import Precision
from hwnas.latency_tables.plan import anchors, precision_pairs, uniform_precision
from hwnas.latency_tables.profiler import Plan, extend, profile_space
from hwnas.latency_tables.records import anchors_usual_ms
from hwnas.latency_tables.runtimes.onnxruntime import OnnxExecutable, OnnxRuntime
from hwnas.latency_tables.table import LatencyTable
from hwnas.latency_tables.timing import Protocol
from hwnas.spaces import Space, load_space
from hwnas.spaces.errors import NoisyMeasurementError

from .profiling import LENIENT, always_steady

PLAN = Plan(
    seconds=60, checks=4, min_networks=24, max_networks=24, profiled_networks=0, profiled_runs=8, protocol=LENIENT
)


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
    assert found[8, 32].execution == "stored only", "its weights become floats when the file is loaded"
    assert found[32, 8].execution == "emulated"
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
    assert slowness(now, anchors_usual_ms(space, table)) == pytest.approx(1.75), "the median"
    assert slowness(now, anchors_usual_ms(space, LatencyTable())) == 1.0


def test_nothing_to_add_changes_nothing(space: Space, registered: Registered) -> None:
    table, _, _ = registered
    none = np.empty((0, len(space.decisions)), dtype=np.int16)
    assert extend(table, space, OnnxRuntime(), none, PLAN, steadiness=always_steady()) == table


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
