"""Operators timed inside networks, brought to what networks take."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

import numpy as np
import pytest

from hwnas.predictors.additive import AdditiveModel
from hwnas.predictors.features import family, measures
from hwnas.predictors.forest import ForestModel
from hwnas.predictors.learnt import latency_model
from hwnas.predictors.metrics import prediction_error
from hwnas.spaces import Operator
from hwnas.spaces.errors import UnavailableError

from .synthetic import PER_NETWORK_MS, digits_space, networks_to_learn_from, planted_ms, synthetic_device

Networks = list[tuple[Operator, ...]]
OVERHEAD = 1.3
"""The profiler makes every operator seem this much slower."""


def peculiar_ms(operator: Operator) -> float:
    """A device whose kernels prefer some channel numbers: no sum of physical terms."""
    channels = operator.in_channels + operator.out_channels
    return (planted_ms([operator]) - PER_NETWORK_MS) * (
        1.6 if channels % 48 == 0 else 0.8 if channels % 32 == 0 else 1.0
    )


def network_ms(operators: tuple[Operator, ...]) -> float:
    return PER_NETWORK_MS + sum(peculiar_ms(o) for o in operators)


@pytest.fixture(scope="module")
def networks() -> Networks:
    space = digits_space()
    return [space.workload_of_row(row).operators for row in networks_to_learn_from(space, 140)]


@pytest.fixture(scope="module")
def unseen() -> Networks:
    space = digits_space()
    return [space.workload_of_row(row).operators for row in space.sample(np.random.default_rng(99), 60)]


@pytest.fixture(scope="module")
def models(networks: Networks, unseen: Networks) -> tuple[AdditiveModel, ForestModel]:
    measured = [network_ms(n) for n in networks]
    distinct = list(dict.fromkeys(o for n in networks for o in n))
    rng = np.random.default_rng(0)
    observed = [(o, OVERHEAD * peculiar_ms(o) * float(np.exp(0.1 * rng.normal())), 1) for o in distinct]
    additive = AdditiveModel.fit(networks, measured, observed=observed)
    held_out = [(n, network_ms(n)) for n in unseen[:30]]
    return additive, ForestModel.fit(additive, networks, measured, observed, held_out)


def test_it_learns_what_no_sum_of_physical_terms_says(
    models: tuple[AdditiveModel, ForestModel], unseen: Networks
) -> None:
    truth = np.array([network_ms(n) for n in unseen])
    physical, both = (prediction_error(model.of_networks(unseen), truth) for model in models)
    assert both.mape < 0.8 * physical.mape
    assert both.kendall_tau > physical.kendall_tau


def test_the_profilers_own_cost_is_taken_out(models: tuple[AdditiveModel, ForestModel], unseen: Networks) -> None:
    predicted = models[1].of_networks(unseen)
    assert np.median(predicted / [network_ms(n) for n in unseen]) == pytest.approx(1.0, abs=0.03)


def test_networks_are_the_sum_of_their_operators(models: tuple[AdditiveModel, ForestModel], unseen: Networks) -> None:
    forest = models[1]
    sums = [forest.of_operators(n).sum() + forest.per_network for n in unseen]
    assert forest.of_networks(unseen) == pytest.approx(sums)
    assert forest.of_operators([]).shape == (0,)
    assert forest.of_operators(unseen[0]).min() >= 0


def test_the_error_of_networks_is_that_of_the_networks_held_out(
    models: tuple[AdditiveModel, ForestModel], unseen: Networks
) -> None:
    errors = models[1].of_networks(unseen[:30]) / [network_ms(n) for n in unseen[:30]] - 1
    assert models[1].relative_std == pytest.approx(np.sqrt((errors**2).mean()))


def test_the_error_of_operators_covers_those_never_timed(
    models: tuple[AdditiveModel, ForestModel], networks: Networks, unseen: Networks
) -> None:
    known = {o for n in networks for o in n}
    new = list(dict.fromkeys(o for n in unseen for o in n if o not in known))
    assert len(new) > 300
    truth = np.array([peculiar_ms(o) for o in new])
    within = np.abs(models[1].of_operators(new) - truth) <= 2 * models[1].std_of_operators(new)
    assert 0.9 <= within.mean() <= 1.0


def test_what_was_never_run_is_not_counted_as_zero(models: tuple[AdditiveModel, ForestModel]) -> None:
    with pytest.raises(UnavailableError, match="has not measured operators like scale"):
        models[1].of_operators([Operator("scale", 8, 8, (4, 4), (4, 4), in_bits=8)])


def test_operators_that_differ_for_a_device_differ_in_their_measures(unseen: Networks) -> None:
    seen: dict[tuple[float, ...], Operator] = {}
    for o in dict.fromkeys(o for n in unseen for o in n):
        other = seen.setdefault(tuple(measures(o)), o)
        assert family(other) == family(o)
        assert planted_ms([other]) == pytest.approx(planted_ms([o]))


@pytest.mark.parametrize(("typical_ms", "kind"), [(0.001, AdditiveModel), (0.02, ForestModel)])
def test_operators_too_short_for_a_profiler_teach_nothing(typical_ms: float, kind: type) -> None:
    device = synthetic_device(digits_space(), 60)
    table = device.table
    scale = typical_ms / median(n.latency_ms_p50 / len(n.operators) for n in table.with_role("fit"))
    networks = tuple(replace(n, latency_ms_p50=scale * n.latency_ms_p50) for n in table.networks)
    operators = tuple(replace(r, latency_ms_p50=scale * planted_ms([r.operator])) for r in table.operators)
    model = latency_model(replace(device, table=replace(table, operators=operators, networks=networks)))
    assert isinstance(model, kind)
