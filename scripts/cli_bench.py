"""`hwnas bench`: the figures that hwnas claims, measured anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hwnas.scripts.cli_bench_search import compression, dimensions, driver, footprint, runs, search, supernet
from hwnas.scripts.consoles import emit


@click.group()
def bench() -> None:
    """Measure what hwnas claims; every benchmark prints JSON, and a table on stderr."""


for command in (search, runs, driver, supernet, compression, dimensions, footprint):
    bench.add_command(command)


@bench.command()
@click.option("--device", "device_name", default="this-machine", show_default=True)
@click.option("--batch", type=int, default=100_000, show_default=True, help="Candidates per call.")
@click.option("--repeats", type=int, default=7, show_default=True)
def scoring(device_name: str, batch: int, repeats: int) -> None:
    """Candidates scored per second on one core, from the slot tables."""
    from hwnas.scripts.bench_scoring import scoring_figures
    from hwnas.scripts.figures_table import print_figures

    figures = scoring_figures(device_name, batch, repeats)
    emit(figures)
    print_figures(figures, "spaces")


@bench.command()
@click.option("--device", "device_name", default="this-machine", show_default=True)
@click.option("--stored", is_flag=True, help="Measure nothing: leave out the ways that time operators alone.")
@click.option(
    "--seconds",
    type=click.FloatRange(1.0),
    help="To time operators alone, twice.  [default: as long as the registration took]",
)
def latency(device_name: str, stored: bool, seconds: float | None) -> None:
    """Whole-network latency prediction on the device's held-out networks, beside simpler ways on the same data."""
    from rich.console import Console

    from hwnas.scripts.bench_latency import latency_figures
    from hwnas.scripts.bench_operators import OperatorTiming
    from hwnas.scripts.figures_table import print_figures
    from hwnas.scripts.progress import TerminalObserver

    timing = None if stored else OperatorTiming(seconds)
    with TerminalObserver(Console(stderr=True)) as observer:
        figures = latency_figures(device_name, timing, observer.progress)
    emit(figures)
    print_figures(figures["ways"], "whole networks held out")
    if left_out := figures["operators_left_out"]:
        print_figures(left_out, "operators left out")
    if curve := figures["by_seconds"]:
        print_figures({f"{row['seconds']:.0f} s": row for row in curve}, "by seconds of registration")


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
    from hwnas.scripts.figures_table import print_figures

    figures = transfer_figures(tables, networks=networks, draws=draws, devices=devices, strict=strict, seed=seed)
    emit(figures)
    for file, one in figures["files"].items():
        print_figures({**one["devices"], "mean": one["mean"]}, f"{file}, each device taken as new")
    if len(figures["files"]) > 1:
        print_figures({"mean": figures["mean"]}, "all devices")


@bench.command()
@click.option(
    "--table",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Parquet file with columns arch, <device>_energy_mj and <device>_latency_ms.",
)
@click.option("--energy", "energy_column", help="Column of energies in millijoules.  [default: the only one]")
@click.option("--latency", "latency_column", help="Column of latencies.  [default: that of the same device]")
@click.option("--networks", type=click.IntRange(10, 10_000), default=100, show_default=True, help="Measured.")
@click.option("--draws", type=click.IntRange(1, 1000), default=20, show_default=True, help="Repetitions.")
@click.option("--device", "device_name", help="A registered device whose energy was measured, in place of a table.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the draws.")
def energy(
    path: Path | None,
    energy_column: str | None,
    latency_column: str | None,
    networks: int,
    draws: int,
    device_name: str | None,
    seed: int,
) -> None:
    """Predict energy from few measured networks, beside simpler ways on the same data."""
    from hwnas.scripts.bench_energy import device_figures, table_figures
    from hwnas.scripts.figures_table import print_figures

    if (path is None) == (device_name is None):
        raise click.UsageError("give either --table FILE or --device NAME")
    if device_name is not None and (energy_column or latency_column):
        raise click.UsageError("--energy and --latency are columns of a table, and --device has none")
    if path is not None:
        figures = table_figures(
            path, energy=energy_column, latency=latency_column, networks=networks, draws=draws, seed=seed
        )
    else:
        assert device_name is not None
        figures = device_figures(device_name, seed)
    emit(figures)
    print_figures(figures["ways"])
    if own := figures.get("ways_without_repeats"):
        print_figures(own, "without repeats of what was measured")


@bench.command()
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder with reference_nets.yaml, networks as stage tables, and fbnet_devices.parquet, latencies of FBNet's "
    "networks; without it only figures of the spaces themselves.",
)
def spaces(data: Path | None) -> None:
    """Sizes and speeds of spaces, the published networks in them, and tables of FBNet's blocks from few networks."""
    from hwnas.scripts.bench_blocks import block_figures
    from hwnas.scripts.bench_spaces import network_figures, space_figures, strings_line
    from hwnas.scripts.figures_table import print_figures

    figures: dict[str, Any] = {}
    if data is not None:
        figures["networks"] = network_figures(data / "reference_nets.yaml")
        figures["blocks"] = block_figures(data / "fbnet_devices.parquet")
    figures["spaces"] = space_figures()
    emit(figures)
    if data is not None:
        networks, blocks = figures["networks"], figures["blocks"]
        print_figures({name: row for name, row in networks.items() if "lacks" not in row}, "published networks")
        for name in (name for name, row in networks.items() if "lacks" in row):
            click.echo(f"{name} is in no space: {networks[name]['lacks']}", err=True)
        rows = {**blocks["devices"], "mean": blocks["mean"]}
        title = f"from {blocks['networks_learnt_from']} networks of a device"
        for ceiling, heading in ((False, f"FBNet's blocks {title}"), (True, "the best sum over blocks")):
            part = {d: {k: v for k, v in row.items() if k.startswith("ceiling_") is ceiling} for d, row in rows.items()}
            print_figures(part, heading)
    rows = {s: {k: v for k, v in row.items() if k != "published_strings"} for s, row in figures["spaces"].items()}
    print_figures(rows, "spaces")
    if "nasbench201" in rows:
        click.echo(strings_line(figures["spaces"]["nasbench201"]), err=True)
