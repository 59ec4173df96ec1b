"""The spaces that CONTRIBUTING.md describes, taken from there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hwnas.spaces import load_space
from hwnas.spaces.catalog import space_from_spec
from hwnas.spaces.errors import InvalidSpaceError

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def block(language: str, first: str) -> str:
    """The code block of a language that begins so."""
    found = re.search(rf"```{language}\n({re.escape(first)}.*?)```", TEXT, re.DOTALL)
    assert found is not None
    return found[1]


def test_a_stage_table(tmp_path: Path) -> None:
    path = tmp_path / "my_space.yaml"
    path.write_text(block("yaml", "act: relu6"))
    space = load_space(str(path), input_shape=(3, 32, 32), num_classes=10, joint=())
    workload = space.workload(space.reference("small"))
    assert [o.out_channels for o in workload.operators if o.name.endswith(("project", "head"))] == [
        16,
        24,
        24,
        48,
        48,
        128,
    ]
    assert workload.operators[0].macs == 3 * 16 * 9 * 32 * 32
    assert space_from_spec(space.spec).decisions == space.decisions


def test_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_spaces.py").write_text(block("python", '"""Tiny:'))
    monkeypatch.syspath_prepend(str(tmp_path))
    space = load_space("my_spaces:tiny", input_shape=(3, 8, 8), num_classes=10, joint=())
    assert 10**space.log10_size == pytest.approx(4 * 2 * 3 * 3**3)
    workload = space.workload(space.reference("plain"))
    assert workload.macs == 9 * 64 * (3 * 16 + 16 * 16 + 16 * 16) + 16 * 10
    with pytest.raises(InvalidSpaceError, match=r"'my_spaces:tinny' cannot be imported: .* no attribute 'tinny'"):
        load_space("my_spaces:tinny")
    with pytest.raises(
        InvalidSpaceError, match="'nothing_here:tiny' cannot be imported: No module named 'nothing_here'"
    ):
        load_space("nothing_here:tiny")
