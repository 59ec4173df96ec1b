"""Trials on a real Ray cluster: recorded once, whatever becomes of the processes that evaluate them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray import cloudpickle

from hwnas.search import Goal, Objective, make_controller
from hwnas.search.controllers.random_search import RandomSearch
from hwnas.search.ledger import Ledger, Trial
from hwnas.search.ray_cluster import cluster
from hwnas.search.ray_driver import run_trials
from hwnas.search.ray_map import map_parallel
from hwnas.search.ray_measuring import MeasuringNode
from hwnas.search.session import SearchSession
from hwnas.spaces import Candidate
from hwnas.spaces.errors import DiskFullError, DivergedError, NoisyMeasurementError, UnavailableError
from hwnas.spaces.files import no_room

from .fixtures import bare_space
from .sessions import cost

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests
SPACE = bare_space(4, 4, 4, 4)
SEED = 100


@pytest.fixture(scope="module", autouse=True)
def one_cluster() -> Iterator[None]:
    """One cluster for all tests of this file, and nothing of it left behind."""
    before = {process.pid for process in psutil.process_iter()}
    with cluster(2):
        nodes = [p for p in psutil.process_iter() if p.pid not in before and "ray" in " ".join(p.cmdline())]
        assert nodes
        yield
    assert not ray.is_initialized()
    assert psutil.wait_procs(nodes, timeout=20)[1] == []


@dataclass(frozen=True)
class Scripted:
    """Evaluates by the trial's number, which its seed tells: some are hopeless, raise, or end their process.

    Attributes:
        folder: Where each step of an evaluation leaves a mark, since processes that died do not tell.
    """

    folder: str
    steps: int = 3
    hopeless: frozenset[int] = frozenset()
    raises_at_start: tuple[tuple[int, Exception], ...] = ()
    raises_in_step: tuple[tuple[int, Exception], ...] = ()
    dies_at_start: frozenset[int] = frozenset()
    dies_once: frozenset[int] = frozenset()
    dies_always: frozenset[int] = frozenset()

    def start(self, candidate: Candidate, seed: int) -> ScriptedEvaluation:
        return ScriptedEvaluation(self, candidate, seed - SEED)


class ScriptedEvaluation:
    def __init__(self, script: Scripted, candidate: Candidate, number: int) -> None:
        self.script, self.candidate, self.number, self.epoch = script, candidate, number, 0
        if number in dict(script.raises_at_start):
            raise dict(script.raises_at_start)[number]
        died = Path(script.folder, f"died {number}")
        if number in script.dies_at_start and not died.exists():
            died.touch()
            os._exit(1)

    def step(self) -> float:
        self.epoch += 1
        with Path(self.script.folder, f"{self.number}").open("a") as file:
            file.write(f"step {self.epoch} of {self.candidate.digest}\n")
        script, number = self.script, self.number
        if self.epoch == 2:
            if number in dict(script.raises_in_step):
                raise dict(script.raises_in_step)[number]
            steps = Path(script.folder, f"{number}").read_text().count("step")
            if number in script.dies_always or (number in script.dies_once and steps == 2):
                os._exit(1)
        return 0.01 * self.epoch if number in script.hopeless else 0.5 + 0.01 * number + 0.001 * self.epoch


@dataclass(frozen=True)
class Counted(Scripted):
    """Leaves a mark whenever it is packed for another process."""

    def __getstate__(self) -> dict[str, Any]:
        with Path(self.folder, "packed").open("a") as file:
            file.write("packed\n")
        return dict(self.__dict__)


def run(folder: Path, trials: int, **script: Any) -> list[Trial]:
    """All trials of a search, after checking that each was reported once."""
    workers, early = script.pop("workers", 2), script.pop("early_stopping", False)
    name, evaluator = script.pop("controller", "random"), script.pop("evaluator", Scripted)
    options = {name: script.pop(name) for name in ("resources", "measuring", "note") if name in script}
    (folder / "marks").mkdir(exist_ok=True)
    ledger = Ledger(folder / "optuna.db", SPACE, "latency_ms")
    known = len(ledger.finished)
    controller = make_controller(name, SPACE, Objective(cost, (Goal(7.0),)), 0)
    session = SearchSession(controller, ledger, folder / "controller.json", trials=trials)
    heard: list[Trial] = []
    run_trials(
        session,
        evaluator(str(folder / "marks"), **script),
        folder,
        workers=workers,
        early_stopping=early,
        seed=SEED,
        on_trial=heard.append,
        **options,
    )
    recorded = ledger.trials()
    assert sorted(t.number for t in heard) == list(range(known, trials))
    assert [t.number for t in recorded] == list(range(trials))
    assert len({t.digest for t in recorded}) == trials
    return recorded


def trials_of(folder: Path) -> list[Trial]:
    return Ledger(folder / "optuna.db", SPACE, "latency_ms").trials()


def steps_of(folder: Path, number: int) -> list[int]:
    """The steps that a trial's evaluations took, in the order of time."""
    path = folder / "marks" / str(number)
    return [int(line.split()[1]) for line in path.read_text().splitlines()] if path.exists() else []


def test_candidates_are_evaluated_once_whatever_becomes_of_them(tmp_path: Path) -> None:
    """Two go well, three raise something, and the process of one dies under it, once."""
    trials = run(
        tmp_path,
        6,
        evaluator=Counted,
        raises_at_start=((1, MemoryError("too large for this machine")),),
        raises_in_step=((2, DivergedError("the loss became nan")), (4, MemoryError())),
        dies_once=frozenset({3}),
    )
    assert [t.state for t in trials] == ["complete", "failed", "failed", "complete", "failed", "complete"]
    assert trials[1].error == "MemoryError: too large for this machine"
    assert trials[2].error == "DivergedError: the loss became nan"
    assert trials[4].error.startswith("MemoryError")
    assert {(t.accuracy, t.reward) for t in trials if t.state == "failed"} == {(None, None)}
    for trial in (trials[0], trials[3], trials[5]):
        assert trial.steps == 3
        assert trial.accuracy == pytest.approx(0.503 + 0.01 * trial.number)
        ratio = cost(trial.row)["latency_ms"][0] / 7.0
        assert trial.reward == pytest.approx(trial.accuracy * ratio**-0.07)
        lines = (tmp_path / "marks" / str(trial.number)).read_text().splitlines()
        assert {line.partition(" of ")[2] for line in lines} == {trial.digest}
    # What a candidate raised itself is not tried again; a death is, from the beginning.
    taken = [steps_of(tmp_path, number) for number in range(6)]
    assert taken == [[1, 2, 3], [], [1, 2], [1, 2, 1, 2, 3], [1, 2], [1, 2, 3]]
    assert (tmp_path / "marks" / "packed").read_text().count("packed") == 1  # with the data that it holds
    assert [t.results_before for t in trials[:2]] == [0, 0]  # both workers begin at once
    assert list((tmp_path / "tune").glob("trial-0000*/events.out.tfevents*"))


def test_a_process_that_dies_as_it_takes_up_a_candidate_costs_no_trial(tmp_path: Path) -> None:
    """The first process, one that goes on with its third candidate, and one with the last."""
    trials = run(tmp_path, 4, workers=1, dies_at_start=frozenset({0, 2, 3}), dies_once=frozenset({2}))
    assert [t.state for t in trials] == ["complete"] * 4
    assert [steps_of(tmp_path, number) for number in range(4)] == [[1, 2, 3], [1, 2, 3], [1, 2, 1, 2, 3], [1, 2, 3]]
    assert [t.results_before for t in trials] == [0, 1, 2, 3]


class Scale:
    """Instead of a device: networks take what is written for their digests, and one is not to be measured."""

    def latency_ms(self, place: str, candidate: str, asked: None) -> float:
        ms = int(Candidate.from_json(candidate).digest, 16) % 50 + 1.0
        if ms > 40:
            raise NoisyMeasurementError("it does not repeat")
        return ms


def test_what_is_measured_of_a_trial_counts_for_it(tmp_path: Path) -> None:
    actor = ray.remote(num_cpus=0)(Scale).remote()
    notes: list[str] = []
    trials = run(tmp_path, 8, measuring=[MeasuringNode("scale", "", ("",), actor, None)], note=notes.append)
    ray.kill(actor)
    took = {t.number: int(t.digest, 16) % 50 + 1.0 for t in trials}
    lacking = [number for number, ms in took.items() if ms > 40]
    assert 0 < len(lacking) < 8
    for trial in trials:
        ms = took[trial.number]
        assert trial.measured == ({} if trial.number in lacking else {"latency_ms": ms})
        latency = cost(trial.row)["latency_ms"][0] if trial.number in lacking else ms
        assert trial.reward == pytest.approx(trial.accuracy * (latency / 7.0) ** -0.07)
    assert sorted(notes) == [f"trial {n + 1} is judged by prediction: scale: it does not repeat" for n in lacking]


@pytest.mark.slow
def test_a_trial_whose_process_always_dies_fails_and_the_search_goes_on(tmp_path: Path) -> None:
    trials = run(tmp_path, 3, dies_always=frozenset({0}), workers=1)
    assert [t.state for t in trials] == ["failed", "complete", "complete"]
    assert trials[0].error == "its worker process died repeatedly"
    assert steps_of(tmp_path, 0) == [1, 2, 1, 2, 1, 2]


def test_early_stopping_ends_hopeless_trials(tmp_path: Path) -> None:
    trials = run(tmp_path, 8, steps=4, hopeless=frozenset({4, 6}), workers=1, early_stopping=True)
    assert [trials[n].state for n in (4, 6)] == ["pruned", "pruned"]
    assert all(trials[n].steps < 4 for n in (4, 6))
    assert trials[4].accuracy == pytest.approx(0.01)
    assert trials[7].state == "complete"  # the best
    assert steps_of(tmp_path, 4) == [1]


@pytest.mark.slow
def test_a_resumed_search_evaluates_only_what_is_missing(tmp_path: Path) -> None:
    run(tmp_path, 2)
    before = {path.name: path.read_text() for path in (tmp_path / "marks").iterdir()}
    ledger = Ledger(tmp_path / "optuna.db", SPACE, "latency_ms")
    controller = make_controller("random", SPACE, Objective(cost, (Goal(7.0),)), 0)
    session = SearchSession(controller, ledger, tmp_path / "controller.json", trials=4)
    waiting = session.next()  # handed out, but the driver is killed before a worker finishes it
    assert waiting
    heard: list[int] = []
    session = SearchSession(
        make_controller("random", SPACE, Objective(cost, (Goal(7.0),)), 0),
        ledger,
        tmp_path / "controller.json",
        trials=4,
    )
    run_trials(
        session,
        Scripted(str(tmp_path / "marks")),
        tmp_path,
        workers=2,
        early_stopping=False,
        seed=SEED,
        on_trial=lambda trial: heard.append(trial.number),
    )
    assert sorted(heard) == [2, 3]
    trials = ledger.trials()
    assert [t.state for t in trials] == ["complete"] * 4
    assert trials[2].digest == waiting.digest
    assert {name: (tmp_path / "marks" / name).read_text() for name in before} == before


@pytest.mark.slow
def test_a_resumed_search_stops_early_what_an_uninterrupted_one_would(tmp_path: Path) -> None:
    """The driver is killed after four trials; the fifth is hopeless beside them, and the first of the new session."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder, parts in ((whole, (6,)), (broken, (4, 6))):
        folder.mkdir()
        for trials in parts:
            run(folder, trials, steps=4, hopeless=frozenset({4}), workers=1, early_stopping=True)
    ended = [[(t.digest, t.state, t.accuracy, t.steps, t.curve) for t in trials_of(f)] for f in (whole, broken)]
    assert ended[0] == ended[1]
    assert ended[1][4][1:] == ("pruned", 0.01, 1, (0.01,))
    assert ended[1][5][4] == pytest.approx([0.551, 0.552, 0.553, 0.554])


def test_resources_that_no_node_has_are_an_error_at_once(tmp_path: Path) -> None:
    said = (
        r"a training needs 1 CPU, 1 device:pi5 of one node, and no node .* has that \(node .*: 2 CPU, 0 device:pi5\); "
    )
    with pytest.raises(UnavailableError, match=said):
        run(tmp_path, 2, resources={"cpu": 1, "device:pi5": 1})
    with pytest.raises(UnavailableError, match=r"needs 3 CPU of one node"):
        map_parallel(power, 3, [(1,)], {"cpu": 3})


@pytest.mark.slow
def test_a_node_with_another_hwnas_ends_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that came after the driver had asked them all."""
    monkeypatch.setattr("hwnas.search.ray_driver.own_version", lambda: "99.0")
    with pytest.raises(UnavailableError, match=r"node .* has hwnas 0.*, and the driver has 99\.0: install the same"):
        run(tmp_path, 2)
    assert {t.state for t in trials_of(tmp_path)} == {"running"}
    monkeypatch.undo()
    assert [t.state for t in run(tmp_path, 2)] == ["complete", "complete"]


@pytest.mark.slow
def test_a_mistake_in_a_controller_ends_the_search_with_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def learn(self: RandomSearch) -> None:
        raise ZeroDivisionError("a controller's own mistake")

    monkeypatch.setattr(RandomSearch, "learn", learn)
    with pytest.raises(ZeroDivisionError, match="a controller's own mistake"):
        run(tmp_path, 3, workers=1)
    assert [t.state for t in trials_of(tmp_path)] == ["complete"]
    assert steps_of(tmp_path, 0) == [1, 2, 3]


@pytest.mark.slow
def test_a_disk_that_fills_up_during_the_search_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end = Ledger.end

    def full(self: Ledger, number: int, *args: Any, **kwargs: Any) -> Trial:
        if number == 1:
            raise no_room(self.path)
        return end(self, number, *args, **kwargs)

    monkeypatch.setattr(Ledger, "end", full)
    with pytest.raises(DiskFullError, match=r"no room on the disk for .*optuna\.db; free some"):
        run(tmp_path, 3, workers=1)
    assert [t.state for t in trials_of(tmp_path)] == ["complete", "running"]
    monkeypatch.undo()
    assert [t.state for t in run(tmp_path, 3, workers=1)] == ["complete"] * 3
    assert steps_of(tmp_path, 0) == [1, 2, 3]


def power(base: int, exponent: int) -> tuple[int, int]:
    import torch

    return base**exponent, torch.get_num_threads()


@pytest.mark.slow
def test_a_function_is_mapped_in_order_and_on_one_thread_each() -> None:
    assert map_parallel(power, 3, [(n,) for n in (4, 0, 2)]) == [(81, 1), (1, 1), (9, 1)]
