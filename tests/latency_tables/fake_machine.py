"""A machine whose clock moves only when it works, slower at some times than at others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hwnas.latency_tables.steadiness import Steadiness

PROBE_MS = 0.1


class FakeMachine:
    """Work takes its milliseconds times ``slowness`` of the moment, in seconds since the start."""

    def __init__(self, slowness: Callable[[float], float] = lambda _: 1.0) -> None:
        self.now = 0.0
        self.slowness = slowness

    def clock(self) -> float:
        return self.now

    def work(self, ms: float, sensitivity: float = 1.0) -> None:
        """``sensitivity`` is the power of the slowness that this work feels."""
        self.now += ms / 1e3 * self.slowness(self.now) ** sensitivity

    def item(self, ms: float, noise: float = 0.0, seed: int = 0, sensitivity: float = 1.0) -> Callable[[], None]:
        rng = np.random.default_rng(seed)
        return lambda: self.work(ms * float(np.exp(noise * rng.normal())), sensitivity)

    def steadiness(self, usual_ms: float | None = None, noise: float = 0.0) -> Steadiness:
        return Steadiness(usual_ms, work=self.item(PROBE_MS, noise), clock=self.clock)
