"""The command as a fixture."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwnas.scripts.cli import main
from tests.search.fixtures import registered

from .command import Answer, Hwnas


@pytest.fixture
def hwnas(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Hwnas:
    """Runs the command in this process, in an empty folder, in a wide terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("HWNAS_DEVICES", str(tmp_path / "no devices"))

    def call(*arguments: str | Path) -> Answer:
        monkeypatch.setattr(sys, "argv", ["hwnas", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return call


@pytest.fixture
def devices(hwnas: Hwnas, tmp_path: Path) -> Iterator[Path]:
    """The synthetic device is registered."""
    with registered(tmp_path / "devices") as folder:
        yield folder
