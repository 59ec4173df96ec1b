"""`hwnas device register` and `hwnas device verify`: what measures, on this machine or on a node of a Ray cluster."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console

from hwnas.scripts.space_options import DEFAULTS, chosen_space, space_options

MIN_NETWORKS = 20
"""Fewer do not teach an additive model; see `hwnas.predictors.additive`."""
FEW_NETWORKS = 10
"""Enough where known devices teach the rest; see `hwnas.predictors.few_networks`."""


def cluster_options(command: Any) -> Any:
    """Adds the options that say where to measure."""
    for option in (
        click.option("--address", help="With --on-cluster: of the Ray cluster; by default the one on this machine."),
        click.option(
            "--on-cluster", is_flag=True, help="Measure on the node of a Ray cluster with the resource device:NAME."
        ),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("name")
@space_options
@click.option("--seconds", type=float, default=75.0, show_default=True, help="Time to measure.")
@click.option("--runtime", "runtime_name", default="onnxruntime", show_default=True, help="onnxruntime, or torch.")
@click.option(
    "--provider",
    default="cpu",
    show_default=True,
    help="Of ONNX Runtime: cpu, cuda, tensorrt, coreml, xnnpack, qnn, …; or a device of PyTorch.",
)
@click.option("--threads", type=click.IntRange(1, 1024), default=1, show_default=True)
@click.option("--batch", type=click.IntRange(1, 4096), default=1, show_default=True, help="Images per inference.")
@click.option("--compiled", is_flag=True, help="PyTorch only: run networks through torch.compile.")
@click.option(
    "--networks",
    type=click.IntRange(3, 10_000),
    help="Networks to learn from at least, for slow runtimes; with --from-known, all that are measured: 10 by default.",
)
@click.option("--held-out", type=click.IntRange(2, 2000), default=40, show_default=True, help="Networks to check on.")
@click.option(
    "--from-known",
    is_flag=True,
    help="Measure a few networks, and take the rest from registered devices; again, with more networks, to go on.",
)
@click.option(
    "--known",
    "known_names",
    multiple=True,
    help="With --from-known: a device to use; by default all, and to go on those used before.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the networks drawn.")
@cluster_options
def register(
    name: str,
    space_name: str,
    input_shape: str | None,
    classes: int | None,
    joint: str | None,
    seconds: float,
    runtime_name: str,
    provider: str,
    threads: int,
    batch: int,
    compiled: bool,
    networks: int | None,
    held_out: int,
    from_known: bool,
    known_names: tuple[str, ...],
    seed: int,
    on_cluster: bool,
    address: str | None,
) -> None:
    """Measure this machine, or a node of a Ray cluster, as the device NAME."""
    from hwnas.latency_tables.device import device_folder
    from hwnas.predictors.registration import UNFINISHED
    from hwnas.predictors.registration_request import RegistrationRequest, run_registration
    from hwnas.scripts.device_tables import show_device
    from hwnas.scripts.progress import TerminalObserver
    from hwnas.search.device_node import register_on_node
    from hwnas.spaces.errors import NoisyMeasurementError

    if known_names and not from_known:
        raise click.UsageError("--known needs --from-known")
    if networks is not None and networks < MIN_NETWORKS and not from_known:
        raise click.UsageError(f"--networks must be {MIN_NETWORKS} at least without --from-known")
    if compiled and runtime_name != "torch":
        raise click.UsageError("--compiled needs --runtime torch")
    settings = {"provider": provider, "threads": threads, "batch": batch}
    request = RegistrationRequest(
        name=name,
        spec=chosen_space(space_name, input_shape, classes, joint, DEFAULTS).spec,
        runtime=runtime_name,
        settings=settings | ({"compiled": True} if compiled else {}),
        plan=_plan(seconds, held_out, networks),
        few=(networks or FEW_NETWORKS) if from_known else None,
        known=known_names,
        seed=seed,
    )
    address = _address(on_cluster, address)
    known = request.known_here()
    with TerminalObserver(Console()) as observer:
        observer.stage(request.title(known))
        if address:
            done = register_on_node(request, known, address, observer)
        else:
            try:
                done = run_registration(request, known, progress=observer.progress, note=observer.note)
            except (KeyboardInterrupt, NoisyMeasurementError):
                if not from_known and (device_folder(name) / UNFINISHED).exists():
                    observer.note("What was measured is kept: the same command goes on from there.")
                raise
    show_device(done, Console())


@click.command()
@click.argument("name")
@click.option("--networks", type=click.IntRange(4, 400), default=20, show_default=True, help="Networks to measure.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the networks drawn.")
@cluster_options
def verify(name: str, networks: int, seed: int, on_cluster: bool, address: str | None) -> None:
    """Measure fresh random networks on this machine, and compare them with the predictions of NAME.

    With --on-cluster they are measured on the node of a Ray cluster that is the device.
    """
    import torch

    from hwnas.latency_tables.device import load_device
    from hwnas.predictors.registration import verify as verify_device
    from hwnas.scripts.progress import TerminalObserver
    from hwnas.search.device_node import verify_on_node

    torch.set_num_threads(1)
    address = _address(on_cluster, address)
    found = load_device(name)
    if address:
        with TerminalObserver(Console()) as observer:
            observer.stage(f"Verifying {name}")
            results = iter(verify_on_node(found, networks, seed, address, observer))
    else:
        results = verify_device(found, networks, seed)
    for space, error, speed in results:
        click.echo(f"{space!r}: {error}")
        if abs(speed - 1) > 0.03:
            click.echo(
                f"  the device is {abs(speed - 1):.0%} {'slower' if speed > 1 else 'faster'} now than when it was "
                "registered; other programs, another frequency, or another machine"
            )


def _address(on_cluster: bool, address: str | None) -> str | None:
    """Of the cluster to measure on; None for this machine."""
    if address and not on_cluster:
        raise click.UsageError("--address needs --on-cluster")
    return (address or "auto") if on_cluster else None


def _plan(seconds: float, held_out: int, networks: int | None) -> Any:
    from hwnas.latency_tables.profiler import Plan

    usual = Plan()
    least = networks or usual.min_networks
    return Plan(seconds=seconds, checks=held_out, min_networks=least, max_networks=max(least, usual.max_networks))
