"""The residual block that halves the image between two stages of NAS-Bench-201's cells.

``ResNetBasicblock`` of the authors' code: twice ReLU, 3×3 convolution and batch normalisation, the first of stride 2;
on the shortcut an average over 2×2 and a 1×1 convolution without normalisation. Of block ``s2r`` the decisions are:

| decision                                  | of                                                            |
|-------------------------------------------|---------------------------------------------------------------|
| ``.keep``                                 | share of the first convolution's channels that is kept        |
| ``.first.weight_bits``, ``.density``      | of its weights; also of ``.second`` and ``.shortcut``         |
| ``.shortcut.rank``                        | of the shortcut's 1×1 convolution                             |
| ``.first.act_bits``                       | of what the first convolution writes, rectified               |

What is added shares precision: that of the output. What is pooled has that of the input.
"""

from __future__ import annotations

from hwnas.spaces.blocks.shapes import Size, halved, kept_channels, tensor_bytes
from hwnas.spaces.builder import Builder, Tensor
from hwnas.spaces.operator import ENTRY, PREVIOUS, Operator
from hwnas.spaces.rank import factorise, rank_of
from hwnas.spaces.value import compute


def add_reduction(make: Builder, name: str, x: Tensor, y: Tensor) -> None:
    """Adds the block's decisions and slots; it reads ``x`` and writes ``y``, half as high and wide."""
    keep = make.choose(f"{name}.keep", make.joint.keep)
    hidden = compute(kept_channels, y.channels, keep)
    make.alias(keep, hidden)
    first = make.layer(f"{name}.first", ranked=False)
    act_hidden = make.choose(f"{name}.first.act_bits", make.joint.act_bits)
    second = make.layer(f"{name}.second", ranked=False)
    shortcut = make.layer(f"{name}.shortcut")
    rank = compute(rank_of, x.channels, y.channels, shortcut.rank)
    make.alias(shortcut.rank, rank)
    held = compute(tensor_bytes, x.channels, x.size, x.bits)
    make.slot(f"{name}.first", first_layer, x.channels, hidden, x.size, x.bits, first.weight_bits, first.sparsity,
              act_hidden, held)  # fmt: skip
    make.slot(f"{name}.second", second_layer, hidden, y.channels, y.size, act_hidden, second.weight_bits,
              second.sparsity, y.bits, held)  # fmt: skip
    make.slot(f"{name}.shortcut", shortcut_layer, x.channels, y.channels, x.size, x.bits, shortcut.weight_bits,
              shortcut.sparsity, rank, y.bits)  # fmt: skip


def first_layer(
    name: str, cin: int, hidden: int, size: Size, a_in: int, w: int, sparsity: tuple[float, int], a_out: int, held: int
) -> tuple[Operator, ...]:
    """ReLU, and the convolution of stride 2, rectified for the one after it; the input waits for the shortcut."""
    return (
        Operator("activate", cin, cin, size, size, in_bits=a_in, out_bits=a_in, activation="relu", name=f"{name}.relu"),
        Operator(
            "conv", cin, hidden, size, halved(size, 2), 3, 2, 1, w, a_in, a_out, sparsity[0], "relu",
            pattern=sparsity[1], affine="norm", name=f"{name}.first", held_bytes=held,
        ),
    )  # fmt: skip


def second_layer(
    name: str, hidden: int, cout: int, size: Size, a_in: int, w: int, sparsity: tuple[float, int], a_out: int, held: int
) -> tuple[Operator, ...]:
    """The other convolution."""
    return (
        Operator(
            "conv", hidden, cout, size, size, 3, 1, 1, w, a_in, a_out, sparsity[0], pattern=sparsity[1],
            affine="norm", name=f"{name}.second", held_bytes=held,
        ),
    )  # fmt: skip


def shortcut_layer(
    name: str, cin: int, cout: int, size: Size, a_in: int, w: int, sparsity: tuple[float, int], rank: int, a_out: int
) -> tuple[Operator, ...]:
    """Pooling and 1×1 convolution of the block's input, and the addition."""
    out = halved(size, 2)
    held = tensor_bytes(cout, out, a_out)
    pool = Operator(
        "pool", cin, cin, size, out, 2, 2, in_bits=a_in, out_bits=a_in, name=f"{name}.pool",
        inputs=(f"{ENTRY}{name}",), held_bytes=held,
    )  # fmt: skip
    layer = Operator(
        "conv", cin, cout, out, out, 1, 1, 1, w, a_in, a_out, sparsity[0], pattern=sparsity[1],
        name=f"{name}.shortcut", held_bytes=held,
    )  # fmt: skip
    add = Operator(
        "add", cout, cout, out, out, in_bits=a_out, out_bits=a_out, name=f"{name}.add",
        inputs=(f"{name}.second", PREVIOUS), held_bytes=held,
    )  # fmt: skip
    return (pool, *factorise(layer, rank), add)
