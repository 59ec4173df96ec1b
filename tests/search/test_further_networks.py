"""A search for several devices and budgets at once: one set of trials, a network and a run's folder for each."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from hwnas.latency_tables import load_device
from hwnas.predictors import CostModel
from hwnas.search import run_search
from hwnas.search.config import SearchConfig
from hwnas.search.observer import Observer
from hwnas.search.run import best_trials, continue_run
from hwnas.search.run_folder import Run
from hwnas.spaces.errors import HwnasError, InvalidFileError, UnavailableError, UnknownNameError

from .fixtures import NAME, digits_space, registered, small_search, synthetic_device

OTHER = "simulated-bit-fusion"
ALSO = {
    "tiny": {"objective": {"metric": "weight_bytes", "target_ratio": 0.1, "form": "hard"}},
    "frugal": {"device": {"name": OTHER}, "objective": {"metric": "energy_mj", "target_ratio": 0.3}},
}


def search_for_three() -> SearchConfig:
    return small_search(also=ALSO)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("three")
    with registered(base / "devices"):
        run_search(search_for_three(), base / "run")
    return base / "run"


def contents(folder: Path) -> dict[str, bytes]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "report.html")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def test_every_network_has_a_runs_folder_with_the_same_trials_at_its_own_costs(whole: Path) -> None:
    run = Run.open(whole)
    trials = run.ledger.trials()
    assert len(trials) == 4
    for name, device in (("tiny", run.device), ("frugal", load_device(OTHER))):
        part = Run.open(whole / "also" / name)
        assert part.device.profile == device.profile
        own = part.ledger.trials()
        assert [(t.digest, t.accuracy, t.curve, t.state) for t in own] == [
            (t.digest, t.accuracy, t.curve, t.state) for t in trials
        ]
        costs = CostModel(digits_space(), device)(np.array([t.row for t in own]))
        metric = part.config.objective.metric
        assert [t.costs[metric] for t in own] == pytest.approx(costs[metric].tolist())
        place = "" if name == "tiny" else f"{OTHER}:"
        assert [t.costs[f"{place}{metric}"] for t in trials] == pytest.approx(costs[metric].tolist())
        expected = part.objective.reward(np.array([t.accuracy for t in own]), costs)
        assert [t.reward for t in own] == pytest.approx(expected.tolist())


def test_the_search_maximises_what_all_of_them_are_worth_on_average(whole: Path) -> None:
    run = Run.open(whole)
    own = [run.ledger.trials(), *(part.ledger.trials() for part in run.parts.values())]
    for trial, *rest in zip(run.ledger.trials(), *own[1:], strict=True):
        plain = run.objective.reward(np.array([trial.accuracy]), run.cost(trial.row[None]))[0]
        assert trial.reward == pytest.approx(np.mean([plain, *(t.reward for t in rest)]))


def test_each_chosen_network_is_the_best_for_its_own_objective(whole: Path) -> None:
    run = Run.open(whole)
    chosen = {}
    for name, part in {"": run, **run.parts}.items():
        result = part.result
        assert result is not None
        assert result.networks[0].digest == best_trials(part, 1)[0].digest
        assert result.networks[1].digest == digits_space().reference().digest
        chosen[name] = result.networks[0].digest
        onnxruntime.InferenceSession(part.folder / "model.onnx", providers=["CPUExecutionProvider"])
    target = 0.1 * run.cost.of(digits_space().reference())["weight_bytes"]
    worth = {t.digest: (t.accuracy or 0) * min(1, target / t.costs["weight_bytes"]) for t in run.ledger.trials()}
    assert worth[chosen["tiny"]] == max(worth.values())


def test_a_network_that_several_want_is_trained_once(whole: Path) -> None:
    files = list(whole.rglob("*.safetensors"))
    names = {p.name for p in files}
    assert len(files) == 3 * 2
    for name in names:
        assert len({p.read_bytes() for p in files if p.name == name}) == 1
    assert f"{digits_space().reference().digest}.safetensors" in names


def test_the_report_leads_to_those_of_the_others(whole: Path) -> None:
    page = (whole / "report.html").read_text()
    for name in ALSO:
        assert f'<a href="also/{name}/report.html">{name}</a>' in page
        assert (whole / "also" / name / "report.html").exists()
    assert "Other networks of this search" not in (whole / "also" / "tiny" / "report.html").read_text()


def test_a_run_that_lost_a_part_makes_it_again_alike_and_nothing_else(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    before = contents(folder)
    (folder / "result.json").unlink()
    for lost in ("result.json", "model.onnx", "optuna.db"):
        (folder / "also" / "frugal" / lost).unlink()
    with pytest.raises(UnavailableError, match=r"frugal is a part of another run; continue that with 'hwnas search"):
        continue_run(Run.open(folder / "also" / "frugal"), Observer())
    continue_run(Run.open(folder), Observer())
    after = contents(folder)
    assert after.keys() == before.keys()
    changed = {name for name in before if after[name] != before[name]}
    assert changed <= {
        "also/frugal/optuna.db",
        "also/frugal/model.onnx",
        "also/frugal/reference.onnx",
    }  # hold times and paths
    assert json.loads(after["also/frugal/result.json"]) == json.loads(before["also/frugal/result.json"])


@pytest.mark.parametrize("trials", [0, 2])
def test_a_part_that_was_looked_at_before_its_trials_were_there_still_gets_them(
    trials: int, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    run = Run.open(folder)
    part = run.parts["frugal"]
    expected = [(t.digest, t.reward) for t in part.ledger.trials()]
    del part.__dict__["ledger"]
    (part.folder / "optuna.db").unlink()
    for trial in run.ledger.trials()[:trials]:
        part.ledger.begin(trial.row, trial.costs)
    part.adopt_trials(run.ledger.finished)
    assert [(t.digest, t.reward) for t in part.ledger.trials()] == expected
    assert [(t.digest, t.reward) for t in Run.open(part.folder).ledger.trials()] == expected


def test_what_was_measured_on_a_device_is_known_of_the_networks_for_it(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    found = run.ledger.finished
    best = best_trials(run, len(found))
    last = best[-1].number
    # What looked worst takes next to nothing, and each of the others a thousand times its target.
    slow = 1000 * run.objective.goals[0].target
    own = {t.number: 1e-6 if t.number == last else slow for t in found}
    trials = [replace(t, measured={"latency_ms": own[t.number], f"{OTHER}:latency_ms": 7.0}) for t in found]
    for part in run.all:
        (part.folder / "optuna.db").unlink()
        part.__dict__.pop("ledger", None)
        part.adopt_trials(trials)
        expected = [7.0] * len(trials) if part is run.parts["frugal"] else list(own.values())
        again = Run.open(part.folder).ledger.trials()
        assert [t.measured for t in again] == [{"latency_ms": ms} for ms in expected]
        costs = part.costs_of(again)
        assert costs["latency_ms"].tolist() == expected
        assert costs["weight_bytes"].tolist() == part.cost(np.array([t.row for t in again]))["weight_bytes"].tolist()
    assert best_trials(run, len(found))[0].number == last
    rewards = run.objective.reward(np.array([t.accuracy for t in found]), run.costs_of(trials))
    assert [t.reward for t in run.ledger.trials()] == pytest.approx(rewards.tolist())


def test_trials_are_measured_where_the_search_says_so(tmp_path: Path) -> None:
    phone: dict[str, Any] = {"device": {"name": OTHER, "measure_trials": True}, "objective": {"target_ratio": 0.3}}
    with registered(tmp_path / "devices"):
        for here, also, places in (
            (False, {}, []),
            (True, ALSO, [""]),
            (True, {"phone": phone}, ["", OTHER]),
            (False, {"phone": phone}, [OTHER]),
        ):
            run = Run.create(tmp_path / "run", small_search(device={"measure_trials": here}, also=also))
            for group in run.by_device:
                group[0].keep_device(load_device(group[0].config.device.name))
            assert [run.measured_on[place].name for place in places] == [NAME if not p else OTHER for p in places]
            assert len(run.measured_on) == len(places)
            assert all(part.measures_trials == here for name, part in run.parts.items() if name == "tiny")
            shutil.rmtree(tmp_path / "run")


def test_where_a_part_is_its_run_is_known(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = whole / "also" / "tiny"
    monkeypatch.chdir(folder)
    (tmp_path / "link").symlink_to(folder)
    for path in (folder, Path(), tmp_path / "link"):
        part = Run.open(path)
        assert part.outer is not None
        assert part.outer.folder.resolve() == whole.resolve()
    (tmp_path / "config.yaml").write_text("model: resnet")  # somebody else's
    assert Run.create(tmp_path / "run", small_search()).outer is None
    assert Run.open(tmp_path / "run").outer is None


def test_the_configuration_of_a_part_is_no_search(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match="the configuration of a part of a run"):
        run_search(whole / "also" / "tiny" / "config.yaml", tmp_path / "run")


def test_what_is_wrong_with_a_part_is_found_first_and_may_be_corrected(tmp_path: Path) -> None:
    """Nothing is measured, and the folder is as good as new."""
    wrong: list[tuple[dict[str, object], str]] = [
        ({"metric": "energy_mj", "target_ratio": 0.5}, "nothing is known of energy"),
        ({"metric": "weight_bytes", "target": 1}, "cannot be reached"),
    ]
    loop = [(OTHER, "is simulated: there is nothing to measure"), ("board", "give the --address")]
    with registered(tmp_path / "devices"):
        profile = synthetic_device().profile.model_copy(update={"name": "board", "simulated": False})
        replace(synthetic_device(), profile=profile).save(tmp_path / "devices" / "board")
        alsos: list[tuple[dict[str, Any], str]] = [({"objective": objective}, words) for objective, words in wrong]
        for name, words in loop:
            device = {"name": name, "measure_trials": True}
            alsos.append(({"device": device, "objective": {"target_ratio": 0.5}}, words))
        for phone, words in alsos:
            with pytest.raises(HwnasError, match=words):
                run_search(small_search(also={"phone": phone}), tmp_path / "run")
            assert not list((tmp_path / "run").rglob("profile.yaml"))
        assert Run.create(tmp_path / "run", search_for_three()).parts.keys() == ALSO.keys()
        assert not (tmp_path / "run" / "also" / "phone").exists()


class Interrupting(Observer):
    """Stops the run the first time that each stage begins, and at each first note and progress within it."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, str]] = set()
        self.now = ""

    def stage(self, title: str) -> None:
        self.now = title
        self.interrupt("begins")

    def note(self, text: str) -> None:
        self.interrupt("note")

    def progress(self, text: str, share: float) -> None:
        self.interrupt(text)

    def interrupt(self, what: str) -> None:
        if (self.now, what) not in self.seen:
            self.seen.add((self.now, what))
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_run_that_is_stopped_everywhere_ends_as_one_that_was_not(whole: Path, tmp_path: Path) -> None:
    folder, observer, interruptions = tmp_path / "run", Interrupting(), 0
    with registered(tmp_path / "devices"):
        run = Run.create(folder, search_for_three())
        while run.result is None:
            try:
                continue_run(run, observer)
            except KeyboardInterrupt:
                interruptions += 1
                run = Run.open(folder)
    assert interruptions >= 8
    for one, other in zip(Run.open(whole).all, Run.open(folder).all, strict=True):
        assert [(t.digest, t.accuracy, t.reward) for t in one.ledger.trials()] == [
            (t.digest, t.accuracy, t.reward) for t in other.ledger.trials()
        ]
        assert one.result is not None
        assert other.result is not None
        assert repr(one.result.networks) == repr(other.result.networks)
        assert one.result.candidates == other.result.candidates


def test_devices_that_do_not_exist_are_an_error_before_anything_is_measured(tmp_path: Path) -> None:
    also = {"frugal": {"device": {"name": "simulated-bit-fusio"}, "objective": {"target_ratio": 0.5}}}
    with registered(tmp_path / "devices"), pytest.raises(UnknownNameError, match="did you mean 'simulated-bit-fusion'"):
        run_search(small_search(also=also), tmp_path / "run")
    assert not (tmp_path / "run" / "device").exists()


@pytest.mark.parametrize("name", ["a/b", "..", "", "-x", "two words"])
def test_what_cannot_be_a_folder_is_no_name(name: str) -> None:
    with pytest.raises(HwnasError, match="cannot be the name of a network"):
        small_search(also={name: {"objective": {"target_ratio": 0.5}}})


def test_an_unknown_key_is_found_within_them() -> None:
    with pytest.raises(UnknownNameError, match="'targets'; did you mean 'target'"):
        small_search(also={"phone": {"objective": {"targets": 0.5}}})
    with pytest.raises(UnknownNameError, match="'devise'; did you mean 'device'"):
        small_search(also={"phone": {"objective": {"target": 0.5}, "devise": {}}})
    with pytest.raises(UnknownNameError, match="'nam'; did you mean 'name'"):
        small_search(also={"phone": {"objective": {"target": 0.5}, "device": {"nam": "x"}}})
