"""What operators took, less what the runtime's profiler itself takes."""

from __future__ import annotations

import pytest

from hwnas.latency_tables.plan import uniform_precision
from hwnas.latency_tables.profiler import prepare
from hwnas.latency_tables.records import own_times
from hwnas.latency_tables.runtimes.onnxruntime import OnnxRuntime
from hwnas.spaces import Space

from .profiling import ran


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
