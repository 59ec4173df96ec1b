"""The ledger of trials, on a real SQLite file."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest

from hwnas.search.ledger import STUDY, Ledger, Stopwatch
from hwnas.spaces import Space
from hwnas.spaces.errors import DiskFullError, InvalidFileError
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
    assert [ledger.begin(row, COSTS).number for row in some_rows()] == [0, 1, 2, 3]
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
    assert [t.place for t in trials] == [0, 1, 2, None]
    assert [t.results_before for t in trials] == [0, 0, 0, 0]
    assert [t.number for t in a_ledger(tmp_path).finished] == [0, 1, 2]


def test_what_is_in_memory_is_what_is_in_the_file(tmp_path: Path) -> None:
    ledger = filled(tmp_path)
    ledger.begin(some_rows(5)[4], COSTS)
    curve, measured = [0.25, 0.375, 0.5], {"latency_ms": 0.5}
    ledger.end(3, "complete", accuracy=0.5, reward=0.1, steps=3, finished_s=16.0, curve=curve, measured=measured)
    again = a_ledger(tmp_path)
    assert again[3].measured == measured
    assert again[3].costs == COSTS
    study = optuna.load_study(study_name=STUDY, storage=f"sqlite:///{tmp_path / 'optuna.db'}")
    assert study.trials[3].values == [0.5, 0.5], "what was measured counts"
    assert len(again) == len(ledger) == 5
    for there, here in zip(again.trials(), ledger.trials(), strict=True):
        assert there.row.tolist() == here.row.tolist()
        assert replace(there, row=here.row) == here
    assert again[3].curve == (0.25, 0.375, 0.5)
    assert (again[3].place, again[4].results_before) == (3, 3)


def test_the_order_of_results_and_questions_is_kept(tmp_path: Path) -> None:
    ledger = a_ledger(tmp_path)
    for row in some_rows(3):
        ledger.begin(row, COSTS)
    for number in (1, 0):
        ledger.end(number, "failed", accuracy=None, reward=None, steps=0, finished_s=1.0)
    ledger = a_ledger(tmp_path)
    ledger.begin(some_rows(4)[3], COSTS)
    ledger.end(2, "failed", accuracy=None, reward=None, steps=0, finished_s=1.0)
    trials = a_ledger(tmp_path).trials()
    assert [t.place for t in trials] == [1, 0, 2, None]
    assert [t.results_before for t in trials] == [0, 0, 0, 2]


def test_a_reader_does_not_stop_the_search(tmp_path: Path) -> None:
    """A dashboard may be in the middle of reading while a result comes."""
    ledger = filled(tmp_path)
    with closing(sqlite3.connect(tmp_path / "optuna.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        states = "SELECT state FROM trials"
        before = reader.execute(states).fetchall()
        ledger.end(3, "complete", accuracy=0.5, reward=0.5, steps=8, finished_s=16.0)
        assert reader.execute(states).fetchall() == before
        reader.execute("COMMIT")
        assert reader.execute(states).fetchall()[3] == ("COMPLETE",)


def test_a_full_disk_is_an_error_that_says_what_to_do_and_loses_nothing(tmp_path: Path) -> None:
    ledger = filled(tmp_path)
    pages = ledger._connection.execute("PRAGMA page_count").fetchone()[0]
    ledger._connection.execute(f"PRAGMA max_page_count = {pages}")  # SQLite answers as it does on a full disk
    long = "a very long message " * 5000
    full = pytest.raises(DiskFullError, match=r"no room on the disk for .*optuna\.db; free some, then go on")
    with full:
        ledger.end(3, "failed", accuracy=None, reward=None, steps=0, finished_s=16.0, error=long)
    assert [t.state for t in ledger.trials()] == ["complete", "pruned", "failed", "running"]
    assert [t.state for t in a_ledger(tmp_path).trials()] == ["complete", "pruned", "failed", "running"]
    ledger._connection.execute(f"PRAGMA max_page_count = {pages + 1000}")
    ledger.end(3, "failed", accuracy=None, reward=None, steps=0, finished_s=16.0, error=long)
    assert a_ledger(tmp_path)[3].error == long


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


def test_a_settled_ledger_is_one_file_that_may_be_copied_and_written_again(tmp_path: Path) -> None:
    ledger = filled(tmp_path)
    ledger.settle()
    assert [path.name for path in tmp_path.iterdir()] == ["optuna.db"]
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "optuna.db").write_bytes((tmp_path / "optuna.db").read_bytes())
    assert a_ledger(copy).trials()[0].accuracy == 0.75
    ledger.end(3, "complete", accuracy=0.5, reward=0.5, steps=8, finished_s=20.0)
    with closing(sqlite3.connect(tmp_path / "optuna.db")) as reader:  # somebody looks on: it stays in two files
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM trials").fetchall()
        ledger.settle()
    assert a_ledger(tmp_path).trials()[3].accuracy == 0.5


def test_looking_at_a_ledger_leaves_it_as_it_was(tmp_path: Path) -> None:
    filled(tmp_path).settle()
    before = (tmp_path / "optuna.db").read_bytes()
    assert len(a_ledger(tmp_path).trials()) == 4
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"optuna.db": before}
