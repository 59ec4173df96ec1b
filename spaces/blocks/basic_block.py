"""Basic blocks (He et al., CVPR 2016, figure 5 left) with shortcuts that have no parameters (option A, section 4.1).

A block is conv1 (3×3) → conv2 (3×3) → addition of the block's input → ReLU, both convolutions with batch normalisation.
Where the block has a stride or more channels than its input, the input's every stride-th row and column is added, and
channels of zeros in place of those missing. Of block ``s1b2`` the decisions are:

| decision                       | of                                                                              |
|--------------------------------|---------------------------------------------------------------------------------|
| ``.keep``                      | share of the channels between the two convolutions that is kept                 |
| ``.conv1.weight_bits``, …      | of a layer's weights; also of ``.conv2``                                        |
| ``.conv1.density``, …          | the same                                                                        |
| ``.conv1.act_bits``            | of the tensor between them                                                      |

Deviations: zeros come after all other channels, where public code puts half of them before; it is one network, its
channels in another order. A block of fewer channels than its input has no shortcut, as zeros cannot take channels away;
published networks have no such block. There are no 1×1 layers, and so no ranks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from hwnas.spaces.blocks.residual import bits_added, waits_beside
from hwnas.spaces.blocks.shapes import Size, halved, kept_channels, tensor_bytes
from hwnas.spaces.blocks.ugconv import between_transforms, effective_transform, last_name
from hwnas.spaces.builder import Builder, Conditions, Layer, Tensor
from hwnas.spaces.operator import ENTRY, Activation, Operator
from hwnas.spaces.value import Constant, Value, compute

KERNEL = 3
Shortcut = Literal["none", "same", "pad"]
NO_TRANSFORM = Constant("none")


@dataclass(frozen=True, slots=True)
class BasicBlock:
    """What one block is made of; attributes but for the stride are `hwnas.spaces.value` values or become such.

    Attributes:
        stride: Of the first convolution.
        groups: Of both convolutions; they divide the channels.
        transform: Between group convolutions, see `hwnas.spaces.blocks.ugconv`. A shuffle is before the second one
            only, as in ShuffleNet (Zhang et al., CVPR 2018, section 3.2).
    """

    stride: int = 1
    groups: Any = 1
    transform: Any = NO_TRANSFORM

    def add(self, make: Builder, name: str, x: Tensor, y: Tensor, when: Conditions = ()) -> None:
        """Adds the block's decisions and slots.

        Args:
            make: Where to.
            name: Of the block.
            x, y: What it reads and writes.
            when: Conditions under which it exists.
        """
        keep = make.choose(f"{name}.keep", make.joint.keep, when)
        hidden = compute(kept_channels, y.channels, keep)
        make.alias(keep, hidden)
        first = make.layer(f"{name}.conv1", when, ranked=False)
        bits = make.choose(f"{name}.conv1.act_bits", make.joint.act_bits, when)
        second = make.layer(f"{name}.conv2", when, ranked=False)
        transform = compute(effective_transform, self.transform, self.groups, hidden)
        make.alias(self.transform, transform)

        size = compute(halved, x.size, self.stride)
        shortcut = compute(shortcut_kind, self.stride, x.channels, y.channels)
        waits = compute(_waits, shortcut, y.channels, size, x.bits)
        entered = compute(bits_added, compute(_adds, shortcut), x.bits)
        make.slot(f"{name}.conv1", first_layer, x.channels, hidden, self.stride, self.groups,
                  compute(_on_both_sides, transform), x.size, x.bits, first.weight_bits,
                  self._sparsity(make, first, x.channels), bits, shortcut, when=when)  # fmt: skip
        if self.stride > 1 or x.channels != y.channels:
            make.slot(f"{name}.shortcut", pad, shortcut, x.channels, y.channels, self.stride, x.size, x.bits,
                      compute(tensor_bytes, hidden, size, bits), when=when)  # fmt: skip
        make.slot(f"{name}.conv2", second_layer, hidden, y.channels, self.groups, transform, size, bits,
                  second.weight_bits, self._sparsity(make, second, hidden), y.bits, waits, when=when)  # fmt: skip
        make.slot(f"{name}.add", add, shortcut, transform, y.channels, size, entered, y.bits, when=when)

    def _sparsity(self, make: Builder, layer: Layer, channels: Any) -> Value:
        sparsity = compute(_unless_depthwise, layer.sparsity, channels, self.groups)
        make.alias(layer.sparsity, sparsity)
        return sparsity


def shortcut_kind(stride: int, cin: int, cout: int) -> Shortcut:
    """What is added to a block's output: nothing, its input, or its input at the stride with channels of zeros."""
    if cin > cout:
        return "none"
    return "pad" if stride > 1 or cin < cout else "same"


def first_layer(
    name: str, cin: int, hidden: int, stride: int, groups: int, transform: str, size: Size, a_in: int, w: int,
    sparsity: tuple[float, int], a_out: int, shortcut: Shortcut,
) -> tuple[Operator, ...]:  # fmt: skip
    """The convolution to the channels inside the block, with its stride."""
    layer = _convolution(f"{name}.conv1", cin, hidden, stride, groups, size, a_in, w, sparsity, a_out, "relu")
    return between_transforms(layer, transform, tensor_bytes(cin, size, a_in) if _adds(shortcut) else 0)


def pad(
    name: str, shortcut: Shortcut, cin: int, cout: int, stride: int, size: Size, act: int, hidden_bytes: int
) -> tuple[Operator, ...]:
    """The shortcut, if it is an operator, while the tensor inside the block waits."""
    if shortcut != "pad":
        return ()
    return (
        Operator(
            "pad", cin, cout, size, halved(size, stride), stride=stride, in_bits=act, out_bits=act,
            name=f"{name}.shortcut", inputs=(f"{ENTRY}{name}",), held_bytes=hidden_bytes,
        ),
    )  # fmt: skip


def second_layer(
    name: str, hidden: int, cout: int, groups: int, transform: str, size: Size, a_hidden: int, w: int,
    sparsity: tuple[float, int], a_out: int, waits: int,
) -> tuple[Operator, ...]:  # fmt: skip
    """The convolution to the output channels, while the bytes of the shortcut wait; the block's last without one."""
    layer = _convolution(
        f"{name}.conv2", hidden, cout, 1, groups, size, a_hidden, w, sparsity, a_out, "none" if waits else "relu"
    )
    inputs = (last_name(f"{name}.conv1", transform),)
    return between_transforms(replace(layer, inputs=inputs, held_bytes=waits), transform)


def add(
    name: str, shortcut: Shortcut, transform: str, channels: int, size: Size, a_in: int, a_out: int
) -> tuple[Operator, ...]:
    """The sum of the second convolution and the shortcut, and its activation."""
    if shortcut == "none":
        return ()
    inputs = (last_name(f"{name}.conv2", transform), f"{name}.shortcut" if shortcut == "pad" else f"{ENTRY}{name}")
    return (
        Operator(
            "add", channels, channels, size, size, in_bits=max(a_in, a_out), out_bits=a_out, activation="relu",
            name=f"{name}.add", inputs=inputs, held_bytes=waits_beside(channels, size, a_in, a_out),
        ),
    )  # fmt: skip


def _convolution(
    name: str, cin: int, cout: int, stride: int, groups: int, size: Size, a_in: int, w: int,
    sparsity: tuple[float, int], a_out: int, activation: Activation,
) -> Operator:  # fmt: skip
    return Operator(
        "conv", cin, cout, size, halved(size, stride), KERNEL, stride, groups, w, a_in, a_out, sparsity[0], activation,
        pattern=sparsity[1], affine="norm", name=name,
    )  # fmt: skip


def _adds(shortcut: Shortcut) -> bool:
    return shortcut != "none"


def _waits(shortcut: Shortcut, channels: int, size: Size, bits: int) -> int:
    """Bytes of what is added while the second convolution runs."""
    return tensor_bytes(channels, size, bits) if _adds(shortcut) else 0


def _on_both_sides(transform: str) -> str:
    """What is left of a transform where it is not between two convolutions."""
    return "none" if transform == "shuffle" else transform


def _unless_depthwise(sparsity: tuple[float, int], channels: int, groups: int) -> tuple[float, int]:
    """A layer of one channel per group has too few weights for zeros among them."""
    return (1.0, 0) if groups == channels else sparsity
