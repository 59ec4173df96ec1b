"""Whole searches with different controllers and one budget: what each ends with, measured, and how it got there.

At the end the networks of all runs and the reference are measured once more, interleaved, on this machine: what runs
measured at different times is not compared. The hypervolume is that of the trials: validation accuracy above chance,
and latency, measured or predicted, below the reference's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.latency_tables.machine import same_machine
from hwnas.search.conclusion import measure_finals
from hwnas.search.config import ControllerConfig, SearchConfig
from hwnas.search.controllers.controller import controller_class
from hwnas.search.finals import Final
from hwnas.search.front import Front
from hwnas.search.observer import Observer
from hwnas.search.report.data import NetworkRow
from hwnas.search.run import best_trials, continue_run
from hwnas.search.run_folder import Run
from hwnas.spaces.candidate import Candidate
from hwnas.spaces.errors import InvalidFileError

SAME = ("space", "data", "objective", "also", "training", "final")
"""Sections of the configuration that runs must have in common to be compared, beside the device's name and the seed.

How they search is their own.
"""
SHARES = (0.25, 0.5, 0.75, 1.0)
"""Of the time that the search took, after which its hypervolume is taken."""
REFERENCE = "reference"


def run_figures(
    config: SearchConfig, controllers: Sequence[tuple[str, dict[str, Any]]], folder: Path, observer: Observer
) -> dict[str, dict[str, float]]:
    """Figures of each controller's run, and of the reference, which all of them train alike.

    Those of latency are missing where nothing was measured, because the device is another machine.

    Args:
        config: Of all that are not there yet, but for the controller.
        controllers: Names and options.
        folder: For the runs, one folder each; those that are there already are continued, or taken as they are.
        observer: Hears how each goes.

    Raises:
        InvalidFileError: A run that is there already cannot be compared with the others, see `SAME`.
        HwnasError: Other bad input, with what to do.
    """
    runs = {}
    for name, options in controllers:
        controller_class(name, options)
        own = folder / "-".join([name, *(f"{key}{value}" for key, value in options.items())])
        wanted = config.model_copy(update={"controller": ControllerConfig(name=name, options=options)})
        runs[own.name] = opened(own, wanted)
    for name, run in runs.items():
        observer.note(f"controller {name}: {run.folder}")
        continue_run(run, observer)
    observer.stage("Comparison")
    networks, latencies_ms = _measured_together(list(runs.values()), observer)
    rows = [
        _network_figures(network, networks[-1]) | _latency_figures(network, ms, latencies_ms[-1])
        for network, ms in zip(networks, latencies_ms, strict=True)
    ]
    searches = [_search_figures(run) for run in runs.values()]
    return {name: row | search for name, row, search in zip(runs, rows, searches, strict=False)} | {REFERENCE: rows[-1]}


def opened(folder: Path, wanted: SearchConfig, same: Sequence[str] = SAME) -> Run:
    """The run in the folder, or a new one; raises `InvalidFileError` where sections of its configuration differ."""
    if not (folder / "device").exists():
        return Run.create(folder, wanted)
    run = Run.open(folder)
    expected = wanted.model_copy(update={"space": wanted.space.resolved()})
    known = run.config
    differs = [section for section in same if getattr(known, section) != getattr(expected, section)]
    differs += ["device.name"] * (known.device.name != expected.device.name)
    differs += ["search.seed"] * (known.search.seed != expected.search.seed)
    if differs:
        raise InvalidFileError(
            f"{folder} holds a run that cannot be compared: its {', '.join(differs)} differ; give --out another folder"
        )
    return run


def _measured_together(runs: Sequence[Run], observer: Observer) -> tuple[list[NetworkRow], list[float]]:
    """What each run chose, and the reference, which comes last; and their latencies in milliseconds."""
    networks, finals = [], []
    for run, which in [*((run, 0) for run in runs), (runs[0], 1)]:
        result = run.result
        assert result is not None
        candidate, network = Candidate(result.candidates[which]), result.networks[which]
        networks.append(network)
        finals.append(Final(candidate, network.validation_accuracy, run.weights_path(candidate)))
    here = same_machine(runs[0].device.profile.facts)
    measured = measure_finals(runs[0], finals, observer) if here else None
    return networks, [timing.p50_ms for timing in measured[0]] if measured else [math.nan] * len(finals)


def _network_figures(network: NetworkRow, reference: NetworkRow) -> dict[str, float]:
    return {
        "test_accuracy": round(network.test_accuracy, 4),
        "points_to_reference": round(100 * (network.test_accuracy - reference.test_accuracy), 2),
        "times_smaller": round(reference.file_bytes / network.file_bytes, 2),
    }


def _latency_figures(network: NetworkRow, ms: float, reference_ms: float) -> dict[str, float]:
    """Nothing where nothing was measured; ``prediction_error`` is that of the network's own run, at its end."""
    if math.isnan(ms):
        return {}
    return {
        "latency_ms": round(ms, 4),
        "times_faster": round(reference_ms / ms, 3),
        "prediction_error": round(network.latency_predicted_ms / network.latency_measured_ms - 1, 4),
    }


def _search_figures(run: Run) -> dict[str, float]:
    trials = run.ledger.finished
    end = max(t.finished_s for t in trials)
    volumes = hypervolumes(run, [share * end for share in SHARES])
    figures = {f"hypervolume_{share:.0%}": round(volume, 4) for share, volume in zip(SHARES, volumes, strict=True)}
    best = best_trials(run, 1)[0].reward
    return {"trials": len(trials), "best_reward": round(best or 0.0, 4)} | figures | {"search_s": round(end)}


def hypervolumes(run: Run, seconds: Sequence[float]) -> list[float]:
    """Of the trials that had finished by then, as a share of the whole rectangle below the reference's latency."""
    trials = [t for t in run.ledger.finished if t.accuracy is not None]
    latency = run.costs_of(trials)["latency_ms"]
    worst = run.cost.of(run.space.reference())["latency_ms"]
    chance = 1 / run.dataset.num_classes
    front = Front.of(run.cost, "latency_ms", np.array([worst / 2]), worst_cost=worst, worst_accuracy=chance)
    found = []
    for at in seconds:
        done = np.array([t.finished_s <= at for t in trials])
        accuracy = np.array([t.accuracy for t in trials], dtype=np.float64)[done]
        found.append(front.worth(accuracy, {"latency_ms": latency[done]}) / (worst * (1 - chance)))
    return found
