"""A whole small search on digits: what it leaves, and what becomes of its folder."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from hwnas.latency_tables import chunks
from hwnas.latency_tables.profiler import Plan, extend
from hwnas.latency_tables.timing import Timing
from hwnas.search import conclusion as conclusion_module
from hwnas.search import focus as focus_module
from hwnas.search import run_search
from hwnas.search.conclusion import conclude, measure_finals
from hwnas.search.finals import Final
from hwnas.search.focus import focus_before
from hwnas.search.ledger import State
from hwnas.search.observer import Observer
from hwnas.search.report.data import NetworkRow
from hwnas.search.run import best_trials, continue_run, refine
from hwnas.search.run_folder import Run
from hwnas.search.run_result import RunResult
from hwnas.search.warm_start import promising
from hwnas.spaces import Candidate
from hwnas.spaces.errors import InvalidFileError, NoisyMeasurementError, UnavailableError
from hwnas.spaces.onnx_graph import weight_bytes
from hwnas.spaces.space import Rows

from .fixtures import (
    PATIENT,
    RESULTS,
    digits_space,
    on_this_machine,
    small_search,
    synthetic_device,
    thin_row,
)

HWNAS = Path(sys.executable).with_name("hwnas")
TRIALS = 4


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a run but its report, which says when it was written."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "report.html")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def candidate_of(network: NetworkRow, result: RunResult) -> Candidate:
    return next(c for c in map(Candidate, result.candidates) if c.digest == network.digest)


def focusing(run: Run, networks: int, patch: pytest.MonkeyPatch) -> Run:
    """The run with so many networks of interest to measure, beside few promising ones: those take long to find."""
    patch.setattr(focus_module, "PARENTS", 3)
    device = run.config.device.model_copy(update={"focus_networks": networks})
    return dataclasses.replace(run, config=run.config.model_copy(update={"device": device}))


class TestFinishedRun:
    def test_everything_is_in_its_folder(self, finished: Path) -> None:
        names = {path.name for path in finished.iterdir()}
        assert names >= {"config.yaml", "optuna.db", "controller.json", "device", "finals", "tune"}
        assert names >= {"result.json", "model.onnx", "reference.onnx", "report.html"}
        assert not [name for name in names if name.startswith(".")]  # nothing half-written

    def test_the_result_is_what_was_returned_and_what_the_file_says(self, finished: Path) -> None:
        result = RESULTS[finished]
        assert repr(Run.open(finished).result) == repr(result)
        assert [n.name for n in result.networks] == ["chosen", "reference"]
        space = digits_space()
        assert space.decode(space.encode(Candidate(result.candidates[1]))) == space.reference()
        for network, values in zip(result.networks, result.candidates, strict=True):
            assert network.digest == Candidate(values).digest
            workload = space.workload(values)
            assert (network.macs, network.params, network.weight_bytes) == (
                workload.macs,
                workload.params,
                workload.weight_bytes,
            )
        assert result.agreement.agrees
        assert result.seconds["search"] > 0

    def test_the_result_is_json_for_every_reader(self, finished: Path) -> None:
        """Latencies that nobody measured are null: NaN is not JSON."""
        words: list[str] = []
        data = json.loads((finished / "result.json").read_text(), parse_constant=words.append)
        assert words == []
        assert [network["latency_measured_ms"] for network in data["networks"]] == [None, None]

    def test_all_trials_were_evaluated(self, finished: Path) -> None:
        trials = Run.open(finished).ledger.trials()
        assert [t.number for t in trials] == [0, 1, 2, 3]
        assert {t.state for t in trials} == {"complete"}
        assert len({t.digest for t in trials}) == 4
        assert RESULTS[finished].networks[0].digest in {t.digest for t in trials}

    @pytest.mark.parametrize(("name", "index"), [("model.onnx", 0), ("reference.onnx", 1)])
    def test_the_file_alone_has_the_reported_accuracy(self, finished: Path, name: str, index: int) -> None:
        """Plain ONNX Runtime, plain scikit-learn, and the form of the images that the file names."""
        from sklearn.datasets import load_digits

        session = onnxruntime.InferenceSession(finished / name, providers=["CPUExecutionProvider"])
        notes = session.get_modelmeta().custom_metadata_map
        form = {key: np.float32(value) for key, value in json.loads(notes["normalisation"]).items()}
        split = Run.open(finished).dataset.test
        raw = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)
        where = {image.tobytes(): label for image, label in zip(raw, load_digits().target, strict=True)}
        images = split.images.numpy()
        labels = np.array([where[image.tobytes()] for image in images])
        x = (images * form["scale"] - form["mean"]) / form["std"]
        (logits,) = session.run(None, {"input": x.astype(np.float32)})
        assert len(split) > 400
        assert np.mean(logits.argmax(1) == labels) == RESULTS[finished].networks[index].test_accuracy

    @pytest.mark.parametrize(("name", "index"), [("model.onnx", 0), ("reference.onnx", 1)])
    def test_the_bytes_reported_are_the_files(self, finished: Path, name: str, index: int) -> None:
        network = RESULTS[finished].networks[index]
        assert network.weight_bytes == weight_bytes(onnx.load(finished / name))
        assert network.file_bytes == (finished / name).stat().st_size

    def test_the_report_shows_every_trial_and_the_device(self, finished: Path) -> None:
        page = (finished / "report.html").read_text()
        assert page.lstrip().startswith("<!doctype html>")
        for trial in Run.open(finished).ledger.trials():
            assert trial.digest in page
        assert synthetic_device().profile.facts["processor"] in page

    def test_resuming_it_repeats_nothing(self, finished: Path, tmp_path: Path) -> None:
        folder = tmp_path / "run"
        shutil.copytree(finished, folder)
        before = contents(folder)
        (folder / "report.html").unlink()
        result = continue_run(Run.open(folder), Observer())  # without the registered device: the run has its own
        assert repr(result) == repr(RESULTS[finished])
        assert contents(folder) == before
        assert (folder / "report.html").exists()

    def test_a_second_run_in_its_folder_is_refused(self, finished: Path) -> None:
        before = contents(finished)
        with pytest.raises(InvalidFileError, match=r"holds a run already; continue it with 'hwnas search --resume "):
            run_search(small_search(), finished)
        assert contents(finished) == before

    def test_on_this_machine_what_was_measured_counts(
        self, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The device of the run becomes this machine; only the last step is done again."""
        monkeypatch.setattr(conclusion_module, "FINAL_PROTOCOL", PATIENT)
        run, known = on_this_machine(finished, tmp_path / "run"), RESULTS[finished]
        folder = run.folder
        finals = [
            Final(run.space.decode(run.space.encode(Candidate(values))), network.validation_accuracy, weights)
            for network, values in zip(known.networks, known.candidates, strict=True)
            for weights in [folder / "finals" / f"{network.digest}.safetensors"]
        ]
        result = conclude(run, finals, Observer())
        for network in result.networks:
            assert 0 < network.latency_measured_ms <= network.latency_p90_ms
            predicted = run.cost(run.space.encode(candidate_of(network, result))[None])["latency_ms"][0]
            assert network.latency_predicted_ms == pytest.approx(predicted * result.drift)
        assert [n.digest for n in result.networks] == [n.digest for n in known.networks]
        assert [n.test_accuracy for n in result.networks] == [n.test_accuracy for n in known.networks]

    def test_the_anchors_tell_how_fast_the_machine_is_at_the_end(
        self, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = on_this_machine(finished, tmp_path / "run")
        space, table = run.space, run.device.table
        final = Final(space.reference(), 0.9, tmp_path / "w.safetensors")
        monkeypatch.setattr(conclusion_module, "load_network", lambda *_: space.build(space.reference()).eval())

        refusals = [NoisyMeasurementError("it does not repeat") for _ in range(5)]

        def planted(items: list[object], *_: object, names: list[str], **__: object) -> list[Timing]:
            if refusals:
                raise refusals.pop()
            known = [table.latency_of(name.removeprefix("network "), space.key) or 0.0 for name in names[:-2]]
            return [Timing(ms, ms, 0.0, 1) for ms in (*(1.7 * ms for ms in known), 0.5, 0.7)]

        monkeypatch.setattr(chunks, "measure", planted)
        measured = measure_finals(run, [final, final], Observer())
        assert measured is not None
        timings, drift = measured
        assert [t.p50_ms for t in timings] == [0.5, 0.7]
        assert drift == pytest.approx(1.7)
        assert not refusals, "a busy machine is measured again, more patiently than at a registration"

    def test_neighbours_of_the_promising_are_measured_twice_before_the_search(
        self, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(focus_module, "extend", partial(extend, plan=Plan(protocol=PATIENT)))
        starts: list[Rows] = []

        def recorded(*arguments: Any) -> Rows:
            starts.append(promising(*arguments))
            return starts[-1]

        monkeypatch.setattr(focus_module, "promising", recorded)
        run = focusing(on_this_machine(finished, tmp_path / "run"), 13, monkeypatch)
        added = focus_before([run], run.device, Observer()).table.networks[len(run.device.table.networks) :]
        assert len({n.digest for n in added}) == 13
        assert len(starts) == 2
        assert {n.role for n in added} == {"fit"}
        assert {n.digest for n in added[:7]}.isdisjoint(run.space.decode(row).digest for row in starts[0])

    def test_a_single_neighbour_may_be_asked_for(
        self, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(focus_module, "extend", partial(extend, plan=Plan(protocol=PATIENT)))
        run = focusing(on_this_machine(finished, tmp_path / "run"), 1, monkeypatch)
        before = len(run.device.table.networks)
        assert len(focus_before([run], run.device, Observer()).table.networks) == before + 1

    def test_a_machine_too_busy_for_more_is_asked_once_and_the_search_goes_on(
        self, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls, notes = [], []

        def refused(*arguments: Any, **_: Any) -> None:
            calls.append(arguments)
            raise NoisyMeasurementError("network a does not repeat")

        class Listener(Observer):
            def note(self, text: str) -> None:
                notes.append(text)

        monkeypatch.setattr(focus_module, "extend", refused)
        run = focusing(on_this_machine(finished, tmp_path / "run"), 12, monkeypatch)
        assert focus_before([run], run.device, Listener()) is run.device
        assert len(calls) == 1
        assert notes == ["no measurements beside promising ones: network a does not repeat"]

    def test_neighbours_of_the_best_are_measured_once_before_the_last_choice(
        self, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(focus_module, "extend", partial(extend, plan=Plan(protocol=PATIENT)))
        run = on_this_machine(finished, tmp_path / "run")
        shutil.rmtree(run.folder / "finals")
        run = focusing(run, 12, monkeypatch)
        before = len(run.device.table.networks)
        refine([run], Observer())
        refine([Run.open(run.folder)], Observer())  # as a resumed run does
        networks = Run.open(run.folder).device.table.networks
        assert len(networks) == len(run.device.table.networks) == before + 12
        assert {n.role for n in networks[before:]} == {"fit"}
        assert {n.digest for n in networks}.isdisjoint(t.digest for t in run.ledger.trials())

    @pytest.mark.slow
    def test_finals_that_are_trained_are_not_trained_again(self, finished: Path, tmp_path: Path) -> None:
        folder = tmp_path / "run"
        shutil.copytree(finished, folder)
        (folder / "result.json").unlink()
        before = contents(folder)
        result = continue_run(Run.open(folder), Observer())
        assert repr(result) == repr(RESULTS[finished])
        assert {name: data for name, data in contents(folder).items() if name in before} == before


def run_with(folder: Path, states: list[State]) -> Run:
    """A run with one trial for each state; a trial's accuracy falls with its number."""
    run = Run.create(folder, small_search())
    synthetic_device().save(folder / "device")
    for number, state in enumerate(states):
        row = thin_row(8, 8)
        row[number] ^= 1
        run.ledger.begin(digits_space().canonical(row[None])[0], {"latency_ms": 0.1})
        value = None if state in ("failed", "running") else 0.9 - number / 10
        if state != "running":
            run.ledger.end(
                number, state, accuracy=value, reward=value, steps=1, finished_s=1.0, error=f"error {number}"
            )
    return run


def test_the_best_trials_are_those_trained_to_the_end(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", ["pruned", "complete", "failed", "complete", "running", "complete"])
    assert [t.number for t in best_trials(run, 2)] == [1, 3]
    assert [t.number for t in best_trials(run, 10)] == [1, 3, 5]


def test_those_that_break_the_constraint_do_not_count_where_others_do_not(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", ["complete", "pruned", "complete"])
    bytes_of = [float(run.cost(t.row[None])["weight_bytes"][0]) for t in run.ledger.trials()]
    bound = {"constraints": {"weight_bytes": min(bytes_of)}}
    bounded = dataclasses.replace(run, config=small_search(objective=bound))
    lightest = [i for i, n in enumerate(bytes_of) if n == min(bytes_of)]
    assert 0 < len(lightest) < 3
    assert [t.number for t in best_trials(bounded, 3)] == [i for i in lightest if i != 1] or lightest
    bound["constraints"]["weight_bytes"] /= 2
    bounded = dataclasses.replace(run, config=small_search(objective=bound))
    assert [t.number for t in best_trials(bounded, 3)] == [0, 2]  # none does


def test_the_reference_may_be_left_out(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", ["complete", "complete"])
    first = run.space.decode(run.ledger[0].row)
    assert [t.number for t in best_trials(run, 1, first)] == [1]


def test_failing_that_the_best_are_those_stopped_early(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", ["failed", "pruned", "pruned"])
    assert [t.number for t in best_trials(run, 3)] == [1, 2]


def test_a_run_in_which_every_trial_failed_says_why(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", ["failed", "failed"])
    with pytest.raises(UnavailableError, match="no trial of this run succeeded; their errors: error 0; error 1"):
        best_trials(run, 1)


def test_a_run_that_never_began_is_replaced(tmp_path: Path) -> None:
    """Such as one whose target nothing reaches: the corrected search may go into the same folder."""
    Run.create(tmp_path / "run", small_search(search={"seed": 1}))
    Run.create(tmp_path / "run", small_search(search={"seed": 2}))
    assert Run.open(tmp_path / "run").config.search.seed == 2


def test_a_folder_that_holds_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match=r"is no run folder: it has no config\.yaml"):
        Run.open(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"networks": [{"name": "chosen"}]}', "\x00"])
def test_a_damaged_result_is_an_error_that_names_it(text: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(InvalidFileError, match=r"result\.json is not a run's result"):
        RunResult.from_json(tmp_path / "result.json")
