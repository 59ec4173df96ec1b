"""What a search of a trained model's compression rests on: its files against their modules, and its proxy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.stats import kendalltau

from hwnas.latency_tables.runtimes.onnxruntime import OnnxRuntime
from hwnas.scripts.compared_files import ORIGINAL, STATIC, Figures, file_figures
from hwnas.scripts.tuned_baselines import write_static_int8
from hwnas.search.compression.preparation import proxy_of
from hwnas.search.evaluation import evaluator_of
from hwnas.search.export import export_runtime
from hwnas.search.finals import load_network
from hwnas.search.observer import Observer
from hwnas.search.run_folder import Run
from hwnas.search.run_result import RunResult
from hwnas.spaces.candidate import Candidate
from hwnas.spaces.errors import InvalidFileError, UnavailableError
from hwnas.spaces.images import fit
from hwnas.spaces.network import Network
from hwnas.spaces.operator import NETWORK_INPUT
from hwnas.spaces.variation import mutate

BATCH = 256
DEPTH = 3
"""Rounds of mutations from trials' candidates to those that are drawn."""


def compared_figures(run: Run, observer: Observer) -> dict[str, Figures]:
    """The chosen file beside ONNX Runtime's static int8 of the model, and the model; see `file_figures`.

    Raises `UnavailableError` where the run has no result.
    """
    _result(run)
    static = run.folder / "static-int8.onnx"
    if not static.exists():
        write_static_int8(run, static)
    files = {"chosen": run.folder / "model.onnx", STATIC: static, ORIGINAL: run.folder / "reference.onnx"}
    return file_figures(run, files, observer)


def _result(run: Run) -> RunResult:
    if run.result is None:
        raise UnavailableError(f"{run.folder} has no result yet; continue it with '{run.resume_command}'")
    return run.result


def agreement_figures(run: Run) -> dict[str, Figures]:
    """The run's files against their torch modules, on all of its test images.

    Raises `UnavailableError` where the run has no result.
    """
    result = _result(run)
    runtime = export_runtime(run.device)
    figures = {}
    for name, options in zip(("model.onnx", "reference.onnx"), result.candidates, strict=True):
        candidate = Candidate(options)
        network = load_network(run.space, candidate, run.weights_path(candidate))
        figures[name] = _agreement(run, network, run.folder / name, runtime)
    return figures


def _agreement(run: Run, network: Network, path: Path, runtime: OnnxRuntime) -> Figures:
    session, split = runtime.session(path), run.dataset.test
    modules, files = [], []
    with torch.no_grad():
        for images in torch.split(split.images, BATCH):
            x = fit(run.dataset.normalise(images), network.input_shape[1:])
            modules.append(network(x).numpy())
            files.append(session.run(None, {NETWORK_INPUT: x.numpy()})[0])
    module, file, labels = np.concatenate(modules), np.concatenate(files), split.labels.numpy()
    return {
        "images": len(split),
        "largest_logit_difference": float(np.abs(module - file).max()),
        "mean_logit_difference": float(np.abs(module - file).mean()),
        "logit_std": float(module.std()),
        "same_top1": float((module.argmax(1) == file.argmax(1)).mean()),
        "accuracy_of_module": float((module.argmax(1) == labels).mean()),
        "accuracy_of_file": float((file.argmax(1) == labels).mean()),
    }


def proxy_figures(run: Run, candidates: int, seed: int, heard: Callable[[str, float], None]) -> dict[str, Figures]:
    """How the proxy ranks candidates that it has not seen, before any trial and with those of the run.

    They are drawn at random: half of the whole space, half beside the run's trials, and fine-tuned as trials are.

    Raises `InvalidFileError` where the run compresses no trained model.
    """
    if run.original is None:
        raise InvalidFileError(f"{run.folder} is no search of a trained model's compression")
    rng, trials = np.random.default_rng(seed), [t for t in run.ledger.finished if t.accuracy is not None]
    rows = run.space.sample(rng, candidates)
    if trials and candidates > 1:
        near = np.array([trials[i % len(trials)].row for i in range(candidates // 2)])
        for _ in range(DEPTH):
            near = mutate(run.space, rng, near)
        rows[: candidates // 2] = near
    evaluator, accuracies = evaluator_of(run), []
    for i, row in enumerate(rows):
        evaluation = evaluator.start(run.space.decode(row), seed)
        accuracies.append([evaluation.step() for _ in range(evaluator.steps)][-1])
        heard(f"fine-tuned {i + 1} of {candidates} candidates", (i + 1) / candidates)
    proxy, tuned = proxy_of(run), np.array(accuracies)
    known = np.array([t.accuracy for t in trials], dtype=np.float64)
    believed = {"before any trial": proxy.prior}
    if trials:
        believed["with the run's trials"] = proxy.fitted(np.array([t.row for t in trials]), known)
    figures = {}
    for name, weights in believed.items():
        guessed = proxy.accuracy(rows, weights)
        figures[name] = {
            "candidates": candidates,
            "kendall_tau": float(kendalltau(guessed, tuned).statistic),
            "mean_error": float(np.abs(guessed - tuned).mean()),
            "accuracy_std": float(tuned.std()),
        }
    return figures
