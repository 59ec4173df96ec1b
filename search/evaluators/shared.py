"""Accuracy with shared weights: no training, a few forward passes per candidate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from hwnas.search.datasets import Dataset
from hwnas.search.training import accuracy, calibrate, training_device
from hwnas.spaces.candidate import Candidate
from hwnas.spaces.catalog import space_from_spec
from hwnas.spaces.errors import InvalidFileError
from hwnas.spaces.network import Network
from hwnas.spaces.shared.shared_network import SharedNetwork
from hwnas.spaces.space import Space


@dataclass(frozen=True)
class SharedWeights:
    """Trained weights of all networks of a space.

    Attributes:
        space_spec: See `Space.spec`.
        tensors: The state of a `SharedNetwork` of that space, see `hwnas.search.supernet.checkpoint.read_weights`; so
            that workers need no file.
    """

    space_spec: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @cached_property
    def space(self) -> Space:
        """The space, built once in each process."""
        return space_from_spec(self.space_spec)

    @cached_property
    def network(self) -> SharedNetwork:
        """The weights, loaded once in each process; raises `InvalidFileError` where they are another space's."""
        network = SharedNetwork(self.space)
        try:
            network.load_state_dict(dict(self.tensors))
        except RuntimeError as error:
            raise InvalidFileError(f"these are no shared weights of space {self.space.name}: {error}") from error
        return network

    def extract(self, candidate: Candidate) -> Network:
        """A network of its own with the candidate's share of the weights."""
        return self.network.extract(self.space.encode(candidate))


@dataclass(frozen=True)
class SharedWeightsEvaluator:
    """Validates each candidate with its share of the weights, its statistics re-estimated on training images.

    Attributes:
        weights: Of all of them.
        dataset: Validated on its ``validation`` split.
        batch_size: Of the training images.
        on_gpu: Whether on a GPU, which the trial must then take.
    """

    weights: SharedWeights
    dataset: Dataset
    batch_size: int = 64
    on_gpu: bool = field(default=False, kw_only=True)

    @property
    def steps(self) -> int:
        """One is all."""
        return 1

    def start(self, candidate: Candidate, seed: int) -> SharedEvaluation:
        """A candidate; nothing depends on the seed."""
        return SharedEvaluation(self, candidate)


@dataclass(frozen=True, slots=True)
class SharedEvaluation:
    """One candidate."""

    evaluator: SharedWeightsEvaluator
    candidate: Candidate

    def step(self) -> float:
        """The validation accuracy."""
        dataset = self.evaluator.dataset
        network = self.evaluator.weights.extract(self.candidate)
        device = training_device(self.evaluator.on_gpu)
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        calibrate(network, dataset, self.evaluator.batch_size)
        return accuracy(network, dataset, dataset.validation)
