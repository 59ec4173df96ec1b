"""The log of an external power meter, aligned with measuring windows.

The meter has a clock of its own. Its offset is found from the log itself: power is low in idle windows and differs from
network to network, so the right offset is the one at which power varies least within windows.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwnas.latency_tables.energy.windows import IDLE, Window
from hwnas.spaces.errors import InvalidFileError, NoisyMeasurementError

Floats = NDArray[np.float64]

MAX_BYTES = 200_000_000
MAX_OFFSET_S = 5.0
STEP_S = 0.02
ALIKE = 0.25
"""Share of the way from the least variance to the usual one up to which shifts are considered."""


@dataclass(frozen=True, slots=True)
class PowerLog:
    """Power over time.

    Attributes:
        times_s: Seconds since 1970, ascending, shape (n,).
        watts: Power at those moments, shape (n,).
    """

    times_s: Floats
    watts: Floats

    @classmethod
    def read(cls, path: Path) -> PowerLog:
        """From a CSV file with a header.

        It needs a column ``time_s`` (seconds since 1970) or ``time`` (ISO 8601; without a zone it is local), and a
        column ``power_w``, or ``voltage_v`` and ``current_a``.

        Raises:
            InvalidFileError: It is not such a file; says the line.
        """
        try:
            if path.stat().st_size > MAX_BYTES:
                raise InvalidFileError(f"{path} is larger than {MAX_BYTES // 10**6} MB; cut it to the measurement")
            with path.open(newline="", encoding="utf-8") as file:
                rows = csv.DictReader(file)
                columns = set(rows.fieldnames or ())
                if not columns & {"time_s", "time"} or not (
                    "power_w" in columns or {"voltage_v", "current_a"} <= columns
                ):
                    raise InvalidFileError(
                        f"{path} needs the columns time_s or time, and power_w or voltage_v and current_a; it has "
                        f"{', '.join(sorted(map(str, columns))) or 'none'}"
                    )
                samples = [_sample(row, path, rows.line_num) for row in rows]
        except FileNotFoundError as error:
            raise InvalidFileError(f"there is no file {path}") from error
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InvalidFileError(f"{path} is not a readable CSV file: {error}") from error
        if len(samples) < 2:
            raise InvalidFileError(f"{path} has fewer than two samples")
        times, watts = np.array(samples).T
        if (np.diff(times) <= 0).any():
            line = int(np.argmax(np.diff(times) <= 0)) + 3
            raise InvalidFileError(f"{path}, line {line}: the time does not move forward")
        return cls(times, watts)

    def joules(self, start_s: Floats, end_s: Floats) -> Floats:
        """Energy between moments, by the trapezium rule between samples, each of shape (n,)."""
        steps = np.diff(self.times_s) * (self.watts[1:] + self.watts[:-1]) / 2
        total = np.concatenate([[0.0], np.cumsum(steps)])

        def until(moments: Floats) -> Floats:
            k = np.clip(np.searchsorted(self.times_s, moments, side="right") - 1, 0, len(steps) - 1)
            part = moments - self.times_s[k]
            slope = (self.watts[k + 1] - self.watts[k]) / (self.times_s[k + 1] - self.times_s[k])
            return np.asarray(total[k] + part * (self.watts[k] + slope * part / 2))

        return until(end_s) - until(start_s)


def read_windows(log: PowerLog, windows: Sequence[Window]) -> tuple[list[Window], float]:
    """The windows with what the log says of them, and the offset of the meter's clock in seconds.

    Raises:
        NoisyMeasurementError: The log does not cover the windows, or is too coarse for them.
    """
    start, end = np.array([w.start_s for w in windows]), np.array([w.end_s for w in windows])
    period = float(np.median(np.diff(log.times_s)))
    shortest = float((end - start).min())
    if period * 5 > shortest:
        raise NoisyMeasurementError(
            f"the power log has a sample every {period:.2f} s, too few for windows of {shortest:.2f} s: measure with "
            f"windows of {5 * period:.1f} s or more, or log faster"
        )
    offset = _offset(log, start, end, np.array([w.item == IDLE for w in windows]))
    if log.times_s[0] > start.min() + offset or log.times_s[-1] < end.max() + offset:
        raise NoisyMeasurementError(
            f"the power log covers {_span(log.times_s[0], log.times_s[-1])}, the measurement "
            f"{_span(start.min(), end.max())}: give the log of that time, and check both clocks"
        )
    joules = log.joules(start + offset, end + offset)
    return [replace(w, joules=float(j)) for w, j in zip(windows, joules, strict=True)], offset


def _offset(log: PowerLog, start: Floats, end: Floats, idle: NDArray[np.bool_]) -> float:
    """The shift of the windows, at most `MAX_OFFSET_S`, that leaves least variance of power within them.

    Windows follow each other closely and are about equally long, so a shift by a whole window leaves as little. Of such
    shifts, the one at which networks stand out most from the idle machine is taken: at the others, a window of a
    network falls on an idle stretch, or an idle window on a network.
    """
    squares = PowerLog(log.times_s, log.watts**2)
    seconds = end - start

    def mean(offset: float) -> Floats:
        return log.joules(start + offset, end + offset) / seconds

    def within(offset: float) -> float:
        return float((squares.joules(start + offset, end + offset) / seconds - mean(offset) ** 2).sum())

    def contrast(offset: float) -> float:
        watts = mean(offset)
        return float(watts[~idle].min() - watts[idle].max()) if 0 < idle.sum() < len(idle) else 0.0

    shifts = np.arange(-MAX_OFFSET_S, MAX_OFFSET_S + STEP_S / 2, STEP_S)
    inside = [s for s in shifts if log.times_s[0] <= start.min() + s and end.max() + s <= log.times_s[-1]]
    if not inside:
        return 0.0
    variances = np.array([within(s) for s in inside])
    bound = variances.min() + ALIKE * (np.median(variances) - variances.min())
    alike = [s for s, variance in zip(inside, variances, strict=True) if variance <= bound]
    groups = np.split(np.array(alike), np.flatnonzero(np.diff(alike) > 1.5 * STEP_S) + 1)
    best = max((min(group.tolist(), key=within) for group in groups), key=contrast)
    return float(best)


def _sample(row: dict[str, str | None], path: Path, line: int) -> tuple[float, float]:
    try:
        stamp = row.get("time_s")
        moment = float(stamp) if stamp is not None else datetime.fromisoformat(row["time"] or "").timestamp()
        power = row.get("power_w")
        watts = float(power) if power is not None else float(row["voltage_v"] or "") * float(row["current_a"] or "")
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidFileError(f"{path}, line {line}: {error}") from error
    if not np.isfinite([moment, watts]).all() or watts < 0:
        raise InvalidFileError(f"{path}, line {line}: time and power must be finite, and power not negative")
    return moment, watts


def _span(start_s: float, end_s: float) -> str:
    text = [datetime.fromtimestamp(float(s)).strftime("%Y-%m-%d %H:%M:%S") for s in (start_s, end_s)]
    return " to ".join(text)
