"""`hwnas device`: list, show, energy."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console


@click.group()
def device() -> None:
    """Register devices by measuring them, and see what is known of them."""


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
