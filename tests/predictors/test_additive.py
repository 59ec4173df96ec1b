"""The latency model on a device whose coefficients are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from hwnas.predictors.additive import MIN_NETWORKS, AdditiveModel
from hwnas.predictors.features import family
from hwnas.predictors.metrics import prediction_error
from hwnas.spaces import Operator
from hwnas.spaces.errors import UnavailableError

from .synthetic import PER_NETWORK_MS, digits_space, networks_to_learn_from, noisy, planted_ms

Networks = list[tuple[Operator, ...]]
NOISE = 0.05


def lowered(rows: np.ndarray) -> Networks:
    space = digits_space()
    return [space.workload_of_row(row).operators for row in rows]


def true_ms(networks: Sequence[Sequence[Operator]]) -> np.ndarray:
    return np.array([planted_ms(operators) for operators in networks])


@pytest.fixture(scope="module")
def networks() -> Networks:
    return lowered(networks_to_learn_from(digits_space(), 240))


@pytest.fixture(scope="module")
def unseen() -> Networks:
    return lowered(digits_space().sample(np.random.default_rng(99), 120))


@pytest.fixture(scope="module")
def exact(networks: Networks) -> AdditiveModel:
    return AdditiveModel.fit(networks, true_ms(networks).tolist())


@pytest.fixture(scope="module")
def disturbed(networks: Networks) -> AdditiveModel:
    return AdditiveModel.fit(networks, noisy(true_ms(networks).tolist(), NOISE, seed=1))


def test_planted_coefficients_are_recovered(exact: AdditiveModel, unseen: Networks) -> None:
    error = prediction_error(exact.of_networks(unseen), true_ms(unseen))
    assert error.mape < 0.01
    assert error.kendall_tau > 0.99
    assert exact.per_network == pytest.approx(PER_NETWORK_MS, rel=0.2)
    assert exact.relative_std < 0.01


def test_single_operators_are_recovered(exact: AdditiveModel, unseen: Networks) -> None:
    """Only sums were measured, so the parts are known less well than the whole."""
    operators = list({o for network in unseen for o in network})
    truth = np.array([planted_ms([o]) - PER_NETWORK_MS for o in operators])
    error = np.abs(exact.of_operators(operators) - truth)
    assert error.sum() / truth.sum() < 0.1


def test_coefficients_are_not_negative(exact: AdditiveModel, disturbed: AdditiveModel) -> None:
    for model in (exact, disturbed):
        assert model.per_network >= 0
        assert min(model.coefficients.values()) > 0
        assert tuple(model.coefficients) == model.in_use


def test_a_network_is_the_sum_of_its_operators(disturbed: AdditiveModel, unseen: Networks) -> None:
    for network in unseen[:10]:
        total = disturbed.of_operators(network).sum() + disturbed.per_network
        assert disturbed.of_networks([network])[0] == pytest.approx(total)


def test_the_stated_error_is_the_error_of_networks_not_seen(disturbed: AdditiveModel, unseen: Networks) -> None:
    measured = np.array(noisy(true_ms(unseen).tolist(), NOISE, seed=7))
    relative = disturbed.of_networks(unseen) / measured - 1
    assert NOISE * 0.9 < disturbed.relative_std < NOISE * 2
    assert np.sqrt((relative**2).mean()) == pytest.approx(disturbed.relative_std, rel=0.4)
    assert 0.85 < (np.abs(relative) < 2 * disturbed.relative_std).mean() <= 1.0


def test_noise_averages_out(disturbed: AdditiveModel, unseen: Networks) -> None:
    """The prediction is closer to the truth than any measurement that it was learnt from."""
    error = prediction_error(disturbed.of_networks(unseen), true_ms(unseen))
    assert error.mape < NOISE


def operators_of(networks: Networks) -> tuple[list[Operator], np.ndarray]:
    """The different operators, and what each takes."""
    operators = list({o for network in networks for o in network})
    return operators, np.array([planted_ms([o]) - PER_NETWORK_MS for o in operators])


def test_the_stated_error_of_operators_is_on_the_safe_side(
    exact: AdditiveModel, networks: Networks, unseen: Networks
) -> None:
    """Over eight draws of the noise: with one of them the ratio is anything from 0.08 to 0.85."""
    operators, truth = operators_of(unseen)
    ratios = []
    for seed in range(1, 9):
        model = AdditiveModel.fit(networks, noisy(true_ms(networks).tolist(), NOISE, seed=seed))
        std = model.std_of_operators(operators)
        assert std.shape == (len(operators),)
        assert (std >= 0).all()
        error = np.abs(model.of_operators(operators) - truth)
        ratios.append(error[std > 0] / std[std > 0])
        assert (error <= 2 * std).mean() > 0.9
    assert 0.25 < np.median(np.concatenate(ratios)) / 0.6745 < 1.2
    assert exact.std_of_operators(operators).mean() < std.mean() / 5


def test_the_stated_error_of_operators_is_seldom_more_than_all_of_them(networks: Networks, unseen: Networks) -> None:
    operators, truth = operators_of(unseen)
    shares = []
    for seed in range(5):  # it depends on the noise: one in five has more than half
        model = AdditiveModel.fit(networks, noisy(true_ms(networks).tolist(), NOISE, seed))
        shares.append((model.std_of_operators(operators) > truth).mean())
    assert np.median(shares) < 0.35


def test_more_networks_lower_the_error(networks: Networks, unseen: Networks) -> None:
    measured = noisy(true_ms(networks).tolist(), NOISE, seed=3)
    errors = []
    for n in (80, 252):
        model = AdditiveModel.fit(networks[:n], measured[:n])
        known = [u for u in unseen if all((*family(o), "call") in model.known for o in u)]
        errors.append(prediction_error(model.of_networks(known), true_ms(known)).mape)
    assert errors[1] < errors[0]


def test_what_was_never_run_is_not_counted_as_zero(networks: Networks, unseen: Networks) -> None:
    floats = [n for n in networks if all(o.weight_bits == 32 and o.out_bits == 32 for o in n)]
    space = digits_space(())
    floats += [space.workload_of_row(r).operators for r in space.sample(np.random.default_rng(0), 40)]
    model = AdditiveModel.fit(floats, true_ms(floats).tolist())
    assert model.of_networks(floats) == pytest.approx(true_ms(floats), rel=0.01)
    integer = next(o for network in unseen for o in network if o.kind == "conv" and o.integer)
    with pytest.raises(UnavailableError, match=rf"operators like {integer.name} \({family(integer)[0]}, integer, "):
        model.of_operators([integer])
    with pytest.raises(UnavailableError, match="hwnas device register"):
        model.of_networks(unseen)


def test_too_few_networks_are_refused(networks: Networks) -> None:
    few = networks[: MIN_NETWORKS - 1]
    with pytest.raises(UnavailableError, match="only 19 measured networks to learn from, at least 20 are needed"):
        AdditiveModel.fit(few, true_ms(few).tolist())


def test_units_scale(networks: Networks, unseen: Networks, exact: AdditiveModel) -> None:
    """A machine ten times as slow takes ten times as long, whatever unit a small term then has."""
    slow = AdditiveModel.fit(networks, (10 * true_ms(networks)).tolist())
    assert slow.of_networks(unseen) == pytest.approx(10 * exact.of_networks(unseen), rel=1e-3)
