"""Files of one trained model's networks beside each other: accuracy, size, and latency measured interleaved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hwnas.latency_tables.machine import same_machine
from hwnas.latency_tables.runtimes.onnxruntime import OnnxExecutable, OnnxRuntime
from hwnas.search.conclusion import measure_here
from hwnas.search.export import export_runtime, file_accuracy
from hwnas.search.observer import Observer
from hwnas.search.run_folder import Run

STATIC, ORIGINAL = "static int8", "original"
"""What all files are compared with: ONNX Runtime's own quantisation of the model, and the model."""
Figures = dict[str, float]


def file_figures(run: Run, files: Mapping[str, Path], observer: Observer) -> dict[str, Figures]:
    """Test accuracy and size of each file; and latencies, where the run's device is this machine.

    Args:
        run: Whose test images and device.
        files: By name; `STATIC` and `ORIGINAL` are among them.
        observer: Hears how it goes.

    Raises:
        NoisyMeasurementError: Latencies that do not repeat.
    """
    runtime = export_runtime(run.device)
    rows: dict[str, Figures] = {}
    for i, (name, path) in enumerate(files.items()):
        observer.progress(f"test accuracy of {name}", i / len(files))
        rows[name] = {"test_accuracy": file_accuracy(path, run.dataset, run.dataset.test, runtime)}
    latencies = _latencies(run, files, observer)
    original = rows[ORIGINAL]["test_accuracy"]
    size = files[ORIGINAL].stat().st_size
    for name, row in rows.items():
        row["points"] = round(100 * (row["test_accuracy"] - original), 2)
        row["times_smaller"] = round(size / files[name].stat().st_size, 2)
        if latencies:
            row["latency_ms"] = latencies[name]
            row["times_faster"] = round(latencies[ORIGINAL] / latencies[name], 3)
            row["times_faster_than_int8"] = round(latencies[STATIC] / latencies[name], 3)
    return rows


def _latencies(run: Run, files: Mapping[str, Path], observer: Observer) -> dict[str, float]:
    """Medians in milliseconds, interleaved; none where the device is another machine, or runs no ONNX files."""
    if not same_machine(run.device.profile.facts):
        return {}
    runtime = run.device.make_runtime()
    if not isinstance(runtime, OnnxRuntime):
        observer.note(f"latencies are left out: the device runs {runtime.name}, and the files are for ONNX Runtime")
        return {}
    executables = [OnnxExecutable(runtime, path, run.space.input_shape) for path in files.values()]
    timings, _ = measure_here(run, runtime, list(files), executables, observer)
    return {name: timing.p50_ms for name, timing in zip(files, timings, strict=True)}
