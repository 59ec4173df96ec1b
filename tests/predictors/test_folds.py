"""Values with columns of their own: costs of cells, whose operators depend on six decisions at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hwnas.latency_tables import load_device
from hwnas.latency_tables.simulated import ACCELERATORS
from hwnas.predictors import CostModel
from hwnas.predictors.folds import LEAST_SAVED, fold
from hwnas.predictors.lowering import lower_space
from hwnas.spaces import Space, load_space
from hwnas.spaces.value import Computed, compute, evaluate

from .synthetic import digits_space

DEVICE = "simulated-bit-serial-edge"


@pytest.fixture(scope="module")
def cells() -> Space:
    return load_space("nasbench201", input_shape=(3, 16, 16), num_classes=10, joint=("bits", "rank"))


@pytest.fixture(scope="module")
def cost(cells: Space) -> CostModel:
    return CostModel(cells, load_device(DEVICE))


def test_a_fold_says_which_value_a_row_gives(cells: Space) -> None:
    folds = lower_space(cells).folds
    assert len(folds) == 6, "one for each edge, whatever the cell and the stage"
    assert all(len(f.which) == 5**6 >= LEAST_SAVED * len(f.values) for f in folds)
    places = [next(v for v in slot.values if isinstance(v, Computed)) for slot in cells.slots if "s1c1" in slot.name]
    for row in cells.sample(np.random.default_rng(0), 20):
        options = dict(cells.decode(row))
        for own, value in zip(folds, places, strict=True):
            assert own.values[own.of_rows(row[None])[0]] == evaluate(value, options)


def test_the_chosen_combinations_are_the_networks_operators(cells: Space) -> None:
    lowering = lower_space(cells)
    for row in cells.sample(np.random.default_rng(1), 30):
        extended = lowering.extended(row[None])[0]
        operators, held = [], []
        for columns, slot in zip(lowering.columns, lowering.slots, strict=True):
            at = tuple(extended[list(columns)])
            c = slot.identity[np.ravel_multi_index(at, tuple(lowering.sizes[list(columns)]))] if columns else 0
            operators += [lowering.operators[o] for o in slot.operator[slot.owner == c]]
            held += slot.held[slot.owner == c].tolist()
        workload = cells.workload_of_row(row)
        assert operators == list(workload.operators)
        assert held == [o.held_bytes for o in workload.operators]


def test_costs_are_those_of_the_workload(cells: Space, cost: CostModel) -> None:
    rows = cells.sample(np.random.default_rng(2), 100)
    workloads = [cells.workload_of_row(row) for row in rows]
    costs = cost(rows)
    for name in ("macs", "params", "weight_bytes", "peak_memory_bytes"):
        assert costs[name].tolist() == [getattr(w, name) for w in workloads]
    latency = ACCELERATORS[DEVICE].latency_ms
    assert costs["latency_ms"] == pytest.approx([sum(map(latency, w.operators)) for w in workloads], rel=1e-9)


def test_the_expectation_is_the_mean_over_all_cells(cells: Space, cost: CostModel) -> None:
    """Where the operations are drawn, and all else is certain."""
    generator = torch.Generator().manual_seed(0)
    row = cells.encode(cells.reference())
    probabilities, rows = [], np.indices((5,) * 6).reshape(6, -1).T
    for decision, option in zip(cells.decisions, row, strict=True):
        p = torch.zeros(len(decision.options), dtype=torch.float64)
        p[int(option)] = 1
        if decision.name.endswith(".op"):
            p = torch.softmax(torch.randn(len(p), generator=generator, dtype=torch.float64), 0)
        probabilities.append(p.requires_grad_())
    all_rows = np.repeat(row[None], len(rows), axis=0)
    all_rows[:, [cells.column(d.name) for d in cells.decisions if d.name.endswith(".op")]] = rows
    weights = np.prod([p.detach().numpy()[rows[:, i]] for i, p in enumerate(probabilities[:6])], axis=0)
    expected = cost.expected(probabilities)
    assert float(expected.detach()) == pytest.approx(float(cost(all_rows)["latency_ms"] @ weights), rel=1e-9)
    torch.autograd.backward(expected)
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in probabilities[:6])


def test_only_what_saves_a_lot_is_folded(cells: Space) -> None:
    names = [d.name for d in cells.decisions if d.name.endswith(".op")]
    assert fold(compute(lambda *ops: ops, *names), cells, "every cell") is None
    assert fold(compute(lambda *ops: ops[0], *names[:2]), cells, "few combinations") is None
    found = fold(compute(lambda *ops: sum(op == "none" for op in ops), *names), cells, "holes")
    assert found is not None
    assert sorted(found.values) == [0, 1, 2, 3, 4, 5, 6]
    assert not lower_space(digits_space(())).folds
