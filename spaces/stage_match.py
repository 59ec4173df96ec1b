"""Finds the candidate of a space that a published network's stage table describes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from hwnas.spaces.decision import Option
from hwnas.spaces.errors import InvalidFileError, InvalidSpaceError
from hwnas.spaces.space import Space
from hwnas.spaces.stage_distance import distance
from hwnas.spaces.stage_offers import Chosen, Offers, wanted_of
from hwnas.spaces.stage_rows import Row, rows_of, stated_activation
from hwnas.spaces.stage_table import Convolution, StageTable, read_table
from hwnas.spaces.value import Value, evaluate, reads

BEFORE = -1
"""In place of a row: the stem, and what the whole network has."""
ENDS, STRIDES, LACKS = range(3)
"""Kinds of failures at a row, the least telling first: within a stage that might be shorter, strides that differ, and
decisions that lack what the network has."""


@dataclass(frozen=True, slots=True)
class StageLayout:
    """Where a stage's choices are: values by attribute for each block, in order."""

    name: str
    depth: Value
    channels: Value
    stride: int
    blocks: list[dict[str, Value]] = field(default_factory=list)

    def counts(self, offers: Offers) -> list[int]:
        """How many blocks it can have, in increasing order; those that are skipped do not count."""
        (depth,) = reads(self.depth)
        found: set[int] = set()
        for n in offers.options[depth]:
            skips = sum(any(offers.completions([(b["op"], "skip")], {})) for b in self.blocks[: int(n)])
            found |= set(range(int(n) - skips, int(n) + 1))
        return sorted(found)


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


class LacksError(InvalidSpaceError):
    """A network that a space does not hold; the message says which decision it lacks.

    Attributes:
        misses: How far the network is from the space, see `hwnas.spaces.stage_distance`.
    """

    def __init__(self, message: str, misses: int) -> None:
        super().__init__(message)
        self.misses = misses


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

    Activations and gates are compared where the network's table states them.

    Raises:
        LacksError: No candidate is the network; says what the best attempt lacks.
    """
    rows = rows_of(network)
    wholes = {reads(v)[0]: v for v in (layout.resolution, layout.multiplier) if v is not None}
    search = _Search(layout, network, rows, Offers(space.options, tuple(wholes)))
    if search.agrees_in_squeeze():
        for choice in product(*(space.options[name][::-1] for name in wholes)):
            found = next(search.solutions(dict(zip(wholes, choice, strict=True))), None)
            if found is not None:
                return space.completed(found)
    misses = distance(layout, search.offers, network, rows)
    raise LacksError(f"space {space.name!r} lacks it: {search.reason}", misses)


class _Search:
    """Backtracks over stages and blocks, and remembers what its best attempt lacked."""

    def __init__(self, layout: Layout, network: StageTable, rows: Sequence[Row], offers: Offers) -> None:
        self.layout = layout
        self.table = layout.table
        self.network = network
        self.rows = rows
        self.offers = offers
        self.reason = ""
        self._best = (BEFORE, -1)
        self._counts = [f"{s.name} offers {', '.join(map(str, s.counts(offers)))} blocks" for s in layout.stages]

    def fail(self, reason: str, row: int, kind: int = LACKS) -> None:
        """Keeps the reason of the attempt that came furthest: the first of the most telling ones at that row."""
        if (row, kind) > self._best:
            self._best, self.reason = (row, kind), reason

    def agrees_in_squeeze(self) -> bool:
        """Whether what the table says of all squeeze-excites is what the space has."""
        table, network = self.table, self.network
        if not any(row.se for row in self.rows):
            return True
        if network.se_of != table.se_of:
            self.fail(
                f"its squeeze-excite ratios are shares of the {network.se_of} channels, the space's of the "
                f"{table.se_of} channels", BEFORE,
            )  # fmt: skip
            return False
        if "gate" in network.model_fields_set and network.gate != table.gate:
            self.fail(f"its squeeze-excite gate is {network.gate}, the space's {table.gate}", BEFORE)
            return False
        return True

    def solutions(self, start: Chosen) -> Iterator[Chosen]:
        """All ways to make the network under a choice for the whole of it."""
        layout, network = self.layout, self.network
        if layout.resolution is not None and network.input:
            side = max(network.input[1:])
            if next(self.offers.completions([(layout.resolution, side)], {}), None) is None:
                self.fail(f"its images have a side of {side}, but {self.offers.offer('resolution')}", BEFORE)
            if evaluate(layout.resolution, start) != side:
                return
        for first in self.convolution("stem", layout.stem, start, BEFORE):
            for middle in self.stages(0, 0, first):
                for last in self.convolution("head", layout.head, middle, len(self.rows)):
                    yield from self.convolution("mix", layout.mix, last, len(self.rows))

    def convolution(self, name: str, channels: Value, chosen: Chosen, row: int) -> Iterator[Chosen]:
        """All ways to make a layer that stands alone, if both have it."""
        mine: Convolution | None = getattr(self.table, name)
        theirs: Convolution | None = getattr(self.network, name)
        if mine is None or theirs is None:
            if mine is theirs:
                yield chosen
            else:
                self.fail(f"one of them has a {name}, the other has none", row)
            return
        shape = (theirs.kernel, theirs.stride)
        if shape != (mine.kernel, mine.stride):
            self.fail(
                f"its {name} has kernel {shape[0]}, stride {shape[1]}; the space's has kernel {mine.kernel}, "
                f"stride {mine.stride}", row,
            )  # fmt: skip
            return
        has, stated = mine.activation or self.table.act, stated_activation(self.network, theirs.activation)
        if stated not in (None, has):
            self.fail(f"its {name}'s activation is {stated}, the space's {has}", row)
            return
        solved = False
        for options in self.offers.completions([(channels, theirs.channels[0])], chosen):
            solved = True
            yield options
        if not solved:
            offered = ", ".join(map(self.offers.offer, reads(channels)))
            self.fail(f"its {name} has {theirs.channels[0]} channels, but {offered}", row)

    def stages(self, number: int, row: int, chosen: Chosen) -> Iterator[Chosen]:
        """All ways to make the rows from ``row`` on of the stages from ``number`` on, counted from 0."""
        stages = self.layout.stages
        if number == len(stages):
            if row == len(self.rows):
                yield chosen
            else:
                more = "" if self.rows[row].starts else f"; {self._counts[number - 1]}"
                self.fail(f"it goes on with {self._told(row)} where the space's stages end{more}", row, STRIDES)
            return
        (depth,) = reads(stages[number].depth)
        for n in sorted(self.offers.options[depth], reverse=True):
            for end, options in self.blocks(number, 0, int(n), row, {**chosen, depth: n}):
                yield from self.stages(number + 1, end, options)

    def blocks(self, number: int, index: int, depth: int, row: int, chosen: Chosen) -> Iterator[tuple[int, Chosen]]:
        """All ways to make rows of a stage's blocks from ``index`` on: the next row, and the options."""
        if index == depth:
            yield row, chosen
            return
        stage = self.layout.stages[number]
        values, place = stage.blocks[index], f"{stage.name}b{index + 1}"
        stride = stage.stride if index == 0 else 1
        if row == len(self.rows):
            said = f"it ends before {place} of the space"
            self.fail(f"{said}; {self._counts[number]}" if index else said, row, ENDS if index else STRIDES)
        elif self.rows[row].stride == stride:
            for options in self._block(number, index, row, chosen):
                yield from self.blocks(number, index + 1, depth, row + 1, options)
        elif index == 0 and row > 0 and not self.rows[row].starts:
            self.fail(f"its {self._told(row)} is one more than fits; {self._counts[number - 1]}", row, STRIDES)
        else:
            said = f"its {self._told(row)} is at {place} of the space, of stride {stride}"
            self.fail(f"{said}; {self._counts[number]}" if index else said, row, ENDS if index else STRIDES)
        for options in self.offers.completions([(values["op"], "skip")], chosen):
            yield from self.blocks(number, index + 1, depth, row, options)

    def _block(self, number: int, index: int, row: int, chosen: Chosen) -> Iterator[dict[str, Option]]:
        """All ways to make a row of a block of the same stride."""
        stage, block = self.layout.stages[number], self.rows[row]
        activation = self.table.stages[number].activation or self.table.act
        wanted = wanted_of(stage.blocks[index], stage.channels, activation, block)
        solved = False
        for options in self.offers.completions(wanted.values(), chosen):
            solved = True
            yield options
        if solved or (row, LACKS) <= self._best:
            return
        lacking = self.offers.lacking(wanted, chosen)
        place = f"{stage.name}b{index + 1}"
        if ("channels",) in lacking and index > 0 and block.starts:
            said = f"its {self._told(row)} is at {place} of the space, which keeps its channels"
            self.fail(f"{said}; {self._counts[number]}", row, ENDS)
        elif ("channels",) in lacking and index == 0 and row > 0 and not block.starts:
            self.fail(f"its {self._told(row)} is one more than fits; {self._counts[number - 1]}", row, STRIDES)
        else:
            why = "; ".join(self.offers.why(place, names, wanted, chosen) for names in lacking)
            self.fail(f"its block {row + 1} is {block}; {why}", row)

    def _told(self, row: int) -> str:
        return f"block {row + 1} ({self.rows[row]})"
