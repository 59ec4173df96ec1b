"""`hwnas device kit` and `hwnas device import`: devices that hwnas cannot run on."""

from __future__ import annotations

import click
from rich.console import Console

from hwnas.scripts.space_options import DEFAULTS, chosen_space, space_options


@click.command()
@click.argument("name")
@space_options
@click.option(
    "--networks",
    type=click.IntRange(48, 2000),
    help="Networks to learn from; by default as many as a Raspberry-Pi-class board measures in time, up to 240.",
)
@click.option("--minutes", type=click.FloatRange(0.1, 1440.0), default=20.0, show_default=True, help="On the board.")
@click.option("--provider", default="cpu", show_default=True, help="Of the board's ONNX Runtime: cpu, xnnpack, qnn, …")
@click.option("--threads", type=click.IntRange(1, 1024), default=1, show_default=True)
@click.option("--batch", type=click.IntRange(1, 4096), default=1, show_default=True, help="Images per inference.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the networks drawn.")
@click.option("--out", type=click.Path(), required=True, help="The ZIP archive to write.")
def kit(
    name: str,
    space_name: str,
    input_shape: str | None,
    classes: int | None,
    joint: str | None,
    networks: int | None,
    minutes: float,
    provider: str,
    threads: int,
    batch: int,
    seed: int,
    out: str,
) -> None:
    """Pack a kit that measures a board without hwnas as the device NAME.

    The board needs Python with numpy and onnxruntime: unpack the kit there, and run `python measure.py`.
    """
    from pathlib import Path

    import torch

    from hwnas.latency_tables.device import device_folder
    from hwnas.latency_tables.kit.board import in_words
    from hwnas.latency_tables.kit.pack import KitPlan, pack_kit
    from hwnas.scripts.progress import TerminalObserver

    torch.set_num_threads(1)
    device_folder(name)
    space = chosen_space(space_name, input_shape, classes, joint, DEFAULTS)
    plan = KitPlan(networks=networks, minutes=minutes)
    with TerminalObserver(Console()) as observer:
        observer.stage(f"Packing a kit for {name}")
        done = pack_kit(
            Path(out), name, space, plan,
            provider=provider, threads=threads, batch=batch, seed=seed, progress=observer.progress,
        )  # fmt: skip
    click.echo(
        f"{out}: {done.size_bytes / 1e6:.1f} MB, {done.networks} networks to learn from and {done.checks} held out; "
        f"{in_words(done.estimate_s)} on a Raspberry-Pi-class board"
    )
    click.echo("on the board: unpack it, run 'python measure.py', and bring results.zip back")


@click.command("import")
@click.argument("results", type=click.Path())
@click.option("--kit", "kit_path", type=click.Path(), help="The kit; else the plan in RESULTS is taken.")
@click.option("--power", type=click.Path(), help="The CSV log of a power meter during 'measure.py --energy'.")
@click.option("--name", help="Of the device; by default as the kit was called.")
def import_command(results: str, kit_path: str | None, power: str | None, name: str | None) -> None:
    """Make a device of RESULTS, the results.zip that a kit wrote on a board."""
    from pathlib import Path

    from hwnas.predictors.kit_import import import_results
    from hwnas.scripts.device_tables import show_device

    kit_file, power_file = (Path(path) if path else None for path in (kit_path, power))
    done = import_results(Path(results), kit=kit_file, power=power_file, name=name)
    show_device(done, Console())
