"""Repeatable timing: warm-up, bursts, interleaved rounds, a spread that is checked, and refusal of noise.

As MLPerf does, each thing is run many times back to back (a burst) after a warm-up, and its median is taken. Bursts of
different things are interleaved over the session, so that a slow minute of the machine falls on all of them alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from hwnas.spaces.errors import NoisyMeasurementError
from numpy.typing import NDArray

DRIFT_WINDOW = 12
"""Bursts to either side that tell how fast the machine was at one."""

Clock = Callable[[], float]
"""Seconds from any fixed moment, such as `time.perf_counter`."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """How to measure.

    Attributes:
        rounds: Bursts per item, interleaved with those of the other items.
        burst_s: Seconds per burst.
        min_runs: Runs per burst at least.
        warmup_runs: Runs before each burst that are not timed.
        max_spread: Largest accepted spread (see `Timing.spread`).
        retries: How often a noisy item gets another set of rounds before it is refused.
    """

    rounds: int = 5
    burst_s: float = 0.02
    min_runs: int = 5
    warmup_runs: int = 3
    max_spread: float = 0.10
    retries: int = 2


@dataclass(frozen=True, slots=True)
class Timing:
    """What was measured of one item.

    Attributes:
        p50_ms: Median over rounds of the median of a burst, drift taken out.
        p90_ms: 90th percentile over all runs, drift taken out.
        spread: Half the interquartile range of the rounds' medians, relative to ``p50_ms``.
        runs: Timed runs in all.
    """

    p50_ms: float
    p90_ms: float
    spread: float
    runs: int


def burst(run: Callable[[], object], protocol: Protocol, clock: Clock = time.perf_counter) -> list[float]:
    """Seconds of each run of one burst, after a warm-up."""
    for _ in range(protocol.warmup_runs):
        run()
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
    clock: Clock = time.perf_counter,
    names: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> list[Timing]:
    """Times all items, interleaved, and takes the machine's slow drift out of the figures.

    Args:
        items: Each runs once, and returns when it has finished.
        protocol: How to measure.
        clock: Injectable for tests.
        names: What to call the items in an error.
        progress: Called with the number of bursts done and planned.

    Raises:
        NoisyMeasurementError: An item that does not repeat within ``protocol.max_spread``, even after retries.
    """
    protocol = protocol or Protocol()
    log = _Log(len(items))
    pending = list(range(len(items)))
    for attempt in range(1 + protocol.retries):
        for turn in range(protocol.rounds):
            for position, i in enumerate(pending):
                log.add(i, burst(items[i], protocol, clock))
                if progress and not attempt:
                    progress(turn * len(items) + position + 1, protocol.rounds * len(items))
        timings = log.summarise()
        pending = [i for i, timing in enumerate(timings) if timing.spread > protocol.max_spread]
        if not pending:
            return timings
    worst = max(pending, key=lambda i: timings[i].spread)
    name = names[worst] if names else f"item {worst}"
    raise NoisyMeasurementError(
        f"{name} does not repeat: its medians still spread by ±{timings[worst].spread:.0%} after {len(log.of(worst))} "
        f"rounds (accepted: ±{protocol.max_spread:.0%}). Close other programs, fix the processor's frequency, and "
        "measure again"
    )


class _Log:
    """Bursts in the order of time."""

    def __init__(self, items: int) -> None:
        self.items = items
        self.owner: list[int] = []
        self.medians: list[float] = []
        self.runs: list[NDArray[np.float64]] = []

    def add(self, item: int, seconds: list[float]) -> None:
        self.owner.append(item)
        self.medians.append(median(seconds) * 1e3)
        self.runs.append(np.asarray(seconds) * 1e3)

    def of(self, item: int) -> list[int]:
        return [k for k, owner in enumerate(self.owner) if owner == item]

    def summarise(self) -> list[Timing]:
        medians = np.array(self.medians)
        speed = drift(np.array(self.owner), medians)
        result = []
        for item in range(self.items):
            own = self.of(item)
            corrected = medians[own] / speed[own]
            p50 = float(np.median(corrected))
            low, high = np.quantile(corrected, (0.25, 0.75))
            runs = np.concatenate([self.runs[k] / speed[k] for k in own])
            result.append(Timing(p50, float(np.quantile(runs, 0.9)), float(high - low) / 2 / p50, len(runs)))
        return result


def drift(owner: NDArray[np.int64], medians: NDArray[np.float64]) -> NDArray[np.float64]:
    """How slow the machine was at each burst, relative to its usual speed.

    A running median, over neighbours in time, of each burst relative to its own item's median: what slows all items
    alike is the machine's, not the item's. Needs several items; with fewer than four nothing can be told apart.

    Args:
        owner: The item of each burst in the order of time, shape (bursts,).
        medians: The median of each burst, shape (bursts,).
    """
    speed = np.ones(len(medians))
    if len(set(owner.tolist())) < 4:
        return speed
    for _ in range(3):
        corrected = medians / speed
        usual = {item: np.median(corrected[owner == item]) for item in set(owner.tolist())}
        relative = medians / np.array([usual[item] for item in owner.tolist()])
        padded = np.pad(relative, DRIFT_WINDOW, mode="edge")
        speed = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * DRIFT_WINDOW + 1), axis=1)
    return speed
