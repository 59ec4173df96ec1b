"""Spaces by name and from files, and what is said about specs that make no sense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hwnas.spaces import load_space
from hwnas.spaces.catalog import space_from_spec
from hwnas.spaces.errors import HwnasError, InvalidFileError, InvalidSpaceError, UnknownNameError

SPEC: dict[str, Any] = {"name": "mbconv", "input_shape": [1, 8, 8], "num_classes": 10, "joint": ["bits"]}


def test_a_space_is_rebuilt_from_its_spec() -> None:
    space = load_space("mbconv", input_shape=(3, 32, 32), num_classes=7, joint=("rank",))
    again = space_from_spec(json.loads(json.dumps(space.spec)))
    assert again.spec == space.spec
    assert again.decisions == space.decisions
    assert again.workload(again.reference()) == space.workload(space.reference())
    assert again.num_classes == 7


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".json"])
def test_a_file_says_what_arguments_do_not(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"space{suffix}"
    path.write_text(json.dumps(SPEC | {"narrow": {"s1b1.kernel": [3]}}))  # JSON is YAML
    assert load_space(str(path)).spec == SPEC | {"narrow": {"s1b1.kernel": [3]}}
    space = load_space(str(path), input_shape=(3, 16, 16), joint=["rank"], narrow={"s2b1.kernel": [5]})
    assert space.spec == {
        "name": "mbconv", "input_shape": [3, 16, 16], "num_classes": 10, "joint": ["rank"],
        "narrow": {"s1b1.kernel": [3], "s2b1.kernel": [5]},
    }  # fmt: skip


def test_keys_left_out_take_their_defaults(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("name: mbconv\nnum_classes: 5\n")
    space = load_space(str(path))
    assert space.spec == {
        "name": "mbconv",
        "input_shape": [3, 224, 224],
        "num_classes": 5,
        "joint": ["bits", "sparsity", "rank"],
    }


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"name": "mbcnv"}, UnknownNameError, "unknown space 'mbcnv'; did you mean 'mbconv'"),
        ({"name": None}, UnknownNameError, "unknown space 'None'"),
        ({"inputshape": [1, 8, 8]}, UnknownNameError, "'inputshape'; did you mean 'input_shape'"),
        ({"joint": ["bit"]}, UnknownNameError, "unknown joint dimension 'bit'; did you mean 'bits'"),
        (
            {"joint": ["bits", 3]},
            UnknownNameError,
            r"unknown joint dimension '3' \(known: bits, density, rank, sharing, sparsity\)",
        ),
        ({"joint": "bits"}, InvalidFileError, "joint must be a list"),
        ({"joint": None}, InvalidFileError, "joint must be a list"),
        ({"input_shape": [8, 8]}, InvalidSpaceError, r"sides from 8 to 512, got \[8, 8\]"),
        ({"input_shape": [1, 7, 8]}, InvalidSpaceError, "input_shape"),
        ({"input_shape": [1, 8, 513]}, InvalidSpaceError, "input_shape"),
        ({"input_shape": [0, 8, 8]}, InvalidSpaceError, "input_shape"),
        ({"input_shape": [1, 8.0, 8]}, InvalidSpaceError, "input_shape"),
        ({"input_shape": [1, "8", 8]}, InvalidSpaceError, "input_shape"),
        ({"input_shape": "188"}, InvalidSpaceError, "input_shape"),
        ({"input_shape": None}, InvalidSpaceError, "input_shape"),
        ({"num_classes": 1}, InvalidSpaceError, "num_classes must be a whole number of at least 2, got 1"),
        ({"num_classes": "10"}, InvalidSpaceError, "num_classes"),
        ({"num_classes": 10.5}, InvalidSpaceError, "num_classes"),
    ],
)
def test_bad_specs(change: dict[str, Any], error: type[HwnasError], message: str) -> None:
    with pytest.raises(error, match=message):
        space_from_spec({**SPEC, **change})


@pytest.mark.parametrize(
    ("name", "narrow", "message"),
    [
        ("fbnet", {"*.block": None}, "narrow must be lists of options"),
        ("fbnet", {"*.block": "skip"}, "narrow must be lists of options"),
        ("fbnet", ["a"], "narrow must be lists of options"),
        (":join", None, "cannot be imported"),
        ("os:path", None, "is no function"),
        ("os:getcwdb", None, "is no maker of spaces"),
    ],
)
def test_arguments_that_make_no_sense(name: str, narrow: Any, message: str) -> None:
    with pytest.raises(HwnasError, match=message):
        load_space(name, narrow=narrow)


def test_arguments_are_checked_as_files_are() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'sparsity'"):
        load_space("mbconv", joint=("sparcity",))
    with pytest.raises(InvalidSpaceError, match="input_shape"):
        load_space("mbconv", input_shape=(3, 4, 4))


def test_a_missing_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match="there is no file"):
        load_space(str(tmp_path / "nothing.yaml"))


@pytest.mark.parametrize("joint", [["rank", "bits"], ["bits", "rank", "bits"]])
def test_the_order_of_joint_dimensions_does_not_make_another_space(joint: list[str]) -> None:
    spec = space_from_spec({**SPEC, "joint": joint}).spec
    assert spec == space_from_spec({**SPEC, "joint": ["bits", "rank"]}).spec


def test_a_boolean_is_no_number_of_channels() -> None:
    with pytest.raises(InvalidSpaceError, match="input_shape"):
        space_from_spec({**SPEC, "input_shape": [True, 8, 8]})
