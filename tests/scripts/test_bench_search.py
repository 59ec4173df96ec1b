"""`hwnas bench search` on a table made up by a formula."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hwnas.scripts import bench_search
from hwnas.scripts.bench_search import Task, Trace, run_task, search_figures
from hwnas.scripts.search_figures import FLOOR, print_table, regret_chart
from hwnas.search import Controller, Objective
from hwnas.search.evaluators.table import read_benchmark
from hwnas.spaces import Space
from hwnas.spaces.blocks.cell_form import CONV1, CONV3, NONE, OPERATIONS, Cell, write_cell
from hwnas.spaces.errors import InvalidFileError
from hwnas.spaces.space import Rows
from tests.search.browser import find_browser, missing_charts, open_page, remote_loads

from .command import Hwnas

COST = "toy_latency_ms"
CELLS = list(product(OPERATIONS, repeat=6))


def toy_columns() -> dict[str, Any]:
    """Each wide convolution takes 2 ms and adds 10 %, each narrow one 1 ms and 6 %; without any, 1 ms and 20 %."""
    wide, narrow = (np.array([cell.count(kind) for cell in CELLS]) for kind in (CONV3, CONV1))
    return {
        "arch": [write_cell(cell) for cell in CELLS],
        "accuracy": 20.0 + 10 * wide + 6 * narrow,
        COST: 1.0 + 2 * wide + narrow,
    }


def write(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("table") / "toy.parquet", toy_columns())


def trace(*regret: float, seconds: float = 0.0) -> Trace:
    return Trace(np.array(regret), seconds)


class Scripted(Controller):
    """Proposes what the test says, in that order."""

    cells: ClassVar[list[Cell]] = []

    def propose(self) -> Rows:
        cell = self.cells[len(self.results)]
        return np.array([[OPERATIONS.index(operation) for operation in cell]], dtype=np.int16)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(name: str, space: Space, objective: Objective, seed: int = 0) -> Controller:
        return Scripted(space, objective, seed)

    monkeypatch.setattr(bench_search, "make_controller", make)


@pytest.mark.usefixtures("scripted")
def test_the_regret_of_a_front_is_the_share_of_the_hypervolume_that_is_missing(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 15,625 cells 150 cost more than 9 ms: that is the 99th percentile, where the hypervolume ends.

    A narrow convolution adds 6 % per ms, a wide one 5 %: the front has up to six narrow ones at 1 to 7 ms, then a wide
    one in place of a narrow one at 8 ms.
    """
    best = 0.10 * 8 + 0.06 * (7 + 6 + 5 + 4 + 3 + 2) + 0.04 * 1
    cells = [
        (NONE,) * 6,  # 20 % at 1 ms
        (CONV1,) * 6,  # 56 % at 7 ms
        (CONV3,) * 6,  # 80 % at 13 ms, which is beyond the end
        (NONE,) * 5 + (CONV1,),  # 26 % at 2 ms: between 20 and 26 % up to 7 ms
        (NONE,) * 5 + (CONV3,),  # 30 % at 3 ms: between 26 and 30 % up to 7 ms
    ]
    monkeypatch.setattr(Scripted, "cells", cells)
    regret = run_task(Task(table, COST, "scripted", 0, 5)).regret
    worth = np.cumsum([0.10 * 8, 0.36 * 2, 0, 0.06 * 5, 0.04 * 4])
    assert regret == pytest.approx(1 - worth / best)


@pytest.mark.usefixtures("scripted")
def test_the_regret_under_a_bound_is_how_much_accuracy_is_missing(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of all cells cost at most 3 ms; the best of those has two narrow convolutions and 32 %."""
    cells = [(NONE,) * (6 - n) + (CONV1,) * n for n in (0, 1, 2)]
    monkeypatch.setattr(Scripted, "cells", cells)
    assert run_task(Task(table, COST, "scripted", 0, 3, 25)).regret == pytest.approx([0.12, 0.06, 0.0], abs=1e-12)
    monkeypatch.setattr(Scripted, "cells", [(CONV1,) * 6])
    (missing,) = run_task(Task(table, COST, "scripted", 0, 1, 25)).regret  # of one near it that is cheap enough
    assert min(abs(missing - of_cheap) for of_cheap in (0.0, 0.06, 0.12)) < 1e-9


def test_figures_are_means_over_seeds_with_standard_errors() -> None:
    searches = {
        None: [trace(0.5, 0.3, seconds=0.1), trace(0.5, 0.1, seconds=0.3)],
        25: [trace(0.1, 0.0021), trace(0.002, 0.002, seconds=0.2)],  # found by one, with its first evaluation
        50: [trace(0.5, 0.5), trace(0.5, 0.5)],
    }
    figures = search_figures({"x": {"one": searches}})["x"]["one"]
    # (0.3 + 0.1) / 2; the deviation of the two is 0.1414, which over the root of 2 gives 0.1.
    assert figures == {
        "regret_2": 0.2, "error_2": 0.1,
        "evaluations_25": 1.0, "evaluations_error_25": None, "found_25": 1,
        "evaluations_50": None, "evaluations_error_50": None, "found_50": 0,
        "ms_per_candidate": 50.0,  # 0.6 s for six searches of two candidates
    }  # fmt: skip


def test_the_command_prints_figures_and_a_table_and_draws_a_page(hwnas: Hwnas, table: Path, tmp_path: Path) -> None:
    names = ["random", "evolution:population=4:tournament=2"]
    ask = ("bench", "search", "--table", table, "--cost", COST, "--controllers", ",".join(names))
    page = tmp_path / "plots" / "regret.html"
    answer = hwnas(*ask, "--evaluations", "20", "--seeds", "2", "--workers", "1", "--plot", page)
    assert answer.code == 0, answer.err
    figures = json.loads(answer.out)
    rows = figures["columns"][COST]
    assert list(rows) == names
    assert all(isinstance(value, float | int | None) for row in rows.values() for value in row.values())
    for name, row in rows.items():
        (line,) = [line for line in answer.err.splitlines() if name.split(":")[0] in line and "│" in line]
        assert f"{row['regret_20']:.4f} ± {row['error_20']:.4f}" in line
        assert f"({row['found_25']}/2)" in line
    text = page.read_text(encoding="utf-8")
    assert COST in text
    if find_browser():
        opened = open_page(page)
        assert not missing_charts(opened.dom, ["chart-regret"])
        assert not opened.console_errors
        assert not remote_loads(opened.dom)


def test_the_table_fits_a_terminal_of_120_columns(capsys: pytest.CaptureFixture[str]) -> None:
    row = {f"{kind}_{n}": 0.01234 for n in (50, 100, 200) for kind in ("regret", "error")}
    row |= {f"evaluations_{p}": 123.4 for p in (25, 50)} | {f"evaluations_error_{p}": 12.3 for p in (25, 50)}
    row |= {"found_25": 8, "found_50": 8, "ms_per_candidate": 1234.5}
    print_table("pi5_onnx_latency_ms", {"optuna-nsga2": row}, 8)
    lines = capsys.readouterr().err.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 120
    assert "0.0123 ± 0.0123" in lines[-2]
    assert "123 ± 12 (8/8)" in lines[-2]


def test_the_chart_has_a_panel_per_column_and_a_line_with_its_band_per_controller() -> None:
    searches: dict[int | None, list[Trace]] = {None: [trace(0.5, 0.0), trace(0.1, 0.0)]}
    figure = regret_chart({column: {"one": searches, "two": searches} for column in ("a", "b")})
    bands, lines = figure.data[::2], figure.data[1::2]
    assert [(line.name, line.xaxis) for line in lines] == [("one", "x"), ("two", "x"), ("one", "x2"), ("two", "x2")]
    assert [line.line.color for line in lines[:2]] == [line.line.color for line in lines[2:]]
    assert lines[0].line.color != lines[1].line.color
    assert lines[0].y == pytest.approx([0.3, FLOOR])  # nothing has no logarithm
    assert bands[0].y == pytest.approx([0.5, FLOOR, FLOOR, 0.1])  # there and back
    assert [line.showlegend for line in lines] == [True, True, False, False]
    assert figure.layout.yaxis.type == figure.layout.yaxis2.type == "log"


def test_mistakes_are_told_before_the_first_search(hwnas: Hwnas, table: Path) -> None:
    def complaint(column: str, controllers: str) -> str:
        ask = ("bench", "search", "--table", table, "--cost", column, "--controllers", controllers, "--workers", "1")
        return hwnas(*ask).complaint

    assert "did you mean 'toy_latency_ms'" in complaint("toy_latancy_ms", "random")
    assert "unknown controller 'evolutoin'; did you mean 'evolution'" in complaint(COST, "random,evolutoin")
    assert "did you mean 'population'" in complaint(COST, "evolution:populatoin=3")
    assert "there is no file" in hwnas("bench", "search", "--table", "absent.parquet", "--cost", COST).complaint


def test_tables_that_lack_something_are_refused(tmp_path: Path) -> None:
    good = toy_columns()
    holes = good[COST].copy()
    holes[7] = np.nan
    bad: dict[str, tuple[dict[str, Any], str]] = {
        "a cell less": ({name: values[1:] for name, values in good.items()}, "each of the 15625 cells once"),
        "a cell twice": (good | {"arch": [good["arch"][1], *good["arch"][1:]]}, "each of the 15625 cells once"),
        "a hole": (good | {COST: holes}, f"column {COST} has values that are missing"),
        "no accuracy": ({name: values for name, values in good.items() if name != "accuracy"}, "no column accuracy"),
    }
    for name, (columns, message) in bad.items():
        with pytest.raises(InvalidFileError, match=message):
            read_benchmark(write(tmp_path / f"{name}.parquet", columns), COST)
