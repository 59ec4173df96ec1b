"""Options of the compression decisions."""

from __future__ import annotations

from typing import Any

import pytest

from hwnas.spaces.errors import HwnasError, InvalidFileError, InvalidSpaceError, UnknownNameError
from hwnas.spaces.joint import Joint, sparsity_of


def test_dimensions_have_default_options() -> None:
    assert Joint.of([]) == Joint()
    joint = Joint.of(["bits", "density"])
    assert joint.weight_bits == (4, 7, 8, 32)
    assert joint.density == ("2:4", 0.5, 1.0)
    assert joint.keep == joint.rank == (1.0,)


def test_options_can_be_given_of_each_kind() -> None:
    joint = Joint.of({"weight_bits": [8, 2, 32], "keep": [1, 0.25], "density": ["1:4", 1.0]})
    assert joint.weight_bits == (2, 8, 32)
    assert joint.keep == (0.25, 1)
    assert joint.density == ("1:4", 1.0)
    assert Joint.of({"density": [1.0, 0.5, "2:4", 0.25]}).density == (0.25, "2:4", 0.5, 1.0), "dense comes last"
    assert joint.act_bits == (32,)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (["bit"], UnknownNameError, "joint dimension 'bit'; did you mean 'bits'"),
        ("bits", InvalidFileError, "joint must be a list of dimensions"),
        ({"weight_bit": [8]}, UnknownNameError, "did you mean 'weight_bits'"),
        ({"weight_bits": 8}, InvalidSpaceError, "joint.weight_bits must be a list of options, got 8"),
        ({"weight_bits": []}, InvalidSpaceError, "joint.weight_bits must be a list"),
        ({"weight_bits": [16]}, InvalidSpaceError, "whole numbers from 2 to 8, or 32 for float32, got 16"),
        ({"act_bits": [1]}, InvalidSpaceError, "from 2 to 8"),
        ({"act_bits": [True]}, InvalidSpaceError, "from 2 to 8"),
        ({"keep": [0.0]}, InvalidSpaceError, "shares above 0 and up to 1, got 0.0"),
        ({"rank": [1.5]}, InvalidSpaceError, "shares above 0"),
        ({"rank": [0.5, 0.5]}, InvalidSpaceError, "repeats an option"),
        ({"density": ["4:2"]}, InvalidSpaceError, "patterns such as 2:4, got '4:2'"),
        ({"density": ["02:4"]}, InvalidSpaceError, "patterns such as 2:4"),
        ({"density": ["half"]}, InvalidSpaceError, "patterns such as 2:4"),
    ],
)
def test_options_that_make_no_sense_are_refused(given: Any, error: type[HwnasError], message: str) -> None:
    with pytest.raises(error, match=message):
        Joint.of(given)


@pytest.mark.parametrize(
    ("option", "meaning"), [(1.0, (1.0, 0)), (0.25, (0.25, 0)), ("2:4", (0.5, 4)), ("1:8", (0.125, 8))]
)
def test_sparsity_of(option: Any, meaning: tuple[float, int]) -> None:
    assert sparsity_of(option) == meaning
