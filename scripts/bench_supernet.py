"""What a step of a supernet takes beside one of a plain network, and whether its weights rank networks rightly."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from statistics import mean, median
from typing import Any

import numpy as np
import psutil
import torch
from scipy.stats import kendalltau
from torch.nn import functional

from hwnas.latency_tables import load_device
from hwnas.predictors.cost import CostModel
from hwnas.search.datasets import Dataset, load_dataset
from hwnas.search.evaluators.shared import SharedWeights, SharedWeightsEvaluator
from hwnas.search.evaluators.train import TrainingEvaluator
from hwnas.search.reach import least_cost
from hwnas.search.supernet.cost_terms import ProductTerm
from hwnas.search.supernet.recipe import SupernetRecipe
from hwnas.search.supernet.training import SupernetTraining
from hwnas.search.training import Recipe, training_device
from hwnas.spaces.catalog import space_from_spec
from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.space import Space
from hwnas.spaces.variation import extremes

WAYS = {
    "reference alone": None, "largest alone": None, "single path": (), "single path, θ": (), "mixture": ("*",),
    "mixture, θ": ("*",),
}  # fmt: skip
Step = Callable[[torch.Tensor, torch.Tensor], float]
"""Of a batch of images and labels; its loss."""
METRIC = "macs"
LEARNING_RATE = 0.03
"""Of shared weights by single paths: at the 0.1 that FBNet has for mixtures, they learn more slowly."""
DEVICE = "simulated-bit-fusion"
"""Whose tables are asked for the expected cost: MACs are the same on all."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How long to train.

    Attributes:
        steps: Of each way, after one that warms up.
        supernet_epochs, epochs: Of the shared weights, and of each network alone.
        candidates: To rank.
    """

    steps: int = 5
    supernet_epochs: int = 30
    epochs: int = 4
    candidates: int = 20


def supernet_figures(
    space: Space, data: str, budget: Budget, *, batch_size: int = 64, seed: int = 0, on_gpu: bool = False,
    heard: Callable[[str, float], None] = lambda text, share: None,
) -> dict[str, Any]:  # fmt: skip
    """Seconds and peak memory per step of each way, and Kendall's τ of accuracies with shared weights and alone.

    Each way is timed in a process of its own, on one thread. Memory is what the process held at its peak beyond what it
    held before the first step; on a GPU, what PyTorch held there. A way that the space cannot take says why.

    Args:
        space: Whose networks.
        data: See `load_dataset`.
        budget: How much.
        batch_size: Images per step.
        seed: Of everything.
        on_gpu: Whether everything is trained on a GPU.
        heard: Hears how far it is.
    """
    ways: dict[str, dict[str, Any]] = {}
    for done, way in enumerate(WAYS):
        heard(f"steps of {way}", 0.2 * done / len(WAYS))
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            ways[way] = pool.submit(_steps, space.spec, data, way, budget.steps, batch_size, on_gpu).result()
    plain = ways["reference alone"]["seconds_per_step"]
    for figures in ways.values():
        if "seconds_per_step" in figures:
            figures["times_the_reference"] = round(figures["seconds_per_step"] / plain, 2)
    return {
        "space": space.name, "decisions": len(space.decisions), "data": data, "batch_size": batch_size,
        "on": torch.cuda.get_device_name() if on_gpu else "processor", "ways": ways,
        "ranking": _ranking(space, load_dataset(data), budget, batch_size, seed, on_gpu, heard),
    }  # fmt: skip


def _steps(
    spec: dict[str, Any], data: str, way: str, steps: int, batch_size: int, on_gpu: bool
) -> dict[str, Any]:  # fmt: skip
    torch.set_num_threads(1)
    space, dataset = space_from_spec(spec), load_dataset(data)
    images, labels = dataset.train.images[:batch_size], dataset.train.labels[:batch_size]
    try:
        own_step = _plain_step if WAYS[way] is None else _supernet_step
        step = own_step(space, dataset, way, on_gpu)
        before = torch.cuda.memory_allocated() if on_gpu else psutil.Process().memory_info().rss
        seconds = []
        for _ in range(1 + steps):
            begun = time.perf_counter()
            step(images, labels)
            seconds.append(time.perf_counter() - begun)
    except InvalidSpaceError as error:
        return {"refused": str(error)}
    peak = torch.cuda.max_memory_allocated() if on_gpu else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds_per_step": round(median(seconds[1:]), 4), "first_step_s": round(seconds[0], 3),
        "peak_mb": round(max(0, peak - before) / 1e6, 1),
    }  # fmt: skip


def _plain_step(space: Space, dataset: Dataset, way: str, on_gpu: bool) -> Step:
    candidate = space.reference() if way.startswith("reference") else space.decode(extremes(space)[0])
    network, device = space.build(candidate).train(), training_device(on_gpu)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)

    def step(images: torch.Tensor, labels: torch.Tensor) -> float:
        x = dataset.normalise(images).to(device).contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(network(x), labels.to(device))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.item()

    return step


def _supernet_step(space: Space, dataset: Dataset, way: str, on_gpu: bool) -> Step:
    recipe = SupernetRecipe(mixed=WAYS[way] or (), learning_rate=0.01)
    training = _training(space, dataset, recipe, 0, on_gpu)
    training.network.train()
    step = training.theta_step if way.endswith("θ") else training.weights_step
    return lambda images, labels: step(0, recipe.temperature, images, labels)


def _training(space: Space, dataset: Dataset, recipe: SupernetRecipe, seed: int, on_gpu: bool) -> SupernetTraining:
    model = CostModel(space, load_device(DEVICE))
    term = ProductTerm(METRIC, least_cost(space, model, METRIC, np.random.default_rng(0)))
    return SupernetTraining(space, dataset, recipe, [term], model.expected, seed, on_gpu=on_gpu)


def _ranking(
    space: Space, dataset: Dataset, budget: Budget, batch_size: int, seed: int, on_gpu: bool,
    heard: Callable[[str, float], None],
) -> dict[str, Any]:  # fmt: skip
    """Of random candidates, the accuracies both ways and how well their orders agree.

    Each is trained alone with two seeds: the mean counts, and how well the two agree is what no estimate can exceed by
    much.
    """
    recipe = SupernetRecipe(
        epochs=budget.supernet_epochs, theta_share=0.0, mixed=(), sandwich=True, batch_size=batch_size,
        learning_rate=LEARNING_RATE,
    )  # fmt: skip
    training = _training(space, dataset, recipe, seed, on_gpu)
    begun = time.perf_counter()
    for epoch in range(recipe.epochs):
        heard(f"epoch {epoch + 1} of the shared weights", 0.2 + 0.4 * epoch / recipe.epochs)
        training.train_epoch()
    seconds = {"supernet": time.perf_counter() - begun}
    weights = SharedWeights(space.spec, training.network.state_dict())
    shared = SharedWeightsEvaluator(weights, dataset, batch_size, on_gpu=on_gpu)
    recipe_alone = Recipe(epochs=budget.epochs, batch_size=batch_size)
    alone = TrainingEvaluator(space.spec, dataset, recipe_alone, on_gpu=on_gpu)
    rows = space.sample(np.random.default_rng(seed), budget.candidates)
    candidates = [space.decode(row) for row in rows]
    begun = time.perf_counter()
    quick = [shared.start(candidate, seed).step() for candidate in candidates]
    seconds["shared"] = time.perf_counter() - begun
    begun, twice = time.perf_counter(), []
    for done, candidate in enumerate(candidates):
        heard(f"candidate {done + 1} alone", 0.6 + 0.4 * done / len(candidates))
        evaluations = [alone.start(candidate, own) for own in (seed, seed + 1)]
        twice.append([[evaluation.step() for _ in range(alone.steps)][-1] for evaluation in evaluations])
    first, second = map(list, zip(*twice, strict=True))
    slow = [mean(both) for both in twice]
    seconds["alone"] = time.perf_counter() - begun
    macs = [space.workload(candidate).macs for candidate in candidates]
    return {
        "candidates": len(candidates), "supernet_epochs": recipe.epochs, "epochs_alone": alone.steps,
        "kendall_tau": _tau(quick, slow), "kendall_tau_of_macs": _tau(macs, slow),
        "kendall_tau_of_two_trainings": _tau(first, second),
        "shared_accuracy": round(mean(quick), 4), "accuracy_alone": round(mean(slow), 4),
        "supernet_s": round(seconds["supernet"], 1), "shared_s": round(seconds["shared"] / len(rows), 3),
        "alone_s": round(seconds["alone"] / len(rows) / 2, 3),
    }  # fmt: skip


def _tau(one: list[Any], other: list[Any]) -> float:
    return round(float(kendalltau(one, other).statistic), 3)
