"""Dimensions of compression compared: what each method searches, and what becomes of those that cannot be compared."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import Tensor, nn

from hwnas.latency_tables.device import Device
from hwnas.scripts import bench_dimensions
from hwnas.scripts.bench_dimensions import alone, dimension_figures, searched
from hwnas.scripts.compared_files import ORIGINAL, STATIC, file_figures
from hwnas.scripts.tuned_baselines import left_out
from hwnas.search import conclusion
from hwnas.search.compression.preparation import EVIDENCE
from hwnas.search.compression.sensitivity import SENSITIVITY
from hwnas.search.config import ControllerConfig, SearchConfig, parse_config
from hwnas.search.observer import Observer
from hwnas.search.run_folder import Run
from hwnas.spaces.errors import DiskFullError, DivergedError, InfeasibleError, InvalidFileError, UnknownNameError
from tests.search.fixtures import PATIENT, on_this_machine

BITS = {"weight_bits": [4, 32], "act_bits": [8, 32], "edge_bits": [8, 32]}


class Chain(nn.Module):
    """Without branches."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(1, 16, 3), nn.Conv2d(16, 16, 3), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(self.one(x).relu()).relu().mean((2, 3)))


class Listening(Observer):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def note(self, text: str) -> None:
        self.heard.append(text)


def config(**changes) -> SearchConfig:
    return parse_config(
        {
            "space": {"model": "tests.spaces.traced.models:DigitsNet", "joint": BITS | {"keep": [0.5, 1.0]}},
            "data": {"name": "digits", "limit": 100},
            "device": {"name": "simulated-bit-fusion"},
            "objective": {"metric": "macs", "target_ratio": 0.5},
            "controller": {"name": "evolution", "options": {"population": 9}},
        }
        | changes
    )


def test_a_dimension_alone_is_searched_by_the_files_controller_and_haq_by_its_own() -> None:
    whole = config()
    bits, haq, channels, depth = (alone(whole, n, branches=True) for n in ("bits", "haq", "channels", "depth"))
    assert bits.space.joint == haq.space.joint == BITS
    assert channels.space.joint == {"keep": [0.5, 1.0]}
    assert depth.space.joint == {}
    assert [own.space.narrow for own in (bits, haq, channels, depth)] == [{"*.present": [True]}] * 3 + [{}]
    assert alone(whole, "bits", branches=False).space.narrow == {}
    assert bits.controller == channels.controller == whole.controller
    assert haq.controller == ControllerConfig(name="ddpg")
    assert haq.compression.proposals == min(600, whole.compression.proposals)


def test_what_cannot_be_compared_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    def refused(wanted: SearchConfig, name: str = "bits") -> None:
        dimension_figures(wanted, [name], 1, tmp_path / "out", Observer())

    with pytest.raises(UnknownNameError, match="dimension 'hak'; did you mean 'haq'"):
        refused(config(), "hak")
    with pytest.raises(InvalidFileError, match=r"leave out space\.narrow"):
        refused(config(space=config().space.model_dump() | {"narrow": {"*.keep": [1.0]}}))
    target = {"metric": "macs", "target_ratio": 0.5}
    for further in (
        {"also": {"small": {"objective": target}}},
        {"objective": target | {"constraints": {"macs": 1e6}}},
        {"objective": target | {"constraint_ratios": {"macs": 0.5}}},
    ):
        with pytest.raises(InvalidFileError, match="one target"):
            refused(config(**further))
    assert not (tmp_path / "out").exists()


@pytest.fixture
def diverging(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Runs do nothing but leave what they know, and those of these folders fail."""
    failing: set[str] = set()

    def run_on(run: Run, observer: Observer) -> None:
        for name in (EVIDENCE, SENSITIVITY):
            (run.folder / name).write_text("known")
        if run.folder.name in failing:
            raise DivergedError("every candidate diverged")

    monkeypatch.setattr(bench_dimensions, "continue_run", run_on)
    return failing


def test_a_search_that_fails_is_left_out_and_the_others_go_on(diverging: set[str], tmp_path: Path) -> None:
    diverging.add("bits-4")
    observer = Listening()
    runs = searched(config(), ["bits", "haq", "rank"], [3, 4], tmp_path, observer)
    assert {name: sorted(own) for name, own in runs.items()} == {
        "joint": [3, 4], "bits": [3], "haq": [3, 4], "rank": [],
    }  # fmt: skip
    assert "bits 4 is left out: every candidate diverged" in observer.heard
    assert "rank 3 is left out: there is nothing that it could decide" in observer.heard
    means = {tuple(run.config.data.mean) for name, own in runs.items() for run in own.values() if run.config.data.mean}
    assert means == {tuple(runs["joint"][3].dataset.mean)}
    diverging.add("joint-5")
    with pytest.raises(DivergedError):
        searched(config(), ["bits"], [5], tmp_path, observer)


@pytest.mark.usefixtures("diverging")
def test_a_model_without_branches_has_its_other_dimensions(tmp_path: Path) -> None:
    observer = Listening()
    space = config().space.model_dump() | {"model": f"{__name__}:Chain"}
    runs = searched(config(space=space), ["bits", "depth"], [0], tmp_path, observer)
    assert list(runs["bits"]) == [0]
    assert not runs["depth"]
    assert "depth 0 is left out: there is nothing that it could decide" in observer.heard


@pytest.mark.usefixtures("diverging")
def test_a_run_by_another_controller_is_not_taken_for_one_of_this(tmp_path: Path) -> None:
    searched(config(), [], [0], tmp_path, Observer())
    (tmp_path / "joint-0" / "device").mkdir()
    searched(config(), [], [0], tmp_path, Observer())
    with pytest.raises(InvalidFileError, match="its controller differ"):
        searched(config(controller={"name": "random"}), [], [0], tmp_path, Observer())


def test_a_search_ends_when_there_is_nothing_left_to_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trials: list[int] = []

    def run_on(run: Run, observer: Observer) -> None:
        trials.append(run.config.search.trials)
        if len(trials) == 1:
            (run.folder / "device").mkdir()
            (run.folder / "device" / "profile.yaml").touch()
            raise InfeasibleError("no new candidate")

    monkeypatch.setattr(bench_dimensions, "continue_run", run_on)
    observer = Listening()
    bench_dimensions.finished(Run.create(tmp_path / "run", config()), observer)
    assert trials == [64, 0]
    assert observer.heard == ["it found nothing more to try after 0 trials"]


def test_a_full_disk_is_not_passed_over() -> None:
    with pytest.raises(DiskFullError), left_out("this", Observer()):
        raise DiskFullError
    with pytest.raises(KeyboardInterrupt), left_out("this", Observer()):
        raise KeyboardInterrupt


@pytest.mark.usefixtures("devices")
def test_files_are_compared_with_the_original_and_measured_by_the_devices_runtime(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conclusion, "FINAL_PROTOCOL", PATIENT)
    run = on_this_machine(finished, tmp_path / "run")
    chosen, original = run.folder / "model.onnx", run.folder / "reference.onnx"
    files = {"joint 0": chosen, STATIC: original, ORIGINAL: original}
    rows = file_figures(run, files, Observer())
    assert rows["joint 0"]["times_smaller"] == round(original.stat().st_size / chosen.stat().st_size, 2)
    gained = 100 * (rows["joint 0"]["test_accuracy"] - rows[ORIGINAL]["test_accuracy"])
    assert rows["joint 0"]["points"] == round(gained, 2)
    assert rows[ORIGINAL]["points"] == 0
    assert rows[ORIGINAL]["times_faster"] == rows[ORIGINAL]["times_smaller"] == 1
    ratio = rows[STATIC]["latency_ms"] / rows["joint 0"]["latency_ms"]
    assert rows["joint 0"]["times_faster_than_int8"] == pytest.approx(ratio, abs=1e-3)
    monkeypatch.setattr(Device, "make_runtime", lambda device: SimpleNamespace(name="torch"))
    observer = Listening()
    assert "latency_ms" not in file_figures(run, files, observer)["joint 0"]
    assert observer.heard == ["latencies are left out: the device runs torch, and the files are for ONNX Runtime"]
