"""NAS-Bench-201 keeps the contract, alone and joined with every dimension."""

from __future__ import annotations

from functools import cache

from hwnas.spaces import Space, load_space

from .space_contract import SpaceContract


class CellContract(SpaceContract):
    """What all decide is operations and, where channels are pruned, widths; cells repeat an operation, not a kernel."""

    always = (".op", ".width")
    repeating = "op"


class TestCells(CellContract):
    rows = 480
    networks = 2
    mutants = 8  # of one operation to the output, all else of the cell does not matter

    @staticmethod
    @cache
    def make() -> Space:
        return load_space("nasbench201", input_shape=(3, 32, 32), num_classes=10, joint=())


class TestJointCells(CellContract):
    rows = 120
    networks = 1

    @staticmethod
    @cache
    def make() -> Space:
        joint = ("bits", "sparsity", "rank", "density")
        return load_space("nasbench201", input_shape=(1, 13, 8), num_classes=4, joint=joint)
