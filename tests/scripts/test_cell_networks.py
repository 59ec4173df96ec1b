"""Operators and MACs of NAS-Bench-201's networks, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.scripts.architecture_tables import on_a_path
from hwnas.scripts.cell_networks import are_cells, cell_networks
from hwnas.spaces import load_space
from hwnas.spaces.operator import Operator

AROUND = 7_783_040
"""3×3×3×16×32² + 2 × (3×3×16×32×16² + 3×3×32²×16² + 16×32×16²) + 64×10; the second block's counts are the first's."""


def macs(*operators: str) -> float:
    return float(cell_networks(np.array([operators])).macs[0])


def test_macs_counted_by_hand() -> None:
    assert AROUND == 432 * 1024 + 2 * (1_179_648 + 2_359_296 + 131_072) + 640
    assert macs(*["none"] * 6) == macs(*["skip_connect"] * 6) == macs(*["avg_pool_3x3"] * 6) == AROUND
    # One edge: 5 cells of 3×3×16²×32² in each stage, as channels double where pixels quarter.
    assert macs("nor_conv_3x3", *["none"] * 5) == AROUND + 15 * 2_359_296
    assert macs("nor_conv_1x1", *["none"] * 5) == AROUND + 15 * 262_144


def test_macs_are_the_published_ones_without_biases() -> None:
    """Published: 220.11969 M FLOPs at most, 7.78305 M at least; 10 are the classifier's biases."""
    assert macs(*["nor_conv_3x3"] * 6) + 10 == 220_119_690
    assert macs(*["skip_connect"] * 6) + 10 == 7_783_050


def test_operators_and_how_often() -> None:
    cell = ("nor_conv_3x3", "avg_pool_3x3", "none", "nor_conv_1x1", "skip_connect", "nor_conv_3x3")
    networks = cell_networks(np.array([cell]))
    counts = dict(zip(networks.operators, networks.counts[0], strict=True))
    for channels, side in ((16, 32), (32, 16), (64, 8)):
        size, blocks = (side, side), int(channels > 16)
        conv = Operator("conv", channels, channels, size, size, 3)
        assert counts[conv] == 10 + blocks
        assert counts[Operator("conv", channels, channels, size, size)] == 5
        assert counts[Operator("pool", channels, channels, size, size, 3)] == 5
        assert counts[Operator("add", channels, channels, size, size)] == 10 + blocks  # the last node adds three
    assert counts[Operator("conv", 16, 32, (32, 32), (16, 16), 3, 2)] == 1
    assert len(networks.of_network(0)) == networks.counts.sum()
    assert sum(o.macs for o in networks.of_network(0)) == networks.macs[0]
    assert networks.sums(np.ones(len(networks.operators)))[0] == networks.counts.sum()


def test_which_operators_are_such_cells() -> None:
    assert are_cells(np.array([["none"] * 6, ["nor_conv_3x3"] * 6]))
    assert not are_cells(np.array([["none"] * 5]))
    assert not are_cells(np.array([["sep_conv_3x3"] * 6]))


@pytest.mark.parametrize(
    ("written", "passed"),
    [
        ("nor_conv_3x3 none none none none none", "none none none none none none"),
        ("nor_conv_3x3 nor_conv_1x1 none none skip_connect none", "nor_conv_3x3 none none none skip_connect none"),
        ("none nor_conv_1x1 nor_conv_3x3 none none skip_connect", "none nor_conv_1x1 none none none skip_connect"),
    ],
)
def test_operators_that_no_path_passes(written: str, passed: str) -> None:
    assert on_a_path(np.array([written.split()]), 3)[0].tolist() == passed.split()


def test_they_have_the_convolutions_of_the_space() -> None:
    """Whose networks are lowered edge by edge, and whose equal cells are one: two counts of the same."""
    space = load_space("nasbench201", input_shape=(3, 32, 32), num_classes=10, joint=())
    cells = np.random.default_rng(0).choice([str(o) for o in space.decisions[0].options], (60, 6))
    networks = cell_networks(on_a_path(cells, 3))
    names = [d.name for d in space.decisions]
    for i, cell in enumerate(cells):
        workload = space.workload(dict(zip(names, map(str, cell), strict=True)))
        assert workload.macs == networks.macs[i]
        products = [
            sorted(o.macs for o in operators if o.macs) for operators in (workload.operators, networks.of_network(i))
        ]
        assert products[0] == products[1]
