"""How a run's candidates are evaluated: by training, from shared weights, or with them alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hwnas.search.compression.knowledge import TrainedWeights
from hwnas.search.config import SupernetConfig
from hwnas.search.controllers.controller import Controller, make_controller
from hwnas.search.controllers.screened import Screened
from hwnas.search.evaluators.base import Evaluator
from hwnas.search.evaluators.fine_tune import FineTuningEvaluator
from hwnas.search.evaluators.shared import SharedWeights, SharedWeightsEvaluator
from hwnas.search.evaluators.train import TrainingEvaluator
from hwnas.search.observer import Observer
from hwnas.search.run_folder import Run
from hwnas.search.supernet.checkpoint import read_logits, read_weights
from hwnas.search.supernet.cost_terms import CostTerm
from hwnas.search.supernet.task import SupernetTask, terms_of, train_supernet
from hwnas.search.training import Recipe

if TYPE_CHECKING:
    from hwnas.search.supernet.training import EpochReport


def ensure_supernet(run: Run, observer: Observer) -> None:
    """Trains the run's supernet, from where it was left, if it is to have one."""
    config = run.config.supernet
    if config is None or (run.folder / "finals").exists():
        return
    observer.stage("Supernet")
    terms = tuple(dict.fromkeys(_terms(run, config)))
    seed = run.config.search.seed
    elsewhere = {group[0].config.device.name: group[0].device for group in run.by_device[1:]}
    task = SupernetTask(run.space.spec, run.device, run.dataset, config.recipe, terms, seed, elsewhere)

    def heard(report: EpochReport) -> None:
        words = f"epoch {report.epoch + 1} of {config.epochs}: loss {report.weights_loss:.3f}"
        observer.progress(words, (report.epoch + 1) / config.epochs)

    resources = run.config.search.resources
    if config.workers == 1 and "gpu" not in resources:
        with torch_threads(int(resources["cpu"])):
            train_supernet(task, run.supernet_path, heard=heard)
        return
    from hwnas.search.supernet.ray_training import train_on_ray

    observer.progress(f"waiting for workers, {config.workers} in all", 0.0)
    train_on_ray(task, run.supernet_path, workers=config.workers, resources=resources, heard=heard)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Of torch, meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, count))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _controller_options(run: Run) -> dict[str, Any]:
    """Those of the configuration; architecture parameters are those of the run's supernet, if it has one."""
    options, config = dict(run.config.controller.options), run.config.supernet
    if run.config.controller.name == "gumbel" and config is not None and "logits" not in options:
        terms = _terms(run, config)
        trained = dict(zip(dict.fromkeys(terms), read_logits(run.supernet_path), strict=True))
        options["logits"] = [trained[term] for term in terms]
    return options


def _terms(run: Run, config: SupernetConfig) -> tuple[CostTerm, ...]:
    return terms_of(run.wanted, run.space, hinge=config.loss == "hinge")


def controller_of(run: Run) -> Controller:
    """Who proposes the run's candidates; of a trained model, those that look best of many."""
    name, seed, options = run.config.controller.name, run.config.search.seed, _controller_options(run)
    if run.original is None:
        return make_controller(name, run.space, run.wanted, seed, **options)
    from hwnas.search.compression.preparation import proxy_of

    proposals = run.config.compression.proposals
    return Screened(run.space, run.wanted, seed, proxy=proxy_of(run), name=name, options=options, proposals=proposals)


def evaluator_of(run: Run, recipe: Recipe | None = None) -> Evaluator:
    """What the configuration names, with its recipe or another one.

    With another, it is for what is trained in full: from scratch where trials are judged by shared weights.
    """
    config, spec = run.config.evaluator, run.space.spec
    on_gpu = "gpu" in run.config.search.resources
    if run.original is not None:
        from hwnas.search.compression.preparation import trained_weights

        return fine_tuning(run, trained_weights(run), recipe)
    if config.name == "train" or recipe is not None:
        return TrainingEvaluator(spec, run.dataset, recipe or run.config.training, on_gpu=on_gpu)
    path = Path(config.weights) if config.weights else run.supernet_path
    weights = SharedWeights(spec, read_weights(path))
    if config.name == "shared":
        return SharedWeightsEvaluator(weights, run.dataset, run.config.training.batch_size, on_gpu=on_gpu)
    return FineTuningEvaluator(spec, run.dataset, run.config.training, weights, on_gpu=on_gpu)


def fine_tuning(run: Run, weights: TrainedWeights, recipe: Recipe | None = None) -> FineTuningEvaluator:
    """Fine-tunes networks of a trained model as a run does; the model need not be the run's, but its teacher is."""
    on_gpu = "gpu" in run.config.search.resources
    recipe = recipe or run.config.training
    return FineTuningEvaluator(weights.space_spec, run.dataset, recipe, weights, on_gpu=on_gpu, teacher=run.teacher)
