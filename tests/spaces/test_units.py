"""Units of every kind against numbers counted by hand, and torch's own operations."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.spaces import Operator
from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.operator import Activation, Kind
from hwnas.spaces.units import UNITS, ConvUnit, LinearUnit, Unit
from tests.contracts.network_contract import check_network
from tests.every_kind import OPERATORS, alone, built, everything, images

SIDE = (4, 4)


def unit_of(kind: Kind, cin: int, cout: int, size: tuple[int, int] = SIDE, **fields: object) -> Unit:
    torch.manual_seed(0)
    return UNITS[kind](Operator(kind, cin, cout, size, **{"out_size": size, **fields})).eval()  # type: ignore[arg-type]


def maps(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_every_kind_has_a_unit_but_those_that_workloads_remove() -> None:
    assert set(UNITS) == set(get_args(Kind)) - {"identity"}
    assert {o.kind for o in everything(8).operators} == set(UNITS)
    assert {o.kind for o in OPERATORS.values()} >= set(UNITS) - {"scale", "quantize"}


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_does_what_it_says(name: str) -> None:
    for bits in (32, 8, 4):
        network = built(alone(OPERATORS[name], bits))
        check_network(network, images(network, 2, 3))


@pytest.mark.parametrize("bits", [32, 8, 4])
def test_a_network_of_every_kind_does_what_it_says_and_learns(bits: int) -> None:
    network = built(everything(bits))
    assert check_network(network, images(network, 2, 3)).shape == (2, 5)
    loss = functional.cross_entropy(network.train()(images(network, 8, 4)), torch.arange(8) % 5)
    torch.autograd.backward(loss)
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), f"no gradient reaches {name}"


def test_figures_of_that_network_by_hand() -> None:
    workload = everything()
    convolutions = (6 * 16 * 9 + 16 * 4 + 16 * 9) * 64 + 48 * 48 + 64 * 32 * 16
    transposed = 12 * 32 // 2 * 9
    assert workload.macs == convolutions + transposed * 16 + 32 * 5
    norms = 2 * (16 + 16 + 16 + 48 + 32 + 32)
    weights = 6 * 16 * 9 + 16 * 4 + 16 * 9 + 48 * 48 + 64 * 32 + transposed + 32 * 5
    assert workload.params == weights + norms + (16 + 48) + 48 + 5 + 12  # slopes, biases of two, constants


def test_a_dilated_convolution_has_zeros_between_its_taps() -> None:
    unit = unit_of("conv", 3, 5, (9, 9), kernel=3, dilation=2)
    assert isinstance(unit, ConvUnit)
    spread = torch.zeros(5, 3, 5, 5)
    spread[:, :, ::2, ::2] = unit.conv.weight.detach()
    x = maps(2, 3, 9, 9)
    assert torch.allclose(unit(x), functional.conv2d(x, spread, padding=2), atol=1e-5)


def test_shuffled_groups_are_torchs() -> None:
    shuffle = unit_of("shuffle", 12, 12, groups=3)
    x = maps(2, 12, 4, 4)
    assert torch.equal(shuffle(x), functional.channel_shuffle(x, 3))
    assert shuffle(torch.arange(6.0).reshape(1, 6, 1, 1).repeat(1, 2, 1, 1))[0, :, 0, 0].tolist() == [
        0, 4, 2, 1, 5, 3, 2, 0, 4, 3, 1, 5,
    ]  # fmt: skip
    conv = unit_of("conv", 12, 6, kernel=3, groups=3)
    assert isinstance(conv, ConvUnit)
    expected = functional.conv2d(functional.channel_shuffle(x, 3), conv.conv.weight, padding=1, groups=3)
    assert torch.allclose(conv(shuffle(x)), expected, atol=1e-6)


def test_a_shuffle_of_unequal_groups_is_refused() -> None:
    with pytest.raises(InvalidSpaceError, match="the shuffle 'mix' has 10 channels in 4 groups; the groups must"):
        UNITS["shuffle"](Operator("shuffle", 10, 10, SIDE, SIDE, groups=4, name="mix"))


def test_window_pools_leave_padding_out() -> None:
    x = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    assert unit_of("pool", 1, 1, (3, 3), kernel=3)(x)[0, 0].tolist() == [[3, 3.5, 4], [4.5, 5, 5.5], [6, 6.5, 7]]
    assert unit_of("pool", 1, 1, (3, 3), kernel=3, stride=2)(x)[0, 0].tolist() == [[3, 4], [6, 7]]
    assert unit_of("pool", 1, 1, (3, 3), kernel=2, stride=2)(x)[0, 0].tolist() == [[3, 4.5], [7.5, 9]]
    assert unit_of("pool", 1, 1, (3, 3))(x)[0, 0].tolist() == [[5]], "whole maps"


def test_padded_shortcuts_take_every_other_pixel_and_append_zeros() -> None:
    x = maps(2, 3, 5, 5)
    y = unit_of("pad", 3, 7, (5, 5), stride=2)(x)
    assert y.shape == (2, 7, 3, 3)
    assert torch.equal(y[:, :3], x[:, :, [0, 2, 4]][..., [0, 2, 4]])
    assert not y[:, 3:].any()


def test_zeros_pass_no_gradient() -> None:
    x = maps(2, 3, 5, 5).requires_grad_()
    y = unit_of("zero", 3, 3, (5, 5), stride=2)(x)
    assert y.shape == (2, 3, 3, 3)
    assert not y.any()
    torch.autograd.backward(y.sum())
    assert x.grad is not None
    assert not x.grad.any()


def test_tensors_stand_one_after_the_other() -> None:
    x, y = maps(2, 3, 4, 4), maps(2, 5, 4, 4)
    z = unit_of("concat", 8, 8)(x, y)
    assert torch.equal(z[:, :3], x)
    assert torch.equal(z[:, 3:], y)


FORMULAS = {
    "none": lambda x: x,
    "relu": lambda x: x.clamp_min(0),
    "relu6": lambda x: x.clamp(0, 6),
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "hswish": lambda x: x * (x + 3).clamp(0, 6) / 6,
    "hsigmoid": lambda x: (x + 3).clamp(0, 6) / 6,
    "prelu": lambda x: torch.where(x > 0, x, 0.25 * x),
    "silu": lambda x: x / (1 + (-x).exp()),
    "gelu": lambda x: x * torch.special.ndtr(x),
    "tanh": lambda x: (x.exp() - (-x).exp()) / (x.exp() + (-x).exp()),
}


@pytest.mark.parametrize("activation", get_args(Activation))
def test_activations_are_their_formulas(activation: Activation) -> None:
    x = 5 * maps(4, 3, 4, 4)
    unit = unit_of("activate", 3, 3, activation=activation)
    assert torch.allclose(unit(x), FORMULAS[activation](x), atol=1e-6)
    assert sum(p.numel() for p in unit.parameters()) == unit.operator.params == 3 * (activation == "prelu")


def test_every_channel_has_its_slope() -> None:
    unit = unit_of("activate", 3, 3, activation="prelu")
    assert isinstance(unit.activation, nn.PReLU)
    with torch.no_grad():
        unit.activation.weight.copy_(torch.tensor([0.0, 0.5, 1.0]))
    assert unit(-torch.ones(1, 3, 1, 1)).flatten().tolist() == [0.0, -0.5, -1.0]


def test_a_lone_normalisation_comes_before_its_activation() -> None:
    unit = unit_of("activate", 3, 3, affine="norm", activation="relu").train()
    x = maps(4, 3, 4, 4)
    expected = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), keepdim=True, correction=0) + 1e-5).sqrt()
    assert torch.allclose(unit(x), expected.clamp_min(0), atol=1e-5)


@pytest.mark.parametrize("pattern", [0, 2])
def test_what_is_exported_is_pruned(pattern: int) -> None:
    conv = unit_of("conv", 4, 6, kernel=3, density=0.5, pattern=pattern, affine="norm")
    linear = unit_of("linear", 8, 3, (1, 1), density=0.5, pattern=pattern, affine="bias")
    assert isinstance(conv, ConvUnit)
    assert isinstance(linear, LinearUnit)
    for unit in (conv, linear):
        weight, factor, bias = unit.folded()
        assert int((weight != 0).sum()) == unit.operator.weights // 2
        assert unit.layer.weight.all(), "the others are not forgotten"
        assert bias is not None
        assert factor.shape == bias.shape == (unit.operator.out_channels,)
    x = maps(2, 4, 4, 4)
    weight, factor, bias = conv.folded()
    assert bias is not None
    expected = functional.conv2d(x, weight * factor.reshape(-1, 1, 1, 1), bias, padding=1)
    assert torch.allclose(conv(x), expected, atol=1e-5)


def test_weights_are_pruned_before_they_are_rounded() -> None:
    unit = UNITS["linear"](Operator("linear", 4, 1, density=0.5, pattern=4, weight_bits=3))
    assert isinstance(unit, LinearUnit)
    with torch.no_grad():
        unit.linear.weight.copy_(torch.tensor([[3.0, 1.9, -2.1, 1.4]]))
    assert unit(torch.eye(4)).flatten().tolist() == [3.0, 0.0, -2.0, 0.0]  # levels −3 … 3


def test_padding_keeps_the_size_whatever_the_dilation() -> None:
    for kernel in (1, 3, 5):
        for dilation in (1, 2, 3):
            unit = unit_of("conv", 2, 2, (11, 11), kernel=kernel, dilation=dilation)
            assert unit(maps(1, 2, 11, 11)).shape == (1, 2, 11, 11)
            strided = UNITS["conv"](replace(unit.operator, stride=2, out_size=(6, 6)))
            assert strided(maps(1, 2, 11, 11)).shape == (1, 2, 6, 6)
