"""Tables of blocks, learnt from planted ones."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import check_grad
from scipy.stats import kendalltau, multivariate_normal

from hwnas.predictors.block_table import CONSTANT_VARIANCE, BlockTable, _covariances, _design, _Evidence
from hwnas.predictors.linear import LinearModel
from hwnas.spaces.errors import UnavailableError
from hwnas.spaces.operator import Operator

Floats = NDArray[np.float64]
POSITIONS, OPTIONS = 12, 7
CONSTANT_MS = 4.0
RNG = np.random.default_rng


def block(position: int, option: int) -> tuple[Operator, ...]:
    """Three stages of four positions; the last option is nothing."""
    if option == OPTIONS - 1:
        return ()
    stage, (expansion, kernel) = position // 4, divmod(option, 2)
    channels, side = 16 * 2**stage, (16 // 2**stage,) * 2
    hidden = channels * (1, 3, 6)[expansion]
    return (
        Operator("conv", channels, hidden, side, side),
        Operator("conv", hidden, hidden, side, side, 3 + 2 * kernel, groups=hidden),
        Operator("conv", hidden, channels, side, side),
    )


BLOCKS = [[block(position, option) for option in range(OPTIONS)] for position in range(POSITIONS)]


def planted(odd: float = 0.02) -> Floats:
    """So much per call, MAC and value moved, and of each entry something of its own; nothing costs nothing."""
    table = np.array(
        [
            [sum(0.05 + o.macs / 3e6 + (o.in_channels + o.out_channels) * o.out_size[0] ** 2 / 4e5 for o in operators)
             for operators in position]
            for position in BLOCKS
        ]
    )  # fmt: skip
    own = RNG(5).normal(1, odd, table.shape)
    return np.asarray(table * own)


def drawn(n: int, seed: int = 0) -> NDArray[np.int64]:
    return RNG(seed).integers(0, OPTIONS, size=(n, POSITIONS))


def cost(table: Floats, chosen: NDArray[np.int64]) -> Floats:
    return np.asarray(CONSTANT_MS + table[np.arange(POSITIONS), chosen].sum(axis=1))


def one_hot(chosen: NDArray[np.int64]) -> Floats:
    return np.eye(OPTIONS)[chosen].reshape(len(chosen), -1)


def test_as_many_exact_networks_as_unknowns_give_the_table_itself() -> None:
    table, chosen = planted(odd=0.3), drawn(150)
    found = BlockTable.fit(chosen, cost(table, chosen), BLOCKS)
    assert found.entries == pytest.approx(table - table.min(axis=1, keepdims=True), abs=2e-3)
    assert found.constant == pytest.approx(CONSTANT_MS + table.min(axis=1).sum(), abs=2e-3)
    assert found.noise_std < 2e-3


def test_fewer_networks_than_unknowns_are_enough_where_blocks_cost_what_they_do() -> None:
    """Forty networks for 73 unknowns: what the least coefficients that fit miss, the table finds."""
    table, chosen, others = planted(), drawn(40), drawn(400, seed=1)
    measured = cost(table, chosen) * RNG(2).normal(1, 0.01, 40)
    truth = cost(table, others)
    ours = BlockTable.fit(chosen, measured, BLOCKS).predict(others)
    least = LinearModel.fit(one_hot(chosen), measured).predict(one_hot(others))
    error, simple = (np.abs(p / truth - 1).mean() for p in (ours, least))
    assert error < 0.01
    assert simple > 4 * error
    assert kendalltau(ours, truth).statistic > 0.94


def test_a_few_hiccups_do_not_spoil_it() -> None:
    table, chosen, others = planted(), drawn(100), drawn(400, seed=1)
    measured = cost(table, chosen) * RNG(2).normal(1, 0.01, 100)
    clean = BlockTable.fit(chosen, measured, BLOCKS).predict(others)
    measured[::20] *= 3
    spoilt = BlockTable.fit(chosen, measured, BLOCKS).predict(others)
    assert np.abs(clean / cost(table, others) - 1).mean() < 0.006
    assert np.abs(spoilt / cost(table, others) - 1).mean() < 0.012


def test_it_says_how_far_it_may_be_off() -> None:
    table, chosen, others = planted(), drawn(60), drawn(2000, seed=1)
    found = BlockTable.fit(chosen, cost(table, chosen) + RNG(2).normal(0, 0.1, 60), BLOCKS)
    measured = cost(table, others) + RNG(3).normal(0, 0.1, 2000)
    inside = np.abs(found.predict(others) - measured) <= 2 * found.std(others)
    assert 0.92 < inside.mean() <= 0.995
    assert 0.1 < found.std(others).mean() < 0.2


def test_the_evidence_is_that_of_the_normal_distribution_of_the_measured_costs() -> None:
    """Computed in the space of the entries; here in that of the networks."""
    design = _design(drawn(30), OPTIONS)
    covariances = _covariances(BLOCKS, design[:, :-1])
    target, weights = RNG(1).normal(size=30), RNG(2).uniform(0.2, 1, 30)
    evidence = _Evidence(design, target, covariances, weights)
    logs = np.log([0.4, 0.3, 0.2, 0.1, 0.05])
    prior = np.zeros((design.shape[1],) * 2)
    prior[:-1, :-1] = np.tensordot(np.exp(logs[:-1]), covariances, 1)
    prior[-1, -1] = CONSTANT_VARIANCE
    whole = design @ prior @ design.T + np.diag(np.exp(logs[-1]) / weights)
    assert -evidence(logs)[0] == pytest.approx(multivariate_normal(cov=whole).logpdf(target), rel=1e-9)
    assert evidence.posterior(logs)[0] == pytest.approx(prior @ design.T @ np.linalg.solve(whole, target), abs=1e-9)
    assert check_grad(lambda x: evidence(x)[0], lambda x: evidence(x)[1], logs) < 1e-3


def test_too_few_networks_are_refused() -> None:
    with pytest.raises(UnavailableError, match="at least 20 networks, not 19"):
        BlockTable.fit(drawn(19), np.ones(19), BLOCKS)
