"""What operators of one name share, of kinds and forms that no published space has."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from hwnas.spaces import Operator, Space
from hwnas.spaces.builder import Builder
from hwnas.spaces.call_text import Buffer, call_text
from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.joint import Joint
from hwnas.spaces.shared.mixture import mix
from hwnas.spaces.shared.parts import part_name, shared_parts
from hwnas.spaces.shared.shared_network import SharedNetwork
from hwnas.spaces.slot import Lower

SIDE, DOUBLE = (4, 4), (8, 8)
SAME: dict[str, Any] = {"in_size": SIDE, "out_size": SIDE}


def made(lower: Lower, **options: tuple[int, ...]) -> Space:
    """A space of one slot that depends on decisions of those names."""
    make = Builder(Joint())
    values = [make.choose(f"body.{name}", choices) for name, choices in options.items()]
    make.slot("body", lower, *values)
    return make.space(name="tests", spec={}, input_shape=(3, *SIDE), num_classes=5)


def scaled(width: int) -> str:
    return call_text([("aten.mul.Tensor", [{"input": 0}, {"parameter": 0}], {})], [(width, 1, 1)])


def shifted(width: int) -> str:
    buffers = [Buffer("float32", (width, 1, 1))]
    return call_text([("aten.add.Tensor", [{"input": 0}, {"buffer": 0}], {})], buffers=buffers)


def padded(name: str, width: int) -> tuple[Operator, ...]:
    """Channels with zeros before them."""
    return (
        Operator("conv", 3, width, kernel=3, affine="norm", name=f"{name}.conv", **SAME),
        Operator("pad", width, 16, front=16 - width, name=f"{name}.pad", **SAME),
        Operator("pool", 16, 16, SIDE, name=f"{name}.pool"),
        Operator("linear", 16, 5, affine="bias", name=f"{name}.classifier"),
    )


def further(name: str, width: int) -> tuple[Operator, ...]:
    """All kinds that mixtures cannot hold."""
    return (
        Operator("conv", 3, 16, kernel=3, kernel_width=1, affine="norm", name=f"{name}.conv", **SAME),
        Operator("slice", 16, width, front=16 - width, name=f"{name}.slice", **SAME),
        Operator("call", width, width, call=scaled(width), name=f"{name}.call", **SAME),
        Operator("call", width, width, call=shifted(width), name=f"{name}.shift", **SAME),
        Operator("deconv", width, 8, SIDE, DOUBLE, 2, 2, affine="bias", name=f"{name}.deconv"),
        Operator("pool", 8, 8, DOUBLE, name=f"{name}.pool"),
        Operator("linear", 8, 5, affine="bias", name=f"{name}.classifier"),
    )


def conv_of(*kernels: tuple[int, int]) -> Space:
    """A convolution with one of several kernels."""

    def lower(name: str, kernel: int) -> tuple[Operator, ...]:
        height, width = kernels[kernel]
        return (Operator("conv", 3, 5, kernel=height, kernel_width=width, name=f"{name}.conv", **SAME),)

    return made(lower, kernel=tuple(range(len(kernels))))


def shared_network(space: Space) -> SharedNetwork:
    torch.manual_seed(0)
    shared = SharedNetwork(space).eval()
    with torch.no_grad():
        for parameter in shared.parameters():
            parameter.normal_(std=0.5)
    return shared


@pytest.mark.parametrize("lower", [padded, further])
def test_networks_of_further_kinds_share_their_weights(lower: Lower) -> None:
    space = made(lower, width=(4, 8, 12))
    shared = shared_network(space)
    x = torch.rand(3, *space.input_shape)
    seen = []
    for width in (12, 4, 8, 12):
        row = space.encode({"body.width": width})
        shared.calibrate(row, [x])
        seen.append(shared(x, row))
        assert torch.allclose(shared.extract(row)(x), seen[-1], atol=1e-5)
    assert torch.allclose(seen[0], seen[3], atol=1e-5)
    assert all((a - b).abs().max() > 1e-2 for a, b in itertools.pairwise(seen))


def test_the_largest_call_has_the_constants_of_all() -> None:
    space = made(further, width=(4, 8, 12))
    parts = shared_parts(space).parts
    assert parts["body_call"].operator.call == scaled(12)
    assert parts["body_conv"].operator.kernel_size == (3, 1)
    shared = shared_network(space)
    whole = dict(shared.named_parameters())["parts.body_call.whole.constant_0"]
    for width in (4, 8, 12):
        network = shared.extract(space.encode({"body.width": width}))
        assert torch.equal(network.state_dict()["units.body_call.constant_0"], whole[:width])


def test_fronts_of_equal_operators_are_their_own() -> None:
    """They do not count for equality, yet for what is computed."""
    shared = shared_network(made(further, width=(4, 8)))
    x = torch.rand(1, 16, 4, 4)
    for front in (0, 5, 12):
        operator = Operator("slice", 16, 4, name="body.slice", front=front, **SAME)
        assert torch.equal(shared.run(operator, [x]), x[:, front : front + 4])


def test_padded_channels_are_mixed_by_width() -> None:
    space = made(padded, width=(4, 8, 12))
    shared = shared_network(space)
    x = torch.rand(3, *space.input_shape)
    pads = mix(space, space.encode({"body.width": 4}), ["body.width"]).nodes["body.pad"].forms.values()
    assert sorted((f.operator.in_channels, f.operator.front) for f in pads) == [(4, 12), (8, 8), (12, 4)]
    for option, width in enumerate((4, 8, 12)):
        row = space.encode({"body.width": width})
        assert torch.allclose(shared(x, row, {"body.width": torch.eye(3)[option]}), shared(x, row), atol=1e-5)


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (Operator("slice", 3, 3, name="body.slice", **SAME), r"body\.slice is a slice, which mixtures cannot hold"),
        (Operator("linear", 3, 3, (7, 1), (7, 1), name="body.ff"), r"body\.ff is a linear on tokens, which mixtures"),
    ],
)
def test_what_mixtures_cannot_hold(operator: Operator, message: str) -> None:
    space = made(lambda _, width: (operator,) * (width > 4), width=(4, 8))
    with pytest.raises(InvalidSpaceError, match=message):
        mix(space, space.encode({"body.width": 4}), ["body.width"])


def test_kernels_that_are_not_square_do_not_share_with_others() -> None:
    for kernels in (((3, 1), (3, 3)), ((3, 1), (5, 1)), ((3, 3), (3, 1))):
        with pytest.raises(InvalidSpaceError, match=r"body\.conv has kernels of .* share weights only where they are"):
            shared_parts(conv_of(*kernels))
    assert shared_parts(conv_of((3, 3), (5, 5))).parts["body_conv"].kernels == (3, 5)


def test_names_of_parts() -> None:
    assert part_name(Operator("deconv", 8, 8, SIDE, DOUBLE, 2, 2, 4, name="up.deconv")) == "up_deconv_g4"
    assert part_name(Operator("deconv", 8, 8, SIDE, DOUBLE, 2, 2, name="up.deconv")) == "up_deconv"
