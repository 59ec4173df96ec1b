"""Whole searches compared: figures of runs that are there already."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hwnas.scripts.bench_runs import hypervolumes
from hwnas.search import conclusion
from hwnas.search.run_folder import Run
from tests.search.fixtures import PATIENT, RESULTS, on_this_machine

from .command import Hwnas, write_search


@pytest.mark.usefixtures("devices")
def test_runs_that_are_there_are_taken_as_they_are(
    finished: Path, hwnas: Hwnas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conclusion, "FINAL_PROTOCOL", PATIENT)
    run = on_this_machine(finished, tmp_path / "runs" / "evolution")
    RESULTS[finished].save(run.folder / "result.json")
    search = write_search(tmp_path / "search.yaml")
    answer = hwnas("bench", "runs", search, "--controllers", "evolution", "--out", "runs")
    assert answer.code == 0, answer.err
    figures, of_reference = (json.loads(answer.out)[name] for name in ("evolution", "reference"))
    chosen, reference = RESULTS[finished].networks
    assert figures["trials"] == 4
    assert figures["test_accuracy"] == round(chosen.test_accuracy, 4)
    assert figures["times_smaller"] == round(reference.file_bytes / chosen.file_bytes, 2)
    assert figures["hypervolume_25%"] <= figures["hypervolume_100%"] <= 1
    assert of_reference["test_accuracy"] == round(reference.test_accuracy, 4)
    # Measured together, once more.
    assert figures["times_faster"] == pytest.approx(of_reference["latency_ms"] / figures["latency_ms"], rel=0.01)
    assert of_reference["times_faster"] == 1
    assert "evolution" in answer.err
    assert (
        "did you mean 'evolution'"
        in hwnas("bench", "runs", search, "--controllers", "evolutoin", "--out", "runs").complaint
    )
    answer = hwnas("bench", "runs", search, "--controllers", "evolution", "--out", "runs", "--data", "other.parquet")
    assert "holds a run that cannot be compared: its data differ; give --out another folder" in answer.complaint


def test_the_hypervolume_is_the_share_of_the_rectangle_that_trials_dominate(finished: Path) -> None:
    run = Run.open(finished)
    trials = [t for t in run.ledger.finished if t.accuracy is not None]
    worst = run.cost.of(run.space.reference())["latency_ms"]
    latency = run.cost(np.array([t.row for t in trials]))["latency_ms"]
    # Counted on a fine grid of latencies: what is the best accuracy below each?
    grid = (np.arange(20_000) + 0.5) / 20_000 * worst
    best = np.full(len(grid), 0.1)
    for trial, ms in zip(trials, latency, strict=True):
        assert trial.accuracy is not None
        best[grid >= ms] = np.maximum(best[grid >= ms], trial.accuracy)
    none, all_of_them = hypervolumes(run, [0.0, 1e9])
    assert none == 0
    assert all_of_them == pytest.approx((best - 0.1).mean() / 0.9, abs=2e-4)
