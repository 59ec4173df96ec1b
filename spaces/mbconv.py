"""Inverted residuals (MobileNetV2, Sandler et al. 2018) with squeeze-excite, joined with bits, sparsity and rank.

A stage is a row of blocks that share output channels; a block is expand (1×1) → depthwise (k×k) → squeeze-excite →
project (1×1) → residual. The decisions:

| decision                                   | of                                                                  |
|--------------------------------------------|---------------------------------------------------------------------|
| ``stem.width``, ``head.width``             | output channels of the first and the last convolution               |
| ``s1.depth``, ``s1.width``                 | blocks of stage 1, their output channels                            |
| ``s1b2.kernel``, ``.expand``, ``.se``      | block 2 of stage 1: depthwise kernel, expansion, squeeze ratio      |
| ``s1b2.keep``                              | share of the block's hidden channels that is kept                   |
| ``….weight_bits``, ``….act_bits``          | of a layer's weights, and of the tensor it writes                   |
| ``….rank``                                 | of a 1×1 layer: see `hwnas.spaces.rank`                             |

Tensors joined by residual additions share channels and precision, so both are decided once per stage: the keep ratio
of a stage's outputs is its width, and the precision of a stage's outputs is ``s1.act_bits``. The two squeeze-excite
layers run in float32. The activation is ReLU throughout; MobileNetV2 has ReLU6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from hwnas.spaces.decision import Decision, Option
from hwnas.spaces.mbconv_block import Block, halved, hidden_channels
from hwnas.spaces.mbconv_skeletons import SKELETONS, Skeleton, Stage
from hwnas.spaces.operator import Operator
from hwnas.spaces.rank import factorise, rank_of
from hwnas.spaces.slot import Slot, When
from hwnas.spaces.space import Activity, Alias, Space


@dataclass(frozen=True, slots=True)
class Joint:
    """Options of the compression decisions; one option means not searched."""

    weight_bits: tuple[int, ...] = (32,)
    act_bits: tuple[int, ...] = (32,)
    edge_bits: tuple[int, ...] = (32,)
    keeps: tuple[float, ...] = (1.0,)
    ranks: tuple[float, ...] = (1.0,)

    @classmethod
    def of(cls, dimensions: tuple[str, ...]) -> Joint:
        """The default options of the dimensions named. ``edge_bits``: of the first and the last layer."""
        bits, sparsity, rank = (name in dimensions for name in ("bits", "sparsity", "rank"))
        return cls(
            weight_bits=(4, 7, 8, 32) if bits else (32,),
            act_bits=(4, 8, 32) if bits else (32,),
            edge_bits=(8, 32) if bits else (32,),
            keeps=(0.5, 0.75, 1.0) if sparsity else (1.0,),
            ranks=(0.25, 0.5, 1.0) if rank else (1.0,),
        )


class _Builder:
    """Collects decisions, slots and their equivalences, stage by stage."""

    def __init__(self, joint: Joint) -> None:
        self.joint = joint
        self.decisions: dict[str, Decision] = {}
        self.slots: list[Slot] = []
        self.activities: list[Activity] = []
        self.aliases: list[Alias] = []

    def choose(self, name: str, options: tuple[Option, ...], when: tuple[When, ...] = ()) -> str:
        self.decisions[name] = Decision(name, options)
        if when:
            self.activities.append(Activity(name, when))
        return name

    def layer(self, name: str, when: tuple[When, ...] = (), *, rank: bool = True) -> tuple[str, ...]:
        """The compression decisions of one layer: weight bits, and rank for 1×1 layers."""
        bits = self.choose(f"{name}.weight_bits", self.joint.weight_bits, when)
        return (bits, self.choose(f"{name}.rank", self.joint.ranks, when)) if rank else (bits,)

    def alias(self, given: tuple[str, ...], among: tuple[str, ...], key: Any) -> None:
        options = [self.decisions[n].options for n in (*given, *among)]
        grid = np.array([key(*(o[i] for o, i in zip(options, index, strict=True)))
                         for index in np.ndindex(*map(len, options))], dtype=np.int64)  # fmt: skip
        self.aliases.append(Alias(given, among, grid))

    def block(self, block: Block, within: tuple[When, ...], width_in: str, act_in: str, stage: str, options: Stage,
              kernels: tuple[int, ...]) -> None:  # fmt: skip
        name, width, act_out = block.name, f"{stage}.width", f"{stage}.act_bits"
        expand = self.choose(f"{name}.expand", options.expansions, within)
        expands = (*within, When(expand, frozenset(e for e in options.expansions if e > 1)))
        keep = self.choose(f"{name}.keep", self.joint.keeps, expands)
        kernel = self.choose(f"{name}.kernel", kernels, within)
        se = self.choose(f"{name}.se", (0.0, 0.25), within)
        expand_layer = self.layer(f"{name}.expand", expands)
        act_mid = self.choose(f"{name}.expand.act_bits", self.joint.act_bits, expands)
        (depthwise_bits,) = self.layer(f"{name}.depthwise", within, rank=False)
        act_hidden = self.choose(f"{name}.depthwise.act_bits", self.joint.act_bits, within)
        project_layer = self.layer(f"{name}.project", within)

        shape = (width_in, expand, keep)
        self.alias((width_in,), (expand, keep), lambda c, e, k: hidden_channels(c, e, k) + 10**6 * (e == 1))
        self.alias(shape, (expand_layer[1],),
                   lambda c, e, k, r: rank_of(c, hidden_channels(c, e, k), r) if e > 1 else 0)  # fmt: skip
        self.alias((*shape, width), (project_layer[1],), lambda c, e, k, o, r: rank_of(hidden_channels(c, e, k), o, r))

        slots = (
            ("expand", (*shape, act_in, *expand_layer, act_mid), block.expand),
            ("depthwise", (*shape, act_in, width, kernel, act_mid, depthwise_bits, act_hidden), block.depthwise),
            ("se", (*shape, act_in, width, se, act_hidden), block.squeeze),
            ("project", (*shape, act_in, width, act_hidden, *project_layer, act_out), block.project),
        )
        self.slots += [Slot(f"{name}.{part}", reads, lower, within, (part, block)) for part, reads, lower in slots]


def mbconv(
    *,
    input_shape: tuple[int, int, int] = (3, 224, 224),
    num_classes: int = 1000,
    joint: tuple[str, ...] = ("bits", "sparsity", "rank"),
) -> Space:
    """The inverted-residual space for images from 8×8 to 512×512, its stages chosen by the image's longer side.

    Args:
        input_shape: Channels, height, width.
        num_classes: Outputs of the classifier.
        joint: Which of ``bits``, ``sparsity`` and ``rank`` are searched with the architecture.
    """
    channels, *size = input_shape
    skeleton = next(s for s in SKELETONS if max(size) <= s.max_side)
    options = Joint.of(joint)
    make = _Builder(options)
    side = cast("tuple[int, int]", tuple(size))

    act_in = make.choose("input.act_bits", options.edge_bits)
    stem_bits = make.choose("stem.weight_bits", options.edge_bits)
    width = make.choose("stem.width", skeleton.stem_widths)
    act = make.choose("stem.act_bits", options.act_bits)
    make.slots.append(Slot("input", (act_in,), _input_lower(channels, side)))
    stem_side = halved(side, skeleton.stem_stride)
    make.slots.append(
        Slot("stem", (act_in, stem_bits, width, act), _stem_lower(channels, side, stem_side, skeleton.stem_stride))
    )
    side = stem_side
    for number, stage in enumerate(skeleton.stages, 1):
        name = f"s{number}"
        depth = make.choose(f"{name}.depth", stage.depths)
        make.choose(f"{name}.width", stage.widths)
        make.choose(f"{name}.act_bits", options.act_bits)
        for index in range(1, max(stage.depths) + 1):
            deep = frozenset(d for d in stage.depths if d >= index)
            within = () if len(deep) == len(stage.depths) else (When(depth, deep),)
            block = Block(f"{name}b{index}", side, stage.stride if index == 1 else 1)
            make.block(block, within, width, act, name, stage, skeleton.kernels)
            side, width, act = block.out_side, f"{name}.width", f"{name}.act_bits"
    head_width = make.choose("head.width", skeleton.head_widths)
    head_layer = make.layer("head")
    head_act = make.choose("head.act_bits", options.act_bits)
    classifier_bits = make.choose("classifier.weight_bits", options.edge_bits)
    make.alias((width, head_width), (head_layer[1],), rank_of)
    make.slots.append(Slot("head", (width, act, head_width, *head_layer, head_act), _head_lower(side)))
    make.slots.append(Slot("classifier", (head_width, head_act, classifier_bits), _classifier_lower(side, num_classes)))
    return Space(
        name="mbconv",
        spec={"name": "mbconv", "input_shape": list(input_shape), "num_classes": num_classes, "joint": list(joint)},
        decisions=list(make.decisions.values()),
        slots=make.slots,
        input_shape=input_shape,
        num_classes=num_classes,
        activities=make.activities,
        aliases=make.aliases,
        references={"mobilenetv2": _mobilenetv2(skeleton, make.decisions)},
    )


def _input_lower(channels: int, side: tuple[int, int]) -> Any:
    def lower(bits: int) -> tuple[Operator, ...]:
        if bits == 32:
            return ()
        return (Operator("quantize", channels, channels, side, side, out_bits=bits, name="input.quantize"),)

    return lower


def _stem_lower(channels: int, side: tuple[int, int], out_side: tuple[int, int], stride: int) -> Any:
    def lower(a_in: int, w: int, width: int, a_out: int) -> tuple[Operator, ...]:
        return (
            Operator("conv", channels, width, side, out_side, 3, stride, weight_bits=w, in_bits=a_in, out_bits=a_out,
                     activation="relu", affine="norm", name="stem"),
        )  # fmt: skip

    return lower


def _head_lower(side: tuple[int, int]) -> Any:
    def lower(cin: int, a_in: int, width: int, w: int, rank: float, a_out: int) -> tuple[Operator, ...]:
        layer = Operator("conv", cin, width, side, side, weight_bits=w, in_bits=a_in, out_bits=a_out,
                         activation="relu", affine="norm", name="head")  # fmt: skip
        return factorise(layer, rank)

    return lower


def _classifier_lower(side: tuple[int, int], num_classes: int) -> Any:
    def lower(width: int, act: int, w: int) -> tuple[Operator, ...]:
        return (
            Operator("pool", width, width, side, in_bits=act, out_bits=act, name="pool"),
            Operator("linear", width, num_classes, weight_bits=w, in_bits=act, affine="bias", name="classifier"),
        )

    return lower


def _mobilenetv2(skeleton: Skeleton, decisions: dict[str, Decision]) -> dict[str, Option]:
    """MobileNetV2 in float32, in the proportions of the skeleton."""
    values: dict[str, Option] = {n: d.options[-1] for n, d in decisions.items()}
    values |= {n: 3 for n in decisions if n.endswith(".kernel")} | {n: 0.0 for n in decisions if n.endswith(".se")}
    values |= {"stem.width": skeleton.stem_reference, "head.width": skeleton.head_reference}
    for number, stage in enumerate(skeleton.stages, 1):
        expansion, width, depth = stage.reference
        values |= {f"s{number}.width": width, f"s{number}.depth": depth}
        values |= {f"s{number}b{i}.expand": expansion for i in range(1, max(stage.depths) + 1)}
    return values
