"""How many networks a kit holds: what a Raspberry-Pi-class board is estimated to measure in time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwnas.latency_tables.timing import Protocol
from hwnas.spaces.space import Rows, Space

Floats = NDArray[np.float64]

PIECE = 24
"""Networks held in the board's memory at a time, and lost at most when it stops."""
MOST_NETWORKS, LEAST_NETWORKS = 240, 48
"""Networks to learn from by default."""
MOST_CHECKS, LEAST_CHECKS = 40, 20
"""Networks held out by default: the least where there is no time for more than the least to learn from."""

MACS_PER_S, OPERATOR_S, LOAD_S, PROBE_S = 0.6e9, 60e-6, 0.4, 0.003
"""A Raspberry-Pi-class processor, one thread: a cautious guess of its speed, for estimates of time alone."""
BUSY = 1.3
"""How much longer it takes as bursts are measured again."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Estimates of time on a Raspberry-Pi-class board, in seconds.

    Attributes:
        anchors_s: The anchors of one piece.
        uniform_s, checks_s, drawn_s: Of each network, shape (n,).
    """

    anchors_s: float
    uniform_s: Floats
    checks_s: Floats
    drawn_s: Floats

    def total_s(self, checks: int, drawn: int) -> float:
        """With so many networks held out, and so many drawn to learn from."""
        own = self.uniform_s.sum() + self.checks_s[:checks].sum() + self.drawn_s[:drawn].sum()
        pieces = 1 + -(-checks // PIECE) + -(-drawn // PIECE)
        return float(own + pieces * self.anchors_s)

    def amounts(self, minutes: float) -> tuple[int, int]:
        """How many networks to hold out and to draw: what is measured in three quarters of the time."""
        checks = min(MOST_CHECKS, len(self.checks_s))
        least = min(max(0, LEAST_NETWORKS - len(self.uniform_s)), len(self.drawn_s))
        for drawn in range(len(self.drawn_s), least - 1, -1):
            if self.total_s(checks, drawn) <= 0.75 * 60 * minutes:
                return checks, drawn
        return min(checks, LEAST_CHECKS), least


def network_s(space: Space, rows: Rows, protocol: Protocol) -> Floats:
    """Seconds to load and measure each network of rows (n, decisions) on such a board."""
    latency = guess_s(space, rows)
    runs = protocol.warmup_runs + np.maximum(protocol.min_runs, protocol.burst_s / latency)
    return np.asarray(LOAD_S + BUSY * protocol.rounds * (runs * latency + PROBE_S))


def guess_s(space: Space, rows: Rows) -> Floats:
    """Seconds of one inference of each network of rows (n, decisions)."""
    works = [space.workload_of_row(row) for row in rows]
    return np.array([work.macs / MACS_PER_S + len(work.operators) * OPERATOR_S for work in works])
