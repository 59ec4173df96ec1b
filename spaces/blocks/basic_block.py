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

from dataclasses import dataclass
from typing import Any

from hwnas.spaces.blocks.inverted_residual import widest
from hwnas.spaces.blocks.shapes import Size, halved, kept_channels, tensor_bytes, value_bytes
from hwnas.spaces.blocks.ugconv import between_transforms, effective_transform
from hwnas.spaces.builder import Builder, Conditions, Layer, Tensor
from hwnas.spaces.operator import ENTRY, Activation, Operator
from hwnas.spaces.value import Constant, Value, compute

KERNEL = 3
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

        shortcut = compute(_has_shortcut, x.channels, y.channels)
        make.slot(f"{name}.conv1", first_layer, x.channels, hidden, self.stride, self.groups,
                  compute(_on_both_sides, transform), x.size, x.bits, first.weight_bits,
                  self._sparsity(make, first, x.channels), bits, shortcut, when=when)  # fmt: skip
        # An integer addition needs two integer inputs, so the wider one counts.
        added = compute(widest, shortcut, x.bits, y.bits)
        make.slot(f"{name}.conv2", second_layer, x.channels, hidden, y.channels, self.stride, self.groups, transform,
                  x.size, x.bits, bits, second.weight_bits, self._sparsity(make, second, hidden), y.bits, added,
                  when=when)  # fmt: skip

    def _sparsity(self, make: Builder, layer: Layer, channels: Any) -> Value:
        sparsity = compute(_unless_depthwise, layer.sparsity, channels, self.groups)
        make.alias(layer.sparsity, sparsity)
        return sparsity


def first_layer(
    name: str, cin: int, hidden: int, stride: int, groups: int, transform: str, size: Size, a_in: int, w: int,
    sparsity: tuple[float, int], a_out: int, shortcut: bool,
) -> tuple[Operator, ...]:  # fmt: skip
    """The convolution to the channels inside the block, with its stride."""
    layer = _convolution(f"{name}.conv1", cin, hidden, stride, groups, size, a_in, w, sparsity, a_out, "relu")
    return between_transforms(layer, transform, tensor_bytes(cin, size, a_in) if shortcut else 0)


def second_layer(
    name: str, cin: int, hidden: int, cout: int, stride: int, groups: int, transform: str, size: Size, a_in: int,
    a_hidden: int, w: int, sparsity: tuple[float, int], a_out: int, added: int,
) -> tuple[Operator, ...]:  # fmt: skip
    """The convolution to the output channels, and the shortcut's addition, of ``added`` bits; 0 for none."""
    out, own = halved(size, stride), f"{name}.conv2"
    if not added:
        last = _convolution(own, hidden, cout, 1, groups, out, a_hidden, w, sparsity, a_out, "relu")
        return between_transforms(last, transform)
    entered = tensor_bytes(cin, size, a_in)
    layer = _convolution(own, hidden, cout, 1, groups, out, a_hidden, w, sparsity, a_out, "none", entered)
    layers = between_transforms(layer, transform)
    written, entry = layers[-1], f"{ENTRY}{name}"
    if stride > 1 or cin < cout:
        shortcut = Operator(
            "pad", cin, cout, size, out, stride=stride, in_bits=a_in, out_bits=a_in, name=f"{name}.shortcut",
            inputs=(entry,), held_bytes=written.out_bytes,
        )  # fmt: skip
        layers, entry = (*layers, shortcut), shortcut.name
    # What the wider input adds to the bytes of the first is taken off what is held.
    values = cout * out[0] * out[1]
    held = values * (value_bytes(a_in) + value_bytes(a_out) - value_bytes(added))
    add = Operator(
        "add", cout, cout, out, out, in_bits=added, out_bits=a_out, activation="relu", name=f"{name}.add",
        inputs=(written.name, entry), held_bytes=held,
    )  # fmt: skip
    return (*layers, add)


def _convolution(
    name: str, cin: int, cout: int, stride: int, groups: int, size: Size, a_in: int, w: int,
    sparsity: tuple[float, int], a_out: int, activation: Activation, held: int = 0,
) -> Operator:  # fmt: skip
    return Operator(
        "conv", cin, cout, size, halved(size, stride), KERNEL, stride, groups, w, a_in, a_out, sparsity[0], activation,
        pattern=sparsity[1], affine="norm", name=name, held_bytes=held,
    )  # fmt: skip


def _has_shortcut(cin: int, cout: int) -> bool:
    return cin <= cout


def _on_both_sides(transform: str) -> str:
    """What is left of a transform where it is not between two convolutions."""
    return "none" if transform == "shuffle" else transform


def _unless_depthwise(sparsity: tuple[float, int], channels: int, groups: int) -> tuple[float, int]:
    """A layer of one channel per group has too few weights for zeros among them."""
    return (1.0, 0) if groups == channels else sparsity
