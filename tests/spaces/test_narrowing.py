"""Spaces of which some decisions keep only some options."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.spaces.errors import InvalidSpaceError

from .tiny_tables import tiny


def test_narrowing_keeps_options_by_pattern() -> None:
    space = tiny(["bits"], narrow={"s1b*.kernel": [5], "*.project.weight_bits": [8, 32]})
    assert space.fixed["s1b1.kernel"] == space.fixed["s1b2.kernel"] == 5
    assert space.decisions[space.column("s1b1.project.weight_bits")].options == (8, 32)
    assert space.decisions[space.column("s1b1.expand.weight_bits")].options == (4, 7, 8, 32)
    assert {
        o.kernel for o in space.workload_of_row(space.sample(np.random.default_rng(0), 1)[0]).operators if o.depthwise
    } == {5}


@pytest.mark.parametrize(
    ("narrow", "message"),
    [
        ({"s1b*.kernel": [7]}, r"narrow: s1b1.kernel cannot be \[7\]; its options are 3, 5"),
        ({"s9*": [1]}, "narrow: no decision of space 'tiny' matches 's9\\*'"),
        ({"s1b1.kernel": [3], "s1*.kernel": [5]}, "several patterns match s1b1.kernel, and leave it no option"),
    ],
)
def test_narrowing_that_makes_no_sense_is_refused(narrow: dict[str, list[int]], message: str) -> None:
    with pytest.raises(InvalidSpaceError, match=message):
        tiny(narrow=narrow)
