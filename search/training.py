"""Training a network of a space: optimiser, schedule, quantisers, batch-norm calibration, evaluation."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
)
from torch import Tensor, nn
from torch.nn import functional

from hwnas.search.augmentation import augment
from hwnas.search.datasets import Dataset, Split, batches
from hwnas.search.distillation import distillation_loss
from hwnas.spaces.calibration import recalibrate
from hwnas.spaces.compression.range_calibration import calibrate_ranges
from hwnas.spaces.compression.ranges import RANGE_METHODS
from hwnas.spaces.errors import DivergedError, InvalidOptionError, UnavailableError
from hwnas.spaces.network import Network
from hwnas.spaces.quantizers import ActivationQuantizer
from hwnas.spaces.unit import set_rounding

EVALUATION_BATCH = 256
CALIBRATION_IMAGES = 2048
TRACKED = "tracked"


class Recipe(BaseModel):
    """How to train.

    Attributes:
        epochs: Passes over the training split.
        batch_size: Images per step.
        optimizer: ``adamw`` or ``sgd`` (Nesterov momentum 0.9).
        learning_rate: The peak; a linear warm-up over ``warmup_epochs`` leads to it, a cosine to zero away from it.
        weight_decay: On weights; never on biases and normalisation.
        label_smoothing: Share of the target spread over all classes.
        warmup_epochs: Epochs of warm-up; may be a fraction.
        shift: Largest random shift in pixels.
        flip: Random horizontal flips.
        rotate: Largest random turn in degrees.
        zoom: Largest random change of an image's side, as a share of it.
        images: Training images per epoch, another random part each time; all of them by default.
        average: Decay per step of an exponential moving average of the weights, which is what is evaluated; 0 for none.
        distillation: Share of the loss that comes from the answers of a teacher, where there is one.
        temperature: At which its answers are learnt.
        rounding_after: Share of the steps before weights and activations are rounded: they are trained as floats until
            then, which is faster, and so is learning to make good what was cut away. Epochs before are judged by the
            network rounded all the same, of which low bits look bad: stop no trials early with it.
        precision: What floats are multiplied as until then (networks that round nothing: throughout). ``bfloat16`` is
            faster where the hardware has it.
        ranges: Of activations: ``tracked``, which are moving averages of extremes, or a method of
            `hwnas.spaces.compression.ranges`, by which they are set when rounding begins, and anew when it ends.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: PositiveInt = 8
    batch_size: PositiveInt = Field(default=64, ge=2)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: PositiveFloat = 0.004
    weight_decay: NonNegativeFloat = 0.02
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    warmup_epochs: NonNegativeFloat = 0.5
    shift: NonNegativeInt = 1
    flip: bool = False
    rotate: float = Field(default=0.0, ge=0, le=180)
    zoom: float = Field(default=0.0, ge=0, lt=1)
    images: PositiveInt | None = None
    average: float = Field(default=0.0, ge=0, lt=1)
    distillation: float = Field(default=0.9, ge=0, le=1)
    temperature: PositiveFloat = 4.0
    rounding_after: float = Field(default=0.0, ge=0, lt=1)
    precision: Literal["float32", "bfloat16"] = "float32"
    ranges: str = TRACKED

    @field_validator("ranges")
    @classmethod
    def _known_ranges(cls, name: str) -> str:
        if name not in (names := (TRACKED, *RANGE_METHODS)):
            raise ValueError(f"ranges of activations are found by one of {', '.join(names)}, not by {name!r}")
        return name


def training_device(on_gpu: bool) -> torch.device:
    """The processor, or the GPU that Ray shows to what takes one.

    Raises:
        UnavailableError: This installation of PyTorch cannot use a GPU here.
    """
    if on_gpu and not torch.cuda.is_available():
        raise UnavailableError(
            f"trainings take a GPU of this node, but PyTorch {torch.__version__} cannot use one here; install PyTorch "
            "for CUDA on it, or leave gpu out of search.resources"
        )
    return torch.device("cuda" if on_gpu else "cpu")


class Trainer:
    """Trains one network epoch by epoch, channels last in memory: 1.6 times as fast on x86 CPUs.

    Args:
        network: Trained in place.
        dataset: Its ``train`` split is learnt; the others are only ever evaluated.
        recipe: How.
        seed: Of the order of images and of their augmentation.
        on_gpu: Whether on a GPU; the network stays there.
        teacher: In evaluation mode, from images to logits: what to distil from.
    """

    def __init__(
        self,
        network: Network,
        dataset: Dataset,
        recipe: Recipe,
        seed: int,
        *,
        on_gpu: bool = False,
        teacher: nn.Module | None = None,
    ) -> None:
        self.network = network
        self.device = training_device(on_gpu)
        self.teacher = None if teacher is None or not recipe.distillation else teacher.to(self.device)
        network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.dataset = dataset
        self.recipe = recipe
        self.generator = torch.Generator().manual_seed(seed)
        self.optimizer = _optimizer(network, recipe)
        self.epoch = 0
        self.averaged = copy.deepcopy(network).eval() if recipe.average else None
        self._images = min(recipe.images or len(dataset.train), len(dataset.train))
        steps_per_epoch = max(1, -(-self._images // recipe.batch_size))
        self._steps = steps_per_epoch * recipe.epochs
        self._warmup = max(1.0, steps_per_epoch * recipe.warmup_epochs)
        self._rounding_step = int(self._steps * recipe.rounding_after)
        self._never_rounds = all(
            o.out_bits >= 32 and (o.weight_bits >= 32 or not o.weights) and not o.shared
            for o in network.workload.operators
        )
        self._step = 0

    def train_epoch(self) -> float:
        """One pass over the training split; the mean loss.

        Raises:
            DivergedError: The loss is not finite.
        """
        recipe = self.recipe
        self.network.train()
        set_rounding(self.network, self._step >= self._rounding_step)
        total, count = 0.0, 0
        for images, labels in batches(self._part(), recipe.batch_size, self.generator):
            changes = recipe.model_dump(include={"shift", "flip", "rotate", "zoom"})
            x = self.dataset.normalise(augment(images.float(), self.generator, **changes))
            x = x.to(self.device).contiguous(memory_format=torch.channels_last)
            labels = labels.to(self.device)
            if self._step == self._rounding_step:
                self._begin_rounding()
            rate = self._learning_rate()
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            loss = self._loss(x, labels)
            if not torch.isfinite(loss):
                raise DivergedError(
                    f"the loss became {loss.item()} in epoch {self.epoch + 1}; lower training.learning_rate"
                )
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
            self.optimizer.step()
            self._average()
            total, count = total + loss.item() * len(labels), count + len(labels)
        self.epoch += 1
        return total / max(1, count)

    def calibrated(self) -> Network:
        """The network whose accuracy counts (the averaged one where there is one), ready for evaluation.

        Its statistics are re-estimated on the training split: after few steps the moving averages lag far behind.

        Raises:
            DivergedError: See `find_ranges`.
        """
        network = self.averaged or self.network
        set_rounding(network, True)
        calibrate(network, self.dataset, self.recipe.batch_size, self.recipe.ranges)
        return network.eval()

    def _begin_rounding(self) -> None:
        set_rounding(self.network, True)
        if self.recipe.ranges != TRACKED:
            calibrate(self.network, self.dataset, self.recipe.batch_size, self.recipe.ranges)
            self.network.train()
            for module in self.network.modules():
                if isinstance(module, ActivationQuantizer):
                    module.tracks = False

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        recipe = self.recipe
        floats = self._never_rounds or self._step <= self._rounding_step
        with torch.autocast(self.device.type, torch.bfloat16, enabled=floats and recipe.precision == "bfloat16"):
            logits = self.network(images).float()
        own = functional.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
        if self.teacher is None:
            return own
        with torch.no_grad():
            taught = self.teacher(images)
        return torch.lerp(own, distillation_loss(logits, taught, recipe.temperature), recipe.distillation)

    def _part(self) -> Split:
        split = self.dataset.train
        if self._images == len(split):
            return split
        chosen = torch.randperm(len(split), generator=self.generator)[: self._images]
        return Split(split.images[chosen], split.labels[chosen])

    def _learning_rate(self) -> float:
        self._step += 1
        peak = self.recipe.learning_rate
        if self._step <= self._warmup:
            return peak * self._step / self._warmup
        progress = (self._step - self._warmup) / max(1.0, self._steps - self._warmup)
        return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    @torch.no_grad()
    def _average(self) -> None:
        if self.averaged is None:
            return
        decay = min(self.recipe.average, self._step / (self._step + 10))
        own: Mapping[str, Tensor] = self.network.state_dict()
        for name, value in self.averaged.state_dict().items():
            if value.dtype.is_floating_point:
                same = value == own[name]  # what is infinite has no way between
                value.copy_(torch.where(same, value, value.lerp(own[name], 1 - decay)))
            else:
                value.copy_(own[name])


@torch.no_grad()
def accuracy(network: nn.Module, dataset: Dataset, split: Split) -> float:
    """Share of a split that the network in evaluation mode classifies rightly."""
    network.eval()
    device = _device_of(network)
    right = 0
    for images, labels in batches(split, EVALUATION_BATCH, None):
        right += int((network(dataset.normalise(images).to(device)).argmax(1) == labels.to(device)).sum())
    return right / len(split)


def calibrate(network: nn.Module, dataset: Dataset, batch_size: int, ranges: str = TRACKED) -> None:
    """Re-estimates batch-norm statistics and quantiser ranges on training images as they are.

    During training both are moving averages over augmented images and over weights that were still changing.
    """
    recalibrate(network, _first_images(dataset, batch_size, _device_of(network)))
    find_ranges(network, dataset, batch_size, ranges)


def find_ranges(network: nn.Module, dataset: Dataset, batch_size: int, ranges: str) -> None:
    """Sets the ranges of activations by a method, see `Recipe.ranges`, and leaves those that are tracked.

    Raises:
        DivergedError: Activations are not finite.
    """
    if ranges == TRACKED:
        return
    try:
        calibrate_ranges(network, _first_images(dataset, batch_size, _device_of(network)), ranges)
    except InvalidOptionError as error:
        raise DivergedError(f"activations have no range: {error}; lower training.learning_rate") from error


def _device_of(network: nn.Module) -> torch.device:
    return next((p.device for p in network.parameters()), torch.device("cpu"))


def _first_images(dataset: Dataset, batch_size: int, device: torch.device) -> Iterator[Tensor]:
    seen = 0
    for images, _ in batches(dataset.train, batch_size, torch.Generator().manual_seed(0)):
        yield dataset.normalise(images).to(device)
        seen += len(images)
        if seen >= CALIBRATION_IMAGES:
            break


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    weights = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)
