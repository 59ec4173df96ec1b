"""The operators behind every option of a space, and what they cost on any device: enumerated once for each space."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from hwnas.spaces.operator import Operator
from hwnas.spaces.slot import Slot
from hwnas.spaces.space import Space

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SlotLowering:
    """One slot for every combination of the options that it reads, in the order of `itertools.product`.

    Attributes:
        operator: Indexes into `SpaceLowering.operators`, of all combinations' operators one after the other.
        owner: The combination that each of them belongs to.
        weight_bytes, macs, params: Sums over a combination's operators, shape (combinations,).
        peak: Largest activation bytes while one of them runs, shape (combinations,).
    """

    operator: NDArray[np.int32]
    owner: NDArray[np.int32]
    weight_bytes: Floats
    macs: Floats
    params: Floats
    peak: Floats


@dataclass(frozen=True, slots=True)
class SpaceLowering:
    """All distinct operators of a space, and each slot's share of them."""

    operators: tuple[Operator, ...]
    slots: tuple[SlotLowering, ...]


@lru_cache(maxsize=2)
def lower_space(space: Space) -> SpaceLowering:
    """Lowers every combination of every slot. Twin slots (see `Slot.twin`) are lowered once."""
    index: dict[Operator, int] = {}
    lowered: dict[Hashable, SlotLowering] = {}
    slots = []
    for slot in space.slots:
        options = tuple(space.decisions[space.column(name)].options for name in slot.reads)
        key = slot.name if slot.twin is None else (slot.twin, options)
        if key not in lowered:
            lowered[key] = _lower_slot(slot, options, index)
        slots.append(lowered[key])
    return SpaceLowering(tuple(index), tuple(slots))


def _lower_slot(slot: Slot, options: tuple[tuple[object, ...], ...], index: dict[Operator, int]) -> SlotLowering:
    combinations = [slot.lower(*values) for values in product(*options)]
    flat = [o for operators in combinations for o in operators]
    owner = np.repeat(np.arange(len(combinations), dtype=np.int32), [len(operators) for operators in combinations])
    # Bytes and parameters depend on parts of an operator that do not count for equality: see `Operator.affine`.
    costs = np.array([(o.weight_bytes, o.macs, o.params, o.live_bytes) for o in flat], dtype=np.float64).reshape(-1, 4)
    sums = np.zeros((len(combinations), 3))
    np.add.at(sums, owner, costs[:, :3])
    peak = np.zeros(len(combinations))
    np.maximum.at(peak, owner, costs[:, 3])
    operator = np.array([index.setdefault(o, len(index)) for o in flat], dtype=np.int32)
    return SlotLowering(operator, owner, sums[:, 0], sums[:, 1], sums[:, 2], peak)
