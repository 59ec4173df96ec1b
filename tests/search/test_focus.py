"""Which networks a search has measured beside its own candidates."""

from __future__ import annotations

import numpy as np

from hwnas.search import Objective
from hwnas.search.focus import near_target, neighbours

from .fixtures import bare_space, digits_cost, digits_space


def test_networks_near_the_target_cost_about_that() -> None:
    cost = digits_cost()
    target = 0.5 * cost.of(digits_space().reference())["latency_ms"]
    rows = near_target(digits_space(), Objective(cost, target), np.random.default_rng(0), 32)
    assert len(np.unique(rows, axis=0)) == 32
    assert np.abs(cost(rows)["latency_ms"] / target - 1).max() < 0.05


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
