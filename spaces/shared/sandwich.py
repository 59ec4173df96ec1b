"""Which networks to train together: the sandwich rule."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from hwnas.spaces.space import Rows, Space


def sandwich(space: Space, rng: np.random.Generator, n: int) -> Rows:
    """The largest network, the smallest, and ``n`` at random: those of one step, shape (2 + n, decisions).

    Their gradients are added up: the sandwich rule of universally slimmable networks (Yu and Huang, ICCV 2019). What is
    left out is their distillation from the largest: that is up to who trains.
    """
    return np.concatenate([extremes(space), space.sample(rng, n)])


@lru_cache(maxsize=16)
def extremes(space: Space) -> Rows:
    """The largest network and the smallest, in canonical form. Shape (2, decisions).

    Ordinal decisions have their last and their first option. Those of mere categories, such as a block's kind, have the
    option of most and of fewest multiply–accumulates, decision after decision; of equals the last and the first.
    """
    largest = (space.sizes - 1).astype(np.int16)
    smallest = np.zeros_like(largest)
    for column, decision in enumerate(space.decisions):
        if not decision.ordinal:
            macs = [_macs(space, largest, column, option) for option in range(len(decision.options))]
            largest[column] = max(range(len(macs)), key=lambda option: (macs[option], option))
            macs = [_macs(space, smallest, column, option) for option in range(len(macs))]
            smallest[column] = min(range(len(macs)), key=macs.__getitem__)
    return space.canonical(np.stack([largest, smallest]))


def _macs(space: Space, row: Rows, column: int, option: int) -> int:
    changed = row.copy()
    changed[column] = option
    return space.workload_of_row(space.canonical(changed[None])[0]).macs
