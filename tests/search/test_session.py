"""A search that is killed anywhere and continued is the search that was never killed."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwnas.search import Goal, Objective
from hwnas.search.controllers.random_search import RandomSearch
from hwnas.search.ledger import Ledger, State, Trial
from hwnas.search.session import SearchSession
from hwnas.spaces import Space
from hwnas.spaces.errors import DiskFullError, InfeasibleError, InvalidFileError
from hwnas.spaces.files import write_text
from hwnas.spaces.space import Rows

from .fixtures import bare_space
from .sessions import SPACE, TRIALS, cost, every_controller, open_session


def outcome(row: Rows) -> tuple[State, float | None]:
    """What becomes of a candidate: decided by the candidate alone, and not always good."""
    kind = int(row.astype(np.int64) @ np.arange(1, len(row) + 1)) % 7
    if kind in (0, 3):
        return "failed", None
    return ("pruned" if kind == 1 else "complete"), 0.3 + kind / 10


def evaluate(session: SearchSession, trial: Trial) -> Trial:
    state, accuracy = outcome(trial.row)
    error = "MemoryError: made up" if state == "failed" else ""
    return session.finish(trial.number, state, accuracy=accuracy, steps=3, error=error)


def run_to_the_end(session: SearchSession) -> list[int]:
    """The numbers of the candidates that were evaluated, in order."""
    numbers = []
    while trial := session.next():
        numbers.append(trial.number)
        evaluate(session, trial)
    return numbers


def story(folder: Path, space: Space | None = None) -> list[tuple[Any, ...]]:
    """All that must not depend on when the run was killed."""
    trials = Ledger(folder / "optuna.db", space or SPACE, "latency_ms").trials()
    return [(t.number, t.digest, t.state, t.accuracy, t.reward, t.steps, t.error, dict(t.costs)) for t in trials]


def test_what_was_measured_counts_and_is_not_forgotten(tmp_path: Path) -> None:
    session = open_session(tmp_path)
    goal = session.controller.objective.goals[0]
    first, second = (session.next() for _ in range(2))
    assert first
    assert second
    done = session.finish(first.number, "complete", accuracy=0.5, steps=1, measured={"latency_ms": 80.0})
    assert done.reward == goal.reward(np.array([0.5]), {"latency_ms": np.array([80.0])})[0]
    assert session.controller.results.costs["latency_ms"].tolist() == [80.0]
    assert session.controller.results.costs["macs"].tolist() == [first.costs["macs"]]
    session.finish(second.number, "complete", accuracy=0.5, steps=1)
    known = [80.0, second.costs["latency_ms"]]
    assert session.controller.results.costs["latency_ms"].tolist() == known
    for lost in (False, True):  # from the controller's state, and from the ledger
        if lost:
            (tmp_path / "controller.json").unlink()
        assert open_session(tmp_path).controller.results.costs["latency_ms"].tolist() == known


@contextmanager
def snapshots_of(session: SearchSession, folder: Path, into: Path) -> Iterator[list[Path]]:
    """Copies the run's files before and after each single write, as a kill at that moment would leave them."""
    taken: list[Path] = []

    def copy() -> None:
        taken.append(into / f"{len(taken):03}")
        shutil.copytree(folder, taken[-1])

    def around(write: Callable[..., Any]) -> Callable[..., Any]:
        def both(*args: Any, **kwargs: Any) -> Any:
            copy()
            result = write(*args, **kwargs)
            copy()
            return result

        return both

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hwnas.search.session.write_text", around(write_text))
        patch.setattr(session.ledger, "begin", around(session.ledger.begin))  # each of them writes once
        patch.setattr(session.ledger, "end", around(session.ledger.end))
        yield taken


def killed_everywhere(folder: Path, name: str) -> tuple[list[Path], list[tuple[Any, ...]], str]:
    """The distinct states of a whole search between its writes, its trials, and the controller's last state."""
    (folder / "run").mkdir()
    session = open_session(folder / "run", name)
    with snapshots_of(session, folder / "run", folder) as taken:
        assert run_to_the_end(session) == list(range(TRIALS))
    distinct: dict[str, Path] = {}
    for path in taken:
        distinct.setdefault((path / "controller.json").read_text() + str(story(path)), path)
    return list(distinct.values()), story(folder / "run"), (folder / "run" / "controller.json").read_text()


@pytest.mark.parametrize("name", ["evolution", pytest.param("random", marks=pytest.mark.slow)])
@pytest.mark.parametrize("saved_worth", [0.0, 1e9], ids=["saved at once", "saved at the end"])
def test_a_run_killed_between_any_two_writes_ends_as_if_nothing_had_happened(
    saved_worth: float, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hwnas.search.session.SAVED_WORTH", saved_worth)
    snapshots, whole, state = killed_everywhere(tmp_path, name)
    # Before anything, after each candidate, after each result; and after each state.
    assert len(snapshots) == (1 + 4 * TRIALS if saved_worth == 0 else 1 + 2 * TRIALS + 1)
    assert "complete" in {entry[2] for entry in whole} != {"complete"}
    for snapshot in snapshots:
        done = {entry[0] for entry in story(snapshot) if entry[2] != "running"}
        evaluated = run_to_the_end(open_session(snapshot, name))
        assert story(snapshot) == whole, snapshot.name
        assert evaluated == [n for n in range(TRIALS) if n not in done], snapshot.name
        assert json.loads((snapshot / "controller.json").read_text()) == json.loads(state), snapshot.name


@every_controller
def test_a_run_killed_again_and_again_still_gets_there(name: str, tmp_path: Path) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    for folder in (straight, broken):
        folder.mkdir()
    run_to_the_end(open_session(straight, name))
    for step in range(20):
        session = open_session(broken, name)  # the one before is abandoned, as a killed process is
        trial = session.next()
        if trial is None:
            break
        if step % 3:
            evaluate(session, trial)
    assert step > TRIALS
    assert story(broken) == story(straight)


def test_candidates_not_evaluated_are_handed_out_again_under_their_numbers(tmp_path: Path) -> None:
    session = open_session(tmp_path, trials=8)
    first = [session.next() for _ in range(4)]
    assert all(first)
    evaluate(session, first[1])  # type: ignore[arg-type]
    again = open_session(tmp_path, trials=8)
    handed = [again.next() for _ in range(4)]
    assert [t.number for t in handed if t] == [0, 2, 3, 4]
    assert [t.digest for t in handed[:3] if t] == [first[i].digest for i in (0, 2, 3)]  # type: ignore[union-attr]
    assert len({t.digest for t in (*first, handed[3]) if t}) == 5


def test_workers_may_finish_in_any_order(tmp_path: Path) -> None:
    session = open_session(tmp_path, trials=6)
    trials = [t for t in (session.next() for _ in range(3)) if t]
    for i in (2, 0, 1):
        evaluate(session, trials[i])
    assert run_to_the_end(session) == [3, 4, 5]
    numbers, digests = zip(*((entry[0], entry[1]) for entry in story(tmp_path)), strict=True)
    assert numbers == tuple(range(6))
    assert len(set(digests)) == 6


def test_the_controller_hears_of_each_result_once(tmp_path: Path) -> None:
    session = open_session(tmp_path, trials=5)
    told: list[int] = []
    session._tell = lambda trial, tell=session._tell: (told.append(trial.number), tell(trial))  # type: ignore[assignment,func-returns-value,misc]
    run_to_the_end(session)
    assert told == [0, 1, 2, 3, 4]
    again = open_session(tmp_path, trials=8)
    members = [tuple(row.tolist()) for row in again.controller.population]  # type: ignore[attr-defined]
    good = [tuple(t.row.tolist()) for t in again.ledger.trials() if t.accuracy is not None]
    assert members == good[-2:]


def test_a_finished_run_hands_out_nothing_more(tmp_path: Path) -> None:
    run_to_the_end(open_session(tmp_path))
    session = open_session(tmp_path)
    assert session.exhausted
    assert session.next() is None
    assert len(story(tmp_path)) == TRIALS


def test_a_run_may_be_continued_with_more_trials(tmp_path: Path) -> None:
    run_to_the_end(open_session(tmp_path, trials=3))
    assert run_to_the_end(open_session(tmp_path, trials=5)) == [3, 4]


def test_time_runs_out_but_what_was_handed_out_before_is_finished(tmp_path: Path) -> None:
    session = open_session(tmp_path)
    trial = session.next()
    assert trial
    late = open_session(tmp_path, minutes=1e-9)
    assert not late.exhausted
    assert run_to_the_end(late) == [0]
    assert late.exhausted


def test_the_clock_counts_the_time_of_earlier_sessions(tmp_path: Path) -> None:
    session = open_session(tmp_path)
    trial = session.next()
    assert trial
    session.ledger.end(trial.number, "complete", accuracy=0.5, reward=0.5, steps=1, finished_s=500.0)
    again = open_session(tmp_path, minutes=8)
    assert again.clock() >= 500.0
    assert again.exhausted
    assert not open_session(tmp_path, minutes=60).exhausted


@pytest.mark.parametrize("name", ["random"])
def test_a_space_that_is_smaller_than_the_budget_ends_the_search(name: str, tmp_path: Path) -> None:
    space = bare_space(3, 2)
    session = open_session(tmp_path, name, space, trials=50)
    assert run_to_the_end(session) == list(range(6))
    assert session.exhausted
    assert len({entry[1] for entry in story(tmp_path, space)}) == 6


def test_constraints_that_nothing_meets_are_an_error_at_once(tmp_path: Path) -> None:
    session = open_session(tmp_path, "random")
    session.controller.objective = Objective(cost, (Goal(8.0, constraints={"macs": 1.0}),))
    with pytest.raises(InfeasibleError):
        session.next()
    assert story(tmp_path) == []


def test_two_searches_in_one_folder_are_refused(tmp_path: Path) -> None:
    first, second = open_session(tmp_path), open_session(tmp_path)
    first.next()
    with pytest.raises(InvalidFileError, match="another search is writing to the same run folder"):
        second.next()


@every_controller
def test_without_its_state_the_controller_learns_afresh_from_the_ledger(name: str, tmp_path: Path) -> None:
    session = open_session(tmp_path, name, trials=4)
    run_to_the_end(session)
    (tmp_path / "controller.json").unlink()
    again = open_session(tmp_path, name, trials=6)
    assert run_to_the_end(again) == [4, 5]
    assert len({entry[1] for entry in story(tmp_path)}) == 6
    if name == "evolution":
        assert len(again.controller.population) == 2  # type: ignore[attr-defined]


@every_controller
def test_without_its_state_the_controller_does_not_repeat_what_is_running(name: str, tmp_path: Path) -> None:
    assert open_session(tmp_path, name).next()
    (tmp_path / "controller.json").unlink()
    again = open_session(tmp_path, name)
    running, new = again.next(), again.next()
    assert running
    assert new
    assert running.digest != new.digest


def test_a_full_disk_stops_the_search_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The controller's state finds no room, at each of its writes in turn."""
    monkeypatch.setattr("hwnas.search.session.SAVED_WORTH", 0.0)
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    for folder in (straight, broken):
        folder.mkdir()
    run_to_the_end(open_session(straight))
    replace_file, failures = os.replace, 0

    def full(source: Path, target: Path) -> None:
        nonlocal failures
        failures += 1
        if failures % 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", full)
    for _ in range(20):
        with suppress(DiskFullError):
            run_to_the_end(open_session(broken))
            break
    assert failures > 2 * TRIALS
    with pytest.raises(DiskFullError, match=r"no room on the disk for .*controller\.json; free some, then go on"):
        write_text(broken / "controller.json", "{}")
    assert story(broken) == story(straight)
    assert not list(broken.glob(".controller*"))


def test_the_controller_hears_how_far_a_trial_was_trained(tmp_path: Path) -> None:
    session = open_session(tmp_path, "random", steps=4)
    for steps, state in ((4, "complete"), (1, "pruned"), (0, "failed")):
        trial = session.next()
        assert trial
        session.finish(trial.number, state, accuracy=None if state == "failed" else 0.5, steps=steps)  # type: ignore[arg-type]
    for heard in (session, open_session(tmp_path, "random", steps=4)):
        assert heard.controller.results.fidelity.tolist() == [1.0, 0.25, 0.0]
    (tmp_path / "controller.json").unlink()
    assert open_session(tmp_path, "random", steps=4).controller.results.fidelity.tolist() == [1.0, 0.25, 0.0]


def test_a_controller_that_answers_otherwise_than_before_keeps_the_candidates_of_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an update of its code: asked again, it gives other candidates."""
    monkeypatch.setattr("hwnas.search.session.SAVED_WORTH", 1e9)
    session = open_session(tmp_path, "random", trials=6)
    for _ in range(3):
        evaluate(session, session.next())  # type: ignore[arg-type]
    session.next()
    before = story(tmp_path)
    monkeypatch.setattr(RandomSearch, "propose", lambda self: self.space.sample(self.rng, 77))
    again = open_session(tmp_path, "random", trials=6)
    assert story(tmp_path) == before
    assert again.controller.results.rows.tolist() == [t.row.tolist() for t in again.ledger.trials()[:3]]
    assert run_to_the_end(again) == [3, 4, 5]
    assert len({entry[1] for entry in story(tmp_path)}) == 6


def test_a_long_search_does_not_slow_down(tmp_path: Path) -> None:
    """What is written for each trial does not grow with their number."""
    session = open_session(tmp_path, "random", bare_space(4, 4, 4, 4, 4, 4), trials=400)
    written = {"times": 0}
    session._save = lambda save=session._save: (written.update(times=written["times"] + 1), save())  # type: ignore[assignment,func-returns-value,misc]
    statements: list[str] = []
    session.ledger._connection.set_trace_callback(statements.append)
    counts = []
    for _ in range(400):
        evaluate(session, session.next())  # type: ignore[arg-type]
        counts.append(len(statements))
        statements.clear()
    # A candidate: BEGIN, a look, 1 + 6 + 4 rows, COMMIT; a result: BEGIN, 2 values where it is complete, 2, COMMIT.
    # The very first statement of all chooses how the file is written.
    assert counts[0] - 1 in {20, 18}
    assert set(counts[1:]) == {20, 18}
    assert written["times"] < 200
