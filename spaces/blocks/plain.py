"""Layers that stand alone: convolutions, the network's input, and the classifier."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hwnas.spaces.blocks.residual import Residual, add_residual, adds
from hwnas.spaces.blocks.shapes import Size, halved, tensor_bytes
from hwnas.spaces.builder import Builder, Conditions, Tensor
from hwnas.spaces.operator import Activation, Affine, Operator
from hwnas.spaces.rank import factorise, rank_of
from hwnas.spaces.value import Constant, compute


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution with batch normalisation and activation, and an addition of its input where it is residual.

    Attributes:
        kernel: Its size; only a 1×1 convolution may be factorised.
        stride: Its stride.
        activation: After the normalisation.
        residual: What of the input is added where stride and channels allow it, see `Residual`; a `hwnas.spaces.value`
            value or one that becomes such.
        edge: Whether it is the network's first layer.
        affine: ``norm``, or ``bias`` for a layer without normalisation.
    """

    kernel: Any = 3
    stride: int = 1
    activation: Activation = "relu"
    residual: Any = False
    edge: bool = False
    affine: Affine = "norm"

    def add(self, make: Builder, name: str, x: Tensor, y: Tensor, when: Conditions = ()) -> Tensor:
        """Adds the layer's decisions, which carry ``name``, and its slot.

        Returns:
            What it writes: ``y``, with a decision for its bits where it has none.
        """
        layer = make.layer(name, when, ranked=self.kernel == 1, edge=self.edge)
        rank = compute(rank_of, x.channels, y.channels, layer.rank)
        make.alias(layer.rank, rank)
        bits = make.choose(f"{name}.act_bits", make.joint.act_bits, when) if y.bits is None else y.bits
        residual = compute(adds, self.residual, self.stride, x.channels, y.channels)
        part, activation, affine = map(Constant, (name.partition(".")[2], self.activation, self.affine))
        make.slot(name, convolve, part, x.channels, y.channels, self.kernel, self.stride, x.size, x.bits,
                  layer.weight_bits, layer.sparsity, rank, bits, residual, activation, affine, when=when)  # fmt: skip
        return replace(y, bits=bits)


def convolve(
    name: str, part: str, cin: int, cout: int, kernel: int, stride: int, size: Size, a_in: int, w: int,
    sparsity: tuple[float, int], rank: int, a_out: int, residual: Residual, activation: Activation, affine: Affine,
) -> tuple[Operator, ...]:  # fmt: skip
    """How a `Convolution` lowers; ``part`` is its place in its group, if it does not stand alone."""
    own = f"{name}.{part}" if part else name
    out = halved(size, stride)
    layer = Operator(
        "conv", cin, cout, size, out, kernel, stride, 1, w, a_in, a_out, sparsity[0],
        pattern=sparsity[1], activation=activation, affine=affine, name=own,
    )  # fmt: skip
    layers = factorise(layer, rank)
    if not residual:
        return layers
    if rank:
        layers = (layers[0], replace(layers[1], held_bytes=tensor_bytes(cin, size, a_in)))
    return (*layers, *add_residual(name, own, residual, cout, out, a_in, a_out))


def add_input(make: Builder, channels: int, size: Any) -> Tensor:
    """The network's input, in the precision that ``input.act_bits`` says."""
    bits = make.choose("input.act_bits", make.joint.edge_bits)
    make.slot("input", quantize, channels, size, bits)
    return Tensor(channels, bits, size)


def quantize(name: str, channels: int, size: Size, bits: int) -> tuple[Operator, ...]:
    """The input turned into integers, where it is not read as floats."""
    if bits == 32:
        return ()
    return (Operator("quantize", channels, channels, size, size, out_bits=bits, name=f"{name}.quantize"),)


def add_pool(make: Builder, x: Tensor) -> Tensor:
    """Global average pooling, in the precision of what it reads."""
    make.slot("pool", pool, x.channels, x.size, x.bits)
    return Tensor(x.channels, x.bits, (1, 1))


def pool(name: str, channels: int, size: Size, act: int) -> tuple[Operator, ...]:
    """How the pooling lowers."""
    return (Operator("pool", channels, channels, size, in_bits=act, out_bits=act, name=name),)


def add_classifier(make: Builder, x: Tensor, num_classes: int) -> None:
    """A linear layer on pooled maps, which stays whole and writes floats."""
    layer = make.layer("classifier", edge=True)
    make.slot("classifier", classify, x.channels, x.bits, layer.weight_bits, num_classes)


def classify(name: str, channels: int, act: int, w: int, num_classes: int) -> tuple[Operator, ...]:
    """How the classifier lowers."""
    return (Operator("linear", channels, num_classes, weight_bits=w, in_bits=act, affine="bias", name=name),)
