"""Each dimension of a trained model's compression alone, all of them together, and what there is without a search."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev

import numpy as np
import torch

from hwnas.latency_tables.beside_anchors import BesideAnchors
from hwnas.latency_tables.machine import same_machine
from hwnas.latency_tables.runtimes.onnx_static import write_static
from hwnas.latency_tables.runtimes.onnxruntime import OnnxExecutable
from hwnas.predictors.cost import CostModel
from hwnas.scripts.bench_runs import SAME, opened
from hwnas.search.compression.preparation import EVIDENCE
from hwnas.search.compression.sensitivity import SENSITIVITY
from hwnas.search.conclusion import ATTEMPTS, FINAL_PROTOCOL
from hwnas.search.config import ControllerConfig, SearchConfig
from hwnas.search.evaluation import evaluator_of
from hwnas.search.export import export_network, export_runtime, file_accuracy
from hwnas.search.finals import load_network, train_final
from hwnas.search.observer import Observer
from hwnas.search.reach import least_cost
from hwnas.search.run import continue_run
from hwnas.search.run_folder import Run
from hwnas.spaces.candidate import Candidate
from hwnas.spaces.decision import Option
from hwnas.spaces.errors import DivergedError, InfeasibleError, InvalidFileError, UnknownNameError
from hwnas.spaces.files import replacing, write_bytes
from hwnas.spaces.images import fit
from hwnas.spaces.joint import Joint
from hwnas.spaces.operator import NETWORK_INPUT


@dataclass(frozen=True)
class Method:
    """What is searched of a space, and by whom.

    Attributes:
        kinds: Of decisions; all others are as in the model.
        controller: Where it is the method's own; None for that of the file.
    """

    kinds: tuple[str, ...]
    controller: ControllerConfig | None = None


BITS = ("weight_bits", "act_bits", "edge_bits")
METHODS: Mapping[str, Method] = {
    "bits": Method(BITS),
    "channels": Method(("keep",)),
    "rank": Method(("rank",)),
    "depth": Method(("present",)),
    "haq": Method(BITS, ControllerConfig(name="ddpg")),
}
"""Each dimension alone; and HAQ (Wang et al., CVPR 2019), whose agent chooses bits.

Other than there, its proposals are judged by what single changes do before one is fine-tuned, as all controllers' are.
"""
JOINT, STATIC, ORIGINAL = "joint", "static int8", "original"
CALIBRATION_IMAGES = 512
ROOM = 1.02
"""Where a dimension alone cannot reach what is wanted, its target is so many times the least that it can do."""
Figures = dict[str, float]


def alone(config: SearchConfig, name: str) -> SearchConfig:
    """The search by one of `METHODS`, in which whatever it does not search is as in the model.

    Raises:
        UnknownNameError: A method that does not exist; `JOINT` is the search as it is.
        InvalidFileError: The space is narrowed: patterns for some decisions fit none where these are not searched.
    """
    if name == JOINT:
        return config
    if config.space.narrow:
        raise InvalidFileError("dimensions are compared in whole spaces: leave out space.narrow")
    if name not in METHODS:
        raise UnknownNameError("dimension", name, (JOINT, *METHODS))
    method, joint = METHODS[name], Joint.of(config.space.joint)
    kept = {kind: list(getattr(joint, kind)) for kind in method.kinds if kind != "present"}
    narrow = {} if "present" in method.kinds else {"*.present": [True]}
    space = config.space.model_copy(update={"joint": kept, "narrow": narrow})
    return config.model_copy(update={"space": space, "controller": method.controller or config.controller})


def dimension_figures(
    config: SearchConfig, dimensions: Sequence[str], seeds: int, folder: Path, observer: Observer
) -> dict[str, Figures]:
    """Figures of each dimension's searches, of their means over the seeds, and of files that no search made.

    All have the same budget of trainings. Files that are compared are measured together, at the end, where the device
    is this machine. What single changes do is measured once for each seed, by its joint search.

    Args:
        config: Of the joint search.
        dimensions: Of `METHODS`, and `JOINT`.
        seeds: Searches of each.
        folder: For the runs; those that are there already are continued, or taken as they are.
        observer: Hears how each goes.

    Raises:
        InvalidFileError: The search is not that of a trained model, or a run in the folder is another one's.
        HwnasError: Other bad input, with what to do.
    """
    if config.space.model is None:
        raise InvalidFileError("dimensions are compared on a trained model: give space.model")
    searches = {name: alone(config, name) for name in (JOINT, *(d for d in dimensions if d != JOINT))}
    runs: dict[str, list[Run]] = {}
    for seed in range(seeds):
        for name, own in searches.items():
            search = config.search.model_copy(update={"seed": config.search.seed + seed})
            wanted = own.model_copy(update={"search": search})
            if runs:  # images are normalised alike, though other seeds leave other images for training
                known = runs[JOINT][0].dataset
                data = config.data.model_copy(update={"mean": tuple(known.mean), "std": tuple(known.std)})
                wanted = wanted.model_copy(update={"data": data})
            first = runs[JOINT][seed] if name != JOINT else None
            runs.setdefault(name, []).append(_finished(folder / f"{name}-{search.seed}", wanted, first, observer))
    observer.stage("Comparison")
    whole = runs[JOINT][0]
    files = {f"{name} {run.config.search.seed}": run.folder / "model.onnx" for name in runs for run in runs[name]}
    files |= uniform_files(whole, observer)
    files[STATIC] = folder / "static-int8.onnx"
    if not files[STATIC].exists():
        write_static_int8(whole, files[STATIC])
    files[ORIGINAL] = whole.folder / "reference.onnx"
    rows = _figures(whole, files, observer)
    if seeds == 1:
        return rows
    for name, done in runs.items():
        rows[f"{name}, mean of {seeds}"] = _mean([rows[f"{name} {run.config.search.seed}"] for run in done])
    return rows


def _finished(folder: Path, wanted: SearchConfig, first: Run | None, observer: Observer) -> Run:
    """The run in the folder, done; ``first`` is one of all dimensions, from which others have what is known."""
    observer.note(f"{folder.name}: {folder}")
    same = (*SAME, "compression", "controller")
    run = opened(
        folder, wanted, same if first is None else tuple(section for section in same if section != "objective")
    )
    easier = wanted.objective.model_copy(update={"target": run.config.objective.target, "target_ratio": None})
    if run.config.objective not in (wanted.objective, easier):
        raise InvalidFileError(f"{folder} holds a run with another objective; give --out another folder")
    for name in (EVIDENCE, SENSITIVITY):
        if first is not None and not (run.folder / name).exists():
            with replacing(run.folder / name) as temporary:
                shutil.copyfile(first.folder / name, temporary)
    try:
        continue_run(run, observer)
    except InfeasibleError:
        device, metric = run.registered, wanted.objective.metric
        assert device is not None
        cost = CostModel(run.space, device)
        least = least_cost(run.space, cost, metric, np.random.default_rng(wanted.search.seed))
        observer.note(f"it can do {least:.4g} {metric} at best, so that its target is {ROOM:.0%} of this")
        objective = wanted.objective.model_copy(update={"target": ROOM * least, "target_ratio": None})
        run = Run.create(folder, wanted.model_copy(update={"objective": objective}))
        continue_run(run, observer)
    return run


def uniform_files(run: Run, observer: Observer) -> dict[str, Path]:
    """The model in 8 bits with one share of channels everywhere, for each that the run offers, fine-tuned as finals."""
    files = {}
    reference, options = run.space.reference(), run.space.options
    for share in sorted(Joint.of(run.config.space.joint).keep)[:-1]:
        keeps = {name: _nearest(own, share) for name, own in options.items() if name.endswith(".keep")}
        bits = {name: 8 for name, own in options.items() if name.endswith("_bits") and 8 in own}
        candidate = run.space.decode(run.space.encode({**reference, **keeps, **bits}))
        path = run.folder / "uniform" / f"{share}.onnx"
        if not path.exists():
            observer.progress(f"fine-tuning {share:.0%} of all channels in 8 bits", 0.0)
            _write_tuned(run, candidate, path)
        files[f"{share:.0%} of all channels, int8"] = path
    return files


def _nearest(options: Sequence[Option], share: float) -> Option:
    return min(options, key=lambda option: abs(float(option) - share))


def _write_tuned(run: Run, candidate: Candidate, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    evaluator = evaluator_of(run, run.config.final_recipe)
    _, weights = train_final(evaluator, candidate.to_json(), run.config.search.seed, None)  # type: ignore[arg-type]
    if not weights:
        raise DivergedError(f"{path.stem} of all channels in 8 bits diverged; lower training.learning_rate")
    write_bytes(path.with_suffix(".safetensors"), weights)
    network = load_network(run.space, candidate, path.with_suffix(".safetensors"))
    export_network(network, candidate, run.space, run.dataset, export_runtime(run.device), path)


def write_static_int8(run: Run, path: Path) -> None:
    """ONNX Runtime's own static quantisation of the run's model: calibrated, not fine-tuned."""
    images = fit(run.dataset.normalise(run.dataset.train.images[:CALIBRATION_IMAGES]), run.space.input_shape[1:])
    write_static(run.folder / "reference.onnx", NETWORK_INPUT, (x.numpy() for x in torch.split(images, 1)), path)


def _figures(run: Run, files: Mapping[str, Path], observer: Observer) -> dict[str, Figures]:
    """Of each file, the last of which is the original."""
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
    """Medians in milliseconds, interleaved; none where the device is another machine."""
    if not same_machine(run.device.profile.facts):
        return {}
    observer.progress("measuring all files, interleaved", 0.9)
    runtime = run.device.make_runtime()
    bench = BesideAnchors(run.space, run.device.table, runtime, run.steadiness)
    items: list[Callable[[], object]] = [
        OnnxExecutable(export_runtime(run.device), path, run.space.input_shape).run for path in files.values()
    ]
    timings, _ = bench.measure(items, FINAL_PROTOCOL, names=list(files), attempts=ATTEMPTS)
    return {name: timing.p50_ms for name, timing in zip(files, timings, strict=True)}


def _mean(rows: Sequence[Figures]) -> Figures:
    """Of each figure, and how far the accuracies are spread."""
    mean = {name: fmean(row[name] for row in rows) for name in rows[0]}
    return mean | {"test_accuracy_std": pstdev(row["test_accuracy"] for row in rows)}
