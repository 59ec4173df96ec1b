"""Measuring windows: a network runs back to back for a second or more while a meter counts.

Windows of different networks are interleaved over several rounds, each of which begins with an idle window. Idle power
is subtracted, so that the figure is what an inference adds to a machine that is switched on anyway. A meter that counts
in steps (NVML about every 20 to 100 ms) is read where it steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hwnas.spaces.errors import NoisyMeasurementError

if TYPE_CHECKING:
    from hwnas.latency_tables.energy.meters import Meter

Clock = Callable[[], float]
IDLE = -1
"""The item of an idle window."""
TICK_S = 0.2
"""A counter that has not moved for this long does not count in steps that matter."""


@dataclass(frozen=True)
class EnergyProtocol:
    """How to measure energy.

    Attributes:
        rounds: Windows of each network.
        window_s: Least length of a window; the published advice for on-board meters is a second or more.
        settle_s: Pause before an idle window, in which clocks and fans come down.
        max_spread: Largest accepted spread (see `Energy.spread`).
    """

    rounds: int = 3
    window_s: float = 1.0
    settle_s: float = 1.0
    max_spread: float = 0.15


@dataclass(frozen=True)
class Window:
    """One stretch of time in which one thing ran.

    Attributes:
        item: Index of the network, or `IDLE`.
        start_s, end_s: Seconds since 1970, by this machine's clock.
        runs: Inferences in it.
        joules: What the meter counted, or None where it is read later (see `hwnas.latency_tables.energy.power_log`).
    """

    item: int
    start_s: float
    end_s: float
    runs: int
    joules: float | None = None

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end_s - self.start_s


@dataclass(frozen=True)
class Energy:
    """Energy of one inference.

    Attributes:
        mj: Millijoules above idle: the median over the windows.
        spread: Half the range between the least and the largest window, relative to ``mj``.
        idle_watts: Power when nothing runs, which was subtracted.
    """

    mj: float
    spread: float
    idle_watts: float


def spread_over(latencies_ms: Sequence[float], count: int) -> list[int]:
    """Which of some networks to measure, ``count`` at most: evenly over their latencies."""
    order = sorted(range(len(latencies_ms)), key=lambda i: latencies_ms[i])
    picks = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    return [order[i] for i in dict.fromkeys(picks.tolist())]


def measure_windows(
    items: Sequence[Callable[[], object]],
    meter: Meter | None,
    protocol: EnergyProtocol | None = None,
    *,
    progress: Callable[[str, float], None] | None = None,
    clock: Clock = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Window]:
    """Runs every item in windows of its own, interleaved, after an idle window in every round.

    Args:
        items: Each runs once, and returns when it has finished.
        meter: Counts meanwhile; None for a meter of its own clock, whose log is read later.
        protocol: How to measure.
        progress: Called with what is being done, and the share that is done.
        clock, sleep: Injectable for tests.
    """
    protocol = protocol or EnergyProtocol()
    pause = min(0.01, protocol.window_s / 10)
    windows: list[Window] = []
    for turn in range(protocol.rounds):
        sleep(protocol.settle_s)
        windows.append(_window(IDLE, lambda: sleep(pause), meter, protocol.window_s, clock))
        for i, item in enumerate(items):
            if progress:
                share = (turn + i / len(items)) / protocol.rounds
                progress(f"measuring energy, round {turn + 1} of {protocol.rounds}", share)
            item()
            windows.append(_window(i, item, meter, protocol.window_s, clock))
    return windows


def _window(item: int, run: Callable[[], object], meter: Meter | None, seconds: float, clock: Clock) -> Window:
    if meter is None:
        start = clock()
        runs = 0
        while clock() < start + seconds:
            run()
            runs += 1
        return Window(item, start, clock(), runs)
    before, start, _ = _step(run, meter, clock)
    runs = 0
    while clock() < start + seconds:
        run()
        runs += 1
    after, end, more = _step(run, meter, clock)
    return Window(item, start, end, runs + more, after - before)


def _step(run: Callable[[], object], meter: Meter, clock: Clock) -> tuple[float, float, int]:
    """Runs until the counter moves: its new value, when that was seen, and the runs meanwhile."""
    start = clock()
    first = meter.joules()
    runs = 0
    while True:
        run()
        runs += 1
        value, now = meter.joules(), clock()
        if value != first or now > start + TICK_S:
            return value, now, runs


def energies(windows: Sequence[Window], items: int, protocol: EnergyProtocol | None = None) -> list[Energy]:
    """Energy of one inference of each item, idle power subtracted.

    Raises:
        NoisyMeasurementError: Windows without a reading, an item that draws no more than an idle machine in any of its
            windows, or one whose windows disagree.
    """
    protocol = protocol or EnergyProtocol()
    if any(w.joules is None for w in windows):
        raise NoisyMeasurementError("some windows have no reading; give the power log that covers them")
    idle = [w.joules / w.seconds for w in windows if w.item == IDLE and w.joules is not None]
    if not idle:
        raise NoisyMeasurementError("no idle window was measured, so there is no idle power to subtract")
    idle_watts = float(np.median(idle))
    result = []
    for item in range(items):
        own = [(w, w.joules) for w in windows if w.item == item and w.joules is not None]
        if not own:
            raise NoisyMeasurementError(f"network {item} has no window")
        watts = float(np.median([joules / w.seconds for w, joules in own]))
        if watts <= (1 + 1e-6) * max(idle):  # equal but for rounding
            raise NoisyMeasurementError(
                f"network {item} draws no more power ({watts:.2f} W) than the idle machine (up to {max(idle):.2f} W): "
                "the meter does not see it, or something else was running during the idle windows"
            )
        mj = np.array([(joules - idle_watts * w.seconds) / w.runs * 1e3 for w, joules in own])
        middle = float(np.median(mj))
        spread = float((mj.max() - mj.min()) / 2 / middle)
        if spread > protocol.max_spread:
            raise NoisyMeasurementError(
                f"the energy of network {item} does not repeat: its {len(mj)} windows spread by ±{spread:.0%} "
                f"(accepted: ±{protocol.max_spread:.0%}). Close other programs, or measure with longer windows"
            )
        result.append(Energy(middle, spread, idle_watts))
    return result
