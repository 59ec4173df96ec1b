"""One inverted-residual block: how its decisions lower to operators.

Many values of the decisions give the same channels, precisions and bytes, and these alone make operators: those made
last are remembered by them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from hwnas.spaces.operator import PREVIOUS, Operator
from hwnas.spaces.rank import factorise

Side = tuple[int, int]
REMEMBERED = 2**13
"""Operators of a slot: somewhat more than those between one value and the next of the decisions read first."""


@lru_cache
def hidden_channels(channels: int, expansion: int, keep: float) -> int:
    """Channels inside a block: the kept share of the expanded ones, a multiple of 8 and at least 8.

    Without expansion the block's own input is the hidden tensor, and all of it is kept.
    """
    if expansion == 1:
        return channels
    return max(8, int(channels * expansion * keep / 8 + 0.5) * 8)


@dataclass(frozen=True, slots=True)
class Block:
    """The fixed facts of one block, and how its four slots lower. Equal blocks differ at most in name."""

    name: str = field(compare=False)
    in_side: Side
    stride: int

    @property
    def out_side(self) -> Side:
        """Height and width after the block."""
        return halved(self.in_side, self.stride)

    def held(self, cin: int, cout: int, act_bits: int) -> int:
        """Bytes of the block's input while a later addition needs it."""
        if self.stride != 1 or cin != cout:
            return 0
        return cin * self.in_side[0] * self.in_side[1] * value_bytes(act_bits)

    def expand(
        self, cin: int, expand: int, keep: float, a_in: int, w: int, rank: float, a_mid: int
    ) -> tuple[Operator, ...]:
        """The 1×1 convolution to the hidden channels; none without expansion."""
        if expand == 1:
            return ()
        return _expand(self.name, self.in_side, cin, hidden_channels(cin, expand, keep), a_in, w, rank, a_mid)

    def depthwise(
        self, cin: int, expand: int, keep: float, a_in: int, cout: int, kernel: int, a_mid: int, w: int, a_out: int
    ) -> tuple[Operator, ...]:
        """The k×k convolution of each hidden channel, with the block's stride."""
        hidden = hidden_channels(cin, expand, keep)
        read, held = (a_mid, self.held(cin, cout, a_in)) if expand > 1 else (a_in, 0)
        return _depthwise(self.name, self.in_side, self.stride, hidden, kernel, read, w, a_out, held)

    def squeeze(
        self, cin: int, expand: int, keep: float, a_in: int, cout: int, se: float, a_out: int
    ) -> tuple[Operator, ...]:
        """Squeeze-excite on the hidden tensor: pool, reduce, expand, scale; none where the ratio is 0."""
        if not se:
            return ()
        squeezed = max(1, int(se * cin))  # MnasNet: a share of the block's input channels
        hidden, residual = hidden_channels(cin, expand, keep), self.held(cin, cout, a_in)
        return _squeeze(self.name, self.out_side, hidden, squeezed, a_out, residual)

    def project(
        self, cin: int, expand: int, keep: float, a_in: int, cout: int, a_hidden: int, w: int, rank: float, a_out: int
    ) -> tuple[Operator, ...]:
        """The 1×1 convolution to the output channels, and the residual addition where the shapes agree."""
        hidden, residual = hidden_channels(cin, expand, keep), self.held(cin, cout, a_in)
        # An integer addition needs two integer inputs, so the wider one counts.
        added = max(a_in, a_out) if residual else 0
        return _project(self.name, self.in_side, self.stride, hidden, cout, a_hidden, w, rank, a_out, residual, added)


@lru_cache(REMEMBERED)
def _expand(
    name: str, side: Side, cin: int, hidden: int, a_in: int, w: int, rank: float, a_mid: int
) -> tuple[Operator, ...]:
    layer = Operator(
        "conv", cin, hidden, side, side,
        weight_bits=w, in_bits=a_in, out_bits=a_mid, activation="relu", affine="norm", name=f"{name}.expand",
    )  # fmt: skip
    return factorise(layer, rank)


@lru_cache(REMEMBERED)
def _depthwise(
    name: str, in_side: Side, stride: int, hidden: int, kernel: int, a_in: int, w: int, a_out: int, held: int
) -> tuple[Operator, ...]:
    return (
        Operator(
            "conv", hidden, hidden, in_side, halved(in_side, stride), kernel, stride, hidden,
            weight_bits=w, in_bits=a_in, out_bits=a_out, activation="relu",
            affine="norm", name=f"{name}.depthwise", held_bytes=held,
        ),
    )  # fmt: skip


@lru_cache(REMEMBERED)
def _squeeze(name: str, side: Side, hidden: int, squeezed: int, a_out: int, residual: int) -> tuple[Operator, ...]:
    whole = hidden * side[0] * side[1] * value_bytes(a_out)
    return (
        Operator("pool", hidden, hidden, side, in_bits=a_out, name=f"{name}.se_pool", held_bytes=residual),
        Operator("conv", hidden, squeezed, activation="relu", affine="bias", name=f"{name}.se_reduce",
                 held_bytes=residual + whole),
        Operator("conv", squeezed, hidden, activation="sigmoid", affine="bias", name=f"{name}.se_expand",
                 held_bytes=residual + whole),
        Operator("scale", hidden, hidden, side, side, in_bits=a_out, out_bits=a_out, name=f"{name}.se_scale",
                 inputs=(f"{name}.depthwise", PREVIOUS), held_bytes=residual + 4 * hidden),
    )  # fmt: skip


@lru_cache(REMEMBERED)
def _project(
    name: str, in_side: Side, stride: int, hidden: int, cout: int, a_hidden: int, w: int, rank: float, a_out: int,
    residual: int, added: int,
) -> tuple[Operator, ...]:  # fmt: skip
    side = halved(in_side, stride)
    layer = Operator(
        "conv", hidden, cout, side, side,
        weight_bits=w, in_bits=a_hidden, out_bits=a_out, affine="norm", name=f"{name}.project", held_bytes=residual,
    )  # fmt: skip
    layers = factorise(layer, rank)
    if residual:
        # What the wider input adds to the bytes of the first is taken off what is held.
        held = residual + cout * side[0] * side[1] * (value_bytes(a_out) - value_bytes(added))
        add = Operator(
            "add", cout, cout, side, side, in_bits=added, out_bits=a_out,
            name=f"{name}.add", inputs=(PREVIOUS, f"^{name}"), held_bytes=held,
        )  # fmt: skip
        layers = (*layers, add)
    return layers


def value_bytes(bits: int) -> int:
    """Bytes of one activation in memory."""
    return 1 if bits <= 8 else 4


def halved(side: Side, stride: int) -> Side:
    """Height and width after a layer of the stride."""
    return (-(-side[0] // stride), -(-side[1] // stride))
