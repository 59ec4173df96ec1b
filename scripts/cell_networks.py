"""Networks of NAS-Bench-201 cells (Dong and Yang, ICLR 2020, arXiv 2001.00326) as operators.

The network around the cell is fixed: a 3×3 convolution from 3 to 16 channels, then three stages of five equal cells, on
16, 32 and 64 channels and images of 32, 16 and 8 pixels a side; before the second and the third stage a residual block
of two 3×3 convolutions, the first of stride 2, whose shortcut is an average pooling and a 1×1 convolution; last, global
pooling and a classifier of 10 classes. A node of the cell adds what its edges bring. What the paper calls FLOPs are
the MACs here, and 10 for the classifier's biases.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hwnas.scripts.architecture_tables import NONE, Operators, cell_edges
from hwnas.spaces.operator import Operator

Floats = NDArray[np.float64]

NODES, CELLS, CLASSES = 3, 5, 10
STAGES = ((16, 32), (32, 16), (64, 8))
"""Channels and pixels a side."""
SKIP = "skip_connect"
KERNELS = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}
POOL = "avg_pool_3x3"
CHOICES = (NONE, SKIP, POOL, *KERNELS)


@dataclass(frozen=True, slots=True)
class CellNetworks:
    """n networks, of K operators that a device can tell apart.

    Attributes:
        operators: All K of them.
        counts: How often each network has each, shape (n, K).
    """

    operators: tuple[Operator, ...]
    counts: NDArray[np.int64]

    @property
    def macs(self) -> Floats:
        """Multiply–accumulates of each network, shape (n,)."""
        return self.sums(np.array([o.macs for o in self.operators], dtype=np.float64))

    def sums(self, of_operators: Floats) -> Floats:
        """What each network costs where the operators cost ``of_operators``, shape (K,)."""
        return np.asarray(self.counts @ of_operators, dtype=np.float64)

    def of_network(self, index: int) -> list[Operator]:
        """A network's operators, equal ones beside each other."""
        return [o for o, count in zip(self.operators, self.counts[index], strict=True) for _ in range(count)]


def are_cells(operators: Operators) -> bool:
    """Whether these are such cells: six edges between an input and three nodes, of the five choices."""
    return operators.shape[1] == len(cell_edges(NODES)) and set(np.unique(operators)) <= set(CHOICES)


def cell_networks(operators: Operators) -> CellNetworks:
    """The networks of cells as `are_cells` knows them, shape (n, 6).

    All that is not ``none`` counts; leave out first what no path passes (`hwnas.scripts.architecture_tables`) to count
    what a runtime has to run.
    """
    additions = np.zeros(len(operators), dtype=np.int64)
    for node in range(1, NODES + 1):
        into = [edge for edge, (_, target) in enumerate(cell_edges(NODES)) if target == node]
        additions += ((operators[:, into] != NONE).sum(axis=1) - 1).clip(0)
    counts = {o: np.ones(len(operators), dtype=np.int64) for o in _around_the_cells()}
    for channels, side in STAGES:
        amounts = {_of_edge(choice, channels, side): (operators == choice).sum(axis=1) for choice in (POOL, *KERNELS)}
        amounts[Operator("add", channels, channels, (side, side), (side, side))] = additions
        for operator, amount in amounts.items():
            counts[operator] = counts.get(operator, 0) + CELLS * amount
    return CellNetworks(tuple(counts), np.column_stack(list(counts.values())))


def _of_edge(choice: str, channels: int, side: int) -> Operator:
    size = (side, side)
    if choice == POOL:
        return Operator("pool", channels, channels, size, size, 3)
    return _conv(channels, channels, side, side, KERNELS[choice])


def _around_the_cells() -> list[Operator]:
    """All distinct, and distinct from those of cells but for the second convolution and the addition of a block."""
    found = [_conv(3, STAGES[0][0], STAGES[0][1], STAGES[0][1], 3)]
    for (cin, side_in), (cout, side) in pairwise(STAGES):
        size = (side, side)
        found += [_conv(cin, cout, side_in, side, 3), _conv(cout, cout, side, side, 3)]
        found += [Operator("pool", cin, cin, (side_in, side_in), size, 2, 2), _conv(cin, cout, side, side, 1)]
        found += [Operator("add", cout, cout, size, size)]
    channels, side = STAGES[-1]
    return [*found, Operator("pool", channels, channels, (side, side)), Operator("linear", channels, CLASSES)]


def _conv(cin: int, cout: int, side_in: int, side: int, kernel: int) -> Operator:
    return Operator("conv", cin, cout, (side_in, side_in), (side, side), kernel, side_in // side, affine="norm")
