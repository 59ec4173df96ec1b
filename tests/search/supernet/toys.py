"""A space and images so small that supernets train in a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.latency_tables import load_device
from hwnas.search.datasets import Dataset, Split
from hwnas.search.supernet.cost_terms import CostTerm, ProductTerm
from hwnas.search.supernet.recipe import SupernetRecipe
from hwnas.search.supernet.shard import Shard
from hwnas.search.supernet.task import SupernetTask
from hwnas.search.supernet.training import SupernetTraining
from hwnas.spaces import Space, load_space
from hwnas.spaces.space import Rows

NARROW = {
    "stem.width": [8], "s1.width": [8], "s2.width": [16], "s3.width": [24], "s4.width": [32, 48], "head.width": [64],
    "s[1-4].depth": [1], "*.se": [0], "s[13]b1.kernel": [3], "s1b1.expand": [1], "s[2-4]b1.expand": [3],
}  # fmt: skip
"""Of mbconv: leaves two kernels and a width."""
LEAST = 3.0
QUICK = {"epochs": 3, "warmup_epochs": 1, "batch_size": 16, "learning_rate": 0.05}
MODES = {"mixture": ("*",), "single path": (), "both": ("*.kernel",)}


@cache
def toy_space(joint: tuple[str, ...] = ()) -> Space:
    return load_space("mbconv", input_shape=(1, 8, 8), num_classes=4, joint=joint, narrow=NARROW)


@cache
def toy_images(n: int = 80) -> Dataset:
    """Bright quarters of noisy images."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 4
    pixels = rng.integers(0, 120, (n, 1, 8, 8))
    for image, label in zip(pixels, labels, strict=True):
        top, left = 4 * (label // 2), 4 * (label % 2)
        image[0, top : top + 4, left : left + 4] += 100
    split = Split(torch.from_numpy(pixels.astype(np.uint8)), torch.from_numpy(labels))
    return Dataset("quarters", ("a", "b", "c", "d"), split, split, split, (0.35,), (0.2,))


def option_cost(probabilities: Sequence[Tensor], metric: str) -> Tensor:
    """`LEAST`, and one more for every option after the first: an expected cost that is easily differentiated."""
    own = [(p * torch.arange(len(p), dtype=p.dtype)).sum() for p in probabilities]
    return LEAST + torch.stack(own).sum()


def training(
    recipe: SupernetRecipe | None = None, terms: Sequence[CostTerm] | None = None, seed: int = 0,
    shard: Shard | None = None, joint: tuple[str, ...] = (), data: Dataset | None = None, on_gpu: bool = False,
) -> SupernetTraining:  # fmt: skip
    return SupernetTraining(
        toy_space(joint), data or toy_images(), recipe or SupernetRecipe(**QUICK),
        terms or [ProductTerm("latency_ms", LEAST)], option_cost, seed, shard, on_gpu=on_gpu,
    )  # fmt: skip


class PlantedNetwork(nn.Module):
    """Tells quarters the better, the more the option ``good`` of the decision ``s4b1.kernel`` weighs; the other
    decisions make no difference. Has weights, but no statistics of batches."""

    def __init__(self, good: int) -> None:
        super().__init__()
        self.good = good
        self.gain = nn.Parameter(torch.tensor(1.0))
        self.bias = nn.Parameter(torch.zeros(4))

    def forward(self, images: Tensor, row: Rows, mixed: Mapping[str, Tensor]) -> Tensor:
        decision = "s4b1.kernel"
        column = toy_space().column(decision)
        weight = mixed[decision][self.good] if mixed else float(row[column] == self.good)
        means = functional.avg_pool2d(images, 4).flatten(1)
        return means * self.gain * (0.2 + weight) + self.bias


def planted(
    recipe: SupernetRecipe, terms: Sequence[CostTerm], good: int = 1, shard: Shard | None = None
) -> SupernetTraining:
    """A training of a `PlantedNetwork`."""
    made = training(recipe.model_copy(update={"learning_rate": 1e-3}), terms, shard=shard)
    made.network = PlantedNetwork(good)  # type: ignore[assignment]
    made.weights_optimizer = torch.optim.SGD(made.network.parameters(), lr=1e-3, momentum=0.9)
    return made


def a_task() -> SupernetTask:
    """Single paths, whose costs are those of a simulated device."""
    term = ProductTerm("latency_ms", 1e-3)
    device = load_device("simulated-bit-fusion")
    return SupernetTask(
        toy_space().spec, device, toy_images(), recipe("single path", batch_size=32, theta_share=0.4), (term,)
    )


def recipe(mode: str = "mixture", **changes: object) -> SupernetRecipe:
    """A short training in which the options of some decisions are mixed and one path is drawn through the others."""
    return SupernetRecipe(**{**QUICK, "mixed": MODES[mode], **changes})  # type: ignore[arg-type]
