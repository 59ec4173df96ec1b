"""Trains a supernet epoch by epoch: FBNet (Wu et al., CVPR 2019, arXiv 1812.03443), section 3.

Shared weights and architecture parameters θ learn from separate parts of the training split, with separate optimisers.
Decisions that are mixed are relaxed by Gumbel-softmax; the others are drawn, and θ learns of them by score functions.

Deviations from the paper: candidate blocks share weights and channels are mixed by masks (see
`hwnas.spaces.shared.shared_network`); precisions, kept channels and ranks are decisions like others; the weights' loss
is the cross entropy alone, since a factor that does not depend on them would only change their learning rate; gradients
are clipped as in every training here; there may be several goals, each with a θ of its own, which take turns. The
expected cost is that of softmax(θ), from which networks are sampled in the end, and not of the relaxed draw, which at
the first temperatures costs about the same whatever θ is: then a target would be met by too much.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.search.augmentation import augment
from hwnas.search.datasets import Dataset, Split, batches
from hwnas.search.supernet.architecture_parameters import ArchitectureParameters, gumbel_noise
from hwnas.search.supernet.cost_terms import CostTerm
from hwnas.search.supernet.draws import Draw, Sampler
from hwnas.search.supernet.recipe import SupernetRecipe
from hwnas.search.supernet.shard import Shard
from hwnas.search.training import training_device
from hwnas.spaces.errors import DivergedError, InvalidOptionError
from hwnas.spaces.shared.shared_network import SharedNetwork
from hwnas.spaces.space import Space
from hwnas.spaces.variation import extremes

ExpectedCost = Callable[[Sequence[Tensor], str], Tensor]
"""The expected cost of a metric's name where each decision has given probabilities: `CostModel.expected`."""
LARGEST_GRADIENT = 5.0


@dataclass(frozen=True, slots=True)
class EpochReport:
    """What an epoch came to.

    Attributes:
        epoch: From 0.
        temperature: τ.
        weights_loss: Mean cross entropy of the weights' steps.
        theta_loss: Mean loss of θ's steps; None in an epoch without any.
        expected_costs: For each goal, of its final distribution, in the metric's unit.
    """

    epoch: int
    temperature: float
    weights_loss: float
    theta_loss: float | None
    expected_costs: tuple[float, ...]


class SupernetTraining:
    """One supernet in training.

    Args:
        space: All of its networks are trained.
        dataset: Of which the ``train`` split is learnt, in two parts that the seed decides.
        recipe: How.
        terms: Of each goal, how it weighs the cost.
        expected: See `ExpectedCost`.
        seed: Of the weights, of the parts, of the order of images, and of all draws.
        shard: This worker's share. All workers have the same weights and θ at any time; normalisations and quantisers
            see a worker's own images alone, so that the steps of several are not quite those of one.
        on_gpu: Whether weights are trained on a GPU; θ and its costs, of little work each, stay on the processor.

    Attributes:
        network: The weights.
        thetas: θ of each goal.
        history: Reports of the epochs that are done.

    Raises:
        InvalidOptionError: Batches are too small for the workers.
        UnavailableError: This installation of PyTorch cannot use a GPU here.
    """

    def __init__(
        self, space: Space, dataset: Dataset, recipe: SupernetRecipe, terms: Sequence[CostTerm], expected: ExpectedCost,
        seed: int, shard: Shard | None = None, *, on_gpu: bool = False,
    ) -> None:  # fmt: skip
        self.space, self.dataset, self.recipe, self.seed = space, dataset, recipe, seed
        self.terms, self.expected = tuple(terms), expected
        self.shard = shard or Shard()
        self.sampler = Sampler(space, recipe.mixed_in(space))
        self.generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        self.network = SharedNetwork(space)
        self.device = training_device(on_gpu)
        self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.thetas = [ArchitectureParameters(space) for _ in self.terms]
        self.weights_optimizer = _weights_optimizer(self.network, recipe)
        self.theta_optimizers = [
            torch.optim.Adam(t.parameters(), lr=recipe.theta_learning_rate, weight_decay=recipe.theta_weight_decay)
            for t in self.thetas
        ]
        self.weights_part, self.theta_part = self._parts(dataset.train)
        self.history: list[EpochReport] = []

    @property
    def epoch(self) -> int:
        """How many are done."""
        return len(self.history)

    def train_epoch(self) -> EpochReport:
        """One pass over the weights' part, then, after the warm-up, one over that of θ.

        Raises:
            DivergedError: A loss is not finite.
        """
        recipe, epoch = self.recipe, self.epoch
        temperature = recipe.temperature_of(epoch)
        for group in self.weights_optimizer.param_groups:
            group["lr"] = recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / recipe.epochs))
        self.network.train()
        weights_losses = [
            self.weights_step(goal, temperature, images, labels)
            for goal, images, labels in self._batches(self.weights_part)
        ]
        theta_losses = [
            self.theta_step(goal, temperature, images, labels)
            for goal, images, labels in (self._batches(self.theta_part) if epoch >= recipe.warmup_epochs else ())
        ]
        self._share_buffers()
        self.history.append(
            EpochReport(
                epoch,
                temperature,
                sum(weights_losses) / len(weights_losses),
                _mean(theta_losses),
                self.expected_costs(),
            )
        )
        return self.history[-1]

    @torch.no_grad()
    def expected_costs(self) -> tuple[float, ...]:
        """For each goal, the expected cost of its final distribution, in the metric's unit."""
        pairs = zip(self.thetas, self.terms, strict=True)
        return tuple(float(self.expected(theta.probabilities(), term.metric)) for theta, term in pairs)

    def noise(self, draws: int) -> list[Tensor]:
        """The Gumbel noise of so many draws, (options,) each."""
        return [gumbel_noise(len(self.thetas[0].logits), self.generator) for _ in range(draws)]

    def theta_loss(
        self, goal: int, noise: Sequence[Tensor], temperature: float, images: Tensor, labels: Tensor
    ) -> Tensor:
        """The loss of θ, shape (), whose gradient is this worker's part of the whole one: their sum over all workers.

        Of decisions that are drawn the gradient is (CEᵢ − mean of the other draws' CE) · ∇log p, which is unbiased
        (Kool et al., "Buy 4 REINFORCE samples, get a baseline for free!", 2019); that of the expected cost is exact.

        Args:
            goal: Index of the goal.
            noise: Of each draw.
            temperature: τ.
            images: The whole batch, normalised (n, channels, height, width).
            labels: Of all of them (n,).
        """
        theta, term, sampler = self.thetas[goal], self.terms[goal], self.sampler
        draws = [sampler.draw(theta, one, temperature) for one in noise]
        with torch.set_grad_enabled(bool(sampler.mixed)):
            own = torch.stack([self._cross_entropy(draw, images, labels) for draw in draws]).cpu()
        losses = own.detach().clone()
        self.shard.add_up([losses])
        share = len(self.shard.part(labels)) / len(labels)
        loss = losses.mean() + _gradient_only(own.mean())
        if not sampler.draws_nothing:
            others = (losses.sum() - losses) / (len(losses) - 1)
            scores = (losses - others) * sampler.log_probability(theta, draws)
            loss = loss + share * _gradient_only(scores.mean())
        costs = {metric: self.expected(theta.probabilities(), metric) for metric in term.metrics}
        return term(loss, {name: cost.detach() + share * _gradient_only(cost) for name, cost in costs.items()})

    # ---- steps ----------------------------------------------------------------------------------------------------

    def weights_step(self, goal: int, temperature: float, images: Tensor, labels: Tensor) -> float:
        """One step of the weights on a whole batch, uint8 (n, channels, height, width) and (n,); the cross entropy."""
        recipe = self.recipe
        x = self.dataset.normalise(augment(images.float(), self.generator, shift=recipe.shift, flip=recipe.flip))
        with torch.no_grad():
            draws = [self.sampler.draw(self.thetas[goal], one, temperature) for one in self.noise(recipe.paths)]
        if recipe.sandwich:
            draws += [Draw(row, {}) for row in extremes(self.space)]
        self.weights_optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for draw in draws:
            loss = self._cross_entropy(draw, x, labels, recipe.label_smoothing) / len(draws)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        self.shard.add_up([total, *(p.grad for p in self.network.parameters() if p.grad is not None)])
        self._check(total, "learning_rate")
        nn.utils.clip_grad_norm_(self.network.parameters(), LARGEST_GRADIENT)
        self.weights_optimizer.step()
        return total.item()

    def theta_step(self, goal: int, temperature: float, images: Tensor, labels: Tensor) -> float:
        """One step of a goal's θ on a whole batch, as `weights_step`; the loss."""
        noise = self.noise(self.recipe.paths if self.sampler.draws_nothing else max(2, self.recipe.paths))
        loss = self.theta_loss(goal, noise, temperature, self.dataset.normalise(images), labels)
        self._check(loss, "theta_learning_rate")
        logits = self.thetas[goal].logits
        (logits.grad,) = torch.autograd.grad(loss, [logits])
        self.shard.add_up([logits.grad])
        self.theta_optimizers[goal].step()
        return loss.item()

    def _cross_entropy(self, draw: Draw, images: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
        """This worker's part of the mean over the whole batch, shape ()."""
        x = self.shard.part(images).to(self.device).contiguous(memory_format=torch.channels_last)
        logits = self.network(x, draw.row, {name: weights.to(self.device) for name, weights in draw.mixed.items()})
        own = self.shard.part(labels).to(self.device)
        return functional.cross_entropy(logits, own, label_smoothing=smoothing, reduction="sum") / len(labels)

    # ---- internals ------------------------------------------------------------------------------------------------

    def _parts(self, train: Split) -> tuple[Split, Split]:
        order = torch.randperm(len(train), generator=self.generator)
        cut = len(train) - round(self.recipe.theta_share * len(train))
        least = 2 * self.shard.workers
        if min(self.recipe.batch_size, cut) < least:
            raise InvalidOptionError(
                f"batches of {self.recipe.batch_size} of {cut} images are too small for {self.shard.workers} workers, "
                "which need two images each; raise batch_size or take fewer workers"
            )
        weights, theta = (Split(train.images[rows], train.labels[rows]) for rows in (order[:cut], order[cut:]))
        return weights, theta

    def _batches(self, part: Split) -> Iterator[tuple[int, Tensor, Tensor]]:
        """The goals whose turn it is, and whole batches; a last one too small for two images per worker is left out."""
        before = self.epoch * -(-len(part) // self.recipe.batch_size)
        for turn, (images, labels) in enumerate(batches(part, self.recipe.batch_size, self.generator), before):
            if len(labels) >= 2 * self.shard.workers:
                yield turn % len(self.terms), images, labels

    def _share_buffers(self) -> None:
        """Statistics and ranges become the means of all workers', so that a checkpoint holds all that there is."""
        buffers = [b for b in self.network.buffers() if b.dtype.is_floating_point]
        if self.shard.workers > 1:
            for buffer in buffers:
                buffer /= self.shard.workers
            self.shard.add_up(buffers)

    def _check(self, loss: Tensor, rate: str) -> None:
        if not torch.isfinite(loss):
            raise DivergedError(f"the loss became {loss.item()} in epoch {self.epoch + 1}; lower the supernet's {rate}")


def _gradient_only(x: Tensor) -> Tensor:
    """Zero, with the gradient of x."""
    return x - x.detach()


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _weights_optimizer(network: nn.Module, recipe: SupernetRecipe) -> torch.optim.SGD:
    parameters = list(network.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum)
