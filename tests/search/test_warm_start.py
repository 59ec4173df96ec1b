"""Starting points found from costs alone."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.search import Goal, Objective
from hwnas.search.warm_start import promising

from .fixtures import bare_space, digits_cost, digits_space


@pytest.fixture(scope="module")
def tight() -> Objective:
    """One random network in two hundred meets it."""
    cost = digits_cost()
    drawn = cost(digits_space().sample(np.random.default_rng(0), 2000))
    bytes_at_most = float(np.median(drawn["weight_bytes"]))
    target = float(np.quantile(drawn["latency_ms"], 0.01))
    return Objective(cost, (Goal(target, constraints={"weight_bytes": bytes_at_most}),))


def test_they_meet_target_and_constraints_and_compute_more_than_random_ones_that_do(tight: Objective) -> None:
    space = digits_space()
    rows = promising(space, tight, np.random.default_rng(1), 8)
    costs = tight.cost(rows)
    assert len(np.unique(rows, axis=0)) == 8
    assert np.array_equal(space.canonical(rows), rows)
    assert (costs["latency_ms"] <= tight.goals[0].target).all()
    assert tight.feasible(rows).all()
    random = space.sample(np.random.default_rng(2), 20_000)
    random = random[tight.feasible(random) & (tight.cost(random)["latency_ms"] <= tight.goals[0].target)]
    assert len(random) > 20
    assert costs["macs"].min() > np.quantile(tight.cost(random)["macs"], 0.9)


def test_they_are_not_all_the_same_network_with_small_changes(tight: Objective) -> None:
    rows = promising(digits_space(), tight, np.random.default_rng(1), 8)
    differing = (rows[:, None] != rows[None]).sum(axis=2)[np.triu_indices(8, 1)]
    assert np.median(differing) > 20


def test_a_small_space_gives_what_it_has() -> None:
    space = bare_space(2, 3)

    def cost(rows: np.ndarray) -> dict[str, np.ndarray]:
        return {name: 1.0 + rows.sum(axis=1) for name in ("latency_ms", "macs")}

    rows = promising(space, Objective(cost, (Goal(3.0),)), np.random.default_rng(0), 50)
    assert len(np.unique(rows, axis=0)) == len(rows) <= 6
    # Either way to the target, 1 + 2: nothing that computes as much costs less.
    assert {tuple(row) for row in rows} == {(0, 2), (1, 1)}
