"""Dimensions of compression compared: what each method searches, and what becomes of those that cannot be compared."""

from __future__ import annotations

import pytest

from hwnas.scripts.bench_dimensions import JOINT, alone
from hwnas.search.config import ControllerConfig, SearchConfig, parse_config
from hwnas.spaces.errors import InvalidFileError, UnknownNameError

BITS = {"weight_bits": [4, 32], "act_bits": [8, 32], "edge_bits": [8, 32]}


def config(**changes) -> SearchConfig:
    return parse_config(
        {
            "space": {"model": "tests.spaces.traced.models:DigitsNet", "joint": BITS | {"keep": [0.5, 1.0]}},
            "data": {"name": "digits"},
            "objective": {"metric": "macs", "target_ratio": 0.5},
            "controller": {"name": "evolution", "options": {"population": 9}},
        }
        | changes
    )


def test_a_dimension_alone_is_searched_by_the_files_controller_and_haq_by_its_own() -> None:
    whole = config()
    assert alone(whole, JOINT) == whole
    bits, haq, channels, depth = (alone(whole, name) for name in ("bits", "haq", "channels", "depth"))
    assert bits.space.joint == haq.space.joint == BITS
    assert channels.space.joint == {"keep": [0.5, 1.0]}
    assert depth.space.joint == {}
    assert [own.space.narrow for own in (bits, haq, channels, depth)] == [{"*.present": [True]}] * 3 + [{}]
    assert bits.controller == channels.controller == whole.controller
    assert haq.controller == ControllerConfig(name="ddpg")


def test_what_cannot_be_a_method_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="dimension 'hak'; did you mean 'haq'"):
        alone(config(), "hak")
    narrowed = config().space.model_copy(update={"narrow": {"*.keep": [1.0]}})
    with pytest.raises(InvalidFileError, match=r"leave out space\.narrow"):
        alone(config().model_copy(update={"space": narrowed}), "bits")
