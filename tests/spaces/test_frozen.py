"""Frozen networks compute what the networks compute in evaluation mode."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from hwnas.latency_tables.plan import uniform_precision
from hwnas.latency_tables.profiler import settle
from hwnas.spaces import Space, load_space
from hwnas.spaces.frozen import FrozenUnit, freeze
from hwnas.spaces.network import Network, module_name
from hwnas.spaces.operator import NETWORK_INPUT
from hwnas.spaces.space import Rows
from hwnas.spaces.variation import sample_coherent
from tests.every_kind import OPERATORS, alone, built, everything


@pytest.fixture(scope="module")
def space() -> Space:
    return load_space("mbconv", input_shape=(1, 8, 8), num_classes=10)


def trained(space: Space, row: Rows, seed: int = 0) -> Network:
    """A network whose normalisation and ranges are not those of a fresh one."""
    torch.manual_seed(seed)
    network = space.build(space.decode(row))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    for _ in range(3):
        settle(network)
    return network


def outputs(network: Network) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the network and of the frozen one."""
    images = torch.rand(16, *network.input_shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return network(images), freeze(network)(images)


def some_rows(space: Space) -> Rows:
    rng = np.random.default_rng(0)
    pairs = [(4, 4), (4, 8), (7, 8), (8, 8), (8, 4), (8, 32), (32, 32)]
    return np.concatenate(
        [space.sample(rng, 4), sample_coherent(space, rng, 4), [uniform_precision(space, *pair) for pair in pairs]]
    )


def test_every_operator_is_equal_to_the_networks(space: Space) -> None:
    """To 1e-5; a value at a rounding tie may fall on the other side, one level away, once in ten thousand."""
    values = flips = 0
    for row in some_rows(space):
        network = trained(space, row)
        frozen = dict(freeze(network).named_children())
        images = torch.rand(8, *network.input_shape, generator=torch.Generator().manual_seed(1))
        tensors = {NETWORK_INPUT: images}
        with torch.inference_mode():
            for o in network.workload.operators:
                inputs = [tensors[name] for name in o.inputs]
                tensors[o.name] = expected = network.unit(o)(*inputs)
                difference = (frozen[module_name(o)](*inputs) - expected).abs()
                level = 0.0 if (q := network.unit(o).quantizer) is None else float(q.scale_and_zero_point()[0])
                far = difference > 1e-5 * (1 + expected.abs())
                assert (difference[far] <= 1.001 * level).all(), o.name
                values, flips = values + far.numel(), flips + int(far.sum())
    assert values > 1e5
    assert flips < 1e-4 * values


@pytest.mark.parametrize("bits", [32, 8])
def test_operators_of_every_kind_are_equal_to_the_networks(bits: int) -> None:
    for name, operator in OPERATORS.items():
        network = built(alone(operator, bits))
        before = {key: value.clone() for key, value in network.state_dict().items()}
        expected, actual = outputs(network)
        level = 0.0
        if bits < 32 and (quantizer := network.unit(network.workload.operators[1]).quantizer):
            level = float(quantizer.scale_and_zero_point()[0])
        difference = (actual - expected).abs()
        assert difference.max() <= 1e-5 + 1.01 * level, name
        assert (difference > 1e-5).float().mean() < 0.01, name
        assert not [m for m in freeze(network).modules() if isinstance(m, nn.BatchNorm2d)], name
        assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
        assert all(p.requires_grad for p in network.parameters()), "the network can go on learning"


def test_a_network_of_every_kind_is_frozen() -> None:
    expected, actual = outputs(built(everything()))
    assert torch.allclose(actual, expected, atol=1e-5 * float(expected.abs().max()))


def test_without_rounded_activations_the_whole_is_equal(space: Space) -> None:
    for row in [uniform_precision(space, bits, 32) for bits in (4, 7, 8, 32)]:
        expected, actual = outputs(trained(space, row))
        assert expected.std() > 1e-3, "the logits say something"
        assert torch.allclose(actual, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_with_them_the_whole_is_equal_but_for_ties(space: Space) -> None:
    for row in some_rows(space):
        expected, actual = outputs(trained(space, row))
        assert float((actual - expected).abs().mean()) < 0.02 * float(expected.std())


def test_it_freezes_every_operator_under_its_name(space: Space) -> None:
    network = trained(space, uniform_precision(space, 4, 4))
    frozen = freeze(network)
    names = [name for name, _ in frozen.named_children()]
    assert names == [module_name(o) for o in network.workload.operators]
    assert all(isinstance(module, FrozenUnit) for module in frozen.children())
    assert not frozen.training
    assert not any(p.requires_grad for p in frozen.parameters())
    assert not [m for m in frozen.modules() if isinstance(m, nn.BatchNorm2d)]


def test_weights_are_rounded_once(space: Space) -> None:
    """4-bit weights: at most 15 different values in each output channel, normalisation folded or not."""
    network = trained(space, uniform_precision(space, 4, 4))
    for operator, module in zip(network.workload.operators, freeze(network).children(), strict=True):
        if operator.weight_bits == 4:
            weight = module.compute.weight.detach().flatten(1)
            assert max(len(channel.unique()) for channel in weight) <= 15


def test_the_network_stays_as_it_was(space: Space) -> None:
    network = trained(space, uniform_precision(space, 8, 8))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    frozen = freeze(network)
    with torch.no_grad():
        for parameter in frozen.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
