"""Accuracy with shared weights, and training that begins with them."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from hwnas.search.evaluators.fine_tune import FineTuningEvaluator, adopt
from hwnas.search.evaluators.shared import SharedWeights, SharedWeightsEvaluator
from hwnas.search.evaluators.train import TrainingEvaluator
from hwnas.search.supernet.checkpoint import read_weights, save_checkpoint
from hwnas.search.supernet.recipe import SupernetRecipe
from hwnas.search.training import Recipe
from hwnas.spaces.errors import InvalidFileError

from .supernet.toys import QUICK, toy_images, toy_space, training

SINGLE = SupernetRecipe(**{**QUICK, "mixed": (), "theta_share": 0.0, "epochs": 4})  # type: ignore[arg-type]
BRIEF = Recipe(epochs=1, batch_size=16)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> SharedWeights:
    made = training(SINGLE, joint=("bits",))
    for _ in range(4):
        made.train_epoch()
    path = tmp_path_factory.mktemp("supernet") / "supernet.safetensors"
    save_checkpoint(made, path)
    return SharedWeights(toy_space(("bits",)).spec, read_weights(path))


def test_the_accuracy_is_that_of_the_shared_network_calibrated_for_the_candidate(weights: SharedWeights) -> None:
    space, data = weights.space, toy_images()
    evaluator = pickle.loads(pickle.dumps(SharedWeightsEvaluator(weights, data, batch_size=len(data.train))))
    found = []
    for row in space.sample(np.random.default_rng(1), 6):
        shared = weights.network
        shared.calibrate(row, [data.normalise(data.train.images)])
        with torch.no_grad():
            guesses = shared.eval()(data.normalise(data.validation.images), row).argmax(1)
        evaluation = evaluator.start(space.decode(row), 0)
        found.append(evaluation.step())
        assert found[-1] == pytest.approx((guesses == data.validation.labels).double().mean().item(), abs=0.02)
    assert evaluator.steps == 1
    assert len(set(found)) > 1
    assert max(found) > 0.4  # chance is 0.25


def test_weights_of_another_space_are_refused(weights: SharedWeights) -> None:
    other = replace(weights, space_spec={**weights.space_spec, "num_classes": 5})
    with pytest.raises(InvalidFileError, match="no shared weights of space mbconv"):
        other.network  # noqa: B018


def test_fine_tuning_begins_where_the_shared_weights_are(weights: SharedWeights) -> None:
    space, data = weights.space, toy_images()
    candidate = space.decode(space.sample(np.random.default_rng(1), 1)[0])
    tuning = FineTuningEvaluator(space.spec, data, BRIEF, weights).start(candidate, 0)
    scratch = TrainingEvaluator(space.spec, data, BRIEF).start(candidate, 0)
    for name, tensor in weights.extract(candidate).state_dict().items():
        assert torch.equal(tuning.trainer.network.state_dict()[name], tensor)
    assert tuning.trainer.train_epoch() < scratch.trainer.train_epoch()
    assert not torch.equal(
        tuning.trainer.network.state_dict()["units.classifier.linear.weight"],
        weights.extract(candidate).state_dict()["units.classifier.linear.weight"],
    )


def test_fine_tuning_from_one_network_cuts_its_channels() -> None:
    """The widest network's weights, for one that is thinner and rounded."""
    space = toy_space(("bits",))
    widest = space.decode((space.sizes - 1).astype(np.int16))
    other = space.decode(np.where([d.name == "s4.width" for d in space.decisions], 0, space.sizes - 1).astype(np.int16))
    torch.manual_seed(3)
    whole = space.build(widest)
    tuning = FineTuningEvaluator(space.spec, toy_images(), BRIEF, whole.state_dict()).start(other, 0)
    own = tuning.trainer.network.state_dict()["units.head.conv.weight"]
    assert own.shape == (64, 32, 1, 1)
    assert torch.equal(own, whole.state_dict()["units.head.conv.weight"][:, :32])
    with pytest.raises(InvalidFileError, match="no layer of the candidate"):
        adopt(whole, {"units.none.weight": torch.zeros(3, 3)})
