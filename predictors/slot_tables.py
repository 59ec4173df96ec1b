"""Costs of a space's slots on one device as arrays, and their sum for batches of candidates.

For every slot there is one number for each combination of the options that it reads: the identity of what it lowers to.
Few identities differ, so the costs behind them stay in the processor's caches. Neighbouring slots that together read
little share a table. A batch of candidates costs three gathers per table, chunk by chunk, and the index of a
combination goes on from the table before where their reads begin alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile

import numpy as np
from numpy.typing import NDArray

from hwnas.predictors.lowering import SlotLowering, SpaceLowering
from hwnas.spaces.slot import Slot
from hwnas.spaces.space import Rows, Space

Floats = NDArray[np.float64]
Indexes = NDArray[np.unsignedinteger]
Condition = tuple[int, tuple[bool, ...]]
"""A column, and which of its options satisfy it."""
CHUNK = 40_000
"""Candidates at a time: enough to make up for bringing every table into the caches, and some 20 MB."""
STRIP = 500
"""Rows that are transposed at a time, copied first: read in order, and from the caches after that."""
LARGEST_JOINED = 2**16 - 1
"""Combinations of a table of several slots at most, so that an identity takes two bytes."""


@dataclass(frozen=True, slots=True)
class Peaks:
    """Costs of which a network has that of its largest operator.

    Attributes:
        operators: Of all operators of a space, shape (operators, peaks).
        per_held: What a byte that an operator holds for later ones adds to each, shape (peaks,).
    """

    operators: Floats
    per_held: Sequence[float]


@dataclass(frozen=True, slots=True)
class SlotTable:
    """Costs of neighbouring slots, most often of one, for every combination of what they read.

    Attributes:
        columns, sizes: Of the decisions read, or of their `Fold`s, and the options of each.
        when: Where the slots exist.
        identity: Of each combination in the order of `itertools.product`, counted from 1, shape (combinations,).
        sums: Costs of each identity, shape (identities + 1, costs); row 0 is an absent slot's.
        peak: Largest activation bytes while the slots run, shape (identities + 1,); or, where others are asked for, the
            largest of each of the `Peaks`, shape (identities + 1, peaks).
    """

    columns: tuple[int, ...]
    sizes: tuple[int, ...]
    when: tuple[Condition, ...]
    identity: Indexes
    sums: Floats
    peak: Floats

    @classmethod
    def of(
        cls, space: Space, slot: Slot, columns: tuple[int, ...], sizes: tuple[int, ...], own: SlotLowering,
        operator_costs: Sequence[Floats], peaks: Peaks | None = None,
    ) -> SlotTable:  # fmt: skip
        """The table of one slot; see `slot_tables` for the arguments."""
        conditions = [(space.column(w.decision), w.values) for w in slot.when]
        learnt = [np.bincount(own.owner, weights=c[own.operator], minlength=len(own.peak)) for c in operator_costs]
        sums = np.column_stack([*learnt, own.weight_bytes, own.macs, own.params])
        return cls(
            columns=columns,
            sizes=sizes,
            when=tuple((c, tuple(o in values for o in space.decisions[c].options)) for c, values in conditions),
            identity=_narrow(own.identity + 1),
            sums=np.concatenate([np.zeros((1, sums.shape[1])), sums]),
            peak=_with_absent(own.peak if peaks is None else _largest(own, peaks)),
        )

    def joined(self, other: SlotTable) -> SlotTable | None:
        """One table of both, or None where they exist under different conditions or together read too much."""
        sizes = dict(zip(self.columns + other.columns, self.sizes + other.sizes, strict=True))
        if self.when != other.when or math.prod(sizes.values()) > LARGEST_JOINED:
            return None
        pairs = self._over(sizes).astype(np.int64) * len(other.peak) + other._over(sizes)
        distinct, identity = np.unique(pairs, return_inverse=True)
        first, second = np.divmod(np.concatenate([[0], distinct]), len(other.peak))
        return SlotTable(
            columns=tuple(sizes),
            sizes=tuple(sizes.values()),
            when=self.when,
            identity=_narrow(identity.ravel() + 1),
            sums=self.sums[first] + other.sums[second],
            peak=np.maximum(self.peak[first], other.peak[second]),
        )

    def _over(self, sizes: dict[int, int]) -> Indexes:
        """Identities for every combination of more columns, whose sizes are given, shape of those sizes."""
        order = sorted(range(len(self.columns)), key=lambda i: list(sizes).index(self.columns[i]))
        axes = [n if c in self.columns else 1 for c, n in sizes.items()]
        own = self.identity.reshape(self.sizes).transpose(order).reshape(axes)
        return np.broadcast_to(own, tuple(sizes.values()))


def slot_tables(
    space: Space, lowering: SpaceLowering, operator_costs: Sequence[Floats], peaks: Peaks | None = None
) -> list[SlotTable]:
    """The tables of a space.

    Args:
        space: Whose.
        lowering: The space lowered.
        operator_costs: Costs of all its operators, each of shape (operators,); they come first among the sums, then
            weight bytes, MACs and parameters.
        peaks: To gather in place of the largest activation bytes.
    """
    tables: list[SlotTable] = []
    for slot, columns, own in zip(space.slots, lowering.columns, lowering.slots, strict=True):
        sizes = tuple(int(lowering.sizes[c]) for c in columns)
        table = SlotTable.of(space, slot, columns, sizes, own, operator_costs, peaks)
        both = tables[-1].joined(table) if tables else None
        if both is None:
            tables.append(table)
        else:
            tables[-1] = both
    return tables


def _largest(own: SlotLowering, peaks: Peaks) -> Floats:
    """The largest of each of the peaks among an identity's operators, shape (identities, peaks)."""
    values = peaks.operators[own.operator] + own.held[:, None] * np.array(peaks.per_held)
    largest = np.zeros((len(own.peak), values.shape[1]))
    np.maximum.at(largest, own.owner, values)
    return largest


def _with_absent(peak: Floats) -> Floats:
    return np.concatenate([np.zeros_like(peak, shape=(1, *peak.shape[1:])), peak])


def _narrow(identity: NDArray[np.signedinteger]) -> Indexes:
    return identity.astype(np.min_scalar_type(int(identity.max())))


def gather(tables: Sequence[SlotTable], rows: Rows) -> tuple[Floats, Floats]:
    """Sums (n, costs) and peaks, (n,) or (n, peaks), of rows in canonical form, `SpaceLowering.extended`."""
    sums, peak = np.zeros((len(rows), tables[0].sums.shape[1])), np.zeros((len(rows), *tables[0].peak.shape[1:]))
    dtype = np.min_scalar_type(max(len(table.identity) for table in tables))
    columns = np.empty((rows.shape[1], min(CHUNK, len(rows))), dtype=dtype)
    for start in range(0, len(rows), CHUNK):
        part = slice(start, start + CHUNK)
        _gather(tables, _transposed(rows[part], columns), sums[part], peak[part])
    return sums, peak


def _transposed(rows: Rows, out: Indexes) -> Indexes:
    """The first columns of ``out``, shape (decisions, n), filled with rows (n, decisions)."""
    for start in range(0, len(rows), STRIP):
        strip = rows[start : start + STRIP].copy()
        out[:, start : start + len(strip)] = strip.T
    return out[:, : len(rows)]


def _gather(tables: Sequence[SlotTable], columns: Indexes, sums: Floats, peak: Floats) -> None:
    """Adds to sums (n, costs), and raises the peaks, from the transposed rows, shape (decisions, n)."""
    costs, bytes_ = np.empty_like(sums), np.empty_like(peak)
    index = _Index(columns)
    for when, neighbours in groupby(tables, key=lambda table: table.when):
        present = _present(when, columns)
        for table in neighbours:
            identity = table.identity.take(index.of(table)).astype(np.intp)
            identity &= present
            sums += table.sums.take(identity, axis=0, out=costs, mode="clip")
            np.maximum(peak, table.peak.take(identity, axis=0, out=bytes_, mode="clip"), out=peak)


def _present(when: Sequence[Condition], columns: Indexes) -> NDArray[np.intp]:
    """A mask for identities, shape (n,): all bits where the conditions hold, none where they do not."""
    present = np.full(columns.shape[1], -1, dtype=np.intp)
    for column, allowed in when:
        present &= -np.array(allowed, dtype=np.intp).take(columns[column])
    return present


class _Index:
    """Flat indexes of combinations, each from the longest beginning that it shares with the one before.

    Args:
        columns: The transposed rows, shape (decisions, n).
    """

    def __init__(self, columns: Indexes) -> None:
        self.columns = columns
        self.reads: tuple[int, ...] = ()
        self.beginnings: list[Indexes] = [np.zeros_like(columns[0])]  # of the first 0, 1, … columns read

    def of(self, table: SlotTable) -> Indexes:
        """The index of each candidate's combination, shape (n,)."""
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(self.reads, table.columns, strict=False))
        shared = len(list(alike))
        del self.beginnings[shared + 1 :]
        for column, size in zip(table.columns[shared:], table.sizes[shared:], strict=True):
            index = self.beginnings[-1] * size
            index += self.columns[column]
            self.beginnings.append(index)
        self.reads = table.columns
        return self.beginnings[-1]
