"""A latency table: the operators and whole networks measured on one device, as Parquet."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from hwnas.spaces.call_text import parse_call
from hwnas.spaces.errors import InvalidFileError, InvalidSpaceError
from hwnas.spaces.files import replacing
from hwnas.spaces.operator import SAME, Activation, Kind, Operator

Role = Literal["fit", "check"]

_OPERATOR = pa.schema(
    [
        ("kind", pa.string()),
        ("in_channels", pa.int32()),
        ("out_channels", pa.int32()),
        ("in_height", pa.int32()),
        ("in_width", pa.int32()),
        ("out_height", pa.int32()),
        ("out_width", pa.int32()),
        ("kernel", pa.int32()),
        ("stride", pa.int32()),
        ("groups", pa.int32()),
        ("weight_bits", pa.int32()),
        ("in_bits", pa.int32()),
        ("out_bits", pa.int32()),
        ("density", pa.float64()),
        ("activation", pa.string()),
        ("dilation", pa.int32()),
        ("pattern", pa.int32()),
        ("kernel_width", pa.int32()),
        ("margin", pa.int32()),
        ("call", pa.string()),
    ]
)
TABLE_SCHEMA = pa.schema(
    [
        *_OPERATOR,
        ("kernels", pa.list_(pa.string())),
        ("latency_ms_p50", pa.float64()),
        ("latency_ms_std", pa.float64()),
        ("count", pa.int32()),
        ("energy_mj", pa.float64()),
    ]
)
NETWORKS_SCHEMA = pa.schema(
    [
        ("digest", pa.string()),
        ("space", pa.string()),
        ("candidate", pa.string()),
        ("role", pa.string()),
        ("operators", pa.list_(pa.int32())),
        ("latency_ms_p50", pa.float64()),
        ("latency_ms_p90", pa.float64()),
        ("spread", pa.float64()),
        ("runs", pa.int32()),
        ("energy_mj", pa.float64()),
        ("energy_spread", pa.float64()),
        ("peak_memory_bytes", pa.int64()),
    ]
)

_MAY_LACK = {
    ("table.parquet", "latency_ms_p50"),
    ("table.parquet", "latency_ms_std"),
    ("table.parquet", "energy_mj"),
    ("networks.parquet", "energy_mj"),
    ("networks.parquet", "energy_spread"),
    ("networks.parquet", "peak_memory_bytes"),
}
_LATER: dict[str, dict[str, int | str | None]] = {
    "table.parquet": {"dilation": 1, "pattern": 0, "kernel_width": 0, "margin": SAME, "call": ""},
    "networks.parquet": {"energy_spread": None, "peak_memory_bytes": None},
}
"""Columns that tables written before them do not have, and what they read as."""
_WHOLE = ("in_channels", "out_channels", "in_bits", "out_bits")
_WORDS = {
    "kind": tuple(kind for kind in get_args(Kind) if kind != "identity"),  # which no workload has
    "activation": get_args(Activation),
    "role": get_args(Role),
}


LEAST_TIMED_MS = 0.003
"""Where a typical operator takes less than this, timing operators one by one teaches nothing: profilers count whole
microseconds, and add some to every node."""


@dataclass(frozen=True, slots=True)
class OperatorRow:
    """What was measured of one operator.

    Attributes:
        operator: Which.
        kernels: Kinds of the runtime's nodes that ran for it; empty where it was fused into a neighbour.
        latency_ms_p50: Median over networks of its time inside the network, profiler overhead removed, or None where no
            profiled network held it.
        latency_ms_std: Standard deviation over those networks.
        count: Measured networks that hold it.
        energy_mj: Energy per inference, or None without a meter.
    """

    operator: Operator
    kernels: tuple[str, ...] = ()
    latency_ms_p50: float | None = None
    latency_ms_std: float | None = None
    count: int = 0
    energy_mj: float | None = None


@dataclass(frozen=True, slots=True)
class NetworkRow:
    """What was measured of one whole network.

    Attributes:
        digest, space, candidate: Which; the space's spec and the candidate as JSON.
        role: Whether a predictor may learn from it (``fit``) or is checked on it (``check``).
        operators: Indexes of its operators in the operator table, in order.
        latency_ms_p50, latency_ms_p90, spread, runs: See `hwnas.latency_tables.timing.Timing`.
        energy_mj, energy_spread: Energy per inference above idle, and how far its windows disagree (see
            `hwnas.latency_tables.energy.windows.Energy`); None without a meter.
        peak_memory_bytes: What the runtime had allocated at its peak beside the loaded model (see
            `hwnas.latency_tables.runtimes.base.Executable`); None where that is not known.
    """

    digest: str
    space: str
    candidate: str
    role: Role
    operators: tuple[int, ...]
    latency_ms_p50: float
    latency_ms_p90: float
    spread: float
    runs: int
    energy_mj: float | None = None
    energy_spread: float | None = None
    peak_memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class LatencyTable:
    """Measured operators and networks of one device profile."""

    operators: tuple[OperatorRow, ...] = ()
    networks: tuple[NetworkRow, ...] = ()

    def with_role(self, role: Role) -> list[NetworkRow]:
        """The networks of one role."""
        return [n for n in self.networks if n.role == role]

    def latency_of(self, digest: str, space: str) -> float | None:
        """Milliseconds of the network with that digest in the space of that key, as first measured; None if never."""
        return next((n.latency_ms_p50 for n in self.networks if (n.digest, n.space) == (digest, space)), None)

    def operators_of(self, network: NetworkRow) -> list[Operator]:
        """The operators of a measured network, in order."""
        return [self.operators[i].operator for i in network.operators]

    def save(self, folder: Path) -> None:
        """Writes ``table.parquet`` and ``networks.parquet``, each whole or not at all."""
        operators = [_operator_fields(row) for row in self.operators]
        networks = [asdict(row) for row in self.networks]
        for name, rows, schema in (
            ("table.parquet", operators, TABLE_SCHEMA),
            ("networks.parquet", networks, NETWORKS_SCHEMA),
        ):
            with replacing(folder / name) as temporary:
                pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary)

    @classmethod
    def load(cls, folder: Path) -> LatencyTable:
        """The inverse of `save`; raises `InvalidFileError` for files that are not such tables."""
        operators = _read(folder / "table.parquet", TABLE_SCHEMA)
        networks = _read(folder / "networks.parquet", NETWORKS_SCHEMA)
        table = cls(tuple(map(_operator_row, operators)), tuple(map(_network_row, networks)))
        for row in table.networks:
            if any(not 0 <= i < len(table.operators) for i in row.operators):
                raise InvalidFileError(f"{folder / 'networks.parquet'} names operators that table.parquet lacks")
        return table


def _read(path: Path, schema: pa.Schema) -> list[dict[str, Any]]:
    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise InvalidFileError(f"there is no file {path}; register the device again") from error
    except (pa.ArrowException, OSError) as error:
        raise InvalidFileError(f"{path} is not a readable Parquet file: {error}") from error
    for name, value in _LATER[path.name].items():
        if name not in table.column_names:
            table = table.append_column(name, pa.array([value] * len(table), schema.field(name).type))
    if missing := [name for name in schema.names if name not in table.column_names]:
        raise InvalidFileError(
            f"{path} lacks the column {missing[0]!r}; remove {path.parent} and register the device again"
        )
    try:
        table = table.select(schema.names).cast(schema)
    except pa.ArrowException as error:
        raise InvalidFileError(f"{path} has a column of the wrong type: {error}") from error
    for name in schema.names:
        if table[name].null_count and (path.name, name) not in _MAY_LACK:
            raise InvalidFileError(f"{path} has rows without {name}; register the device again")
        if name in _WORDS and (odd := set(table[name].to_pylist()) - set(_WORDS[name])):
            raise InvalidFileError(f"{path} has the unknown {name} {min(odd)!r} (known: {', '.join(_WORDS[name])})")
    rows: list[dict[str, Any]] = table.to_pylist()
    for text in dict.fromkeys(row["call"] for row in rows if row.get("kind") == "call"):
        try:
            parse_call(text)
        except InvalidSpaceError as error:
            raise InvalidFileError(f"{path} has an operator that is no call: {error}") from error
    return rows


def _operator_fields(row: OperatorRow) -> dict[str, Any]:
    o = row.operator
    values = {name: getattr(o, name) for name in _OPERATOR.names if hasattr(o, name)}
    values |= {"in_height": o.in_size[0], "in_width": o.in_size[1]}
    values |= {"out_height": o.out_size[0], "out_width": o.out_size[1]}
    return values | {f.name: getattr(row, f.name) for f in fields(row) if f.name != "operator"}


def _operator_row(values: dict[str, Any]) -> OperatorRow:
    own = {name: values[name] for name in _OPERATOR.names if not name.startswith(("in_", "out_")) or name in _WHOLE}
    operator = Operator(
        **own,
        in_size=(values["in_height"], values["in_width"]),
        out_size=(values["out_height"], values["out_width"]),
    )
    rest = {name: values[name] for name in ("latency_ms_p50", "latency_ms_std", "count", "energy_mj")}
    return OperatorRow(operator, tuple(values["kernels"]), **rest)


def _network_row(values: dict[str, Any]) -> NetworkRow:
    return NetworkRow(**{**values, "operators": tuple(values["operators"])})
