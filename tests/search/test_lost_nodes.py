"""Trials on a Ray cluster of several nodes, one of which is lost."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray
from ray import cloudpickle
from ray.cluster_utils import Cluster

from hwnas.search import Goal, Objective, make_controller
from hwnas.search.ledger import Ledger
from hwnas.search.ray_cluster import cluster
from hwnas.search.ray_driver import run_trials
from hwnas.search.session import SearchSession
from hwnas.spaces import Candidate

from .fixtures import bare_space
from .sessions import cost

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # nodes cannot import the tests
SPACE = bare_space(4, 4, 4, 4)


@dataclass(frozen=True)
class Waiting:
    """Every step leaves a mark with its node; the second step of the first trial to come so far waits for long."""

    folder: str
    steps: int = 3

    def start(self, candidate: Candidate, seed: int) -> WaitingEvaluation:
        return WaitingEvaluation(Path(self.folder), seed)


class WaitingEvaluation:
    def __init__(self, folder: Path, number: int) -> None:
        self.folder, self.number, self.taken = folder, number, 0

    def step(self) -> float:
        self.taken += 1
        with (self.folder / str(self.number)).open("a") as file:
            file.write(f"{self.taken} {ray.get_runtime_context().get_node_id()}\n")
        if self.taken == 2 and self.number == 0 and not (self.folder / "lost").exists():
            time.sleep(300)
        return 0.5 + 0.1 * self.number


@pytest.mark.slow
def test_a_trial_whose_node_is_lost_is_run_again_elsewhere_and_counted_once(tmp_path: Path) -> None:
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    marks = tmp_path / "marks"
    marks.mkdir()
    nodes = {node.node_id: node for node in (made.add_node(num_cpus=1), made.add_node(num_cpus=1))}
    taken: list[str] = []

    def lose_the_node_of_the_first_trial() -> None:
        while not (marks / "0").exists() or len((marks / "0").read_text().splitlines()) < 2:
            time.sleep(0.1)
        taken.append((marks / "0").read_text().split()[-1])
        (marks / "lost").touch()
        made.remove_node(nodes[taken[0]], allow_graceful=False)

    ledger = Ledger(tmp_path / "optuna.db", SPACE, "latency_ms")
    controller = make_controller("random", SPACE, Objective(cost, (Goal(7.0),)), 0)
    session = SearchSession(controller, ledger, tmp_path / "controller.json", trials=4, steps=3)
    try:
        with cluster(address=made.address):
            loser = threading.Thread(target=lose_the_node_of_the_first_trial)
            loser.start()
            run_trials(
                session,
                Waiting(str(marks)),
                tmp_path,
                workers=2,
                early_stopping=False,
                seed=0,
                on_trial=lambda trial: None,
            )
            loser.join()
    finally:
        made.shutdown()
    trials = Ledger(tmp_path / "optuna.db", SPACE, "latency_ms").trials()
    assert [(t.number, t.state, t.steps, t.accuracy) for t in trials] == [
        (n, "complete", 3, pytest.approx(0.5 + 0.1 * n)) for n in range(4)
    ]
    steps, places = zip(*(line.split() for line in (marks / "0").read_text().splitlines()), strict=True)
    assert steps == ("1", "2", "1", "2", "3")
    assert set(places[:2]) == set(taken)
    assert set(places[2:]).isdisjoint(taken)
