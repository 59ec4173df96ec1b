"""What a device's measurements teach: its latency and its energy as sums over operators."""

from __future__ import annotations

from hwnas.latency_tables.device import Device
from hwnas.latency_tables.table import NetworkRow, Role
from hwnas.predictors.additive import MIN_NETWORKS, AdditiveModel
from hwnas.predictors.combined import restore
from hwnas.predictors.features import energy_terms


def latency_model(device: Device) -> AdditiveModel:
    """Milliseconds, from the networks to learn from, or as transferred from other devices.

    Raises:
        UnavailableError: Too few networks, and nothing was transferred.
    """
    if device.profile.transferred is not None:
        return restore(device.profile.transferred)
    networks = device.table.with_role("fit")
    return AdditiveModel.fit([device.table.operators_of(n) for n in networks], [n.latency_ms_p50 for n in networks])


def energy_model(device: Device) -> AdditiveModel | None:
    """Millijoules, from the networks to learn from; None where a power meter saw too few of them."""
    networks = networks_with_energy(device, "fit")
    if len(networks) < MIN_NETWORKS:
        return None
    measured = [n.energy_mj or 0.0 for n in networks]
    return AdditiveModel.fit([device.table.operators_of(n) for n in networks], measured, energy_terms)


def networks_with_energy(device: Device, role: Role) -> list[NetworkRow]:
    """The networks of one role whose energy was measured."""
    return [n for n in device.table.with_role(role) if n.energy_mj is not None]
