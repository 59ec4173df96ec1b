"""Weight sharing: how many values remain, how good they are, and what they learn."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from hwnas.spaces.compression.weight_sharing import share_weights, shared_weight
from hwnas.spaces.errors import InvalidOptionError


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def seed(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def error(weight: Tensor, shared: tuple[Tensor, Tensor]) -> float:
    codebook, indices = shared
    return float((codebook[indices.long()] - weight).square().mean())


def test_clusters_by_hand() -> None:
    weight = torch.tensor([[1.0, -5.0, 1.2], [-5.4, 0.8, 1.0]])
    codebook, indices = share_weights(weight, 1, seed())
    assert codebook.tolist() == pytest.approx([-5.2, 1.0])
    assert indices.tolist() == [[1, 0, 1], [0, 1, 1]]
    assert indices.dtype == torch.uint8


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8])
def test_values_are_few_and_each_weight_takes_the_nearest(bits: int) -> None:
    weight = drawn(30, 20, 3, 3)
    codebook, indices = share_weights(weight, bits, seed())
    assert codebook.shape == (2**bits,)
    assert (codebook.dtype, indices.shape) == (weight.dtype, weight.shape)
    assert (codebook.diff() > 0).all()
    missed = (codebook[indices.long()] - weight).abs()
    assert torch.allclose(missed, (weight[..., None] - codebook).abs().amin(-1), atol=1e-6)
    means = torch.stack([weight[indices == i].double().mean() for i in range(2**bits)])
    assert torch.allclose(codebook, means.float(), atol=1e-6), "a value is the mean of those that share it"


def test_the_error_falls_with_bits_and_is_a_quantisers_at_best() -> None:
    weight = drawn(20_000)
    errors = [error(weight, share_weights(weight, bits, seed())) for bits in range(1, 9)]
    assert all(more < 0.4 * less for less, more in pairwise(errors))
    # The optimal quantisers of a normal distribution (Max, 1960): 0.3634, 0.1175, 0.03454, 0.009497.
    assert errors[:4] == pytest.approx([0.3634, 0.1175, 0.03454, 0.009497], rel=0.06)


@pytest.mark.parametrize("bits", [2, 5])
def test_clusters_are_no_worse_than_scikit_learns(bits: int) -> None:
    weight = drawn(5000) ** 3
    theirs = [KMeans(2**bits, n_init=1, random_state=s).fit(weight[:, None].numpy()).inertia_ / 5000 for s in range(5)]
    ours = [error(weight, share_weights(weight, bits, seed(s))) for s in range(5)]
    assert sorted(ours)[2] <= 1.05 * sorted(theirs)[2]


@pytest.mark.parametrize(("bits", "distinct"), [(2, 1), (2, 3), (2, 4), (8, 200)])
def test_few_distinct_weights_are_kept_exactly(bits: int, distinct: int) -> None:
    weight = drawn(distinct).repeat(7).reshape(7, distinct)
    shared = share_weights(weight, bits, seed())
    assert shared[0].shape == (2**bits,)
    assert error(weight, shared) == 0.0


def test_pruned_weights_stay_zero_where_the_others_are_shared_alone() -> None:
    weight = drawn(64, 64)
    kept = torch.rand(64, 64, generator=seed()) < 0.1
    codebook, indices = share_weights(weight[kept], 3, seed())
    sparse = torch.zeros_like(weight)
    sparse[kept] = codebook[indices.long()]
    assert sparse.unique().numel() == 9
    assert int(sparse.count_nonzero()) == int(kept.sum())


def test_clusters_are_the_same_for_a_seed() -> None:
    weight = drawn(4000)
    once, again, other = (share_weights(weight, 5, seed(s)) for s in (3, 3, 4))
    assert torch.equal(once[0], again[0])
    assert torch.equal(once[1], again[1])
    assert not torch.equal(once[0], other[0])


def test_a_shared_weight_is_its_clusters_mean() -> None:
    weight, indices = torch.tensor([[1.0, 2.0], [6.0, 9.0]]), torch.tensor([[0, 2], [0, 2]], dtype=torch.uint8)
    assert shared_weight(weight, indices, 4).tolist() == [[3.5, 5.5], [3.5, 5.5]]
    weight = drawn(30, 20)
    codebook, indices = share_weights(weight, 3, seed())
    shared = shared_weight(weight, indices, 8)
    assert torch.allclose(shared, codebook[indices.long()], atol=1e-6)
    assert shared.unique().numel() == 8


def test_every_weight_gets_its_clusters_mean_gradient() -> None:
    weight = torch.tensor([[1.0, 2.0, 3.0], [6.0, 9.0, 0.0]], requires_grad=True)
    indices = torch.tensor([[0, 1, 1], [0, 1, 2]], dtype=torch.uint8)
    torch.autograd.backward(
        (shared_weight(weight, indices, 4) * torch.tensor([[1.0, 2.0, 3.0], [5.0, 4.0, 7.0]])).sum()
    )
    assert weight.grad is not None
    assert torch.allclose(weight.grad, torch.tensor([[3.0, 3.0, 3.0], [3.0, 3.0, 7.0]]))
    double = weight.detach().double().requires_grad_()
    assert torch.autograd.gradcheck(lambda w: shared_weight(w, indices, 4).square(), double)


def test_a_step_moves_all_weights_of_a_cluster_alike() -> None:
    weight = drawn(10, 10).requires_grad_()
    _, indices = share_weights(weight, 2, seed())
    before = shared_weight(weight, indices, 4).detach()
    torch.autograd.backward((shared_weight(weight, indices, 4) - drawn(10, 10).flip(0)).square().sum())
    assert weight.grad is not None
    moved = weight.detach() - 0.5 * weight.grad
    step = shared_weight(moved, indices, 4) - before
    for i in range(4):
        assert torch.allclose(step[indices == i], -0.5 * weight.grad[indices == i], atol=1e-6)


def test_what_makes_no_sense_is_refused() -> None:
    for bits in (0, 9):
        with pytest.raises(InvalidOptionError, match=f"{bits} bits; indices have 1 to 8"):
            share_weights(drawn(3), bits, seed())
    for weight in (torch.tensor([1.0, torch.nan]), torch.tensor([])):
        with pytest.raises(InvalidOptionError, match="check the layer"):
            share_weights(weight, 2, seed())
    with pytest.raises(InvalidOptionError, match=r"\(4,\) for weights of \(2, 2\)"):
        shared_weight(torch.ones(2, 2), torch.zeros(4, dtype=torch.uint8), 4)
    with pytest.raises(InvalidOptionError, match="index of 3 for 2 clusters"):
        shared_weight(torch.ones(2), torch.tensor([0, 3]), 2)
