"""Training where there is a GPU; on other machines it is left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hwnas.search.evaluators.shared import SharedWeights, SharedWeightsEvaluator
from hwnas.search.evaluators.train import TrainingEvaluator
from hwnas.search.finals import train_final
from hwnas.search.ray_cluster import cluster
from hwnas.search.run import run_search
from hwnas.search.run_folder import Run
from hwnas.search.supernet.checkpoint import load_checkpoint, read_weights, save_checkpoint
from hwnas.search.supernet.shard import Shard
from hwnas.search.supernet.task import SupernetTask, train_supernet
from hwnas.search.supernet.training import SupernetTraining
from hwnas.search.training import Recipe, training_device
from hwnas.spaces.errors import UnavailableError

from .fixtures import digits, digits_space, small_search
from .node_requests import Heard
from .supernet.toys import MODES, a_task, recipe, toy_images, toy_space, training

with_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
JOINT = ("bits", "sparsity", "rank")


def test_trials_without_a_gpu_train_on_the_processor() -> None:
    assert training_device(False).type == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_cannot_be_used_is_an_error() -> None:
    evaluator = TrainingEvaluator(digits_space().spec, digits(100), Recipe(), on_gpu=True)
    with pytest.raises(UnavailableError, match=r"PyTorch .* cannot use one here; install PyTorch for CUDA"):
        evaluator.start(digits_space().reference(), 0)


@with_gpu
def test_a_network_learns_on_the_gpu_and_its_weights_come_back() -> None:
    space = digits_space()
    evaluator = TrainingEvaluator(space.spec, digits(600), Recipe(epochs=4, learning_rate=0.01), on_gpu=True)
    for row in (space.encode(space.reference()), space.sample(np.random.default_rng(0), 1)[0]):
        evaluation = evaluator.start(space.decode(row), 0)
        accuracies = [evaluation.step() for _ in range(4)]
        assert next(evaluation.trainer.network.parameters()).is_cuda
        assert max(accuracies) > 0.3
        accuracy, weights = train_final(evaluator, space.decode(row).to_json(), 0, None)
        again, _ = train_final(evaluator, space.decode(row).to_json(), 0, weights)
        assert again == pytest.approx(accuracy, abs=0.02)


@with_gpu
@pytest.mark.parametrize("mode", MODES)
def test_a_supernet_learns_on_the_gpu_what_it_learns_on_the_processor(mode: str, tmp_path: Path) -> None:
    made = [training(recipe(mode), joint=JOINT, on_gpu=on_gpu) for on_gpu in (True, False)]
    assert next(made[0].network.parameters()).is_cuda
    for _ in range(2):
        fast, slow = (one.train_epoch() for one in made)
        assert fast.weights_loss == pytest.approx(slow.weights_loss, rel=0.05)
    assert fast.theta_loss == pytest.approx(slow.theta_loss, rel=0.05)
    steps = [one.thetas[0].logits.detach() for one in made]
    assert all(step.abs().max() > 0 for step in steps)
    assert torch.cosine_similarity(*steps, dim=0) > 0.9, "θ went the same way"
    save_checkpoint(made[0], tmp_path / "supernet.safetensors")
    on_processor, on_gpu = (training(recipe(mode), joint=JOINT, on_gpu=on) for on in (False, True))
    for again in (on_processor, on_gpu):
        load_checkpoint(again, tmp_path / "supernet.safetensors")
    third = made[0].train_epoch()
    assert on_gpu.train_epoch().weights_loss == pytest.approx(third.weights_loss, rel=0.02)
    assert on_processor.train_epoch().weights_loss == pytest.approx(third.weights_loss, rel=0.05)


@with_gpu
def test_shared_weights_are_worth_the_same_on_the_gpu(tmp_path: Path) -> None:
    made = training(recipe("single path"), joint=JOINT)
    made.train_epoch()
    save_checkpoint(made, tmp_path / "supernet.safetensors")
    space, data = toy_space(JOINT), toy_images()
    weights = SharedWeights(space.spec, read_weights(tmp_path / "supernet.safetensors"))
    evaluators = [SharedWeightsEvaluator(weights, data, on_gpu=on_gpu) for on_gpu in (True, False)]
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.max_memory_allocated()
    for row in space.sample(np.random.default_rng(0), 5):
        fast, slow = (evaluator.start(space.decode(row), 0).step() for evaluator in evaluators)
        assert fast == pytest.approx(slow, abs=0.03)
    assert torch.cuda.max_memory_allocated() > before


@with_gpu
@pytest.mark.timeout(600)
def test_two_workers_of_a_cluster_train_a_supernet_on_a_gpu_that_they_share(tmp_path: Path) -> None:
    from hwnas.search.supernet.ray_training import train_on_ray

    class OnGPU(SupernetTask):
        def begin(self, shard: Shard | None = None, *, on_gpu: bool = False) -> SupernetTraining:
            training = super().begin(shard, on_gpu=on_gpu)
            assert next(training.network.parameters()).is_cuda
            return training

    task, heard = a_task(), []
    with cluster(2):
        path, resources = tmp_path / "together" / "supernet.safetensors", {"cpu": 1.0, "gpu": 0.5}
        train_on_ray(OnGPU(**vars(task)), path, workers=2, resources=resources, heard=heard.append)
    alone = train_supernet(task, tmp_path / "alone.safetensors")
    assert [report.epoch for report in heard] == list(range(task.recipe.epochs))
    for one, other in zip(heard, alone.history, strict=True):
        assert one.weights_loss == pytest.approx(other.weights_loss, rel=0.1)


@with_gpu
@pytest.mark.timeout(600)
def test_a_search_trains_its_supernet_its_trials_and_its_finals_on_the_gpu(tmp_path: Path) -> None:
    settings = small_search(
        device={"name": "simulated-bit-fusion"},
        supernet={"epochs": 4, "warmup_epochs": 1, "mixed": [], "sandwich": True},
        evaluator={"name": "fine_tune"},
        search={"workers": 2, "resources": {"cpu": 1, "gpu": 0.5}},
        final={"epochs": 6},
    )
    heard = Heard()
    result = run_search(settings, tmp_path / "run", heard)
    assert sum(text.startswith("epoch ") for text in heard.texts) == 4
    assert all(trial.state in ("complete", "pruned") for trial in Run(tmp_path / "run", settings).ledger.finished)
    assert result.networks[0].test_accuracy > 0.2
