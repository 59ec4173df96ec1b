"""Measures networks of a space on this machine: whole, and operator by operator inside them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np
import torch

from hwnas.latency_tables.chunks import Chunk, measure_chunk
from hwnas.latency_tables.journal import Asked, Journal
from hwnas.latency_tables.plan import anchors, precision_pairs, sample_networks, uniform_precision
from hwnas.latency_tables.records import Profiled, Records
from hwnas.latency_tables.runtimes import Executable, OperatorTime, Runtime
from hwnas.latency_tables.steadiness import Steadiness
from hwnas.latency_tables.table import LEAST_TIMED_MS, LatencyTable, Role
from hwnas.latency_tables.timing import Protocol, Timing
from hwnas.spaces.errors import NoisyMeasurementError
from hwnas.spaces.network import Network
from hwnas.spaces.space import Rows, Space

Progress = Callable[[str, float], None]
"""Called with what is being done and the share of the whole that is done."""

CHUNK = 48
"""Networks to learn from that are interleaved at a time, beside a share of the held-out ones, and the anchors."""
MEMORY_NETWORKS = 96
"""Where operators are not timed one by one, so many networks to learn from tell of their memory, a few runs each."""
PROFILE_ATTEMPTS = 4
LEAST_RUNS, PROFILED_MS = 5, 150.0
"""Inferences of a network whose operators are timed, at least, and the time for them."""
LEAST_CHECKS = 2
"""Held-out networks without which a registration fails."""
OVERTIME = 1.3
"""Up to so many times the planned time is spent to have enough networks of one speed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure.

    Attributes:
        seconds: Time to spend; longer where it is too little for ``min_networks``, and up to `OVERTIME` times as long
            where too few of them were measured at one speed of the machine.
        min_networks: Networks to learn from at least, unless the machine is so disturbed that chunks must be left out.
        checks: Uniformly drawn networks that predictors never learn from.
        profiled_networks: So many networks have their operators timed one by one too, with the runtime's profiler, if
            these take long enough (see `LEAST_TIMED_MS`); the reference in every precision is always among them.
        profiled_runs: Inferences of each of them; fewer of slow ones.
        max_networks: Networks to learn from at most.
        protocol: How to time.
    """

    seconds: float = 75.0
    checks: int = 40
    profiled_networks: int = 240
    profiled_runs: int = 30
    min_networks: int = 120
    max_networks: int = 360
    protocol: Protocol = field(default_factory=Protocol)


def profile_space(
    space: Space,
    runtime: Runtime,
    rng: np.random.Generator,
    plan: Plan | None = None,
    *,
    known: LatencyTable | None = None,
    steadiness: Steadiness | None = None,
    journal: Journal | None = None,
    progress: Progress | None = None,
) -> Profiled:
    """Measures networks of ``space`` until the plan's time is up, and adds them to what is ``known``.

    First the reference network in every precision, then the rest, chunk by chunk, each with its share of the checks:
    a chunk that comes out a little slow or fast does not shift them all. Checks that turn out to have been measured at
    another speed than most networks are measured again.

    What the journal holds of earlier sessions is not measured again, wherever the same space, random numbers and plan
    ask for the same networks in the same order; the plan's seconds may be others.

    Raises:
        NoisyMeasurementError: The machine is too busy for a figure to repeat.
    """
    plan = plan or Plan()
    report = progress or (lambda *_: None)
    bench = _Bench(space, runtime, plan, known or LatencyTable(), steadiness or Steadiness(), journal or Journal())
    report("measuring precisions", 0.0)
    uniform = np.array([uniform_precision(space, w, a) for w, a in precision_pairs(space)])
    timings, executables = bench.measure(uniform)
    records = bench.records
    times = bench.profile(uniform, timings, executables)
    measured = len(uniform)
    sizes = [len(space.workload_of_row(row).operators) for row in uniform]
    typical_ms = median(t.p50_ms / n for t, n in zip(timings, sizes, strict=True))
    speeds = [1 / t.p50_ms for t in timings]
    checks = space.sample(rng, plan.checks)
    networks = sample_networks(space, rng, plan.max_networks - measured, speeds)
    share = math.ceil(plan.checks / max(1, math.ceil((plan.min_networks - measured) / CHUNK)))
    for first in range(0, len(networks), CHUNK):
        rows = networks[first : first + CHUNK]
        # What was measured before counts, however little time there is now.
        elapsed = 0.0 if bench.knows(rows, checks[:share]) else bench.journal.spent_s
        enough = measured if elapsed > OVERTIME * plan.seconds else measured - sum(records.off_speed())
        if elapsed > plan.seconds and enough >= plan.min_networks:
            break
        before = f", {min(measured, bench.journal.earlier)} of them before" if bench.journal.earlier else ""
        report(f"measuring networks ({measured} done{before})", min(1.0, elapsed / max(plan.seconds, 1e-9)))
        try:
            timings, executables = bench.measure(rows, checks[:share])
            checks = checks[share:]
            if measured < plan.profiled_networks and typical_ms >= LEAST_TIMED_MS:
                bench.profile(rows, timings[: len(rows)], executables[: len(rows)])
            elif measured < MEMORY_NETWORKS:
                bench.weigh(rows, executables[: len(rows)])
            measured += len(rows)
        except NoisyMeasurementError:
            # These networks are left out; others will do, or in the end those that there are. The checks wait.
            checks = np.roll(checks, -share, axis=0)
            if elapsed > 2 * plan.seconds:
                if measured < plan.min_networks / 2:
                    raise
                break
    if len(checks):
        report("measuring held-out networks", 1.0)
        bench.measure_last_checks(checks)
    if len(again := records.checks_off_speed()):
        report("measuring held-out networks again", 1.0)
        bench.repeat_checks(again)
    found = records.conclude(runtime, times, plan.min_networks)
    fate = "left out: " if found.left_out else ""
    also = f", {found.off_speed} of them {fate}at another speed of the machine" if found.off_speed else ""
    report(f"measured {measured} networks{also}", 1.0)
    return found


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
    bench = _Bench(space, runtime, plan or Plan(), table, steadiness or Steadiness(), Journal())
    for first in range(0, len(rows), CHUNK):
        bench.measure(rows[first : first + CHUNK])
    return bench.records.table()


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


class _Bench:
    """Measures chunk after chunk of a space, each together with the anchors, as far as the journal does not know it."""

    def __init__(
        self,
        space: Space,
        runtime: Runtime,
        plan: Plan,
        known: LatencyTable,
        steadiness: Steadiness,
        journal: Journal,
    ) -> None:
        self.space = space
        self.runtime = runtime
        self.plan = plan
        self.steadiness = steadiness
        self.journal = journal
        self.records = Records(space, known)
        self.anchors = [prepare(space, row, runtime) for row in anchors(space)]

    def knows(self, rows: Rows, checks: Rows) -> bool:
        """Whether the journal goes on with these networks."""
        return self.journal.knows(self._asked(rows, checks))

    def measure(self, rows: Rows, checks: Rows | None = None) -> tuple[Sequence[Timing], list[Executable]]:
        """Times networks to learn from, and to check on, interleaved: rows (n, decisions), one after the other.

        There are no executables of what the journal knows.
        """
        held_out = rows[:0] if checks is None else checks
        everything, asked = np.concatenate([rows, held_out]), self._asked(rows, held_out)
        executables: list[Executable] = []
        chunk = self.journal.replay(asked)
        if chunk is None:
            executables = [prepare(self.space, row, self.runtime) for row in everything]
            chunk = self._measure(asked, executables)
        else:
            self.steadiness.recall(chunk.probe_ms)
        self.records.add(everything, asked.roles, chunk)
        self.weigh(held_out, executables[len(rows) :])
        return chunk.timings, executables

    def _measure(self, asked: Asked, executables: Sequence[Executable]) -> Chunk:
        try:
            chunk = measure_chunk(
                [e.run for e in self.anchors],
                [e.run for e in executables],
                self.plan.protocol,
                names=[f"network {digest}" for digest in (*asked.anchors, *asked.networks)],
                steadiness=self.steadiness,
            )
        except NoisyMeasurementError:
            self.journal.add(asked, None)
            raise
        self.journal.add(asked, chunk)
        return chunk

    def _asked(self, rows: Rows, checks: Rows) -> Asked:
        of_anchors, learnt, held_out = (
            tuple(self.space.decode(row).digest for row in own) for own in (anchors(self.space), rows, checks)
        )
        networks = learnt + held_out
        roles: list[Role] = ["fit" if i < len(learnt) else "check" for i in range(len(networks))]
        return Asked(anchors=of_anchors, networks=networks, roles=tuple(roles))

    def measure_last_checks(self, rows: Rows) -> None:
        """Measures held-out networks (n, decisions); where they do not repeat, others that were measured will do."""
        try:
            self.measure(rows[:0], rows)
        except NoisyMeasurementError:
            if sum(n.role == "check" for n in self.records.networks) < LEAST_CHECKS:
                raise

    def repeat_checks(self, rows: Rows) -> None:
        """Measures held-out networks (n, decisions) again; what was found before is kept where that fails."""
        before = self.records.networks
        again = {row.tobytes() for row in rows}
        self.records.networks = [n for n in before if n.role == "fit" or n.row.tobytes() not in again]
        try:
            self.measure(rows[:0], rows)
        except NoisyMeasurementError:
            self.records.networks = before

    def profile(
        self, rows: Rows, timings: Sequence[Timing], executables: Sequence[Executable]
    ) -> Sequence[Mapping[str, OperatorTime]]:
        """Times the operators of the networks measured last, one by one, and returns what the profiler said."""
        said = self.journal.replay_operators()
        if said is None:
            ready = executables or [prepare(self.space, row, self.runtime) for row in rows]
            said = [self._operator_times(e, self._runs(t)) for e, t in zip(ready, timings, strict=True)]
            self.journal.add_operators(said)
        for row, timing, times in zip(rows, timings, said, strict=True):
            self.records.add_operators(row, timing, times)
        self.weigh(rows, executables)
        return said

    def _operator_times(self, executable: Executable, runs: int) -> Mapping[str, OperatorTime]:
        """What the profiler says while the machine is steady, or in the steadiest of a few attempts."""
        steadiest, said = math.inf, {}
        before = self.steadiness.probe()
        for _ in range(PROFILE_ATTEMPTS):
            times = executable.operator_times(runs)
            after = self.steadiness.probe()
            if max(before, after) < steadiest:
                steadiest, said = max(before, after), dict(times)
            if self.steadiness.steady(steadiest):
                break
            before = after
        return said

    def _runs(self, timing: Timing) -> int:
        """Slow networks need fewer: their operators take many of the microseconds that profilers count in."""
        return max(LEAST_RUNS, min(self.plan.profiled_runs, round(PROFILED_MS / timing.p50_ms)))

    def weigh(self, rows: Rows, executables: Sequence[Executable]) -> None:
        """Notes what the networks allocate; those that were profiled know it already.

        Nothing is known of networks that were taken from the journal, which have no executables.
        """
        for row, executable in zip(rows, executables, strict=False):
            self.records.add_memory(row, executable.peak_memory_bytes())
