"""Timing on a fake machine, where the truth is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from hwnas.latency_tables.timing import Protocol, burst, measure
from hwnas.spaces.errors import HwnasError, NoisyMeasurementError

from .fake_machine import FakeMachine

PLANTED_MS = (0.2, 0.5, 1.0, 3.0, 0.35, 0.8)


def protocol(rounds: int = 5, burst_s: float = 0.02, **settings: float) -> Protocol:
    return Protocol(rounds=rounds, burst_s=burst_s, **settings)  # type: ignore[arg-type]


def test_a_burst_warms_up_and_fills_its_time() -> None:
    machine = FakeMachine()
    calls = []

    def run() -> None:
        calls.append(machine.now)
        machine.work(8.0 if len(calls) <= 3 else 2.0)  # cold caches

    times = burst(run, protocol(burst_s=0.02, min_runs=5, warmup_runs=3), machine.clock)
    assert times == pytest.approx([0.002] * 10)
    assert len(calls) == 3 + 10


def test_a_burst_of_something_slow_has_its_least_runs() -> None:
    machine = FakeMachine()
    assert burst(machine.item(50), protocol(burst_s=0.02, min_runs=5), machine.clock) == pytest.approx([0.05] * 5)


def test_something_slow_is_not_warmed_up_for_long() -> None:
    machine = FakeMachine()
    burst(machine.item(50), Protocol(min_runs=3, warmup_runs=3), machine.clock)
    assert machine.now == pytest.approx(0.05 * (1 + 3))


def test_a_quiet_machine_gives_the_planted_latencies() -> None:
    machine = FakeMachine()
    items = [machine.item(ms) for ms in PLANTED_MS]
    timings = measure(items, protocol(rounds=4), steadiness=machine.steadiness(), clock=machine.clock)
    assert [t.p50_ms for t in timings] == pytest.approx(PLANTED_MS, rel=1e-9)
    assert [t.p90_ms for t in timings] == pytest.approx(PLANTED_MS, rel=1e-9)
    assert [t.spread for t in timings] == pytest.approx([0.0] * 6, abs=1e-9)
    assert [t.runs for t in timings] == pytest.approx([4 * max(5, 20 / ms) for ms in PLANTED_MS], abs=4)


def phases(t: float) -> float:
    """Slow by up to 1.9 times for 40 % of the time, in stretches of 50 to 200 ms."""
    return 1.0 if (t % 0.5) < 0.3 else 1.5 + 0.4 * (int(t / 0.5) % 2)


def test_slow_phases_do_not_show() -> None:
    machine = FakeMachine(phases)
    rough = [np.median(burst(machine.item(1.0), protocol(), machine.clock)) for _ in range(60)]
    assert np.mean(np.array(rough) > 0.0012) > 0.25, "the planted phases do disturb a plain burst"
    items = [machine.item(ms, 0.01, seed) for seed, ms in enumerate(PLANTED_MS)]
    timings = measure(items, protocol(rounds=5), steadiness=machine.steadiness(), clock=machine.clock)
    assert [t.p50_ms for t in timings] == pytest.approx(PLANTED_MS, rel=0.01)
    assert all(t.spread < 0.02 for t in timings)


def test_phases_of_which_the_machine_has_known_better_times_are_waited_out() -> None:
    """It begins within a long slow phase, which only an earlier session can tell."""
    machine = FakeMachine(lambda t: 1.7 if t < 3.0 else 1.0)
    items = [machine.item(ms) for ms in PLANTED_MS]
    timings = measure(items, protocol(rounds=3), steadiness=machine.steadiness(0.1), clock=machine.clock)
    assert [t.p50_ms for t in timings] == pytest.approx(PLANTED_MS, rel=1e-6)
    assert machine.now > 3.0


def test_what_disturbs_some_bursts_of_some_items_does_not_show() -> None:
    """Within one speed, other guests take up to 15 % of most bursts, and of some items more than of others."""
    machine = FakeMachine()
    rng = np.random.default_rng(0)

    def disturbed(ms: float, share: float) -> Callable[[], None]:
        state = {"end": -1.0, "slow": 1.0}

        def run() -> None:
            if machine.now > state["end"]:  # something else ran in between: a new burst
                state["slow"] = 1.0 + 0.15 * rng.random() * (rng.random() < share)
            machine.work(ms * state["slow"])
            state["end"] = machine.now

        return run

    items = [disturbed(ms, share) for ms, share in zip(PLANTED_MS, (0.0, 0.3, 0.5, 0.6, 0.7, 0.7), strict=True)]
    timings = measure(items, Protocol(), steadiness=machine.steadiness(), clock=machine.clock)
    assert [t.p50_ms for t in timings] == pytest.approx(PLANTED_MS, rel=0.01)
    assert timings[0].spread == pytest.approx(0.0, abs=1e-9)
    assert timings[-1].spread > 0.01
    assert timings[-1].p90_ms > 1.03 * PLANTED_MS[-1]


def planted_bursts(machine: FakeMachine, slow: list[float]) -> Callable[[], None]:
    """Takes 1 ms times the next of the factors in each burst, over and over."""
    state = {"end": -1.0, "burst": -1}

    def run() -> None:
        if machine.now > state["end"]:  # something else ran in between: a new burst
            state["burst"] += 1
        machine.work(slow[int(state["burst"]) % len(slow)])
        state["end"] = machine.now

    return run


def test_the_quantile_the_spread_and_the_90th_percentile_by_hand() -> None:
    machine = FakeMachine()
    factors = [1 + i / 100 for i in (7, 3, 0, 9, 1, 5, 10, 2, 8, 4, 6)]  # eleven bursts of 1.00, 1.01, … 1.10 ms
    plan = protocol(rounds=11, burst_s=0.005, warmup_runs=0)
    (timing,) = measure([planted_bursts(machine, factors)], plan, steadiness=machine.steadiness(), clock=machine.clock)
    assert timing.p50_ms == pytest.approx(1.01), "the 10 % quantile of eleven is the second"
    assert timing.p90_ms == pytest.approx(1.05), "the median burst's"
    assert timing.spread == pytest.approx((1.05 - 1.00) / 2 / 1.01)


def test_the_least_of_few_bursts_may_be_a_fluke() -> None:
    machine = FakeMachine()
    run = planted_bursts(machine, [1.0, 1.0, 0.9, 1.0, 1.0])
    (timing,) = measure([run], protocol(), steadiness=machine.steadiness(), clock=machine.clock)
    assert timing.p50_ms == pytest.approx(1.0)


def test_slow_drift_falls_on_all_items_alike() -> None:
    machine = FakeMachine(lambda t: 1.0 + 0.12 * min(1.0, t / 1.6))
    items = [machine.item(ms) for ms in PLANTED_MS]
    timings = measure(items, protocol(rounds=8), steadiness=machine.steadiness(), clock=machine.clock)
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

    (timing,) = measure([run], protocol(rounds=4), steadiness=machine.steadiness(), clock=machine.clock)
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


def restless(machine: FakeMachine) -> Callable[[], None]:
    """Takes another time in every run, without end."""
    rng = np.random.default_rng(0)
    return lambda: machine.work(1.0 + 2.0 * float(rng.random()))


def test_a_noisy_item_is_refused_by_name() -> None:
    machine = FakeMachine()
    items = [machine.item(1.0), restless(machine), machine.item(4.0)]
    with pytest.raises(NoisyMeasurementError, match=r"unsteady does not repeat: .* differs by ±\d+% after 12 rounds"):
        measure(
            items,
            protocol(rounds=4, patience=3, burst_s=0.003),
            names=["calm", "unsteady", "slow"],
            steadiness=machine.steadiness(),
            clock=machine.clock,
        )


def test_an_unnamed_item_is_refused_by_number() -> None:
    machine = FakeMachine()
    items = [machine.item(1.0), restless(machine)]
    with pytest.raises(HwnasError, match="item 1 does not repeat"):
        measure(
            items, protocol(rounds=6, patience=2, burst_s=0.003), steadiness=machine.steadiness(), clock=machine.clock
        )


def test_noise_within_bursts_is_averaged_out() -> None:
    machine = FakeMachine()
    items = [machine.item(ms, 0.1, seed) for seed, ms in enumerate(PLANTED_MS)]
    timings = measure(items, protocol(rounds=12), steadiness=machine.steadiness(), clock=machine.clock)
    assert [t.p50_ms for t in timings] == pytest.approx(PLANTED_MS, rel=0.08)
    assert all(t.p90_ms > 1.08 * t.p50_ms for t in timings)


def test_where_waiting_is_in_vain_the_present_speed_is_measured() -> None:
    machine = FakeMachine(lambda _: 1.8)
    plan = protocol(rounds=2, patience=2, max_wait_s=0.3)
    steadiness = machine.steadiness(0.1)
    (timing,) = measure([machine.item(1.0)], plan, steadiness=steadiness, clock=machine.clock)
    assert timing.p50_ms == pytest.approx(1.8)
    assert machine.now == pytest.approx(0.3 + 2 * 0.03, abs=0.05)
    measure([machine.item(1.0)], plan, steadiness=steadiness, clock=machine.clock)
    assert machine.now == pytest.approx(0.3 + 4 * 0.03, abs=0.1), "waiting is bounded in all"


@pytest.mark.parametrize(("slow", "slower"), [(1.5, 2.2), (1.5, 2.0)])
@pytest.mark.parametrize("period_s", [0.2, 0.7, 5.0])
def test_speeds_are_never_mixed(slow: float, slower: float, period_s: float) -> None:
    """It never reaches its known speed, and changes between two others that slow the items differently."""
    machine = FakeMachine(lambda t: slow if t % period_s < 0.45 * period_s else slower)
    sensitivity = np.linspace(0.6, 1.2, len(PLANTED_MS))
    items = [machine.item(ms, sensitivity=s) for ms, s in zip(PLANTED_MS, sensitivity, strict=True)]
    steadiness = machine.steadiness(0.1, noise=0.05)
    timings = measure(items, protocol(rounds=4, max_wait_s=0.1), steadiness=steadiness, clock=machine.clock)
    ratios = np.array([t.p50_ms for t in timings]) / PLANTED_MS
    speed = ratios[-1] ** (1 / 1.2)
    assert min(abs(speed / slow - 1), abs(speed / slower - 1)) < 0.01
    assert ratios == pytest.approx(speed**sensitivity, rel=0.01)


def test_the_speed_taken_instead_becomes_the_usual_one_until_it_is_gone() -> None:
    machine = FakeMachine(lambda t: 1.5 if t < 5.0 else 2.2)
    items, plan = [machine.item(ms) for ms in PLANTED_MS], protocol(rounds=2, max_wait_s=0.1)
    steadiness = machine.steadiness(0.1)
    for start, speed in ((0.0, 1.5), (2.0, 1.5), (6.0, 2.2)):
        machine.now = start
        timings = measure(items, plan, steadiness=steadiness, clock=machine.clock)
        assert [t.p50_ms for t in timings] == pytest.approx(speed * np.array(PLANTED_MS))
        assert steadiness.usual_ms == pytest.approx(0.1 * speed)


def test_moments_of_a_better_speed_do_not_spoil_the_one_that_lasts() -> None:
    """They end every wait at once, and no burst fits into one."""
    machine = FakeMachine(lambda t: 0.75 if t % 0.1 < 0.0015 else 1.0)
    items = [machine.item(ms) for ms in PLANTED_MS]
    timings = measure(
        items, protocol(rounds=16, burst_s=0.004), steadiness=machine.steadiness(0.075), clock=machine.clock
    )
    assert [t.p50_ms for t in timings] == pytest.approx(PLANTED_MS)


def test_a_speed_at_which_an_item_does_not_repeat_is_not_taken() -> None:
    machine = FakeMachine(lambda t: 1.5 if t % 0.4 < 0.2 else 2.2)
    calls = iter(range(10**6))

    def restless() -> None:
        machine.work(1.0 if machine.slowness(machine.now) > 2 else 1.0 + next(calls) // 20 % 3)

    items = [machine.item(1.0), restless]
    plan = protocol(rounds=4, max_wait_s=0.0, warmup_runs=0)
    timings = measure(items, plan, steadiness=machine.steadiness(0.1), clock=machine.clock)
    assert [t.p50_ms for t in timings] == pytest.approx([2.2, 2.2])


def test_a_better_speed_than_the_one_settled_on_is_taken_at_once() -> None:
    machine = FakeMachine()
    steadiness = machine.steadiness(0.1)
    steadiness.settle(0.15)
    plan = protocol(rounds=4)
    timings = measure([machine.item(1.0)], plan, steadiness=steadiness, clock=machine.clock)
    assert timings[0].p50_ms == pytest.approx(1.0)
    assert machine.now < 5 * plan.burst_s * 1.5
    assert steadiness.usual_ms == pytest.approx(0.1)


def test_speeds_that_change_within_bursts_are_refused() -> None:
    machine = FakeMachine(lambda t: 1.5 if t % 0.05 < 0.025 else 2.2)
    items = [machine.item(ms) for ms in PLANTED_MS]
    with pytest.raises(NoisyMeasurementError):
        measure(items, protocol(max_wait_s=0.1), steadiness=machine.steadiness(0.1), clock=machine.clock)


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
    plan = protocol(rounds=5, patience=1, max_wait_s=0.0)
    with pytest.raises(NoisyMeasurementError, match=r"net cannot be measured: .* during only [1-4] of 5 bursts"):
        measure([machine.item(1.0)], plan, names=["net"], steadiness=machine.steadiness(0.1), clock=machine.clock)


def test_only_items_that_lack_bursts_are_measured_again() -> None:
    machine = FakeMachine()
    items = [machine.item(1.0), alternating(machine, 1.0, 1.6, bursts=9)]
    plan = protocol(rounds=4, warmup_runs=0, patience=30)
    calm, settling = measure(items, plan, steadiness=machine.steadiness(), clock=machine.clock)
    assert calm.runs == pytest.approx(4 * 20, abs=4)
    assert settling.runs > calm.runs
    assert (calm.p50_ms, settling.p50_ms) == pytest.approx((1.0, 1.0))
    assert settling.spread <= plan.max_spread
