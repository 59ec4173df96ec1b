"""What happens to the best candidates: a full training, beside the reference network on the same budget."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load, save

from hwnas.search.evaluators.train import TrainingEvaluator
from hwnas.search.training import accuracy
from hwnas.spaces.candidate import Candidate
from hwnas.spaces.errors import DivergedError, InvalidFileError
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


def train_final(
    evaluator: TrainingEvaluator, candidate_json: str, seed: int, known: bytes | None
) -> tuple[float, bytes]:
    """Trains one candidate; its validation accuracy and a safetensors file, NaN and nothing if it diverged.

    Runs in a worker process, whose node need not see the run's folder. ``known`` are weights from before a resume: they
    are taken as they are.
    """
    candidate = Candidate.from_json(candidate_json)
    dataset = evaluator.dataset
    if known is not None:
        network = _with_weights(evaluator.space, candidate, known, "the final training")
        return accuracy(network, dataset, dataset.validation), known
    trainer = evaluator.trainer(candidate, seed)
    try:
        for _ in range(evaluator.recipe.epochs):
            trainer.train_epoch()
        network = trainer.calibrated().cpu()
    except DivergedError:
        return float("nan"), b""
    snap_biases(network)
    return accuracy(network, dataset, dataset.validation), weights_file(network, candidate)


def weights_file(network: Network, candidate: Candidate) -> bytes:
    """The safetensors file of a trained network."""
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    file: bytes = save(tensors, metadata={"candidate": candidate.to_json()})
    return file


def load_network(space: Space, candidate: Candidate, path: Path) -> Network:
    """A trained network in evaluation mode; raises `InvalidFileError` for weights of another network, or none."""
    try:
        weights = path.read_bytes()
    except OSError as error:
        raise InvalidFileError(f"{path} cannot be read: {error}") from error
    return _with_weights(space, candidate, weights, str(path))


def _with_weights(space: Space, candidate: Candidate, weights: bytes, where: str) -> Network:
    network = space.build(candidate)
    try:
        network.load_state_dict(load(weights))
    except Exception as error:
        raise InvalidFileError(f"{where} does not hold the weights of network {candidate.digest}: {error}") from error
    return network.eval()
