"""Accuracies that others trained: a table of all cells of NAS-Bench-201, to compare controllers without training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from hwnas.predictors.lowering import lower_space
from hwnas.predictors.slot_tables import gather, slot_tables
from hwnas.search.goal import COSTS, Floats
from hwnas.spaces.blocks.cell_form import OPERATIONS, read_cell
from hwnas.spaces.candidate import Candidate
from hwnas.spaces.catalog import load_space
from hwnas.spaces.errors import InvalidFileError, UnknownNameError
from hwnas.spaces.space import Rows, Space

IMAGE, CLASSES = (3, 32, 32), 100
"""Of CIFAR-100; another number of classes adds the same to all candidates."""


@dataclass(frozen=True, eq=False)
class TabularBenchmark:
    """All cells as the table writes them: those that compute the same are different candidates, measured apart.

    It is an evaluator, too: a full evaluation is one step, which takes no time.

    Attributes:
        space: Six edges, without networks to build.
        metric: Which of `COSTS` the column is.
        accuracies, costs: By row, shape (15625,); accuracies as shares.
        counted: ``macs`` and ``params`` of the networks, without what no path passes.
    """

    space: Space
    metric: str
    accuracies: Floats
    costs: Floats
    counted: Mapping[str, Floats]

    @property
    def rows(self) -> Rows:
        """All candidates, shape (15625, 6)."""
        return _all_rows(self.space)

    def cost(self, rows: Rows) -> dict[str, Floats]:
        """The column's cost, MACs and parameters of rows (n, 6), shape (n,) each."""
        index = self._index(rows)
        found = {name: values[index] for name, values in self.counted.items()}
        return found | {self.metric: self.costs[index]}

    def accuracy(self, rows: Rows) -> Floats:
        """Of rows (n, 6), shape (n,), as shares."""
        return np.asarray(self.accuracies[self._index(rows)])

    @property
    def steps(self) -> int:
        """See `hwnas.search.evaluators.base.Evaluator`."""
        return 1

    def start(self, candidate: Candidate, seed: int) -> TableEvaluation:
        """See `hwnas.search.evaluators.base.Evaluator`."""
        return TableEvaluation(float(self.accuracy(self.space.encode(candidate)[None])[0]))

    def _index(self, rows: Rows) -> NDArray[np.intp]:
        return np.asarray(np.ravel_multi_index(tuple(np.atleast_2d(rows).T), tuple(self.space.sizes)))


class WrittenCells(Space):
    """Cells as they are written; what they compute are cells of another space, in canonical form.

    Args:
        cells: That space.
        spec: See `Space`.
    """

    def __init__(self, cells: Space, spec: Mapping[str, Any]) -> None:
        super().__init__(
            name="nasbench201-table", spec=spec, decisions=cells.decisions, slots=(),
            input_shape=cells.input_shape, num_classes=cells.num_classes,
        )  # fmt: skip
        self.cells = cells

    def computed(self, rows: Rows) -> Rows:
        """See `Space.computed`."""
        return self.cells.canonical(rows)


@dataclass(frozen=True, slots=True)
class TableEvaluation:
    """A candidate that was evaluated long ago."""

    accuracy: float

    def step(self) -> float:
        """The accuracy."""
        return self.accuracy


def read_benchmark(path: Path, column: str) -> TabularBenchmark:
    """A benchmark from a Parquet file with ``arch``, ``accuracy`` in percent, and costs.

    Args:
        path: Of the file.
        column: The cost; its name ends with that of one of `COSTS`, such as ``pixel3_latency_ms``.

    Raises:
        InvalidFileError: It is no such file, or does not have every cell once.
        UnknownNameError: There is no such column.
    """
    space = load_space("nasbench201", input_shape=IMAGE, num_classes=CLASSES, joint=())
    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise InvalidFileError(f"there is no file {path}") from error
    except Exception as error:
        raise InvalidFileError(f"{path} is no readable Parquet file: {error}") from error
    columns = [name for name in table.column_names if name.endswith(COSTS)]
    if column not in columns:
        raise UnknownNameError(f"cost column of {path}:", column, columns)
    if missing := {"arch", "accuracy"} - set(table.column_names):
        raise InvalidFileError(f"{path} has no column {' and none '.join(sorted(missing))}")
    cells = [read_cell(str(text)) for text in table["arch"].to_pylist()]
    rows = np.array([[OPERATIONS.index(operation) for operation in cell] for cell in cells], dtype=np.int16)
    order = np.ravel_multi_index(tuple(rows.T), tuple(space.sizes))
    if not np.array_equal(np.sort(order), np.arange(space.sizes.prod())):
        raise InvalidFileError(f"{path} must have each of the {space.sizes.prod()} cells once")
    accuracy, cost = (np.empty(len(order)) for _ in range(2))
    for values, name in ((accuracy, "accuracy"), (cost, column)):
        values[order] = np.asarray(table[name].to_numpy(), dtype=np.float64)
        if not np.isfinite(values).all():
            raise InvalidFileError(f"{path}: column {name} has values that are missing or no numbers")
    metric = next(name for name in COSTS if column.endswith(name))
    written = WrittenCells(space, {"name": "nasbench201-table", "path": str(path)})
    return TabularBenchmark(written, metric, accuracy / 100, cost, _counted(space))


def _counted(space: Space) -> dict[str, Floats]:
    lowering = lower_space(space)
    sums, _ = gather(slot_tables(space, lowering, []), lowering.extended(space.canonical(_all_rows(space))))
    return {"macs": sums[:, 1], "params": sums[:, 2]}


def _all_rows(space: Space) -> Rows:
    return np.array(list(np.ndindex(*space.sizes.tolist())), dtype=np.int16)
