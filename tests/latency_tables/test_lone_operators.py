"""Operators timed alone, for real; only the judge of the machine's steadiness is lenient."""

from __future__ import annotations

import pytest

from hwnas.latency_tables import beside_anchors
from hwnas.latency_tables import lone_operators as module
from hwnas.latency_tables.chunks import Chunk
from hwnas.latency_tables.lone_operators import LoneOperators, time_alone
from hwnas.latency_tables.plan import anchors
from hwnas.latency_tables.runtimes.onnxruntime import OnnxRuntime
from hwnas.latency_tables.steadiness import Steadiness
from hwnas.latency_tables.table import LatencyTable
from hwnas.latency_tables.timing import Timing
from hwnas.spaces import Operator, Space, load_space
from hwnas.spaces.errors import NoisyMeasurementError
from tests.synthetic_table import synthetic_table


def conv(channels: int) -> Operator:
    return Operator("conv", channels, channels, (16, 16), (16, 16), 3, activation="relu", affine="norm")


@pytest.fixture(scope="module")
def space() -> Space:
    return load_space("mbconv", input_shape=(1, 8, 8), num_classes=10)


def steadiness() -> Steadiness:
    return Steadiness(work=lambda: None, clock=lambda: 0.0)


def test_more_work_takes_longer_and_a_call_takes_the_least(space: Space) -> None:
    small, large = conv(8), conv(128)  # 256 times the work
    found = time_alone([small, large], 60.0, OnnxRuntime(), space, LatencyTable(), steadiness())
    assert 0 < found.call_ms < found.latency_ms[small] < found.latency_ms[large] / 5
    assert found.without_call(large) == pytest.approx(found.latency_ms[large] - found.call_ms)
    assert found.seconds > 0


def test_nothing_takes_less_than_a_call() -> None:
    assert LoneOperators({conv(8): 0.004}, call_ms=0.005, seconds=1.0).without_call(conv(8)) == 0.0


def test_it_stops_when_the_time_is_up(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 1)
    operators = [conv(8 * i) for i in range(1, 30)]
    found = time_alone(operators, 1e-3, OnnxRuntime(), space, LatencyTable(), steadiness())
    assert list(found.latency_ms) == operators[: len(found.latency_ms)]
    assert len(found.latency_ms) < len(operators)


class Planted:
    """Every item takes 2 ms, and each anchor 14 ms. Some chunks do not repeat."""

    def __init__(self, refused: frozenset[int]) -> None:
        self.calls = -1
        self.refused = refused

    def __call__(self, fixed: list[object], items: list[object], *_: object, **__: object) -> Chunk:
        self.calls += 1
        if self.calls in self.refused:
            raise NoisyMeasurementError("busy")
        return Chunk(tuple(Timing(2.0, 2.0, 0.0, 1) for _ in items), (14.0,) * len(fixed), 0.1)


def test_figures_are_brought_to_the_speed_of_the_table_and_noisy_chunks_left_out(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = synthetic_table(space, {"fit": anchors(space)}, lambda _: 7.0)
    monkeypatch.setattr(module, "CHUNK", 1)
    monkeypatch.setattr(beside_anchors, "measure_chunk", Planted(frozenset({1})))
    operators = [conv(8), conv(16), conv(24)]
    found = time_alone(operators, 60.0, OnnxRuntime(), space, table, steadiness())
    assert found.latency_ms == {operators[0]: 1.0, operators[2]: 1.0}
    assert found.call_ms == 1.0
