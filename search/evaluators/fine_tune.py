"""Accuracy by brief training that begins with weights of others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hwnas.search.compression.knowledge import TrainedWeights
from hwnas.search.evaluators.shared import SharedWeights
from hwnas.search.evaluators.train import TrainingEvaluator
from hwnas.spaces.candidate import Candidate
from hwnas.spaces.errors import InvalidFileError
from hwnas.spaces.network import Network


@dataclass(frozen=True)
class FineTuningEvaluator(TrainingEvaluator):
    """Trains each candidate from trained weights on.

    Attributes:
        weights: Those of all networks of the space, a trained model's, or the state of one network, such as a reference
            that was trained in float32: then candidates take what has the same name, channels cut where they have
            fewer, as HAQ (Wang et al., CVPR 2019) fine-tunes one network at many precisions.
    """

    weights: SharedWeights | TrainedWeights | Mapping[str, Tensor]

    def network(self, candidate: Candidate) -> Network:
        """The candidate's network with its share of the weights."""
        if isinstance(self.weights, SharedWeights | TrainedWeights):
            return self.weights.extract(candidate)
        network = self.space.build(candidate)
        adopt(network, self.weights)
        return network


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
