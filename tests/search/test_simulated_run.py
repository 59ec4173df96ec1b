"""The beginning and the end of a search for a simulated device: nothing is measured, and predictions stand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hwnas.latency_tables import load_device
from hwnas.search.focus import can_focus
from hwnas.search.observer import Observer
from hwnas.search.report.summary import layer_rows, report_data
from hwnas.search.run import ensure_devices
from hwnas.search.run_folder import Run
from hwnas.search.run_result import RunResult
from hwnas.spaces.candidate import Candidate

from .fixtures import conclude_again, small_search

NAME = "simulated-bit-fusion"
OBJECTIVE = {"metric": "energy_mj", "target_ratio": 0.5, "constraint_ratios": {"latency_ms": 0.9}}


class Listener(Observer):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_the_device_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWNAS_DEVICES", str(tmp_path / "no devices"))
    run, listener = Run.create(tmp_path / "run", small_search(device={"name": NAME}, objective=OBJECTIVE)), Listener()
    ensure_devices(run, listener)
    assert listener.notes == [
        f"{NAME}: 16 × 32 fusion units at 500 MHz, 192 bits of DRAM traffic a cycle, simulated",
        "simulated: costs are computed",
    ]
    assert run.device == load_device(NAME)
    assert not can_focus(run, run.device)
    reference = run.cost.of(run.space.reference())
    assert run.objective.goals[0].target == pytest.approx(0.5 * reference["energy_mj"])
    assert run.objective.goals[0].constraints == {"latency_ms": pytest.approx(0.9 * reference["latency_ms"])}


@pytest.fixture(scope="module")
def result(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, RunResult]:
    """A finished run whose last step is done again, now for a simulated device."""
    folder = tmp_path_factory.mktemp("simulated") / "run"
    return conclude_again(finished, folder, load_device(NAME), objective=OBJECTIVE)


def test_predictions_are_exact_and_nothing_is_measured(result: tuple[Run, RunResult]) -> None:
    run, found = result
    accelerator = load_device(NAME).accelerator
    assert accelerator is not None
    for network, values in zip(found.networks, found.candidates, strict=True):
        operators = run.space.workload(Candidate(values)).operators
        assert network.latency_predicted_ms == pytest.approx(sum(map(accelerator.latency_ms, operators)))
        assert network.latency_predicted_std_ms == 0.0
        assert network.energy_predicted_mj == pytest.approx(sum(map(accelerator.energy_mj, operators)))
        assert network.energy_predicted_std_mj == 0.0
        assert np.isnan(network.latency_measured_ms)
    assert found.drift == 1.0
    written = json.loads((run.folder / "result.json").read_text())
    assert [n["latency_measured_ms"] for n in written["networks"]] == [None, None]


def test_the_exported_file_agrees(result: tuple[Run, RunResult]) -> None:
    _, found = result
    assert found.agreement.agrees
    assert found.agreement.integer_kernels == found.agreement.integer_layers


def test_the_report_compares_predictions(result: tuple[Run, RunResult]) -> None:
    run, found = result
    page = (run.folder / "report.html").read_text()
    assert "less energy than the reference by prediction" in page
    assert "energy, predicted: " in page
    assert "16 × 32 fusion units" in page
    assert "nothing: latency and energy are computed from the operators" in page
    assert "No held-out networks were measured." in page
    data = report_data(run, found)
    assert data.checks == []
    assert np.isnan(data.latency_mape)


def test_layers_say_how_the_device_runs_them(result: tuple[Run, RunResult]) -> None:
    run, _ = result
    rows = layer_rows(run, run.space.reference())
    assert {row.execution for row in rows} == {"emulated"}  # float32
    assert {row.latency_std_ms for row in rows} == {0.0}
    low = dict(run.space.reference()) | {d.name: 7 for d in run.space.decisions if d.name == "head.weight_bits"}
    low |= {d.name: 8 for d in run.space.decisions if d.name.endswith("act_bits")}
    head = next(row for row in layer_rows(run, Candidate(low)) if row.name == "head")
    assert head.execution == "stored only"
