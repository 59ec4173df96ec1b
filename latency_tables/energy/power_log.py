"""The log of an external power meter, aligned with measuring windows.

The meter has a clock of its own. Its offset is found from the log itself: power is low in idle windows, and the same in
all windows of a network.
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
MIN_EXPLAINED = 0.5
"""Share of the variance of power that the windows must explain, or they are not those of the log."""
ALIKE = 0.06
"""Shifts that explain less by this share of the variance, at most, are considered beside the best."""


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
            with path.open(newline="", encoding="utf-8-sig") as file:
                rows = csv.DictReader(file)
                columns = set(rows.fieldnames or ())
                if not columns & {"time_s", "time"} or not (
                    "power_w" in columns or {"voltage_v", "current_a"} <= columns
                ):
                    raise InvalidFileError(
                        f"{path} needs the columns time_s or time, and power_w or voltage_v and current_a; it has "
                        f"{', '.join(sorted(map(str, columns))) or 'none'}"
                    )
                samples: list[tuple[float, float]] = []
                for row in rows:
                    sample = _sample(row, path, rows.line_num)
                    if samples and sample[0] <= samples[-1][0]:
                        raise InvalidFileError(f"{path}, line {rows.line_num}: the time does not move forward")
                    samples.append(sample)
        except FileNotFoundError as error:
            raise InvalidFileError(f"there is no file {path}") from error
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InvalidFileError(f"{path} is not a readable CSV file: {error}") from error
        if len(samples) < 2:
            raise InvalidFileError(f"{path} has fewer than two samples")
        times, watts = np.array(samples).T
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
        NoisyMeasurementError: The log does not cover the windows or is too coarse for them, or the clocks differ by so
            much that the windows are not found in it.
    """
    start, end = np.array([w.start_s for w in windows]), np.array([w.end_s for w in windows])
    period = float(np.median(np.diff(log.times_s)))
    shortest = float((end - start).min())
    if period * 5 > shortest:
        raise NoisyMeasurementError(
            f"the power log has a sample every {period:.2f} s, too few for windows of {shortest:.2f} s: measure with "
            f"windows of {5 * period:.1f} s or more, or log faster"
        )
    offset = _offset(log, windows, start, end)
    if offset is None:
        raise NoisyMeasurementError(
            f"the measurement is not found in the power log. The log covers {_span(log.times_s[0], log.times_s[-1])}, "
            f"the measurement {_span(start.min(), end.max())}: give the log of that time and some seconds before and "
            "after it, and check both clocks"
        )
    within = (log.times_s[1:] >= start.min() + offset) & (log.times_s[:-1] <= end.max() + offset)
    gap = float(np.diff(log.times_s)[within].max())
    if gap * 2 > shortest:
        raise NoisyMeasurementError(
            f"the power log has a gap of {gap:.2f} s during the measurement, too long for windows of {shortest:.2f} s"
        )
    joules = log.joules(start + offset, end + offset)
    return [replace(w, joules=float(j)) for w, j in zip(windows, joules, strict=True)], offset


def _offset(log: PowerLog, windows: Sequence[Window], start: Floats, end: Floats) -> float | None:
    """The shift of the windows, at most `MAX_OFFSET_S`, at which they explain most of the log's variance.

    What they explain is that power is the same in all windows of one network. Windows follow each other and are about
    equally long, so that a shift by a whole window explains about as much. Of such shifts, the one at which networks
    stand out most from the idle machine is taken: at the others, a network's window falls on an idle stretch, or an
    idle window on a network.

    None where no shift fits into the log, where less than half is explained, or where the first or the last shift that
    fits is the best, so that a better one may lie beyond.
    """
    squares = PowerLog(log.times_s, log.watts**2)
    owner = np.array([w.item for w in windows]) - IDLE
    seconds = np.bincount(owner, end - start)
    idle_first = seconds[0] > 0 and len(seconds) > 1

    def explained(shift: float) -> float:
        joules = np.bincount(owner, log.joules(start + shift, end + shift))
        square = float(squares.joules(start + shift, end + shift).sum())
        whole = square - joules.sum() ** 2 / seconds.sum()
        power = joules[seconds > 0] / seconds[seconds > 0]
        if whole <= 0 or (idle_first and power[0] > power[1:].min()):
            return 0.0
        within = square - float((joules[seconds > 0] ** 2 / seconds[seconds > 0]).sum())
        return 1 - within / float(whole)

    def contrast(shift: float) -> float:
        watts = np.bincount(owner, log.joules(start + shift, end + shift))[seconds > 0] / seconds[seconds > 0]
        return float(watts[1:].min() - watts[0]) if idle_first else 0.0

    shifts = np.arange(-MAX_OFFSET_S, MAX_OFFSET_S + STEP_S / 2, STEP_S)
    inside = [s for s in shifts if log.times_s[0] <= start.min() + s and end.max() + s <= log.times_s[-1]]
    shares = np.array([explained(s) for s in inside])
    if not len(shares):
        return None
    alike = np.flatnonzero(shares >= shares.max() - ALIKE)
    groups = np.split(alike, np.flatnonzero(np.diff(alike) > 1) + 1)
    best = max((int(g[np.argmax(shares[g])]) for g in groups), key=lambda i: contrast(inside[i]))
    return float(inside[best]) if 0 < best < len(inside) - 1 and shares[best] >= MIN_EXPLAINED else None


def _sample(row: dict[str, str | None], path: Path, line: int) -> tuple[float, float]:
    try:
        if "time_s" in row:
            moment = float(row["time_s"] or "")
        else:
            moment = datetime.fromisoformat(row["time"] or "").timestamp()
        if "power_w" in row:
            watts = float(row["power_w"] or "")
        else:
            watts = float(row["voltage_v"] or "") * float(row["current_a"] or "")
    except (ValueError, OverflowError) as error:
        raise InvalidFileError(f"{path}, line {line}: {error}") from error
    if not np.isfinite([moment, watts]).all() or watts < 0:
        raise InvalidFileError(f"{path}, line {line}: time and power must be finite, and power not negative")
    return moment, watts


def _span(start_s: float, end_s: float) -> str:
    text = [datetime.fromtimestamp(float(s)).strftime("%Y-%m-%d %H:%M:%S") for s in (start_s, end_s)]
    return " to ".join(text)
