"""Devices on the terminal."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from hwnas.latency_tables.device import Device, PeakMemory
from hwnas.latency_tables.transferred import ErrorBars, Outlook, TransferredModel
from hwnas.search.report.data import milliseconds


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
    outlook = profile.transferred.outlook if profile.transferred else None
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
    if found.accelerator is None:
        facts.add_row("peak memory", _peak_memory(profile.peak_memory))
    if profile.transferred:
        facts.add_row("transferred", _transferred(profile.transferred))
        if outlook:
            facts.add_row("error bars", f"{_bars(outlook.now)} of the networks of the space")
            facts.add_row(f"with {len(outlook.wanted)} more", f"{_bars(outlook.then)}, as expected")
            facts.add_row("would tell most", _wanted(outlook))
    if profile.power_meter:
        facts.add_row("energy", profile.power_meter.in_words)
    console.print(facts)
    if profile.transferred and outlook:
        command = further_command(found, profile.transferred.networks + len(outlook.wanted), outlook.seed)
        console.print(f"to measure these, too:\n  {command}", highlight=False, markup=False, soft_wrap=True)
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


def _peak_memory(found: PeakMemory | None) -> str:
    if found is None:
        return "from lifetimes of activations; what the runtime allocates was not measured"
    v = found.verified
    return (
        f"as the runtime allocates it; held out: MAPE {v.mape:.1%}, Kendall tau {v.kendall_tau:.3f} "
        f"({found.lifetimes_tau:.3f} by lifetimes of activations), {v.within_10_percent:.0%} within ±10 % "
        f"({v.networks} networks)"
    )


def _bars(bars: ErrorBars) -> str:
    return f"± {bars.median:.1%} or less for half, ± {bars.p90:.1%} or less for 90 %"


def _wanted(outlook: Outlook) -> str:
    return ", ".join(f"{w.digest} ({milliseconds(w.latency_ms, w.latency_ms_std)})" for w in outlook.wanted)


def further_command(found: Device, networks: int, seed: int) -> str:
    """What brings a device that was registered from few to more networks, in the space and with the settings it has."""
    spec = json.loads(found.table.networks[0].space)
    settings = found.profile.runtime_settings
    options: dict[str, Any] = {
        "--input-shape": ",".join(map(str, spec["input_shape"])),
        "--classes": spec["num_classes"],
        "--joint": ",".join(spec["joint"]),
        "--from-known": None,
        "--networks": networks,
    }
    usual = {"space": "mbconv", "runtime": "onnxruntime", "provider": "cpu", "threads": 1, "batch": 1, "seed": 0}
    chosen = {"space": spec["name"], "runtime": found.profile.runtime, "seed": seed} | settings
    chosen["provider"] = str(settings.get("provider", "cpu")).removesuffix("ExecutionProvider").lower()
    options |= {f"--{name}": chosen[name] for name, value in usual.items() if chosen.get(name, value) != value}
    options |= {"--compiled": None} if settings.get("compiled") else {}
    words = [word for name, value in options.items() for word in ([name] if value is None else [name, str(value)])]
    return shlex.join(["hwnas", "device", "register", found.name, *words])
