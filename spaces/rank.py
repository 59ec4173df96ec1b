"""Low rank: a layer as two thinner ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from hwnas.spaces.operator import SAME, Operator

RANK_MULTIPLE = 4
Form = Literal["channel", "spatial"]
"""How a convolution is split in two (Kim et al., "Efficient Neural Network Compression", CVPR 2019, section 3.1).

``channel``: the whole kernel to the rank's channels, then 1×1 from them; also of linear layers. ``spatial``: one column
of the kernel, D×1, to the rank's channels, then one row, 1×D, from them.
"""


def rank_of(in_channels: int, out_channels: int, ratio: float, kernel: tuple[int, int] = (1, 1)) -> int:
    """Channels between the two factors, or 0 for a layer left whole.

    The ratio is relative to the rank at which the factors cost as much as the whole layer, I·O·ab / (I·a + O·b) for
    factors of a and b taps (ENC's r_max), so it is the share of MACs that remains, up to rounding to a multiple of 4. A
    rank that would save nothing leaves the layer whole.

    Args:
        in_channels, out_channels: Of the layer.
        ratio: Up to 1, which leaves it whole.
        kernel: Taps of the first and of the second factor, see `taps_of`.
    """
    if ratio >= 1.0:
        return 0
    first, second = kernel
    even = in_channels * out_channels * first * second / (in_channels * first + out_channels * second)
    rank = max(RANK_MULTIPLE, round(ratio * even / RANK_MULTIPLE) * RANK_MULTIPLE)
    return rank if rank < even else 0


def taps_of(kernel: tuple[int, int], form: Form) -> tuple[int, int]:
    """Taps of the first and of the second factor of a layer whose kernel has so many rows and columns."""
    height, width = kernel
    return (height, width) if form == "spatial" else (height * width, 1)


def factorise(operator: Operator, rank: int, form: Form = "channel") -> tuple[Operator, ...]:
    """The operator where ``rank`` is 0, or its two factors: to the rank's channels without activation, then from them.

    The tensor between the factors has the precision of the layer's input. Each group of a grouped layer is factorised
    by itself, and has its part of the rank: groups must divide `RANK_MULTIPLE`. The spatial form is for convolutions of
    stride 1 whose padding keeps their size.
    """
    if not rank:
        return (operator,)
    o, spatial = operator, form == "spatial"
    between = o.in_size if spatial else o.out_size
    first = replace(
        o, out_channels=rank, out_size=between, out_bits=o.in_bits, activation="none", affine="none", unused=0,
        kernel_width=1 if spatial else o.kernel_width, name=f"{o.name}_in",
    )  # fmt: skip
    second = replace(
        o, in_channels=rank, in_size=between, kernel=1, kernel_width=o.kernel_size[1] if spatial else 0, stride=1,
        margin=SAME, dilation=o.dilation if spatial else 1, inputs=(first.name,),
    )  # fmt: skip
    return (first, second)


def is_factor(operator: Operator) -> bool:
    """Whether it is the second factor of a layer: it has the layer's name, but reads a rank's channels."""
    return operator.inputs == (f"{operator.name}_in",)
