"""Stage tables that are refused, and why."""

from __future__ import annotations

from typing import Any

import pytest

from hwnas.spaces.errors import InvalidFileError

from .tiny_tables import tiny


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": []}, "space tiny: stages: .*at least 1 item"),
        ({"stages": [{"channels": 0}]}, r"stages.0.channels.*greater than or equal to 1 \(got 0\)"),
        (
            {"stages": [{"channels": 8, "kernal": 3}]},
            "stages.0.kernal: .*; did you mean 'kernel'",
        ),
        ({"stages": [{"channels": 8, "kernel": 4}]}, "stages.0.kernel"),
        ({"stem": {"kernel": 3}}, "stem.channels: this key is missing"),
        ({"classifier": {"in": 64}}, r"the classifier reads 64 channels, but \[32\] are written before it"),
        ({"references": 3}, "references must be stage tables by name"),
    ],
)
def test_tables_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidFileError, match=message):
        tiny(**changes)


def test_keys_that_would_be_ignored_are_refused() -> None:
    with pytest.raises(InvalidFileError, match="give either block or expansion, kernel"):
        tiny(blocks={"a": {}}, stages=[{"block": ["a"], "kernel": 7, "expansion": 4, "channels": 8}])
    with pytest.raises(InvalidFileError, match="input and classifier are keys of a network"):
        tiny(input=[3, 224, 224])
