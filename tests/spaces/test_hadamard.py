"""The Walsh–Hadamard transform: known vectors, and scipy's matrices."""

from __future__ import annotations

import pytest
import torch
from scipy.linalg import hadamard
from torch.utils.flop_counter import FlopCounterMode

from hwnas.spaces import Operator
from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.hadamard import walsh_hadamard
from hwnas.spaces.units import HadamardUnit


def transformed(values: list[float], groups: int = 1) -> list[float]:
    result: list[float] = walsh_hadamard(torch.tensor([values]), groups)[0].tolist()
    return result


def test_known_vectors() -> None:
    assert transformed([1, 0, 0, 0]) == [0.5, 0.5, 0.5, 0.5]
    assert transformed([0, 1, 0, 0]) == [0.5, -0.5, 0.5, -0.5]
    assert transformed([1, 2, 3, 4]) == [5, -1, -2, 0]
    assert transformed([1, 2, 3, 4], 2) == pytest.approx([3 / 2**0.5, -1 / 2**0.5, 7 / 2**0.5, -1 / 2**0.5])
    assert transformed([1, 2, 3, 4], 4) == [1, 2, 3, 4]


@pytest.mark.parametrize("size", [2, 8, 32, 256])
def test_it_is_the_product_with_sylvesters_matrix(size: int) -> None:
    x = torch.randn(2, size, 3, 2, dtype=torch.float64)
    matrix = torch.tensor(hadamard(size), dtype=torch.float64) / size**0.5
    assert torch.allclose(walsh_hadamard(x), torch.einsum("ij,njhw->nihw", matrix, x))


@pytest.mark.parametrize("groups", [1, 3])
def test_it_is_its_own_inverse_and_keeps_norms(groups: int) -> None:
    x = torch.randn(2, 48 if groups == 3 else 64, 5, 5, dtype=torch.float64)
    y = walsh_hadamard(x, groups)
    assert y.norm(dim=1) == pytest.approx(x.norm(dim=1))
    assert walsh_hadamard(y, groups) == pytest.approx(x)


def test_groups_are_transformed_apart() -> None:
    x = torch.randn(2, 24, 4, 4)
    parts = [walsh_hadamard(part) for part in x.split(8, 1)]
    assert torch.allclose(walsh_hadamard(x, 3), torch.cat(parts, 1), atol=1e-6)


def test_there_are_no_multiplications_to_count() -> None:
    unit = HadamardUnit(Operator("hadamard", 64, 64, (8, 8), (8, 8)))
    with FlopCounterMode(display=False) as counter:
        unit(torch.rand(1, 64, 8, 8))
    assert counter.get_total_flops() == 0
    assert list(unit.parameters()) == []


@pytest.mark.parametrize(("channels", "groups"), [(24, 1), (24, 4), (16, 3)])
def test_groups_of_other_sizes_are_refused(channels: int, groups: int) -> None:
    operator = Operator("hadamard", channels, channels, (8, 8), (8, 8), groups=groups, name="s1b1.mix")
    with pytest.raises(
        InvalidSpaceError, match=rf"'s1b1.mix' has {channels} channels in {groups} groups.*power of two"
    ):
        HadamardUnit(operator)
