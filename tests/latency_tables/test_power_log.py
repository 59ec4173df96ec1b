"""Logs of external meters: aligned with the windows by what they show, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hwnas.latency_tables.energy import power_log
from hwnas.latency_tables.energy.power_log import PowerLog, read_windows
from hwnas.latency_tables.energy.windows import EnergyProtocol, Window, energies, measure_windows
from hwnas.spaces.errors import InvalidFileError, NoisyMeasurementError

from .fake_power import START_S, PoweredMachine

PROTOCOL = EnergyProtocol(rounds=3, window_s=1.0, settle_s=0.5)
PLANTED = ((2.0, 14.0), (0.5, 12.5), (7.0, 21.0))


@pytest.fixture(scope="module")
def machine() -> PoweredMachine:
    return PoweredMachine()


@pytest.fixture(scope="module")
def windows(machine: PoweredMachine) -> list[Window]:
    items = [machine.item(ms, mj) for ms, mj in PLANTED]
    return measure_windows(items, None, PROTOCOL, clock=machine.clock, sleep=machine.sleep)


@pytest.mark.parametrize("offset_s", [0.0, 1.3, -2.74, 4.9])
def test_the_offset_of_the_clocks_is_found(machine: PoweredMachine, windows: list[Window], offset_s: float) -> None:
    read, offset = read_windows(machine.log(50, offset_s), windows)
    assert offset == pytest.approx(offset_s, abs=0.03)
    found = energies(read, len(PLANTED), PROTOCOL)
    assert [e.mj for e in found] == pytest.approx([mj for _, mj in PLANTED], rel=0.03)
    assert found[0].idle_watts == pytest.approx(5.0, rel=0.05)
    assert [(w.item, w.start_s, w.end_s, w.runs) for w in read] == [
        (w.item, w.start_s, w.end_s, w.runs) for w in windows
    ]


def test_energy_is_the_area_under_the_samples() -> None:
    log = PowerLog(np.array([0.0, 1.0, 3.0, 4.0]), np.array([2.0, 4.0, 4.0, 0.0]))
    start, end = np.array([0.0, 0.5, 1.5, 3.5, 0.0]), np.array([1.0, 2.0, 2.5, 4.0, 4.0])
    assert log.joules(start, end) == pytest.approx([3.0, 1.75 + 4.0, 4.0, 0.5, 13.0])


def test_a_log_of_another_time_is_refused(machine: PoweredMachine, windows: list[Window]) -> None:
    log = machine.log(50)
    for times in (log.times_s + 3600, log.times_s - 3600):
        with pytest.raises(
            NoisyMeasurementError, match=r"not found in the power log\. The log covers .* to .*, the measurement .* to "
        ):
            read_windows(PowerLog(times, log.watts), windows)


@pytest.mark.parametrize("offset_s", [1.1, -1.1, 3.0, -3.0])
def test_a_log_that_lacks_an_end_is_refused(machine: PoweredMachine, windows: list[Window], offset_s: float) -> None:
    """It covers the windows, but not where its own clock has them: at 1.1 s the best shift is the last that fits."""
    log = machine.log(50, offset_s)
    kept = (log.times_s > windows[0].start_s - 1) & (log.times_s < windows[-1].end_s + 1)
    with pytest.raises(NoisyMeasurementError, match="some seconds before and after it"):
        read_windows(PowerLog(log.times_s[kept], log.watts[kept]), windows)


def test_clocks_too_far_apart_are_refused(machine: PoweredMachine, windows: list[Window]) -> None:
    """Or else a shift by a whole round, the next best, leaves windows that do not repeat."""
    for offset_s in (5.5, 7.3, -6.1):
        with pytest.raises(NoisyMeasurementError, match=r"check both clocks|does not repeat|draws no more"):
            energies(read_windows(machine.log(50, offset_s, spare_s=14.0), windows)[0], 3, PROTOCOL)


def test_a_log_that_shows_nothing_of_the_windows_is_refused(machine: PoweredMachine, windows: list[Window]) -> None:
    log, rng = machine.log(50), np.random.default_rng(0)
    for watts in (np.full(len(log.times_s), 5.0), 5 + rng.random(len(log.times_s))):
        with pytest.raises(NoisyMeasurementError, match="check both clocks"):
            read_windows(PowerLog(log.times_s, watts), windows)


def test_a_log_too_coarse_is_refused(machine: PoweredMachine, windows: list[Window]) -> None:
    with pytest.raises(
        NoisyMeasurementError, match=r"a sample every 0\.50 s, .* windows of 2\.5 s or more, or log faster"
    ):
        read_windows(machine.log(2), windows)


def test_a_gap_during_the_measurement_is_refused(machine: PoweredMachine, windows: list[Window]) -> None:
    log = machine.log(50)
    for middle, fine in ((windows[5].start_s, False), (START_S - 4.0, True)):
        kept = np.abs(log.times_s - middle) > 0.5
        part = PowerLog(log.times_s[kept], log.watts[kept])
        if fine:
            read_windows(part, windows)
        else:
            with pytest.raises(NoisyMeasurementError, match=r"a gap of 1\.0\d s during the measurement"):
                read_windows(part, windows)


@pytest.mark.parametrize(
    "text",
    [
        "time_s,power_w\n10,2.5\n10.5,3\n",
        "\ufefftime_s,power_w\n10,2.5\n10.5,3\n",
        "power_w,note,time_s\n2.5,a,10\n3,b,10.5\n",
        "time_s,voltage_v,current_a\n10,5,0.5\n10.5,6,0.5\n",
        "time,power_w\n1970-01-01T00:00:10+00:00,2.5\n1970-01-01T01:00:10.5+01:00,3\n",
        "time_s,power_w\n\n10,2.5\n\n10.5,3\n",
    ],
)
def test_forms_of_the_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(text, encoding="utf-8")
    log = PowerLog.read(tmp_path / "log.csv")
    assert log.times_s.tolist() == [10.0, 10.5]
    assert log.watts.tolist() == [2.5, 3.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"needs the columns time_s or time, and power_w .*; it has none"),
        ("a,b\n1,2\n", "it has a, b"),
        ("time_s,voltage_v\n1,2\n", "needs the columns"),
        ("time_s,power_w\n1,2\n", "fewer than two samples"),
        ("time_s,power_w\n1,2\n2,two\n3,2\n", r"log\.csv, line 3: could not convert string to float: 'two'"),
        ("time_s,power_w\n1,2\n2\n3,2\n", r"line 3: could not convert"),
        ("time_s,voltage_v,current_a\n1,2,1\n2,2,\n", r"line 3: could not convert"),
        ("time,power_w\n2026-01-01T00:00:00,2\nyesterday,3\n", r"line 3: Invalid isoformat string: 'yesterday'"),
        ("time_s,power_w\n1,2\n2,nan\n", r"line 3: time and power must be finite"),
        ("time_s,power_w\n1,2\ninf,2\n", r"line 3: time and power must be finite"),
        ("time_s,power_w\n1,2\n2,-1\n", r"line 3: .* and power not negative"),
        ("time_s,power_w\n1,2\n3,2\n\n2,2\n", r"line 5: the time does not move forward"),
        ("time_s,power_w\n1,2\n1,2\n", r"line 3: the time does not move forward"),
        ('time_s,power_w\n1,"' + "9" * 200_000 + '"\n', "is not a readable CSV file: field larger"),
    ],
)
def test_malformed_files_say_where(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(InvalidFileError, match=message):
        PowerLog.read(tmp_path / "log.csv")


def test_files_that_are_no_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidFileError, match="there is no file"):
        PowerLog.read(tmp_path / "none.csv")
    with pytest.raises(InvalidFileError, match="is not a readable CSV file"):
        PowerLog.read(tmp_path)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidFileError, match="is not a readable CSV file"):
        PowerLog.read(tmp_path / "binary.csv")
    (tmp_path / "log.csv").write_text("time_s,power_w\n1,2\n2,3\n")
    monkeypatch.setattr(power_log, "MAX_BYTES", 10)
    with pytest.raises(InvalidFileError, match="is larger than"):
        PowerLog.read(tmp_path / "log.csv")
