"""Training where there is a GPU; on other machines it is left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hwnas.search.evaluators.train import TrainingEvaluator
from hwnas.search.finals import train_final
from hwnas.search.training import Recipe, training_device
from hwnas.spaces.errors import UnavailableError

from .fixtures import digits, digits_space


def test_trials_without_a_gpu_train_on_the_processor() -> None:
    assert training_device(False).type == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_cannot_be_used_is_an_error() -> None:
    evaluator = TrainingEvaluator(digits_space().spec, digits(100), Recipe(), on_gpu=True)
    with pytest.raises(UnavailableError, match=r"PyTorch .* cannot use one here; install PyTorch for CUDA"):
        evaluator.start(digits_space().reference(), 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
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
