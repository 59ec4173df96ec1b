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
from hwnas.search.supernet.cost_terms import BoundedTerm, CostTerm, HingeTerm, ProductTerm
from hwnas.search.supernet.recipe import SupernetRecipe
from hwnas.search.supernet.shard import Shard
from hwnas.search.supernet.training import EpochReport, SupernetTraining
from hwnas.spaces.catalog import space_from_spec
from hwnas.spaces.errors import UnavailableError
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

    def begin(self, shard: Shard | None = None, *, on_gpu: bool = False) -> SupernetTraining:
        """The training at its beginning; see `SupernetTraining` for the worker's share and the GPU."""
        space = space_from_spec(self.space_spec)
        others = {place: CostModel(space, device) for place, device in self.elsewhere.items()}
        cost = CostsInPlaces(CostModel(space, self.device), others)
        return SupernetTraining(
            space, self.dataset, self.recipe, self.terms, cost.expected, self.seed, shard, on_gpu=on_gpu
        )


def train_supernet(
    task: SupernetTask, path: Path, *, shard: Shard | None = None, on_gpu: bool = False,
    heard: Callable[[EpochReport], None] = lambda _: None,
) -> SupernetTraining:  # fmt: skip
    """Trains the epochs that are missing; the first worker writes a checkpoint after each.

    Args:
        task: What to train.
        path: Of the checkpoint. Where there is one, the training goes on from it; several workers must all see it.
        shard, on_gpu: This worker's share, and whether on a GPU.
        heard: Hears of each epoch.
    """
    training = task.begin(shard, on_gpu=on_gpu)
    if path.exists():
        load_checkpoint(training, path)
    while training.epoch < task.recipe.epochs:
        report = training.train_epoch()
        if training.shard.rank == 0:
            save_checkpoint(training, path)
        heard(report)
    return training


def terms_of(objective: Objective, space: Space, *, hinge: bool = False) -> tuple[CostTerm, ...]:
    """How each of a search's goals weighs the cost in a supernet.

    With FBNet's product, whatever the target, so that goals of the same metric may be alike; with the hinge, by the
    target. Constraints are hinges in both.

    Raises:
        UnavailableError: A cost that is no sum over operators, so that none can be expected of relaxed choices.
    """
    for name in (name for goal in objective.goals for name in goal.bounds):
        if name not in objective.cost.summed:  # type: ignore[attr-defined]
            raise UnavailableError(f"a supernet cannot weigh {name}, which is no sum over layers; choose another cost")
    metrics = dict.fromkeys(goal.metric for goal in objective.goals)
    least = {} if hinge else {m: least_cost(space, objective.cost, m, np.random.default_rng(0)) for m in metrics}
    terms: list[CostTerm] = []
    for goal in objective.goals:
        term = HingeTerm(goal.metric, goal.target) if hinge else ProductTerm(goal.metric, least[goal.metric])
        bounds = tuple(HingeTerm(name, bound) for name, bound in goal.constraints.items())
        terms.append(BoundedTerm(term, bounds) if bounds else term)
    return tuple(terms)
