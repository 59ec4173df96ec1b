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
from hwnas.search.supernet.cost_terms import HingeTerm, ProductTerm
from hwnas.search.supernet.recipe import SupernetRecipe
from hwnas.search.supernet.task import SupernetTask, terms_of, train_supernet
from hwnas.search.supernet.training import EpochReport
from hwnas.spaces.variation import extremes

from .toys import QUICK, toy_images, toy_space

DEVICE = "simulated-bit-fusion"


def test_goals_become_terms() -> None:
    space = toy_space()
    model = CostModel(space, load_device(DEVICE))
    goals = (Goal(3e5, "macs"), Goal(4e5, "macs"), Goal(0.01))
    least = {name: float(values[1]) for name, values in model(extremes(space)).items()}
    product = terms_of(Objective(model, goals), space)
    assert product == (ProductTerm("macs", least["macs"]), ProductTerm("latency_ms", least["latency_ms"]))
    hinge = terms_of(Objective(model, goals), space, hinge=True)
    assert hinge == (HingeTerm("macs", 3e5), HingeTerm("macs", 4e5), HingeTerm("latency_ms", 0.01))


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
