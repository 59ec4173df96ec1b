"""A supernet's task is plain data, and goes on from its checkpoint."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from hwnas.latency_tables import load_device
from hwnas.predictors import CostModel
from hwnas.search import Goal, Objective
from hwnas.search.supernet.checkpoint import read_logits
from hwnas.search.supernet.cost_terms import BoundedTerm, HingeTerm, ProductTerm
from hwnas.search.supernet.recipe import SupernetRecipe
from hwnas.search.supernet.task import SupernetTask, terms_of, train_supernet
from hwnas.search.supernet.training import EpochReport
from hwnas.spaces.errors import UnavailableError
from hwnas.spaces.variation import extremes

from .toys import QUICK, toy_images, toy_space

DEVICE = "simulated-bit-fusion"


def test_goals_become_terms() -> None:
    space = toy_space()
    model = CostModel(space, load_device(DEVICE))
    goals = (Goal(3e5, "macs"), Goal(4e5, "macs"), Goal(0.01))
    least = {name: float(values[1]) for name, values in model(extremes(space)).items()}
    product = terms_of(Objective(model, goals), space)
    macs = ProductTerm("macs", least["macs"])
    assert product == (macs, macs, ProductTerm("latency_ms", least["latency_ms"]))
    bounded = Goal(3e5, "macs", constraints={"weight_bytes": 7e4})
    assert terms_of(Objective(model, (bounded,)), space) == (BoundedTerm(macs, (HingeTerm("weight_bytes", 7e4),)),)
    hinge = terms_of(Objective(model, goals), space, hinge=True)
    assert hinge == (HingeTerm("macs", 3e5), HingeTerm("macs", 4e5), HingeTerm("latency_ms", 0.01))


def test_a_cost_that_is_no_sum_is_refused() -> None:
    model = CostModel(toy_space(), load_device(DEVICE))
    for goal in (Goal(3e5, "peak_memory_bytes"), Goal(3e5, "macs", constraints={"peak_memory_bytes": 1e5})):
        with pytest.raises(UnavailableError, match="cannot weigh peak_memory_bytes, which is no sum over layers"):
            terms_of(Objective(model, (goal,)), toy_space())


def test_costs_on_several_devices_count() -> None:
    """One θ per device: each is pushed by its own device's cost alone."""
    space = toy_space()
    recipe = SupernetRecipe(**{**QUICK, "mixed": ("*",), "warmup_epochs": 0})  # type: ignore[arg-type]
    terms = (HingeTerm("latency_ms", 1e-6, 50.0), HingeTerm("other:latency_ms", 1e6, 50.0))
    other = load_device("simulated-eyeriss")
    task = SupernetTask(space.spec, load_device(DEVICE), toy_images(), recipe, terms, 0, {"other": other})
    made = task.begin()
    there = CostModel(space, other).expected(made.thetas[1].probabilities(), "latency_ms")
    assert made.expected_costs()[1] == pytest.approx(there.item())
    before = made.expected_costs()[0]
    for _ in range(3):
        made.train_epoch()
    assert made.expected_costs()[0] < before


def test_an_interrupted_task_goes_on_and_ends_as_one_that_was_not(tmp_path: Path) -> None:
    recipe = SupernetRecipe(**{**QUICK, "mixed": ()})  # type: ignore[arg-type]
    term = ProductTerm("macs", 1e5)
    task = SupernetTask(toy_space().spec, load_device(DEVICE), toy_images(), recipe, (term,))
    heard: list[int] = []

    def stop(report: EpochReport) -> None:
        heard.append(report.epoch)
        if report.epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_supernet(task, tmp_path / "stopped", heard=stop)
    again = pickle.loads(pickle.dumps(task))
    train_supernet(again, tmp_path / "stopped", heard=lambda report: heard.append(report.epoch))
    whole = train_supernet(task, tmp_path / "whole")
    assert heard == [0, 1, 2]
    assert (tmp_path / "stopped").read_bytes() == (tmp_path / "whole").read_bytes()
    (logits,) = read_logits(tmp_path / "whole")
    assert torch.equal(torch.tensor(logits), whole.thetas[0].logits)
    exact = CostModel(toy_space(), load_device(DEVICE))(np.array(list(np.ndindex(2, 2, 2)), dtype=np.int16))["macs"]
    chances = whole.thetas[0].log_probability(np.array(list(np.ndindex(2, 2, 2)))).exp().detach().numpy()
    assert whole.history[-1].expected_costs[0] == pytest.approx(float(exact @ chances), rel=1e-5)
