"""Every trial of a run, in an Optuna storage: what a resumed search continues from, and what a dashboard shows."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from hwnas.spaces.errors import InvalidFileError
from hwnas.spaces.space import Space

STUDY = "search"
State = Literal["running", "complete", "pruned", "failed"]
_STATES: dict[TrialState, State] = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


@dataclass(frozen=True, slots=True)
class Trial:
    """One candidate and what became of it.

    Attributes:
        number: From 0, in the order they were asked.
        row: Canonical encoding, shape (decisions,).
        digest: Of the candidate.
        state: ``complete``, ``pruned`` (stopped early), ``failed``, or ``running``.
        accuracy: The last validation accuracy, a share, or None.
        reward: The objective's value for it, or None.
        steps: Units of budget spent.
        costs: By name, from the cost model.
        error: Why it failed.
        finished_s: Seconds from the run's beginning, time away between resumes not counted.
    """

    number: int
    row: NDArray[np.int16]
    digest: str
    state: State
    accuracy: float | None
    reward: float | None
    steps: int
    costs: Mapping[str, float]
    error: str
    finished_s: float


class Ledger:
    """The trials of one run in ``optuna.db``, a study of two objectives: accuracy up, the metric down.

    Args:
        path: Of the SQLite file; created where there is none.
        space: Of the candidates.
        metric: The cost that is the second objective.

    Raises:
        InvalidFileError: The file is no such storage, or holds candidates of another space.
    """

    def __init__(self, path: Path, space: Space, metric: str) -> None:
        self.space = space
        self.metric = metric
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            self.study = optuna.create_study(
                storage=f"sqlite:///{path}",
                study_name=STUDY,
                directions=["maximize", "minimize"],
                load_if_exists=True,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self.study.set_metric_names(["accuracy", metric])
        except Exception as error:
            raise InvalidFileError(f"{path} is not a usable Optuna storage: {error}") from error
        self._distributions: dict[str, BaseDistribution] = {
            d.name: CategoricalDistribution(d.options) for d in space.decisions
        }

    def begin(self, row: NDArray[np.int16], costs: Mapping[str, float]) -> int:
        """Records a candidate that is about to be evaluated; its number."""
        candidate = self.space.decode(row)
        trial = create_trial(
            state=TrialState.RUNNING,
            params=dict(candidate),
            distributions=self._distributions,
            user_attrs={"digest": candidate.digest, "row": [int(i) for i in row], "costs": dict(costs)},
        )
        self.study.add_trial(trial)
        return len(self.study.get_trials(deepcopy=False)) - 1

    def end(
        self,
        number: int,
        state: State,
        *,
        accuracy: float | None,
        reward: float | None,
        steps: int,
        finished_s: float,
        error: str = "",
    ) -> None:
        """Records what became of a candidate."""
        frozen = self.study.get_trials(deepcopy=False)[number]
        trial = optuna.trial.Trial(self.study, frozen._trial_id)
        result = {"accuracy": accuracy, "reward": reward, "steps": steps, "finished_s": finished_s, "error": error}
        trial.set_user_attr("result", result)
        if state == "complete":
            assert accuracy is not None
            self.study.tell(trial, [accuracy, frozen.user_attrs["costs"][self.metric]])
        else:
            self.study.tell(trial, state=TrialState.PRUNED if state == "pruned" else TrialState.FAIL)

    def trials(self) -> list[Trial]:
        """All trials in the order of their numbers."""
        return [self._trial(t) for t in self.study.get_trials(deepcopy=False)]

    @property
    def finished(self) -> list[Trial]:
        """Those that will not be evaluated again."""
        return [t for t in self.trials() if t.state != "running"]

    def _trial(self, frozen: FrozenTrial) -> Trial:
        attributes: Mapping[str, Any] = frozen.user_attrs
        result = attributes.get("result", {})
        row = np.array(attributes["row"], dtype=np.int16)
        if len(row) != len(self.space.decisions):
            raise InvalidFileError("the run's optuna.db holds candidates of another space; start a new run folder")
        return Trial(
            number=frozen.number,
            row=row,
            digest=attributes["digest"],
            state=_STATES[frozen.state],
            accuracy=result.get("accuracy"),
            reward=result.get("reward"),
            steps=result.get("steps", 0),
            costs=attributes["costs"],
            error=result.get("error", ""),
            finished_s=result.get("finished_s", 0.0),
        )


class Stopwatch:
    """Seconds of searching, continued where an earlier session of the run had stopped."""

    def __init__(self, before_s: float) -> None:
        self._start = time.monotonic() - before_s

    def __call__(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self._start
