"""One search between its controller and its ledger, so that it can be killed at any moment and continued."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hwnas.search.controllers.controller import Controller
from hwnas.search.ledger import NOTHING, Ledger, State, Stopwatch, Trial
from hwnas.spaces.errors import InfeasibleError, InvalidFileError
from hwnas.spaces.files import write_text

Answer = TypeVar("Answer")
SAVED_WORTH = 10.0
"""The controller's state is written when it took so many times as long to reach it as to write it."""


class SearchSession:
    """Hands out candidates and takes results in; everything is on disk before anybody acts on it.

    A candidate enters the ledger before it is evaluated, and a result enters it before it is told to the controller.
    The ledger knows the order of both, so it is the whole story. The controller's state is written only now and then:
    what it lacks is made up for at the next start, by asking and telling the same again, which a controller answers in
    the same way. Where it does not (another version of it, another processor), the candidates of the ledger hold, and
    it is told their results. So whatever was between two steps when the process died, no result is lost, and
    candidates that were not evaluated are handed out again under their old numbers.

    Args:
        controller: Fresh; its state is restored from ``state_path`` where that exists.
        ledger: Of the same run.
        state_path: The controller's state, as JSON.
        trials: Candidates to evaluate in all.
        minutes: Time after which no further candidate is handed out.
        steps: Units of budget that a full evaluation takes.

    Attributes:
        controller_s: Seconds that the controller took to be asked and told, in this session.

    Raises:
        InvalidFileError: The controller's state cannot be restored.
        DiskFullError: There is no room for it.
    """

    def __init__(
        self,
        controller: Controller,
        ledger: Ledger,
        state_path: Path,
        *,
        trials: int,
        minutes: float | None = None,
        steps: int = 1,
    ) -> None:
        self.controller = controller
        self.ledger = ledger
        self.state_path = state_path
        self.trials = trials
        self.minutes = minutes
        self.steps = steps
        known = ledger.trials()
        self.clock = Stopwatch(max((t.finished_s for t in known), default=0.0))
        self._asked = 0
        self._told = 0
        self.controller_s = self._saved_s = self._saving_s = 0.0
        self._unsaved = False
        results = sorted((t for t in known if t.state != "running"), key=lambda t: t.place or 0)
        if state_path.exists():
            self._restore(known, results)
        else:
            self._catch_up(known, results)
            self._save()
        self._queue = deque(t for t in known if t.state == "running")
        self._running = len(self._queue)

    @property
    def exhausted(self) -> bool:
        """Whether no further candidate will be handed out."""
        out_of_time = self.minutes is not None and self.clock() > 60 * self.minutes
        return not self._queue and (self._asked >= self.trials or out_of_time)

    def next(self) -> Trial | None:
        """The next candidate to evaluate, or None when there are no more.

        Raises:
            InfeasibleError: No candidate meets the constraints.
            InvalidFileError: Another search is writing to the same run folder.
            DiskFullError: There is no room to record it.
        """
        if self._queue:
            return self._queue.popleft()
        if self.exhausted:
            self._save_at_the_end()
            return None
        try:
            row = self._timed(lambda: self.controller.ask(1)[0])
        except InfeasibleError:
            if not self._asked:
                raise
            self.trials = self._asked  # the space is exhausted
            self._save_at_the_end()
            return None
        costs = {name: float(values[0]) for name, values in self.controller.objective.cost(row[None]).items()}
        trial = self.ledger.begin(row, costs)
        self._asked += 1
        self._running += 1
        self._save_if_worth()
        return trial

    def again(self, number: int) -> None:
        """Hands out a candidate once more, whose evaluation was lost."""
        self._queue.appendleft(self.ledger[number])

    def finish(
        self,
        number: int,
        state: State,
        *,
        accuracy: float | None,
        steps: int,
        error: str = "",
        curve: Sequence[float] = (),
        measured: Mapping[str, float] = NOTHING,
    ) -> Trial:
        """Records what became of a candidate, and tells the controller; raises `DiskFullError` before it does.

        ``measured`` are costs by name that count instead of those that were predicted.
        """
        trial = self.ledger[number]
        reward = None
        if accuracy is not None:
            costs = {name: np.array([value]) for name, value in {**trial.costs, **measured}.items()}
            reward = float(self.controller.objective.reward(np.array([accuracy]), costs)[0])
        done = self.ledger.end(
            number,
            state,
            accuracy=accuracy,
            reward=reward,
            steps=steps,
            finished_s=self.clock(),
            error=error,
            curve=curve,
            measured=measured,
        )
        self._running -= 1
        self._tell(done)
        if self.exhausted:
            self._save_at_the_end()
        else:
            self._save_if_worth()
        return done

    def _tell(self, trial: Trial) -> None:
        accuracy = np.nan if trial.accuracy is None or trial.state == "failed" else trial.accuracy
        metrics = {"accuracy": np.array([accuracy]), "fidelity": np.array([min(1.0, trial.steps / self.steps)])}
        metrics |= {name: np.array([value]) for name, value in trial.measured.items()}
        self._timed(lambda: self.controller.tell(trial.row[None], metrics))
        self._told += 1

    def _timed(self, call: Callable[[], Answer]) -> Answer:
        begun = time.perf_counter()
        try:
            return call()
        finally:
            self.controller_s += time.perf_counter() - begun
            self._unsaved = True

    def _save_if_worth(self) -> None:
        if self.controller_s - self._saved_s >= SAVED_WORTH * self._saving_s:
            self._save()

    def _save_at_the_end(self) -> None:
        if self._unsaved and not self._running:
            self._save()

    def _save(self) -> None:
        begun = time.perf_counter()
        state = {"controller": self.controller.state_dict(), "asked": self._asked, "told": self._told}
        write_text(self.state_path, json.dumps(state))
        self._saving_s = time.perf_counter() - begun
        self._saved_s = self.controller_s
        self._unsaved = False

    def _restore(self, known: Sequence[Trial], results: Sequence[Trial]) -> None:
        try:
            state = json.loads(self.state_path.read_text())
            self._load(state)
            if not (0 <= self._told <= len(results) and self._told <= self._asked <= len(known)):
                raise ValueError(f"{self._asked} candidates and {self._told} results, which optuna.db does not have")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidFileError(
                f"{self.state_path} cannot be restored ({error!r}); delete it to let the controller learn afresh "
                "from the trials in optuna.db"
            ) from error
        if not self._replay(known, results):
            self._load(state)
            self._catch_up(known, results)

    def _load(self, state: Any) -> None:
        self.controller.load_state_dict(state["controller"])
        self._asked, self._told = int(state["asked"]), int(state["told"])

    def _replay(self, known: Sequence[Trial], results: Sequence[Trial]) -> bool:
        """Whether the controller, asked and told again what its state lacks, gave the candidates of the ledger."""
        for trial in known[self._asked :]:
            for result in results[self._told : trial.results_before]:
                self._tell(result)
            try:
                row = self._timed(lambda: self.controller.ask(1)[0])
            except InfeasibleError:
                return False
            if not np.array_equal(row, trial.row):
                return False
            self._asked += 1
        for result in results[self._told :]:
            self._tell(result)
        return True

    def _catch_up(self, known: Sequence[Trial], results: Sequence[Trial]) -> None:
        """Tells the controller what its state lacks, without asking."""
        for result in results[self._told :]:
            self._tell(result)
        for trial in known:
            self.controller.avoid(trial.row)
        self._asked = len(known)
