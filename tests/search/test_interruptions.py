"""The `hwnas search` command interrupted and killed: nothing that was finished is lost, and it goes on."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from hwnas.search.ledger import Ledger, Trial
from hwnas.spaces.files import write_yaml

from .fixtures import digits_space, small_search

HWNAS = Path(sys.executable).with_name("hwnas")
TRIALS = 4


def recorded_states(run: Path) -> list[str]:
    """Of the trials in a database that another process writes to."""
    try:
        with closing(sqlite3.connect(f"file:{run / 'optuna.db'}?mode=ro", uri=True)) as connection:
            return [state for (state,) in connection.execute("select state from trials")]
    except sqlite3.OperationalError:  # not there yet
        return []


class Search:
    """The `hwnas` command in a process group of its own, as a terminal starts it."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.out, self.err = folder / "out.txt", folder / "err.txt"
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                [HWNAS, *arguments], cwd=folder, stdout=out, stderr=err, start_new_session=True
            )
        self.family: list[psutil.Process] = []

    def wait_for_trials(self, run: Path, finished: int) -> None:
        """Until so many results are recorded, and another candidate is being evaluated."""
        end = time.monotonic() + 240
        while (states := recorded_states(run)).count("COMPLETE") < finished or "RUNNING" not in states:
            assert self.process.poll() is None, self.err.read_text()
            assert time.monotonic() < end, self.out.read_text()
            time.sleep(0.05)
        self.family = psutil.Process(self.process.pid).children(recursive=True)
        assert any("raylet" in p.name() for p in self.family)

    def end(self) -> int:
        """The exit code."""
        return self.process.wait(timeout=200)

    def nothing_is_left(self) -> bool:
        """Whether all that it started ends by itself; Ray's agents take a minute to notice that they are alone."""
        return psutil.wait_procs(self.family, timeout=150)[1] == []


def trials_of(run: Path) -> list[Trial]:
    return Ledger(run / "optuna.db", digits_space(), "latency_ms").trials()


def story(trials: list[Trial]) -> list[tuple[Any, ...]]:
    return [(t.number, t.digest, t.state, t.accuracy, t.reward, t.steps, t.finished_s) for t in trials]


def start(folder: Path) -> Search:
    """A search that is slow enough to be interrupted, in the middle of its third trial or a later one."""
    config = small_search(
        search={"trials": TRIALS, "workers": 1, "early_stopping": False}, training={"epochs": 8, "batch_size": 16}
    )
    write_yaml(folder / "search.yaml", config.model_dump(mode="json"))
    search = Search(folder, "search", "search.yaml", "--out", "my run")
    search.wait_for_trials(folder / "my run", 2)
    return search


def check_resumed(folder: Path, before: list[Trial], command: list[str]) -> None:
    """Resumes with the command, and compares with what was there before."""
    done = [t for t in before if t.state != "running"]
    assert 2 <= len(done) < len(before) <= TRIALS
    search = Search(folder, *command)
    assert search.end() == 0, search.err.read_text()
    after = trials_of(folder / "my run")
    assert story(after)[: len(done)] == story(done)
    assert [t.digest for t in after[: len(before)]] == [t.digest for t in before]
    assert [t.number for t in after] == list(range(TRIALS))
    assert {t.state for t in after} == {"complete"}
    assert len({t.digest for t in after}) == TRIALS
    assert [t.finished_s for t in after] == sorted(t.finished_s for t in after)
    assert {"result.json", "model.onnx", "report.html"} <= {p.name for p in (folder / "my run").iterdir()}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("devices")
def test_ctrl_c_keeps_what_was_finished_and_says_how_to_go_on(tmp_path: Path) -> None:
    search = start(tmp_path)
    os.killpg(search.process.pid, signal.SIGINT)  # a terminal sends it to the workers too
    assert search.end() == 130
    assert search.nothing_is_left()
    said = search.err.read_text()
    assert "Traceback" not in said
    command = re.findall(r"^ *hwnas (search --resume .*)$", said, re.MULTILINE)[0]
    assert shlex.split(command)[-1] == "my run"
    before = trials_of(tmp_path / "my run")
    assert not (tmp_path / "my run" / "result.json").exists()
    check_resumed(tmp_path, before, shlex.split(command))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("devices")
def test_a_killed_driver_loses_nothing_that_was_finished(tmp_path: Path) -> None:
    search = start(tmp_path)
    search.process.kill()
    assert search.end() == -signal.SIGKILL
    check_resumed(tmp_path, trials_of(tmp_path / "my run"), ["search", "--resume", "my run"])
    assert search.nothing_is_left()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("devices")
def test_two_searches_on_one_machine_keep_apart(tmp_path: Path) -> None:
    """Each has its own Ray and ends well; a third, in the folder of the first, is refused at once."""
    first = start(tmp_path)
    (second_folder := tmp_path / "second").mkdir()
    refused = Search(second_folder, "search", "--resume", "../my run")
    assert refused.end() == 2
    said = rf"another search is running in \.\./my run \(process {first.process.pid} on .*\); wait until it has ended"
    assert re.search(said, refused.err.read_text())
    assert first.process.poll() is None
    config = small_search(search={"trials": 2, "workers": 1, "early_stopping": False})
    write_yaml(second_folder / "search.yaml", config.model_dump(mode="json"))
    second = Search(second_folder, "search", "search.yaml", "--out", "other run")
    assert second.end() == 0, second.err.read_text()
    assert first.end() == 0, first.err.read_text()
    assert [t.state for t in trials_of(tmp_path / "my run")] == ["complete"] * TRIALS
    assert [t.state for t in trials_of(second_folder / "other run")] == ["complete"] * 2
