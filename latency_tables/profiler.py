"""Measures networks of a space on this machine: whole, and operator by operator inside them."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median, pstdev

import numpy as np
import torch
from hwnas.latency_tables.plan import sample_networks
from hwnas.latency_tables.runtimes import Executable, OperatorTime, Runtime
from hwnas.latency_tables.table import LatencyTable, NetworkRow, OperatorRow, Role
from hwnas.latency_tables.timing import Protocol, Timing, measure
from hwnas.spaces.network import Network
from hwnas.spaces.operator import Operator
from hwnas.spaces.space import Rows, Space

Progress = Callable[[str, float], None]
"""Called with what is being done and the share of the whole that is done."""

CHUNK = 48
"""Networks held in memory and interleaved at a time."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure.

    Attributes:
        seconds: Time to spend; at least one chunk of networks and the checks are measured all the same.
        checks: Uniformly drawn networks that predictors never learn from.
        profiled: Networks whose operators are timed one by one with the runtime's profiler.
        profiled_runs: Inferences per profiled network.
        max_networks: Networks at most, beside the checks.
        protocol: How to time.
    """

    seconds: float = 100.0
    checks: int = 40
    profiled: int = 16
    profiled_runs: int = 60
    max_networks: int = 480
    protocol: Protocol = field(default_factory=lambda: Protocol(rounds=5, burst_s=0.012))


def profile_space(
    space: Space,
    runtime: Runtime,
    rng: np.random.Generator,
    plan: Plan | None = None,
    *,
    known: LatencyTable | None = None,
    progress: Progress | None = None,
) -> LatencyTable:
    """Measures networks of ``space`` until the plan's time is up, and adds them to what is ``known``.

    Raises:
        NoisyMeasurementError: The machine is too busy for a figure to repeat.
    """
    plan = plan or Plan()
    report = progress or (lambda *_: None)
    start = time.perf_counter()
    log = _Log(space, known or LatencyTable())
    checks = space.sample(rng, plan.checks)
    networks = sample_networks(space, rng, plan.max_networks)
    queue: list[tuple[Rows, Role]] = [(checks, "check")]
    queue += [(networks[i : i + CHUNK], "fit") for i in range(0, len(networks), CHUNK)]
    done = 0
    anchor = prepare(space, space.encode(space.reference()), runtime)
    for rows, role in queue:
        elapsed = time.perf_counter() - start
        per_network = elapsed / max(1, done)
        if done > len(checks) and elapsed + per_network * len(rows) > plan.seconds:
            break
        report(f"measuring networks ({done} done)", min(1.0, elapsed / plan.seconds))
        executables = [prepare(space, row, runtime) for row in rows]
        names = ["the reference network", *(f"network {space.decode(row).digest}" for row in rows)]
        first, *timings = measure([anchor.run, *(e.run for e in executables)], plan.protocol, names=names)
        log.begin_chunk(first)
        profiled = plan.profiled if role == "fit" and not log.profiled else 0
        for position, (row, timing) in enumerate(zip(rows, timings, strict=True)):
            times = executables[position].operator_times(plan.profiled_runs) if position < profiled else None
            log.add(row, role, timing, times)
        done += len(rows)
    report(f"measured {done} networks", 1.0)
    return log.table()


def prepare(space: Space, row: np.ndarray, runtime: Runtime) -> Executable:
    """The network of one row with random weights, ready to run."""
    network = space.build(space.decode(row))
    settle(network)
    return runtime.prepare(network)


def settle(network: Network) -> None:
    """Sets the ranges of a fresh network's quantisers by one random batch, and puts it in evaluation mode."""
    with torch.no_grad():
        network.train()(torch.rand(2, *network.input_shape))
    network.eval()


def own_times(times: Mapping[str, OperatorTime], latency_ms: float) -> dict[str, float]:
    """Milliseconds of each operator without the profiler's own cost.

    A profiler adds about the same to every node, microseconds that can exceed a small node's own time. What it adds is
    what makes the nodes' times add up to more than the network's latency, so it is taken off each node alike.
    """
    nodes = sum(t.nodes for t in times.values())
    extra = max(0.0, sum(t.ms for t in times.values()) - latency_ms) / nodes
    return {name: max(0.0, t.ms - extra * t.nodes) for name, t in times.items()}


class _Log:
    """Collects the rows of a table."""

    def __init__(self, space: Space, known: LatencyTable) -> None:
        self.space = space
        self.spec = json.dumps(space.spec, sort_keys=True)
        self.known = known
        self.index: dict[Operator, int] = {row.operator: i for i, row in enumerate(known.operators)}
        self.networks = list(known.networks)
        self.count = Counter({row.operator: row.count for row in known.operators})
        self.kernels: dict[Operator, tuple[str, ...]] = {}
        self.times: dict[Operator, list[float]] = defaultdict(list)
        self.profiled = 0
        self.chunks: list[tuple[int, float]] = []

    def begin_chunk(self, anchor: Timing) -> None:
        """What follows was measured together with the anchor network, which was as fast as ``anchor`` says."""
        self.chunks.append((len(self.networks), anchor.p50_ms))

    def add(self, row: np.ndarray, role: Role, timing: Timing, times: Mapping[str, OperatorTime] | None) -> None:
        operators = self.space.workload_of_row(row).operators
        for operator in operators:
            self.index.setdefault(operator, len(self.index))
        self.count.update(set(operators))
        if times is not None:
            self.profiled += 1
            own = own_times(times, timing.p50_ms)
            for operator in operators:
                self.times[operator].append(own.get(operator.name, 0.0))
                self.kernels[operator] = times[operator.name].kernels if operator.name in times else ()
        candidate = self.space.decode(row)
        self.networks.append(
            NetworkRow(
                digest=candidate.digest,
                space=self.spec,
                candidate=candidate.to_json(),
                role=role,
                operators=tuple(self.index[o] for o in operators),
                latency_ms_p50=timing.p50_ms,
                latency_ms_p90=timing.p90_ms,
                spread=timing.spread,
                runs=timing.runs,
            )
        )

    def table(self) -> LatencyTable:
        networks = self.networks[: self.chunks[0][0]]
        usual = median(ms for _, ms in self.chunks)
        ends = [start for start, _ in self.chunks[1:]] + [len(self.networks)]
        for (start, ms), end in zip(self.chunks, ends, strict=True):
            # The anchor was measured in every chunk: its own drift is the machine's.
            speed = ms / usual
            networks += [
                replace(n, latency_ms_p50=n.latency_ms_p50 / speed, latency_ms_p90=n.latency_ms_p90 / speed)
                for n in self.networks[start:end]
            ]
        return LatencyTable(tuple(self._row(o, i) for o, i in self.index.items()), tuple(networks))

    def _row(self, operator: Operator, index: int) -> OperatorRow:
        known = self.known.operators[index] if index < len(self.known.operators) else OperatorRow(operator)
        times: Sequence[float] = self.times.get(operator, ())
        return OperatorRow(
            operator,
            kernels=self.kernels.get(operator, known.kernels),
            latency_ms_p50=median(times) if times else known.latency_ms_p50,
            latency_ms_std=pstdev(times) if times else known.latency_ms_std,
            count=self.count[operator],
            energy_mj=known.energy_mj,
        )
