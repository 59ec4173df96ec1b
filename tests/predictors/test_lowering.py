"""What every option of a space becomes, against the operators of whole networks."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from hwnas.predictors.lowering import lower_space
from hwnas.spaces import Space
from hwnas.spaces.slot import Slot

from .synthetic import digits_space


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
