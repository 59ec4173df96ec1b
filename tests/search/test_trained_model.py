"""The compression of a trained model, from its weights to the exported file."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from hwnas.scripts.bench_compression import agreement_figures, compared_figures, proxy_figures
from hwnas.scripts.bench_dimensions import dimension_figures
from hwnas.scripts.tuned_baselines import PRUNED
from hwnas.search.compression.sensitivity import SENSITIVITY
from hwnas.search.config import parse_config
from hwnas.search.datasets import batches, load_dataset
from hwnas.search.observer import Observer
from hwnas.search.report.page import SENSITIVITY_CHART
from hwnas.search.run import continue_run, run_search
from hwnas.search.run_folder import Run
from hwnas.spaces.errors import InvalidFileError, InvalidSpaceError, UnknownNameError
from tests.spaces.traced.models import DigitsNet

JOINT = {"weight_bits": [4, 8, 32], "act_bits": [8, 32], "edge_bits": [8, 32], "keep": [0.5, 1.0], "rank": [0.5, 1.0]}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a network that was trained for some epochs."""
    torch.manual_seed(0)
    data, module = load_dataset("digits"), DigitsNet()
    optimizer = torch.optim.Adam(module.parameters(), 0.004)
    for epoch in range(8):
        for images, labels in batches(data.train, 64, torch.Generator().manual_seed(epoch)):
            optimizer.zero_grad()
            functional.cross_entropy(module(data.normalise(images)), labels).backward()
            optimizer.step()
    path = tmp_path_factory.mktemp("trained") / "digits.safetensors"
    save_file(module.state_dict(), path)
    return path


def config(weights: Path, **changes):
    return parse_config(
        {
            "space": {"model": "tests.spaces.traced.models:DigitsNet", "weights": str(weights), "joint": JOINT},
            "data": {"name": "digits"},
            "device": {"name": "simulated-bit-fusion"},
            "objective": {"metric": "energy_mj", "target_ratio": 0.3, "form": "strict"},
            "compression": {"images": 128, "proposals": 60},
            "training": {"epochs": 1, "learning_rate": 0.002, "label_smoothing": 0},
            "search": {"trials": 3, "workers": 2, "early_stopping": False},
            "final": {"candidates": 1, "epochs": 3},
        }
        | changes
    )


@pytest.fixture(scope="module")
def finished(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run") / "run"
    run_search(config(weights), folder)
    return Run.open(folder)


def module_of(weights: Path) -> torch.nn.Module:
    from safetensors.torch import load_file

    module = DigitsNet()
    module.load_state_dict(load_file(weights))
    return module.eval()


def test_the_original_is_the_reference_and_was_not_trained(finished: Run, weights: Path) -> None:
    data = finished.dataset
    with torch.no_grad():
        logits = module_of(weights)(data.normalise(data.test.images))
    accuracy = float((logits.argmax(1) == data.test.labels).float().mean())
    assert finished.result.networks[1].test_accuracy == pytest.approx(accuracy, abs=1e-6)
    session = onnxruntime.InferenceSession(finished.folder / "reference.onnx")
    (actual,) = session.run(None, {"input": data.normalise(data.test.images).numpy()})
    np.testing.assert_allclose(actual, logits.numpy(), atol=1e-3)


def test_the_chosen_network_meets_the_budget_and_is_about_as_accurate(finished: Run) -> None:
    chosen, reference = finished.result.networks
    assert not finished.result.exceeded
    assert chosen.energy_predicted_mj <= 0.3 * reference.energy_predicted_mj
    assert chosen.test_accuracy >= reference.test_accuracy - 0.1
    assert finished.result.agreement.agrees


def test_the_report_shows_what_the_model_can_do_without(finished: Run) -> None:
    page = (finished.folder / "report.html").read_text()
    assert "tests.spaces.traced.models:DigitsNet on simulated-bit-fusion" in page
    assert f'id="{SENSITIVITY_CHART}"' in page
    assert "What the model can do without" in page
    assert "the first and last layers stay whole" in page


def test_the_run_needs_neither_the_module_nor_its_file_again(finished: Run, weights: Path) -> None:
    settings = json.loads(json.dumps(finished.config.model_dump(mode="json")))
    assert settings["space"]["weights"] == str(weights)
    moved = weights.rename(weights.with_suffix(".gone"))
    try:
        again = Run.open(finished.folder)
        assert again.space.spec == finished.space.spec
        assert continue_run(again, Observer()).networks == finished.result.networks
    finally:
        moved.rename(weights)


def test_what_cannot_be_a_model_is_said_before_anything_is_written(weights: Path, tmp_path: Path) -> None:
    space = {"model": "tests.spaces.traced.models:DigitsNet", "weights": str(weights)}
    wrong = {
        "cannot be imported": (space | {"model": "nowhere:net"}, InvalidSpaceError, r"package\.module:function"),
        "is no module": (
            space | {"model": "json:loads", "options": {"s": "1"}}, InvalidSpaceError, "makes int, not a torch module",
        ),
        "has other weights": (space | {"options": {"width": 8}}, InvalidFileError, "does not hold the weights"),
        "reads other images": (
            space | {"model": "tests.spaces.traced.models:ResNet", "weights": None}, InvalidSpaceError, "cannot follow",
        ),
    }  # fmt: skip
    for what, (own, error, message) in wrong.items():
        with pytest.raises(error, match=message):
            run_search(config(weights, space=own), tmp_path / "run")
        assert not (tmp_path / "run").exists(), what
    with pytest.raises(InvalidFileError, match="leave out evaluator"):
        config(weights, evaluator={"name": "shared", "weights": "x"})
    with pytest.raises(InvalidFileError, match=r"give space\.model"):
        config(weights, space={"name": "mbconv"})


def test_a_corrected_configuration_is_traced_anew_and_not_read_from_the_folder(weights: Path, tmp_path: Path) -> None:
    first = Run.create(tmp_path / "run", config(weights))
    other = tmp_path / "other.safetensors"
    save_file({name: tensor + 0.01 for name, tensor in module_of(weights).state_dict().items()}, other)
    second = Run.create(tmp_path / "run", config(other))
    for run in (second, Run.open(second.folder)):
        assert not torch.equal(run.original.state["head.weight"], first.original.state["head.weight"])


def test_a_teacher_of_other_classes_is_refused(weights: Path, tmp_path: Path) -> None:
    teacher = {"model": "tests.spaces.traced.models:DigitsNet", "options": {"classes": 7}}
    with pytest.raises(InvalidSpaceError, match=r"the teacher returns \(7,\)"):
        Run.create(tmp_path / "run", config(weights, compression={"teacher": teacher}))


def test_the_benchmark_compares_files_with_modules_and_the_proxy_with_trainings(finished: Run) -> None:
    files = agreement_figures(finished)
    assert files["reference.onnx"]["same_top1"] == 1.0
    assert files["reference.onnx"]["largest_logit_difference"] < 1e-3
    assert files["model.onnx"]["accuracy_of_file"] == pytest.approx(finished.result.networks[0].test_accuracy)
    compared = compared_figures(finished, Observer())
    assert list(compared) == ["chosen", "static int8", "original"]
    assert compared["chosen"]["test_accuracy"] == pytest.approx(finished.result.networks[0].test_accuracy)
    assert compared["static int8"]["times_smaller"] > 1.5
    figures = proxy_figures(finished, 4, 0, lambda text, share: None)
    assert set(figures) == {"before any trial", "with the run's trials"}
    for own in figures.values():
        assert own["candidates"] == 4
        assert -1 <= own["kendall_tau"] <= 1
        assert 0 <= own["mean_error"] < 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_dimensions_are_compared_at_one_budget(weights: Path, tmp_path: Path) -> None:
    wanted = config(weights)
    heard: list[str] = []

    class Listening(Observer):
        def note(self, text: str) -> None:
            heard.append(text)

    dimensions = ["bits", "rank", "haq"]
    figures = dimension_figures(wanted, dimensions, 1, tmp_path, Listening())
    made = {f"{name} 0" for name in ("joint", *dimensions, "50% of all channels, int8")}
    made |= {f"{PRUNED} 0"} if find_spec("torch_pruning") else set()
    assert made | {"static int8", "original"} == set(figures)
    assert figures["original"]["points"] == 0
    assert figures["static int8"]["times_smaller"] > 1.5
    assert figures["50% of all channels, int8 0"]["times_smaller"] > figures["static int8"]["times_smaller"]
    assert figures["joint 0"]["target_ratio"] == 0.3 < figures["rank 0"]["target_ratio"]
    bits, rank, joint = (Run.open(tmp_path / f"{name}-0") for name in ("bits", "rank", "joint"))
    assert {d.name.rpartition(".")[2] for d in bits.space.decisions} == {"weight_bits", "act_bits"}
    assert {d.name.rpartition(".")[2] for d in rank.space.decisions} == {"rank", "form"}
    assert Run.open(tmp_path / "haq-0").config.controller.name == "ddpg"
    # Three trials of one epoch, and one final training of three.
    assert figures["joint 0"]["trained_images"] == 6 * len(joint.dataset.train)
    assert not joint.result.exceeded
    # Rank alone leaves floats: what it cannot reach is not asked of it.
    assert any("at best, so that its target is 102% of this" in text for text in heard)
    known = json.loads((joint.folder / SENSITIVITY).read_text())
    assert json.loads((bits.folder / SENSITIVITY).read_text()) == known
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.onnx")}
    assert dimension_figures(wanted, dimensions, 1, tmp_path, Observer()) == figures
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.onnx")} == times
    with pytest.raises(UnknownNameError, match="dimension 'bit'"):
        dimension_figures(wanted, ["bit"], 1, tmp_path, Observer())
