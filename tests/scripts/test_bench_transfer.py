"""`hwnas bench transfer` on planted tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hwnas.scripts.architecture_tables import read_table
from hwnas.spaces.errors import InvalidFileError
from tests.predictors.planted_devices import planted_devices

from .command import Hwnas

NAMES = ("phone", "gpu_1", "gpu_32", "board")


def write(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def chain_table(path: Path, networks: int = 400) -> Path:
    planted = planted_devices(networks, len(NAMES))
    architectures = [",".join(map(str, choices)) for choices in planted.choices]
    latencies = {f"{name}_latency_ms": column for name, column in zip(NAMES, planted.measured(0.02).T, strict=True)}
    return write(path, {"arch": architectures, "accuracy": np.ones(networks), **latencies})


def words(line: str) -> list[str]:
    """Of a line of a table."""
    return line.replace("│", " ").split()


def cells(operators: Sequence[Sequence[str]]) -> list[str]:
    return [f"|{a}~0|+|{b}~0|{c}~1|" for a, b, c in operators]


def test_each_device_is_taken_as_new_beside_simpler_ways(hwnas: Hwnas, tmp_path: Path) -> None:
    answer = hwnas("bench", "transfer", "--table", chain_table(tmp_path / "chain.parquet"), "--draws", "2")
    assert answer.code == 0, answer.err
    figures = json.loads(answer.out)
    rows = figures["files"]["chain.parquet"]["devices"]
    assert tuple(rows) == NAMES
    assert figures["devices"] == 4
    for row in (*rows.values(), figures["mean"]):
        assert row["hwnas_chosen"] > 0.9
        assert row["own_table"] > 0.9
        assert 0.8 < row["coverage_drawn"] <= 1.0
        assert row["ridge_drawn"] <= 1.0
    for way, row in {**rows, "mean": figures["mean"]}.items():
        (line,) = [words(line) for line in answer.err.splitlines() if words(line)[:1] == [way]]
        assert line[1:] == [f"{value:.4g}" for value in row.values()]
    assert "hwnas drawn" in answer.err
    mean = np.mean([row["hwnas_drawn"] for row in rows.values()])
    assert figures["mean"]["hwnas_drawn"] == pytest.approx(mean, abs=1e-4)


def test_several_files_have_a_mean_of_all_beside_their_own(hwnas: Hwnas, tmp_path: Path) -> None:
    tables = [chain_table(tmp_path / f"{name}.parquet", n) for name, n in (("one", 400), ("two", 300))]
    answer = hwnas("bench", "transfer", "--table", tables[0], "--table", tables[1], "--draws", "1")
    figures = json.loads(answer.out)
    shown = [words(line)[1] for line in answer.err.splitlines() if words(line)[:1] == ["mean"]]
    means = [*(one["mean"] for one in figures["files"].values()), figures["mean"]]
    assert shown == [f"{next(iter(mean.values())):.4g}" for mean in means]
    assert "one.parquet, each device taken as new" in answer.err


def test_only_the_devices_asked_for_and_only_what_is_known(hwnas: Hwnas, tmp_path: Path) -> None:
    table = chain_table(tmp_path / "chain.parquet")
    ask = ("bench", "transfer", "--table", table, "--draws", "1", "--device", "gpu_32_latency_ms")
    loose, strict = (json.loads(hwnas(*ask, *more).out) for more in ((), ("--strict",)))
    assert list(loose["files"]["chain.parquet"]["devices"]) == ["gpu_32"]
    assert "at no batch size of the same" in strict["known"]
    figures = [f["mean"]["hwnas_drawn"] for f in (loose, strict)]
    assert figures[0] != figures[1]


def test_the_same_seed_gives_the_same_figures(hwnas: Hwnas, tmp_path: Path) -> None:
    table = chain_table(tmp_path / "chain.parquet")
    ask = ("bench", "transfer", "--table", table, "--draws", "1", "--device", "phone", "--seed")
    assert hwnas(*ask, "3").out == hwnas(*ask, "3").out
    assert hwnas(*ask, "3").out != hwnas(*ask, "4").out


def test_cells_have_a_column_per_edge_and_operator_also_of_what_paths_pass(tmp_path: Path) -> None:
    # a→c is a path, b is one of its own; without c, a leads nowhere.
    operators = [("a", "b", "c"), ("a", "b", "none")] * 30
    latency = np.linspace(1, 2, 60)
    columns = {"arch": cells(operators), "x_latency_ms": latency, "y_latency_ms": latency}
    features = read_table(write(tmp_path / "cells.parquet", columns)).features
    # As written: a | b | c, none. As passed: a, none | b | c, none.
    assert features[:2].tolist() == [[1, 1, 1, 0, 1, 0, 1, 1, 0], [1, 1, 0, 1, 0, 1, 1, 0, 1]]


def test_mistakes_on_the_command_line(hwnas: Hwnas, tmp_path: Path) -> None:
    table = chain_table(tmp_path / "chain.parquet")
    ask = ("bench", "transfer", "--table", table)
    assert hwnas(*ask, "--device", "gpu_3").complaint.startswith("unknown device 'gpu_3'; did you mean 'gpu_32'")
    small = chain_table(tmp_path / "small.parquet", 60)
    too_many = hwnas("bench", "transfer", "--table", small, "--networks", "40").complaint
    assert "40 networks to measure are too many for 60" in too_many


def test_files_that_are_no_such_tables_are_refused(hwnas: Hwnas, tmp_path: Path) -> None:
    good = pq.read_table(chain_table(tmp_path / "chain.parquet")).to_pydict()
    n = len(good["arch"])
    bad: dict[str, tuple[dict[str, Any], str]] = {
        "no architectures": ({k: v for k, v in good.items() if k != "arch"}, "needs a column 'arch'"),
        "one device": ({"arch": good["arch"], "a_latency_ms": [1.0] * n}, "at least two columns '<device>_latency_ms'"),
        "few": ({k: v[:20] for k, v in good.items()}, "has 20 networks, at least 50 are needed"),
        "words": (good | {"phone_latency_ms": ["slow"] * n}, "phone_latency_ms does not hold numbers"),
        "nothing": (good | {"phone_latency_ms": [None, *[1.0] * (n - 1)]}, "missing or not positive"),
        "zero": (good | {"phone_latency_ms": [0.0, *[1.0] * (n - 1)]}, "missing or not positive"),
        "ragged": (good | {"arch": ["1,2,3", *good["arch"][1:]]}, "as many comma-separated choices everywhere"),
        "numbers": (good | {"arch": list(range(n))}, "'arch' must hold cells like"),
        "cell sizes": (good | {"arch": ["|a~0|", *cells([("a", "b", "c")] * (n - 1))]}, "cells like .* of one size"),
    }
    for name, (columns, message) in bad.items():
        with pytest.raises(InvalidFileError, match=message):
            read_table(write(tmp_path / f"{name}.parquet", columns))
    text = tmp_path / "text.parquet"
    text.write_text("no table")
    assert "not a readable Parquet file" in hwnas("bench", "transfer", "--table", text).complaint
    assert "there is no file" in hwnas("bench", "transfer", "--table", tmp_path / "absent.parquet").complaint
