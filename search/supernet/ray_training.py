"""A supernet trained by several workers of a Ray cluster, or on a GPU of it: Ray Train, data parallel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import ray.train
import torch
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer

from hwnas.search.ray_nodes import MAX_FAILURES, ONE_CPU, as_ray_says, check_resources, threads_of
from hwnas.search.supernet.checkpoint import read_history
from hwnas.search.supernet.shard import Shard
from hwnas.search.supernet.task import SupernetTask, train_supernet
from hwnas.search.supernet.training import EpochReport
from hwnas.spaces.errors import HwnasError, UnavailableError
from hwnas.spaces.files import write_text

LOOK_S = 1.0
"""How often the checkpoint is looked at for epochs to tell of."""


def train_on_ray(
    task: SupernetTask, path: Path, *, workers: int, resources: Mapping[str, float] = ONE_CPU,
    heard: Callable[[EpochReport], None] = lambda _: None,
) -> None:  # fmt: skip
    """Trains the epochs that are missing; afterwards the checkpoint holds the last.

    Every worker takes its share of each batch, and gradients are added up by gloo, those of GPUs too. A worker that
    dies takes the others with it: all go on from the checkpoint, up to `MAX_FAILURES` times, and nothing but the epoch
    that was under way is done twice. Where no epoch is missing, nothing is asked of the cluster.

    Args:
        task: Sent to the workers.
        path: Of the checkpoint, in a folder that all nodes see. Where there is one, the training goes on from it.
        workers: How many.
        resources: Of which each takes ``cpu`` and ``gpu``, see `check_resources`. With a GPU it trains there.
        heard: Hears of each epoch.

    Raises:
        UnavailableError: The cluster does not have the resources, a worker does not see the folder, or workers died too
            often.
        HwnasError: What a worker raised.
        InvalidFileError: The checkpoint is damaged, or of another training.
    """
    path = path.resolve()
    if len(_history(path)) >= task.recipe.epochs:
        train_supernet(task, path)  # says whether it is this training's
        return
    own = ONE_CPU | {name: amount for name, amount in resources.items() if name in ("cpu", "gpu")}
    check_resources(own, at_once=workers)
    with _marked(path) as mark:
        config = {"task": task, "path": str(path), "mark": mark, "resources": own}
        for left in reversed(range(1 + MAX_FAILURES)):
            try:
                _fit(_trainer(config, workers), path, heard)
                return
            except (TrainingFailedError, RayError) as error:
                _check_worth_repeating(error, left)


def _trainer(config: dict[str, Any], workers: int) -> TorchTrainer:
    own = config["resources"]
    return TorchTrainer(
        _train,
        train_loop_config=config,
        scaling_config=ScalingConfig(num_workers=workers, use_gpu="gpu" in own, resources_per_worker=as_ray_says(own)),
        torch_config=TorchConfig(backend="gloo"),
        run_config=RunConfig(
            name="supernet",
            storage_path=str(Path(config["path"]).parent / "ray"),
            failure_config=FailureConfig(max_failures=0),  # it would repeat errors, too
        ),
    )


def _fit(trainer: TorchTrainer, path: Path, heard: Callable[[EpochReport], None]) -> None:
    """Tells of the epochs that the checkpoint gains meanwhile.

    In the main thread, Ray Train would take Ctrl-C for itself and keep it; in another it leaves it alone.
    """
    failures: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:
            failures.append(error)

    told, alive = len(_history(path)), True
    thread = Thread(target=fit, daemon=True)
    thread.start()
    while alive:
        thread.join(LOOK_S)
        alive = thread.is_alive()
        for report in _history(path)[told:]:
            heard(report)
            told += 1
    if failures:
        raise failures[0]


def _history(path: Path) -> list[EpochReport]:
    return read_history(path) if path.exists() else []


def _check_worth_repeating(error: Exception, left: int) -> None:
    """Raises what a worker raised; returns where one died, if it may be begun ``left`` times more."""
    causes = list(getattr(error, "worker_failures", {}).values()) or [error]
    for cause in causes:
        if isinstance(cause, HwnasError):
            raise cause from error
        if isinstance(cause, torch.OutOfMemoryError):
            raise UnavailableError(
                "the supernet does not fit into the GPU's memory; lower its batch_size or paths, mix fewer decisions, "
                "or let a worker take more of the GPU (search.resources)"
            ) from error
    if not any(type(cause).__module__.startswith("ray.") for cause in causes):
        raise error
    if not left:
        said = "; ".join(dict.fromkeys(f"{type(cause).__name__}: {cause}".splitlines()[0] for cause in causes))
        raise UnavailableError(
            f"workers that train the supernet died {1 + MAX_FAILURES} times ({said}); what they trained is kept: "
            "resume the run"
        ) from error


# ---- in the workers --------------------------------------------------------------------------------------------------


def _train(config: dict[str, Any]) -> None:
    torch.set_num_threads(threads_of(config["resources"]))
    context, path = ray.train.get_context(), Path(config["path"])
    _check_folder(path, config["mark"])
    train_supernet(
        config["task"],
        path,
        shard=Shard(context.get_world_rank(), context.get_world_size()),
        on_gpu="gpu" in config["resources"],
        heard=lambda report: ray.train.report({"epoch": report.epoch}),
    )


@contextmanager
def _marked(path: Path) -> Iterator[str]:
    """A file beside the checkpoint; workers that can read what it says see the same folder."""
    mark, file = uuid4().hex, _marker(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, mark)
    try:
        yield mark
    finally:
        file.unlink(missing_ok=True)


def _check_folder(path: Path, mark: str) -> None:
    with suppress(OSError):
        if _marker(path).read_text() == mark:
            return
    raise UnavailableError(
        f"node {ray.util.get_node_ip_address()} does not see the driver's folder {path.parent}: a supernet with "
        "several workers or on a GPU needs the run's folder on a file system that all nodes share"
    )


def _marker(path: Path) -> Path:
    return path.with_suffix(".driver")
