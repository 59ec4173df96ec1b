"""A search with nothing to train, as a process that can be killed: ``python -m hwnas.scripts.made_up_search``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from hwnas.search.controllers.controller import make_controller
from hwnas.search.goal import Costs, Goal
from hwnas.search.ledger import Ledger, Trial
from hwnas.search.objective import Objective
from hwnas.search.session import SearchSession
from hwnas.spaces.candidate import Candidate
from hwnas.spaces.decision import Decision
from hwnas.spaces.space import Rows, Space

METRIC = "latency_ms"
BEGUN = "begun"
"""File with the number of every evaluation that began, one a line."""


@dataclass(frozen=True, slots=True)
class MadeUpSearch:
    """What to search, and where.

    Attributes:
        folder: For everything that the search writes.
        controller: Its name.
        trials, workers, seed: As in a search's file.
        steps: Of an evaluation; trials are stopped early where there are three or more.
        step_s: Seconds that each of them takes.
    """

    folder: str
    controller: str = "evolution"
    trials: int = 12
    workers: int = 1
    seed: int = 0
    steps: int = 4
    step_s: float = 0.05

    @property
    def command(self) -> list[str]:
        """What runs it in a process of its own."""
        return [sys.executable, "-m", "hwnas.scripts.made_up_search", json.dumps(asdict(self))]

    def session(self) -> SearchSession:
        """Opened as at the start of a run, and when it is resumed."""
        objective = Objective(_cost, (Goal(20.0, METRIC),))
        controller = make_controller(self.controller, space(), objective, self.seed)
        state = Path(self.folder, "controller.json")
        return SearchSession(controller, self.ledger(), state, trials=self.trials, steps=self.steps)

    def ledger(self) -> Ledger:
        """Its trials."""
        return Ledger(Path(self.folder, "optuna.db"), space(), METRIC)

    def run(self, session: SearchSession, on_trial: Callable[[Trial], None] = lambda trial: None) -> None:
        """The trials that are left, on the cluster that was joined."""
        from hwnas.search.ray_driver import run_trials

        run_trials(
            session,
            MadeUpEvaluator(self.steps, self.step_s, self.seed, str(Path(self.folder, BEGUN).resolve())),
            Path(self.folder),
            workers=self.workers,
            early_stopping=True,
            seed=self.seed,
            on_trial=on_trial,
        )


def space() -> Space:
    """Eight decisions and no networks: 390,625 candidates."""
    decisions = [Decision(f"layer{i}.width", (8, 16, 24, 32, 40)) for i in range(8)]
    return Space(name="made-up", spec={}, decisions=decisions, slots=[], input_shape=(1, 8, 8), num_classes=2)


def _cost(rows: Rows) -> Costs:
    total = 1.0 + np.atleast_2d(rows).sum(axis=1)
    return {METRIC: total, "macs": 1e6 * total}


@dataclass(frozen=True, slots=True)
class MadeUpEvaluator:
    """Wide layers are good, each candidate has its luck, and every seed has its noise."""

    steps: int
    step_s: float
    first_seed: int
    begun: str

    def start(self, candidate: Candidate, seed: int) -> MadeUpEvaluation:
        """See `hwnas.search.evaluators.base.Evaluator`."""
        if self.step_s:
            with Path(self.begun).open("a") as file:
                file.write(f"{seed - self.first_seed}\n")
        luck = np.random.default_rng(int(candidate.digest, 16)).uniform()
        width = float(np.mean([float(value) for value in candidate.values()])) / 40
        return MadeUpEvaluation(0.3 + 0.4 * width**0.5 + 0.2 * luck, np.random.default_rng(seed), self.step_s)


@dataclass(slots=True)
class MadeUpEvaluation:
    """A candidate that comes nearer to its accuracy with each step."""

    accuracy: float
    rng: np.random.Generator
    step_s: float
    taken: int = 0

    def step(self) -> float:
        """See `hwnas.search.evaluators.base.Evaluation`."""
        time.sleep(self.step_s)
        self.taken += 1
        return float(self.accuracy * (1 - 0.5**self.taken) + 0.01 * self.rng.normal())


def main() -> None:
    """Searches as the argument, `MadeUpSearch` in JSON, says; begins or continues."""
    from hwnas.search.ray_cluster import cluster

    search = MadeUpSearch(**json.loads(sys.argv[1]))
    session = search.session()
    if not session.exhausted:
        with cluster(search.workers):
            search.run(session)


if __name__ == "__main__":
    main()
