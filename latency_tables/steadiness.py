"""Tells when the machine runs at its usual speed: other programs, other guests of its host, heat and power slow it.

On shared machines the same network takes 1.5 to 2 times as long for stretches of milliseconds to minutes. A probe, a
fixed bit of interpreter work of about 0.1 ms, is timed right before and after every burst: a burst between two probes
as fast as the machine is known to be is kept, any other is measured again later. A slow stretch does not slow all
networks alike (1.5 times one, 2 times another on the same machine), so what was measured at two speeds is never mixed:
where waiting for the usual speed has been in vain, the machine's most common speed becomes the usual one. Nothing
sleeps while it waits: a core that was idle is slow for its first milliseconds.
"""

from __future__ import annotations

import time
from bisect import insort
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TOLERANCE = 1.2
"""Probes that differ by more than this factor mean different speeds of the machine."""
JITTER = 1.02
"""A probe may be faster than the fast end of its speed by this factor."""
REPEATS = 5
FASTEST = 10
"""Probes as fast as this many show a speed that the machine really has."""


def interpreter_work() -> int:
    """About 0.1 ms of additions, the same on every call."""
    total = 0
    for i in range(3000):
        total += i
    return total


class Steadiness:
    """Remembers how fast the machine is when undisturbed.

    Args:
        usual_ms: The probe's time when undisturbed, from an earlier session on the same machine, or None.
        work: The probe; injectable for tests.
        clock: Seconds.
    """

    def __init__(
        self,
        usual_ms: float | None = None,
        *,
        work: Callable[[], object] = interpreter_work,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._work = work
        self._clock = clock
        self._known_ms = usual_ms
        self._settled_ms: float | None = None
        self._fastest: list[float] = []
        self._probes = 0
        self.waited_s = 0.0

    def probe(self) -> float:
        """Milliseconds of the probe now, the least of five."""
        value = np.inf
        for _ in range(REPEATS):
            start = self._clock()
            self._work()
            value = min(value, (self._clock() - start) * 1e3)
        self._probes += 1
        insort(self._fastest, value)
        del self._fastest[FASTEST:]
        return value

    def wait(self, limit_s: float) -> float:
        """Probes until one is steady, for ``limit_s`` seconds in all calls; the last probe, in milliseconds."""
        start = self._clock()
        end = start + limit_s - self.waited_s
        value = self.probe()
        while not self.steady(value) and self._clock() < end:
            value = self.probe()
        self.waited_s += self._clock() - start
        return value

    @property
    def usual_ms(self) -> float:
        """The probe's time at the usual speed.

        Where none was settled on, that of the undisturbed machine as far as is known: of the fastest tenth, of ten
        probes at most.
        """
        if self._settled_ms is not None:
            return self._settled_ms
        count = min(FASTEST, -(-self._probes // 10))
        seen = self._fastest[count - 1] if count else np.inf
        return min(seen, self._known_ms or np.inf)

    def settle(self, speed_ms: float) -> None:
        """Takes a speed that the machine keeps for its usual one from now on."""
        self._settled_ms = speed_ms

    def recall(self, usual_ms: float) -> None:
        """Takes into account how fast the machine was in another session, if it was faster than is known."""
        self._known_ms = min(usual_ms, self._known_ms or np.inf)

    def steady(self, probe_ms: float) -> bool:
        """Whether the machine was undisturbed when a probe took so long."""
        return probe_ms <= TOLERANCE * self.usual_ms


def same_speed(probes_ms: Floats, speed_ms: float) -> NDArray[np.bool_]:
    """Which probes show a speed whose fast end is ``speed_ms``."""
    return (probes_ms <= TOLERANCE * speed_ms) & (probes_ms * JITTER >= speed_ms)
