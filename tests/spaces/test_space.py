"""The factor graph, on a space small enough to enumerate: a stack of one or two layers, the second optional."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from hwnas.spaces import Decision, Operator, Slot, Space, When
from hwnas.spaces.canonical import Activity, Alias, Series
from hwnas.spaces.decision import Option
from hwnas.spaces.errors import InvalidCandidateError, InvalidSpaceError, UnknownNameError
from hwnas.spaces.slot import bind
from hwnas.spaces.value import compute

DEEP = When("depth", frozenset({2}))


def layer(name: str, kernel: int, width: int = 8) -> Operator:
    return Operator("conv", width, width, (4, 4), (4, 4), kernel, name=name)


def small_space(*, fixed_depth: int | None = None, keeps: tuple[float, ...] = (0.5, 1.0)) -> Space:
    """Kernels of two layers, where the second layer's exists at depth 2; of width 1 nothing can be cut."""
    depths: tuple[Option, ...] = (1, 2) if fixed_depth is None else (fixed_depth,)
    widths: tuple[Option, ...] = (1, 4)

    def channels(width: int, keep: float) -> int:
        return max(1, int(width * keep))

    def first(name: str, width: int, kernel: int) -> tuple[Operator, ...]:
        return (layer(name, kernel, width),)

    def second(name: str, kernel: int) -> tuple[Operator, ...]:
        return (layer(name, kernel),)

    kept = compute(channels, "width", "keep")
    return Space(
        name="small",
        spec={"name": "small"},
        decisions=[
            Decision("depth", depths),
            Decision("width", widths),
            Decision("keep", keeps),
            Decision("first.kernel", (1, 3)),
            Decision("second.kernel", (1, 3, 5)),
        ],
        slots=[
            Slot("first", (kept, "first.kernel"), first),
            Slot("second", ("second.kernel",), second, (DEEP,)),
        ],
        input_shape=(8, 4, 4),
        num_classes=2,
        activities=[Activity("second.kernel", (DEEP,))],
        aliases=[Alias(("keep",), kept)],
        references={"plain": {"depth": 1, "width": 4, "keep": 1.0, "first.kernel": 3, "second.kernel": 5}},
    )


CHOICE: dict[str, Option] = {"depth": 2, "width": 4, "keep": 1.0, "first.kernel": 3, "second.kernel": 5}


def every_row(space: Space) -> np.ndarray:
    return np.array(list(product(*(range(n) for n in space.sizes))), dtype=np.int16)


def test_sizes() -> None:
    space = small_space()
    assert space.sizes.tolist() == [2, 2, 2, 2, 3]
    assert space.log10_size == pytest.approx(np.log10(48))
    assert len(every_row(space)) == 48


def test_canonical_rows_are_as_many_as_networks() -> None:
    space = small_space()
    canonical = np.unique(space.canonical(every_row(space)), axis=0)
    # (width, keep) is 3 networks, not 4; the second layer is absent or one of three.
    assert len(canonical) == 3 * 2 * (1 + 3)
    networks = {tuple((o, o.name) for o in space.workload_of_row(row).operators) for row in canonical}
    assert len(networks) == len(canonical)


def test_inactive_decisions_take_their_first_option() -> None:
    space = small_space()
    candidate = space.decode(space.encode({**CHOICE, "depth": 1}))
    assert candidate["second.kernel"] == 1
    assert candidate == space.decode(space.encode({**CHOICE, "depth": 1, "second.kernel": 3}))
    assert space.active(space.encode(CHOICE)[None]).all()
    assert space.active(space.encode({**CHOICE, "depth": 1})[None])[0].tolist() == [True, True, True, True, False]


def test_an_alias_takes_its_first_combination() -> None:
    space = small_space()
    assert space.decode(space.encode({**CHOICE, "width": 1}))["keep"] == 0.5
    assert space.decode(space.encode(CHOICE))["keep"] == 1.0


def test_slots_are_concatenated_where_their_conditions_hold() -> None:
    space = small_space()
    assert [o.name for o in space.workload(CHOICE).operators] == ["first", "second"]
    assert [o.kernel for o in space.workload(CHOICE).operators] == [3, 5]
    assert [o.name for o in space.workload({**CHOICE, "depth": 1}).operators] == ["first"]


def test_sampling_is_uniform_over_options() -> None:
    space = small_space()
    rows = space.sample(np.random.default_rng(0), 6000)
    for column in (0, 1, 3):
        assert rows[:, column].mean() == pytest.approx(0.5, abs=0.03)
    deep = rows[rows[:, 0] == 1]
    assert np.bincount(deep[:, 4]) / len(deep) == pytest.approx(1 / 3, abs=0.03)
    assert not rows[rows[:, 0] == 0][:, 4].any()


@pytest.mark.parametrize(
    ("depth", "decisions", "slots"),
    [(1, ["width", "keep", "first.kernel", "second.kernel"], ["first"]),
     (2, ["width", "keep", "first.kernel", "second.kernel"], ["first", "second"])],
)  # fmt: skip
def test_a_decision_of_one_option_is_fixed(depth: int, decisions: list[str], slots: list[str]) -> None:
    space = small_space(fixed_depth=depth)
    assert [d.name for d in space.decisions] == decisions
    assert space.fixed == {"depth": depth}
    assert [s.name for s in space.slots] == slots
    assert all(not s.when for s in space.slots)
    assert [o.name for o in space.workload(CHOICE | {"depth": depth}).operators] == slots
    candidate = {k: v for k, v in CHOICE.items() if k != "depth"}
    assert np.array_equal(space.encode(candidate), space.encode(CHOICE | {"depth": depth}))
    with pytest.raises(InvalidCandidateError, match=f"depth is fixed at {depth} in this space, not {3 - depth}"):
        space.validate(CHOICE | {"depth": 3 - depth})


def test_a_fixed_decision_within_a_slot_and_an_alias_keeps_its_value() -> None:
    space = small_space(keeps=(0.5,))
    assert space.slots[0].reads == ("width", "first.kernel")
    choice = {k: v for k, v in CHOICE.items() if k != "keep"}
    assert space.workload(choice).operators[0].in_channels == 2
    assert np.array_equal(space.canonical(every_row(space)[-1:])[0], space.encode(choice | {"width": 4}))


def test_errors_name_the_nearest() -> None:
    space = small_space()
    with pytest.raises(
        UnknownNameError, match=r"unknown decision of space 'small': 'first.kernl'; did you mean 'first.k"
    ):
        space.validate(CHOICE | {"first.kernl": 3})
    with pytest.raises(UnknownNameError, match=r"'first.kernel'"):
        space.column("frist.kernel")
    with pytest.raises(
        UnknownNameError, match="unknown reference network of space 'small': 'plan'; did you mean 'plain'"
    ):
        space.reference("plan")


def test_unknown_names_are_key_errors_that_read_well() -> None:
    with pytest.raises(KeyError) as caught:
        small_space().column("zzz")
    assert str(caught.value) == (
        "unknown decision of space 'small': 'zzz' (known: depth, first.kernel, keep, second.kernel, width)"
    )


def test_a_bad_value_is_named_with_its_options() -> None:
    with pytest.raises(InvalidCandidateError, match=r"second.kernel cannot be 7; its options are 1, 3, 5"):
        small_space().validate(CHOICE | {"second.kernel": 7})


def test_missing_decisions_are_counted() -> None:
    with pytest.raises(InvalidCandidateError, match=r"does not decide 'width' \(4 missing in all\)"):
        small_space().validate({"depth": 1})


def test_a_reference_is_canonical() -> None:
    space = small_space()
    assert space.reference()["second.kernel"] == 1


def test_two_decisions_of_one_name_are_refused() -> None:
    for options in ((1, 2), (1,)):
        with pytest.raises(InvalidSpaceError, match="two decisions of the same name"):
            Space(
                name="twice", spec={}, decisions=[Decision("a", (1, 2)), Decision("a", options)], slots=[],
                input_shape=(1, 8, 8), num_classes=2,
            )  # fmt: skip


def test_a_switch_switches_off_what_depends_on_it() -> None:
    space = Space(
        name="chain",
        spec={},
        decisions=[Decision("a", (0, 1)), Decision("b", (0, 1)), Decision("c", (0, 1))],
        slots=[],
        input_shape=(1, 8, 8),
        num_classes=2,
        activities=[
            Activity("b", (When("a", frozenset({1})),)),
            Activity("c", (When("a", frozenset({1})), When("b", frozenset({1})))),
        ],
    )
    rows = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 1]], dtype=np.int16)
    assert space.canonical(rows).tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]


def test_binding_fills_in_values_at_their_places() -> None:
    def lower(name: str, a: int, b: int, c: int) -> tuple[Operator, ...]:
        return (layer(f"{name}{a}{b}{c}", 1),)

    slot = Slot("slot.part", ("a", "b", "c"), lower, (When("d", frozenset({2, 3})),))
    bound = bind(slot, {"b": 7})
    assert bound is not None
    assert bound.reads == ("a", "c")
    assert bound.operators({"a": 1, "c": 2})[0].name == "slot172"
    assert bound.when == slot.when
    again, other = bind(replace(slot, name="x.part"), {"b": 7}), bind(slot, {"b": 8})
    assert again is not None
    assert other is not None
    assert again.twin == bound.twin, "slots differ in name alone"
    assert other.twin != bound.twin, "slots fixed differently are no twins"
    assert bind(slot, {"d": 1}) is None
    kept = bind(slot, {"d": 3})
    assert kept is not None
    assert kept.when == ()


def chain(options: tuple[Option, ...] = ("a", "b", "skip")) -> Space:
    """Three blocks in a row, each of which has bits and may be skipped."""
    decisions = [d for i in "123" for d in (Decision(f"{i}.op", options, ordinal=False), Decision(f"{i}.bits", (4, 8)))]
    there = frozenset(options) - {"skip"}
    return Space(
        name="chain",
        spec={},
        decisions=decisions,
        slots=[],
        input_shape=(1, 8, 8),
        num_classes=2,
        activities=[Activity(f"{i}.bits", (When(f"{i}.op", there),)) for i in "123"],
        series=[Series(tuple((f"{i}.op", f"{i}.bits") for i in "123"), (0, "skip"))],
    )


def test_skipped_blocks_come_last_and_the_others_keep_their_order() -> None:
    space = chain()
    rows = np.array([[2, 1, 1, 1, 0, 0], [1, 0, 2, 1, 0, 1], [2, 0, 2, 1, 2, 1], [0, 1, 1, 0, 1, 1]], dtype=np.int16)
    assert space.canonical(rows).tolist() == [
        [1, 1, 0, 0, 2, 0],
        [1, 0, 0, 1, 2, 0],
        [2, 0, 2, 0, 2, 0],
        [0, 1, 1, 0, 1, 1],
    ]
    networks = {tuple(row) for row in space.canonical(every_row(space)).tolist()}
    assert len(networks) == 1 + 4 + 4**2 + 4**3, "four kinds of block, in rows of none to three"


def test_blocks_of_different_options_are_not_interchangeable() -> None:
    with pytest.raises(InvalidSpaceError, match=r"need the same options, but '1.op' and its like differ"):
        Space(
            name="odd", spec={}, slots=[], input_shape=(1, 8, 8), num_classes=2,
            decisions=[Decision("1.op", ("a", "skip"), ordinal=False), Decision("2.op", ("b", "skip"), ordinal=False)],
            series=[Series((("1.op",), ("2.op",)), (0, "skip"))],
        )  # fmt: skip
