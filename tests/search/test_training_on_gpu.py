"""Training where there is a GPU; on other machines it is left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hwnas.search.evaluators.train import TrainingEvaluator
from hwnas.search.finals import train_final
from hwnas.search.training import Recipe, training_device

from .fixtures import digits, digits_space

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def test_a_network_learns_on_the_gpu_and_its_weights_come_back() -> None:
    assert training_device().type == "cuda"
    space = digits_space()
    evaluator = TrainingEvaluator(space.spec, digits(600), Recipe(epochs=4, learning_rate=0.01))
    for row in (space.encode(space.reference()), space.sample(np.random.default_rng(0), 1)[0]):
        evaluation = evaluator.start(space.decode(row), 0)
        accuracies = [evaluation.step() for _ in range(4)]
        assert next(evaluation.trainer.network.parameters()).is_cuda
        assert max(accuracies) > 0.3
        accuracy, weights = train_final(evaluator, space.decode(row).to_json(), 0, None)
        again, _ = train_final(evaluator, space.decode(row).to_json(), 0, weights)
        assert again == pytest.approx(accuracy, abs=0.02)
