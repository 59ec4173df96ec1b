"""Energy from measuring windows: a planted power is found again, or the figure is refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from hwnas.latency_tables.energy.windows import IDLE, EnergyProtocol, Window, energies, measure_windows
from hwnas.spaces.errors import NoisyMeasurementError

from .fake_power import START_S, PoweredMachine

PROTOCOL = EnergyProtocol(rounds=3, window_s=1.0, settle_s=0.5)
PLANTED = ((2.0, 14.0), (0.5, 12.5), (7.0, 0.9))
"""Milliseconds, and millijoules above idle."""


def measured(machine: PoweredMachine, protocol: EnergyProtocol = PROTOCOL) -> list[Window]:
    items = [machine.item(ms, mj) for ms, mj in PLANTED]
    return measure_windows(items, machine, protocol, clock=machine.clock, sleep=machine.sleep)


@pytest.mark.parametrize("idle_watts", [0.0, 5.0, 80.0])
def test_planted_energies_are_found_without_idle_power(idle_watts: float) -> None:
    found = energies(measured(PoweredMachine(idle_watts)), len(PLANTED), PROTOCOL)
    assert [e.mj for e in found] == pytest.approx([mj for _, mj in PLANTED], rel=1e-4)
    assert [e.idle_watts for e in found] == pytest.approx([idle_watts] * 3)
    assert max(e.spread for e in found) < 1e-4


@pytest.mark.parametrize("tick_s", [0.03, 0.13])
def test_a_counter_that_steps_is_read_where_it_steps(tick_s: float) -> None:
    found = energies(measured(PoweredMachine(tick_s=tick_s)), len(PLANTED), PROTOCOL)
    for energy, (ms, mj) in zip(found, PLANTED, strict=True):
        # Each end of a window is seen a run late at most, at the power of the run.
        late_mj = 2 * ms / 1e3 * (mj / ms + 5.0) * ms
        assert energy.mj == pytest.approx(mj, abs=late_mj + 1e-6)


def test_windows_are_interleaved_and_begin_with_an_idle_one() -> None:
    machine = PoweredMachine()
    windows = measured(machine)
    assert [w.item for w in windows] == [IDLE, 0, 1, 2] * 3
    assert all(w.seconds >= PROTOCOL.window_s for w in windows)
    assert all(a.end_s <= b.start_s for a, b in pairwise(windows))
    assert windows[0].start_s >= START_S + PROTOCOL.settle_s
    for window in windows:
        if window.item != IDLE:
            assert window.runs * PLANTED[window.item][0] / 1e3 == pytest.approx(window.seconds, rel=1e-4)


def test_without_a_meter_windows_are_noted_for_later() -> None:
    machine = PoweredMachine()
    items = [machine.item(ms, mj) for ms, mj in PLANTED]
    windows = measure_windows(items, None, PROTOCOL, clock=machine.clock, sleep=machine.sleep)
    assert {w.joules for w in windows} == {None}
    for window in windows:
        if window.item != IDLE:
            assert window.runs == pytest.approx(1.0 / (PLANTED[window.item][0] / 1e3), abs=1)
    with pytest.raises(NoisyMeasurementError, match="some windows have no reading; give the power log"):
        energies(windows, 3, PROTOCOL)


def test_progress_is_told() -> None:
    said: list[tuple[str, float]] = []
    machine = PoweredMachine()
    items = [machine.item(2.0, 3.0)] * 2
    measure_windows(
        items, machine, replace(PROTOCOL, rounds=2), progress=lambda *a: said.append(a), clock=machine.clock,
        sleep=machine.sleep,
    )  # fmt: skip
    assert [share for _, share in said] == [0.0, 0.25, 0.5, 0.75]
    assert said[-1][0] == "measuring energy, round 2 of 2"


def test_what_does_not_repeat_is_refused() -> None:
    machine = PoweredMachine()
    drifting = machine.item(2.0, 14.0, lambda now: 1 + 0.1 * (now - START_S))
    windows = measure_windows([drifting], machine, PROTOCOL, clock=machine.clock, sleep=machine.sleep)
    with pytest.raises(
        NoisyMeasurementError, match=r"energy of network 0 does not repeat: its 3 windows spread by ±\d+%"
    ):
        energies(windows, 1, PROTOCOL)
    lenient = energies(windows, 1, replace(PROTOCOL, max_spread=1.0))
    each = [(w.joules or 0.0) - 5.0 * w.seconds for w in windows if w.item == 0]
    per_run = np.array(each) / [w.runs for w in windows if w.item == 0] * 1e3
    assert lenient[0].spread == pytest.approx((per_run.max() - per_run.min()) / 2 / np.median(per_run))


@pytest.mark.parametrize(("watts", "accepted"), [(4.0, False), (5.2, False), (5.3, False), (5.4, True)])
def test_what_draws_no_more_than_an_idle_machine_is_refused(watts: float, accepted: bool) -> None:
    """The idle windows themselves range from 4.9 to 5.3 W, so that no less can be told from nothing."""
    idle = [Window(IDLE, 10.0 * i, 10.0 * i + 2, 100, 2 * w) for i, w in enumerate((4.9, 5.0, 5.3))]
    own = [Window(0, 10.0 * i + 3, 10.0 * i + 5, 100, 2 * watts) for i in range(3)]
    if accepted:
        assert energies([*idle, *own], 1, PROTOCOL)[0].mj == pytest.approx(0.4 * 2 / 100 * 1e3)
    else:
        with pytest.raises(
            NoisyMeasurementError, match=r"network 0 draws no more power .* idle machine \(up to 5\.30 W"
        ):
            energies([*idle, *own], 1, PROTOCOL)


def test_a_counter_that_never_moves_ends_and_is_refused() -> None:
    machine = PoweredMachine(tick_s=1e9)
    windows = measured(machine, replace(PROTOCOL, rounds=1))
    assert {w.joules for w in windows} == {0.0}
    with pytest.raises(NoisyMeasurementError, match="draws no more power"):
        energies(windows, 3, PROTOCOL)


def test_what_is_missing_is_refused() -> None:
    windows = measured(PoweredMachine())
    with pytest.raises(NoisyMeasurementError, match="no idle window"):
        energies([w for w in windows if w.item != IDLE], 3, PROTOCOL)
    with pytest.raises(NoisyMeasurementError, match="network 3 has no window"):
        energies(windows, 4, PROTOCOL)
