"""The Walsh–Hadamard transform along channels, which mixes them without weights.

It takes the place of a shuffle beside group convolutions (Zhao et al., CVPR 2019, arXiv 1811.07755).
"""

from __future__ import annotations

import torch
from torch import Tensor

from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.operator import Operator


def walsh_hadamard(x: Tensor, groups: int = 1) -> Tensor:
    """x (n, channels, …) times the orthonormal Hadamard matrix in Sylvester's order, in each group of channels.

    In log₂ of a group's channels steps of additions and subtractions. The transform is its own inverse and keeps norms.
    """
    shape, size = x.shape, x.shape[1] // groups
    reach = 1
    while reach < size:
        one, other = x.reshape(len(x), -1, 2, reach, *shape[2:]).unbind(2)
        x = torch.stack((one + other, one - other), 2).reshape(shape)
        reach *= 2
    scaled: Tensor = x * size**-0.5
    return scaled


def check_hadamard(operator: Operator) -> None:
    """Raises `InvalidSpaceError` for a transform of groups whose number of channels is no power of two."""
    size, rest = divmod(operator.in_channels, operator.groups)
    if rest or size & (size - 1):
        raise InvalidSpaceError(
            f"the Hadamard transform {operator.name!r} has {operator.in_channels} channels in {operator.groups} "
            "groups, where a group's channels must be a power of two; change the channels, or the number of groups"
        )
