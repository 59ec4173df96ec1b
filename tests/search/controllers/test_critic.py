"""The critic: what it guesses of candidates, and what it expects of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from hwnas.search.controllers.ppo.critic import MEMBERS, Critic
from tests.contracts.controller_contract import SPACE, tiny_space
from tests.search.fixtures import bare_space


def knowing_one_thing(spread: float, error: float, centre: float = 0.5) -> Critic:
    """A critic whose every guess is the centre."""
    critic = Critic(tiny_space(), seed=0)
    with torch.no_grad():
        critic.outer.zero_()
        critic.centre.fill_(centre)
        critic.spread.fill_(spread)
        critic.error.fill_(error)
    return critic


def test_expected_gains_are_those_of_a_normal_distribution() -> None:
    critic = knowing_one_thing(spread=0.2, error=0.5)  # a deviation of 0.1 about 0.5
    rows = np.zeros((4, 3), dtype=np.int16)
    levels = np.array([[0.5, np.inf], [0.4, np.inf], [0.0, 0.5], [np.inf, np.inf]])
    weights = np.array([[1.0, 1.0], [1.0, 1.0], [2.0, 3.0], [1.0, 1.0]])
    gain = np.exp(critic.gain(rows, (weights, levels), member=1))
    # σφ(0); σ(Φ(1) + φ(1)); what is certain, twice 0.5, and three times the first; nothing.
    assert gain == pytest.approx([0.0398942, 0.1083315, 1 + 3 * 0.0398942, 0], abs=1e-6)


def test_it_orders_candidates_that_it_never_saw() -> None:
    space = bare_space(4, 4, 4, 4, 4, 4)
    rng = np.random.default_rng(0)
    table = rng.random((6, 4))
    rows = np.unique(space.sample(rng, 400), axis=0)
    accuracy = table[np.arange(6), rows].mean(axis=1)
    known = rng.permutation(len(rows)) < 150
    critic = Critic(space, seed=0)
    assert not critic.fitted
    optimiser = torch.optim.Adam(critic.parameters(), 3e-3)
    for _ in range(15):
        critic.fit(rows[known], accuracy[known], optimiser, rng)
    assert critic.fitted
    guesses = critic(rows[~known]).detach().numpy()
    assert guesses.shape == (np.sum(~known), MEMBERS)
    assert all(kendalltau(of_one, accuracy[~known]).statistic > 0.8 for of_one in guesses.T)
    assert guesses.std(axis=1).mean() > 0.01  # the members are of different opinions


def test_what_does_not_matter_does_not_change_a_guess() -> None:
    critic = Critic(SPACE, seed=0)
    rng = np.random.default_rng(0)
    rows = SPACE.sample(rng, 30)
    others = rng.integers(0, SPACE.sizes, size=rows.shape).astype(np.int16)
    idle = ~SPACE.active(rows)
    assert idle.any(axis=1).sum() > 20
    # A chain of conditions is broken where the first is changed, so only the last of each row is.
    last = idle & (idle[:, ::-1].cumsum(axis=1)[:, ::-1] == 1)
    changed = np.where(last, others, rows)
    changed = np.where((SPACE.active(changed) == ~idle).all(axis=1)[:, None], changed, rows)
    assert (changed != rows).any()
    assert torch.equal(critic(changed), critic(rows))
    assert not torch.equal(critic(others), critic(rows))
