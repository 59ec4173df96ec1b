"""`hwnas bench`: the figures that hwnas claims, measured anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


@click.group()
def bench() -> None:
    """Measure what hwnas claims; every benchmark prints JSON."""


def emit(figures: dict[str, Any]) -> None:
    """Prints figures as JSON."""
    click.echo(json.dumps(figures, indent=1))


@bench.command()
@click.option("--device", "device_name", default="this-machine", show_default=True)
@click.option("--batch", type=int, default=100_000, show_default=True, help="Candidates per call.")
@click.option("--repeats", type=int, default=7, show_default=True)
def scoring(device_name: str, batch: int, repeats: int) -> None:
    """Candidates scored per second on one core, from the slot tables."""
    from hwnas.scripts.bench_scoring import scoring_figures

    emit(scoring_figures(device_name, batch, repeats))


@bench.command()
@click.option("--device", "device_name", default="this-machine", show_default=True)
def latency(device_name: str) -> None:
    """Whole-network latency prediction on the device's held-out networks, beside simpler ways on the same data."""
    from hwnas.scripts.bench_latency import latency_figures

    emit(latency_figures(device_name))


@bench.command()
@click.option(
    "--table",
    "tables",
    type=click.Path(dir_okay=False, path_type=Path),
    multiple=True,
    required=True,
    help="Parquet file with columns arch and <device>_latency_ms; may be given several times.",
)
@click.option("--networks", type=click.IntRange(3, 200), default=10, show_default=True, help="Measured of a device.")
@click.option("--draws", type=click.IntRange(1, 1000), default=20, show_default=True, help="Repetitions.")
@click.option("--device", "devices", multiple=True, help="Column to take as new; all by default.")
@click.option("--strict", is_flag=True, help="Know no column of the same device at another batch size.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the draws.")
def transfer(
    tables: tuple[Path, ...], networks: int, draws: int, devices: tuple[str, ...], strict: bool, seed: int
) -> None:
    """Predict new devices from a few measurements and others' tables, beside simpler ways on the same data."""
    from hwnas.scripts.bench_transfer import transfer_figures

    emit(transfer_figures(tables, networks=networks, draws=draws, devices=devices, strict=strict, seed=seed))
