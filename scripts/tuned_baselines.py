"""What there is without a search: a run's trained model made smaller by a rule, as files to compare with."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from hwnas.latency_tables.runtimes.onnx_static import write_static
from hwnas.scripts.torch_pruning import half_pruned
from hwnas.search.compression.knowledge import TrainedWeights
from hwnas.search.config import SpaceConfig
from hwnas.search.evaluation import evaluator_of, fine_tuning, torch_threads
from hwnas.search.evaluators.train import TrainingEvaluator
from hwnas.search.export import export_network, export_runtime
from hwnas.search.finals import load_network, train_final
from hwnas.search.observer import Observer
from hwnas.search.run_folder import Run
from hwnas.spaces.candidate import Candidate
from hwnas.spaces.decision import Option
from hwnas.spaces.errors import DiskFullError, DivergedError, HwnasError
from hwnas.spaces.files import write_bytes
from hwnas.spaces.images import fit
from hwnas.spaces.joint import Joint
from hwnas.spaces.operator import NETWORK_INPUT
from hwnas.spaces.space import Space
from hwnas.spaces.traced.model import make_module
from hwnas.spaces.traced.weights import Evidence

PRUNED = "Torch-Pruning to half the MACs, int8"
BITS = ("weight_bits", "act_bits", "edge_bits")
"""The kinds of decisions about precision."""
CALIBRATION_IMAGES = 512
Files = dict[str, Path]


@contextmanager
def left_out(name: str, observer: Observer) -> Iterator[None]:
    """Says why something is left out, where it fails; a full disk, of which all else fails too, is raised."""
    try:
        yield
    except DiskFullError:
        raise
    except HwnasError as error:
        observer.note(f"{name} is left out: {error}")


def uniform_files(run: Run, observer: Observer) -> Files:
    """The model in 8 bits with one share of channels everywhere, for each that the run offers, fine-tuned as finals."""
    files: Files = {}
    for share in sorted(Joint.of(run.config.space.joint).keep)[:-1]:
        name, path = f"{share:.0%} of all channels, int8", run.folder / "uniform" / f"{share}.onnx"
        keeps = {each: _nearest(own, share) for each, own in run.space.options.items() if each.endswith(".keep")}
        with left_out(f"{name} {run.config.search.seed}", observer):
            if not path.exists():
                observer.progress(f"fine-tuning {name}", 0.0)
                evaluator = evaluator_of(run, run.config.final_recipe)
                assert isinstance(evaluator, TrainingEvaluator)
                _write_tuned(run, evaluator, _in_8_bits(run.space, keeps), path)
            files[name] = path
    return files


def pruned_file(run: Run, observer: Observer) -> Files:
    """The model pruned by Torch-Pruning, in 8 bits, fine-tuned as finals; nothing, and a note, where that cannot be."""
    files: Files = {}
    path = run.folder / "pruned.onnx"
    with left_out(f"{PRUNED} {run.config.search.seed}", observer):
        if not path.exists():
            observer.progress(f"pruning and fine-tuning: {PRUNED}", 0.0)
            weights = _pruned_weights(run.config.space, run.space.input_shape)
            observer.note(f"Torch-Pruning leaves {_macs(weights.space) / _macs(run.space):.0%} of the MACs")
            evaluator = fine_tuning(run, weights, run.config.final_recipe)
            _write_tuned(run, evaluator, _in_8_bits(weights.space, {}), path)
        files[PRUNED] = path
    return files


def _pruned_weights(given: SpaceConfig, input_shape: Sequence[int]) -> TrainedWeights:
    """All that remains of the model is kept, in a space that has 8 bits for it."""
    assert given.model is not None
    module = make_module(given.model, Path(given.weights) if given.weights else None, given.options)
    pruned = half_pruned(module, torch.zeros(1, *input_shape))
    return TrainedWeights(pruned.space({kind: [8, 32] for kind in BITS}).spec, pruned.state, Evidence({}))


def _macs(space: Space) -> int:
    """Of the whole model."""
    return space.workload(space.reference()).macs


def _in_8_bits(space: Space, keeps: Mapping[str, Option]) -> Candidate:
    """The whole model in 8 bits, where the space offers them, but for the shares of channels that are given."""
    bits = {name: 8 for name, own in space.options.items() if name.endswith("_bits") and 8 in own}
    return space.decode(space.encode({**space.reference(), **keeps, **bits}))


def _nearest(options: Sequence[Option], share: float) -> Option:
    return min(options, key=lambda option: abs(float(option) - share))


def _write_tuned(run: Run, evaluator: TrainingEvaluator, candidate: Candidate, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    with torch_threads(os.cpu_count() or 1):
        _, weights = train_final(evaluator, candidate.to_json(), run.config.search.seed, None)
    if not weights:
        raise DivergedError("its fine-tuning diverged; lower training.learning_rate")
    write_bytes(path.with_suffix(".safetensors"), weights)
    network = load_network(evaluator.space, candidate, path.with_suffix(".safetensors"))
    export_network(network, candidate, evaluator.space, run.dataset, export_runtime(run.device), path)


def write_static_int8(run: Run, path: Path) -> None:
    """ONNX Runtime's own static quantisation of the run's model: calibrated, not fine-tuned."""
    images = fit(run.dataset.normalise(run.dataset.train.images[:CALIBRATION_IMAGES]), run.space.input_shape[1:])
    write_static(run.folder / "reference.onnx", NETWORK_INPUT, (x.numpy() for x in torch.split(images, 1)), path)
