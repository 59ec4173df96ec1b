"""`hwnas bench search`, `runs`, `driver`, `supernet`, `compression`, `dimensions`, `footprint`: how searches do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hwnas.scripts.consoles import emit
from hwnas.scripts.space_options import space_options


@click.command()
@click.option(
    "--table",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="Parquet file of all NAS-Bench-201 cells with columns arch, accuracy and costs.",
)
@click.option(
    "--cost",
    "columns",
    multiple=True,
    required=True,
    help="Column of costs, such as pixel3_latency_ms; may be given several times.",
)
@click.option(
    "--controllers",
    default="random,evolution",
    show_default=True,
    help="Names with commas between them; options follow colons: evolution:population=50:tournament=9.",
)
@click.option("--evaluations", type=click.IntRange(1, 15_000), default=200, show_default=True, help="Of each search.")
@click.option("--seeds", type=click.IntRange(1), default=8, show_default=True, help="Searches of each kind.")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Processes at a time.")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.html",
    help="Draw the regret over the evaluations, into a page that needs no network.",
)
def search(
    path: Path, columns: tuple[str, ...], controllers: str, evaluations: int, seeds: int, workers: int,
    plot: Path | None,
) -> None:  # fmt: skip
    """Compare controllers on networks that were trained before: hypervolume regret, and evaluations under a bound."""
    from rich.console import Console

    from hwnas.scripts.bench_search import search_figures, search_traces
    from hwnas.scripts.progress import TerminalObserver
    from hwnas.scripts.search_figures import print_table, write_plot

    with TerminalObserver(Console(stderr=True)) as observer:
        traces = search_traces(
            path, columns, controllers.split(","), evaluations=evaluations, seeds=seeds, workers=workers,
            heard=observer.progress,
        )  # fmt: skip
    figures = search_figures(traces)
    emit({"table": path.name, "evaluations": evaluations, "seeds": seeds, "columns": figures})
    for column, rows in figures.items():
        print_table(column, rows, seeds)
    if plot is not None:
        write_plot(plot, traces)


@click.command()
@click.option("--controllers", default="random,evolution", show_default=True, help="Names with commas between them.")
@click.option("--trials", type=click.IntRange(10), default=1000, show_default=True, help="Of no length.")
@click.option("--runs", type=click.IntRange(0), default=30, show_default=True, help="Searches to kill.")
@click.option("--kill-trials", type=click.IntRange(3), default=12, show_default=True, help="Of each of those.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
def driver(controllers: str, trials: int, runs: int, kill_trials: int, seed: int) -> None:
    """What the driver costs a trial, what a resume costs, and what becomes of searches that are killed."""
    from rich.console import Console

    from hwnas.scripts.bench_driver import kill_figures, overhead_figures, resume_figures
    from hwnas.scripts.figures_table import print_figures
    from hwnas.scripts.progress import TerminalObserver

    names = controllers.split(",")
    figures: dict[str, Any] = {}
    with TerminalObserver(Console(stderr=True)) as observer:
        figures["resume"] = {name: resume_figures(name, trials, seed) for name in names}
        figures["overhead"] = {name: overhead_figures(name, trials, seed) for name in names}
        if runs:
            figures["kill"] = {name: kill_figures(name, runs, kill_trials, seed, observer.progress) for name in names}
    emit(figures)
    print_figures(figures["resume"], "the session alone, and to resume it")
    print_figures(figures["overhead"], "trials of no length on 2 workers")
    if runs:
        print_figures(figures["kill"], "searches with one worker, each killed once")


@click.command()
@space_options
@click.option("--data", default="digits", show_default=True, help="digits, a folder of images, or a Parquet file.")
@click.option("--steps", type=click.IntRange(1), default=5, show_default=True, help="To time, of each way.")
@click.option("--supernet-epochs", type=click.IntRange(1), default=30, show_default=True, help="Of the shared weights.")
@click.option("--epochs", type=click.IntRange(1), default=4, show_default=True, help="Of each candidate alone.")
@click.option("--candidates", type=click.IntRange(2), default=20, show_default=True, help="To rank both ways.")
@click.option("--batch-size", type=click.IntRange(2), default=64, show_default=True, help="Images per step.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of weights, images and candidates.")
@click.option("--gpu", is_flag=True, help="Train everything on a GPU.")
def supernet(
    space_name: str,
    input_shape: str | None,
    classes: int | None,
    joint: str | None,
    data: str,
    steps: int,
    supernet_epochs: int,
    epochs: int,
    candidates: int,
    batch_size: int,
    seed: int,
    gpu: bool,
) -> None:
    """Time and memory of a supernet's steps beside a plain network's, and how its weights rank networks."""
    from rich.console import Console

    from hwnas.scripts.bench_supernet import Budget, supernet_figures
    from hwnas.scripts.figures_table import print_figures
    from hwnas.scripts.progress import TerminalObserver
    from hwnas.scripts.space_options import chosen_space
    from hwnas.search.datasets import load_dataset

    dataset = load_dataset(data)
    defaults = {"input_shape": list(dataset.input_shape), "num_classes": dataset.num_classes, "joint": []}
    space = chosen_space(space_name, input_shape, classes, joint, defaults)
    budget = Budget(steps, supernet_epochs, epochs, candidates)
    with TerminalObserver(Console(stderr=True)) as observer:
        figures = supernet_figures(
            space, data, budget, batch_size=batch_size, seed=seed, on_gpu=gpu, heard=observer.progress
        )
    emit(figures)
    print_figures(figures["ways"], f"one step of {batch_size} images, {figures['space']}")
    print_figures({"": figures["ranking"]}, "shared weights against training alone")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--controllers", required=True, help="Names with commas between them; options follow colons.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for the runs.")
@click.option("--data", help="Instead of the file's data.name.")
@click.option("--test-data", help="Instead of the file's data.test_path.")
@click.option("--seed", type=int, help="Instead of the file's search.seed.")
@click.option("--trials", type=int, help="Instead of the file's search.trials.")
@click.option("--minutes", type=float, help="Instead of the file's search.minutes.")
@click.option("--workers", type=int, help="Instead of the file's search.workers.")
def runs(
    file: Path, controllers: str, out: Path, data: str | None, test_data: str | None, seed: int | None,
    trials: int | None, minutes: float | None, workers: int | None,
) -> None:  # fmt: skip
    """Do the whole search of FILE once with each controller, and compare what they end with, measured.

    Runs that are in --out already are continued, or taken as they are.
    """
    from rich.console import Console

    from hwnas.scripts.bench_runs import run_figures
    from hwnas.scripts.controller_names import with_options
    from hwnas.scripts.figures_table import print_figures
    from hwnas.scripts.progress import TerminalObserver
    from hwnas.search.config import load_changed

    config = load_changed(
        file,
        {
            "search": {"seed": seed, "trials": trials, "minutes": minutes, "workers": workers},
            "data": {"name": data, "test_path": test_data},
        },
    )
    with TerminalObserver(Console(stderr=True)) as observer:
        figures = run_figures(config, [with_options(written) for written in controllers.split(",")], out, observer)
    emit(figures)
    print_figures(figures, str(file))


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="RUN")
@click.option("--candidates", type=click.IntRange(0), default=20, show_default=True, help="To fine-tune; 0 for none.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the candidates.")
def compression(folder: Path, candidates: int, seed: int) -> None:
    """A trained model's search: its files beside static int8 and against their modules, and how its proxy ranks."""
    from rich.console import Console

    from hwnas.scripts.bench_compression import agreement_figures, compared_figures, proxy_figures
    from hwnas.scripts.figures_table import print_figures
    from hwnas.scripts.progress import TerminalObserver
    from hwnas.search.run_folder import Run

    run = Run.open(folder)
    figures: dict[str, Any] = {"files": agreement_figures(run)}
    with TerminalObserver(Console(stderr=True)) as observer:
        figures["compared"] = compared_figures(run, observer)
        if candidates:
            figures["proxy"] = proxy_figures(run, candidates, seed, observer.progress)
    emit(figures)
    print_figures(figures["compared"], "files beside each other, on test images")
    print_figures(figures["files"], "files against their modules")
    if candidates:
        print_figures(figures["proxy"], "the proxy against fine-tuned accuracy")


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for the runs.")
@click.option(
    "--dimensions",
    default="bits,channels,rank,depth",
    show_default=True,
    help="Names with commas between them; haq is bits by HAQ's agent. The joint search is done always.",
)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Searches of each.")
def dimensions(file: Path, out: Path, dimensions: str, seeds: int) -> None:
    """Compress FILE's trained model jointly, by each dimension alone, and without a search, at one budget.

    Runs that are in --out already are continued, or taken as they are.
    """
    from rich.console import Console

    from hwnas.scripts.bench_dimensions import dimension_figures
    from hwnas.scripts.figures_table import print_figures
    from hwnas.scripts.progress import TerminalObserver
    from hwnas.search.config import load_config

    config = load_config(file)
    with TerminalObserver(Console(stderr=True)) as observer:
        figures = dimension_figures(config, [name for name in dimensions.split(",") if name], seeds, out, observer)
    emit(figures)
    print_figures(figures, str(file))


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for the run.")
def footprint(file: Path, out: Path) -> None:
    """Do the whole search of FILE, and say how long it took and how much memory all its processes had at most."""
    from hwnas.scripts.bench_footprint import footprint_figures
    from hwnas.scripts.figures_table import print_figures

    figures = footprint_figures(["search", str(file), "--out", str(out)])
    emit(figures)
    print_figures({str(out): figures})
