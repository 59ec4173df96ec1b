"""`hwnas bench latency` on a planted device, and its ways that time operators alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwnas.latency_tables import beside_anchors, lone_operators
from hwnas.latency_tables.chunks import Chunk
from hwnas.latency_tables.machine import machine_facts
from hwnas.latency_tables.records import anchors_usual_ms
from hwnas.latency_tables.timing import Timing
from hwnas.predictors.learnt import physical_model
from hwnas.scripts.bench_operators import left_out_figures
from hwnas.spaces import Operator
from tests.search.fixtures import NAME, digits_space, planted_ms, synthetic_device

from .command import Hwnas


@pytest.mark.usefixtures("devices")
def test_on_what_is_stored(hwnas: Hwnas) -> None:
    answer = hwnas("bench", "latency", "--device", NAME, "--stored")
    assert answer.code == 0, answer.err
    figures = json.loads(answer.out)
    ways = figures["ways"]
    assert set(ways) == {
        "hwnas", "whole networks, no operators timed", "line through MACs", "line through MACs, operators, bytes",
    }  # fmt: skip
    assert ways["hwnas"]["mape"] < 0.2 * ways["line through MACs"]["mape"]
    assert (figures["networks_measured"], figures["networks_held_out"]) == (212, 40)
    curve = figures["by_seconds"]
    assert [row["networks"] for row in curve] == sorted(row["networks"] for row in curve)
    assert curve[-1] == {"seconds": 1.5, "networks": 212, **ways["hwnas"]}
    assert curve[0]["mape"] > curve[-1]["mape"]
    assert "whole networks held out" in answer.err


def test_of_a_device_of_two_spaces_the_first_counts_and_seconds_do_not(hwnas: Hwnas, devices: Path) -> None:
    device = synthetic_device()
    other = [replace(n, space='{"name": "other"}', latency_ms_p50=9.0) for n in device.table.networks]
    table = replace(device.table, networks=(*device.table.networks, *other))
    replace(device, table=table).save(devices / NAME)
    figures = json.loads(hwnas("bench", "latency", "--device", NAME, "--stored").out)
    assert (figures["networks_measured"], figures["by_seconds"]) == (212, [])
    assert figures["ways"]["hwnas"]["mape"] < 0.001


@pytest.mark.usefixtures("devices")
def test_operators_of_another_machine_cannot_be_timed(hwnas: Hwnas) -> None:
    assert "--stored compares the other ways" in hwnas("bench", "latency", "--device", NAME).complaint


def test_operators_timed_alone(hwnas: Hwnas, devices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes what is planted and a call of 5 µs; the machine is twice as slow as the table says."""
    device = synthetic_device()
    facts = device.profile.facts | machine_facts()
    replace(device, profile=device.profile.model_copy(update={"facts": facts})).save(devices / NAME)
    usual_ms = anchors_usual_ms(digits_space(), device.table)
    prepared: list[Operator] = []

    def model(operator: Operator, **_: object) -> object:
        prepared.append(operator)
        return lone_operators._nothing()

    def measured(_: object, items: list[object], *__: object, **___: object) -> Chunk:
        own_ms = [0.0, *map(planted_ms, prepared)]
        prepared.clear()
        assert len(own_ms) == len(items)
        timings = tuple(Timing(2 * (ms + 0.005), 2 * (ms + 0.005), 0.0, 1) for ms in own_ms)
        return Chunk(timings, tuple(2 * (ms or 0.0) for ms in usual_ms), 0.1)

    monkeypatch.setattr(beside_anchors, "measure_chunk", measured)
    monkeypatch.setattr(lone_operators, "operator_to_onnx", model)
    answer = hwnas("bench", "latency", "--device", NAME, "--seconds", "3600")
    assert answer.code == 0, answer.err
    figures = json.loads(answer.out)
    assert figures["operators_timed_alone"]["share_of_held_out_networks"] == 1.0
    assert figures["operators_timed_alone"]["call_ms"] == pytest.approx(0.005)
    ways = figures["ways"]
    # Networks take 20 µs beside their operators, and a call 5 µs: what is left is 15 µs of some 200.
    assert 0.02 < ways["operators alone, summed, the call counted once"]["mape"] < 0.2
    assert ways["operators alone, summed"]["mape"] > 0.5, "a call for every operator"
    assert ways["forest per kind (nn-Meter), the call counted once"]["kendall_tau"] > 0.8
    assert figures["operators_left_out"]["alone"]["mape"] < 0.1


def test_errors_of_operators_left_out() -> None:
    device = synthetic_device()
    operators = [row.operator for row in device.table.operators]
    rng = np.random.default_rng(0)
    costs = np.array([planted_ms(o) for o in operators])
    exact = left_out_figures(physical_model(device), [(o, c, 1) for o, c in zip(operators, costs, strict=True)])
    noisy = costs * np.exp(0.2 * rng.normal(size=len(costs)))
    rough = left_out_figures(physical_model(device), [(o, c, 1) for o, c in zip(operators, noisy, strict=True)])
    assert exact["mape"] < 0.05 < 0.15 < rough["mape"] < 0.25
    assert 0.9 <= rough["coverage_of_2_std"] <= 0.99
    assert rough["resolved"] == (noisy >= 0.001).sum()
    assert left_out_figures(physical_model(device), []) == {}
