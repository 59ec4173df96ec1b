"""The operators behind every option of a space, and what they cost on any device: enumerated once for each space."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hwnas.predictors.folds import Fold, fold
from hwnas.spaces.operator import Affine, Operator
from hwnas.spaces.slot import Slot
from hwnas.spaces.space import Rows, Space
from hwnas.spaces.value import Choice, Value, reads
from hwnas.spaces.value_table import Options, combine

Floats = NDArray[np.float64]
Key = tuple[tuple[int, Affine, int, int, int], ...]
"""What a slot lowers to. Bytes and parameters depend on parts of an operator that do not count for its equality."""


@dataclass(frozen=True, slots=True)
class SlotLowering:
    """What one slot lowers to, for every combination of the options of its `SpaceLowering.columns`.

    Many combinations lower alike; each different result is an identity.

    Attributes:
        identity: Of each combination, in the order of `itertools.product`, shape (combinations,).
        operator: Indexes into `SpaceLowering.operators`, of all identities' operators one after the other.
        owner: The identity that each of them belongs to.
        held: Bytes that each of them leaves allocated for later ones.
        weight_bytes, macs, params: Sums over an identity's operators, shape (identities,).
        peak: Largest activation bytes while one of them runs, by the tensors' lifetimes, shape (identities,).
    """

    identity: NDArray[np.int32]
    operator: NDArray[np.int32]
    owner: NDArray[np.int32]
    held: Floats
    weight_bytes: Floats
    macs: Floats
    params: Floats
    peak: Floats


@dataclass(frozen=True, slots=True)
class SpaceLowering:
    """All distinct operators of a space, and each slot's share of them.

    Attributes:
        operators: The operators.
        slots: Of each slot.
        columns: Of each slot, the columns of `extended` rows whose options its combinations are made of.
        sizes: How many options each of these columns has, shape (decisions + folds,).
        folds: What the columns behind those of decisions hold.
    """

    operators: tuple[Operator, ...]
    slots: tuple[SlotLowering, ...]
    columns: tuple[tuple[int, ...], ...]
    sizes: NDArray[np.int64]
    folds: tuple[Fold, ...]

    def extended(self, rows: Rows) -> Rows:
        """Rows (n, decisions) with a column for each fold behind."""
        if not self.folds:
            return rows
        return np.column_stack([rows, *(f.of_rows(rows) for f in self.folds)]).astype(rows.dtype, copy=False)


@dataclass(frozen=True, slots=True)
class _Likeness:
    """A space, equal to those that lower alike, such as when a run is opened again."""

    key: Hashable
    space: Space = field(compare=False)


def lower_space(space: Space) -> SpaceLowering:
    """Lowers every combination of every slot. Twin slots (see `Slot.twin`) are lowered once, as are equal spaces."""
    decisions = tuple((d, tuple(map(type, d.options))) for d in space.decisions)
    slots = tuple((slot.group, slot.values, slot.twin) for slot in space.slots)
    return _lower_space(_Likeness((decisions, slots), space))


@lru_cache(maxsize=2)
def _lower_space(likeness: _Likeness) -> SpaceLowering:
    space = likeness.space
    index: dict[Operator, int] = {}
    lowered: dict[Hashable, SlotLowering] = {}
    folds: dict[Value, Fold | None] = {}
    slots, columns = [], []
    for slot in space.slots:
        options = {name: space.decisions[space.column(name)].options for name in slot.reads}
        values = list(slot.values)
        for place, v in enumerate(values):
            others = set(reads(*values[:place], *values[place + 1 :]))
            if others.isdisjoint(reads(v)):
                if v not in folds:
                    folds[v] = fold(v, space, f"fold {len(folds)}")
                if (found := folds[v]) is not None:
                    values[place] = Choice(found.name)
                    options[found.name] = found.values
        own = {name: options[name] for name in reads(*values)}
        key = (slot.twin, *own.values())
        if key not in lowered:
            lowered[key] = _lower_slot(slot, values, own, index)
        slots.append(lowered[key])
        columns.append(tuple(own))
    kept = [f for f in folds.values() if f is not None]
    numbers = {d.name: i for i, d in enumerate(space.decisions)}
    numbers |= {f.name: len(numbers) + i for i, f in enumerate(kept)}
    return SpaceLowering(
        tuple(index),
        tuple(slots),
        tuple(tuple(numbers[name] for name in names) for names in columns),
        np.array([*space.sizes, *(len(f.values) for f in kept)]),
        tuple(kept),
    )


def _lower_slot(
    slot: Slot, values: Sequence[Value], options: Mapping[str, Options], index: dict[Operator, int]
) -> SlotLowering:
    combinations, arguments = combine(values, tuple(options), options)
    kinds: list[int] = []
    distinct: dict[Key, tuple[Operator, ...]] = {}
    number: dict[Key, int] = {}
    for given in arguments:
        operators = tuple(o for o in slot.lower(slot.group, *given) if o.kind != "identity")
        key = tuple((index.setdefault(o, len(index)), o.affine, o.held_bytes, o.unused, o.shared) for o in operators)
        kinds.append(number.setdefault(key, len(number)))
        distinct.setdefault(key, operators)
    owner = np.repeat(np.arange(len(distinct), dtype=np.int32), [len(key) for key in distinct])
    costs = [
        (o.weight_bytes, o.macs, o.params, o.live_bytes, o.held_bytes)
        for operators in distinct.values()
        for o in operators
    ]
    table = np.array(costs, dtype=np.float64).reshape(-1, 5)
    sums = np.zeros((len(distinct), 3))
    np.add.at(sums, owner, table[:, :3])
    peak = np.zeros(len(distinct))
    np.maximum.at(peak, owner, table[:, 3])
    operator = np.array([i for key in distinct for i, *_ in key], dtype=np.int32)
    return SlotLowering(
        np.array(kinds, dtype=np.int32)[combinations].ravel(),
        operator, owner, table[:, 4], sums[:, 0], sums[:, 1], sums[:, 2], peak,
    )  # fmt: skip
