"""One inverted-residual block: how its decisions lower to operators."""

from __future__ import annotations

from dataclasses import dataclass, field

from hwnas.spaces.operator import PREVIOUS, Operator
from hwnas.spaces.rank import factorise


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
    in_side: tuple[int, int]
    stride: int

    @property
    def out_side(self) -> tuple[int, int]:
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
        layer = Operator(
            "conv", cin, hidden_channels(cin, expand, keep), self.in_side, self.in_side,
            weight_bits=w, in_bits=a_in, out_bits=a_mid, activation="relu", affine="norm", name=f"{self.name}.expand",
        )  # fmt: skip
        return factorise(layer, rank)

    def depthwise(
        self, cin: int, expand: int, keep: float, a_in: int, cout: int, kernel: int, a_mid: int, w: int, a_out: int
    ) -> tuple[Operator, ...]:
        """The k×k convolution of each hidden channel, with the block's stride."""
        hidden = hidden_channels(cin, expand, keep)
        return (
            Operator(
                "conv", hidden, hidden, self.in_side, self.out_side, kernel, self.stride, hidden,
                weight_bits=w, in_bits=a_in if expand == 1 else a_mid, out_bits=a_out, activation="relu",
                affine="norm", name=f"{self.name}.depthwise",
                held_bytes=self.held(cin, cout, a_in) if expand > 1 else 0,
            ),
        )  # fmt: skip

    def squeeze(
        self, cin: int, expand: int, keep: float, a_in: int, cout: int, se: float, a_out: int
    ) -> tuple[Operator, ...]:
        """Squeeze-excite on the hidden tensor: pool, reduce, expand, scale; none where the ratio is 0."""
        if not se:
            return ()
        hidden = hidden_channels(cin, expand, keep)
        squeezed = max(1, int(se * cin))  # MnasNet: a share of the block's input channels
        name, side = self.name, self.out_side
        residual = self.held(cin, cout, a_in)
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

    def project(
        self, cin: int, expand: int, keep: float, a_in: int, cout: int, a_hidden: int, w: int, rank: float, a_out: int
    ) -> tuple[Operator, ...]:
        """The 1×1 convolution to the output channels, and the residual addition where the shapes agree."""
        residual = self.held(cin, cout, a_in)
        layer = Operator(
            "conv", hidden_channels(cin, expand, keep), cout, self.out_side, self.out_side,
            weight_bits=w, in_bits=a_hidden, out_bits=a_out, affine="norm", name=f"{self.name}.project",
            held_bytes=residual,
        )  # fmt: skip
        layers = factorise(layer, rank)
        if residual:
            # An integer addition needs two integer inputs, so the wider one counts; what that adds to the bytes of the
            # first input is taken off what is held.
            in_bits = max(a_in, a_out)
            pixels = cout * self.out_side[0] * self.out_side[1]
            held = residual + pixels * (value_bytes(a_out) - value_bytes(in_bits))
            layers += (
                Operator(
                    "add", cout, cout, self.out_side, self.out_side, in_bits=in_bits, out_bits=a_out,
                    name=f"{self.name}.add", inputs=(PREVIOUS, f"^{self.name}"), held_bytes=held,
                ),
            )  # fmt: skip
        return layers


def value_bytes(bits: int) -> int:
    """Bytes of one activation in memory."""
    return 1 if bits <= 8 else 4


def halved(side: tuple[int, int], stride: int) -> tuple[int, int]:
    """Height and width after a layer of the stride."""
    return (-(-side[0] // stride), -(-side[1] // stride))
