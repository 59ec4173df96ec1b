"""A machine whose clock moves only when it works or sleeps, and whose power is planted."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from hwnas.latency_tables.energy.power_log import PowerLog

START_S = 1_000_000.0
"""In January 1970, when microseconds still fit into a float."""


class PoweredMachine:
    """Draws ``idle_watts``, and while an item runs what is planted for it.

    Args:
        idle_watts: When nothing runs.
        tick_s: The meter counts what was drawn up to the last multiple of this; 0 for a meter without steps.
    """

    name = "fake"
    what = "a planted power"

    def __init__(self, idle_watts: float = 5.0, tick_s: float = 0.0) -> None:
        self.idle_watts = idle_watts
        self.tick_s = tick_s
        self.now = START_S
        self.moments = [START_S]
        self.total_j = [0.0]

    def clock(self) -> float:
        return self.now

    def draw(self, watts: float, seconds: float) -> None:
        self.now += seconds
        self.moments.append(self.now)
        self.total_j.append(self.total_j[-1] + watts * seconds)

    def sleep(self, seconds: float) -> None:
        self.draw(self.idle_watts, seconds)

    def item(self, ms: float, mj: float, factor: Callable[[float], float] = lambda _: 1.0) -> Callable[[], None]:
        """Runs for ``ms`` milliseconds, and takes ``mj`` millijoules more than an idle machine, times ``factor``."""
        return lambda: self.draw(self.idle_watts + mj / ms * factor(self.now), ms / 1e3)

    def joules(self) -> float:
        """Like a meter, which shows the past where it counts in steps."""
        if not self.tick_s:
            return 1e6 + self.total_j[-1]
        seen = math.floor((self.now - START_S) / self.tick_s) * self.tick_s + START_S
        return 1e6 + float(np.interp(seen, self.moments, self.total_j))

    def log(self, hz: float, offset_s: float = 0.0, spare_s: float = 8.0) -> PowerLog:
        """What an external meter logs, whose clock is ``offset_s`` ahead: the mean power of each period."""
        times = np.arange(START_S - spare_s, self.now + spare_s, 1 / hz)
        moments = np.array([START_S - 2 * spare_s, *self.moments, self.now + 2 * spare_s])
        total = np.array(
            [-2 * spare_s * self.idle_watts, *self.total_j, self.total_j[-1] + 2 * spare_s * self.idle_watts]
        )
        around = np.interp(times + 0.5 / hz, moments, total) - np.interp(times - 0.5 / hz, moments, total)
        return PowerLog(times + offset_s, around * hz)
