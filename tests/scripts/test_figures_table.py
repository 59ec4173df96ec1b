"""Figures as a table."""

from __future__ import annotations

import pytest

from hwnas.scripts.figures_table import print_figures


def test_a_row_per_way_and_a_column_per_figure(capsys: pytest.CaptureFixture[str]) -> None:
    print_figures(
        {"ours": {"median_error": 0.12345, "networks": 15625}, "line": {"tau": 0.5, "exact": False}}, "errors"
    )
    out, err = capsys.readouterr()
    assert out == ""
    lines = [" ".join(line.replace("│", " ").replace("┃", " ").split()) for line in err.splitlines()]
    assert lines[0] == "errors"
    assert "median error networks tau exact" in lines
    assert "ours 0.1235 15,625" in lines
    assert "line 0.5 no" in lines
