"""EESP units: extremely efficient spatial pyramids of dilated depthwise convolutions (ESPNetv2, CVPR 2019, section 3).

A pyramid is reduce (1×1 in 4 groups) → 4 depthwise branches of rising dilation, each added to the one after it → their
concatenation, normalised → expand (1×1 in 4 groups), as ``EESP`` of the code of the paper has it,
``imagenet/Model.py``. A unit adds its input. Of unit ``level3b2`` the decisions are:

| decision                                   | of                                                                  |
|--------------------------------------------|---------------------------------------------------------------------|
| ``.keep``                                  | share of the channels of each branch that is kept                   |
| ``.reduce.weight_bits``, ``.density``, …   | of a layer's weights; also of ``.branch`` (all four) and ``.expand``|
| ``.reduce.act_bits``                       | of the tensor that the branches read                                |
| ``.branch.act_bits``                       | of what the branches write, and of their sums and concatenation     |
| ``.merge.act_bits``                        | of the concatenation once it is normalised and activated            |

Outputs of the units of a level share channels and precision, as additions need it; both are given from outside.
"""

from __future__ import annotations

from dataclasses import replace
from operator import add as plus

from hwnas.spaces.blocks.shapes import Size, halved, tensor_bytes, to_multiple
from hwnas.spaces.builder import Builder, Conditions, Tensor
from hwnas.spaces.operator import ENTRY, PREVIOUS, Activation, Operator
from hwnas.spaces.rank import factorise, rank_of
from hwnas.spaces.value import Constant, Value, compute

BRANCHES = 4
"""Branches of a pyramid and groups of its 1×1 layers: K of the paper, 4 in all published networks."""
CHANNEL_MULTIPLE = BRANCHES * BRANCHES
"""A pyramid's output channels are a multiple of it: the reduced ones, a fourth, are divided into groups, too."""
RECEPTIVE_LIMITS = (3, 5, 7, 9)
"""Largest receptive field of a branch. With 4 branches, limits above 9 (the paper's code has 11 and 13) are as 9."""


def dilations(limit: int) -> tuple[int, ...]:
    """Dilations of the branches, whose receptive fields are 3, 5, 7 and 9 or, where that is above the limit, 3.

    >>> dilations(9), dilations(7), dilations(5)
    ((1, 2, 3, 4), (1, 1, 2, 3), (1, 1, 1, 2))
    """
    fields = (3 + 2 * index for index in range(BRANCHES))
    return tuple(sorted((field - 1) // 2 if field <= limit else 1 for field in fields))


def dilation(limit: int, number: int) -> int:
    """The dilation of one branch, counted from 1."""
    return dilations(limit)[number - 1]


def branch_channels(channels: int, keep: float) -> int:
    """Channels of each branch of a pyramid of so many output channels: a multiple of the groups."""
    whole = channels // BRANCHES
    return whole if keep == 1 else to_multiple(whole * keep, BRANCHES)


def add_pyramid(
    make: Builder, name: str, x: Tensor, y: Tensor, limit: Value, before: Value, held: Value, when: Conditions = (), *,
    stride: int,
) -> None:  # fmt: skip
    """Adds a pyramid's decisions and slots.

    Args:
        make: Where to.
        name: Of the block that it is part of.
        x, y: What it reads, which entered the block, and what it writes.
        limit: See `dilations`.
        before, held: Bytes that wait while the input is reduced, and afterwards.
        when: Conditions under which it exists.
        stride: Of the branches.
    """
    keep = make.choose(f"{name}.keep", make.joint.keep, when)
    reduce = make.layer(f"{name}.reduce", when)
    act_reduced = make.choose(f"{name}.reduce.act_bits", make.joint.act_bits, when)
    branch = make.layer(f"{name}.branch", when, ranked=False, dense=True)
    act_branch = make.choose(f"{name}.branch.act_bits", make.joint.act_bits, when)
    act_merged = make.choose(f"{name}.merge.act_bits", make.joint.act_bits, when)
    expand = make.layer(f"{name}.expand", when)

    channels = compute(branch_channels, y.channels, keep)
    merged = compute(_all_branches, channels)
    reduce_rank = compute(rank_of, x.channels, channels, reduce.rank)
    expand_rank = compute(rank_of, merged, y.channels, expand.rank)
    make.alias(keep, channels)
    make.alias(reduce.rank, reduce_rank)
    make.alias(expand.rank, expand_rank)

    make.slot(f"{name}.reduce", reduce_layer, x.channels, channels, x.size, x.bits, reduce.weight_bits,
              reduce.sparsity, reduce_rank, act_reduced, before, held, when=when)  # fmt: skip
    for number in range(1, BRANCHES + 1):
        make.slot(f"{name}.branch{number}", branch_layer, number, channels, compute(dilation, limit, number), stride,
                  x.size, act_reduced, branch.weight_bits, act_branch, held, when=when)  # fmt: skip
    make.slot(f"{name}.merge", merge_layers, channels, y.size, act_branch, act_merged, held, when=when)
    make.slot(f"{name}.expand", expand_layer, merged, y.channels, y.size, act_merged, expand.weight_bits,
              expand.sparsity, expand_rank, y.bits, Constant("none"), held, when=when)  # fmt: skip


def add_unit(make: Builder, name: str, x: Tensor, limit: Value, held: Value, when: Conditions = ()) -> None:
    """Adds a unit: a pyramid, the addition of its input, and the activation. It writes a tensor such as it reads.

    Args:
        make: Where to.
        name: Of the unit.
        x: What it reads.
        limit: See `dilations`.
        held: Bytes that wait for later blocks.
        when: Conditions under which it exists.
    """
    entered = compute(tensor_bytes, x.channels, x.size, x.bits)
    add_pyramid(make, name, x, x, limit, held, compute(plus, held, entered), when, stride=1)
    make.slot(f"{name}.add", add_entered, x.channels, x.size, x.bits, held, when=when)
    make.slot(f"{name}.activate", activate, x.channels, x.size, x.bits, held, 0, when=when)


def _all_branches(channels: int) -> int:
    return BRANCHES * channels


def reduce_layer(
    name: str, cin: int, channels: int, size: Size, a_in: int, w: int, sparsity: tuple[float, int], rank: int,
    a_out: int, before: int, held: int,
) -> tuple[Operator, ...]:  # fmt: skip
    """The grouped 1×1 convolution from what entered the block to the channels of a branch."""
    layer = Operator(
        "conv", cin, channels, size, size, groups=BRANCHES, weight_bits=w, in_bits=a_in, out_bits=a_out,
        density=sparsity[0], pattern=sparsity[1], activation="prelu", affine="norm", name=f"{name}.reduce",
        inputs=(f"{ENTRY}{name}",), held_bytes=held,
    )  # fmt: skip
    first, *second = factorise(layer, rank)
    return (replace(first, held_bytes=before), *second)


def branch_layer(
    name: str, number: int, channels: int, dilation: int, stride: int, size: Size, a_in: int, w: int, a_out: int,
    held: int,
) -> tuple[Operator, ...]:  # fmt: skip
    """One of the dilated depthwise convolutions, while what the earlier ones wrote waits."""
    out = halved(size, stride)
    return (
        Operator("conv", channels, channels, size, out, 3, stride, channels, w, a_in, a_out, dilation=dilation,
                 name=f"{name}.branch{number}", inputs=(f"{name}.reduce",),
                 held_bytes=held + (number - 1) * tensor_bytes(channels, out, a_out)),
    )  # fmt: skip


def merge_layers(name: str, channels: int, size: Size, a_in: int, a_out: int, held: int) -> tuple[Operator, ...]:
    """The sums of each branch with all before it, these and the first branch concatenated, normalised and activated.

    The sums follow all branches, where the code adds each at once: both take as much memory. The code's comments speak
    of leaving branches of equal dilation out of the sums. As it computes, all take part.
    """
    others = held + (BRANCHES - 1) * tensor_bytes(channels, size, a_in)
    sums = [f"{name}.branch1"]
    operators = []
    for number in range(2, BRANCHES + 1):
        branch = f"{name}.branch{number}"
        operators.append(add(f"{name}.sum{number}", channels, size, a_in, (branch, sums[-1]), others))
        sums.append(operators[-1].name)
    merged = _all_branches(channels)
    concat = Operator(
        "concat", merged, merged, size, size, in_bits=a_in, out_bits=a_in, name=f"{name}.concat", inputs=tuple(sums),
        held_bytes=held,
    )  # fmt: skip
    merge = Operator(
        "activate", merged, merged, size, size, in_bits=a_in, out_bits=a_out, activation="prelu", affine="norm",
        name=f"{name}.merge", held_bytes=held,
    )  # fmt: skip
    return (*operators, concat, merge)


def expand_layer(
    name: str, cin: int, cout: int, size: Size, a_in: int, w: int, sparsity: tuple[float, int], rank: int, a_out: int,
    activation: Activation, held: int,
) -> tuple[Operator, ...]:  # fmt: skip
    """The grouped 1×1 convolution to a block's output channels."""
    layer = Operator(
        "conv", cin, cout, size, size, groups=BRANCHES, weight_bits=w, in_bits=a_in, out_bits=a_out,
        density=sparsity[0], pattern=sparsity[1], activation=activation, affine="norm", name=f"{name}.expand",
        held_bytes=held,
    )  # fmt: skip
    return factorise(layer, rank)


def add_entered(name: str, channels: int, size: Size, act: int, held: int) -> tuple[Operator, ...]:
    """The addition of what entered the block, which waits beside what else does."""
    both = (PREVIOUS, f"{ENTRY}{name}")
    return (add(f"{name}.add", channels, size, act, both, held + tensor_bytes(channels, size, act)),)


def activate(name: str, channels: int, size: Size, act: int, held: int, unused: int) -> tuple[Operator, ...]:
    """The activation at the end of a block."""
    return (
        Operator("activate", channels, channels, size, size, in_bits=act, out_bits=act, activation="prelu",
                 name=f"{name}.activate", held_bytes=held, unused=unused),
    )  # fmt: skip


def add(name: str, channels: int, size: Size, act: int, both: tuple[str, str], held: int) -> Operator:
    """The sum of two tensors; ``held`` has the bytes of the second."""
    return Operator(
        "add", channels, channels, size, size, in_bits=act, out_bits=act, name=name, inputs=both, held_bytes=held
    )
