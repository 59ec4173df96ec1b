"""`hwnas device`: register, list, show, verify."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console

from hwnas.scripts.cli_space import chosen_space, space_options

MIN_NETWORKS = 20
"""Fewer do not teach an additive model; see `hwnas.predictors.additive`."""


@click.group()
def device() -> None:
    """Register devices by measuring them, and see what is known of them."""


@device.command()
@click.argument("name")
@space_options
@click.option("--seconds", type=float, default=130.0, show_default=True, help="Time to measure.")
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
    help="Networks to learn from at least, for slow runtimes; with --from-known, all that is measured, 10 by default.",
)
@click.option("--held-out", type=click.IntRange(2, 2000), default=40, show_default=True, help="Networks to check on.")
@click.option("--from-known", is_flag=True, help="Measure a few networks, and take the rest from registered devices.")
@click.option("--known", "known_names", multiple=True, help="With --from-known: a device to use; all by default.")
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
    batch: int,
    compiled: bool,
    networks: int | None,
    held_out: int,
    from_known: bool,
    known_names: tuple[str, ...],
    seed: int,
) -> None:
    """Measure this machine as the device NAME."""
    import torch

    from hwnas.latency_tables.device import device_folder, list_devices, load_device
    from hwnas.latency_tables.profiler import Plan
    from hwnas.latency_tables.runtimes import make_runtime
    from hwnas.predictors import registration
    from hwnas.predictors.few_networks import known_devices, register_from_known
    from hwnas.scripts.progress import TerminalObserver

    if known_names and not from_known:
        raise click.UsageError("--known needs --from-known")
    if networks is not None and networks < MIN_NETWORKS and not from_known:
        raise click.UsageError(f"--networks must be {MIN_NETWORKS} at least without --from-known")
    if compiled and runtime_name != "torch":
        raise click.UsageError("--compiled needs --runtime torch")
    torch.set_num_threads(1)
    device_folder(name)
    space = chosen_space(space_name, input_shape, classes, joint)
    known = load_device(name) if name in list_devices() else None
    if known is not None and registration.covers(known, space):
        raise click.ClickException(
            f"{name} is registered for this space already; see 'hwnas device show {name}', or choose another name"
        )
    settings = {"provider": provider, "threads": threads, "batch": batch}
    runtime = make_runtime(runtime_name, settings | ({"compiled": True} if compiled else {}))
    if known is not None and not known.runs_on(runtime):
        raise click.ClickException(
            f"{name} was registered with {known.profile.runtime} and {known.profile.runtime_settings}; other settings "
            "are another device: choose another name"
        )
    if from_known:
        if known is not None:
            raise click.ClickException(f"{name} is registered already; choose another name for what is transferred")
        others = known_devices(space, known_names)
        with TerminalObserver(Console()) as observer:
            observer.stage(f"Registering {name} from {', '.join(d.name for d in others)}")
            done = register_from_known(
                name, space, others, runtime=runtime, networks=networks or 10, seed=seed, progress=observer.progress
            )
        _show(done)
        return
    plan = Plan(seconds=seconds, checks=held_out, min_networks=networks or Plan().min_networks)
    with TerminalObserver(Console()) as observer:
        observer.stage(f"Registering {name}")
        done = registration.register(
            name,
            space,
            runtime=known.make_runtime() if known else runtime,
            plan=plan,
            seed=seed,
            known=known,
            progress=observer.progress,
        )
    _show(done)


@device.command("list")
def list_command() -> None:
    """List the registered devices, and those that are simulated."""
    from hwnas.latency_tables.device import devices_folder, list_devices, load_device
    from hwnas.latency_tables.simulated import ACCELERATORS
    from hwnas.scripts.device_tables import devices_table

    names = list_devices()
    if not names:
        click.echo(f"no devices in {devices_folder()}; register this machine with 'hwnas device register NAME'")
    Console().print(devices_table([load_device(name) for name in [*names, *ACCELERATORS]]))


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


@device.command()
@click.argument("name")
@click.option(
    "--meter",
    "meter_name",
    type=click.Choice(["nvml", "rapl", "soc", "log"]),
    help="nvml: NVIDIA GPU. rapl: processor. soc: Jetson or Apple chip. log: a meter whose log you bring later.",
)
@click.option(
    "--log", "log_path", type=click.Path(), help="The CSV log of such a meter, for the windows measured last."
)
@click.option("--networks", type=click.IntRange(27, 2000), default=64, show_default=True, help="Networks to measure.")
@click.option(
    "--window", type=click.FloatRange(1.0, 600.0), default=1.0, show_default=True, help="Seconds of a window."
)
@click.option("--rounds", type=click.IntRange(2, 50), default=3, show_default=True, help="Windows of each network.")
def energy(name: str, meter_name: str | None, log_path: str | None, networks: int, window: float, rounds: int) -> None:
    """Measure the energy of the device NAME with a power meter, on the device itself."""
    from pathlib import Path

    from hwnas.latency_tables.device import device_folder, load_device
    from hwnas.latency_tables.energy.meters import make_meter
    from hwnas.latency_tables.energy.power_log import PowerLog
    from hwnas.latency_tables.energy.profile import Session
    from hwnas.latency_tables.energy.windows import EnergyProtocol
    from hwnas.predictors.metering import measure_energy, read_log
    from hwnas.scripts.progress import TerminalObserver

    if (meter_name is None) == (log_path is None):
        raise click.UsageError("give either --meter, to measure, or --log, to read what a meter of its own logged")
    found, folder = load_device(name), device_folder(name)
    if log_path is not None:
        done = read_log(found, Session.load(folder), PowerLog.read(Path(log_path)), Path(log_path))
    else:
        meter = None if meter_name == "log" else make_meter(meter_name or "")
        protocol = EnergyProtocol(rounds=rounds, window_s=window)
        with TerminalObserver(Console()) as observer:
            observer.stage(f"Energy of {name}")
            done, session = measure_energy(found, meter, networks, protocol, observer.progress)
        session.save(folder)
        if meter is None:
            click.echo(f"windows are noted; now run: hwnas device energy {name} --log POWER.csv")
    done.save(folder)
    _show(done)


def _show(found: Any) -> None:
    from hwnas.scripts.device_tables import show_device

    show_device(found, Console())
