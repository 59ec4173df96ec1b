"""One search between its controller and its ledger, so that it can be killed at any moment and continued."""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwnas.search.controller import Controller
from hwnas.search.ledger import Ledger, State, Stopwatch, Trial
from hwnas.spaces.errors import InfeasibleError, InvalidFileError
from hwnas.spaces.files import write_text


class SearchSession:
    """Hands out candidates and takes results in; everything is on disk before anybody acts on it.

    A candidate is written to the controller's state before it enters the ledger, and a result enters the ledger before
    it is told to the controller. Whatever was between two steps when the process died is made up for at the next start:
    results not told are told, candidates not evaluated are handed out again under their old numbers.

    Args:
        controller: Fresh; its state is restored from ``state_path`` where that exists.
        ledger: Of the same run.
        state_path: The controller's state, as JSON.
        trials: Candidates to evaluate in all.
        minutes: Time after which no further candidate is handed out.
    """

    def __init__(
        self, controller: Controller, ledger: Ledger, state_path: Path, *, trials: int, minutes: float | None = None
    ) -> None:
        self.controller = controller
        self.ledger = ledger
        self.state_path = state_path
        self.trials = trials
        self.minutes = minutes
        known = ledger.trials()
        self.clock = Stopwatch(max((t.finished_s for t in known), default=0.0))
        self._told: set[int] = set()
        self._pending: dict[int, NDArray[np.int16]] = {}
        if state_path.exists():
            self._restore()
        for trial in known:
            if trial.state != "running" and trial.number not in self._told:
                self._tell(trial)
        for trial in known:
            controller.avoid(trial.row)
        self._count = len(known)
        for number in sorted(self._pending):
            if number >= self._count:
                self._begin(number, self._pending[number])
        self._queue = deque(t for t in ledger.trials() if t.state == "running")

    @property
    def exhausted(self) -> bool:
        """Whether no further candidate will be handed out."""
        out_of_time = self.minutes is not None and self.clock() > 60 * self.minutes
        return not self._queue and (self._count >= self.trials or out_of_time)

    def next(self) -> Trial | None:
        """The next candidate to evaluate, or None when there are no more."""
        if self._queue:
            return self._queue.popleft()
        if self.exhausted:
            return None
        try:
            row = self.controller.ask(1)[0]
        except InfeasibleError:
            if not self._count:
                raise
            self.trials = self._count  # the space is exhausted
            return None
        number = self._count
        self._pending[number] = row
        self._save()
        self._begin(number, row)
        return self.ledger.trials()[number]

    def finish(self, number: int, state: State, *, accuracy: float | None, steps: int, error: str = "") -> Trial:
        """Records what became of a candidate, and tells the controller."""
        trial = self.ledger.trials()[number]
        reward = None
        if accuracy is not None:
            objective = self.controller.objective
            reward = float(
                objective.reward(np.array([accuracy]), {k: np.array([v]) for k, v in trial.costs.items()})[0]
            )
        self.ledger.end(
            number, state, accuracy=accuracy, reward=reward, steps=steps, finished_s=self.clock(), error=error
        )
        done = self.ledger.trials()[number]
        self._tell(done)
        self._save()
        return done

    def _begin(self, number: int, row: NDArray[np.int16]) -> None:
        costs = {name: float(values[0]) for name, values in self.controller.objective.cost(row[None]).items()}
        given = self.ledger.begin(row, costs)
        if given != number:
            raise InvalidFileError(f"trial {number} became {given}: another search is writing to the same run folder")
        self._count = number + 1

    def _tell(self, trial: Trial) -> None:
        accuracy = np.nan if trial.accuracy is None or trial.state == "failed" else trial.accuracy
        self.controller.tell(trial.row[None], {"accuracy": np.array([accuracy])})
        self._told.add(trial.number)
        self._pending.pop(trial.number, None)

    def _save(self) -> None:
        state = {
            "controller": self.controller.state_dict(),
            "told": sorted(self._told),
            "pending": {str(number): row.tolist() for number, row in self._pending.items()},
        }
        write_text(self.state_path, json.dumps(state))

    def _restore(self) -> None:
        try:
            state = json.loads(self.state_path.read_text())
            self.controller.load_state_dict(state["controller"])
            self._told = set(state["told"])
            self._pending = {int(n): np.array(row, dtype=np.int16) for n, row in state["pending"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidFileError(
                f"{self.state_path} cannot be restored ({error!r}); delete it to let the controller learn afresh "
                "from the trials in optuna.db"
            ) from error
