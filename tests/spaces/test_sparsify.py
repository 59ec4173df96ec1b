"""Sparse weights: which ones stay, counted by hand, and what they learn."""

from __future__ import annotations

import pytest
import torch

from hwnas.spaces.sparsify import mask, sparsify


def kept(weight: list[list[float]], density: float, pattern: int = 0) -> list[list[int]]:
    return mask(torch.tensor(weight), density, pattern).int().tolist()


def test_the_largest_of_the_whole_layer_stay() -> None:
    weight = [[0.1, -3.0, 0.2], [5.0, 0.3, -2.0]]
    assert kept(weight, 0.5) == [[0, 1, 0], [1, 0, 1]]
    assert kept(weight, 0.2) == [[0, 0, 0], [1, 0, 0]]  # 1.2 weights
    assert kept(weight, 0.01) == [[0, 0, 0], [1, 0, 0]], "one at least"


def test_of_equal_weights_as_many_stay_as_should() -> None:
    assert int(mask(torch.ones(4, 8, 3, 3), 0.3).sum()) == round(0.3 * 288) == 86


def test_2_of_4_by_hand() -> None:
    """Groups are consecutive input channels of one output channel; the last two channels keep one."""
    weight = [[0.1, -3.0, 0.2, 0.4, 0.9, -0.8], [9.0, 8.0, 7.0, 6.0, 0.1, 0.2]]
    assert kept(weight, 0.5, 4) == [[0, 1, 0, 1, 1, 0], [1, 1, 0, 0, 0, 1]]
    assert kept(weight, 0.25, 4) == [[0, 1, 0, 0, 1, 0], [1, 0, 0, 0, 0, 1]]
    assert kept([[1.0, 2.0, 3.0, 4.0, 5.0]], 0.5, 2) == [[0, 1, 0, 1, 1]]
    assert kept([[1.0, 2.0, 3.0, 4.0]], 0.1, 4) == [[0, 0, 0, 1]], "one at least"


def test_positions_of_a_kernel_have_patterns_of_their_own() -> None:
    weight = torch.tensor([[1.0, 4.0], [2.0, 3.0], [3.0, 2.0], [4.0, 1.0]]).reshape(1, 4, 1, 2)
    assert mask(weight, 0.5, 4)[0, :, 0].int().tolist() == [[0, 1], [0, 1], [1, 0], [1, 0]]


def test_depthwise_filters_have_no_channels_to_leave_out() -> None:
    assert mask(torch.rand(8, 1, 3, 3), 0.5, 4).all()


@pytest.mark.parametrize("shape", [(5, 12, 3, 3), (5, 11, 1, 1), (3, 16), (4, 3, 5, 5)])
@pytest.mark.parametrize(("density", "pattern"), [(0.5, 4), (0.25, 4), (0.75, 8), (0.5, 2), (1 / 3, 3)])
def test_patterns_agree_with_sorting_group_by_group(shape: tuple[int, ...], density: float, pattern: int) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    columns = weight.reshape(*shape[:2], -1)
    found = mask(weight, density, pattern).reshape(columns.shape)
    for out in range(shape[0]):
        for position in range(columns.shape[2]):
            for first in range(0, shape[1], pattern):
                group = columns[out, first : first + pattern, position].abs().tolist()
                count = -(-len(group) * round(density * pattern) // pattern)
                least = sorted(group, reverse=True)[count - 1]
                expected = [value >= least for value in group]
                assert found[out, first : first + pattern, position].tolist() == expected


def test_dense_weights_are_left_alone() -> None:
    weight = torch.rand(3, 4)
    assert sparsify(weight, 1.0) is weight
    assert sparsify(weight, 1.0, 4) is weight


@pytest.mark.parametrize("pattern", [0, 4])
def test_kept_weights_are_exact_and_all_weights_learn(pattern: int) -> None:
    weight = torch.randn(6, 8, 3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    sparse = sparsify(weight, 0.5, pattern)
    chosen = mask(weight.detach(), 0.5, pattern)
    assert int(chosen.sum()) == weight.numel() // 2
    assert torch.equal(sparse, torch.where(chosen, weight, 0.0))
    torch.autograd.backward((3 * sparse).sum())
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.full_like(weight, 3.0)), "straight through, to those that are zero, too"


def test_a_pruned_weight_that_grows_comes_back() -> None:
    weight = torch.tensor([[1.0, 0.5]], requires_grad=True)
    assert sparsify(weight, 0.5, 2).tolist() == [[1.0, 0.0]]
    torch.autograd.backward(-sparsify(weight, 0.5, 2)[0, 1])
    assert weight.grad is not None
    assert sparsify(weight - weight.grad, 0.5, 2).tolist() == [[0.0, 1.5]]
