"""Devices on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Column, Table

from hwnas.latency_tables.device import Device, TransferredModel


def devices_table(devices: Sequence[Device]) -> Table:
    """A line for each device: what it is, and how far its predictions can be trusted."""
    table = Table(Column("device", no_wrap=True), "processor", "runtime", "networks", "held-out error")
    for device in devices:
        facts, verified = device.profile.facts, device.profile.verified
        table.add_row(
            device.name,
            facts.get("processor", "?"),
            facts.get("runtime", "?"),
            "–" if device.accelerator else str(len(device.table.networks)),
            "computed" if device.accelerator else f"{verified.mape:.1%}" if verified else "not verified",
        )
    return table


def show_device(found: Device, console: Console) -> None:
    """Prints what a device is, how it was measured, to what error it was verified, and what it does with precisions."""
    profile = found.profile
    facts = Table(title=f"{profile.name}{' (simulated)' if profile.simulated else ''}", show_header=False)
    for key, value in profile.facts.items():
        facts.add_row(key, value)
    settings = profile.runtime_settings
    if "threads" in settings:
        facts.add_row("threads, batch", f"{settings['threads']}, {settings.get('batch')}")
    facts.add_row("measured", found.measured_in_words)
    if profile.off_speed:
        facts.add_row("steadiness", profile.off_speed_in_words)
    if profile.protocol:
        facts.add_row("protocol", ", ".join(f"{k} {v}" for k, v in profile.protocol.items()))
    if profile.verified:
        v = profile.verified
        facts.add_row(
            "each predicted from the others" if profile.transferred else "held-out networks",
            f"MAPE {v.mape:.1%}, Kendall tau {v.kendall_tau:.3f}, {v.within_10_percent:.0%} within ±10 % "
            f"({v.networks} networks)",
        )
    if profile.transferred:
        facts.add_row("transferred", _transferred(profile.transferred))
    if profile.power_meter:
        facts.add_row("energy", profile.power_meter.in_words)
    console.print(facts)
    if not profile.precisions:
        return
    bits = Table(title="Precisions", caption="latency of the space's reference network against float32")
    for heading in ("weight bits", "activation bits", "execution", "latency", "kernels"):
        bits.add_column(heading)
    for p in profile.precisions:
        latency = f"{p.relative_latency:.2f}×"
        bits.add_row(str(p.weight_bits), str(p.act_bits), p.execution, latency, ", ".join(p.kernels))
    console.print(bits)


def _transferred(model: TransferredModel) -> str:
    parts = [f"{weight:+.3f} × {name}" for name, weight in zip(model.known, model.weights, strict=True)]
    return f"{' '.join(parts)} {model.constant_ms:+.3f} ms, from {model.networks} networks"
