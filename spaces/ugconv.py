"""Unitary group convolutions (Zhao et al., CVPR 2019, arXiv 1811.07755) in residual networks for small images.

The skeleton and its decisions are those of `hwnas.spaces.resnet_cifar`. Each block has two more:

| decision             | of                                                                                         |
|----------------------|--------------------------------------------------------------------------------------------|
| ``s1b2.groups``      | groups of both convolutions, 1 for dense ones                                              |
| ``s1b2.transform``   | what mixes the groups, see `hwnas.spaces.blocks.ugconv`; a dense convolution needs nothing |

The paper compares the transforms within residual networks and within ShuffleNets. Its exact tables are not known to us:
block, skeleton and numbers of groups are ours, and so are the references beside the dense networks.
"""

from __future__ import annotations

from functools import partial
from operator import lt
from typing import Any

from hwnas.spaces.blocks.basic_block import BasicBlock
from hwnas.spaces.blocks.ugconv import TRANSFORMS
from hwnas.spaces.builder import Builder, Conditions
from hwnas.spaces.resnet_cifar import NETWORKS, resnet_cifar
from hwnas.spaces.space import Space

GROUPS = (1, 2, 4, 8)
"""They divide all channels, which are multiples of 8."""
GROUPED: dict[str, dict[str, Any]] = {
    "shuffle20": {"blocks_per_stage": 3, "groups": 4, "transform": "shuffle"},
    "hadanet20": {"blocks_per_stage": 3, "groups": 4, "transform": "hadamard"},
}


def ugconv(make: Builder, **settings: Any) -> Space:
    """The space for images of a shape; see `hwnas.spaces.catalog.Maker`."""
    return resnet_cifar(make, block=_choose_block, networks=NETWORKS | GROUPED, **settings)


def _choose_block(make: Builder, name: str, stride: int, when: Conditions) -> BasicBlock:
    groups = make.choose(f"{name}.groups", GROUPS, when)
    several = make.where(when, groups, partial(lt, 1))
    return BasicBlock(stride, groups, make.choose(f"{name}.transform", TRANSFORMS, several, ordinal=False))
