"""Which networks a search has measured beside its own candidates."""

from __future__ import annotations

import numpy as np

from hwnas.search.focus import neighbours

from .fixtures import bare_space, digits_space


def test_neighbours_are_new_and_of_all_parents() -> None:
    space = digits_space()
    rng = np.random.default_rng(0)
    parents = space.sample(rng, 5)
    tried = np.concatenate([parents, space.sample(rng, 20)])
    rows = neighbours(space, parents, tried, rng, 40)
    assert rows.shape == (40, len(space.decisions))
    assert len(np.unique(np.concatenate([rows, tried]), axis=0)) == 40 + 25
    nearest = (rows[:, None] != parents[None]).sum(axis=2).argmin(axis=1)
    assert np.bincount(nearest, minlength=5).min() >= 4


def test_a_small_space_has_fewer() -> None:
    space = bare_space(2, 3)
    everything = np.array([(a, b) for a in range(2) for b in range(3)], dtype=np.int16)
    rows = neighbours(space, everything[:1], everything[:4], np.random.default_rng(0), 40)
    assert {tuple(row) for row in rows} <= {(1, 1), (1, 2)}
