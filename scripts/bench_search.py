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
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.search.controller import make_controller
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


def search_figures(
    path: Path,
    columns: Sequence[str],
    controllers: Sequence[str],
    *,
    evaluations: int = 200,
    seeds: int = 8,
    workers: int = 2,
    heard: Callable[[str, float], None] = lambda text, share: None,
) -> dict[str, Any]:
    """Figures by column of costs and controller, means over seeds and their standard errors.

    Args:
        path: Of the table, see `read_benchmark`.
        columns: Costs.
        controllers: Names, see `make_controller`; options may follow, such as ``evolution:population=50``.
        evaluations: Of each search.
        seeds: Searches of each kind.
        workers: Processes at a time.
        heard: Hears how far it is.
    """
    for column in columns:
        read_benchmark(path, column)
    tasks = [
        Task(path, column, name, seed, evaluations, percentile, options)
        for column, (name, options), percentile, seed in product(
            columns, map(_with_options, controllers), (None, *PERCENTILES), range(seeds)
        )
    ]
    for name, options in map(_with_options, controllers):
        make_controller(name, *_problem(Task(path, columns[0], name, 0, 1)), 0, **options)
    traces = _run_all(tasks, workers, heard)
    figures: dict[str, Any] = {"table": path.name, "evaluations": evaluations, "seeds": seeds, "columns": {}}
    per_kind = len(PERCENTILES) + 1
    for i, column in enumerate(columns):
        rows: dict[str, Any] = {}
        for j, written in enumerate(controllers):
            start = (i * len(controllers) + j) * per_kind * seeds
            own = [traces[start + k * seeds : start + (k + 1) * seeds] for k in range(per_kind)]
            rows[written] = _figures(own[0], dict(zip(PERCENTILES, own[1:], strict=True)))
        figures["columns"][column] = rows
    return figures


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
    goal = Goal(bound, benchmark.metric, STRICT)
    return benchmark.space, Objective(benchmark.cost, (goal,), {benchmark.metric: bound})


def _figures(front: Sequence[Trace], bounds: dict[int, Sequence[Trace]]) -> dict[str, float]:
    regret = np.array([trace.regret for trace in front])
    figures = {}
    for after in (n for n in AFTER if n <= regret.shape[1]):
        figures[f"regret_{after}"] = round(float(regret[:, after - 1].mean()), 5)
        figures[f"error_{after}"] = round(_standard_error(regret[:, after - 1]), 5)
    for percentile, traces in bounds.items():
        needed = [_needed(trace.regret) for trace in traces]
        found = [n for n in needed if n is not None]
        figures[f"evaluations_{percentile}"] = round(float(np.mean(found)), 1) if found else float("nan")
        figures[f"evaluations_error_{percentile}"] = round(_standard_error(np.array(found, dtype=np.float64)), 1)
        figures[f"found_{percentile}"] = len(found)
    everything = [*front, *(trace for traces in bounds.values() for trace in traces)]
    figures["ms_per_candidate"] = round(
        1000 * float(np.mean([trace.seconds / len(trace.regret) for trace in everything])), 2
    )
    return figures


def _needed(regret: Floats) -> int | None:
    """The evaluation that came near enough."""
    near = np.flatnonzero(regret <= WITHIN)
    return int(near[0]) + 1 if len(near) else None


def _standard_error(values: Floats) -> float:
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("nan")


def _with_options(written: str) -> tuple[str, dict[str, Any]]:
    """The name and the options of a controller such as ``evolution:population=50,tournament=10``."""
    name, _, rest = written.partition(":")
    pairs = (pair.partition("=") for pair in filter(None, rest.split(",")))
    return name, {key: _number(text) for key, _, text in pairs}


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
