"""Unitary group convolutions: y = T₂ · GConv(T₁ · x), with T₁ and T₂ unitary along the channels.

Zhao et al., "Building Efficient Deep Neural Networks with Unitary Group Convolutions", CVPR 2019, arXiv 1811.07755. A
group convolution alone keeps its groups apart; the transforms mix them, at no weights and no multiplications:

| transform    | T₁          | T₂       | what it is                                                            |
|--------------|-------------|----------|-----------------------------------------------------------------------|
| ``none``     | –           | –        | a group convolution, or a dense one where there is one group          |
| ``shuffle``  | permutation | –        | ShuffleNet (Zhang et al., CVPR 2018)                                  |
| ``hadamard`` | Hadamard    | Hadamard | HadaNet: C·log₂ C additions or subtractions per position of T₁ and T₂ |

A Hadamard transform needs a power of two: other channels are transformed in groups of the largest one that divides
them, 24 in three groups of 8. As C/G has fewer factors of two than C, such groups still reach over those of the
convolution.
"""

from __future__ import annotations

from dataclasses import replace

from hwnas.spaces.operator import PREVIOUS, Operator

TRANSFORMS = ("none", "shuffle", "hadamard")


def between_transforms(layer: Operator, transform: str, waiting: int = 0) -> tuple[Operator, ...]:
    """The group convolution between its transforms, then its normalisation and activation.

    Those follow T₂, as they follow the convolution that all of this stands for; so they are an operator of their own
    where there is a T₂. Each tensor has the precision that the layer says: T₁ keeps that of the layer's input, all else
    has that of its output.

    Args:
        layer: The convolution with its normalisation and activation.
        transform: One of `TRANSFORMS`.
        waiting: Bytes of the layer's input that stay allocated once the layer has read it.
    """
    if transform == "none":
        return (layer,)
    beside = layer.held_bytes + waiting
    first = Operator(
        "shuffle" if transform == "shuffle" else "hadamard", layer.in_channels, layer.in_channels, layer.in_size,
        layer.in_size, groups=layer.groups if transform == "shuffle" else hadamard_groups(layer.in_channels),
        in_bits=layer.in_bits, out_bits=layer.in_bits, name=f"{layer.name}_before", inputs=layer.inputs,
        held_bytes=layer.held_bytes,
    )  # fmt: skip
    product = replace(layer, inputs=(PREVIOUS,), held_bytes=beside)
    if transform == "shuffle":
        return first, product
    after = Operator(
        "hadamard", layer.out_channels, layer.out_channels, layer.out_size, layer.out_size,
        groups=hadamard_groups(layer.out_channels), in_bits=layer.out_bits, out_bits=layer.out_bits,
        name=f"{layer.name}_after", held_bytes=beside,
    )  # fmt: skip
    norm = replace(after, kind="activate", groups=1, activation=layer.activation, affine=layer.affine,
                   name=last_name(layer.name, transform))  # fmt: skip
    return first, replace(product, activation="none", affine="none"), after, norm


def last_name(layer: str, transform: str) -> str:
    """The operator that writes what such a layer computes."""
    return f"{layer}_norm" if transform == "hadamard" else layer


def hadamard_groups(channels: int) -> int:
    """Groups whose channels are the largest power of two that divides all channels: 1 for 64, 3 for 24."""
    return channels // (channels & -channels)


def effective_transform(transform: str, groups: int, channels: int) -> str:
    """What a transform in front of that many channels amounts to: nothing, in some cases.

    A dense layer absorbs transforms in its weights, and a shuffle of groups of one channel leaves all where they are.
    """
    return "none" if groups == 1 or (transform == "shuffle" and groups == channels) else transform
