"""The ledger of trials, on a real SQLite file."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import optuna
import pytest

from hwnas.search.ledger import STUDY, Ledger, Stopwatch
from hwnas.spaces import Space
from hwnas.spaces.errors import InvalidFileError
from hwnas.spaces.space import Rows

from .fixtures import bare_space

COSTS = {"latency_ms": 0.125, "weight_bytes": 4096.0}


SPACE = bare_space(3, 4, 2)


def some_rows(n: int = 4) -> Rows:
    return SPACE.sample(np.random.default_rng(0), n)


def a_ledger(folder: Path, space: Space = SPACE) -> Ledger:
    return Ledger(folder / "optuna.db", space, "latency_ms")


def filled(folder: Path) -> Ledger:
    """Four trials: complete, pruned, failed, and one still running."""
    ledger = a_ledger(folder)
    for row in some_rows():
        ledger.begin(row, COSTS)
    ledger.end(0, "complete", accuracy=0.75, reward=0.5, steps=8, finished_s=12.5)
    ledger.end(1, "pruned", accuracy=0.25, reward=0.125, steps=2, finished_s=14.0)
    ledger.end(2, "failed", accuracy=None, reward=None, steps=0, finished_s=15.0, error="DivergedError: the loss")
    return ledger


def test_trials_are_numbered_in_the_order_they_begin(tmp_path: Path) -> None:
    ledger = a_ledger(tmp_path)
    assert ledger.trials() == []
    assert [ledger.begin(row, COSTS) for row in some_rows()] == [0, 1, 2, 3]
    assert [t.number for t in ledger.trials()] == [0, 1, 2, 3]
    assert {t.state for t in ledger.trials()} == {"running"}
    assert ledger.finished == []


def test_everything_recorded_is_there_after_reopening(tmp_path: Path) -> None:
    filled(tmp_path)
    trials = a_ledger(tmp_path).trials()
    assert [t.state for t in trials] == ["complete", "pruned", "failed", "running"]
    assert [t.accuracy for t in trials] == [0.75, 0.25, None, None]
    assert [t.reward for t in trials] == [0.5, 0.125, None, None]
    assert [t.steps for t in trials] == [8, 2, 0, 0]
    assert [t.finished_s for t in trials] == [12.5, 14.0, 15.0, 0.0]
    assert [t.error for t in trials] == ["", "", "DivergedError: the loss", ""]
    assert all(t.costs == COSTS for t in trials)
    assert np.array([t.row for t in trials]).tolist() == some_rows().tolist()
    assert [t.digest for t in trials] == [SPACE.decode(row).digest for row in some_rows()]
    assert [t.number for t in a_ledger(tmp_path).finished] == [0, 1, 2]


def test_trials_may_end_in_any_order(tmp_path: Path) -> None:
    ledger = a_ledger(tmp_path)
    for row in some_rows(3):
        ledger.begin(row, COSTS)
    for number, accuracy in ((2, 0.2), (0, 0.0), (1, 0.1)):
        ledger.end(number, "complete", accuracy=accuracy, reward=accuracy, steps=1, finished_s=1.0)
    assert [t.accuracy for t in ledger.trials()] == [0.0, 0.1, 0.2]


def test_optuna_and_its_dashboard_read_it_as_a_study_of_two_objectives(tmp_path: Path) -> None:
    filled(tmp_path)
    study = optuna.load_study(study_name=STUDY, storage=f"sqlite:///{tmp_path / 'optuna.db'}")
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.metric_names == ["accuracy", "latency_ms"]
    states = optuna.trial.TrialState
    assert [t.state for t in study.trials] == [states.COMPLETE, states.PRUNED, states.FAIL, states.RUNNING]
    assert study.trials[0].values == [0.75, 0.125]
    for trial, row in zip(study.trials, some_rows(), strict=True):
        assert trial.params == dict(SPACE.decode(row))
    assert [t.number for t in study.best_trials] == [0]


def test_a_file_that_is_no_database_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "optuna.db").write_bytes(b"these are not the bytes of a database" * 100)
    with pytest.raises(InvalidFileError, match=r"optuna\.db is not a usable Optuna storage"):
        a_ledger(tmp_path)


def test_a_database_of_another_program_is_not_written_over(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "optuna.db") as connection:
        connection.execute("create table studies (mine text)")
    with pytest.raises(InvalidFileError, match=r"optuna\.db is not a usable Optuna storage"):
        a_ledger(tmp_path)


def test_candidates_of_another_space_are_an_error_that_says_so(tmp_path: Path) -> None:
    filled(tmp_path)
    with pytest.raises(InvalidFileError, match="holds candidates of another space"):
        a_ledger(tmp_path, bare_space(3, 4)).trials()


def test_the_stopwatch_goes_on_where_an_earlier_session_stopped() -> None:
    watch = Stopwatch(1000.0)
    first, second = watch(), watch()
    assert 1000.0 <= first <= second < 1060.0
