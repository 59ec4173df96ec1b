"""Accuracy by brief training from scratch, MnasNet's proxy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import nn

from hwnas.search.datasets import Dataset
from hwnas.search.distillation import teaching
from hwnas.search.training import Recipe, Trainer, accuracy
from hwnas.spaces.candidate import Candidate
from hwnas.spaces.catalog import space_from_spec
from hwnas.spaces.network import Network
from hwnas.spaces.space import Space
from hwnas.spaces.traced.model import TracedModel


@dataclass(frozen=True)
class TrainingEvaluator:
    """Trains each candidate for a few epochs and validates it after each of them.

    Attributes:
        space_spec: See `Space.spec`.
        dataset: Trained on its ``train`` split, validated on its ``validation`` split.
        recipe: How to train.
        on_gpu: Whether on a GPU, which the trial must then take.
        teacher: A trained model to distil from.
    """

    space_spec: Mapping[str, Any]
    dataset: Dataset
    recipe: Recipe
    on_gpu: bool = field(default=False, kw_only=True)
    teacher: TracedModel | None = field(default=None, kw_only=True)

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
        return TrainingEvaluation(self.trainer(candidate, seed))

    def trainer(self, candidate: Candidate, seed: int) -> Trainer:
        """Of the candidate's network, at its beginning."""
        torch.manual_seed(seed)
        network = self.network(candidate)
        return Trainer(network, self.dataset, self.recipe, seed, on_gpu=self.on_gpu, teacher=self._teacher)

    @cached_property
    def _teacher(self) -> nn.Module | None:
        """Folded, once in each process."""
        return None if self.teacher is None else teaching(self.teacher.network, on_gpu=self.on_gpu)

    def network(self, candidate: Candidate) -> Network:
        """The candidate's network as it begins: freshly initialised."""
        return self.space.build(candidate)


class TrainingEvaluation:
    """One candidate in training."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def step(self) -> float:
        """One epoch, then the validation accuracy."""
        self.trainer.train_epoch()
        dataset = self.trainer.dataset
        return accuracy(self.trainer.calibrated(), dataset, dataset.validation)
