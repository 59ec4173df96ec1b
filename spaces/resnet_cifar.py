"""Residual networks for small images (He et al., "Deep Residual Learning", CVPR 2016, section 4.2), and their kin.

A 3×3 convolution, three stages of basic blocks of 16, 32 and 64 channels, the second and third at stride 2, pooling and
a classifier; shortcuts without parameters (option A). ResNet-20 to ResNet-110 have as many blocks in each stage; here
stages are chosen one by one, and may be twice as wide as published.

| decision             | of                                                                                         |
|----------------------|--------------------------------------------------------------------------------------------|
| ``s1.depth``         | blocks of stage 1                                                                          |
| ``s1.width``         | channels that its blocks write and add to one another, those of the stem before it, too    |
| ``s1.act_bits``      | precision of the same tensors                                                              |
| ``s1b2.keep``, …     | those of `hwnas.spaces.blocks.basic_block`                                                 |

Shares of channels are offered as ``s1.width`` where blocks add to one another, and as ``.keep`` inside of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import le
from typing import Any

from hwnas.spaces.blocks.basic_block import BasicBlock
from hwnas.spaces.blocks.plain import Convolution, add_classifier, add_input, add_pool
from hwnas.spaces.blocks.shapes import halved, shares
from hwnas.spaces.builder import Builder, Conditions, Tensor
from hwnas.spaces.decision import Option
from hwnas.spaces.errors import UnknownNameError
from hwnas.spaces.space import Space
from hwnas.spaces.stage_table import NOTES
from hwnas.spaces.value import compute

WIDTHS = (16, 32, 64)
WIDER = (1, 2)
DEPTHS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 18)
NETWORKS: dict[str, dict[str, Any]] = {
    f"resnet{6 * blocks + 2}": {"blocks_per_stage": blocks} for blocks in (3, 5, 7, 9, 18)
}
"""The published networks: 2 · 3 · n convolutions in the blocks, the first one, and the classifier."""
DENSE = {"groups": 1, "transform": "none"}
"""Options of what a network does not mention, where blocks have such decisions; of others it is the last one."""

ChooseBlock = Callable[[Builder, str, int, Conditions], BasicBlock]
"""The block of a name and stride, with decisions of its own under conditions."""


def resnet_cifar(
    make: Builder,
    *,
    name: str,
    spec: Mapping[str, Any],
    input_shape: tuple[int, int, int],
    num_classes: int,
    block: ChooseBlock | None = None,
    networks: Mapping[str, Mapping[str, Any]] = NETWORKS,
) -> Space:
    """The space for images of a shape; see `hwnas.spaces.catalog.Maker`.

    Args:
        make: Collects it.
        name, spec, input_shape, num_classes: See `Space`.
        block: What a block is made of, if it is not a plain `BasicBlock`.
        networks: References, as `find_resnet` reads them.
    """
    x = add_input(make, input_shape[0], input_shape[1:])
    for number, width in enumerate(WIDTHS, 1):
        x = _stage(make, number, width, x, block or _plain)
    x = add_pool(make, x)
    add_classifier(make, x, num_classes)
    return make.space(
        name=name, spec=spec, input_shape=input_shape, num_classes=num_classes, find=find_resnet, published=networks
    )  # fmt: skip


def find_resnet(space: Space, network: Mapping[str, Any]) -> dict[str, Option]:
    """The options of the space's decisions that make a network, in float32 and nothing removed.

    Args:
        space: One that `resnet_cifar` made.
        network: Its ``blocks_per_stage``, and options of `DENSE` that all of its blocks have. `NOTES` are ignored.

    Raises:
        UnknownNameError: A key that is none of these.
        InvalidSpaceError: The space does not hold it; says which decision lacks what.
    """
    kinds = {name.rpartition(".")[2] for name in space.options}
    known = ["blocks_per_stage", *(kind for kind in DENSE if kind in kinds)]
    for key in network:
        if key not in (*known, *NOTES):
            raise UnknownNameError("key of a residual network:", key, known)
    of_kind = {**DENSE, **network, "depth": network.get("blocks_per_stage")}
    named = {name: name.rpartition(".")[2] for name in space.options}
    chosen = {name: of_kind[kind] for name, kind in named.items() if kind in of_kind}
    return space.completed(chosen | {f"s{number}.width": width for number, width in enumerate(WIDTHS, 1)})


def _stage(make: Builder, number: int, width: int, x: Tensor, block: ChooseBlock) -> Tensor:
    """A stage, and the stem in front of the first one, which writes the first tensor that the stage adds to."""
    name, stride = f"s{number}", 1 if number == 1 else 2
    depth = make.choose(f"{name}.depth", DEPTHS)
    channels = make.choose(f"{name}.width", _widths(width, make.joint.keep))
    bits = make.choose(f"{name}.act_bits", make.joint.act_bits)
    y = Tensor(channels, bits, compute(halved, x.size, stride))
    if number == 1:
        x = Convolution(edge=True).add(make, "stem", x, y)
    for index in range(1, max(DEPTHS) + 1):
        within = make.where((), depth, partial(le, index))
        own = block(make, f"{name}b{index}", stride if index == 1 else 1, within)
        own.add(make, f"{name}b{index}", x, y, within)
        x = y
    return x


def _plain(_make: Builder, _name: str, stride: int, _when: Conditions) -> BasicBlock:
    return BasicBlock(stride)


def _widths(width: int, keep: Sequence[float]) -> list[int]:
    return sorted({channels for wider in WIDER for channels in shares(width * wider, keep)})
