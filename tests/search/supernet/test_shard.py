"""Workers that share the batches of a supernet train it as one does alone."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from hwnas.search.supernet.cost_terms import CostTerm, HingeTerm, ProductTerm
from hwnas.search.supernet.shard import Shard
from hwnas.spaces.errors import InvalidOptionError

from .toys import LEAST, planted, recipe, training


@dataclass(frozen=True)
class ThreadShard(Shard):
    """Workers that are threads, in place of processes."""

    barrier: threading.Barrier = field(default_factory=lambda: threading.Barrier(2, timeout=20))
    board: dict[int, list[Tensor]] = field(default_factory=dict)

    def add_up(self, tensors: list[Tensor]) -> None:  # type: ignore[override]
        self.board[self.rank] = [t.detach().clone() for t in tensors]
        self.barrier.wait()
        totals = [sum(own[1:], own[0]) for own in zip(*(self.board[r] for r in range(self.workers)), strict=True)]
        self.barrier.wait()
        for tensor, total in zip(tensors, totals, strict=True):
            tensor.detach().copy_(total)


@pytest.mark.parametrize("mode", ["mixture", "single path"])
@pytest.mark.parametrize(
    "term", [ProductTerm("latency_ms", LEAST), HingeTerm("latency_ms", 3.0, 0.3)], ids=["product", "hinge"]
)
def test_two_workers_with_half_of_each_batch_train_as_one_does(mode: str, term: CostTerm) -> None:
    """On a network without statistics of batches: then they differ by rounding alone."""
    own = recipe(mode, batch_size=12, theta_learning_rate=0.05)
    first = ThreadShard(0, 2)
    workers = [planted(own, [term], shard=shard) for shard in (first, replace(first, rank=1))]
    alone = planted(own, [term])
    for _ in range(3):
        threads = [threading.Thread(target=worker.train_epoch) for worker in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        alone.train_epoch()
    assert alone.thetas[0].logits.abs().max() > 0.05
    for worker in workers:
        torch.testing.assert_close(worker.thetas[0].logits, alone.thetas[0].logits, rtol=1e-4, atol=1e-5)
        for one, other in zip(worker.network.parameters(), alone.network.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        assert worker.history[-1].weights_loss == pytest.approx(alone.history[-1].weights_loss, rel=1e-4)
    assert torch.equal(workers[0].thetas[0].logits, workers[1].thetas[0].logits)


def test_batches_too_small_for_the_workers_are_refused() -> None:
    with pytest.raises(InvalidOptionError, match="raise batch_size or take fewer workers"):
        training(recipe(batch_size=6), shard=ThreadShard(0, 4))
