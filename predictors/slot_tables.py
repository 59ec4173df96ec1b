"""Costs of a space's slots on one device as arrays, and their sum for batches of candidates.

For every slot there is one number for each combination of the options that it reads: the identity of what it lowers to.
Few identities differ, so the costs behind them stay in the processor's caches. A batch of candidates costs two gathers
per slot, and the index of a combination is shared by slots whose reads begin alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwnas.predictors.lowering import SlotLowering
from hwnas.spaces.slot import Slot
from hwnas.spaces.space import Rows, Space

Floats = NDArray[np.float64]
Condition = tuple[int, tuple[bool, ...]]
"""A column, and which of its options satisfy it."""
CHUNK = 16384
"""Candidates at a time: their columns and sums fit the caches."""


@dataclass(frozen=True, slots=True)
class SlotTable:
    """Costs of one slot for every combination of what it reads.

    Attributes:
        columns, sizes: Of the decisions read, and their options.
        when: Where the slot exists.
        identity: Of each combination in the order of `itertools.product`, counted from 1, shape (combinations,).
        sums: Costs of each identity, shape (identities + 1, costs); row 0 is an absent slot's.
        peak: Largest activation bytes while the slot runs, shape (identities + 1,).
    """

    columns: tuple[int, ...]
    sizes: tuple[int, ...]
    when: tuple[Condition, ...]
    identity: NDArray[np.intp]
    sums: Floats
    peak: Floats

    @classmethod
    def compile(cls, space: Space, slot: Slot, own: SlotLowering, operator_costs: Sequence[Floats]) -> SlotTable:
        """The table of one slot.

        Args:
            space, slot: Whose.
            own: The slot lowered.
            operator_costs: Costs of all operators of the space's lowering, each of shape (operators,); they come first
                among the sums, then weight bytes, MACs and parameters.
        """
        columns = tuple(space.column(name) for name in slot.reads)
        conditions = [(space.column(w.decision), w.values) for w in slot.when]
        learnt = [np.bincount(own.owner, weights=c[own.operator], minlength=len(own.peak)) for c in operator_costs]
        sums = np.column_stack([*learnt, own.weight_bytes, own.macs, own.params])
        return cls(
            columns=columns,
            sizes=tuple(int(space.sizes[c]) for c in columns),
            when=tuple((c, tuple(o in values for o in space.decisions[c].options)) for c, values in conditions),
            identity=own.identity.astype(np.intp) + 1,
            sums=np.concatenate([np.zeros((1, sums.shape[1])), sums]),
            peak=np.concatenate([[0.0], own.peak]),
        )


def gather(tables: Sequence[SlotTable], rows: Rows) -> tuple[Floats, Floats]:
    """Sums (n, costs) and peaks (n,) of rows (n, decisions) in canonical form."""
    sums, peak = np.zeros((len(rows), tables[0].sums.shape[1])), np.zeros(len(rows))
    for start in range(0, len(rows), CHUNK):
        part = slice(start, start + CHUNK)
        columns = np.ascontiguousarray(rows[part].T).astype(np.int32)
        _gather(tables, columns, sums[part], peak[part])
    return sums, peak


def _gather(tables: Sequence[SlotTable], columns: NDArray[np.int32], sums: Floats, peak: Floats) -> None:
    """Adds to sums (n, costs), and raises peaks (n,), from the transposed rows, shape (decisions, n)."""
    indexes: dict[tuple[int, ...], NDArray[np.int32]] = {}
    masks: dict[Condition, NDArray[np.intp]] = {}
    costs, bytes_ = np.empty_like(sums), np.empty_like(peak)
    for table in tables:
        identity = table.identity.take(_index(table, columns, indexes))
        for condition in table.when:
            if condition not in masks:
                column, allowed = condition
                masks[condition] = np.array(allowed, dtype=np.intp).take(columns[column])
            identity *= masks[condition]
        sums += table.sums.take(identity, axis=0, out=costs, mode="clip")
        np.maximum(peak, table.peak.take(identity, out=bytes_, mode="clip"), out=peak)


def _index(
    table: SlotTable, columns: NDArray[np.int32], known: dict[tuple[int, ...], NDArray[np.int32]]
) -> NDArray[np.int32]:
    """Flat index of each candidate's combination, shape (n,), from the longest beginning that is known."""
    reads = table.columns
    length = next((k for k in range(len(reads), 0, -1) if reads[:k] in known), 0)
    for k in range(length, len(reads)):
        column = columns[reads[k]]
        known[reads[: k + 1]] = known[reads[:k]] * np.int32(table.sizes[k]) + column if k else column
    return known[reads] if reads else np.zeros(columns.shape[1], dtype=np.int32)
