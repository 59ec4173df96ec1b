"""The probe that tells when a machine runs at its usual speed."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.latency_tables.steadiness import FASTEST, REPEATS, TOLERANCE, Steadiness, interpreter_work

from .fake_machine import PROBE_MS, FakeMachine


def test_a_probe_is_the_least_of_its_repeats() -> None:
    machine = FakeMachine()
    durations = iter([0.5, 0.2, 0.1, 0.3, 0.4])
    steadiness = Steadiness(work=lambda: machine.work(next(durations)), clock=machine.clock)
    assert steadiness.probe() == pytest.approx(0.1)
    assert REPEATS == 5
    assert next(durations, None) is None


def test_nothing_is_unsteady_before_anything_is_known() -> None:
    assert Steadiness().steady(1e6)
    assert Steadiness().usual_ms == np.inf


def test_the_usual_speed_is_that_of_the_fastest_tenth() -> None:
    machine = FakeMachine()
    steadiness = machine.steadiness()
    for i in range(100):
        machine.slowness = lambda _, i=i: 1.0 if i % 5 == 0 else 1.6  # type: ignore[misc]
        steadiness.probe()
    assert steadiness.usual_ms == pytest.approx(PROBE_MS)
    assert steadiness.steady(PROBE_MS * TOLERANCE * 0.999)
    assert not steadiness.steady(PROBE_MS * TOLERANCE * 1.001)
    assert not steadiness.steady(PROBE_MS * 1.6)


def test_one_lucky_probe_does_not_make_the_rest_unsteady() -> None:
    machine = FakeMachine()
    steadiness = machine.steadiness()
    for i in range(50):
        machine.slowness = lambda _, i=i: 0.5 if i == 7 else 1.0  # type: ignore[misc]
        steadiness.probe()
    assert steadiness.steady(PROBE_MS)


def test_an_earlier_session_counts() -> None:
    machine = FakeMachine(lambda _: 2.0)
    steadiness = machine.steadiness(usual_ms=PROBE_MS)
    assert not steadiness.steady(steadiness.probe())
    assert steadiness.usual_ms == pytest.approx(PROBE_MS)
    fresh = machine.steadiness()
    assert fresh.steady(fresh.probe()), "without it, a slow phase from the start cannot be told"


def test_waiting_ends_with_the_slow_phase() -> None:
    machine = FakeMachine(lambda t: 2.0 if t < 0.2 else 1.0)
    steadiness = machine.steadiness(usual_ms=PROBE_MS)
    assert steadiness.wait(10.0) == pytest.approx(PROBE_MS)
    assert 0.2 <= machine.now < 0.21


def test_waiting_ends_at_its_limit() -> None:
    machine = FakeMachine(lambda _: 2.0)
    value = machine.steadiness(usual_ms=PROBE_MS).wait(0.1)
    assert value == pytest.approx(2 * PROBE_MS)
    assert 0.1 <= machine.now < 0.11


@pytest.mark.parametrize(("fast", "usual_ms"), [(FASTEST - 1, 3.0), (FASTEST, 1.0)])
def test_ten_fast_probes_show_a_speed_however_many_slow_ones_follow(fast: int, usual_ms: float) -> None:
    machine = FakeMachine()
    steadiness = Steadiness(work=lambda: machine.work(1.0), clock=machine.clock)
    for i in range(5000):
        machine.slowness = lambda _, i=i: 1.0 if i < fast else 3.0  # type: ignore[misc]
        steadiness.probe()
    assert steadiness.usual_ms == pytest.approx(usual_ms)


def test_the_speed_a_machine_keeps_becomes_the_usual_one() -> None:
    steadiness = FakeMachine().steadiness(PROBE_MS)
    steadiness.settle(0.15)
    steadiness.probe()
    assert steadiness.usual_ms == 0.15
    assert steadiness.steady(0.17)


def test_the_probe_really_works() -> None:
    assert interpreter_work() == 3000 * 2999 // 2
    steadiness = Steadiness()
    assert 0 < steadiness.probe() < 1000


def test_the_fastest_of_other_sessions_is_recalled() -> None:
    for known, recalled, usual in ((None, 0.2, 0.2), (0.3, 0.2, 0.2), (0.1, 0.2, 0.1)):
        steadiness = Steadiness(known)
        steadiness.recall(recalled)
        assert steadiness.usual_ms == usual
