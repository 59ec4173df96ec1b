"""A space of one stage, small enough to think through."""

from __future__ import annotations

from typing import Any

from hwnas.spaces import Space
from hwnas.spaces.catalog import space_from_spec

MBCONV = {"kernel": 3, "expansion": 6, "repeats": 1, "stride": 1}
TINY: dict[str, Any] = {
    "stem": {"kernel": 3, "channels": 8, "stride": 1},
    "stages": [{**MBCONV, "channels": [8, 16], "kernel": [3, 5], "repeats": [1, 2], "stride": 2}],
    "head": {"kernel": 1, "channels": 32},
}


def tiny(joint: Any = (), **changes: Any) -> Space:
    """One stage of one or two blocks."""
    data = {"name": "tiny", "input_shape": [3, 8, 8], "num_classes": 10, "joint": joint}
    return space_from_spec({**data, **TINY, **changes})
