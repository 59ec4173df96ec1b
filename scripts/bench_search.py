"""Controllers compared on a table of trained networks: what each finds with so many evaluations.

Every controller searches twice: for the whole front, which is judged by its hypervolume, and for the most accurate
network under a bound of the cost. Costs are known and free, accuracies are paid one by one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice, product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.scripts.controller_names import with_options
from hwnas.search.controllers.controller import make_controller
from hwnas.search.evaluators.table import TabularBenchmark, read_benchmark
from hwnas.search.front import Front
from hwnas.search.goal import STRICT, Floats, Goal
from hwnas.search.objective import Objective
from hwnas.spaces.errors import InfeasibleError
from hwnas.spaces.space import Space

WORST_ACCURACY = 0.10
AFTER = (50, 100, 200, 500, 1000)
PERCENTILES = (25, 50)
"""Of the cost: bounds of the second search."""
WITHIN = 0.002
"""Of the best accuracy below a bound: near enough."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One search.

    Attributes:
        regret: After each evaluation, shape (n,): the share of the true worth that is missing. For a bound, how much
            less accurate the best is than the best of all, as a share.
        seconds: That the controller took in all.
    """

    regret: Floats
    seconds: float


@dataclass(frozen=True, slots=True)
class Task:
    """One search to do: a percentile of None is the whole front."""

    path: Path
    column: str
    controller: str
    seed: int
    evaluations: int
    percentile: int | None = None
    options: dict[str, Any] = field(default_factory=dict)


Traces = dict[str, dict[str, dict[int | None, list[Trace]]]]
"""By column, by controller as it was written, and by percentile: one search per seed."""


def search_traces(
    path: Path,
    columns: Sequence[str],
    controllers: Sequence[str],
    *,
    evaluations: int = 200,
    seeds: int = 8,
    workers: int = 2,
    heard: Callable[[str, float], None] = lambda text, share: None,
) -> Traces:
    """All searches.

    Args:
        path: Of the table, see `read_benchmark`.
        columns: Costs.
        controllers: Names, see `make_controller`; options may follow, such as ``evolution:population=50:tournament=9``.
        evaluations: Of each search.
        seeds: Searches of each kind.
        workers: Processes at a time.
        heard: Hears how far it is.
    """
    kinds = list(product(columns, controllers, (None, *PERCENTILES)))
    tasks = []
    for column, written, percentile in kinds:
        name, options = with_options(written)
        tasks += [Task(path, column, name, seed, evaluations, percentile, options) for seed in range(seeds)]
    for task in tasks[::seeds]:  # mistakes show before the first search
        make_controller(task.controller, *_problem(task), **task.options)
    done = iter(_run_all(tasks, workers, heard))
    traces: Traces = {column: {written: {} for written in controllers} for column in columns}
    for column, written, percentile in kinds:
        traces[column][written][percentile] = list(islice(done, seeds))
    return traces


def search_figures(traces: Traces) -> dict[str, dict[str, dict[str, float | None]]]:
    """Figures by column of costs and controller: means over seeds and their standard errors, None for what is not."""
    return {column: {name: _figures(own) for name, own in rows.items()} for column, rows in traces.items()}


def run_task(task: Task) -> Trace:
    """One search, its controller's time apart from that of the evaluations."""
    benchmark = _benchmark(task.path, task.column)
    space, objective = _problem(task)
    best = objective.worth(benchmark.accuracies, benchmark.cost(benchmark.rows))
    begun = time.perf_counter()
    controller = make_controller(task.controller, space, objective, task.seed, **task.options)
    seconds = time.perf_counter() - begun
    regret = np.empty(task.evaluations)
    for done in range(task.evaluations):
        begun = time.perf_counter()
        try:
            row = controller.ask(1)
        except InfeasibleError:
            if not done:
                raise
            regret[done:] = regret[done - 1]
            break
        seconds += time.perf_counter() - begun
        accuracy = benchmark.accuracy(row)
        begun = time.perf_counter()
        controller.tell(row, {"accuracy": accuracy})
        seconds += time.perf_counter() - begun
        worth = objective.worth(controller.results.accuracy, controller.results.costs)
        regret[done] = 1 - worth / best if task.percentile is None else best - worth
    return Trace(regret, seconds)


def _run_all(tasks: Sequence[Task], workers: int, heard: Callable[[str, float], None]) -> list[Trace]:
    if workers == 1:
        return [run_task(task) for task in tasks]
    with ProcessPoolExecutor(workers, get_context("spawn"), _single_threaded) as pool:
        traces = []
        for done, trace in enumerate(pool.map(run_task, tasks), 1):
            traces.append(trace)
            heard(f"{tasks[done - 1].controller} on {tasks[done - 1].column}", done / len(tasks))
    return traces


def _single_threaded() -> None:
    import torch

    torch.set_num_threads(1)


@lru_cache(maxsize=4)
def _benchmark(path: Path, column: str) -> TabularBenchmark:
    return read_benchmark(path, column)


def _problem(task: Task) -> tuple[Space, Objective]:
    benchmark = _benchmark(task.path, task.column)
    if task.percentile is None:
        return benchmark.space, Front.of(
            benchmark.cost, benchmark.metric, benchmark.costs, worst_accuracy=WORST_ACCURACY
        )
    bound = float(np.percentile(benchmark.costs, task.percentile))
    goal = Goal(bound, benchmark.metric, STRICT, {benchmark.metric: bound})
    return benchmark.space, Objective(benchmark.cost, (goal,))


def _figures(searches: dict[int | None, list[Trace]]) -> dict[str, float | None]:
    regret = np.array([trace.regret for trace in searches[None]])
    evaluations = regret.shape[1]
    figures: dict[str, float | None] = {}
    for after in (*(n for n in AFTER if n < evaluations), evaluations):
        figures[f"regret_{after}"] = round(float(regret[:, after - 1].mean()), 5)
        figures[f"error_{after}"] = _rounded(standard_error(regret[:, after - 1]), 5)
    for percentile in PERCENTILES:
        needed = [_needed(trace.regret) for trace in searches[percentile]]
        found = np.array([n for n in needed if n is not None], dtype=np.float64)
        figures[f"evaluations_{percentile}"] = round(float(found.mean()), 1) if len(found) else None
        figures[f"evaluations_error_{percentile}"] = _rounded(standard_error(found), 1)
        figures[f"found_{percentile}"] = len(found)
    seconds = [trace.seconds for traces in searches.values() for trace in traces]
    figures["ms_per_candidate"] = round(1000 * float(np.mean(seconds)) / evaluations, 2)
    return figures


def _needed(regret: Floats) -> int | None:
    """The evaluation that came near enough."""
    near = np.flatnonzero(regret <= WITHIN)
    return int(near[0]) + 1 if len(near) else None


def standard_error(values: Floats) -> Floats:
    """Of the mean over the first axis; NaN where there is one value or none."""
    if len(values) < 2:
        return np.full(values.shape[1:], np.nan)
    return np.asarray(values.std(axis=0, ddof=1) / len(values) ** 0.5)


def _rounded(error: Floats, digits: int) -> float | None:
    return round(float(error), digits) if np.isfinite(error) else None
