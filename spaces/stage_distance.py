"""How far a published network is from a space of stages: what one would have to add to the space to hold it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hwnas.spaces.stage_offers import Offers, wanted_of
from hwnas.spaces.stage_rows import Row, stated_activation
from hwnas.spaces.stage_table import StageTable
from hwnas.spaces.value import Value

if TYPE_CHECKING:
    from hwnas.spaces.stage_match import Layout, StageLayout

EDGE = 4
"""Attributes of a stem or head that one of them has and the other has not."""


def distance(layout: Layout, offers: Offers, network: StageTable, rows: Sequence[Row]) -> int:
    """How many attributes of the network's stages the space does not offer where they are.

    An attribute counts once in a stage, and is looked for alone: whether the space offers it together with the others
    is not asked. Blocks too many or too few count one by one. Rows are given to stages so that the sum is least.
    """
    table = layout.table
    misses = int(layout.resolution is not None and network.input is not None
                 and _lacks(layout.resolution, max(network.input[1:]), offers))  # fmt: skip
    for name, channels in (("stem", layout.stem), ("head", layout.head), ("mix", layout.mix)):
        mine, theirs = getattr(table, name), getattr(network, name)
        if mine is None or theirs is None:
            misses += EDGE * (mine is not theirs)
            continue
        stated = stated_activation(network, theirs.activation)
        misses += (mine.kernel != theirs.kernel) + (mine.stride != theirs.stride)
        misses += _lacks(channels, theirs.channels[0], offers) + (stated not in (None, mine.activation or table.act))
    if any(row.se for row in rows):
        misses += network.se_of != table.se_of
        misses += "gate" in network.model_fields_set and network.gate != table.gate
    return misses + _of_stages(layout, offers, rows)


def _lacks(value: Value, wanted: object, offers: Offers) -> bool:
    return next(offers.completions([(value, wanted)], {}), None) is None


def _of_stages(layout: Layout, offers: Offers, rows: Sequence[Row]) -> int:
    """The least sum over stages, each of which takes the rows that follow those of the stage before."""
    best: list[float] = [0, *[math.inf] * len(rows)]  # by the number of rows taken
    for stage, written in zip(layout.stages, layout.table.stages, strict=True):
        activation, counts = written.activation or layout.table.act, stage.counts(offers)
        before, best = best, [math.inf] * (len(rows) + 1)
        firsts = [_lacking(stage, activation, offers, row, first=True) for row in rows]
        others = [_lacking(stage, activation, offers, row, first=False) for row in rows]
        for start, sum_before in enumerate(before):
            lacking: set[str] = set()
            for end in range(start, len(rows) + 1):
                if end > start:
                    lacking |= firsts[start] if end == start + 1 else others[end - 1]
                blocks = min(abs(end - start - n) for n in counts)
                best[end] = min(best[end], sum_before + len(lacking) + blocks)
    return int(best[-1])


def _lacking(stage: StageLayout, activation: str, offers: Offers, row: Row, *, first: bool) -> set[str]:
    """The attributes of a row that a stage does not offer; its later blocks keep their channels."""
    wanted = wanted_of(stage.blocks[0 if first else -1], stage.channels, activation, row)
    alone = {a for a, (value, target) in wanted.items() if _lacks(value, target, offers)}
    moved = {"stride"} if row.stride != (stage.stride if first else 1) else set()
    if not first and row.starts:
        moved.add("channels")
    return alone | moved
