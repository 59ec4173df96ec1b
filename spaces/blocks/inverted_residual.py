"""Inverted residuals (MobileNetV2, Sandler et al., CVPR 2018), as their descendants vary them.

A block is expand (1×1) → depthwise (k×k) → squeeze-excite → project (1×1) → residual. Without expansion it has no
expand layer: it is MnasNet's separable convolution. Where the 1×1 layers are grouped, channels are shuffled in between
(FBNet, Wu et al., CVPR 2019, section 3.1). Of block ``s1b2`` the decisions are:

| decision                        | of                                                                             |
|---------------------------------|--------------------------------------------------------------------------------|
| ``.keep``                       | share of the hidden channels that is kept                                      |
| ``.expand.weight_bits``, …      | of a layer's weights; also of ``.depthwise`` and ``.project``                  |
| ``.expand.act_bits``, …         | of the tensor that a layer writes; also of ``.depthwise``                      |
| ``.expand.rank``, ``.density``  | of a 1×1 layer's weights; also of ``.project``                                 |

Tensors joined by residual additions share channels and precision: both are given from outside, as those of the output.
The two squeeze-excite layers run in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hwnas.spaces.blocks.residual import Residual, add_residual, adds, bits_added
from hwnas.spaces.blocks.shapes import Size, halved, kept_channels, tensor_bytes, to_multiple
from hwnas.spaces.builder import Builder, Conditions, Tensor
from hwnas.spaces.operator import PREVIOUS, Activation, Operator
from hwnas.spaces.rank import factorise, rank_of
from hwnas.spaces.value import Constant, Value, compute, reads, value


@dataclass(frozen=True, slots=True)
class InvertedResidual:
    """What one block is made of; attributes are `hwnas.spaces.value` values or become such.

    Attributes:
        kernel, expansion, groups: Of the depthwise layer, of the hidden channels, of the 1×1 layers.
        se: Squeeze-excite: channels squeezed to, as a share of ``se_of``; 0 for none.
        residual: What of the input is added where stride and channels allow it, see `Residual`.
        stride: Of the depthwise layer.
        activation: After the expand and depthwise layers.
        se_of: ``input`` for the block's input channels (MnasNet), ``hidden`` for the hidden ones (MobileNetV3).
        gate: Activation of the squeeze-excite's gates.
    """

    kernel: Any = 3
    expansion: Any = 6
    groups: Any = 1
    se: Any = 0.0
    residual: Any = True
    stride: int = 1
    activation: Activation = "relu"
    se_of: str = "input"
    gate: Activation = "sigmoid"

    def add(
        self, make: Builder, name: str, x: Tensor, y: Tensor, when: Conditions = (), *,
        keep: Value | None = None, apart: Sequence[Value] = (),
    ) -> None:  # fmt: skip
        """Adds the block's decisions and slots.

        Args:
            make: Where to.
            name: Of the block.
            x, y: What it reads and writes.
            when: Conditions under which it exists.
            keep: The share of the hidden channels, where several blocks have one decision for it.
            apart: What else tells blocks of equal layers apart.
        """
        expansion = value(self.expansion)
        expanded = make.where(when, expansion, expands)
        shared = keep is not None
        keep = make.choose(f"{name}.keep", make.joint.keep, expanded) if keep is None else keep
        expand = make.layer(f"{name}.expand", expanded)
        act_mid = make.choose(f"{name}.expand.act_bits", make.joint.act_bits, expanded)
        depthwise = make.layer(f"{name}.depthwise", when, ranked=False, dense=True)
        act_hidden = make.choose(f"{name}.depthwise.act_bits", make.joint.act_bits, when)
        project = make.layer(f"{name}.project", when)

        channels, bits = y.channels, y.bits
        hidden = compute(hidden_channels, x.channels, expansion, keep)
        expand_rank = compute(_expand_rank, expansion, self.groups, x.channels, hidden, expand.rank)
        project_rank = compute(_project_rank, self.groups, hidden, channels, project.rank)
        make.check(
            compute(_divides, self.groups, expansion, x.channels, hidden, channels),
            f"{name}: some of its channels cannot be divided into its groups",
        )
        size = compute(halved, x.size, self.stride)
        residual = compute(adds, self.residual, self.stride, x.channels, channels)
        held = compute(_held, residual, x.channels, x.size, x.bits)
        if not shared:
            decided = set(reads(expansion))
            others = map(value, (self.kernel, self.groups, self.se, self.residual, *apart))
            also = [v for v in others if decided & set(reads(v))]
            make.alias((expansion, keep), compute(hidden_kind, expansion, hidden, *also))
            if not decided & set(reads(value(self.residual))):
                make.alias(value(self.residual), residual)
        make.alias(expand.rank, expand_rank)
        make.alias(project.rank, project_rank)

        activation, gate = Constant(self.activation), Constant(self.gate)
        make.slot(f"{name}.expand", expand_layer, x.channels, hidden, expansion, self.groups, x.size, x.bits,
                  expand.weight_bits, expand.sparsity, expand_rank, act_mid, activation, when=expanded)  # fmt: skip
        read = compute(_either, expansion, act_mid, x.bits)
        beside = compute(_beside, expansion, held)
        make.slot(f"{name}.depthwise", depthwise_layer, hidden, self.kernel, self.stride, x.size, read,
                  depthwise.weight_bits, act_hidden, beside, activation, when=when)  # fmt: skip
        squeezed = compute(squeezed_channels, Constant(self.se_of), self.se, x.channels, hidden)
        make.slot(f"{name}.se", squeeze_excite, squeezed, hidden, size, act_hidden, held, gate, when=when)
        entered = compute(bits_added, residual, x.bits)
        make.slot(f"{name}.project", project_layer, hidden, channels, self.groups, size, act_hidden,
                  project.weight_bits, project.sparsity, project_rank, bits, held, residual, entered,
                  when=when)  # fmt: skip


def hidden_channels(channels: int, expansion: int, keep: float) -> int:
    """Channels inside a block: where only a share of them is kept, a multiple of 8 and at least 8.

    Without expansion the block's own input is the hidden tensor, and all of it is kept.
    """
    return channels if expansion == 1 else kept_channels(channels * expansion, keep)


def expands(expansion: int) -> bool:
    """Whether a block has an expand layer."""
    return expansion > 1


def hidden_kind(expansion: int, hidden: int, *others: Any) -> tuple[Any, ...]:
    """What tells the layers of blocks apart that differ in expansion and share kept."""
    return expansion > 1, hidden, *others


def _expand_rank(expansion: int, groups: int, cin: int, hidden: int, ratio: float) -> int:
    return rank_of(cin, hidden, ratio) if expansion > 1 and groups == 1 else 0


def _project_rank(groups: int, hidden: int, cout: int, ratio: float) -> int:
    return rank_of(hidden, cout, ratio) if groups == 1 else 0


def _divides(groups: int, expansion: int, cin: int, hidden: int, cout: int) -> bool:
    return all(n % groups == 0 for n in (hidden, cout, *(() if expansion == 1 else (cin,))))


def _held(residual: Residual, cin: int, size: Size, bits: int) -> int:
    """Bytes of the block's input while a later addition needs it."""
    return tensor_bytes(cin, size, bits) if residual else 0


def _either(expansion: int, act_mid: int, act_in: int) -> int:
    return act_mid if expansion > 1 else act_in


def _beside(expansion: int, held: int) -> int:
    return held if expansion > 1 else 0


def squeezed_channels(of: str, se: float, cin: int, hidden: int) -> int:
    """Channels that a squeeze-excite squeezes to, as a share of the ``input``'s or the ``hidden`` ones; 0 for none."""
    if not se:
        return 0
    return max(1, int(se * cin)) if of == "input" else to_multiple(se * hidden)


def expand_layer(
    name: str, cin: int, hidden: int, expansion: int, groups: int, size: Size, a_in: int, w: int,
    sparsity: tuple[float, int], rank: int, a_mid: int, activation: Activation,
) -> tuple[Operator, ...]:  # fmt: skip
    """The 1×1 convolution to the hidden channels; none without expansion."""
    if expansion == 1:
        return ()
    layer = Operator(
        "conv", cin, hidden, size, size, groups=groups, weight_bits=w, in_bits=a_in, out_bits=a_mid,
        density=sparsity[0], pattern=sparsity[1], activation=activation, affine="norm", name=f"{name}.expand",
    )  # fmt: skip
    return factorise(layer, rank)


def depthwise_layer(
    name: str, hidden: int, kernel: int, stride: int, size: Size, a_in: int, w: int, a_out: int, held: int,
    activation: Activation,
) -> tuple[Operator, ...]:  # fmt: skip
    """The k×k convolution of each hidden channel, with the block's stride."""
    return (
        Operator(
            "conv", hidden, hidden, size, halved(size, stride), kernel, stride, hidden, w, a_in, a_out,
            activation=activation, affine="norm", name=f"{name}.depthwise", held_bytes=held,
        ),
    )  # fmt: skip


def squeeze_excite(
    name: str, squeezed: int, hidden: int, size: Size, act: int, residual: int, gate: Activation
) -> tuple[Operator, ...]:
    """Pool, reduce, expand, scale: the hidden tensor times a gate per channel (Hu et al., CVPR 2018)."""
    if not squeezed:
        return ()
    whole = tensor_bytes(hidden, size, act)
    return (
        Operator("pool", hidden, hidden, size, in_bits=act, name=f"{name}.se_pool", held_bytes=residual),
        Operator("conv", hidden, squeezed, activation="relu", affine="bias", name=f"{name}.se_reduce",
                 held_bytes=residual + whole),
        Operator("conv", squeezed, hidden, activation=gate, affine="bias", name=f"{name}.se_expand",
                 held_bytes=residual + whole),
        Operator("scale", hidden, hidden, size, size, in_bits=act, out_bits=act, name=f"{name}.se_scale",
                 inputs=(f"{name}.depthwise", PREVIOUS), held_bytes=residual + 4 * hidden),
    )  # fmt: skip


def project_layer(
    name: str, hidden: int, cout: int, groups: int, size: Size, a_hidden: int, w: int, sparsity: tuple[float, int],
    rank: int, a_out: int, held: int, residual: Residual, a_in: int,
) -> tuple[Operator, ...]:  # fmt: skip
    """The shuffle of grouped blocks, the 1×1 convolution to the output channels, and the residual addition, if any."""
    layer = Operator(
        "conv", hidden, cout, size, size, groups=groups, weight_bits=w, in_bits=a_hidden, out_bits=a_out,
        density=sparsity[0], pattern=sparsity[1], affine="norm", name=f"{name}.project", held_bytes=held,
    )  # fmt: skip
    layers = factorise(layer, rank)
    if groups > 1:
        shuffle = Operator(
            "shuffle", hidden, hidden, size, size, groups=groups, in_bits=a_hidden, out_bits=a_hidden,
            name=f"{name}.shuffle", held_bytes=held,
        )  # fmt: skip
        layers = (shuffle, *layers)
    return (*layers, *add_residual(name, f"{name}.project", residual, cout, size, a_in, a_out))
