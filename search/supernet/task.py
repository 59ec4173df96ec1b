"""A supernet to train, as plain data, and its training from wherever its checkpoint left it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.latency_tables.device import Device
from hwnas.predictors.cost import CostModel
from hwnas.predictors.several import CostsInPlaces
from hwnas.search.datasets import Dataset
from hwnas.search.objective import Objective
from hwnas.search.reach import least_cost
from hwnas.search.supernet.checkpoint import load_checkpoint, save_checkpoint
from hwnas.search.supernet.cost_terms import CostTerm, HingeTerm, ProductTerm
from hwnas.search.supernet.recipe import SupernetRecipe
from hwnas.search.supernet.shard import Shard
from hwnas.search.supernet.training import EpochReport, SupernetTraining
from hwnas.spaces.catalog import space_from_spec
from hwnas.spaces.space import Space


@dataclass(frozen=True)
class SupernetTask:
    """All that a worker needs to know.

    Attributes:
        space_spec: See `Space.spec`.
        device: Whose costs count.
        elsewhere: Other devices whose costs count, see `CostsInPlaces`.
        dataset, recipe, terms, seed: See `SupernetTraining`.
    """

    space_spec: Mapping[str, Any]
    device: Device
    dataset: Dataset
    recipe: SupernetRecipe
    terms: tuple[CostTerm, ...]
    seed: int = 0
    elsewhere: Mapping[str, Device] = field(default_factory=dict)

    def begin(self, shard: Shard | None = None) -> SupernetTraining:
        """The training at its beginning."""
        space = space_from_spec(self.space_spec)
        others = {place: CostModel(space, device) for place, device in self.elsewhere.items()}
        cost = CostsInPlaces(CostModel(space, self.device), others)
        return SupernetTraining(space, self.dataset, self.recipe, self.terms, cost.expected, self.seed, shard)


def train_supernet(
    task: SupernetTask, path: Path, *, shard: Shard | None = None, heard: Callable[[EpochReport], None] = lambda _: None
) -> SupernetTraining:
    """Trains the epochs that are missing; the first worker writes a checkpoint after each.

    Args:
        task: What to train.
        path: Of the checkpoint. Where there is one, the training goes on from it; several workers must all see it.
        shard: This worker's share.
        heard: Hears of each epoch.
    """
    training = task.begin(shard)
    if path.exists():
        load_checkpoint(training, path)
    while training.epoch < task.recipe.epochs:
        report = training.train_epoch()
        if training.shard.rank == 0:
            save_checkpoint(training, path)
        heard(report)
    return training


def terms_of(objective: Objective, space: Space, *, hinge: bool = False) -> tuple[CostTerm, ...]:
    """How a search's goals weigh the cost in a supernet.

    With FBNet's product, whatever the targets: one term per metric of the goals. With the hinge, one per goal, and its
    target.
    """
    if hinge:
        return tuple(HingeTerm(goal.metric, goal.target) for goal in objective.goals)
    rng = np.random.default_rng(0)
    metrics = dict.fromkeys(goal.metric for goal in objective.goals)
    return tuple(ProductTerm(metric, least_cost(space, objective.cost, metric, rng)) for metric in metrics)
