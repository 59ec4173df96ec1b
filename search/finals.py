"""What happens to the best candidates: a full training, beside the reference network on the same budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from hwnas.search.evaluators.train import TrainingEvaluator
from hwnas.search.training import Trainer, accuracy
from hwnas.spaces.candidate import Candidate
from hwnas.spaces.errors import DivergedError, InvalidFileError
from hwnas.spaces.files import replacing
from hwnas.spaces.network import Network
from hwnas.spaces.onnx_graph import snap_biases
from hwnas.spaces.space import Space


@dataclass(frozen=True, slots=True)
class Final:
    """A fully trained candidate.

    Attributes:
        candidate: Which.
        validation_accuracy: A share.
        weights: Its safetensors file.
    """

    candidate: Candidate
    validation_accuracy: float
    weights: Path


def train_final(evaluator: TrainingEvaluator, candidate_json: str, seed: int, path: str) -> float:
    """Trains one candidate, saves its weights to ``path``, and returns its validation accuracy, NaN if it diverged.

    Runs in a worker process. A file that is there already, from before a resume, is taken as it is.
    """
    candidate = Candidate.from_json(candidate_json)
    target = Path(path)
    dataset = evaluator.dataset
    if target.exists():
        network = load_network(evaluator.space, candidate, target)
        return accuracy(network, dataset, dataset.validation)
    torch.manual_seed(seed)
    trainer = Trainer(evaluator.space.build(candidate), dataset, evaluator.recipe, seed)
    try:
        for _ in range(evaluator.recipe.epochs):
            trainer.train_epoch()
    except DivergedError:
        return float("nan")
    network = trainer.calibrated()
    snap_biases(network)
    save_network(network, candidate, target)
    return accuracy(network, dataset, dataset.validation)


def save_network(network: Network, candidate: Candidate, path: Path) -> None:
    """Weights as safetensors, the candidate in the metadata; written whole or not at all."""
    with replacing(path) as temporary:
        tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
        save_file(tensors, temporary, metadata={"candidate": candidate.to_json()})


def load_network(space: Space, candidate: Candidate, path: Path) -> Network:
    """The inverse of `save_network`, in evaluation mode; raises `InvalidFileError` for weights of another network."""
    network = space.build(candidate)
    try:
        tensors: Mapping[str, torch.Tensor] = load_file(path)
        network.load_state_dict(tensors)
    except Exception as error:
        raise InvalidFileError(f"{path} does not hold the weights of network {candidate.digest}: {error}") from error
    return network.eval()
