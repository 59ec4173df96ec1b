"""Which of the trained networks is chosen, and what is said where none is what was asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hwnas.search import Goal
from hwnas.search.conclusion import choose
from hwnas.search.goal import HARD, STRICT
from hwnas.search.report.summary import report_data
from hwnas.search.run_result import Excess, RunResult

from .fixtures import conclude_again, synthetic_device

COSTS = {"latency_ms": np.array([1.0, 2.0, 3.0]), "weight_bytes": np.array([30.0, 20.0, 40.0])}
ACCURACY = np.array([0.7, 0.8, 0.9])


def test_the_most_worth_is_chosen_within_the_constraints() -> None:
    assert choose(Goal(4.0, exponents=HARD), ACCURACY, COSTS) == 2
    assert choose(Goal(4.0, exponents=HARD, constraints={"weight_bytes": 30.0}), ACCURACY, COSTS) == 1
    assert choose(Goal(1.5, exponents=STRICT), ACCURACY, COSTS) == 0


def test_where_nothing_is_within_what_comes_nearest_is_chosen() -> None:
    assert choose(Goal(0.5, exponents=STRICT), ACCURACY, COSTS) == 0
    assert choose(Goal(4.0, exponents=STRICT, constraints={"weight_bytes": 10.0}), ACCURACY, COSTS) == 1


def test_a_network_that_breaks_a_constraint_is_called_one_everywhere(finished: Path, tmp_path: Path) -> None:
    objective = {"target_ratio": 0.5, "constraints": {"weight_bytes": 2000}}
    run, result = conclude_again(finished, tmp_path / "run", synthetic_device(), objective=objective)
    cost = result.networks[0].weight_bytes
    assert result.exceeded == {"weight_bytes": Excess(2000, cost)}
    assert RunResult.from_json(run.folder / "result.json").exceeded == result.exceeded
    words = f"does not meet weight_bytes ≤ 2000: {cost:.6g}"
    assert report_data(run, result).warnings == [words]
    assert f"The chosen network {words}" in (run.folder / "report.html").read_text()
