"""Every trial of a run, in an Optuna storage: what a resumed search continues from, and what a dashboard shows."""

from __future__ import annotations

import json
import sqlite3
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution, distribution_to_json

from hwnas.spaces.errors import InvalidFileError
from hwnas.spaces.files import no_room
from hwnas.spaces.space import Space

STUDY = "search"
State = Literal["running", "complete", "pruned", "failed"]
_STATES: dict[str, State] = {"RUNNING": "running", "COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
_OPTUNA_STATES = {state: name for name, state in _STATES.items()}
NOTHING: Mapping[str, float] = MappingProxyType({})
LOCKED_S = 60.0
"""So long a write waits for another program that has locked the file."""


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
        measured: Those that were measured for this candidate, by name; they count instead.
        error: Why it failed.
        finished_s: Seconds from the run's beginning, time away between resumes not counted.
        curve: Accuracy after each step.
        results_before: Results that were known when it was asked for.
        place: Of its own result among all results, from 0; None while it runs.
    """

    number: int
    row: NDArray[np.int16]
    digest: str
    state: State
    accuracy: float | None
    reward: float | None
    steps: int
    costs: Mapping[str, float]
    measured: Mapping[str, float]
    error: str
    finished_s: float
    curve: tuple[float, ...]
    results_before: int
    place: int | None

    @property
    def known_costs(self) -> dict[str, float]:
        """By name: as measured, else from the cost model."""
        return {**self.costs, **self.measured}


class Ledger:
    """The trials of one run in ``optuna.db``, a study of two objectives: accuracy up, the metric down.

    All of them are kept in memory, too. Optuna makes the file, and reads it; rows are written past it, each event in
    one transaction that is on disk when the call returns, since Optuna takes eight transactions and a look at all
    trials for the same.

    Args:
        path: Of the SQLite file; created where there is none.
        space: Of the candidates.
        metric: The cost that is the second objective.

    Raises:
        InvalidFileError: The file is no such storage, or holds candidates of another space.
        DiskFullError: There is no room for it.
    """

    def __init__(self, path: Path, space: Space, metric: str) -> None:
        self.path = path
        self.space = space
        self.metric = metric
        try:
            self._study = _open_study(path, metric)
        except Exception as error:
            if "disk is full" in str(error):
                raise no_room(path) from error
            raise InvalidFileError(f"{path} is not a usable Optuna storage: {error}") from error
        self._connection = sqlite3.connect(path, timeout=LOCKED_S, isolation_level=None)
        self._connection.execute("PRAGMA synchronous = FULL")
        self._writing = False
        self._distributions = {
            d.name: distribution_to_json(CategoricalDistribution(d.options)) for d in space.decisions
        }
        self._ids: list[int] = []
        self._trials: list[Trial] = []
        self._results = 0
        for id_, trial in self._read():
            self._ids.append(id_)
            self._trials.append(trial)
            self._results += trial.state != "running"

    def __getitem__(self, number: int) -> Trial:
        return self._trials[number]

    def __len__(self) -> int:
        return len(self._trials)

    def begin(self, row: NDArray[np.int16], costs: Mapping[str, float]) -> Trial:
        """Records a candidate that is about to be evaluated.

        Raises:
            InvalidFileError: Another search is writing to the same file.
            DiskFullError: There is no room; nothing was recorded.
        """
        candidate = self.space.decode(row)
        trial = Trial(
            number=len(self._trials),
            row=np.asarray(row, dtype=np.int16),
            digest=candidate.digest,
            state="running",
            accuracy=None,
            reward=None,
            steps=0,
            costs=dict(costs),
            measured={},
            error="",
            finished_s=0.0,
            curve=(),
            results_before=self._results,
            place=None,
        )
        with self._transaction() as connection:
            last = connection.execute("SELECT trial_id FROM trials ORDER BY trial_id DESC LIMIT 1").fetchone()
            if last != ((self._ids[-1],) if self._ids else None):
                raise InvalidFileError(f"another search is writing to the same run folder: {self.path.parent}")
            id_ = connection.execute(
                "INSERT INTO trials (number, study_id, state, datetime_start) VALUES (?, ?, 'RUNNING', ?)",
                (trial.number, self._study, _now()),
            ).lastrowid
            assert id_ is not None
            connection.executemany(
                "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) VALUES (?, ?, ?, ?)",
                [
                    (id_, d.name, float(i), self._distributions[d.name])
                    for d, i in zip(self.space.decisions, trial.row, strict=True)
                ],
            )
            attributes = {
                "digest": trial.digest,
                "row": trial.row.tolist(),
                "costs": trial.costs,
                "results_before": trial.results_before,
            }
            _set_attributes(connection, id_, attributes)
        self._ids.append(id_)
        self._trials.append(trial)
        return trial

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
        curve: Sequence[float] = (),
        measured: Mapping[str, float] = NOTHING,
    ) -> Trial:
        """Records what became of a candidate; raises `DiskFullError` where there is no room, and records nothing."""
        result: dict[str, Any] = {
            "accuracy": accuracy,
            "reward": reward,
            "steps": steps,
            "finished_s": finished_s,
            "error": error,
            "curve": tuple(curve),
            "measured": dict(measured),
            "place": self._results,
        }
        trial = replace(self._trials[number], state=state, **result)
        id_ = self._ids[number]
        with self._transaction() as connection:
            if state == "complete":
                assert accuracy is not None
                connection.executemany(
                    "INSERT INTO trial_values (trial_id, objective, value, value_type) VALUES (?, ?, ?, 'FINITE')",
                    [(id_, 0, accuracy), (id_, 1, trial.known_costs[self.metric])],
                )
            _set_attributes(connection, id_, {"result": result})
            connection.execute(
                "UPDATE trials SET state = ?, datetime_complete = ? WHERE trial_id = ?",
                (_OPTUNA_STATES[state], _now(), id_),
            )
        self._trials[number] = trial
        self._results += 1
        return trial

    def adopt(self, trial: Trial, costs: Mapping[str, float], reward: float) -> None:
        """Records a finished trial of another run, with its costs and its reward in this one."""
        self.end(
            self.begin(trial.row, costs).number,
            trial.state,
            accuracy=trial.accuracy,
            reward=None if trial.accuracy is None else reward,
            steps=trial.steps,
            finished_s=trial.finished_s,
            error=trial.error,
            curve=trial.curve,
            measured=trial.measured,
        )

    def trials(self) -> list[Trial]:
        """All trials in the order of their numbers."""
        return list(self._trials)

    @property
    def finished(self) -> list[Trial]:
        """Those that will not be evaluated again."""
        return [t for t in self._trials if t.state != "running"]

    def settle(self) -> None:
        """Leaves everything in the one file, which may then be copied; not where another program has it open."""
        with suppress(sqlite3.OperationalError):
            self._connection.execute("PRAGMA journal_mode = DELETE")
            self._writing = False

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it is on disk when the block ends, or nothing where it fails."""
        try:
            if not self._writing:  # one write to disk per transaction, and readers never wait
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._writing = True
            self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection
            self._connection.execute("COMMIT")
        except BaseException as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
                    raise no_room(self.path) from error
                raise InvalidFileError(f"{self.path} cannot be written: {error}") from error
            raise

    def _read(self) -> Iterator[tuple[int, Trial]]:
        attributes: dict[int, dict[str, Any]] = {}
        for id_, key, value in self._connection.execute(
            "SELECT a.trial_id, a.key, a.value_json FROM trial_user_attributes a JOIN trials t USING (trial_id) "
            "WHERE t.study_id = ?",
            (self._study,),
        ):
            attributes.setdefault(id_, {})[key] = json.loads(value)
        for id_, number, state in self._connection.execute(
            "SELECT trial_id, number, state FROM trials WHERE study_id = ? ORDER BY number", (self._study,)
        ):
            yield id_, self._trial(number, _STATES[state], attributes[id_])

    def _trial(self, number: int, state: State, attributes: Mapping[str, Any]) -> Trial:
        result = attributes.get("result", {}) if state != "running" else {}
        row = np.array(attributes["row"], dtype=np.int16)
        if len(row) != len(self.space.decisions):
            raise InvalidFileError("the run's optuna.db holds candidates of another space; start a new run folder")
        return Trial(
            number=number,
            row=row,
            digest=attributes["digest"],
            state=state,
            accuracy=result.get("accuracy"),
            reward=result.get("reward"),
            steps=result.get("steps", 0),
            costs=attributes["costs"],
            measured=result.get("measured", {}),
            error=result.get("error", ""),
            finished_s=result.get("finished_s", 0.0),
            curve=tuple(result.get("curve", ())),
            results_before=attributes["results_before"],
            place=result.get("place"),
        )


def _open_study(path: Path, metric: str) -> int:
    """The id of the run's study, made where there is none."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    study = optuna.create_study(
        storage=storage, study_name=STUDY, directions=["maximize", "minimize"], load_if_exists=True
    )
    names = ["accuracy", metric]
    if study.metric_names != names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(names)
    id_: int = storage.get_study_id_from_name(STUDY)
    storage.remove_session()
    storage.engine.dispose()
    return id_


def _set_attributes(connection: sqlite3.Connection, trial_id: int, attributes: Mapping[str, Any]) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO trial_user_attributes (trial_id, key, value_json) VALUES (?, ?, ?)",
        [(trial_id, key, json.dumps(value)) for key, value in attributes.items()],
    )


def _now() -> str:
    """As Optuna writes times: UTC, without saying so."""
    return datetime.now(UTC).replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")


class Stopwatch:
    """Seconds of searching, continued where an earlier session of the run had stopped."""

    def __init__(self, before_s: float) -> None:
        self._start = time.monotonic() - before_s

    def __call__(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self._start
