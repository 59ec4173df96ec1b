"""Trials and trainings on a Ray cluster that was joined."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # an interrupt ends the driver; the ledger has everything

import ray
import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
from ray.tune.search import Searcher

from hwnas.search.evaluators.base import Evaluation, Evaluator
from hwnas.search.ledger import State, Trial
from hwnas.search.session import SearchSession

Result = TypeVar("Result")
MAX_FAILURES = 2
"""Times a trial is started again after its worker process died; errors that it raised itself are not retried."""


def run_trials(
    session: SearchSession,
    evaluator: Evaluator,
    folder: Path,
    *,
    workers: int,
    early_stopping: bool,
    seed: int,
    on_trial: Callable[[Trial], None],
) -> None:
    """Evaluates the session's candidates as Tune trials until there are no more.

    Args:
        session: Hands out candidates and takes results.
        evaluator: Sent to the workers once.
        folder: For Tune's own files, TensorBoard logs among them.
        workers: Trials at a time.
        early_stopping: Whether ASHA (Li et al., MLSys 2020) stops trials whose reward is hopeless for their steps.
        seed: Added to a trial's number, it seeds that trial.
        on_trial: Called after each trial.
    """
    searcher = _SessionSearcher(session, evaluator.steps, seed, on_trial)
    scheduler: Any = FIFOScheduler()
    if early_stopping and evaluator.steps >= 3:
        scheduler = ASHAScheduler(
            time_attr="training_iteration",
            metric="reward",
            mode="max",
            max_t=evaluator.steps,
            grace_period=max(1, evaluator.steps // 3),
            reduction_factor=2,
        )
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(_Trial, evaluator=evaluator), {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,
            max_concurrent_trials=workers,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: f"trial-{trial.config['number']:05d}",
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder.resolve()),
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            verbose=0,
        ),
    )
    tuner.fit()


def map_parallel(function: Callable[..., Result], shared: object, arguments: Sequence[tuple[Any, ...]]) -> list[Result]:
    """``function(shared, *arguments[i])`` for every i, each in a worker process with one CPU, results in order."""
    reference = ray.put(shared)
    remote = ray.remote(num_cpus=1, max_retries=MAX_FAILURES)(_single_threaded)
    results: list[Result] = ray.get([remote.remote(function, reference, *args) for args in arguments])
    return results


def _single_threaded(function: Callable[..., Result], *arguments: Any) -> Result:
    torch.set_num_threads(1)
    return function(*arguments)


class _SessionSearcher(Searcher):  # type: ignore[misc]
    """Lets Tune draw its trials from a session."""

    def __init__(self, session: SearchSession, steps: int, seed: int, on_trial: Callable[[Trial], None]) -> None:
        super().__init__(metric="reward", mode="max")
        self.session = session
        self.steps = steps
        self.seed = seed
        self.on_trial = on_trial
        self.numbers: dict[str, int] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Tune stores its searcher; this one's state is the session's, which is stored elsewhere."""
        return Searcher, ("reward", "max")

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next candidate as a trial's configuration."""
        trial = self.session.next()
        if trial is None:
            return str(Searcher.FINISHED)
        self.numbers[trial_id] = trial.number
        objective = self.session.controller.objective
        factor = objective.reward(1.0, trial.costs)  # type: ignore[arg-type]
        return {
            "number": trial.number,
            "candidate": self.session.controller.space.decode(trial.row).to_json(),
            "reward_per_accuracy": float(factor),
            "seed": self.seed + trial.number,
        }

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Records the last result of a trial."""
        number = self.numbers.pop(trial_id)
        result = result or {}
        if message := result.get("error") or ("its worker process died repeatedly" if error or not result else ""):
            done = self.session.finish(number, "failed", accuracy=None, steps=0, error=message)
        else:
            steps = int(result["training_iteration"])
            state: State = "complete" if steps >= self.steps else "pruned"
            done = self.session.finish(number, state, accuracy=float(result["accuracy"]), steps=steps)
        self.on_trial(done)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the session saves itself."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a resumed run makes a new session."""


class _Trial(tune.Trainable):  # type: ignore[misc]
    """One candidate under evaluation in a worker process; the process is reused for the next candidate."""

    def setup(self, config: dict[str, Any], evaluator: Evaluator) -> None:
        """Begins with a candidate."""
        torch.set_num_threads(1)
        self.evaluator = evaluator
        self._start(config)

    def step(self) -> dict[str, Any]:
        """One unit of budget. What the candidate's own training raises ends the trial, not the search."""
        try:
            accuracy = self.evaluation.step() if self.evaluation is not None else 0.0
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"
        if self.error:
            return {"accuracy": 0.0, "reward": 0.0, "error": self.error, "done": True}
        done = self.iteration + 1 >= self.evaluator.steps
        return {"accuracy": accuracy, "reward": accuracy * self.factor, "error": "", "done": done}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begins with another candidate in the same process."""
        self._start(new_config)
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a trial whose process died begins again with the same seed."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to load."""

    def _start(self, config: dict[str, Any]) -> None:
        from hwnas.spaces.candidate import Candidate

        self.factor = float(config["reward_per_accuracy"])
        self.error = ""
        self.evaluation: Evaluation | None = None
        try:
            self.evaluation = self.evaluator.start(Candidate.from_json(config["candidate"]), config["seed"])
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"
