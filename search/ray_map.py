"""One function for many arguments, side by side on a Ray cluster that was joined."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import ray
import torch

from hwnas.search.ray_nodes import MAX_FAILURES, ONE_CPU, as_ray_says, check_resources, threads_of

Result = TypeVar("Result")


def map_parallel(
    function: Callable[..., Result],
    shared: object,
    arguments: Sequence[tuple[Any, ...]],
    resources: Mapping[str, float] = ONE_CPU,
    heard: Callable[[int, Result], None] = lambda i, result: None,
) -> list[Result]:
    """``function(shared, *arguments[i])`` for every i, each in a worker process, results in order.

    ``resources`` are what each takes of its node, as those of a trial; ``heard`` hears of each result as it comes.
    Raises `UnavailableError` where no node has the resources.
    """
    check_resources(resources)
    bundle = as_ray_says(resources)
    reference = ray.put(shared)
    remote = ray.remote(
        num_cpus=bundle.pop("CPU", 0), num_gpus=bundle.pop("GPU", 0), resources=bundle, max_retries=MAX_FAILURES
    )(_with_threads)
    threads = threads_of(resources)
    under_way = {remote.remote(threads, function, reference, *args): i for i, args in enumerate(arguments)}
    results: dict[int, Result] = {}
    while under_way:
        for task in ray.wait(list(under_way))[0]:
            i = under_way.pop(task)
            results[i] = ray.get(task)
            heard(i, results[i])
    return [results[i] for i in range(len(arguments))]


def _with_threads(threads: int, function: Callable[..., Result], *arguments: Any) -> Result:
    torch.set_num_threads(threads)
    return function(*arguments)
