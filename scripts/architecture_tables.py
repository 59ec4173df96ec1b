"""Tables of many networks' latencies on many devices: a column `arch`, and one `<device>_latency_ms` per device."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from hwnas.spaces.errors import InvalidFileError

Floats = NDArray[np.float64]

SUFFIX = "_latency_ms"
MIN_NETWORKS = 50
_CELL_EDGE = re.compile(r"([^|~+]+)~(\d+)")


@dataclass(frozen=True, slots=True)
class ArchitectureTable:
    """Latencies of n networks on D devices.

    Attributes:
        devices: Their columns' names without the suffix.
        latency_ms: Shape (n, D).
        features: One column per position and operator, 1 where a network has it there, shape (n, f).
    """

    devices: tuple[str, ...]
    latency_ms: Floats
    features: Floats


def read_table(path: Path) -> ArchitectureTable:
    """Reads a Parquet table.

    Raises:
        InvalidFileError: It is no such table.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise InvalidFileError(f"there is no file {path}") from error
    except (pa.ArrowException, OSError) as error:
        raise InvalidFileError(f"{path} is not a readable Parquet file: {error}") from error
    columns = [name for name in table.column_names if name.endswith(SUFFIX)]
    if "arch" not in table.column_names or len(columns) < 2:
        raise InvalidFileError(f"{path} needs a column 'arch' and at least two columns '<device>{SUFFIX}'")
    if table.num_rows < MIN_NETWORKS:
        raise InvalidFileError(f"{path} has {table.num_rows} networks, at least {MIN_NETWORKS} are needed")
    latencies = []
    for name in columns:
        try:
            values = np.asarray(table[name].cast(pa.float64()).to_numpy(), dtype=np.float64)
        except pa.ArrowException as error:
            raise InvalidFileError(f"{path}: {name} does not hold numbers: {error}") from error
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise InvalidFileError(f"{path}: {name} has latencies that are missing or not positive")
        latencies.append(values)
    names = tuple(name.removesuffix(SUFFIX) for name in columns)
    return ArchitectureTable(names, np.column_stack(latencies), _features(table["arch"].to_pylist(), path))


def _features(architectures: list[object], path: Path) -> Floats:
    """Of architectures as written: cells (``|op~0|+|op~0|op~1|``), or comma-separated choices, one per position."""
    texts = [a if isinstance(a, str) else "" for a in architectures]
    if all("~" in text for text in texts):
        edges = [_CELL_EDGE.findall(text) for text in texts]
        nodes = [text.count("+") for text in texts]
        sources = [[int(source) for _, source in cell] for cell in edges]
        expected = [source for node in range(nodes[0] + 1) for source in range(node + 1)]
        if any(s != expected for s in sources):
            raise InvalidFileError(f"{path}: not all of 'arch' are cells like |op~0|+|op~0|op~1| of one size")
        operators = np.array([[operator for operator, _ in cell] for cell in edges])
        return np.hstack([_one_hot(operators), _one_hot(_on_a_path(operators, nodes[0] + 1))])
    choices = [text.split(",") for text in texts]
    if len({len(c) for c in choices}) != 1 or not all(part.strip() for c in choices for part in c):
        raise InvalidFileError(
            f"{path}: 'arch' must hold cells like |op~0|+|op~0|op~1|, or as many comma-separated choices everywhere"
        )
    return _one_hot(np.array(choices))


def _on_a_path(operators: NDArray[np.str_], nodes: int) -> NDArray[np.str_]:
    """The same with ``none`` for operators that no path from input to output passes: runtimes may drop them."""
    ends = [(source, node + 1) for node in range(nodes) for source in range(node + 1)]
    open_ = operators != "none"
    from_input, to_output = (np.zeros((len(operators), nodes + 1), dtype=bool) for _ in range(2))
    from_input[:, 0] = to_output[:, nodes] = True
    for edge, (source, target) in enumerate(ends):
        from_input[:, target] |= from_input[:, source] & open_[:, edge]
    for edge, (source, target) in reversed(list(enumerate(ends))):
        to_output[:, source] |= to_output[:, target] & open_[:, edge]
    kept = operators.copy()
    for edge, (source, target) in enumerate(ends):
        kept[~(open_[:, edge] & from_input[:, source] & to_output[:, target]), edge] = "none"
    return kept


def _one_hot(choices: NDArray[np.str_]) -> Floats:
    """Shape (n, positions × options found there)."""
    columns = [column == option for column in choices.T for option in np.unique(column)]
    return np.column_stack(columns).astype(np.float64)
