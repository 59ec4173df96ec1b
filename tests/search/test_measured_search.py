"""A whole search whose trials are measured on this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwnas.latency_tables.machine import machine_facts
from hwnas.search import conclusion, run_search
from hwnas.search.observer import Observer
from hwnas.search.run_folder import Run

from .fixtures import NAME, PATIENT, registered, small_search, synthetic_device


@pytest.mark.slow
def test_networks_of_trials_are_measured_while_they_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conclusion, "FINAL_PROTOCOL", PATIENT)
    notes: list[str] = []

    class Listener(Observer):
        def note(self, text: str) -> None:
            notes.append(text)

    with registered(tmp_path / "devices") as folder:
        device = synthetic_device()
        own = {"facts": device.profile.facts | machine_facts(), "simulated": False}
        replace(device, profile=device.profile.model_copy(update=own)).save(folder / NAME)
        config = small_search(
            device={"measure_trials": True, "focus_networks": 0}, search={"trials": 4, "early_stopping": False}
        )
        result = run_search(config, tmp_path / "run", Listener())
    run = Run.open(tmp_path / "run")
    trials = run.ledger.finished
    measured = [t for t in trials if t.measured]
    assert measured
    assert len(measured) + sum("is judged by prediction" in note for note in notes) == len(trials) == 4
    for trial in measured:
        costs = {name: np.array([ms]) for name, ms in trial.known_costs.items()}
        assert costs["latency_ms"] != trial.costs["latency_ms"]
        assert trial.reward == run.objective.reward(np.array([trial.accuracy]), costs)[0]
    assert np.isfinite([network.latency_measured_ms for network in result.networks]).all()
    assert '"text":"latency, ms"' in (run.folder / "report.html").read_text()
