"""`hwnas device`: register, list, show, verify."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console
from rich.table import Table


@click.group()
def device() -> None:
    """Register devices by measuring them, and see what is known of them."""


def _space_options(command: Any) -> Any:
    for option in (
        click.option("--joint", default="bits,sparsity,rank", show_default=True, help="Dimensions of the space."),
        click.option("--classes", type=int, default=10, show_default=True, help="Classes of the space."),
        click.option("--input-shape", default="3,32,32", show_default=True, help="Channels, height, width."),
        click.option("--space", "space_name", default="mbconv", show_default=True, help="A space, or its YAML file."),
    ):
        command = option(command)
    return command


def _load_space(space_name: str, input_shape: str, classes: int, joint: str) -> Any:
    from hwnas.spaces import load_space

    try:
        shape = [int(part) for part in input_shape.split(",")]
    except ValueError:
        raise click.BadParameter(f"{input_shape!r} is not channels,height,width", param_hint="--input-shape") from None
    names = [part for part in joint.split(",") if part]
    return load_space(space_name, input_shape=shape, num_classes=classes, joint=names)


@device.command()
@click.argument("name")
@_space_options
@click.option("--seconds", type=float, default=100.0, show_default=True, help="Time to measure.")
@click.option("--runtime", "runtime_name", default="onnxruntime", show_default=True, help="What runs the networks.")
@click.option("--provider", default="CPUExecutionProvider", show_default=True, help="Of ONNX Runtime.")
@click.option("--threads", type=int, default=1, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the networks drawn.")
def register(
    name: str,
    space_name: str,
    input_shape: str,
    classes: int,
    joint: str,
    seconds: float,
    runtime_name: str,
    provider: str,
    threads: int,
    seed: int,
) -> None:
    """Measure this machine as the device NAME."""
    import torch

    from hwnas.latency_tables.device import device_folder, list_devices, load_device
    from hwnas.latency_tables.profiler import Plan
    from hwnas.latency_tables.runtimes import make_runtime
    from hwnas.predictors import registration
    from hwnas.scripts.progress import TerminalObserver

    torch.set_num_threads(1)
    device_folder(name)
    space = _load_space(space_name, input_shape, classes, joint)
    known = load_device(name) if name in list_devices() else None
    if known is not None and registration.covers(known, space):
        raise click.ClickException(
            f"{name} is registered for this space already; see 'hwnas device show {name}', or choose another name"
        )
    settings = {"provider": provider, "threads": threads}
    if known is not None and any(known.profile.runtime_settings.get(k) != v for k, v in settings.items()):
        raise click.ClickException(
            f"{name} was registered with {known.profile.runtime_settings}; other settings are another device: choose "
            "another name"
        )
    runtime = None if known else make_runtime(runtime_name, settings)
    with TerminalObserver(Console()) as observer:
        observer.stage(f"Registering {name}")
        done = registration.register(
            name,
            space,
            runtime=runtime,
            plan=Plan(seconds=seconds),
            seed=seed,
            known=known,
            progress=observer.progress,
        )
    _show(done)


@device.command("list")
def list_command() -> None:
    """List the registered devices."""
    from hwnas.latency_tables.device import devices_folder, list_devices, load_device

    names = list_devices()
    if not names:
        click.echo(f"no devices in {devices_folder()}; register this machine with 'hwnas device register NAME'")
        return
    table = Table("device", "processor", "runtime", "networks", "held-out error")
    for name in names:
        found = load_device(name)
        verified = found.profile.verified
        table.add_row(
            name,
            found.profile.facts.get("processor", "?"),
            found.profile.facts.get("runtime", "?"),
            str(len(found.table.networks)),
            f"{verified.mape:.1%}" if verified else "not verified",
        )
    Console().print(table)


@device.command()
@click.argument("name")
def show(name: str) -> None:
    """Say what the device NAME is, how it was measured, and to what error it was verified."""
    from hwnas.latency_tables.device import load_device

    _show(load_device(name))


@device.command()
@click.argument("name")
@click.option("--networks", type=click.IntRange(4, 400), default=20, show_default=True, help="Networks to measure.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the networks drawn.")
def verify(name: str, networks: int, seed: int) -> None:
    """Measure fresh random networks on this machine, and compare them with the predictions of NAME."""
    import torch

    from hwnas.latency_tables.device import load_device
    from hwnas.predictors.registration import verify as verify_device

    torch.set_num_threads(1)
    found = load_device(name)
    for space, error, speed in verify_device(found, networks, seed):
        click.echo(f"{space!r}: {error}")
        if abs(speed - 1) > 0.03:
            click.echo(
                f"  this machine is {abs(speed - 1):.0%} {'slower' if speed > 1 else 'faster'} now than when it was "
                "registered; other programs, another frequency, or another machine"
            )


def _show(found: Any) -> None:
    profile = found.profile
    console = Console()
    facts = Table(title=f"{profile.name}{' (simulated)' if profile.simulated else ''}", show_header=False)
    for key, value in profile.facts.items():
        facts.add_row(key, value)
    facts.add_row(
        "threads, batch", f"{profile.runtime_settings.get('threads')}, {profile.runtime_settings.get('batch')}"
    )
    roles = [n.role for n in found.table.networks]
    facts.add_row(
        "measured",
        f"{roles.count('fit')} networks to learn from and {roles.count('check')} held out, "
        f"{len(found.table.operators)} distinct operators, {profile.registered}, {profile.registration_seconds:.0f} s",
    )
    if profile.off_speed:
        facts.add_row("steadiness", profile.off_speed_in_words)
    facts.add_row("protocol", ", ".join(f"{k} {v}" for k, v in profile.protocol.items()))
    if profile.verified:
        v = profile.verified
        facts.add_row(
            "held-out networks",
            f"MAPE {v.mape:.1%}, Kendall tau {v.kendall_tau:.3f}, {v.within_10_percent:.0%} within ±10 % "
            f"({v.networks} networks)",
        )
    console.print(facts)
    bits = Table(title="Precisions", caption="latency of the space's reference network against float32")
    for heading in ("weight bits", "activation bits", "execution", "latency", "kernels"):
        bits.add_column(heading)
    for p in profile.precisions:
        latency = f"{p.relative_latency:.2f}×"
        bits.add_row(str(p.weight_bits), str(p.act_bits), p.execution, latency, ", ".join(p.kernels))
    console.print(bits)
