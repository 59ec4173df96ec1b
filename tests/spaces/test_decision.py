"""Decisions validate themselves, and find their options."""

from __future__ import annotations

import pytest

from hwnas.spaces import Decision
from hwnas.spaces.decision import Option
from hwnas.spaces.errors import InvalidCandidateError, InvalidSpaceError


@pytest.mark.parametrize(
    ("options", "ordinal", "message"),
    [
        ((), True, "'s1.depth' has no options"),
        ((3, 5, 3), True, "repeats an option"),
        (("a", "a"), False, "repeats an option"),
        ((5, 3), True, "needs increasing numbers"),
        ((1, "two"), True, "needs increasing numbers"),
    ],
)
def test_senseless_options_are_refused(options: tuple[Option, ...], ordinal: bool, message: str) -> None:
    with pytest.raises(InvalidSpaceError, match=message):
        Decision("s1.depth", options, ordinal)


def test_categories_need_no_order() -> None:
    decision = Decision("act", ("relu", "hswish", "gelu"), ordinal=False)
    assert [decision.index(o) for o in decision.options] == [0, 1, 2]


def test_an_option_is_found_by_value() -> None:
    decision = Decision("keep", (0.5, 0.75, 1.0))
    assert [decision.index(v) for v in (0.5, 0.75, 1.0, 1)] == [0, 1, 2, 2]


def test_a_boolean_is_not_a_number() -> None:
    with pytest.raises(InvalidCandidateError):
        Decision("depth", (1, 2)).index(True)
    with pytest.raises(InvalidCandidateError):
        Decision("se", (False, True)).index(1)
    assert Decision("se", (False, True)).index(True) == 1


@pytest.mark.parametrize("value", [4, 3.5, "3", None, [3], float("nan")])
def test_any_other_value_is_refused_with_the_options(value: Option) -> None:
    with pytest.raises(InvalidCandidateError, match=r"kernel cannot be .*; its options are 3, 5, 7"):
        Decision("kernel", (3, 5, 7)).index(value)


def test_options_are_described_as_short_fractions() -> None:
    assert Decision("keep", (0.25, 1 / 3, 1.0)).describe_options() == "1/4, 1/3, 1.0"


def test_decisions_are_values() -> None:
    assert Decision("k", (3, 5)) == Decision("k", (3, 5)) != Decision("k", (3, 7))
    assert len({Decision("k", (3, 5)), Decision("k", (3, 5))}) == 1
