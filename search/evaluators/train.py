"""Accuracy by brief training from scratch, MnasNet's proxy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from hwnas.search.datasets import Dataset
from hwnas.search.training import Recipe, Trainer, accuracy
from hwnas.spaces.candidate import Candidate
from hwnas.spaces.catalog import space_from_spec
from hwnas.spaces.network import Network
from hwnas.spaces.space import Space


@dataclass(frozen=True)
class TrainingEvaluator:
    """Trains each candidate for a few epochs and validates it after each of them.

    Attributes:
        space_spec: See `Space.spec`.
        dataset: Trained on its ``train`` split, validated on its ``validation`` split.
        recipe: How to train.
    """

    space_spec: Mapping[str, Any]
    dataset: Dataset
    recipe: Recipe

    @cached_property
    def space(self) -> Space:
        """The space, built once in each process."""
        return space_from_spec(self.space_spec)

    @property
    def steps(self) -> int:
        """Epochs."""
        return self.recipe.epochs

    def start(self, candidate: Candidate, seed: int) -> TrainingEvaluation:
        """The candidate's network, about to be trained."""
        torch.manual_seed(seed)
        return TrainingEvaluation(self.network(candidate), self.dataset, self.recipe, seed)

    def network(self, candidate: Candidate) -> Network:
        """The candidate's network as it begins: freshly initialised."""
        return self.space.build(candidate)


class TrainingEvaluation:
    """One candidate in training; see `Trainer` for the arguments."""

    def __init__(self, network: Network, dataset: Dataset, recipe: Recipe, seed: int) -> None:
        self.trainer = Trainer(network, dataset, recipe, seed)

    def step(self) -> float:
        """One epoch, then the validation accuracy."""
        self.trainer.train_epoch()
        dataset = self.trainer.dataset
        return accuracy(self.trainer.calibrated(), dataset, dataset.validation)
