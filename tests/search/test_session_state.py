"""A damaged state of the controller is an error that says what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hwnas.spaces.errors import InvalidFileError

from .sessions import open_session


def valid_state(folder: Path) -> dict[str, Any]:
    session = open_session(folder)
    session.next()
    state: dict[str, Any] = json.loads((folder / "controller.json").read_text())
    return state


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: json.dumps(state)[:-20],
        lambda state: "",
        lambda state: "[]",
        lambda state: "null",
        lambda state: json.dumps({k: v for k, v in state.items() if k != "told"}),
        lambda state: json.dumps(state | {"controller": {}}),
        lambda state: json.dumps(state | {"controller": state["controller"] | {"rng": {"bit_generator": "MT19937"}}}),
        lambda state: json.dumps(state | {"controller": state["controller"] | {"results": {"rows": [1, 2]}}}),
        lambda state: json.dumps(state | {"told": 3}),
        lambda state: json.dumps(state | {"told": -1}),
        lambda state: json.dumps(state | {"asked": "zero"}),
        lambda state: json.dumps(state | {"asked": []}),
        lambda state: json.dumps(state | {"asked": 2}),
    ],
)
def test_a_damaged_state_is_an_error_that_says_what_to_do(
    damage: Callable[[dict[str, Any]], str], tmp_path: Path
) -> None:
    (tmp_path / "controller.json").write_text(damage(valid_state(tmp_path)))
    with pytest.raises(InvalidFileError, match=r"controller\.json cannot be restored .*delete it"):
        open_session(tmp_path)


def test_bytes_that_are_no_text_are_a_damaged_state_too(tmp_path: Path) -> None:
    valid_state(tmp_path)
    (tmp_path / "controller.json").write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(InvalidFileError, match="cannot be restored"):
        open_session(tmp_path)


def test_the_state_of_another_controller_is_a_damaged_state(tmp_path: Path) -> None:
    open_session(tmp_path, "random").next()
    with pytest.raises(InvalidFileError, match="cannot be restored"):
        open_session(tmp_path, "evolution")
