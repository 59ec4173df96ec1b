"""Measures networks in chunks, each together with the anchors, which tell at what speed the machine ran.

Needs the standard library and numpy alone: measuring kits carry it to boards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwnas.latency_tables.steadiness import TOLERANCE, Steadiness
from hwnas.latency_tables.timing import Protocol, Timing, measure
from hwnas.spaces.errors import NoisyMeasurementError

Floats = NDArray[np.float64]

ATTEMPTS = 3
"""Times a chunk is measured before a disturbed machine is refused."""


@dataclass(frozen=True)
class Chunk:
    """What was measured together.

    Attributes:
        timings: Of each network.
        anchors_ms: Median latency of each anchor.
        probe_ms: The probe's time at the speed of the machine then.
    """

    timings: tuple[Timing, ...]
    anchors_ms: tuple[float, ...]
    probe_ms: float


def measure_chunk(
    anchors: Sequence[Callable[[], object]],
    items: Sequence[Callable[[], object]],
    protocol: Protocol,
    *,
    names: Sequence[str],
    steadiness: Steadiness,
    attempts: int = ATTEMPTS,
) -> Chunk:
    """Times the items, interleaved with each other and with the anchors; ``names`` are of anchors and items.

    Raises:
        NoisyMeasurementError: Figures that do not repeat, in so many attempts.
    """
    for attempt in range(attempts):
        try:
            timings = measure([*anchors, *items], protocol, names=names, steadiness=steadiness)
            break
        except NoisyMeasurementError:
            if attempt + 1 == attempts:
                raise
    own = tuple(t.p50_ms for t in timings[: len(anchors)])
    return Chunk(tuple(timings[len(anchors) :]), own, steadiness.usual_ms)


def usual_chunks(anchors_ms: Sequence[Sequence[float]]) -> NDArray[np.int64]:
    """The chunks measured at the machine's usual speed: that of the most chunks, the fastest such.

    Args:
        anchors_ms: Latency of each anchor in each chunk, shape (chunks, anchors).
    """
    measured = np.array(anchors_ms)
    ratios = np.median(measured[:, None] / measured, axis=2)  # of each chunk's speed to each other's
    near = np.abs(np.log(ratios)) <= np.log(TOLERANCE)
    slow = np.median(measured / np.median(measured, axis=0), axis=1)
    centre = max(range(len(measured)), key=lambda i: (near[i].sum(), -slow[i]))
    return np.flatnonzero(near[centre])


def chunk_slowness(anchors_ms: Sequence[Sequence[float]], known_ms: Sequence[float | None] = ()) -> Floats:
    """How slow the machine was at each chunk, as the anchors show, shape (chunks,).

    Args:
        anchors_ms: See `usual_chunks`.
        known_ms: Usual latency of each anchor where it is known; else it is the median over the `usual_chunks`.
    """
    measured = np.array(anchors_ms)
    typical = np.median(measured[usual_chunks(anchors_ms)], axis=0).tolist()
    usual = [ms or typical[i] for i, ms in enumerate(known_ms or typical)]
    return np.asarray(np.median(measured / usual, axis=1))


def off_speed(slowness: Floats) -> NDArray[np.bool_]:
    """Which chunks were measured at another speed than the usual one, from `chunk_slowness`."""
    return np.asarray(np.abs(np.log(slowness)) > np.log(TOLERANCE))
