"""Latency and energy of a device as sums over operators: learnt from its measurements, or computed."""

from __future__ import annotations

from hwnas.latency_tables.device import Device
from hwnas.latency_tables.table import NetworkRow, Role
from hwnas.predictors.additive import MIN_NETWORKS, AdditiveModel
from hwnas.predictors.features import energy_terms
from hwnas.predictors.forest import MIN_OPERATORS, ForestModel
from hwnas.predictors.operator_costs import Computed, OperatorCosts


def latency_model(device: Device) -> OperatorCosts:
    """Milliseconds, from the networks to learn from, and from operators timed inside them where there are enough.

    Raises:
        UnavailableError: Too few networks were measured.
    """
    if accelerator := device.accelerator:
        return Computed(accelerator.latency_ms)
    table = device.table
    fit, check = table.with_role("fit"), table.with_role("check")
    networks, measured = [table.operators_of(n) for n in fit], [n.latency_ms_p50 for n in fit]
    observed = [(r.operator, r.latency_ms_p50, r.count) for r in table.operators if r.latency_ms_p50 is not None]
    additive = AdditiveModel.fit(networks, measured, observed=observed)
    if len(observed) < MIN_OPERATORS:
        return additive
    held_out = [(table.operators_of(n), n.latency_ms_p50) for n in check]
    return ForestModel.fit(additive, networks, measured, observed, held_out)


def energy_model(device: Device) -> OperatorCosts | None:
    """Millijoules, from the networks to learn from; None where a power meter saw too few of them."""
    if accelerator := device.accelerator:
        return Computed(accelerator.energy_mj)
    networks = networks_with_energy(device, "fit")
    if len(networks) < MIN_NETWORKS:
        return None
    measured = [n.energy_mj or 0.0 for n in networks]
    return AdditiveModel.fit([device.table.operators_of(n) for n in networks], measured, energy_terms)


def networks_with_energy(device: Device, role: Role) -> list[NetworkRow]:
    """The networks of one role whose energy was measured."""
    return [n for n in device.table.with_role(role) if n.energy_mj is not None]
