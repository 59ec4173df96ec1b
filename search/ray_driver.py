"""Trials on a Ray cluster that was joined."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # an interrupt ends the driver; the ledger has everything
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # the ledger and `Curves` are enough
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "86400")  # nor does anybody read Tune's own account of the trials

import numpy as np
import ray
import torch
from ray import tune
from ray.tune.error import TuneError
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from hwnas.search.curves import Curves
from hwnas.search.evaluators.base import Evaluation, Evaluator
from hwnas.search.halving import SuccessiveHalving
from hwnas.search.ledger import State, Trial
from hwnas.search.ray_measuring import Measurement, MeasuringNode
from hwnas.search.ray_nodes import (
    MAX_FAILURES,
    ONE_CPU,
    as_ray_says,
    check_resources,
    own_version,
    threads_of,
    wrong_version,
)
from hwnas.search.session import SearchSession
from hwnas.spaces.errors import UnavailableError
from hwnas.spaces.files import is_full, no_room

logging.getLogger("ray.tune.execution.experiment_state").setLevel(logging.CRITICAL)  # `DiskFullError` says it better
MEASURED = "measured/"
"""What the names of measured costs begin with in a trial's last result, which Tune takes for a flat one."""


def run_trials(
    session: SearchSession,
    evaluator: Evaluator,
    folder: Path,
    *,
    workers: int,
    early_stopping: bool,
    seed: int,
    on_trial: Callable[[Trial], None],
    resources: Mapping[str, float] = ONE_CPU,
    measuring: Sequence[MeasuringNode] = (),
    note: Callable[[str], None] = lambda words: None,
) -> None:
    """Evaluates the session's candidates as Tune trials until there are no more.

    Args:
        session: Hands out candidates and takes results.
        evaluator: Put into Ray's object store once, from where every worker takes it.
        folder: For Tune's own files, TensorBoard logs among them.
        workers: Trials at a time.
        early_stopping: Whether trials whose reward is hopeless for their steps are stopped, see `SuccessiveHalving`.
        seed: Added to a trial's number, it seeds that trial.
        on_trial: Called after each trial.
        resources: That a trial takes of its node, by name: ``cpu``, ``gpu``, and the node's own such as ``device:pi5``.
        measuring: Where candidates are measured meanwhile; what they cost is predicted otherwise.
        note: Hears what could not be measured.

    Raises:
        UnavailableError: No node has the resources, or a node has another version of hwnas.
        DiskFullError: There is no room for what must be written; what was finished is kept.
    """
    check_resources(resources, taken=[node.id for node in measuring])
    searcher = _SessionSearcher(session, evaluator.steps, seed, Curves(folder / "tune"), on_trial, note)
    trainable = tune.with_parameters(
        _Trial, evaluator=evaluator, threads=threads_of(resources), version=own_version(), measuring=tuple(measuring)
    )
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(workers)  # all workers start at once, as much as a searcher can
    tuner = tune.Tuner(
        tune.with_resources(trainable, tune.PlacementGroupFactory([as_ray_says(resources)])),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=_Halving(session, evaluator.steps) if early_stopping else FIFOScheduler(),
            num_samples=-1,
            max_concurrent_trials=workers,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: f"trial-{trial.config['number']:05d}",
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder.resolve()),
            # The searcher begins again itself: Tune gives up a trial whose process dies as it takes up a candidate.
            failure_config=tune.FailureConfig(max_failures=0),
            stop=_AtFailure(searcher),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    except (TuneError, OSError) as error:
        if "No space left on device" in str(error) or (isinstance(error, OSError) and is_full(error)):
            raise no_room(folder) from error
        raise
    if searcher.failure is not None:
        raise searcher.failure


class _SessionSearcher(Searcher):  # type: ignore[misc]
    """Lets Tune draw its trials from a session.

    What the session raises is kept in ``failure``, and ends the search: Tune would take it for a failure of the trial,
    and evaluate it again.
    """

    def __init__(
        self,
        session: SearchSession,
        steps: int,
        seed: int,
        curves: Curves,
        on_trial: Callable[[Trial], None],
        note: Callable[[str], None],
    ) -> None:
        super().__init__(metric="reward", mode="max")
        self.session = session
        self.steps = steps
        self.seed = seed
        self.curves = curves
        self.on_trial = on_trial
        self.note = note
        self.numbers: dict[str, int] = {}  # of the trials under way
        self.deaths: Counter[int] = Counter()
        self.accuracies: dict[int, list[float]] = {}
        self.failure: Exception | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Tune stores its searcher; this one's state is the session's, which is stored elsewhere."""
        return Searcher, ("reward", "max")

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next candidate as a trial's configuration."""
        trial = None
        with self._remembering():
            trial = self.session.next()
        if trial is None:
            # What is under way may have to be handed out again.
            return None if self.numbers and self.failure is None else str(Searcher.FINISHED)
        self.numbers[trial_id] = trial.number
        return {
            "number": trial.number,
            "candidate": self.session.controller.space.decode(trial.row).to_json(),
            "reward_per_accuracy": reward_per_accuracy(self.session, trial),
            "seed": self.seed + trial.number,
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Notes what a trial has come to."""
        self._add_result(self.numbers[trial_id], result)

    def _add_result(self, number: int, result: Mapping[str, Any]) -> None:
        """One that began again begins its curve again."""
        step = int(result["training_iteration"])
        accuracies = self.accuracies.setdefault(number, [])
        del accuracies[step - 1 :]
        accuracies.append(float(result["accuracy"]))
        self.curves.add(number, step, accuracies[-1], float(result["reward"]))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Records the last result of a trial."""
        if self.failure is not None:
            return  # Tune is ending trials that were not done
        number = self.numbers.pop(trial_id)
        result = result or {}
        died = error or not result
        self.deaths[number] += died
        if died and self.deaths[number] <= MAX_FAILURES:
            self.session.again(number)
            return
        failed = result.get("error") or ("its worker process died repeatedly" if died else "")
        with self._remembering():
            if result.get("refused"):
                raise UnavailableError(failed)
            if not failed:
                self._add_result(number, result)
            self.curves.close(number)
            curve = self.accuracies.pop(number, [])
            if failed:
                done = self.session.finish(number, "failed", accuracy=None, steps=0, error=failed, curve=curve)
            else:
                state: State = "complete" if len(curve) >= self.steps else "pruned"
                measured = {k.removeprefix(MEASURED): v for k, v in result.items() if k.startswith(MEASURED)}
                if lacking := result.get("lacking"):
                    self.note(f"trial {number + 1} is judged by prediction: {lacking}")
                done = self.session.finish(
                    number, state, accuracy=curve[-1], steps=len(curve), curve=curve, measured=measured
                )
            self.on_trial(done)

    @contextmanager
    def _remembering(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.failure = self.failure or error

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the session saves itself."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a resumed run makes a new session."""


def reward_per_accuracy(session: SearchSession, trial: Trial) -> float:
    """What a trial's accuracy is multiplied by."""
    return float(session.controller.objective.reward(1.0, trial.costs))  # type: ignore[arg-type]


class _Halving(FIFOScheduler):  # type: ignore[misc]
    """Stops hopeless trials; begins with what the session's finished trials had shown."""

    def __init__(self, session: SearchSession, steps: int) -> None:
        super().__init__()
        self.rule = SuccessiveHalving(steps)
        self.session = session
        for trial in session.ledger.finished:
            for step, accuracy in enumerate(trial.curve, 1):
                self._stops(trial.number, step, accuracy)

    def __reduce__(self) -> tuple[Any, ...]:
        """Tune stores its scheduler; what this one knows is the session's, which is stored elsewhere."""
        return FIFOScheduler, ()

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether the trial goes on."""
        hopeless = self._stops(trial.config["number"], int(result["training_iteration"]), float(result["accuracy"]))
        return str(TrialScheduler.STOP if hopeless else TrialScheduler.CONTINUE)

    def _stops(self, number: int, step: int, accuracy: float) -> bool:
        objective, trial = self.session.controller.objective, self.session.ledger[number]
        costs = {name: np.array([value]) for name, value in trial.costs.items()}
        return self.rule.stops(number, step, accuracy, objective.factors(costs)[0])


class _AtFailure(tune.Stopper):  # type: ignore[misc]
    """Stops everything when the session cannot go on."""

    def __init__(self, searcher: _SessionSearcher) -> None:
        self.searcher = searcher

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No single trial."""
        return False

    def stop_all(self) -> bool:
        """Whether to end the search."""
        return self.searcher.failure is not None


class _Trial(tune.Trainable):  # type: ignore[misc]
    """One candidate under evaluation in a worker process; the process is reused for the next candidate."""

    def setup(
        self,
        config: dict[str, Any],
        evaluator: Evaluator,
        threads: int,
        version: str,
        measuring: tuple[MeasuringNode, ...],
    ) -> None:
        """Begins with a candidate, unless this node has another version of hwnas than the driver."""
        torch.set_num_threads(threads)
        self.evaluator = evaluator
        self.measuring = measuring
        self.measurement = Measurement((), "")
        self.refusal = wrong_version(f"node {ray.util.get_node_ip_address()}", own_version(), version)
        self._start(config)

    def step(self) -> dict[str, Any]:
        """One unit of budget. What the candidate's own training raises ends the trial, not the search."""
        if self.refusal:
            return {"accuracy": 0.0, "reward": 0.0, "error": self.refusal, "refused": True, "done": True}
        try:
            accuracy = self.evaluation.step() if self.evaluation is not None else 0.0
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"
        if self.error:
            return {"accuracy": 0.0, "reward": 0.0, "error": self.error, "done": True}
        done = self.iteration + 1 >= self.evaluator.steps
        result = {"accuracy": accuracy, "reward": accuracy * self.factor, "error": "", "done": done}
        if done:
            found = self.measurement.take()
            result |= {"lacking": found.lacking, **{MEASURED + name: cost for name, cost in found.measured.items()}}
        return result

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
        self.measurement.drop()
        self.measurement = Measurement(self.measuring, config["candidate"])
        self.error = ""
        self.evaluation: Evaluation | None = None
        try:
            self.evaluation = self.evaluator.start(Candidate.from_json(config["candidate"]), config["seed"])
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"
