"""Fake quantisation: how many values remain, where zero is, and what gradients pass."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from hwnas.spaces.quantizers import ActivationQuantizer, quantize_weight, weight_scale


def gradient(function: object, x: Tensor) -> Tensor:
    assert callable(function)
    x = x.clone().requires_grad_()
    torch.autograd.backward(function(x).sum())
    assert x.grad is not None
    return x.grad


def observed(bits: int, *batches: Tensor) -> ActivationQuantizer:
    quantizer = ActivationQuantizer(bits)
    quantizer.train()
    for batch in batches:
        quantizer(batch)
    quantizer.eval()
    return quantizer


def test_weights_by_hand() -> None:
    # 3 bits: levels −3 … 3, the largest magnitude of each channel is level 3.
    weight = torch.tensor([[3.0, 1.2, -0.4, -2.6], [0.3, -0.6, 0.04, 0.0]])
    assert weight_scale(weight, 3).tolist() == pytest.approx([1.0, 0.2])
    assert torch.allclose(quantize_weight(weight, 3), torch.tensor([[3.0, 1.0, 0.0, -3.0], [0.4, -0.6, 0.0, 0.0]]))


@pytest.mark.parametrize("bits", [2, 3, 4, 7, 8])
def test_weights_have_symmetric_levels_per_channel(bits: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 40, 5, 5) * torch.logspace(-3, 2, 6)[:, None, None, None]
    weight[:, 0, 0, 0] = 0.0
    rounded = quantize_weight(weight, bits)
    for channel, original in zip(rounded.flatten(1), weight.flatten(1), strict=True):
        levels = np.unique(channel.numpy())
        assert len(levels) <= 2**bits - 1
        assert 0.0 in levels
        assert channel[0] == 0.0
        step = float(original.abs().max()) / (2 ** (bits - 1) - 1)
        indexes = levels / step
        assert np.allclose(indexes, np.rint(indexes), atol=1e-3)
        assert np.abs(np.rint(indexes)).max() == 2 ** (bits - 1) - 1
        assert (channel - original).abs().max() <= step / 2 * (1 + 1e-4)
    assert torch.equal(quantize_weight(-weight, bits), -rounded)


def test_eight_bits_of_weights_use_all_levels() -> None:
    weight = torch.linspace(-1, 1, 255)[None]
    assert len(np.unique(quantize_weight(weight, 8).numpy())) == 255
    assert torch.allclose(quantize_weight(weight, 8), weight, atol=1e-6)


def test_float_weights_are_left_alone() -> None:
    weight = torch.randn(4, 4)
    assert quantize_weight(weight, 32) is weight


def test_a_channel_of_zeros_stays_zero() -> None:
    weight = torch.zeros(2, 3)
    weight[1] = torch.tensor([0.5, -1.0, 0.2])
    assert not quantize_weight(weight, 4)[0].any()
    assert weight_scale(weight, 4).tolist() == pytest.approx([1e-5, 1 / 7])
    assert quantize_weight(weight, 4).isfinite().all()


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_every_weight_gets_the_whole_gradient(bits: int) -> None:
    torch.manual_seed(1)
    weight = torch.randn(5, 30)
    assert torch.equal(gradient(lambda w: quantize_weight(w, bits), weight), torch.ones(5, 30))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("low", "high"), [(-1.3, 2.9), (0.2, 5.0), (-3.0, -0.5), (0.0, 1.0)])
def test_activations_have_evenly_spaced_levels_with_zero_among_them(bits: int, low: float, high: float) -> None:
    x = torch.linspace(low, high, 5000)
    quantizer = observed(bits, x)
    wide = torch.linspace(-10, 10, 20001)
    levels = np.unique(quantizer(wide).numpy())
    assert len(levels) == 2**bits
    assert 0.0 in levels
    assert quantizer(torch.zeros(1)).item() == 0.0
    step = (max(high, 0.0) - min(low, 0.0)) / (2**bits - 1)
    assert np.allclose(np.diff(levels), step, rtol=1e-4)
    # The range is shifted by at most half a step to put a level on zero.
    assert abs(levels[-1] - max(high, 0.0)) <= step / 2 * 1.001
    assert (quantizer(x) - x).abs().max() <= step * 1.001


def test_the_gradient_is_one_inside_and_zero_outside() -> None:
    quantizer = observed(4, torch.tensor([-1.0, 2.0]))
    step = 3 / 15
    inside = torch.linspace(-1 + step, 2 - step, 101)
    outside = torch.tensor([-50.0, -1 - step, 2 + step, 7.0])
    assert torch.equal(gradient(quantizer, inside), torch.ones(101))
    assert torch.equal(gradient(quantizer, outside), torch.zeros(4))
    assert quantizer(outside).tolist() == pytest.approx([-1.0, -1.0, 2.0, 2.0])


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_values_and_gradients_are_those_of_torchs_fake_quantisation(bits: int) -> None:
    torch.manual_seed(2)
    quantizer = observed(bits, torch.tensor([-0.7, 1.9]))
    x, weights = 2 * torch.randn(4, 3, 17, 5).to(memory_format=torch.channels_last), torch.randn(4, 3, 17, 5)
    scale, zero = quantizer.scale_and_zero_point()

    def torchs(values: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(values, scale, zero, 0, quantizer.levels)

    assert torch.allclose(quantizer(x), torchs(x), atol=1e-6)
    assert torch.equal(gradient(lambda v: quantizer(v) * weights, x), gradient(lambda v: torchs(v) * weights, x))


def test_the_first_batch_sets_the_range_and_later_ones_move_it() -> None:
    first, second = torch.tensor([-1.0, 3.0]), torch.tensor([-2.0, 13.0])
    quantizer = observed(8, first)
    assert (quantizer.low.item(), quantizer.high.item()) == (-1.0, 3.0)
    quantizer = observed(8, first, second)
    assert quantizer.low.item() == pytest.approx(-1.1)
    assert quantizer.high.item() == pytest.approx(4.0)


def test_evaluation_does_not_move_the_range_and_reset_forgets_it() -> None:
    quantizer = observed(8, torch.tensor([-1.0, 3.0]))
    quantizer(torch.tensor([-100.0, 100.0]))
    assert (quantizer.low.item(), quantizer.high.item()) == (-1.0, 3.0)
    quantizer.reset()
    quantizer.train()(torch.tensor([-5.0, 6.0]))
    assert (quantizer.low.item(), quantizer.high.item()) == (-5.0, 6.0)


def test_the_range_is_saved_with_the_weights() -> None:
    quantizer = observed(8, torch.tensor([-1.0, 3.0]))
    again = ActivationQuantizer(8)
    again.load_state_dict(quantizer.state_dict())
    x = torch.linspace(-2, 4, 50)
    assert torch.equal(again.eval()(x), quantizer(x))
    again.train()(torch.tensor([-1.0, 13.0]))
    assert again.high.item() == pytest.approx(4.0), "a loaded quantiser goes on averaging"


def test_constant_batches_do_not_divide_by_zero() -> None:
    quantizer = observed(8, torch.zeros(10))
    assert quantizer(torch.zeros(3)).tolist() == [0.0] * 3
    scale, zero = quantizer.scale_and_zero_point()
    assert scale > 0
    assert 0 <= zero <= 255
    assert math.isfinite(float(scale))
