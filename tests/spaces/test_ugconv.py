"""Unitary group convolutions: their special cases, and figures that one can count by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.spaces import Operator, Space, Workload, load_space
from hwnas.spaces.blocks.ugconv import between_transforms, hadamard_groups
from hwnas.spaces.decision import Option
from hwnas.spaces.network import Network

SIZE = (5, 5)


@pytest.fixture(scope="module")
def space() -> Space:
    joint = ("bits", "sparsity", "density")
    return load_space("ugconv", input_shape=(3, 32, 32), num_classes=10, joint=joint, narrow={"s?.depth": [1, 3]})


def sylvester(size: int) -> Tensor:
    """The orthonormal Hadamard matrix, from its definition."""
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.kron([[1, 1], [1, -1]], matrix) / 2**0.5
    return torch.tensor(matrix, dtype=torch.float32)


def transform_of(channels: int) -> Tensor:
    """The matrix of a layer's Hadamard transform: blocks of the largest power of two."""
    groups = hadamard_groups(channels)
    return torch.block_diag(*[sylvester(channels // groups)] * groups)


def layer(cin: int, cout: int, groups: int) -> Operator:
    return Operator("conv", cin, cout, SIZE, SIZE, 3, groups=groups, activation="relu", name="layer")


def built(cin: int, *operators: Operator) -> Network:
    torch.manual_seed(0)
    return Network(Workload.wire(operators), (cin, *SIZE)).eval()


def product(network: Network) -> Tensor:
    """The weights of its only convolution."""
    (conv,) = (m for m in network.modules() if isinstance(m, nn.Conv2d))
    return conv.weight.detach()


def dense(weight: Tensor, groups: int) -> Tensor:
    """The weights of a group convolution, with zeros between the groups."""
    parts = weight.permute(2, 3, 0, 1).chunk(groups, 2)  # (3, 3, out / groups, in / groups) each
    rows = [torch.cat([p if i == j else torch.zeros_like(p) for j in range(groups)], 3) for i, p in enumerate(parts)]
    return torch.cat(rows, 2).permute(2, 3, 0, 1)


@pytest.mark.parametrize(("cin", "cout", "groups"), [(16, 32, 1), (16, 32, 4), (24, 8, 2), (24, 48, 8)])
@torch.no_grad()
def test_between_hadamard_transforms_it_is_a_dense_convolution_of_transformed_weights(
    cin: int, cout: int, groups: int
) -> None:
    """T₂ W T₁ for the block-diagonal W of the groups; for one group H W H."""
    network = built(cin, *between_transforms(layer(cin, cout, groups), "hadamard"))
    weight = dense(product(network), groups)
    whole = torch.einsum("po,oihw,iq->pqhw", transform_of(cout), weight, transform_of(cin))
    x = torch.randn(2, cin, *SIZE)
    assert torch.allclose(network(x), functional.conv2d(x, whole, padding=1).relu(), atol=1e-5)
    if groups > 1:
        mixed = whole.abs().sum((2, 3)) > 1e-6
        assert mixed.float().mean() > 1.5 / groups, "the transforms mix the groups"


@pytest.mark.parametrize(("cin", "cout", "groups"), [(16, 32, 4), (24, 48, 2)])
@torch.no_grad()
def test_a_permutation_makes_it_shufflenet(cin: int, cout: int, groups: int) -> None:
    network = built(cin, *between_transforms(layer(cin, cout, groups), "shuffle"))
    x = torch.randn(2, cin, *SIZE)
    expected = functional.conv2d(nn.ChannelShuffle(groups)(x), product(network), padding=1, groups=groups).relu()
    assert torch.equal(network(x), expected)


@pytest.mark.parametrize("channels", [8, 24, 64, 96])
@torch.no_grad()
def test_the_transform_is_unitary_and_its_own_inverse(channels: int) -> None:
    once, _, _, _ = between_transforms(layer(channels, channels, 1), "hadamard")
    x = torch.randn(2, channels, *SIZE)
    y = built(channels, once)(x)
    assert torch.allclose(y, torch.einsum("oi,nihw->nohw", transform_of(channels), x), atol=1e-5)
    assert torch.allclose(y.norm(dim=1), x.norm(dim=1), rtol=1e-4)
    assert torch.allclose(built(channels, once)(y), x, atol=1e-5)


@pytest.mark.parametrize(("channels", "groups"), [(8, 1), (16, 1), (24, 3), (48, 3), (96, 3), (40, 5)])
def test_transforms_are_of_the_largest_power_of_two(channels: int, groups: int) -> None:
    assert hadamard_groups(channels) == groups


def test_groups_by_hand(space: Space) -> None:
    """All convolutions but the stem have a quarter of the weights and MACs; transforms have neither."""
    weights = 9 * (6 * 16 * 16 + 16 * 32 + 5 * 32 * 32 + 32 * 64 + 5 * 64 * 64)
    macs = 40_551_040 - 27 * 16 * 32 * 32 - 640  # of ResNet-20, in its blocks
    for name in ("shuffle20", "hadanet20"):
        workload = space.workload(space.reference(name))
        assert workload.params == 269_722 - weights * 3 // 4 == 69_274
        assert workload.macs == 40_551_040 - macs * 3 // 4 == 10_470_016
    assert space.workload(space.reference("resnet20")).params == 269_722


def test_a_block_in_full(space: Space) -> None:
    candidate = {**space.reference("hadanet20"), "s2b1.keep": 0.75, "s2b1.groups": 2, "s2b2.transform": "shuffle"}
    workload = space.workload(candidate)
    first, second = ([o for o in workload.operators if o.name.startswith(block)] for block in ("s2b1.", "s2b2."))
    assert [(o.name[5:], o.kind, o.out_channels, o.groups, o.out_size[0]) for o in first] == [
        ("conv1_before", "hadamard", 16, 1, 32),
        ("conv1", "conv", 24, 2, 16),
        ("conv1_after", "hadamard", 24, 3, 16),
        ("conv1_norm", "activate", 24, 1, 16),
        ("shortcut", "pad", 32, 1, 16),
        ("conv2_before", "hadamard", 24, 3, 16),
        ("conv2", "conv", 32, 2, 16),
        ("conv2_after", "hadamard", 32, 1, 16),
        ("conv2_norm", "activate", 32, 1, 16),
        ("add", "add", 32, 1, 16),
    ]
    assert first[5].inputs == ("s2b1.conv1_norm",)
    assert first[-1].inputs == ("s2b1.conv2_norm", "s2b1.shortcut")
    assert [(o.affine, o.activation) for o in first[1:4]] == [("none", "none"), ("none", "none"), ("norm", "relu")]
    assert [(o.name[5:], o.kind, o.groups) for o in second] == [
        ("conv1", "conv", 4),
        ("conv2_before", "shuffle", 4),
        ("conv2", "conv", 4),
        ("add", "add", 1),
    ]


def rows(space: Space, decision: str, options: tuple[Option, ...], **changes: Option) -> int:
    """How many rows the options of a decision make of ResNet-20 with other changes; ``__`` stands for a dot."""
    own = {**space.reference(), **{k.replace("__", "."): v for k, v in changes.items()}}
    return len({space.encode({**own, decision: o}).tobytes() for o in options})


def test_choices_of_equal_networks_are_one(space: Space) -> None:
    every = ("none", "shuffle", "hadamard")
    assert rows(space, "s1b1.transform", every, s1b1__groups=1) == 1, "a dense convolution absorbs them"
    assert rows(space, "s1b1.transform", every, s1b1__groups=2) == 3
    thin: dict[str, Option] = {"s1__width": 8, "s1b1__groups": 8}
    assert rows(space, "s1b1.transform", every, **thin) == 2, "a shuffle of single channels moves nothing"
    assert rows(space, "s1b1.conv1.density", ("2:4", 0.5, 1.0), **thin) == 1, "a depthwise layer stays whole"
    assert rows(space, "s1b1.conv1.density", ("2:4", 0.5, 1.0), s1b1__groups=8) == 3


def test_precision_flows_from_writer_to_reader(space: Space) -> None:
    for row in space.sample(np.random.default_rng(1), 100):
        written = {"input": 32}
        for o in space.workload_of_row(row).operators:
            bits = [written[name] for name in o.inputs]
            assert o.in_bits == (max(bits) if o.kind == "add" else bits[0]), o.name
            written[o.name] = o.out_bits


def test_every_operator_says_what_waits_for_later_ones(space: Space) -> None:
    """Of each operator, not of the peak alone: bytes of the tensors written before that are read now or later."""
    for row in [space.encode(space.reference("hadanet20")), *space.sample(np.random.default_rng(2), 100)]:
        operators = space.workload_of_row(row).operators
        last = {name: step for step, o in enumerate(operators) for name in o.inputs}
        for step, o in enumerate(operators):
            earlier = sum(e.out_bytes for e in operators[:step] if last[e.name] >= step)
            image = operators[0].in_bytes if step <= last["input"] else 0
            assert o.live_bytes == o.out_bytes + earlier + image, o.name
