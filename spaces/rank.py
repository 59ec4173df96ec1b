"""Low rank: a 1×1 convolution as two thinner ones."""

from __future__ import annotations

from hwnas.spaces.operator import Operator

RANK_MULTIPLE = 4


def rank_of(in_channels: int, out_channels: int, ratio: float) -> int:
    """Channels between the two factors, or 0 for a layer left whole.

    The ratio is relative to the rank at which the factors cost as much as the whole layer, I·O / (I + O) (the channel
    split of ENC, Kim et al., CVPR 2019, with D = 1), so it is the share of MACs that remains, up to rounding to a
    multiple of 4. A rank that would save nothing leaves the layer whole.
    """
    if ratio >= 1.0:
        return 0
    even = in_channels * out_channels / (in_channels + out_channels)
    rank = max(RANK_MULTIPLE, round(ratio * even / RANK_MULTIPLE) * RANK_MULTIPLE)
    return rank if rank < even else 0


def factorise(operator: Operator, rank: int) -> tuple[Operator, ...]:
    """The operator where ``rank`` is 0, or its two factors: to the rank's channels without activation, then from them.

    The tensor between the factors has the precision of the layer's input. Only for 1×1 layers of stride 1. Each group
    of a grouped layer is factorised by itself, and has its part of the rank: groups must divide `RANK_MULTIPLE`.
    """
    if not rank:
        return (operator,)
    o = operator
    first = Operator(
        o.kind, o.in_channels, rank, o.in_size, o.in_size, 1, 1, o.groups, o.weight_bits, o.in_bits, o.in_bits,
        o.density, pattern=o.pattern, name=f"{o.name}_in", inputs=o.inputs, held_bytes=o.held_bytes,
    )  # fmt: skip
    second = Operator(
        o.kind, rank, o.out_channels, o.in_size, o.out_size, 1, 1, o.groups, o.weight_bits, o.in_bits, o.out_bits,
        o.density, o.activation, pattern=o.pattern, affine=o.affine, name=o.name, inputs=(first.name,),
        held_bytes=o.held_bytes,
    )  # fmt: skip
    return (first, second)


def is_factor(operator: Operator) -> bool:
    """Whether it is the second factor of a layer: it has the layer's name, but reads a rank's channels."""
    return operator.inputs == (f"{operator.name}_in",)
