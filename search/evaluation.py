"""How a run's candidates are evaluated: by training, from shared weights, or with them alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.search.evaluators.base import Evaluator
from hwnas.search.evaluators.fine_tune import FineTuningEvaluator
from hwnas.search.evaluators.shared import SharedWeights, SharedWeightsEvaluator
from hwnas.search.evaluators.train import TrainingEvaluator
from hwnas.search.observer import Observer
from hwnas.search.run_folder import Run
from hwnas.search.supernet.checkpoint import read_weights
from hwnas.search.supernet.task import SupernetTask, terms_of, train_supernet

if TYPE_CHECKING:
    from hwnas.search.supernet.training import EpochReport


def ensure_supernet(run: Run, observer: Observer) -> None:
    """Trains the run's supernet, from where it was left, if it is to have one."""
    config = run.config.supernet
    if config is None or (run.folder / "finals").exists():
        return
    observer.stage("Supernet")
    terms = terms_of(run.wanted, run.space, hinge=config.loss == "hinge")
    seed = run.config.search.seed
    elsewhere = {name: part.device for name, part in run.parts.items()}
    task = SupernetTask(run.space.spec, run.device, run.dataset, config.recipe, terms, seed, elsewhere)
    if config.workers > 1:
        from hwnas.search.supernet.ray_training import train_on_ray

        observer.progress(f"{config.epochs} epochs on {config.workers} workers", 0.0)
        train_on_ray(task, run.supernet_path, workers=config.workers)
        return

    def heard(report: EpochReport) -> None:
        words = f"epoch {report.epoch + 1} of {config.epochs}: loss {report.weights_loss:.3f}"
        observer.progress(words, (report.epoch + 1) / config.epochs)

    train_supernet(task, run.supernet_path, heard=heard)


def evaluator_of(run: Run) -> Evaluator:
    """What the configuration names."""
    config, spec = run.config.evaluator, run.space.spec
    if config.name == "train":
        return TrainingEvaluator(spec, run.dataset, run.config.training)
    path = Path(config.weights) if config.weights else run.supernet_path
    weights = SharedWeights(spec, read_weights(path))
    if config.name == "shared":
        return SharedWeightsEvaluator(weights, run.dataset, run.config.training.batch_size)
    return FineTuningEvaluator(spec, run.dataset, run.config.training, weights)
