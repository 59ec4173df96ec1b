"""A supernet trained by several workers of a Ray cluster: Ray Train, data parallel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from hwnas.search.supernet.shard import Shard
from hwnas.search.supernet.task import SupernetTask, train_supernet

MAX_FAILURES = 2
"""Times that all workers begin again, from the last checkpoint, because one of them died."""


def train_on_ray(task: SupernetTask, path: Path, *, workers: int) -> None:
    """Trains the epochs that are missing; afterwards the checkpoint holds the last.

    Every worker takes its share of each batch, and gradients are added up by gloo. A worker that dies takes the others
    with it: all go on from the checkpoint, and nothing but the epoch that was under way is done twice.

    Args:
        task: Sent to the workers.
        path: Of the checkpoint, in a folder that all nodes see, as Ray Train itself needs one. Where there is one, the
            training goes on from it.
        workers: How many, one CPU each.

    Raises:
        ray.train.TrainingFailedError: Workers died more often than `MAX_FAILURES` times, or raised an error.
    """
    path = path.resolve()
    TorchTrainer(
        _train,
        train_loop_config={"task": task, "path": str(path)},
        scaling_config=ScalingConfig(num_workers=workers),
        torch_config=TorchConfig(backend="gloo"),
        run_config=RunConfig(
            name="supernet",
            storage_path=str(path.parent / "ray"),
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
        ),
    ).fit()


def _train(config: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    context = ray.train.get_context()
    shard = Shard(context.get_world_rank(), context.get_world_size())
    train_supernet(
        config["task"],
        Path(config["path"]),
        shard=shard,
        heard=lambda report: ray.train.report({"epoch": report.epoch}),
    )
