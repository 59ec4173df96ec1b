"""Finds the candidate of a space that a published network's stage table describes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from hwnas.spaces.blocks.residual import Residual
from hwnas.spaces.decision import Option
from hwnas.spaces.errors import InvalidFileError, InvalidSpaceError
from hwnas.spaces.space import Space
from hwnas.spaces.stage_table import Convolution, StageTable, read_table
from hwnas.spaces.value import Value, evaluate, reads

Options = Mapping[str, Option]


@dataclass(frozen=True, slots=True)
class StageLayout:
    """Where a stage's choices are: values by attribute for each block, in order."""

    name: str
    depth: Value
    channels: Value
    stride: int
    blocks: list[dict[str, Value]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the choices of a stage table are in its space; attributes are channels where not said otherwise."""

    table: StageTable
    resolution: Value | None
    multiplier: Value | None
    stem: Value
    stages: tuple[StageLayout, ...]
    head: Value
    mix: Value


@dataclass(frozen=True, slots=True)
class Row:
    """One block of a network."""

    op: str
    kernel: int
    expansion: int
    groups: int
    se: float
    residual: Residual
    channels: int
    stride: int

    def __str__(self) -> str:
        if self.op == "conv":
            return f"convolution {self.kernel}×{self.kernel} to {self.channels} channels, stride {self.stride}"
        groups = f", {self.groups} groups" if self.groups > 1 else ""
        squeeze = f", squeeze-excite {self.se:g}" if self.se else ""
        alone = {True: "", False: ", without residual", "pool": ", residual pooled"}[self.residual]
        return (
            f"{self.kernel}×{self.kernel}, expansion {self.expansion}{groups}{squeeze}, to {self.channels} channels, "
            f"stride {self.stride}{alone}"
        )


class LacksError(InvalidSpaceError):
    """A network that a space does not hold; the message says which decision it lacks.

    Attributes:
        matched: Rows that were found before.
    """

    def __init__(self, message: str, matched: int) -> None:
        super().__init__(message)
        self.matched = matched


def rows_of(network: StageTable, where: str = "the network") -> list[Row]:
    """The blocks of a network in order; those that are skipped are no blocks.

    Raises:
        InvalidSpaceError: It is no network: a choice, a factor on channels, or a block that is skipped where channels
            or the stride would change.
    """
    if network.width_multiplier != [1.0] or network.resolution:
        raise InvalidSpaceError(f"{where}: give its own channels and input, not width_multiplier or resolution")
    for name, layer in (("stem", network.stem), ("head", network.head), ("mix", network.mix)):
        if layer is not None and len(layer.channels) > 1:
            raise InvalidSpaceError(f"{where}: {name} has a choice of channels; a network's table gives one number")
    rows: list[Row] = []
    channels = network.stem.channels
    for number, stage in enumerate(network.stages, 1):
        lists = {"op", "kernel", "expansion", "groups", "se", "residual", "channels", "repeats"}
        if stage.block or any(len(getattr(stage, name)) > 1 for name in lists):
            raise InvalidSpaceError(f"{where}: stage {number} has a choice; a network's table gives one value for each")
        if stage.op == ["skip"]:
            if stage.stride > 1 or stage.channels != channels:
                raise InvalidSpaceError(f"{where}: stage {number} is skipped, but changes channels or has a stride")
            continue
        channels = stage.channels
        for index in range(stage.repeats[0]):
            rows.append(
                Row(stage.op[0], stage.kernel[0], stage.expansion[0], stage.groups[0], stage.se[0], stage.residual[0],
                    stage.channels[0], stage.stride if index == 0 else 1)
            )  # fmt: skip
    return rows


def find_network(layout: Layout, space: Space, network: Any) -> dict[str, Option]:
    """As `find_candidate`, of a table as a file has it.

    Raises:
        InvalidFileError: It is no stage table.
        LacksError: See there.
    """
    if not isinstance(network, Mapping) or not {"stem", "stages"} & set(network):
        raise InvalidFileError("a stage table has 'stem' and 'stages'")
    return find_candidate(layout, space, read_table(network, "the network"))


def find_candidate(layout: Layout, space: Space, network: StageTable) -> dict[str, Option]:
    """The options of the space's decisions that make the network, in float32 and nothing removed.

    Activations are not compared.

    Raises:
        LacksError: No candidate is the network; says what the best attempt lacks.
    """
    options = {d.name: d.options for d in space.decisions} | {n: (o,) for n, o in space.fixed.items()}
    rows = rows_of(network)
    search = _Search(options, rows)
    if any(row.se for row in rows) and network.se_of != layout.table.se_of:
        raise LacksError(
            f"space {space.name!r} lacks it: its squeeze-excite ratios are shares of the {network.se_of} channels, "
            f"the space's of the {layout.table.se_of} channels", -1,
        )  # fmt: skip
    wholes = [v for v in (layout.resolution, layout.multiplier) if v is not None]
    for choice in product(*(options[reads(v)[0]][::-1] for v in wholes)):
        start = {reads(v)[0]: o for v, o in zip(wholes, choice, strict=True)}
        if layout.resolution is not None and network.input:
            side = max(network.input[1:])
            if evaluate(layout.resolution, start) != side:
                search.fail(f"its images have a side of {side}, but {_offer('resolution', options)}", -1)
                continue
        found = next(_solutions(search, layout, network, start), None)
        if found is not None:
            return {d.name: found.get(d.name, d.options[-1]) for d in space.decisions}
    raise LacksError(f"space {space.name!r} lacks it: {search.reason}", search.matched)


def _solutions(search: _Search, layout: Layout, network: StageTable, start: Options) -> Iterator[Options]:
    table = layout.table
    for first in search.convolution("stem", layout.stem, table.stem, network.stem, start, -1):
        for middle in search.stages(layout.stages, 0, network.stem.channels[0], first):
            ends: Iterator[Options] = iter([middle])
            for name, channels in (("head", layout.head), ("mix", layout.mix)):
                mine, theirs = getattr(table, name), getattr(network, name)
                ends = _then(search, name, channels, mine, theirs, ends)
            yield from ends


def _then(
    search: _Search, name: str, channels: Value, mine: Convolution | None, theirs: Convolution | None,
    starts: Iterator[Options],
) -> Iterator[Options]:  # fmt: skip
    for start in starts:
        yield from search.convolution(name, channels, mine, theirs, start, len(search.rows))


class _Search:
    """Backtracks over stages and blocks, and remembers how far it came."""

    def __init__(self, options: Mapping[str, tuple[Option, ...]], rows: Sequence[Row]) -> None:
        self.options = options
        self.rows = rows
        self.matched = -2
        self.reason = ""

    def fail(self, reason: str, matched: int) -> None:
        if matched > self.matched:
            self.matched, self.reason = matched, reason

    def solve(self, wanted: Sequence[tuple[Value, Any]], given: Options) -> Iterator[dict[str, Option]]:
        """All ways to complete the choice so that each value is as wanted."""
        free = [n for n in dict.fromkeys(n for v, _ in wanted for n in reads(v)) if n not in given]
        for choice in product(*(self.options[n] for n in free)):
            options = {**given, **dict(zip(free, choice, strict=True))}
            if all(evaluate(v, options) == w for v, w in wanted):
                yield options

    def convolution(
        self, name: str, channels: Value, mine: Convolution | None, theirs: Convolution | None, given: Options,
        matched: int,
    ) -> Iterator[Options]:  # fmt: skip
        if mine is None or theirs is None:
            if mine is theirs:
                yield given
            else:
                self.fail(f"one of them has a {name}, the other has none", matched)
            return
        shape = (theirs.kernel, theirs.stride)
        if shape != (mine.kernel, mine.stride):
            self.fail(
                f"its {name} has kernel {shape[0]}, stride {shape[1]}; the space's has kernel {mine.kernel}, "
                f"stride {mine.stride}", matched,
            )  # fmt: skip
            return
        solved = False
        for options in self.solve([(channels, theirs.channels[0])], given):
            solved = True
            yield options
        if not solved:
            self.fail(
                f"its {name} has {theirs.channels[0]} channels, but {_offer(f'{name}.width', self.options)}", matched
            )

    def stages(self, stages: Sequence[StageLayout], row: int, channels: int, given: Options) -> Iterator[Options]:
        """All ways to make the rows from ``row`` on of these stages."""
        if not stages:
            if row == len(self.rows):
                yield given
            else:
                self.fail(f"it goes on with block {row + 1} ({self.rows[row]}) where the space's stages end", row)
            return
        stage = stages[0]
        depths = [given[stage.name + ".depth"]] if f"{stage.name}.depth" in given else self._depths(stage, given)
        for depth in sorted(depths, reverse=True):
            chosen = {**given, f"{stage.name}.depth": depth}
            for end, width, options in self.blocks(stage, 0, int(depth), row, channels, chosen):
                yield from self.stages(stages[1:], end, width, options)

    def _depths(self, stage: StageLayout, given: Options) -> tuple[Any, ...]:
        return self.options.get(f"{stage.name}.depth", (evaluate(stage.depth, given) if not reads(stage.depth) else 1,))

    def blocks(
        self, stage: StageLayout, index: int, depth: int, row: int, channels: int, given: Options
    ) -> Iterator[tuple[int, int, Options]]:
        """All ways to make rows of the stage's blocks from ``index`` on: the next row, its channels, the options."""
        if index == depth:
            yield row, channels, given
            return
        values, place = stage.blocks[index], f"{stage.name}b{index + 1}"
        stride = stage.stride if index == 0 else 1
        if row < len(self.rows) and self.rows[row].stride == stride:
            for options in self._block(place, values, stage, self.rows[row], channels, stride, given, row):
                yield from self.blocks(stage, index + 1, depth, row + 1, self.rows[row].channels, options)
        elif row < len(self.rows):
            self.fail(f"its block {row + 1} ({self.rows[row]}) is at {place} of the space, of stride {stride}", row)
        else:
            self.fail(f"it ends before {place} of the space", row)
        for options in self.solve([(values["op"], "skip")], given):
            yield from self.blocks(stage, index + 1, depth, row, channels, options)

    def _block(
        self, place: str, values: Mapping[str, Value], stage: StageLayout, row: Row, channels: int, stride: int,
        given: Options, number: int,
    ) -> Iterator[dict[str, Option]]:  # fmt: skip
        adds = stride == 1 and channels == row.channels
        attributes = ["op", "kernel", *(("expansion", "groups", "se") if row.op == "mbconv" else ())]
        attributes += ["residual"] if adds else []
        wanted = {a: (values[a], getattr(row, a)) for a in attributes} | {"channels": (stage.channels, row.channels)}
        solved = False
        for options in self.solve(list(wanted.values()), given):
            solved = True
            yield options
        if not solved:
            self.fail(f"its block {number + 1} is {row}; {self._why(place, wanted, given)}", number)

    def _why(self, place: str, wanted: Mapping[str, tuple[Value, Any]], given: Options) -> str:
        for attribute, (v, target) in wanted.items():
            if any(True for _ in self.solve([(v, target)], given)):
                continue
            names = reads(v)
            if not names:
                return f"the space has no decision for that: {attribute} of {place} is always {evaluate(v, {})}"
            free = [n for n in names if n not in given]
            return ", and ".join(_offer(n, self.options) for n in free) or (
                f"{' and '.join(names)} cannot be {target} together with what comes before"
            )
        several = dict.fromkeys(n for v, _ in wanted.values() for n in reads(v))
        return f"no choice of {', '.join(several)} gives all of it"


def _offer(name: str, options: Mapping[str, tuple[Option, ...]]) -> str:
    offered = options.get(name, ())
    return f"{name} {'offers' if len(offered) > 1 else 'is always'} {', '.join(map(str, offered))}"
