"""Latency tables as Parquet files, and files that are no such tables."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hwnas.latency_tables.table import NETWORKS_SCHEMA, TABLE_SCHEMA, LatencyTable, NetworkRow, OperatorRow, Role
from hwnas.spaces import Operator, load_space
from hwnas.spaces.errors import InvalidFileError
from tests.every_kind import OPERATORS

LATER = ("energy_spread", "peak_memory_bytes")
"""Columns of networks that older tables do not have."""
LATER_OF_OPERATORS = {"dilation": 1, "pattern": 0, "kernel_width": 0, "margin": -1, "call": ""}
"""Columns of operators that older tables do not have, and what they read as."""


def made_up_table() -> LatencyTable:
    """Every operator of 30 random networks, with figures that are hard to write in decimal."""
    space = load_space("mbconv", input_shape=(1, 8, 8), num_classes=10)
    rng = np.random.default_rng(0)
    index: dict[Operator, int] = {}
    networks = []
    for number, row in enumerate(space.sample(rng, 30)):
        candidate = space.decode(row)
        role: Role = "check" if number % 3 else "fit"
        operators = tuple(index.setdefault(o, len(index)) for o in space.workload_of_row(row).operators)
        networks.append(
            NetworkRow(
                candidate.digest, json.dumps(space.spec), candidate.to_json(), role, operators,
                float(rng.random()) / 3, float(rng.random()), 0.01, 100 + number, None if number % 2 else 0.1 + number,
                None if number % 2 else 0.03, None if number % 3 else 2**31 + number,
            )
        )  # fmt: skip
    rows = []
    for number, operator in enumerate(index):
        if number % 2:
            rows.append(OperatorRow(operator))
        else:
            ms = float(rng.random())
            rows.append(OperatorRow(operator, ("QLinearConv", "ReorderInput"), ms / 7, ms / 70, number, 1e-9))
    return LatencyTable(tuple(rows), tuple(networks))


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    return made_up_table()


def test_round_trip(table: LatencyTable, tmp_path: Path) -> None:
    table.save(tmp_path)
    assert LatencyTable.load(tmp_path) == table
    assert sorted(p.name for p in tmp_path.iterdir()) == ["networks.parquet", "table.parquet"]


def test_an_empty_table_round_trips(tmp_path: Path) -> None:
    LatencyTable().save(tmp_path)
    assert LatencyTable.load(tmp_path) == LatencyTable()


def test_the_operators_of_a_network_survive(table: LatencyTable, tmp_path: Path) -> None:
    table.save(tmp_path)
    again = LatencyTable.load(tmp_path)
    space = load_space("mbconv", input_shape=(1, 8, 8), num_classes=10)
    for network in again.networks:
        operators = space.workload(json.loads(network.candidate)).operators
        assert again.operators_of(network) == list(operators)


def test_roles(table: LatencyTable) -> None:
    assert len(table.with_role("fit")) == 10
    assert len(table.with_role("check")) == 20
    assert {n.role for n in table.with_role("check")} == {"check"}


def test_columns_name_their_units(table: LatencyTable, tmp_path: Path) -> None:
    table.save(tmp_path)
    for name in ("table", "networks"):
        columns = pq.read_schema(tmp_path / f"{name}.parquet").names
        assert {"latency_ms_p50", "energy_mj"} <= set(columns)


def rewrite(folder: Path, name: str, change: object) -> None:
    assert callable(change)
    path = folder / f"{name}.parquet"
    pq.write_table(change(pq.read_table(path)), path)


@pytest.mark.parametrize("name", ["table", "networks"])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "text", "folder"])
def test_damaged_files(table: LatencyTable, tmp_path: Path, name: str, damage: str) -> None:
    table.save(tmp_path)
    path = tmp_path / f"{name}.parquet"
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
        (path / "x").write_text("x")
    elif damage != "missing":
        path.write_bytes({"empty": b"", "truncated": content[: len(content) // 2], "text": b"a,b\n1,2\n"}[damage])
    with pytest.raises(InvalidFileError, match=rf"{name}\.parquet"):
        LatencyTable.load(tmp_path)


@pytest.mark.parametrize("lacks", [LATER[:1], LATER[1:], LATER])
def test_a_table_from_before_a_column_is_read(table: LatencyTable, tmp_path: Path, lacks: tuple[str, ...]) -> None:
    table.save(tmp_path)
    rewrite(tmp_path, "networks", lambda t: t.drop_columns(list(lacks)))
    without = tuple(replace(n, **dict.fromkeys(lacks)) for n in table.networks)
    assert LatencyTable.load(tmp_path) == replace(table, networks=without)


@pytest.mark.parametrize("kept", range(len(LATER_OF_OPERATORS)))
def test_a_table_from_before_an_operators_column_is_read(table: LatencyTable, tmp_path: Path, kept: int) -> None:
    table.save(tmp_path)
    rewrite(tmp_path, "table", lambda t: t.drop_columns(list(LATER_OF_OPERATORS)[kept:]))
    assert LatencyTable.load(tmp_path) == table
    for row in LatencyTable.load(tmp_path).operators:
        assert {name: getattr(row.operator, name) for name in LATER_OF_OPERATORS} == LATER_OF_OPERATORS


def test_operators_of_every_kind_survive(tmp_path: Path) -> None:
    everything = LatencyTable(tuple(OperatorRow(o) for o in OPERATORS.values()))
    everything.save(tmp_path)
    assert LatencyTable.load(tmp_path) == everything
    operators = [row.operator for row in LatencyTable.load(tmp_path).operators]
    assert {o.pattern for o in operators} == {0, 2, 4}
    assert {o.margin for o in operators} >= {-1, 0, 2}
    assert {o.kernel_size for o in operators} >= {(1, 1), (3, 3), (1, 3), (5, 1), (4, 2)}
    assert len({o.call for o in operators}) == 1 + sum(o.kind == "call" for o in operators)


@pytest.mark.parametrize("text", ["", "{}", '{"steps":[{"op":"os.remove.default"}]}'])
def test_calls_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    LatencyTable((OperatorRow(OPERATORS["call"]), OperatorRow(OPERATORS["pad"]))).save(tmp_path)
    rewrite(tmp_path, "table", lambda t: set_column(t, "call", [text, ""]))
    with pytest.raises(InvalidFileError, match=r"table\.parquet has an operator that is no call: the text of a call"):
        LatencyTable.load(tmp_path)


def test_another_name_for_a_tensor_is_no_operator(table: LatencyTable, tmp_path: Path) -> None:
    table.save(tmp_path)
    rewrite(tmp_path, "table", lambda t: set_column(t, "kind", ["identity"] * len(t)))
    with pytest.raises(InvalidFileError, match=r"unknown kind 'identity' \(known: conv, .*, deconv, slice, call\)"):
        LatencyTable.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "column"),
    [("table", n) for n in TABLE_SCHEMA.names if n not in LATER_OF_OPERATORS]
    + [("networks", n) for n in NETWORKS_SCHEMA.names if n not in LATER],
)
def test_a_missing_column_is_named(table: LatencyTable, tmp_path: Path, name: str, column: str) -> None:
    table.save(tmp_path)
    rewrite(tmp_path, name, lambda t: t.drop_columns([column]))
    with pytest.raises(InvalidFileError, match=rf"{name}\.parquet lacks the column '{column}'"):
        LatencyTable.load(tmp_path)


def set_column(table: pa.Table, column: str, values: list[object], kind: pa.DataType | None = None) -> pa.Table:
    return table.set_column(table.column_names.index(column), column, pa.array(values, kind))


def test_a_column_of_the_wrong_type_is_refused(table: LatencyTable, tmp_path: Path) -> None:
    table.save(tmp_path)
    rewrite(tmp_path, "networks", lambda t: set_column(t, "latency_ms_p50", ["fast"] * len(t)))
    with pytest.raises(InvalidFileError, match="column of the wrong type"):
        LatencyTable.load(tmp_path)


@pytest.mark.parametrize("index", [-1, 10_000])
def test_an_index_without_an_operator_is_refused(table: LatencyTable, tmp_path: Path, index: int) -> None:
    table.save(tmp_path)
    rewrite(tmp_path, "networks", lambda t: set_column(t, "operators", [[0, index]] * len(t), pa.list_(pa.int32())))
    with pytest.raises(InvalidFileError, match=r"networks\.parquet names operators that table\.parquet lacks"):
        LatencyTable.load(tmp_path)


def test_more_columns_and_another_order_do_no_harm(table: LatencyTable, tmp_path: Path) -> None:
    table.save(tmp_path)
    rewrite(tmp_path, "table", lambda t: t.select(t.column_names[::-1]).append_column("note", pa.array(["x"] * len(t))))
    assert LatencyTable.load(tmp_path) == table


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("networks", "operators"),
        ("networks", "latency_ms_p50"),
        ("table", "kernels"),
        ("table", "in_channels"),
        ("table", "dilation"),
        ("table", "kernel_width"),
        ("table", "call"),
    ],
)
def test_missing_values_are_refused(table: LatencyTable, tmp_path: Path, name: str, column: str) -> None:
    table.save(tmp_path)
    schema = {"networks": NETWORKS_SCHEMA, "table": TABLE_SCHEMA}[name]
    rewrite(tmp_path, name, lambda t: set_column(t, column, [None] * len(t), schema.field(column).type))
    with pytest.raises(InvalidFileError, match=rf"{name}\.parquet.*{column}"):
        LatencyTable.load(tmp_path)


@pytest.mark.parametrize(("name", "column"), [("table", "kind"), ("table", "activation"), ("networks", "role")])
def test_unknown_words_are_refused(table: LatencyTable, tmp_path: Path, name: str, column: str) -> None:
    table.save(tmp_path)
    rewrite(tmp_path, name, lambda t: set_column(t, column, ["banana"] * len(t)))
    with pytest.raises(InvalidFileError, match="banana"):
        LatencyTable.load(tmp_path)


def test_a_table_that_cannot_be_written_leaves_the_old_one(table: LatencyTable, tmp_path: Path) -> None:
    table.save(tmp_path)
    bad = LatencyTable((OperatorRow(table.operators[0].operator, count="many"),))  # type: ignore[arg-type]
    with pytest.raises(pa.ArrowException):
        bad.save(tmp_path)
    assert LatencyTable.load(tmp_path) == table
    assert sorted(p.name for p in tmp_path.iterdir()) == ["networks.parquet", "table.parquet"]
