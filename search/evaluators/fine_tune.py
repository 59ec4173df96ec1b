"""Accuracy by brief training that begins with weights of others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from hwnas.search.datasets import Dataset
from hwnas.search.evaluators.shared import SharedWeights
from hwnas.search.evaluators.train import TrainingEvaluation
from hwnas.search.training import Recipe
from hwnas.spaces.candidate import Candidate
from hwnas.spaces.catalog import space_from_spec
from hwnas.spaces.errors import InvalidFileError
from hwnas.spaces.network import Network
from hwnas.spaces.space import Space


@dataclass(frozen=True)
class FineTuningEvaluator:
    """Trains each candidate for a few epochs, from trained weights on, and validates it after each of them.

    Attributes:
        space_spec: See `Space.spec`.
        dataset: Trained on its ``train`` split, validated on its ``validation`` split.
        recipe: How to train.
        weights: Those of all networks of the space, or the state of one network, such as a reference that was trained
            in float32: then candidates take what has the same name, channels cut where they have fewer, as HAQ (Wang et
            al., CVPR 2019) fine-tunes one network at many precisions.
    """

    space_spec: Mapping[str, Any]
    dataset: Dataset
    recipe: Recipe
    weights: SharedWeights | Mapping[str, Tensor]

    @cached_property
    def space(self) -> Space:
        """The space, built once in each process."""
        return space_from_spec(self.space_spec)

    @property
    def steps(self) -> int:
        """Epochs."""
        return self.recipe.epochs

    def start(self, candidate: Candidate, seed: int) -> TrainingEvaluation:
        """The candidate's network with its share of the weights."""
        torch.manual_seed(seed)
        if isinstance(self.weights, SharedWeights):
            network = self.weights.extract(candidate)
        else:
            network = self.space.build(candidate)
            adopt(network, self.weights)
        return TrainingEvaluation(network, self.dataset, self.recipe, seed)


@torch.no_grad()
def adopt(network: Network, weights: Mapping[str, Tensor]) -> None:
    """Gives a network the first channels of another's weights, where their names and kernels are alike.

    Ranges of quantisers stay as they are: they belong to a precision.

    Raises:
        InvalidFileError: None of them are.
    """
    adopted = 0
    for name, own in network.state_dict().items():
        other = weights.get(name)
        if other is None or ".quantizer." in name or other.ndim != own.ndim or other.shape[2:] != own.shape[2:]:
            continue
        if all(m >= n for m, n in zip(other.shape, own.shape, strict=True)):
            own.copy_(other[tuple(slice(n) for n in own.shape[:2])])
            adopted += 1
    if not adopted:
        raise InvalidFileError("the weights to fine-tune have no layer of the candidate; take those of its own space")
