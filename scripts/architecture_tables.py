"""Tables of many networks' figures on many devices: a column `arch`, and columns such as `<device>_latency_ms`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from hwnas.spaces.errors import InvalidFileError, UnknownNameError

Floats = NDArray[np.float64]
Operators = NDArray[np.str_]

SUFFIX = "_latency_ms"
ENERGY_SUFFIX = "_energy_mj"
MIN_NETWORKS = 50
NONE = "none"
_CELL_EDGE = re.compile(r"([^|~+]+)~(\d+)")


@dataclass(frozen=True, slots=True)
class Architectures:
    """What n networks have at each position.

    Attributes:
        written: As the column says, shape (n, positions).
        passed: Of cells the same, with ``none`` for operators that no path from input to output passes: runtimes may
            drop them. None where architectures are no cells.
    """

    written: Operators
    passed: Operators | None = None

    @property
    def operators(self) -> Operators:
        """Those that count: of cells, those that a path passes."""
        return self.written if self.passed is None else self.passed

    @property
    def features(self) -> Floats:
        """One column per position and operator, 1 where a network has it there, shape (n, f)."""
        parts = [self.written] if self.passed is None else [self.written, self.passed]
        return np.hstack([one_hot(part) for part in parts])


@dataclass(frozen=True, slots=True)
class ArchitectureTable:
    """Latencies of n networks on D devices.

    Attributes:
        devices: Their columns' names without the suffix.
        latency_ms: Shape (n, D).
        architectures: The networks.
    """

    devices: tuple[str, ...]
    latency_ms: Floats
    architectures: Architectures

    @property
    def features(self) -> Floats:
        """See `Architectures.features`, shape (n, f)."""
        return self.architectures.features


@dataclass(frozen=True, slots=True)
class EnergyTable:
    """Energy and latency of n networks on one device.

    Attributes:
        energy, latency: Names of the columns.
        energy_mj, latency_ms: Shape (n,).
        architectures: The networks.
    """

    energy: str
    latency: str
    energy_mj: Floats
    latency_ms: Floats
    architectures: Architectures


def read_table(path: Path) -> ArchitectureTable:
    """Reads the latencies of a Parquet table.

    Raises:
        InvalidFileError: It is no such table.
    """
    table = _open(path)
    columns = [name for name in table.column_names if name.endswith(SUFFIX)]
    if len(columns) < 2:
        raise InvalidFileError(f"{path} needs at least two columns '<device>{SUFFIX}'")
    latency_ms = np.column_stack([_figures(table, name, path) for name in columns])
    names = tuple(name.removesuffix(SUFFIX) for name in columns)
    return ArchitectureTable(names, latency_ms, _architectures(table, path))


def read_energy(path: Path, energy: str | None = None, latency: str | None = None) -> EnergyTable:
    """Reads energy, and the latency that goes with it, of a Parquet table.

    Args:
        path: Of the table.
        energy: Column in millijoules; the only one `<device>_energy_mj` by default.
        latency: Column in milliseconds; that of the same device by default.

    Raises:
        InvalidFileError: It is no such table, has several energies, or no network that is made of anything.
        UnknownNameError: It has no such column.
    """
    table = _open(path)
    energies = [name for name in table.column_names if name.endswith(ENERGY_SUFFIX)]
    if energy is None:
        if len(energies) != 1:
            found = f"has {', '.join(energies)}: choose one with --energy" if energies else "has none"
            raise InvalidFileError(f"{path} needs a column '<device>{ENERGY_SUFFIX}', and {found}")
        energy = energies[0]
    latency = latency or energy.removesuffix(ENERGY_SUFFIX) + SUFFIX
    for name in (energy, latency):
        if name not in table.column_names:
            raise UnknownNameError(f"column of {path}", name, table.column_names)
    energy_mj, latency_ms = (_figures(table, name, path) for name in (energy, latency))
    architectures = _architectures(table, path)
    if (architectures.operators == NONE).all():
        raise InvalidFileError(
            f"{path}: 'arch' has no operator but '{NONE}', or none that a path passes, in any network: "
            "there is nothing to learn energy from"
        )
    return EnergyTable(energy, latency, energy_mj, latency_ms, architectures)


def _open(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise InvalidFileError(f"there is no file {path}") from error
    except (pa.ArrowException, OSError) as error:
        raise InvalidFileError(f"{path} is not a readable Parquet file: {error}") from error
    if "arch" not in table.column_names:
        raise InvalidFileError(f"{path} needs a column 'arch'")
    if table.num_rows < MIN_NETWORKS:
        raise InvalidFileError(f"{path} has {table.num_rows} networks, at least {MIN_NETWORKS} are needed")
    return table


def _figures(table: pa.Table, name: str, path: Path) -> Floats:
    try:
        values = np.asarray(table[name].cast(pa.float64()).to_numpy(), dtype=np.float64)
    except pa.ArrowException as error:
        raise InvalidFileError(f"{path}: {name} does not hold numbers: {error}") from error
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise InvalidFileError(f"{path}: {name} has figures that are missing or not positive")
    return values


def _architectures(table: pa.Table, path: Path) -> Architectures:
    """Architectures are cells (``|op~0|+|op~0|op~1|``), or comma-separated choices, one per position."""
    texts = [a if isinstance(a, str) else "" for a in table["arch"].to_pylist()]
    if all("~" in text for text in texts):
        edges = [_CELL_EDGE.findall(text) for text in texts]
        nodes = texts[0].count("+") + 1
        if any([int(source) for _, source in cell] != [source for source, _ in cell_edges(nodes)] for cell in edges):
            raise InvalidFileError(f"{path}: not all of 'arch' are cells like |op~0|+|op~0|op~1| of one size")
        written = np.array([[operator for operator, _ in cell] for cell in edges])
        return Architectures(written, on_a_path(written, nodes))
    choices = [text.split(",") for text in texts]
    if len({len(c) for c in choices}) != 1 or not all(part.strip() for c in choices for part in c):
        raise InvalidFileError(
            f"{path}: 'arch' must hold cells like |op~0|+|op~0|op~1|, or as many comma-separated choices everywhere"
        )
    return Architectures(np.array(choices))


def cell_edges(nodes: int) -> list[tuple[int, int]]:
    """Source and target of a cell's edges in the order written; node 0 is the input, ``nodes`` come after it."""
    return [(source, target) for target in range(1, nodes + 1) for source in range(target)]


def on_a_path(operators: Operators, nodes: int) -> Operators:
    """The same with ``none`` for operators that no path from input to output passes."""
    edges = list(enumerate(cell_edges(nodes)))
    open_ = operators != NONE
    from_input, to_output = (np.zeros((len(operators), nodes + 1), dtype=bool) for _ in range(2))
    from_input[:, 0] = to_output[:, nodes] = True
    for edge, (source, target) in edges:
        from_input[:, target] |= from_input[:, source] & open_[:, edge]
    for edge, (source, target) in reversed(edges):
        to_output[:, source] |= to_output[:, target] & open_[:, edge]
    kept = operators.copy()
    for edge, (source, target) in edges:
        kept[~(open_[:, edge] & from_input[:, source] & to_output[:, target]), edge] = NONE
    return kept


def one_hot(choices: Operators, but: str | None = None) -> Floats:
    """Shape (n, positions × options found there); ``but`` is an option without a column, and not the only one."""
    columns = [column == option for column in choices.T for option in np.unique(column) if option != but]
    return np.column_stack(columns).astype(np.float64)
