"""What a run finds out about its trained model before candidates are tried."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hwnas.search.compression.evidence import MOST_READ, find_evidence, reads_much
from hwnas.search.compression.knowledge import TrainedWeights, load_evidence, save_evidence
from hwnas.search.compression.proxy import AdditiveProxy
from hwnas.search.compression.sensitivity import SENSITIVITY, Effect, Probe, Sensitivity, measure_sensitivity
from hwnas.search.datasets import Split
from hwnas.search.observer import Observer
from hwnas.search.run_folder import Run
from hwnas.search.training import accuracy
from hwnas.spaces.traced.space import TracedSpace

BATCH = 64
EVIDENCE = "evidence.safetensors"


def trained_weights(run: Run) -> TrainedWeights:
    """What the candidates of a run begin with."""
    assert run.original is not None
    return TrainedWeights(run.space.spec, run.original.state, load_evidence((run.outer or run).folder / EVIDENCE))


def ensure_knowledge(run: Run, observer: Observer) -> None:
    """Measures what the run's model can do without, as far as that is not known, and writes it into the folder."""
    if run.original is None or (run.folder / "finals").exists():
        return
    observer.stage("Model")
    assert isinstance(run.space, TracedSpace)
    for name, reason in run.space.left.items():
        observer.note(f"left as it is: {name}: {reason}")
    for name, values in reads_much(run.space).items():
        observer.note(f"factors of {name} are made without data: it reads {values} values, more than {MOST_READ}")
    images, labels = _images(run)
    if not (run.folder / EVIDENCE).exists():
        observer.progress("looking at what its channels do and its layers read", 0.0)
        batches = list(zip(torch.split(images, BATCH), torch.split(labels, BATCH), strict=True))
        evidence = find_evidence(run.original, run.space, batches, run.config.compression.criterion)
        save_evidence(evidence, run.folder / EVIDENCE)
    half = len(images) // 2
    ranges = run.config.training.ranges
    probe = Probe(trained_weights(run), images[:half], images[half:], labels[half:], ranges)

    def heard(share: float) -> None:
        observer.progress("changing it, one decision at a time", share)

    resources = run.config.search.resources

    def each(
        function: Callable[..., Effect],
        shared: object,
        arguments: Sequence[tuple[Any, ...]],
        keep: Callable[[int, Effect], None],
    ) -> object:
        from hwnas.search.ray_map import map_parallel

        return map_parallel(function, shared, arguments, resources, keep)

    measure_sensitivity(run.space, probe, each, run.folder / SENSITIVITY, heard)


def proxy_of(run: Run) -> AdditiveProxy:
    """What judges the candidates of a run."""
    assert run.original is not None
    whole = accuracy(run.original.network, run.dataset, run.dataset.validation)
    return AdditiveProxy(run.space, Sensitivity.load((run.outer or run).folder / SENSITIVITY), whole)


def _images(run: Run) -> tuple[Tensor, Tensor]:
    """Training images as the model reads them, and their labels; always the same."""
    split: Split = run.dataset.train
    chosen = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[: run.config.compression.images]
    return run.dataset.normalise(split.images[chosen]), split.labels[chosen]
