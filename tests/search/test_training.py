"""Training, from its schedule to its accuracy, on digits."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.search.datasets import Dataset, Split, batches
from hwnas.search.training import CALIBRATION_IMAGES, Recipe, Trainer, accuracy, calibrate
from hwnas.spaces.errors import DivergedError
from hwnas.spaces.network import Network
from hwnas.spaces.quantizers import ActivationQuantizer
from hwnas.spaces.units import ConvUnit

from .fixtures import digits, digits_space, thin_row


def a_network(bits: int = 32, seed: int = 0) -> Network:
    space = digits_space()
    torch.manual_seed(seed)
    return space.build(space.decode(thin_row(bits, bits)))


def a_trainer(dataset: Dataset | None = None, bits: int = 32, seed: int = 0, **recipe: Any) -> Trainer:
    return Trainer(a_network(bits, seed), dataset or digits(200), Recipe(**recipe), seed)


def noise(images: int, seed: int = 0) -> Dataset:
    """Random images of two classes, the second brighter; nothing held back but the first ten."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(images) % 2
    pixels = torch.randint(0, 128, (images, 1, 8, 8), generator=generator) + 120 * labels.view(-1, 1, 1, 1)
    split = Split(pixels.to(torch.uint8), labels)
    few = Split(split.images[:10], labels[:10])
    return Dataset("noise", ("dark", "bright"), split, few, few, (0.5,), (0.25,))


def watched(trainer: Trainer) -> tuple[list[Tensor], list[float]]:
    """Every batch that the network sees in training, and the learning rate at that step."""
    seen: list[Tensor] = []
    rates: list[float] = []

    def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].detach().clone())
        rates.append(trainer.optimizer.param_groups[0]["lr"])

    trainer.network.register_forward_pre_hook(look)
    return seen, rates


@pytest.mark.parametrize("bits", [32, 8])
def test_a_tiny_network_learns_digits(bits: int) -> None:
    dataset = digits(500)
    trainer = a_trainer(dataset, bits, epochs=3, batch_size=32, learning_rate=0.02, shift=0)
    before = accuracy(trainer.calibrated(), dataset, dataset.validation)
    losses = [trainer.train_epoch() for _ in range(3)]
    assert before < 0.3
    assert accuracy(trainer.calibrated(), dataset, dataset.validation) > 0.5
    assert losses[2] < losses[1] < losses[0] < math.log(10) + 0.5
    quantisers = [m for m in trainer.network.modules() if isinstance(m, ActivationQuantizer)]
    assert bool(quantisers) == (bits == 8)


def test_accuracy_is_the_share_of_images_classified_rightly() -> None:
    class Always(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return functional.one_hot(torch.full((len(images),), 3), 10).float()

    dataset = digits()
    share = float((dataset.validation.labels == 3).float().mean())
    assert accuracy(Always(), dataset, dataset.validation) == pytest.approx(share)
    nothing_right = Split(dataset.validation.images[:5], torch.full((5,), 4))
    assert accuracy(Always(), dataset, nothing_right) == 0.0
    assert accuracy(Always(), dataset, Split(nothing_right.images, torch.full((5,), 3))) == 1.0


def test_accuracy_leaves_batch_normalisation_alone() -> None:
    network, dataset = a_network(), digits(200)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    accuracy(network.train(), dataset, dataset.train)
    assert all((value == before[name]).all() for name, value in network.state_dict().items())


def test_calibration_finds_the_exact_mean_over_the_batches() -> None:
    dataset, network = digits(), a_network()
    calibrate(network, dataset, 64)
    stem = next(u for u in network.units.values() if isinstance(u, ConvUnit))
    assert stem.norm is not None
    means, variances, sizes = [], [], []
    for images, _ in batches(dataset.train, 64, torch.Generator().manual_seed(0)):
        y = stem.conv(dataset.normalise(images)).detach()
        means.append(y.mean((0, 2, 3)))
        variances.append(y.var((0, 2, 3)))
        sizes.append(len(images))
    assert int(stem.norm.num_batches_tracked) == len(sizes)
    assert sizes[-1] < 64, "a smaller batch counts less"
    shares = torch.tensor(sizes)[:, None] / sum(sizes)
    assert torch.allclose(stem.norm.running_mean, (torch.stack(means) * shares).sum(0), atol=1e-5)
    assert torch.allclose(stem.norm.running_var, (torch.stack(variances) * shares).sum(0), rtol=1e-4)


def test_calibration_stops_at_enough_images_and_restores_the_momentum() -> None:
    network = a_network()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    norms[0].momentum = 0.25
    calibrate(network, noise(CALIBRATION_IMAGES + 500), 128)
    assert {int(norm.num_batches_tracked) for norm in norms} == {CALIBRATION_IMAGES // 128}
    assert [norm.momentum for norm in norms] == [0.25, *[0.1] * (len(norms) - 1)]
    assert not any(module.training for module in network.modules())


def test_calibration_forgets_the_ranges_of_training() -> None:
    dataset, network = digits(), a_network(8)
    quantisers = [m for m in network.modules() if isinstance(m, ActivationQuantizer)]
    for quantiser in quantisers:
        quantiser.high.fill_(1e6)
        quantiser.observed.fill_(True)
    calibrate(network, dataset, 64)
    assert max(float(q.high) for q in quantisers) < 1e3
    assert float(quantisers[0].high) <= float(dataset.normalise(dataset.train.images).max()) + 1e-5


def test_calibration_is_the_same_every_time() -> None:
    dataset, network = digits(200), a_network(8)
    calibrate(network, dataset, 32)
    first = {name: value.clone() for name, value in network.state_dict().items()}
    calibrate(network, dataset, 32)
    assert all((value == first[name]).all() for name, value in network.state_dict().items())


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_learning_rate_far_too_high_is_an_error_that_says_so(optimizer: str) -> None:
    trainer = a_trainer(digits(), optimizer=optimizer, learning_rate=1e18, warmup_epochs=0, epochs=5)
    with pytest.raises(DivergedError, match=r"loss became (nan|inf) in epoch \d; lower training.learning_rate"):
        print([trainer.train_epoch() for _ in range(5)])


@pytest.mark.parametrize("bits", [32, 8])
def test_pixels_that_are_no_numbers_are_an_error(bits: int) -> None:
    dataset = dataclasses.replace(digits(200), mean=(math.nan,))
    with pytest.raises(DivergedError, match="loss became nan in epoch 1"):
        a_trainer(dataset, bits).train_epoch()


def test_the_seed_decides_every_weight() -> None:
    first, same, other = (a_trainer(seed=seed, epochs=2, shift=1, flip=True, images=100) for seed in (1, 1, 2))
    losses = [[trainer.train_epoch() for _ in range(2)] for trainer in (first, same, other)]
    assert losses[0] == losses[1] != losses[2]
    states = [trainer.calibrated().state_dict() for trainer in (first, same)]
    assert all((value == states[1][name]).all() for name, value in states[0].items())


def test_an_epoch_sees_as_many_images_as_asked_for_and_others_the_next_time() -> None:
    trainer = a_trainer(noise(400), images=100, batch_size=32, shift=0, epochs=2)
    seen, _ = watched(trainer)
    trainer.train_epoch()
    assert [len(batch) for batch in seen] == [32, 32, 32, 4]
    first = {tuple(image.ravel().tolist()) for batch in seen for image in batch}
    assert len(first) == 100
    seen.clear()
    trainer.train_epoch()
    second = {tuple(image.ravel().tolist()) for batch in seen for image in batch}
    assert len(second) == 100
    assert len(first & second) < 50


def test_an_epoch_sees_every_image_once_by_default() -> None:
    dataset = noise(96)
    for images in (None, 1000):
        trainer = a_trainer(dataset, images=images, batch_size=32, shift=0)
        seen, _ = watched(trainer)
        trainer.train_epoch()
        got = torch.cat(seen).flatten(1).sum(1).sort().values
        assert torch.allclose(got, dataset.normalise(dataset.train.images).flatten(1).sum(1).sort().values, atol=1e-3)


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    trainer = a_trainer(
        noise(64), batch_size=32, epochs=4, warmup_epochs=1, learning_rate=0.01, weight_decay=0, label_smoothing=0
    )
    _, rates = watched(trainer)
    for _ in range(4):
        trainer.train_epoch()
    falling = [0.01 * (1 + math.cos(math.pi * k / 6)) / 2 for k in range(1, 7)]
    assert rates == pytest.approx([0.005, 0.01, *falling], abs=1e-12)
    assert rates[-1] == 0.0


def test_weights_decay_and_nothing_else_does() -> None:
    trainer = a_trainer(weight_decay=0.125)
    decaying, others = trainer.optimizer.param_groups
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.125, 0.0)
    names = {id(value): name for name, value in trainer.network.named_parameters()}
    assert sorted(id(p) for group in (decaying, others) for p in group["params"]) == sorted(names)
    assert {names[id(p)].rpartition(".")[2] for p in decaying["params"]} == {"weight"}
    assert not any(".norm." in names[id(p)] for p in decaying["params"])
    assert {names[id(p)].rpartition(".")[0].rpartition(".")[2] for p in others["params"]} == {"norm", "linear"}


def test_decay_shrinks_weights() -> None:
    norms = []
    for decay in (0.0, 5.0):
        trainer = a_trainer(noise(64), weight_decay=decay, batch_size=32, epochs=2, learning_rate=0.02)
        for _ in range(2):
            trainer.train_epoch()
        norms.append(sum(float(p.detach().norm()) for p in trainer.optimizer.param_groups[0]["params"]))
    assert norms[1] < 0.95 * norms[0]


def test_averaged_weights_are_what_is_evaluated() -> None:
    trainer = a_trainer(noise(64), batch_size=32, epochs=1, average=0.9, learning_rate=0.02)
    start = next(trainer.network.parameters()).detach().clone()
    trainer.train_epoch()
    assert trainer.calibrated() is trainer.averaged
    assert trainer.averaged is not None
    end = next(trainer.network.parameters()).detach()
    average = next(trainer.averaged.parameters()).detach()
    assert float((average - start).norm()) > 0
    assert float((average - end).norm()) < float((start - end).norm())
    assert a_trainer().averaged is None


def test_the_average_of_what_stays_is_what_it_was() -> None:
    """Of masks, too, which may be infinite."""
    network, mask = a_network(), torch.tensor([0.0, -math.inf])
    network.register_buffer("mask", mask)
    trainer = Trainer(network, noise(64), Recipe(batch_size=32, epochs=1, average=0.9), 0)
    trainer.train_epoch()
    assert trainer.averaged is not None
    assert torch.equal(trainer.averaged.get_buffer("mask"), mask)


def test_a_quantised_network_that_is_trained_stays_on_its_levels() -> None:
    trainer = a_trainer(digits(200), 8, epochs=1, batch_size=32)
    trainer.train_epoch()
    network, found = trainer.calibrated(), []
    first = network.workload.operators[0]
    network.unit(first).register_forward_hook(lambda _, __, y: found.append(y))
    with torch.no_grad():
        network(trainer.dataset.normalise(trainer.dataset.validation.images))
    quantiser = network.unit(first).quantizer
    assert quantiser is not None
    scale, _ = quantiser.scale_and_zero_point()
    steps = (found[0] / scale).numpy()
    assert np.abs(steps - np.rint(steps)).max() < 1e-3
    assert len(np.unique(np.rint(steps))) <= 256


def test_rounding_may_begin_late_and_always_counts_in_the_end() -> None:
    """Ten steps of which six are in floats: then the same weights as of a network that rounds nothing."""
    dataset = digits(160)
    late = a_trainer(dataset, 8, epochs=2, batch_size=32, rounding_after=0.6)
    floats = a_trainer(dataset, 32, epochs=2, batch_size=32)
    floats.network.load_state_dict(late.network.state_dict(), strict=False)
    rounded: list[bool] = []
    late.network.register_forward_pre_hook(lambda *_: rounded.append(next(iter(late.network.units.values())).rounds))
    late.train_epoch()
    floats.train_epoch()
    own = dict(floats.network.named_parameters())
    assert all(torch.equal(value, own[name]) for name, value in late.network.named_parameters())
    quantisers = [m for m in late.network.modules() if isinstance(m, ActivationQuantizer)]
    assert not any(q.observed for q in quantisers)
    late.train_epoch()
    assert rounded == [False] * 6 + [True] * 4
    assert all(q.observed for q in quantisers)


def test_an_epoch_that_does_not_round_is_judged_by_the_rounded_network() -> None:
    dataset = digits(160)
    trainer = a_trainer(dataset, 8, epochs=2, batch_size=32, rounding_after=0.9)
    trainer.train_epoch()
    network = trainer.calibrated()
    assert all(m.observed for m in network.modules() if isinstance(m, ActivationQuantizer))
    again = trainer.calibrated()
    x = dataset.normalise(dataset.validation.images)
    assert torch.equal(network(x), again(x))
    rounded: list[bool] = []
    trainer.network.register_forward_pre_hook(
        lambda *_: rounded.append(next(iter(trainer.network.units.values())).rounds)
    )
    trainer.train_epoch()
    assert rounded == [False] * 4 + [True]


def test_bfloat16_learns_what_float32_learns() -> None:
    dataset = digits(500)
    for bits, after in ((32, 0.0), (8, 0.5)):
        trainer = a_trainer(
            dataset,
            bits,
            epochs=3,
            batch_size=32,
            learning_rate=0.02,
            shift=0,
            precision="bfloat16",
            rounding_after=after,
        )
        for _ in range(3):
            trainer.train_epoch()
        assert all(p.dtype == torch.float32 for p in trainer.network.parameters())
        assert accuracy(trainer.calibrated(), dataset, dataset.validation) > 0.5


def test_ranges_are_set_by_a_method_and_stay_while_rounding_is_learnt() -> None:
    dataset = digits(500)
    trainer = a_trainer(dataset, 8, epochs=2, batch_size=32, rounding_after=0.5, ranges="percentile")
    quantisers = [m for m in trainer.network.modules() if isinstance(m, ActivationQuantizer)]
    trainer.train_epoch()
    found: list[list[float]] = []
    trainer.network.register_forward_pre_hook(lambda *_: found.append([float(q.high) for q in quantisers]))
    trainer.train_epoch()
    training = [highs for highs in found if len(highs)]
    assert training[-1] == training[-2]
    network = trainer.calibrated()
    x = dataset.normalise(dataset.train.images)
    arrived: list[float] = []
    hooks = [q.register_forward_pre_hook(lambda _, xs: arrived.append(float(xs[0].amax()))) for q in quantisers]
    network(x)
    for hook in hooks:
        hook.remove()
    highs = [float(q.high) for q in quantisers]
    assert highs != training[-1]  # found anew
    assert any(high < most for high, most in zip(highs, arrived, strict=True))  # a percentile clips


def test_a_method_for_ranges_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="one of tracked, minmax, percentile, mse, kl, not by 'entropy'"):
        Recipe(ranges="entropy")
