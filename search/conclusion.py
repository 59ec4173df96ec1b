"""The end of a run: the trained networks are measured, one is chosen, and both files are written and checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hwnas.latency_tables.beside_anchors import BesideAnchors
from hwnas.latency_tables.machine import same_machine
from hwnas.latency_tables.runtimes.base import Executable, Runtime
from hwnas.latency_tables.timing import Protocol, Timing
from hwnas.search.device_node import measure_on_node
from hwnas.search.export import Agreement, export_network, export_runtime, file_accuracy
from hwnas.search.finals import Final, load_network
from hwnas.search.goal import Costs, Floats, Goal
from hwnas.search.observer import Observer
from hwnas.search.report.data import NetworkRow
from hwnas.search.run_folder import Run
from hwnas.search.run_result import Excess, RunResult

FINAL_PROTOCOL = Protocol(rounds=32, burst_s=0.006, max_spread=0.08)
ATTEMPTS = 10
"""A whole run rests on these figures, so a disturbance may last for minutes before they are refused."""


def conclude(run: Run, finals: list[Final], observer: Observer, address: str | None = None) -> RunResult:
    """Measures all finals interleaved, chooses by validation accuracy and cost, exports, and touches the test split.

    Where they could be measured, that counts instead of the prediction. The test split is read here and nowhere else,
    once for the chosen network and once for the reference.
    """
    measured = measure_finals(run, finals, observer, address)
    rows = np.array([run.space.encode(f.candidate) for f in finals])
    costs = dict(run.cost(rows))
    timings, drift = measured or (None, 1.0)
    if timings is not None:
        observer.note(f"{run.device.name} takes {drift:.2f} times as long now as when it was registered")
        costs["latency_ms"] = np.array([t.p50_ms for t in timings]) / drift
    goal = run.objective.goals[0]
    accuracies = np.array([f.validation_accuracy for f in finals[:-1]])
    chosen = choose(goal, accuracies, {name: values[:-1] for name, values in costs.items()})
    exceeded = {
        name: Excess(bound, float(costs[name][chosen]))
        for name, bound in goal.demands.items()
        if costs[name][chosen] > bound
    }
    picked = {"chosen": chosen, "reference": len(finals) - 1}
    networks, agreements = [], []
    for name, i in picked.items():
        file = run.folder / ("model.onnx" if name == "chosen" else "reference.onnx")
        observer.progress(f"exporting {file.name}", 0.6)
        network = load_network(run.space, finals[i].candidate, finals[i].weights)
        runtime = export_runtime(run.device)
        agreements.append(export_network(network, finals[i].candidate, run.space, run.dataset, runtime, file))
        timing = timings[i] if timings else None
        networks.append(_network_row(run, name, finals[i], file, timing, drift, agreements[-1]))
    candidates = tuple(dict(finals[i].candidate) for i in picked.values())
    seconds = {"search": _search_seconds(run)}
    result = RunResult(tuple(networks), candidates, agreements[0], seconds, drift, exceeded)
    result.save(run.folder / "result.json")
    return result


def choose(goal: Goal, accuracy: Floats, costs: Costs) -> int:
    """The number of the network that is worth most; where none meets what the goal demands, of what comes nearest.

    Args:
        goal: What is wanted.
        accuracy: Shape (n,).
        costs: By name, shape (n,).
    """
    rewards = goal.reward(accuracy, costs)
    if rewards.max() > 0:
        return int(np.argmax(rewards))
    return int(np.argmin(np.max([costs[name] / bound for name, bound in goal.demands.items()], axis=0)))


def measure_finals(
    run: Run, finals: list[Final], observer: Observer, address: str | None = None
) -> tuple[list[Timing], float] | None:
    """Latency of each final on the device, all interleaved, and how much slower the machine is than when registered.

    The device is this machine, or, where trials were measured too, the node that it is of the Ray cluster at
    ``address``. None where it is neither.

    A machine's clock follows its temperature and its other users, which shifts all latencies. Within a registration the
    anchors show the shift and it is taken out; here they bring predictions to the present speed.

    Raises:
        NoisyMeasurementError: Figures that do not repeat, in `ATTEMPTS` attempts.
        UnavailableError: The cluster has no such node.
    """
    if not same_machine(run.device.profile.facts):
        if not run.measures_trials:
            return None
        candidates = [final.candidate for final in finals]
        kept = f"what was trained is kept: go on with '{run.resume_command} --address …'"
        return measure_on_node(run.device, run.space, candidates, FINAL_PROTOCOL, ATTEMPTS, address, observer, kept)
    runtime = run.device.make_runtime()
    networks = [load_network(run.space, f.candidate, f.weights) for f in finals]
    names = [f"network {f.candidate.digest}" for f in finals]
    return measure_here(run, runtime, names, [runtime.prepare(network) for network in networks], observer)


def measure_here(
    run: Run, runtime: Runtime, names: Sequence[str], executables: Sequence[Executable], observer: Observer
) -> tuple[list[Timing], float]:
    """As `measure_finals`, of what is ready to run on the run's device, this machine, with the device's runtime.

    Raises:
        NoisyMeasurementError: Figures that do not repeat, in `ATTEMPTS` attempts.
    """
    observer.progress("measuring the networks, interleaved", 0.2)
    bench = BesideAnchors(run.space, run.device.table, runtime, run.steadiness)
    return bench.measure([e.run for e in executables], FINAL_PROTOCOL, names=names, attempts=ATTEMPTS)


def _search_seconds(run: Run) -> float:
    return max((t.finished_s for t in run.ledger.trials()), default=0.0)


def _network_row(
    run: Run, name: str, final: Final, file: Path, timing: Timing | None, drift: float, agreement: Agreement
) -> NetworkRow:
    costs = run.cost.of(final.candidate)
    return NetworkRow(
        name=name,
        digest=final.candidate.digest,
        test_accuracy=file_accuracy(file, run.dataset, run.dataset.test, export_runtime(run.device)),
        validation_accuracy=final.validation_accuracy,
        latency_predicted_ms=costs["latency_ms"] * drift,
        latency_predicted_std_ms=costs["latency_ms_std"] * drift,
        latency_measured_ms=timing.p50_ms if timing else math.nan,
        latency_p90_ms=timing.p90_ms if timing else math.nan,
        weight_bytes=int(costs["weight_bytes"]),
        file_bytes=agreement.file_bytes,
        macs=int(costs["macs"]),
        params=int(costs["params"]),
        peak_memory_bytes=int(costs["peak_memory_bytes"]),
        energy_predicted_mj=costs.get("energy_mj"),
        energy_predicted_std_mj=costs.get("energy_mj_std"),
    )
