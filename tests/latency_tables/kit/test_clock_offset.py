"""Windows of one second, back to back, as boards write them: a shift by a whole window must not pass for the offset."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.latency_tables.energy.power_log import PowerLog, read_windows
from hwnas.latency_tables.energy.windows import IDLE, Window


@pytest.mark.parametrize("offset", [-1.7, -0.4, 0.0, 0.4, 1.0, 2.3])
@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_the_offset_is_found_although_windows_are_alike(offset: float, noise: float, spread: float) -> None:
    rng = np.random.default_rng(0)
    start, networks = 1.7e9, 12
    watts = {IDLE: 2.0, **{i: 4.0 + spread * rng.normal() for i in range(networks)}}
    windows = [
        Window(item, begin, begin + 1.0, 100)
        for turn in range(3)
        for item in range(IDLE, networks)
        for begin in [start + turn * (networks + 2) + item + 2]  # a second to settle, then the idle window
    ]
    times = np.arange(start - 8, windows[-1].end_s + 8, 0.05)
    power = np.full(len(times), watts[IDLE])
    for w in windows:
        power[(times >= w.start_s) & (times < w.end_s)] = watts[w.item]
    log = PowerLog(times + offset, power + noise * rng.normal(size=len(times)))
    read, found = read_windows(log, windows)
    assert found == pytest.approx(offset, abs=0.06)
    for w in read:
        assert w.joules == pytest.approx(watts[w.item], abs=0.4)
