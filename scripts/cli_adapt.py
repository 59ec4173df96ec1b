"""`hwnas adapt`: what a search learnt, for other devices and budgets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--device", "devices", multiple=True, help="Registered for the run's space.  [default: the run's own]")
@click.option("--metric", default="latency_ms", show_default=True, help="The cost that is bounded.")
@click.option("--target", "targets", type=float, multiple=True, required=True, help="The most it may be, in its unit.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="JSON file for the candidates.")
def adapt(
    run_folder: Path, devices: tuple[str, ...], metric: str, targets: tuple[float, ...], seed: int, out: Path | None
) -> None:
    """Find the best candidates for other devices and budgets from the trials of RUN, without training anything.

    Every --device is combined with every --target. Accuracies are predicted, and those of few and short trainings.
    """
    from hwnas.scripts.figures_table import print_figures
    from hwnas.search.adapt_run import adapt_run
    from hwnas.search.report.data import percent
    from hwnas.search.run_folder import Run
    from hwnas.spaces.files import write_text

    run = Run.open(run_folder)
    found = list(adapt_run(run, devices, metric, targets, seed))
    rows: dict[str, dict[str, Any]] = {}
    for name, target, network in found:
        rows[f"{name}, {metric} ≤ {target:g}"] = {
            "predicted accuracy": f"{percent(network.accuracy)} ({percent(network.low)} to {percent(network.high)})",
            metric: network.costs[metric], "weight bytes": network.costs["weight_bytes"], "macs": network.costs["macs"],
            "digest": run.space.decode(network.row).digest,
        }  # fmt: skip
    print_figures(rows, f"from {len(run.ledger.finished)} trials of {run_folder}", stderr=False)
    if out is not None:
        candidates = [
            {"device": name, metric: target, "candidate": dict(run.space.decode(network.row))}
            for name, target, network in found
        ]
        write_text(out, json.dumps(candidates, indent=1))
        click.echo(f"candidates: {out}")
