"""Measures networks of a space on this machine: whole, and operator by operator inside them."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, pstdev

import numpy as np
import torch
from numpy.typing import NDArray

from hwnas.latency_tables.device import Precision
from hwnas.latency_tables.plan import precision_pairs, sample_networks, uniform_precision
from hwnas.latency_tables.precisions import find_precisions
from hwnas.latency_tables.runtimes import Executable, OperatorTime, Runtime
from hwnas.latency_tables.steadiness import TOLERANCE, Steadiness
from hwnas.latency_tables.table import LatencyTable, NetworkRow, OperatorRow, Role
from hwnas.latency_tables.timing import Protocol, Timing, measure
from hwnas.spaces.errors import NoisyMeasurementError
from hwnas.spaces.network import Network
from hwnas.spaces.operator import Operator
from hwnas.spaces.space import Rows, Space

Floats = NDArray[np.float64]
Progress = Callable[[str, float], None]
"""Called with what is being done and the share of the whole that is done."""

CHUNK = 48
"""Networks held in memory and interleaved at a time."""
ATTEMPTS = 3
"""Times a chunk is measured before a disturbed machine is refused."""
ANCHORS = 6
"""Networks that are measured with every chunk to tell the machine's speed."""
OVERTIME = 1.3
"""Up to so many times the planned time is spent to have enough networks of one speed."""


@dataclass(frozen=True, slots=True)
class Profiled:
    """What `profile_space` found.

    Attributes:
        table: Everything known, old and new.
        precisions: What the device does with each precision.
        probe_ms: The probe's time at the speed of the machine that the table is for; see
            `hwnas.latency_tables.steadiness`.
        off_speed: Networks measured at another speed of the machine.
        left_out: Whether they were left out of the table, or brought to its speed as the anchors show.
    """

    table: LatencyTable
    precisions: tuple[Precision, ...]
    probe_ms: float
    off_speed: int
    left_out: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure.

    Attributes:
        seconds: Time to spend; longer where it is too little for ``min_networks``, and up to `OVERTIME` times as long
            where too few of them were measured at one speed of the machine.
        min_networks: Networks to learn from at least, unless the machine is so disturbed that chunks must be left out.
        checks: Uniformly drawn networks that predictors never learn from.
        profiled_networks: So many networks have their operators timed one by one too, with the runtime's profiler; the
            reference in every precision is always among them.
        profiled_runs: Inferences of each of them.
        max_networks: Networks to learn from at most.
        protocol: How to time.
    """

    seconds: float = 100.0
    checks: int = 40
    profiled_networks: int = 240
    profiled_runs: int = 50
    min_networks: int = 192
    max_networks: int = 480
    protocol: Protocol = field(default_factory=lambda: Protocol(rounds=4, burst_s=0.012))


def profile_space(
    space: Space,
    runtime: Runtime,
    rng: np.random.Generator,
    plan: Plan | None = None,
    *,
    known: LatencyTable | None = None,
    steadiness: Steadiness | None = None,
    progress: Progress | None = None,
) -> Profiled:
    """Measures networks of ``space`` until the plan's time is up, and adds them to what is ``known``.

    First the reference network in every precision, then the checks, then the rest. Checks
    that turn out to have been measured at another speed than most are measured again.

    Raises:
        NoisyMeasurementError: The machine is too busy for a figure to repeat.
    """
    plan = plan or Plan()
    report = progress or (lambda *_: None)
    start = time.perf_counter()
    bench = _Bench(space, runtime, plan, known or LatencyTable(), steadiness or Steadiness())
    report("measuring precisions", 0.0)
    uniform = np.array([uniform_precision(space, w, a) for w, a in precision_pairs(space)])
    timings, executables = bench.measure(uniform, "fit")
    times = bench.profile(uniform, timings, executables)
    bench.measure(space.sample(rng, plan.checks), "check")
    measured = len(uniform)
    speeds = [1 / t.p50_ms for t in timings]
    networks = sample_networks(space, rng, plan.max_networks - measured, speeds)
    for first in range(0, len(networks), CHUNK):
        elapsed = time.perf_counter() - start
        enough = measured if elapsed > OVERTIME * plan.seconds else measured - sum(bench.off_speed())
        if elapsed > plan.seconds and enough >= plan.min_networks:
            break
        report(f"measuring networks ({measured} done)", min(1.0, elapsed / max(plan.seconds, 1e-9)))
        rows = networks[first : first + CHUNK]
        try:
            found = bench.measure(rows, "fit")
            if measured < plan.profiled_networks:
                bench.profile(rows, *found)
            measured += len(rows)
        except NoisyMeasurementError:
            # These networks are left out; others will do, or in the end those that there are.
            if elapsed > 2 * plan.seconds:
                if measured < plan.min_networks / 2:
                    raise
                break
    if bench.checks_off_speed():
        report("measuring the held-out networks again", 1.0)
        bench.repeat("check")
    off = sum(bench.off_speed())
    leave_out = measured - off >= plan.min_networks
    also = f", {off} of them {'left out: ' if leave_out else ''}at another speed of the machine" if off else ""
    report(f"measured {measured} networks{also}", 1.0)
    precisions = find_precisions(space, runtime, uniform, timings, times)
    return Profiled(bench.table(leave_out), precisions, bench.usual_probe_ms(), off, leave_out and off > 0)


def extend(
    table: LatencyTable,
    space: Space,
    runtime: Runtime,
    rows: Rows,
    plan: Plan | None = None,
    *,
    steadiness: Steadiness | None = None,
) -> LatencyTable:
    """Adds the networks of rows (n, decisions) to a table measured before, for predictors to learn from.

    Where the machine runs at another speed now, the anchors bring what is measured to the table's.

    Raises:
        NoisyMeasurementError: The machine is too busy for a figure to repeat.
    """
    if not len(rows):
        return table
    bench = _Bench(space, runtime, plan or Plan(), table, steadiness or Steadiness())
    for first in range(0, len(rows), CHUNK):
        bench.measure(rows[first : first + CHUNK], "fit")
    return bench.table()


def anchors(space: Space) -> Rows:
    """Networks that show the machine's speed: the reference in float32 first, then in other precisions.

    A machine's slow phases do not slow all kernels alike, so networks of several kinds must tell. Every registration
    measures them. Shape (at most ``ANCHORS``, decisions).
    """
    pairs = precision_pairs(space)
    chosen = np.linspace(len(pairs) - 1, 0, min(ANCHORS, len(pairs))).round().astype(int)
    return np.array([uniform_precision(space, *pairs[i]) for i in chosen])


def anchors_usual_ms(space: Space, table: LatencyTable) -> list[float | None]:
    """What a table says of each of the `anchors`, in milliseconds; None where it does not hold one."""
    return [table.latency_of(space.decode(row).digest, space.key) for row in anchors(space)]


def slowness(space: Space, table: LatencyTable, timings: Sequence[Timing]) -> float:
    """How much longer the `anchors` take now than the table says: the median of their ratios; 1 if it has none."""
    usual = anchors_usual_ms(space, table)
    ratios = [t.p50_ms / ms for t, ms in zip(timings, usual, strict=True) if ms]
    return median(ratios) if ratios else 1.0


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
    own = {name: t.ms for name, t in times.items()}
    for _ in times:
        nodes = sum(t.nodes for name, t in times.items() if own[name] > 0)
        extra = (sum(own.values()) - latency_ms) / nodes if nodes else 0.0
        if extra <= 1e-12:
            break
        # A node never takes less than nothing; what is cut off at zero comes off the others in the next turn.
        own = {name: max(0.0, ms - extra * times[name].nodes) if ms > 0 else 0.0 for name, ms in own.items()}
    return own


@dataclass(frozen=True, slots=True)
class _Measured:
    """A network, and the chunk that it was measured in."""

    row: Rows
    role: Role
    timing: Timing
    chunk: int


class _Bench:
    """Measures chunk after chunk, each together with the anchors, and collects the rows of a table."""

    def __init__(self, space: Space, runtime: Runtime, plan: Plan, known: LatencyTable, steadiness: Steadiness) -> None:
        self.space = space
        self.runtime = runtime
        self.plan = plan
        self.known = known
        self.steadiness = steadiness
        self.anchors = [prepare(space, row, runtime) for row in anchors(space)]
        self.anchors_ms: list[list[float]] = []
        self.probes_ms: list[float] = []
        self.kernels: dict[Operator, tuple[str, ...]] = {}
        self.times: dict[Operator, list[tuple[float, int]]] = defaultdict(list)
        self.networks: list[_Measured] = []

    def measure(self, rows: Rows, role: Role) -> tuple[list[Timing], list[Executable]]:
        """Times the networks of the rows (n, decisions), interleaved."""
        executables = [prepare(self.space, row, self.runtime) for row in rows]
        names = [f"network {self.space.decode(row).digest}" for row in (*anchors(self.space), *rows)]
        items = [e.run for e in (*self.anchors, *executables)]
        for attempt in range(ATTEMPTS):
            try:
                timings = measure(items, self.plan.protocol, names=names, steadiness=self.steadiness)
                break
            except NoisyMeasurementError:
                if attempt + 1 == ATTEMPTS:
                    raise
        own, timings = timings[: len(self.anchors)], timings[len(self.anchors) :]
        chunk = len(self.anchors_ms)
        self.networks += [_Measured(row, role, timing, chunk) for row, timing in zip(rows, timings, strict=True)]
        self.anchors_ms.append([t.p50_ms for t in own])
        self.probes_ms.append(self.steadiness.usual_ms)
        return timings, executables

    def repeat(self, role: Role) -> None:
        """Measures the networks of a role again; what was found before is kept where that fails."""
        before = self.networks
        self.networks = [n for n in before if n.role != role]
        try:
            self.measure(np.array([n.row for n in before if n.role == role]), role)
        except NoisyMeasurementError:
            self.networks = before

    def profile(
        self, rows: Rows, timings: Sequence[Timing], executables: Sequence[Executable]
    ) -> list[Mapping[str, OperatorTime]]:
        """Times the operators of the networks measured last, one by one, and returns what the profiler said."""
        said = [e.operator_times(self.plan.profiled_runs) for e in executables]
        for row, timing, times in zip(rows, timings, said, strict=True):
            self._add_operators(row, timing, times)
        return said

    def _add_operators(self, row: np.ndarray, timing: Timing, times: Mapping[str, OperatorTime]) -> None:
        """What each operator of a network of the last chunk took inside it; together, the network's latency."""
        own = own_times(times, timing.p50_ms)
        total = sum(own.values()) if any(t.nodes for t in times.values()) else 0.0
        chunk = len(self.anchors_ms) - 1
        for operator in self.space.workload_of_row(row).operators:
            if total > 0:
                self.times[operator].append((own.get(operator.name, 0.0) / total * timing.p50_ms, chunk))
            self.kernels[operator] = times[operator.name].kernels if operator.name in times else ()

    def usual_chunks(self) -> NDArray[np.int64]:
        """The chunks measured at the machine's usual speed: that of the most chunks, the fastest such."""
        measured = np.array(self.anchors_ms)
        ratios = np.median(measured[:, None] / measured, axis=2)  # of each chunk's speed to each other's
        near = np.abs(np.log(ratios)) <= np.log(TOLERANCE)
        slow = np.median(measured / np.median(measured, axis=0), axis=1)
        centre = max(range(len(measured)), key=lambda i: (near[i].sum(), -slow[i]))
        return np.flatnonzero(near[centre])

    def usual_probe_ms(self) -> float:
        """The probe's time in `usual_chunks`."""
        return float(np.median([self.probes_ms[i] for i in self.usual_chunks()]))

    def slowness(self) -> Floats:
        """How slow the machine was at each chunk, as the anchors show, shape (chunks,).

        An anchor's usual time is what the known table says of it, or the median over the `usual_chunks`.
        """
        measured = np.array(self.anchors_ms)
        typical = np.median(measured[self.usual_chunks()], axis=0)
        known = anchors_usual_ms(self.space, self.known)
        usual = [ms or float(typical[i]) for i, ms in enumerate(known)]
        return np.asarray(np.median(measured / usual, axis=1))

    def _off(self) -> NDArray[np.bool_]:
        return np.asarray(np.abs(np.log(self.slowness())) > np.log(TOLERANCE))

    def checks_off_speed(self) -> bool:
        """Whether held-out networks were measured at another speed of the machine than most."""
        off = self._off()
        return any(bool(off[n.chunk]) for n in self.networks if n.role == "check")

    def off_speed(self) -> list[bool]:
        """Of each network: whether it can be left out because the machine ran at another speed than mostly.

        The held-out networks stay, and those of the first chunk, whose operators were timed.
        """
        off = self._off()
        return [bool(off[n.chunk]) and n.role == "fit" and n.chunk > 0 for n in self.networks]

    def table(self, leave_out: bool = False) -> LatencyTable:
        """Everything measured, the machine's drift between chunks taken out.

        Args:
            leave_out: Whether to drop what was measured `off_speed`: not all networks slow down as the anchors do, and
                these come out up to 15 % too slow.
        """
        index = {row.operator: i for i, row in enumerate(self.known.operators)}
        count = Counter({row.operator: row.count for row in self.known.operators})
        slow, networks = self.slowness(), []
        for measured, off in zip(self.networks, self.off_speed(), strict=True):
            if off and leave_out:
                continue
            operators = self.space.workload_of_row(measured.row).operators
            count.update(set(operators))
            indexes = tuple(index.setdefault(o, len(index)) for o in operators)
            networks.append(self._network(measured, indexes, float(slow[measured.chunk])))
        rows = tuple(self._row(o, i, count[o], slow) for o, i in index.items())
        return LatencyTable(rows, (*self.known.networks, *networks))

    def _network(self, measured: _Measured, operators: tuple[int, ...], slowness: float) -> NetworkRow:
        candidate = self.space.decode(measured.row)
        return NetworkRow(
            digest=candidate.digest,
            space=self.space.key,
            candidate=candidate.to_json(),
            role=measured.role,
            operators=operators,
            latency_ms_p50=measured.timing.p50_ms / slowness,
            latency_ms_p90=measured.timing.p90_ms / slowness,
            spread=measured.timing.spread,
            runs=measured.timing.runs,
        )

    def _row(self, operator: Operator, index: int, count: int, slowness: Floats) -> OperatorRow:
        known = self.known.operators[index] if index < len(self.known.operators) else OperatorRow(operator)
        times = [ms / float(slowness[chunk]) for ms, chunk in self.times.get(operator, ())]
        return OperatorRow(
            operator,
            kernels=self.kernels.get(operator, known.kernels),
            latency_ms_p50=median(times) if times else known.latency_ms_p50,
            latency_ms_std=pstdev(times) if times else known.latency_ms_std,
            count=count,
            energy_mj=known.energy_mj,
        )
