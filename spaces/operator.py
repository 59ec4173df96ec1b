"""A device-level operator: what runs, on which shapes, in which precision. Describes only; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from hwnas.spaces.call_text import parse_call

Kind = Literal[
    "conv", "linear", "pool", "add", "scale", "quantize", "concat", "shuffle", "hadamard", "pad", "activate", "zero",
    "identity", "deconv", "slice", "call",
]  # fmt: skip
Activation = Literal[
    "none", "relu", "relu6", "sigmoid", "hswish", "hsigmoid", "prelu", "silu", "gelu", "tanh"
]  # fmt: skip
Affine = Literal["none", "bias", "norm"]

CLIPPING: frozenset[Activation] = frozenset({"none", "relu", "relu6"})
"""Activations that integer kernels apply as they round. After others the output is rounded from floats."""
INTEGER_KINDS: frozenset[Kind] = frozenset({"conv", "linear", "pool", "add", "scale", "quantize", "concat"})
"""Kinds that runtimes have integer kernels for. The others, but for those that only move, turn integers to floats."""
SAME = -1
"""The usual ``margin``: half of what the kernel reaches, rounded down, which keeps sizes at odd kernels of stride 1."""

PREVIOUS = ""
"""As an input: the output of the operator before."""
ENTRY = "^"
"""As an input, before a group's name: the tensor that entered the group, such as ``"^s1b2"`` for a residual."""
NETWORK_INPUT = "input"
"""The name of the tensor that the network is called with."""


def stored_bits(bits: int) -> int:
    """Bits that a weight of ``bits`` bits takes in a file: the narrowest ONNX integer type that holds it."""
    return next(width for width in (4, 8, 32) if bits <= width)


def weights_per_index(bits: int) -> int:
    """How many shared weights one stored index names: two of 2 bits, of which a 4-bit integer holds a pair."""
    return max(1, 4 // bits)


def table_size(bits: int) -> int:
    """Numbers in the table of a layer that shares 2^bits weights: for each index all weights that it names."""
    each = weights_per_index(bits)
    return each << (bits * each)


@dataclass(frozen=True, slots=True)
class Operator:
    """One operation as a device runs it. Two operators are equal when a device cannot tell them apart.

    Attributes:
        kind: What it computes.

            - ``conv``, ``linear``: with their activation. A ``linear`` whose sizes are (tokens, 1) reads and writes
              (n, tokens, features), and computes each token by itself; of more dimensions before the features all
              stay. One token is no such thing: a size of (1, 1) is that of vectors.
            - ``deconv``: a transposed convolution, with its activation.
            - ``pool``: average over windows of ``kernel``, padding left out of it; of whole maps where ``kernel`` is 1.
            - ``add`` (two tensors), ``scale`` (a tensor times one gate per channel), ``concat`` (along channels).
            - ``quantize``: float tensor to integers.
            - ``shuffle``: interleaves the channels of ``groups`` groups (ShuffleNet, Zhang et al., CVPR 2018).
            - ``hadamard``: the orthonormal Walsh–Hadamard transform along channels, in each of ``groups`` groups.
            - ``pad``: takes every ``stride``-th row and column, and adds channels of zeros, ``front`` of them before
              the others and the rest after them (He et al., CVPR 2016, shortcuts of option A).
            - ``slice``: takes as many consecutive channels as it writes, from channel ``front`` on.
            - ``activate``: a normalisation, an activation or both where no product is before them.
            - ``zero``: zeros in the shape of the input, at its ``stride``.
            - ``call``: ATen operations as they are; see ``call``. Its input (the first one) and output may have any
              shape: channels times height times width are their numbers of values for one image.
            - ``identity``: another name for a tensor. Slots may give it; workloads replace it by what it reads.
        in_channels, out_channels: Channels; for ``linear`` features. A ``concat`` reads those of its inputs together.
        in_size, out_size: Height and width; (1, 1) for vectors, (tokens, 1) for tokens.
        kernel, stride, groups: Of the convolution, or of what ``kind`` says.
        weight_bits: Bits of a weight, 32 for float32.
        in_bits, out_bits: Bits of the values read and written, 32 for float32.
        density: Share of weights that are not zero, for unstructured or N:M sparsity.
        activation: Applied to the output before it is quantised. ``prelu`` has one slope per channel.
        dilation: Distance of a convolution's taps.
        pattern: M of N:M sparsity, where N of every M weights along the input channels are not zero; 0 for none.
        kernel_width: Width of the kernel where it is not as its height, which is ``kernel``; else 0, whatever is given.
        margin: Rows and columns of padding on each side, where they are not `SAME`.
        call: Of a ``call``, the operations as canonical JSON: see `hwnas.spaces.call_text`.
        affine: What follows the product: nothing, a bias, or a batch normalisation (a bias once folded).
        name: Position in the network, such as ``"s1b2.expand"``; not part of equality.
        inputs: Names of the operators read, in order; `PREVIOUS` and `ENTRY` are resolved by `Workload`.
        held_bytes: Activation bytes that stay allocated for later operators while this one runs, beside its own.
        unused: Parameters that come with it and take no part in what it computes, as some published networks have them
            and count them. They are in no exported file.
        front: Of a ``slice``, the first channel that it takes; of a ``pad``, the channels of zeros before the others.
        shared: Of float weights, the bits of an index into 2^shared values that they share; 0 where each is a value of
            its own. A file has a table and indices, of which runtimes make floats: it is a form of storage.
        epsilon: Of its batch normalisation, what is added to variances.
    """

    kind: Kind
    in_channels: int
    out_channels: int
    in_size: tuple[int, int] = (1, 1)
    out_size: tuple[int, int] = (1, 1)
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    weight_bits: int = 32
    in_bits: int = 32
    out_bits: int = 32
    density: float = 1.0
    activation: Activation = "none"
    dilation: int = 1
    pattern: int = 0
    kernel_width: int = 0
    margin: int = SAME
    call: str = ""
    affine: Affine = field(default="none", compare=False)
    name: str = field(default="", compare=False)
    inputs: tuple[str, ...] = field(default=(PREVIOUS,), compare=False)
    held_bytes: int = field(default=0, compare=False)
    unused: int = field(default=0, compare=False)
    front: int = field(default=0, compare=False)
    shared: int = field(default=0, compare=False)
    epsilon: float = field(default=1e-5, compare=False)

    def __post_init__(self) -> None:
        """What can be said in two ways is said in one."""
        if self.kernel_width == self.kernel:
            object.__setattr__(self, "kernel_width", 0)
        if self.margin >= 0 and self._same_paddings == (self.margin, self.margin):
            object.__setattr__(self, "margin", SAME)

    @property
    def depthwise(self) -> bool:
        """Whether this is a convolution of one filter per channel."""
        return self.kind == "conv" and self.groups == self.in_channels > 1

    @property
    def on_tokens(self) -> bool:
        """Whether this is a linear layer that reads (n, tokens, features)."""
        return self.kind == "linear" and self.in_size != (1, 1)

    @property
    def kernel_size(self) -> tuple[int, int]:
        """Height and width of the kernel."""
        return self.kernel, self.kernel_width or self.kernel

    @property
    def taps(self) -> int:
        """Positions of the kernel."""
        return self.kernel * (self.kernel_width or self.kernel)

    @property
    def paddings(self) -> tuple[int, int]:
        """Rows on each side of a convolution's or pool's input, and columns on each side."""
        return self._same_paddings if self.margin < 0 else (self.margin, self.margin)

    @property
    def padding(self) -> int:
        """The rows of `paddings`: of a square kernel, the columns, too."""
        return self.paddings[0]

    @property
    def _same_paddings(self) -> tuple[int, int]:
        height, width = self.kernel_size
        return self.dilation * ((height - 1) // 2), self.dilation * ((width - 1) // 2)

    @property
    def output_paddings(self) -> tuple[int, int]:
        """Rows and columns that a transposed convolution writes below and right of what its ``margin`` leaves of it."""
        rows, columns = (
            out - ((size - 1) * self.stride - 2 * padding + self.dilation * (kernel - 1) + 1)
            for out, size, padding, kernel in zip(
                self.out_size, self.in_size, self.paddings, self.kernel_size, strict=True
            )
        )
        return rows, columns

    @property
    def reaches_over(self) -> bool:
        """Whether a pool's last window reaches over the edge: where whole windows write less than ``out_size``."""
        return any(
            out > (size + 2 * padding - kernel) // self.stride + 1
            for out, size, padding, kernel in zip(
                self.out_size, self.in_size, self.paddings, self.kernel_size, strict=True
            )
        )

    @property
    def weights(self) -> int:
        """Weights of the product, biases and normalisation excluded; the constants of a ``call`` are none."""
        if self.kind not in ("conv", "linear", "deconv"):
            return 0
        return self.out_channels * (self.in_channels // self.groups) * self.taps

    @property
    def macs(self) -> int:
        """Multiply–accumulates of convolutions and linear layers for one image.

        Each weight meets every position written; of transposed convolutions every position read. Element-wise work is
        not counted, and nor are the products inside of a ``call``, such as those of an attention.
        """
        height, width = self.in_size if self.kind == "deconv" else self.out_size
        return self.weights * height * width

    @property
    def learnt(self) -> int:
        """Numbers that a ``call`` has learnt and reads beside its inputs."""
        return parse_call(self.call).learnt if self.kind == "call" else 0

    @property
    def constant_bytes(self) -> int:
        """Bytes of all that a ``call`` reads beside its inputs, learnt or not."""
        return parse_call(self.call).constant_bytes if self.kind == "call" else 0

    @property
    def params(self) -> int:
        """Parameters: weights, biases, slopes, scale and shift of a normalisation, what calls learnt, those unused."""
        per_channel = {"none": 0, "bias": 1, "norm": 2}[self.affine] + (self.activation == "prelu")
        return self.weights + per_channel * self.out_channels + self.learnt + self.unused

    @property
    def moves_integers(self) -> bool:
        """Whether it only moves integers: their scale and zero point stay, and nothing is rounded again."""
        if not self.in_bits == self.out_bits <= 8 or self.activation != "none":
            return False
        return self.kind in ("shuffle", "pad", "slice") or (self.kind == "call" and parse_call(self.call).moves)

    @property
    def integer(self) -> bool:
        """Whether an integer kernel serves it: weights, inputs and outputs are all integers of at most 8 bits.

        A linear layer may write float32, as classifiers do. See also `INTEGER_KINDS` and `CLIPPING`.
        """
        if self.moves_integers:
            return True
        low = self.in_bits <= 8 and (self.out_bits <= 8 or self.kind == "linear") and self.kind in INTEGER_KINDS
        return low and (not self.weights or (self.weight_bits <= 8 and self.activation in CLIPPING))

    @property
    def weight_bytes(self) -> int:
        """Bytes that the exported file spends on this operator's constants.

        Weights in the narrowest ONNX type that holds them; when they are quantised, a 4-byte scale per output channel,
        and a 1-byte zero point where integers are read; a 4-byte bias per output channel (batch normalisation is
        folded), with its 4-byte scale where it is an integer. A normalisation without a product before it has four
        4-byte constants per channel, and slopes take 4 bytes each, as what calls have learnt; their other constants are
        stored in their own types.
        Weights that are shared are a 4-byte table and indices of 2, 4 or 8 bits, and a 4-byte factor per output channel
        where a normalisation follows them: folding it would give each channel values of its own.
        Weights that are zero are stored, too. Scales of activations (5 bytes per tensor), shapes and the matrices of
        Hadamard transforms (at most 1 KiB) are not counted.
        """
        size = 4 * self.out_channels * (self.activation == "prelu")
        if not self.weights:
            return size + 16 * self.out_channels * (self.affine == "norm") + self.constant_bytes
        if self.shared:
            indices = -(-self.weights // weights_per_index(self.shared))
            size += -(-indices * stored_bits(self.shared) // 8) + 4 * table_size(self.shared)
            size += 4 * self.out_channels * (self.affine == "norm")
        else:
            size += -(-self.weights * stored_bits(self.weight_bits) // 8)
        if self.weight_bits < 32:
            size += self.out_channels * (5 if self.in_bits <= 8 else 4)
        if self.affine != "none":
            size += self.out_channels * (8 if self.integer else 4)
        return size

    @property
    def in_bytes(self) -> int:
        """Bytes of the (first) tensor read, for one image; values of fewer than 8 bits take a byte each.

        Of a ``concat`` all tensors count.
        """
        return self.in_channels * self.in_size[0] * self.in_size[1] * (1 if self.in_bits <= 8 else 4)

    @property
    def out_bytes(self) -> int:
        """Bytes of the tensor written, for one image."""
        return self.out_channels * self.out_size[0] * self.out_size[1] * (1 if self.out_bits <= 8 else 4)

    @property
    def live_bytes(self) -> int:
        """Activation bytes allocated while this operator runs on one image: read, written, and held for later."""
        return self.in_bytes + self.out_bytes + self.held_bytes
