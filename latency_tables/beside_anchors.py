"""Measures networks interleaved with the anchors, which tell how slow the machine is since it was registered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from hwnas.latency_tables.chunks import ATTEMPTS, measure_chunk
from hwnas.latency_tables.plan import anchors
from hwnas.latency_tables.profiler import prepare
from hwnas.latency_tables.records import anchors_usual_ms
from hwnas.latency_tables.runtimes import Runtime
from hwnas.latency_tables.steadiness import Steadiness
from hwnas.latency_tables.table import LatencyTable
from hwnas.latency_tables.timing import Protocol, Timing
from hwnas.spaces.space import Space


class BesideAnchors:
    """The anchors of a space, ready to run.

    Args:
        space, table, runtime: Of the device that this machine is.
        steadiness: What is known of its speed.
    """

    def __init__(self, space: Space, table: LatencyTable, runtime: Runtime, steadiness: Steadiness) -> None:
        rows = anchors(space)
        self._anchors = [prepare(space, row, runtime).run for row in rows]
        self._names = [f"network {space.decode(row).digest}" for row in rows]
        self._usual_ms = anchors_usual_ms(space, table)
        self._steadiness = steadiness

    def measure(
        self,
        items: Sequence[Callable[[], object]],
        protocol: Protocol,
        *,
        names: Sequence[str],
        attempts: int = ATTEMPTS,
    ) -> tuple[list[Timing], float]:
        """Timings of the items, and how much longer the anchors took beside them than the table says.

        Raises:
            NoisyMeasurementError: Figures that do not repeat, in so many attempts; it names what.
        """
        chunk = measure_chunk(
            self._anchors,
            items,
            protocol,
            names=[*self._names, *names],
            steadiness=self._steadiness,
            attempts=attempts,
        )
        return list(chunk.timings), slowness(chunk.anchors_ms, self._usual_ms)


def slowness(anchors_ms: Sequence[float], usual_ms: Sequence[float | None]) -> float:
    """How much longer anchors take now than usual: the median of their ratios; 1 where none was ever measured."""
    ratios = [now / usual for now, usual in zip(anchors_ms, usual_ms, strict=True) if usual]
    return median(ratios) if ratios else 1.0
