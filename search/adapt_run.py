"""A finished or running search's trials, used for other devices and budgets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from hwnas.latency_tables.device import load_device
from hwnas.predictors.cost import CostModel
from hwnas.search.adaptation import Adaptation, Adapted, Budget
from hwnas.search.controllers.results import Results
from hwnas.search.goal import COSTS
from hwnas.search.run_folder import Run
from hwnas.spaces.errors import UnknownNameError


def adapt_run(
    run: Run, devices: Sequence[str], metric: str, targets: Sequence[float], seed: int = 0
) -> Iterator[tuple[str, float, Adapted]]:
    """The best candidate for every pair of a device and a target.

    Args:
        run: Whose trials.
        devices: Names; none for the run's own device.
        metric: Which cost the targets are of.
        targets: In its unit.
        seed: Of each search among predictions.

    Raises:
        HwnasError: A name that does not exist, a device that was not measured for the space or does not know the
            metric, too few trials, or a target that nothing meets.
    """
    if metric not in COSTS:
        raise UnknownNameError("cost", metric, COSTS)
    adaptation = Adaptation(run.space, results_of(run), run.cost)
    for device in [run.device] if not devices else map(load_device, devices):
        cost = CostModel(run.space, device)
        cost.require(metric)
        for target in targets:
            yield device.name, target, adaptation.best(Budget(cost, {metric: target}), np.random.default_rng(seed))


def results_of(run: Run) -> Results:
    """The trials that did not fail, with costs of the run's device."""
    trials = [t for t in run.ledger.finished if t.accuracy is not None and t.state != "failed"]
    results = Results(run.cost, len(run.space.decisions))
    if trials:
        full = run.config.steps
        results.add(
            np.array([t.row for t in trials]),
            np.array([t.accuracy for t in trials], dtype=np.float64),
            np.array([t.steps / full for t in trials]),
        )
    return results
