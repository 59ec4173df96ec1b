"""What every option of a space becomes, against the operators of whole networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import pytest

from hwnas.predictors.lowering import lower_space
from hwnas.spaces import Space, load_space
from hwnas.spaces.slot import Slot

from .synthetic import digits_space


def pyramids() -> Space:
    """Its networks have parameters that nothing uses, by which operators do not differ."""
    return load_space("espnetv2", input_shape=(3, 16, 16), num_classes=10, joint=())


def combination(space: Space, slot: int, row: np.ndarray) -> int:
    """Which of a slot's combinations a row means."""
    columns = [space.column(name) for name in space.slots[slot].reads]
    sizes = [len(space.decisions[c].options) for c in columns]
    return int(np.ravel_multi_index(tuple(row[columns]), sizes)) if columns else 0


@pytest.mark.parametrize("make", [digits_space, pyramids])
def test_the_chosen_combinations_are_the_networks_operators(make: Callable[[], Space]) -> None:
    space = make()
    lowering = lower_space(space)
    for row in space.sample(np.random.default_rng(5), 30):
        operators, sums = [], np.zeros(3)
        for i, slot in enumerate(lowering.slots):
            if space.holds(space.slots[i].when, row[None])[0]:
                c = slot.identity[combination(space, i, row)]
                operators += [lowering.operators[o] for o in slot.operator[slot.owner == c]]
                sums += (slot.weight_bytes[c], slot.macs[c], slot.params[c])
        workload = space.workload_of_row(row)
        assert operators == list(workload.operators)
        assert sums.tolist() == [workload.weight_bytes, workload.macs, workload.params]


def test_operators_are_distinct_and_twins_share_their_lowering() -> None:
    space = digits_space()
    lowering = lower_space(space)
    assert len(set(lowering.operators)) == len(lowering.operators)
    kinds = {(s.twin, *(space.decisions[space.column(n)].options for n in s.reads)) for s in space.slots}
    assert len({id(s) for s in lowering.slots}) == len(kinds) < len(space.slots)


def test_a_space_is_lowered_once() -> None:
    assert lower_space(digits_space()) is lower_space(digits_space())


def test_it_makes_no_difference_whether_a_slot_gives_the_same_tuples_again() -> None:
    space = digits_space(("sparsity",))

    def forgetful(slot: Slot) -> Slot:
        return replace(slot, lower=lambda *values: tuple(replace(o) for o in slot.lower(*values)))

    other = Space(
        name="forgetful",
        spec={},
        decisions=space.decisions,
        slots=[forgetful(slot) for slot in space.slots],
        input_shape=space.input_shape,
        num_classes=space.num_classes,
    )
    mine, theirs = lower_space(space), lower_space(other)
    assert mine.operators == theirs.operators
    for one, two in zip(mine.slots, theirs.slots, strict=True):
        assert all(np.array_equal(getattr(one, f.name), getattr(two, f.name)) for f in fields(one))
