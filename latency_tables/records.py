"""Measured networks, chunk after chunk, and the table that they make: the same for this machine and for kits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, pstdev

import numpy as np
from numpy.typing import NDArray

from hwnas.latency_tables.chunks import Chunk, chunk_slowness, off_speed, usual_chunks
from hwnas.latency_tables.device import Precision
from hwnas.latency_tables.plan import anchors
from hwnas.latency_tables.precisions import find_precisions
from hwnas.latency_tables.runtimes import OperatorTime, Runtime
from hwnas.latency_tables.table import LatencyTable, NetworkRow, OperatorRow, Role
from hwnas.latency_tables.timing import Timing
from hwnas.spaces.operator import Operator
from hwnas.spaces.space import Rows, Space


@dataclass(frozen=True, slots=True)
class Profiled:
    """What is known once a space has been measured.

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
class Measured:
    """A network, and the chunk that it was measured in."""

    row: Rows
    role: Role
    timing: Timing
    chunk: int


class Records:
    """Collects the chunks measured of a space.

    Args:
        space: The space.
        known: What was measured before, to which this adds.
    """

    def __init__(self, space: Space, known: LatencyTable) -> None:
        self.space = space
        self.known = known
        self.chunks: list[Chunk] = []
        self.networks: list[Measured] = []
        self.kernels: dict[Operator, tuple[str, ...]] = {}
        self.times: dict[Operator, list[tuple[float, int]]] = defaultdict(list)
        self.memory: dict[bytes, int | None] = {}

    def add(self, rows: Rows, roles: Sequence[Role], chunk: Chunk) -> None:
        """Adds a chunk of the networks of rows (n, decisions), each with its role."""
        index = len(self.chunks)
        self.chunks.append(chunk)
        self.networks += [Measured(*own, index) for own in zip(rows, roles, chunk.timings, strict=True)]

    def add_operators(self, row: Rows, timing: Timing, times: Mapping[str, OperatorTime]) -> None:
        """What each operator of a network (decisions,) of the last chunk took inside it; together, its latency."""
        own = own_times(times, timing.p50_ms)
        total = sum(own.values()) if any(t.nodes for t in times.values()) else 0.0
        for operator in self.space.workload_of_row(row).operators:
            if total > 0:
                share = own.get(operator.name, 0.0) / total
                self.times[operator].append((share * timing.p50_ms, len(self.chunks) - 1))
            self.kernels[operator] = times[operator.name].kernels if operator.name in times else ()

    def add_memory(self, row: Rows, peak_memory_bytes: int | None) -> None:
        """What a network (decisions,) had allocated at its peak, where that is known."""
        self.memory[row.tobytes()] = peak_memory_bytes

    def conclude(self, runtime: Runtime, times: Sequence[Mapping[str, OperatorTime]], min_networks: int) -> Profiled:
        """Everything that was measured; networks `off_speed` are left out where ``min_networks`` remain without them.

        Args:
            runtime: Knows its kernels.
            times: Of the operators of each network of the first chunk: the reference network in every precision.
            min_networks: Networks to learn from at least.
        """
        off = sum(self.off_speed())
        leave_out = sum(n.role == "fit" for n in self.networks) - off >= min_networks
        first = [n for n in self.networks if n.chunk == 0]
        rows = np.array([n.row for n in first])
        precisions = find_precisions(self.space, runtime, rows, [n.timing for n in first], times)
        return Profiled(self.table(leave_out), precisions, self.usual_probe_ms(), off, leave_out and off > 0)

    def usual_probe_ms(self) -> float:
        """The probe's time in `usual_chunks`."""
        return float(np.median([self.chunks[i].probe_ms for i in usual_chunks(self._anchors_ms())]))

    def slowness(self) -> NDArray[np.float64]:
        """How slow the machine was at each chunk, relative to the known table where it has the anchors; (chunks,)."""
        return chunk_slowness(self._anchors_ms(), anchors_usual_ms(self.space, self.known))

    def checks_off_speed(self) -> Rows:
        """The held-out networks measured at another speed of the machine than most, shape (n, decisions)."""
        off = off_speed(self.slowness())
        rows = [n.row for n in self.networks if n.role == "check" and off[n.chunk]]
        return np.array(rows).reshape(len(rows), len(self.space.decisions))

    def off_speed(self) -> list[bool]:
        """Of each network: whether it can be left out because the machine ran at another speed than mostly.

        The held-out networks stay, and those of the first chunk, which tell what the device does with precisions.
        """
        off = off_speed(self.slowness())
        return [bool(off[n.chunk]) and n.role == "fit" and n.chunk > 0 for n in self.networks]

    def table(self, leave_out: bool = False) -> LatencyTable:
        """Everything measured, the machine's drift between chunks taken out.

        Args:
            leave_out: Whether to drop what was measured `off_speed`: not all networks slow down as the anchors do, and
                these come out up to 15 % too slow.
        """
        index = {row.operator: i for i, row in enumerate(self.known.operators)}
        count = Counter({row.operator: row.count for row in self.known.operators})
        slow, networks, kept = self.slowness(), [], set()
        for measured, off in zip(self.networks, self.off_speed(), strict=True):
            if off and leave_out:
                continue
            kept.add(measured.chunk)
            operators = self.space.workload_of_row(measured.row).operators
            count.update(set(operators))
            indexes = tuple(index.setdefault(o, len(index)) for o in operators)
            networks.append(self._network(measured, indexes, float(slow[measured.chunk])))
        times = {o: [ms / float(slow[c]) for ms, c in own if c in kept] for o, own in self.times.items()}
        rows = tuple(self._row(o, i, count[o], times.get(o, [])) for o, i in index.items())
        return LatencyTable(rows, (*self.known.networks, *networks))

    def _anchors_ms(self) -> list[tuple[float, ...]]:
        return [c.anchors_ms for c in self.chunks]

    def _network(self, measured: Measured, operators: tuple[int, ...], slowness: float) -> NetworkRow:
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
            peak_memory_bytes=self.memory.get(measured.row.tobytes()),
        )

    def _row(self, operator: Operator, index: int, count: int, times: Sequence[float]) -> OperatorRow:
        known = self.known.operators[index] if index < len(self.known.operators) else OperatorRow(operator)
        return OperatorRow(
            operator,
            kernels=self.kernels.get(operator, known.kernels),
            latency_ms_p50=median(times) if times else known.latency_ms_p50,
            latency_ms_std=pstdev(times) if times else known.latency_ms_std,
            count=count,
            energy_mj=known.energy_mj,
        )


def anchors_usual_ms(space: Space, table: LatencyTable) -> list[float | None]:
    """What a table says of each of the `anchors`, in milliseconds; None where it does not hold one."""
    return [table.latency_of(space.decode(row).digest, space.key) for row in anchors(space)]


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
