"""`hwnas bench`: the figures that hwnas claims, measured anew."""

from __future__ import annotations

import json
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
