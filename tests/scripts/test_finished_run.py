"""What the command does with a finished run, whole or damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from hwnas.search.reach import least_cost
from hwnas.search.report.data import percent
from hwnas.search.run_folder import Run
from hwnas.spaces.errors import NoisyMeasurementError
from hwnas.spaces.onnx_graph import weight_bytes
from tests.search.fixtures import NAME, RESULTS

from .command import Hwnas, write_search


def test_report(finished: Path, hwnas: Hwnas, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "report.html").unlink()
    answer = hwnas("report", "run")
    assert answer.code == 0
    assert (tmp_path / "run" / "report.html").stat().st_size > 100_000
    chosen, reference = RESULTS[finished].networks
    line = next(line for line in answer.out.splitlines() if "test accuracy" in line)
    assert percent(chosen.test_accuracy) in line
    assert percent(reference.test_accuracy) in line
    assert "report: run/report.html" in answer.out


@pytest.mark.parametrize(("network", "name"), [("chosen", "model.onnx"), ("reference", "reference.onnx")])
def test_export(network: str, name: str, finished: Path, hwnas: Hwnas, tmp_path: Path) -> None:
    arguments = () if network == "chosen" else ("--network", network)
    answer = hwnas("export", finished, "--out", "deep/out.onnx", *arguments)
    assert answer.code == 0, answer.err
    assert (tmp_path / "deep" / "out.onnx").read_bytes() == (finished / name).read_bytes()
    size = (finished / name).stat().st_size
    assert answer.out.startswith(f"deep/out.onnx: {size:,} bytes; same class as the torch module on ")
    assert weight_bytes(onnx.load(tmp_path / "deep" / "out.onnx")) > 0


def test_export_needs_a_place(finished: Path, hwnas: Hwnas) -> None:
    answer = hwnas("export", finished)
    assert answer.code == 2
    assert "Missing option '--out'" in answer.err


def test_resume_shows_the_table_again(finished: Path, hwnas: Hwnas, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    before = (tmp_path / "run" / "optuna.db").read_bytes()
    answer = hwnas("search", "--resume", "run")
    assert answer.code == 0, answer.err
    assert "test accuracy" in answer.out
    assert "model: run/model.onnx" in answer.out.replace("  ", " ")
    assert (tmp_path / "run" / "optuna.db").read_bytes() == before


def test_a_machine_too_busy_for_the_last_step_loses_nothing(
    finished: Path, hwnas: Hwnas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()

    def busy(*_: object) -> None:
        raise NoisyMeasurementError("network 1 does not repeat")

    with monkeypatch.context() as planted:
        planted.setattr("hwnas.search.run.conclude", busy)
        answer = hwnas("search", "--resume", "run")
    assert answer.code == 2
    assert "network 1 does not repeat" in answer.err
    assert "everything finished is kept, continue with: hwnas search --resume run" in answer.err
    assert hwnas("search", "--resume", "run").code == 0


def test_a_second_search_in_its_folder(finished: Path, hwnas: Hwnas, tmp_path: Path) -> None:
    search = write_search(tmp_path / "search.yaml")
    said = hwnas("search", search, "--out", finished).complaint
    assert said == f"{finished} holds a run already; continue it with 'hwnas search --resume {finished}'"


def test_decisions_that_the_space_does_not_have(finished: Path, hwnas: Hwnas, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    path = tmp_path / "run" / "result.json"
    path.write_text(path.read_text().replace('"head.width"', '"head.widht"'))
    said = hwnas("export", "run", "--out", "out.onnx").complaint
    assert "unknown decision of space 'mbconv': 'head.widht'; did you mean 'head.width'?" in said
    assert not (tmp_path / "out.onnx").exists()


def test_weights_of_another_network(finished: Path, hwnas: Hwnas, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    chosen, reference = (tmp_path / "run" / "finals" / f"{n.digest}.safetensors" for n in RESULTS[finished].networks)
    shutil.copy(reference, chosen)
    assert "does not hold the weights of network" in hwnas("export", "run", "--out", "out.onnx").complaint
    chosen.write_bytes(b"no tensors")
    assert "does not hold the weights of network" in hwnas("export", "run", "--out", "out.onnx").complaint
    assert not (tmp_path / "out.onnx").exists()


def test_a_damaged_run(finished: Path, hwnas: Hwnas, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "result.json").write_text("{}")
    assert "result.json is not a run's result" in hwnas("report", "run").complaint
    (tmp_path / "run" / "config.yaml").write_text("data: [")
    assert "config.yaml is not valid YAML" in hwnas("report", "run").complaint


def test_a_damaged_database(finished: Path, hwnas: Hwnas, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "optuna.db").write_bytes(b"no database" * 500)
    assert "optuna.db is not a usable Optuna storage" in hwnas("report", "run").complaint


@pytest.mark.usefixtures("devices")
def test_adapt_finds_candidates_for_every_device_and_budget(finished: Path, hwnas: Hwnas, tmp_path: Path) -> None:
    run = Run.open(finished)
    least = least_cost(run.space, run.cost, "latency_ms", np.random.default_rng(0))
    targets = [round(1.5 * least, 4), round(3 * least, 4)]
    arguments = [part for target in targets for part in ("--target", target)]
    answer = hwnas("adapt", finished, "--device", NAME, *arguments, "--out", "found.json")
    assert answer.code == 0, answer.err
    found = json.loads((tmp_path / "found.json").read_text())
    assert [(entry["device"], entry["latency_ms"]) for entry in found] == [(NAME, target) for target in targets]
    for entry in found:
        candidate = run.space.decode(run.space.encode(entry["candidate"]))
        assert run.cost.of(candidate)["latency_ms"] <= entry["latency_ms"]
        assert candidate.digest in answer.out
    assert "no candidate within {'latency_ms': 1e-06}" in hwnas("adapt", finished, "--target", "1e-6").complaint
    assert (
        "unknown cost 'latency'; did you mean"
        in hwnas("adapt", finished, "--target", "1", "--metric", "latency").complaint
    )
    assert "nothing is known of energy" in hwnas("adapt", finished, "--target", "1", "--metric", "energy_mj").complaint
