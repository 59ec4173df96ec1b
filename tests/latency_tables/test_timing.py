"""Timing on a fake machine, where the truth is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from hwnas.latency_tables.timing import Protocol, burst, drift, measure
from hwnas.spaces.errors import HwnasError, NoisyMeasurementError

from .fake_machine import FakeMachine

PLANTED_MS = (0.2, 0.5, 1.0, 3.0, 0.35, 0.8)


def test_a_burst_warms_up_and_fills_its_time() -> None:
    machine = FakeMachine()
    calls = []

    def run() -> None:
        calls.append(machine.now)
        machine.work(8.0 if len(calls) <= 3 else 2.0)  # cold caches

    times = burst(run, Protocol(burst_s=0.02, min_runs=5, warmup_runs=3), machine.clock)
    assert times == pytest.approx([0.002] * 10)
    assert len(calls) == 3 + 10


def test_a_burst_of_something_slow_has_its_least_runs() -> None:
    machine = FakeMachine()
    assert burst(machine.item(50), Protocol(burst_s=0.02, min_runs=5), machine.clock) == pytest.approx([0.05] * 5)


def test_a_quiet_machine_gives_the_planted_latencies() -> None:
    machine = FakeMachine()
    items = [machine.item(ms) for ms in PLANTED_MS]
    timings = measure(items, Protocol(rounds=4), steadiness=machine.steadiness(), clock=machine.clock)
    assert [t.p50_ms for t in timings] == pytest.approx(PLANTED_MS, rel=1e-9)
    assert [t.p90_ms for t in timings] == pytest.approx(PLANTED_MS, rel=1e-9)
    assert [t.spread for t in timings] == pytest.approx([0.0] * 6, abs=1e-9)
    assert [t.runs for t in timings] == pytest.approx([4 * max(5, 20 / ms) for ms in PLANTED_MS], abs=4)


def phases(t: float) -> float:
    """Slow by up to 1.9 times for 40 % of the time, in stretches of 50 to 200 ms."""
    return 1.0 if (t % 0.5) < 0.3 else 1.5 + 0.4 * (int(t / 0.5) % 2)


def test_slow_phases_do_not_show() -> None:
    machine = FakeMachine(phases)
    rough = [np.median(burst(machine.item(1.0), Protocol(), machine.clock)) for _ in range(60)]
    assert np.mean(np.array(rough) > 0.0012) > 0.25, "the planted phases do disturb a plain burst"
    items = [machine.item(ms, 0.01, seed) for seed, ms in enumerate(PLANTED_MS)]
    timings = measure(items, Protocol(rounds=5), steadiness=machine.steadiness(), clock=machine.clock)
    assert [t.p50_ms for t in timings] == pytest.approx(PLANTED_MS, rel=0.01)
    assert all(t.spread < 0.02 for t in timings)


def test_phases_of_which_the_machine_has_known_better_times_are_waited_out() -> None:
    """It begins within a long slow phase, which only an earlier session can tell."""
    machine = FakeMachine(lambda t: 1.7 if t < 3.0 else 1.0)
    items = [machine.item(ms) for ms in PLANTED_MS]
    timings = measure(items, Protocol(rounds=3), steadiness=machine.steadiness(0.1), clock=machine.clock)
    assert [t.p50_ms for t in timings] == pytest.approx(PLANTED_MS, rel=1e-6)
    assert machine.now > 3.0


def test_slow_drift_within_tolerance_is_taken_out() -> None:
    machine = FakeMachine(lambda t: 1.0 + 0.12 * min(1.0, t / 1.6))
    items = [machine.item(ms) for ms in PLANTED_MS]
    timings = measure(items, Protocol(rounds=8), steadiness=machine.steadiness(), clock=machine.clock)
    ratios = np.array([t.p50_ms for t in timings]) / PLANTED_MS
    assert ratios.min() >= 1.0
    assert ratios.max() / ratios.min() < 1.01
    assert all(t.spread < 0.02 for t in timings)


def test_the_90th_percentile_counts_single_runs() -> None:
    machine = FakeMachine()
    count = 0

    def run() -> None:
        nonlocal count
        count += 1
        machine.work(2.0 if count % 5 == 0 else 1.0)

    (timing,) = measure([run], Protocol(rounds=4), steadiness=machine.steadiness(), clock=machine.clock)
    assert timing.p50_ms == pytest.approx(1.0)
    assert timing.p90_ms == pytest.approx(2.0)


def alternating(machine: FakeMachine, low_ms: float, high_ms: float, bursts: float = math.inf) -> Callable[[], None]:
    """Takes one time and the other in turn, burst by burst, and for good the low one after some bursts."""
    burst, end = -1, -1.0

    def run() -> None:
        nonlocal burst, end
        burst += machine.now > end  # something else ran in between
        machine.work(high_ms if burst % 2 and burst < bursts else low_ms)
        end = machine.now

    return run


def test_a_noisy_item_is_refused_by_name() -> None:
    machine = FakeMachine()
    items = [machine.item(1.0), alternating(machine, 1.0, 1.6), machine.item(4.0)]
    with pytest.raises(NoisyMeasurementError, match=r"unsteady does not repeat: .* spread by ±\d+% after 12 rounds"):
        measure(
            items,
            Protocol(rounds=4, patience=3),
            names=["calm", "unsteady", "slow"],
            steadiness=machine.steadiness(),
            clock=machine.clock,
        )


def test_an_unnamed_item_is_refused_by_number() -> None:
    machine = FakeMachine()
    items = [machine.item(1.0), alternating(machine, 1.0, 1.6)]
    with pytest.raises(HwnasError, match="item 1 does not repeat"):
        measure(items, Protocol(rounds=6, patience=2), steadiness=machine.steadiness(), clock=machine.clock)


def test_noise_within_bursts_is_averaged_out() -> None:
    machine = FakeMachine()
    items = [machine.item(ms, 0.2, seed) for seed, ms in enumerate(PLANTED_MS)]
    timings = measure(items, Protocol(rounds=12), steadiness=machine.steadiness(), clock=machine.clock)
    assert [t.p50_ms for t in timings] == pytest.approx(PLANTED_MS, rel=0.08)
    assert all(t.p90_ms > 1.15 * t.p50_ms for t in timings)


def test_where_waiting_is_in_vain_the_present_speed_is_measured() -> None:
    machine = FakeMachine(lambda _: 1.8)
    protocol = Protocol(rounds=2, patience=2, max_wait_s=0.3)
    steadiness = machine.steadiness(0.1)
    (timing,) = measure([machine.item(1.0)], protocol, steadiness=steadiness, clock=machine.clock)
    assert timing.p50_ms == pytest.approx(1.8)
    assert machine.now == pytest.approx(0.3 + 2 * 0.03, abs=0.05)
    measure([machine.item(1.0)], protocol, steadiness=steadiness, clock=machine.clock)
    assert machine.now == pytest.approx(0.3 + 4 * 0.03, abs=0.1), "waiting is bounded in all"


@pytest.mark.parametrize(("slow", "slower"), [(1.5, 2.2), (1.5, 2.0)])
@pytest.mark.parametrize("period_s", [0.2, 0.7, 5.0])
def test_speeds_are_never_mixed(slow: float, slower: float, period_s: float) -> None:
    """It never reaches its known speed, and changes between two others that slow the items differently."""
    machine = FakeMachine(lambda t: slow if t % period_s < 0.45 * period_s else slower)
    sensitivity = np.linspace(0.6, 1.2, len(PLANTED_MS))
    items = [machine.item(ms, sensitivity=s) for ms, s in zip(PLANTED_MS, sensitivity, strict=True)]
    steadiness = machine.steadiness(0.1, noise=0.05)
    timings = measure(items, Protocol(rounds=4, max_wait_s=0.1), steadiness=steadiness, clock=machine.clock)
    ratios = np.array([t.p50_ms for t in timings]) / PLANTED_MS
    speed = ratios[-1] ** (1 / 1.2)
    assert min(abs(speed / slow - 1), abs(speed / slower - 1)) < 0.01
    assert ratios == pytest.approx(speed**sensitivity, rel=0.01)


def test_the_speed_taken_instead_becomes_the_usual_one_until_it_is_gone() -> None:
    machine = FakeMachine(lambda t: 1.5 if t < 5.0 else 2.2)
    items, protocol = [machine.item(ms) for ms in PLANTED_MS], Protocol(rounds=2, max_wait_s=0.1)
    steadiness = machine.steadiness(0.1)
    for start, speed in ((0.0, 1.5), (2.0, 1.5), (6.0, 2.2)):
        machine.now = start
        timings = measure(items, protocol, steadiness=steadiness, clock=machine.clock)
        assert [t.p50_ms for t in timings] == pytest.approx(speed * np.array(PLANTED_MS))
        assert steadiness.usual_ms == pytest.approx(0.1 * speed)


def test_moments_of_a_better_speed_do_not_spoil_the_one_that_lasts() -> None:
    """They end every wait at once, and no burst fits into one."""
    machine = FakeMachine(lambda t: 0.75 if t % 0.1 < 0.01 else 1.0)
    items = [machine.item(ms) for ms in PLANTED_MS]
    timings = measure(items, Protocol(rounds=4), steadiness=machine.steadiness(0.075), clock=machine.clock)
    assert [t.p50_ms for t in timings] == pytest.approx(PLANTED_MS)


def test_a_speed_at_which_an_item_does_not_repeat_is_not_taken() -> None:
    machine = FakeMachine(lambda t: 1.5 if t % 0.4 < 0.2 else 2.2)
    calls = iter(range(10**6))

    def restless() -> None:
        machine.work(1.0 if machine.slowness(machine.now) > 2 else 1.0 + next(calls) // 20 % 3)

    items = [machine.item(1.0), restless]
    protocol = Protocol(rounds=4, max_wait_s=0.0, warmup_runs=0)
    timings = measure(items, protocol, steadiness=machine.steadiness(0.1), clock=machine.clock)
    assert [t.p50_ms for t in timings] == pytest.approx([2.2, 2.2])


def test_a_better_speed_than_the_one_settled_on_is_taken_at_once() -> None:
    machine = FakeMachine()
    steadiness = machine.steadiness(0.1)
    steadiness.settle(0.15)
    protocol = Protocol(rounds=4)
    timings = measure([machine.item(1.0)], protocol, steadiness=steadiness, clock=machine.clock)
    assert timings[0].p50_ms == pytest.approx(1.0)
    assert machine.now < 5 * protocol.burst_s * 1.5
    assert steadiness.usual_ms == pytest.approx(0.1)


def test_speeds_that_change_within_bursts_are_refused() -> None:
    machine = FakeMachine(lambda t: 1.5 if t % 0.05 < 0.025 else 2.2)
    items = [machine.item(ms) for ms in PLANTED_MS]
    with pytest.raises(NoisyMeasurementError):
        measure(items, Protocol(max_wait_s=0.1), steadiness=machine.steadiness(0.1), clock=machine.clock)


def test_the_usual_speed_is_not_forgotten_while_waiting_for_it() -> None:
    machine = FakeMachine(lambda t: 1.0 if t < 0.1 else 1.8)
    steadiness = machine.steadiness()
    while machine.now < 0.1:
        steadiness.probe()
    steadiness.wait(10.0)
    assert machine.now == pytest.approx(10.1, abs=0.01)
    assert steadiness.usual_ms == pytest.approx(0.1)


def test_a_machine_that_keeps_no_speed_is_refused() -> None:
    machine = FakeMachine(lambda t: 1.5 ** (int(t / 0.031) % 6))
    protocol = Protocol(rounds=5, patience=1, max_wait_s=0.0)
    with pytest.raises(NoisyMeasurementError, match=r"net cannot be measured: .* during only [1-4] of 5 bursts"):
        measure([machine.item(1.0)], protocol, names=["net"], steadiness=machine.steadiness(0.1), clock=machine.clock)


def test_only_items_that_lack_bursts_are_measured_again() -> None:
    machine = FakeMachine()
    items = [machine.item(1.0), alternating(machine, 1.0, 1.6, bursts=9)]
    protocol = Protocol(rounds=4, warmup_runs=0, patience=30)
    calm, settling = measure(items, protocol, steadiness=machine.steadiness(), clock=machine.clock)
    assert calm.runs == pytest.approx(4 * 20, abs=4)
    assert settling.runs > calm.runs
    assert (calm.p50_ms, settling.p50_ms) == pytest.approx((1.0, 1.0))
    assert settling.spread <= protocol.max_spread


def planted_drift(items: int, rounds: int, speed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    owner = np.tile(np.arange(items), rounds)
    base = np.geomspace(0.1, 5.0, items)
    noise = np.exp(0.003 * np.random.default_rng(0).normal(size=len(owner)))
    return owner, base[owner] * speed * noise


def test_drift_recovers_a_planted_ramp() -> None:
    ramp = np.linspace(0.9, 1.15, 10 * 30)
    speed = drift(*planted_drift(10, 30, ramp))
    ratio = speed / ramp
    inner = ratio[15:-15]  # a running median lags at the ends
    assert inner.max() / inner.min() < 1.015
    assert ratio.max() / ratio.min() < 1.05


def test_drift_recovers_a_planted_step() -> None:
    step = np.where(np.arange(300) < 140, 1.0, 1.15)
    speed = drift(*planted_drift(10, 30, step))
    assert speed[160:].mean() / speed[:120].mean() == pytest.approx(1.15, rel=0.01)


def test_without_drift_nothing_is_corrected() -> None:
    assert drift(*planted_drift(10, 30, np.ones(300))) == pytest.approx(np.ones(300), abs=0.004)


def test_few_items_cannot_tell_drift_from_themselves() -> None:
    owner, medians = planted_drift(3, 20, np.linspace(1, 2, 60))
    assert np.array_equal(drift(owner, medians), np.ones(60))
