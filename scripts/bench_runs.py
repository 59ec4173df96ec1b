"""Whole searches with different controllers and one budget: what each ends with, measured, and how it got there.

Networks are measured at the end of each run, interleaved with the reference, so latencies are compared as ratios to it.
The hypervolume is that of the trials: validation accuracy above chance, and predicted latency below the reference's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.search.config import ControllerConfig, SearchConfig
from hwnas.search.controllers.controller import controller_class
from hwnas.search.front import Front
from hwnas.search.observer import Observer
from hwnas.search.run import continue_run
from hwnas.search.run_folder import Run
from hwnas.search.run_result import RunResult

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Of the time that the search took, after which its hypervolume is taken."""


def run_figures(
    config: SearchConfig,
    controllers: Sequence[tuple[str, dict[str, Any]]],
    folder: Path,
    observer: Observer,
    heard: Callable[[str, dict[str, float]], None] = lambda name, figures: None,
) -> dict[str, dict[str, float]]:
    """Figures of each controller's run.

    Args:
        config: Of all of them, but for the controller.
        controllers: Names and options.
        folder: For the runs, one folder each; those that are there already are continued, or taken as they are.
        observer: Hears how each goes.
        heard: Hears of each that has ended.
    """
    for name, options in controllers:
        controller_class(name, options)
    figures = {}
    for name, options in controllers:
        own = folder / "-".join([name, *(f"{key}{value}" for key, value in options.items())])
        if (own / "config.yaml").exists():
            run = Run.open(own)
        else:
            run = Run.create(
                own, config.model_copy(update={"controller": ControllerConfig(name=name, options=options)})
            )
        observer.note(f"controller {name}: {own}")
        result = continue_run(run, observer)
        figures[own.name] = _figures(run, result)
        heard(own.name, figures[own.name])
    return figures


def _figures(run: Run, result: RunResult) -> dict[str, float]:
    chosen, reference = result.networks[:2]
    trials = run.ledger.finished
    figures = {
        "trials": len(trials),
        "test_accuracy": round(chosen.test_accuracy, 4),
        "points_to_reference": round(100 * (chosen.test_accuracy - reference.test_accuracy), 2),
        "latency_ms": round(chosen.latency_measured_ms, 4),
        "times_faster": round(reference.latency_measured_ms / chosen.latency_measured_ms, 3),
        "times_smaller": round(reference.file_bytes / chosen.file_bytes, 2),
        "prediction_error": round(chosen.latency_predicted_ms / chosen.latency_measured_ms - 1, 4),
    }
    end = max(t.finished_s for t in trials)
    for share, volume in zip(SHARES, hypervolumes(run, [share * end for share in SHARES]), strict=True):
        figures[f"hypervolume_{share:.0%}"] = round(volume, 4)
    return figures | {"search_s": round(end)}


def hypervolumes(run: Run, seconds: Sequence[float]) -> list[float]:
    """Of the trials that had finished by then, as a share of the whole rectangle below the reference's latency."""
    trials = [t for t in run.ledger.finished if t.accuracy is not None]
    rows = np.array([t.row for t in trials])
    latency = run.cost(rows)["latency_ms"]
    worst = run.cost.of(run.space.reference())["latency_ms"]
    chance = 1 / run.dataset.num_classes
    front = Front.of(run.cost, "latency_ms", np.array([worst / 2]), worst_cost=worst, worst_accuracy=chance)
    found = []
    for at in seconds:
        done = np.array([t.finished_s <= at for t in trials])
        accuracy = np.array([t.accuracy for t in trials], dtype=np.float64)[done]
        found.append(front.worth(accuracy, {"latency_ms": latency[done]}) / (worst * (1 - chance)))
    return found
