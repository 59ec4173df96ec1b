"""Profiling without a judge of the machine's steadiness: tests may share it."""

from __future__ import annotations

from hwnas.latency_tables.runtimes import OperatorTime
from hwnas.latency_tables.steadiness import Steadiness
from hwnas.latency_tables.timing import Protocol

LENIENT = Protocol(rounds=2, burst_s=0.002, min_runs=3, warmup_runs=1, max_spread=1e9)


def always_steady() -> Steadiness:
    """Finds the machine undisturbed whatever else it does."""
    return Steadiness(work=lambda: None, clock=lambda: 0.0)


def ran(ms: float, nodes: int) -> OperatorTime:
    """Of an operator that so many convolutions ran for."""
    return OperatorTime(ms, nodes, ("Conv",) * nodes)
