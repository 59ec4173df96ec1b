"""What the slots of every space cost; part of `SpaceContract`."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hwnas.predictors.lowering import lower_space
from hwnas.spaces import Space
from hwnas.spaces.variation import sample_coherent

MOST_ENTRIES = 400_000
"""Entries of all tables of a space that are made within seconds."""


def entries(space: Space) -> int:
    """Combinations of options behind all slots that differ."""
    slots = {
        (slot.twin, tuple(len(space.decisions[space.column(n)].options) for n in slot.reads)) for slot in space.slots
    }
    return sum(math.prod(sizes) for _, sizes in slots)


class CostContract:
    """Wants the fixtures ``space`` and ``rng``."""

    def test_slots_cost_what_the_workload_costs(self, space: Space, rng: np.random.Generator) -> None:
        if entries(space) > MOST_ENTRIES:
            pytest.skip("the tables take minutes; the space with fewer joint dimensions is tried")
        lowering = lower_space(space)
        rows = np.concatenate(
            [space.sample(rng, 12), sample_coherent(space, rng, 4), space.encode(space.reference())[None]]
        )
        for row, extended in zip(rows, lowering.extended(rows), strict=True):
            operators, sums, peaks = [], np.zeros(3), []
            for slot, own, columns in zip(space.slots, lowering.slots, lowering.columns, strict=True):
                if not space.holds(slot.when, row[None])[0]:
                    continue
                chosen = tuple(extended[list(columns)])
                c = own.identity[np.ravel_multi_index(chosen, lowering.sizes[list(columns)]) if chosen else 0]
                operators += [lowering.operators[o] for o in own.operator[own.owner == c]]
                sums += (own.weight_bytes[c], own.macs[c], own.params[c])
                peaks.append(own.peak[c])
            workload = space.workload_of_row(row)
            assert operators == list(workload.operators)
            assert sums.tolist() == [workload.weight_bytes, workload.macs, workload.params]
            assert max(peaks) == workload.peak_memory_bytes
