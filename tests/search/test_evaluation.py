"""Runs whose candidates share the weights of a supernet that the run trains first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwnas.search.config import SearchConfig, parse_config
from hwnas.search.evaluation import controller_of, ensure_supernet, evaluator_of
from hwnas.search.evaluators.fine_tune import FineTuningEvaluator
from hwnas.search.evaluators.shared import SharedWeights
from hwnas.search.observer import Observer
from hwnas.search.ray_cluster import cluster
from hwnas.search.run import run_search
from hwnas.search.run_folder import Run
from hwnas.search.supernet.checkpoint import read_logits, read_weights
from hwnas.search.training import accuracy, calibrate
from hwnas.spaces.errors import InvalidFileError, UnknownNameError

from .fixtures import small_search, synthetic_device

SUPERNET = {"epochs": 2, "warmup_epochs": 1, "mixed": [], "learning_rate": 0.03, "batch_size": 32}


class Heard(Observer):
    def __init__(self) -> None:
        self.said: list[str] = []

    def stage(self, title: str) -> None:
        self.said.append(title)

    def progress(self, text: str, share: float) -> None:
        self.said.append(text)


def shared_search(**sections: dict[str, Any]) -> SearchConfig:
    return small_search(**{"supernet": SUPERNET, "evaluator": {"name": "shared"}, **sections})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """With a device and a trained supernet."""
    folder = tmp_path_factory.mktemp("run")
    made = Run(folder, shared_search(controller={"name": "gumbel"}))
    synthetic_device().save(folder / "device")
    ensure_supernet(made, Observer())
    return made


def test_the_supernet_is_trained_once_and_its_epochs_are_heard_of(run: Run) -> None:
    before, heard = run.supernet_path.read_bytes(), Heard()
    ensure_supernet(run, heard)
    assert heard.said == ["Supernet"]  # nothing is left to do
    assert run.supernet_path.read_bytes() == before
    run.supernet_path.unlink()
    ensure_supernet(run, heard)
    assert [text.partition(":")[0] for text in heard.said[2:]] == ["epoch 1 of 2", "epoch 2 of 2"]
    assert run.supernet_path.read_bytes() == before


def test_its_weights_evaluate_candidates_and_its_parameters_propose_them(run: Run) -> None:
    evaluator = evaluator_of(run)
    assert evaluator.steps == 1
    weights = SharedWeights(run.space.spec, read_weights(run.supernet_path))
    network = weights.extract(run.space.reference())
    calibrate(network, run.dataset, 32)
    by_hand = accuracy(network, run.dataset, run.dataset.validation)
    assert evaluator.start(run.space.reference(), 0).step() == by_hand
    controller = controller_of(run)
    assert np.array_equal(controller.logits, read_logits(run.supernet_path))  # type: ignore[attr-defined]
    assert run.config.steps == evaluator.steps


def test_or_are_where_trainings_begin(run: Run) -> None:
    tuned = Run(run.folder, shared_search(evaluator={"name": "fine_tune"}, training={"epochs": 2}))
    evaluator = evaluator_of(tuned)
    assert isinstance(evaluator, FineTuningEvaluator)
    assert evaluator.steps == tuned.config.steps == 2
    begun = evaluator.start(run.space.reference(), 0).trainer.network.state_dict()
    shared = SharedWeights(run.space.spec, read_weights(run.supernet_path)).extract(run.space.reference())
    assert all(bool((begun[name] == value).all()) for name, value in shared.state_dict().items())


@pytest.mark.parametrize("name", ["shared", "fine_tune"])
def test_shared_weights_must_come_from_somewhere(name: str, run: Run, tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match=f"evaluator {name} needs weights, or a supernet section"):
        small_search(evaluator={"name": name})
    elsewhere = small_search(evaluator={"name": name, "weights": str(run.supernet_path)})
    assert 0 < evaluator_of(Run(run.folder, elsewhere)).start(run.space.reference(), 0).step() < 1
    (tmp_path / "no.safetensors").write_bytes(b"nothing")
    damaged = small_search(evaluator={"name": name, "weights": str(tmp_path / "no.safetensors")})
    with pytest.raises(InvalidFileError, match=r"no\.safetensors is no checkpoint of a supernet"):
        evaluator_of(Run(run.folder, damaged))


def test_a_key_that_does_not_exist_is_an_error_that_names_the_nearest() -> None:
    data = small_search().model_dump(mode="json")
    with pytest.raises(UnknownNameError, match="'epohcs'; did you mean 'epochs'"):
        parse_config(data | {"supernet": {"epohcs": 3}})


@pytest.mark.slow
def test_several_workers_of_a_cluster_train_the_supernet(tmp_path: Path) -> None:
    made = Run(tmp_path / "run", shared_search(supernet=SUPERNET | {"workers": 2}))
    synthetic_device().save(made.folder / "device")
    heard = Heard()
    with cluster(2):
        ensure_supernet(made, heard)
    assert [text.partition(":")[0] for text in heard.said] == [
        "Supernet", "waiting for workers, 2 in all", "epoch 1 of 2", "epoch 2 of 2",
    ]  # fmt: skip
    assert evaluator_of(made).start(made.space.reference(), 0).step() > 0


@pytest.mark.slow
@pytest.mark.usefixtures("devices")
def test_a_whole_search_on_shared_weights(tmp_path: Path) -> None:
    heard = Heard()
    config = shared_search(controller={"name": "gumbel"}, search={"trials": 6, "workers": 2})
    result = run_search(config, tmp_path / "run", heard)
    assert [title for title in heard.said if title[0].isupper()][:3] == ["Device", "Supernet", "Search"]
    run = Run.open(tmp_path / "run")
    assert [t.state for t in run.ledger.trials()] == ["complete"] * 6
    assert {t.steps for t in run.ledger.trials()} == {1}
    assert len(result.networks) == 2
