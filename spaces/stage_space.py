"""The space of a stage table: its decisions and slots, stage by stage, joined with the compression decisions.

| decision                                    | of                                                                 |
|---------------------------------------------|--------------------------------------------------------------------|
| ``resolution``, ``width_multiplier``        | longer side of the image, factor on all channels                   |
| ``stem.width``, ``head.width``              | output channels of the first and the last convolution              |
| ``s1.depth``, ``s1.width``                  | blocks of stage 1, their output channels                           |
| ``s1b2.op``, ``.kernel``, ``.expand``,      | what block 2 of stage 1 is: inverted residual, convolution or      |
| ``.groups``, ``.se``, ``.residual``         | nothing, and its attributes                                        |
| ``s1b2.block``                              | all of these by one name, where the table names blocks             |
| ``s1.kernel``, …                            | the same for all blocks of a stage that share their choices        |

The compression decisions are those of `hwnas.spaces.blocks`. The outputs of a stage share channels and precision, as
additions need it: where the table gives one number of channels and channels are pruned, ``s1.width`` offers shares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from operator import le
from typing import Any

from hwnas.spaces.blocks.inverted_residual import InvertedResidual, expands, hidden_channels, hidden_kind
from hwnas.spaces.blocks.plain import Convolution, add_classifier, add_input, add_pool
from hwnas.spaces.blocks.residual import adds
from hwnas.spaces.blocks.shapes import Size, halved, scaled, shares
from hwnas.spaces.builder import Builder, Conditions, Tensor
from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.operator import Affine
from hwnas.spaces.space import Space
from hwnas.spaces.stage_match import Layout, StageLayout, find_network
from hwnas.spaces.stage_table import Block, Stage, StageTable
from hwnas.spaces.stage_table import Convolution as ConvolutionRow
from hwnas.spaces.value import Constant, Value, compute, reads

DECISIONS = {"kernel": "kernel", "expansion": "expand", "groups": "groups", "se": "se", "residual": "residual"}
"""Attributes of a block, and the last parts of their decisions' names."""


def stage_space(
    make: Builder,
    table: StageTable,
    *,
    name: str,
    spec: Mapping[str, Any],
    input_shape: tuple[int, int, int],
    num_classes: int,
    references: Mapping[str, Any],
) -> Space:
    """The space of a table for images of a shape.

    Raises:
        InvalidSpaceError: A table that makes no sense, with the reason, or a reference that the space does not hold.
    """
    build = _StageSpace(make, table)
    image_size = build.image_size(input_shape[1:])
    x = build.convolution("stem", table.stem, add_input(make, input_shape[0], image_size), edge=True)
    stem, known, stages = x.channels, table.stem.channels, []
    for number, stage in enumerate(table.stages, 1):
        x, places = build.stage(f"s{number}", stage, x, known)
        known = stage.channels
        stages.append(places)
    head = x = build.convolution("head", table.head, x) if table.head else x
    x = add_pool(make, x)
    mix = x = build.convolution("mix", table.mix, x, affine="bias") if table.mix else x
    add_classifier(make, x, num_classes)
    layout = Layout(table, build.resolution, build.multiplier, stem, tuple(stages), head.channels, mix.channels)
    return make.space(
        name=name,
        spec=spec,
        input_shape=input_shape,
        num_classes=num_classes,
        image_size=image_size,
        find=partial(find_network, layout),
        published=references,
    )


class _StageSpace:
    """Adds the parts of a table to a builder."""

    def __init__(self, make: Builder, table: StageTable) -> None:
        self.make = make
        self.table = table
        self.resolution = make.choose("resolution", sorted(table.resolution)) if table.resolution else None
        multipliers = sorted(table.width_multiplier)
        self.multiplier = make.choose("width_multiplier", multipliers) if multipliers != [1.0] else None

    def image_size(self, size: Size) -> Value:
        """Height and width of the image, in the proportions given."""
        return compute(_resized, size, self.resolution) if self.resolution else Constant(size)

    def convolution(
        self, name: str, row: ConvolutionRow, x: Tensor, *, edge: bool = False, affine: Affine = "norm"
    ) -> Tensor:
        """The first or last convolution, or the one behind the pooling."""
        options = row.channels if edge else self._widths(row.channels)
        width = self.make.choose(f"{name}.width", sorted(options))
        layer = Convolution(row.kernel, row.stride, row.activation or self.table.act, edge=edge, affine=affine)
        y = Tensor(self._multiplied(width, row.grows_only), None, compute(halved, x.size, row.stride))
        return layer.add(self.make, name, x, y)

    def stage(self, name: str, stage: Stage, x: Tensor, known: Sequence[int]) -> tuple[Tensor, StageLayout]:
        """The blocks of a stage that reads channels among ``known``: what it writes, and where its choices are."""
        make = self.make
        depth = make.choose(f"{name}.depth", sorted(set(stage.repeats)))
        skips = self._skip_option(stage)
        if skips and len(stage.repeats) > 1:
            raise InvalidSpaceError(f"stage {name}: give either several repeats or a block that skips, not both")
        if skips and stage.shared:
            raise InvalidSpaceError(f"stage {name}: its blocks share their choices, and cannot all be skipped")
        first_may_skip = stage.stride == 1 and list(known) == list(stage.channels)
        shared = self._attributes(name, stage, (), skip=True) if stage.shared else None
        if skips and first_may_skip:
            channels, bits = x.channels, x.bits  # what may be skipped keeps them
        else:
            channels = self._multiplied(make.choose(f"{name}.width", self._widths(stage.channels)))
            bits = make.choose(f"{name}.act_bits", make.joint.act_bits)
        layout = StageLayout(name, depth, channels, stage.stride)
        entered, keep = x, None
        y = Tensor(channels, bits, compute(halved, x.size, stage.stride))
        if shared:
            keep = self._shared_keep(name, shared, entered, y, stage.stride, depth)
        for index in range(1, max(stage.repeats) + 1):
            block = f"{name}b{index}"
            within = make.where((), depth, partial(le, index))
            may_skip = skips is not None and (index > 1 or first_may_skip)
            own = shared or self._attributes(block, stage, within, skip=may_skip)
            self._block(block, stage, own, stage.stride if index == 1 else 1, x, y, within, keep)
            layout.blocks.append(own)
            x = y
        if skips is not None and not shared:
            first = 1 if first_may_skip else 2
            prefixes = [f"{name}b{i}" for i in range(first, max(stage.repeats) + 1)]
            make.series(prefixes, "block" if stage.block else "op", skips)
        return y, layout

    # ---- parts of a stage -----------------------------------------------------------------------------------------

    def _skip_option(self, stage: Stage) -> str | None:
        if stage.block is None:
            return "skip" if "skip" in stage.op else None
        found = [n for n in stage.block if self._named(n).op == "skip"]
        if len(found) > 1:
            raise InvalidSpaceError(f"blocks {found[0]!r} and {found[1]!r} both skip; one is enough")
        return found[0] if found else None

    def _named(self, block: str) -> Block:
        if block not in self.table.blocks:
            raise InvalidSpaceError(f"no block is called {block!r}; blocks are {', '.join(self.table.blocks)}")
        return self.table.blocks[block]

    def _attributes(self, prefix: str, stage: Stage, when: Conditions, *, skip: bool) -> dict[str, Value]:
        """What a block is, by attribute."""
        make = self.make
        if stage.block is not None:
            names = [n for n in stage.block if skip or self._named(n).op != "skip"]
            self._check_some(prefix, names)
            chosen = make.choose(f"{prefix}.block", names, when, ordinal=False)
            rows = tuple((n, self._named(n)) for n in names)
            return {a: compute(_attribute, chosen, rows, Constant(a)) for a in ("op", *DECISIONS)}
        ops = [o for o in stage.op if skip or o != "skip"]
        self._check_some(prefix, ops)
        op: Value = make.choose(f"{prefix}.op", ops, when, ordinal=False) if len(ops) > 1 else Constant(ops[0])
        values = {"op": op}
        for attribute, decision in DECISIONS.items():
            options = getattr(stage, attribute)
            plain = attribute in ("kernel", "residual")
            matters = make.where(when, op, _has_kernel if plain else _is_mbconv)
            if len(options) == 1:
                values[attribute] = Constant(options[0])
                continue
            ordinal = not any(isinstance(o, str) for o in options)
            ordered = sorted(options) if ordinal else options
            values[attribute] = make.choose(f"{prefix}.{decision}", ordered, matters, ordinal=ordinal)
        return values

    @staticmethod
    def _check_some(prefix: str, options: Sequence[str]) -> None:
        if not options:
            raise InvalidSpaceError(f"{prefix}: a block that changes the tensor's shape cannot be skipped")

    def _shared_keep(
        self, name: str, own: Mapping[str, Value], x: Tensor, y: Tensor, stride: int, depth: Value
    ) -> Value:
        """The share of hidden channels that all blocks of a stage keep; says which choices are one network."""
        make, expansion = self.make, own["expansion"]
        when = make.where(make.where((), own["op"], _is_mbconv), expansion, expands)
        keep = make.choose(f"{name}.keep", make.joint.keep, when)
        kinds = [compute(hidden_kind, expansion, compute(hidden_channels, t.channels, expansion, keep)) for t in (x, y)]
        decided = set(reads(expansion))
        also = [v for v in own.values() if v is not expansion and decided & set(reads(v))]
        make.alias((expansion, keep), compute(_first_and_rest, depth, *kinds, *also))
        if not decided & set(reads(own["residual"])):
            sums = [compute(adds, own["residual"], s, t.channels, y.channels) for s, t in ((stride, x), (1, y))]
            make.alias(own["residual"], compute(_first_and_rest, depth, *sums))
        return keep

    def _block(
        self, name: str, stage: Stage, own: Mapping[str, Value], stride: int, x: Tensor, y: Tensor,
        within: Conditions, keep: Value | None,
    ) -> None:  # fmt: skip
        make, activation = self.make, stage.activation or self.table.act
        when = make.where(within, own["op"], _is_mbconv)
        if when is not None:
            values = {a: own[a] for a in DECISIONS}
            block = InvertedResidual(
                **values, stride=stride, activation=activation, se_of=self.table.se_of, gate=self.table.gate
            )
            block.add(make, name, x, y, when, keep=keep, apart=(own["op"],))
        when = make.where(within, own["op"], _is_conv)
        if when is not None:
            layer = Convolution(own["kernel"], stride, activation, own["residual"])
            layer.add(make, f"{name}.conv", x, y, when)

    def _widths(self, channels: Sequence[int]) -> list[int]:
        """What a table offers; where it is one number and channels are pruned, shares of it."""
        if len(channels) > 1:
            return sorted(channels)
        return shares(channels[0], self.make.joint.keep)

    def _multiplied(self, width: Value, grows_only: bool = False) -> Value:
        if self.multiplier is None:
            return width
        channels = compute(_grown if grows_only else scaled, width, self.multiplier)
        self.make.alias(width, channels)
        return channels


def _resized(size: Size, side: int) -> Size:
    """Height and width of an image in the proportions of ``size``, from its longer side."""
    height, width = (max(1, round(n * side / max(size))) for n in size)
    return height, width


def _attribute(name: str, blocks: tuple[tuple[str, Block], ...], attribute: str) -> Any:
    """Of the block of a name."""
    return getattr(dict(blocks)[name], attribute)


def _grown(channels: int, multiplier: float) -> int:
    return scaled(channels, max(1.0, multiplier))


def _is_mbconv(op: str) -> bool:
    return op == "mbconv"


def _is_conv(op: str) -> bool:
    return op == "conv"


def _has_kernel(op: str) -> bool:
    return op != "skip"


def _first_and_rest(depth: int, first: Any, rest: Any, *others: Any) -> tuple[Any, ...]:
    """What a stage is: its first block, and the others where it has any."""
    return first, rest if depth > 1 else None, *others
