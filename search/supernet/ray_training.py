"""A supernet trained by several workers of a Ray cluster, or on a GPU of it: Ray Train, data parallel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer

from hwnas.search.ray_nodes import MAX_FAILURES, ONE_CPU, as_ray_says, check_resources, threads_of
from hwnas.search.supernet.checkpoint import read_history
from hwnas.search.supernet.shard import Shard
from hwnas.search.supernet.task import SupernetTask, train_supernet
from hwnas.search.supernet.training import EpochReport
from hwnas.spaces.errors import HwnasError, InvalidFileError, UnavailableError

LOOK_S = 1.0
"""How often the checkpoint is looked at for epochs to tell of."""


def train_on_ray(
    task: SupernetTask, path: Path, *, workers: int, resources: Mapping[str, float] = ONE_CPU,
    heard: Callable[[EpochReport], None] = lambda _: None,
) -> None:  # fmt: skip
    """Trains the epochs that are missing; afterwards the checkpoint holds the last.

    Every worker takes its share of each batch, and gradients are added up by gloo, those of GPUs too. A worker that
    dies takes the others with it: all go on from the checkpoint, up to `MAX_FAILURES` times, and nothing but the epoch
    that was under way is done twice.

    Args:
        task: Sent to the workers.
        path: Of the checkpoint, in a folder that all nodes see, as Ray Train itself needs one. Where there is one, the
            training goes on from it.
        workers: How many.
        resources: Of which each takes ``cpu`` and ``gpu``, see `check_resources`. With a GPU it trains there.
        heard: Hears of each epoch.

    Raises:
        UnavailableError: The cluster does not have the resources, or workers died too often.
        HwnasError: What a worker raised.
    """
    path = path.resolve()
    own = {name: amount for name, amount in resources.items() if name in ("cpu", "gpu")}
    check_resources(own, at_once=workers)
    trainer = TorchTrainer(
        _train,
        train_loop_config={"task": task, "path": str(path), "resources": own},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu="gpu" in own, resources_per_worker=as_ray_says(own)),
        torch_config=TorchConfig(backend="gloo"),
        run_config=RunConfig(
            name="supernet",
            storage_path=str(path.parent / "ray"),
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
        ),
    )
    with _telling(path, heard):
        try:
            trainer.fit()
        except TrainingFailedError as error:
            raise _in_plain_words(error) from error


def _train(config: dict[str, Any]) -> None:
    torch.set_num_threads(threads_of(config["resources"]))
    context = ray.train.get_context()
    train_supernet(
        config["task"],
        Path(config["path"]),
        shard=Shard(context.get_world_rank(), context.get_world_size()),
        on_gpu="gpu" in config["resources"],
        heard=lambda report: ray.train.report({"epoch": report.epoch}),
    )


@contextmanager
def _telling(path: Path, heard: Callable[[EpochReport], None]) -> Iterator[None]:
    """Tells of the epochs that a checkpoint gains meanwhile."""
    told = len(_history(path))
    ended = Event()

    def tell() -> None:
        nonlocal told
        for report in _history(path)[told:]:
            told += 1
            heard(report)

    def watch() -> None:
        while not ended.wait(LOOK_S):
            tell()

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        tell()


def _history(path: Path) -> list[EpochReport]:
    with suppress(InvalidFileError):  # there is none yet
        return read_history(path)
    return []


def _in_plain_words(error: TrainingFailedError) -> HwnasError:
    """What a worker raised on purpose, or that they failed."""
    failures = getattr(error, "worker_failures", {}).values()
    causes = [getattr(failure, "_base_exc", failure) for failure in failures]
    for cause in causes:
        if isinstance(cause, HwnasError):
            return cause
    said = "; ".join(dict.fromkeys(f"{type(cause).__name__}: {cause}".splitlines()[0] for cause in causes))
    return UnavailableError(f"the workers that train the supernet failed too often ({said or error}); resume the run")
