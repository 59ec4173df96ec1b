"""Repeatable timing: warm-up, bursts, interleaved rounds, a spread that is checked, and refusal of noise.

As MLPerf does, each thing is run many times back to back (a burst) after a warm-up, and its median is taken. Bursts are
short, and those of different things are interleaved over the session. Bursts during which the machine ran at another
speed are measured again (`hwnas.latency_tables.steadiness`): all timings of one call are of one speed. What other
programs, or other guests of a host, take within one speed adds to some bursts, and not to all things alike; so a low
quantile of the bursts' medians is what the machine takes undisturbed. It has two biases. A processor that is a little
faster for moments shows at its faster. And the fewer runs fill a burst, the more its median varies, and the lower the
quantile: where single runs vary by 1 %, by 0.6 % for bursts of three runs against 0.2 % for thirty.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from hwnas.latency_tables.steadiness import Steadiness, same_speed
from hwnas.spaces.errors import NoisyMeasurementError

UNDISTURBED = 0.1
"""The quantile of the bursts' medians that counts: the second least where they are few, as the least may be a fluke."""
SPEEDS = 50
"""Speeds of the machine that are considered, evenly among those that the probes show."""

Clock = Callable[[], float]
"""Seconds from any fixed moment, such as `time.perf_counter`."""


@dataclass(frozen=True)
class Protocol:
    """How to measure.

    Attributes:
        rounds: Bursts per item, interleaved with those of the other items.
        burst_s: Seconds per burst.
        min_runs: Runs per burst at least.
        warmup_runs: Runs before each burst that are not timed; fewer where they take longer than ``burst_s``.
        max_spread: Largest accepted spread (see `Timing.spread`).
        patience: An item gets at most this many times ``rounds`` bursts before it is refused.
        max_wait_s: Seconds to wait for the machine to run at its usual speed, in all calls with one `Steadiness`; after
            them, or where an item still lacks bursts after half of the patience, the speed at which it ran most is
            taken. A better speed than the usual one, at which all items repeat, is taken at once.
    """

    rounds: int = 16
    burst_s: float = 0.003
    min_runs: int = 3
    warmup_runs: int = 3
    max_spread: float = 0.10
    patience: int = 4
    max_wait_s: float = 20.0


@dataclass(frozen=True)
class Timing:
    """What was measured of one item.

    Attributes:
        p50_ms: Of the median of a burst, the `UNDISTURBED` quantile over bursts.
        p90_ms: Median over bursts of the 90th percentile of a burst: disturbances count here.
        spread: How far the faster half of the bursts' medians disagree: half their range, relative to ``p50_ms``.
        runs: Timed runs in all.
    """

    p50_ms: float
    p90_ms: float
    spread: float
    runs: int


def burst(run: Callable[[], object], protocol: Protocol, clock: Clock = time.perf_counter) -> list[float]:
    """Seconds of each run of one burst, after a warm-up."""
    warm = clock() + protocol.burst_s
    for _ in range(protocol.warmup_runs):
        run()
        if clock() >= warm:
            break
    times: list[float] = []
    end = clock() + protocol.burst_s
    while True:
        start = clock()
        run()
        stop = clock()
        times.append(stop - start)
        if stop >= end and len(times) >= protocol.min_runs:
            return times


def measure(
    items: Sequence[Callable[[], object]],
    protocol: Protocol | None = None,
    *,
    names: Sequence[str] = (),
    steadiness: Steadiness | None = None,
    clock: Clock = time.perf_counter,
) -> list[Timing]:
    """Times all items, interleaved, at one speed of the machine: its usual one, if that returns in time.

    Args:
        items: Each runs once, and returns when it has finished.
        protocol: How to measure.
        names: What to call the items in an error.
        steadiness: What is known of the machine's usual speed; it learns from every call.
        clock: Injectable for tests.

    Raises:
        NoisyMeasurementError: An item that does not repeat within ``protocol.max_spread``, or a machine that keeps no
            speed.
    """
    protocol = protocol or Protocol()
    steadiness = steadiness or Steadiness()
    log = _Log(len(items))
    everything = pending = list(range(len(items)))
    turns = protocol.rounds * protocol.patience
    in_vain = False
    for turn in range(turns):
        before = steadiness.probe()
        for i in everything if in_vain else pending:
            if not in_vain and not steadiness.steady(before):
                before = steadiness.wait(protocol.max_wait_s)
            seconds = burst(items[i], protocol, clock)
            after = steadiness.probe()
            log.add(i, seconds, (before, after))
            before = after
        if turn + 1 < protocol.rounds:
            continue
        usual = steadiness.usual_ms
        pending = log.lacking(usual, protocol)
        half = turn + 1 >= turns // 2 and any(log.steady_count(i) < protocol.rounds for i in pending)
        in_vain = half or steadiness.waited_s >= protocol.max_wait_s
        if pending:
            speed = log.common_speed(protocol)
            if (in_vain or speed < usual) and not log.lacking(speed, protocol):
                steadiness.settle(speed)
                pending = []
            else:
                pending = log.lacking(speed if in_vain else usual, protocol)
        if not pending:
            return log.summarise()
    raise NoisyMeasurementError(_refusal(log, pending, protocol, names))


def _refusal(log: _Log, pending: Sequence[int], protocol: Protocol, names: Sequence[str]) -> str:
    worst = max(pending, key=log.spread)
    name = names[worst] if names else f"item {worst}"
    advice = "Close other programs, fix the processor's frequency, and measure again"
    if log.steady_count(worst) < protocol.rounds:
        return (
            f"{name} cannot be measured: the machine changes its speed, and kept one during only "
            f"{log.steady_count(worst)} of {log.count(worst)} bursts. {advice}"
        )
    return (
        f"{name} does not repeat: the faster half of its bursts still differs by ±{log.spread(worst):.0%} after "
        f"{log.count(worst)} rounds (accepted: ±{protocol.max_spread:.0%}). {advice}"
    )


class _Log:
    """Bursts in the order of time."""

    def __init__(self, items: int) -> None:
        self.items = items
        self.owner: list[int] = []
        self.medians: list[float] = []
        self.probes: list[tuple[float, float]] = []
        self.runs: list[NDArray[np.float64]] = []
        self.kept: list[int] = []

    def add(self, item: int, seconds: list[float], probes_ms: tuple[float, float]) -> None:
        self.owner.append(item)
        self.medians.append(median(seconds) * 1e3)
        self.probes.append(probes_ms)
        self.runs.append(np.asarray(seconds) * 1e3)

    def lacking(self, speed_ms: float, protocol: Protocol) -> list[int]:
        """The items to measure again where only bursts between two probes of one speed are kept."""
        self.kept = np.flatnonzero(self._at(speed_ms)).tolist()
        own: list[list[float]] = [[] for _ in range(self.items)]
        for k in self.kept:
            own[self.owner[k]].append(self.medians[k])
        return [i for i, m in enumerate(own) if len(m) < protocol.rounds or _spread(m) > protocol.max_spread]

    def common_speed(self, protocol: Protocol) -> float:
        """The speed, as a probe's time, at which items lack the fewest bursts.

        Among several, that at which the fewest items do not repeat; among these, that of the most bursts.
        """
        owner = np.array(self.owner)
        speeds = np.unique(np.quantile(self.probes, np.linspace(0, 1, SPEEDS), method="lower"))
        counts = [np.bincount(owner[self._at(speed)], minlength=self.items) for speed in speeds]
        missing = [int(np.maximum(0, protocol.rounds - count).sum()) for count in counts]
        best = [i for i, m in enumerate(missing) if m == min(missing)]

        def rank(i: int) -> tuple[int, int]:
            return len(self.lacking(speeds[i], protocol)), -int(counts[i].sum())

        return float(speeds[min(best, key=rank)])

    def count(self, item: int) -> int:
        return self.owner.count(item)

    def steady_count(self, item: int) -> int:
        return sum(self.owner[k] == item for k in self.kept)

    def spread(self, item: int) -> float:
        return _spread([self.medians[k] for k in self.kept if self.owner[k] == item])

    def _at(self, speed_ms: float) -> NDArray[np.bool_]:
        before, after = np.array(self.probes).T
        return same_speed(before, speed_ms) & same_speed(after, speed_ms)

    def summarise(self) -> list[Timing]:
        own: list[list[int]] = [[] for _ in range(self.items)]
        for k in self.kept:
            own[self.owner[k]].append(k)
        return [self._timing(kept) for kept in own]

    def _timing(self, kept: Sequence[int]) -> Timing:
        medians = [self.medians[k] for k in kept]
        p90 = np.median([np.quantile(self.runs[k], 0.9) for k in kept])
        p50 = _undisturbed(medians)
        return Timing(float(p50), float(p90), _spread(medians), sum(len(self.runs[k]) for k in kept))


def _spread(medians: Sequence[float]) -> float:
    if not len(medians):
        return float("inf")
    return float((np.median(medians) - min(medians)) / 2 / _undisturbed(medians))


def _undisturbed(medians: Sequence[float]) -> float:
    second = 1 / max(2, len(medians) - 1)
    return float(np.quantile(medians, max(UNDISTURBED, second)))
