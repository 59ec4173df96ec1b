"""Latency, energy and peak memory on a device from operators: learnt from its measurements, or computed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import median

from hwnas.latency_tables.device import Device, devices_folder
from hwnas.latency_tables.table import LEAST_TIMED_MS, NetworkRow, Role
from hwnas.predictors.additive import MIN_NETWORKS, AdditiveModel, Observed
from hwnas.predictors.combined import restore
from hwnas.predictors.features import energy_terms
from hwnas.predictors.forest import MIN_OPERATORS, ForestModel
from hwnas.predictors.memory import MIN_NETWORKS as MIN_WEIGHED
from hwnas.predictors.memory import MemoryModel
from hwnas.predictors.operator_costs import Computed, OperatorCosts
from hwnas.spaces.catalog import space_from_spec
from hwnas.spaces.errors import HwnasError, InvalidFileError
from hwnas.spaces.operator import Operator


def latency_model(device: Device) -> OperatorCosts:
    """Milliseconds: computed, transferred, or learnt from networks, and from enough operators timed inside them.

    Raises:
        UnavailableError: Too few networks, and nothing was transferred.
    """
    if accelerator := device.accelerator:
        return Computed(accelerator.latency_ms)
    physical, table = physical_model(device), device.table
    observed = operators_inside(device)
    if device.profile.transferred is not None or len(observed) < MIN_OPERATORS:
        return physical
    fit, held_out = table.with_role("fit"), table.with_role("check")
    return ForestModel.fit(
        physical,
        [table.operators_of(n) for n in fit],
        [n.latency_ms_p50 for n in fit],
        observed,
        [(table.operators_of(n), n.latency_ms_p50) for n in held_out],
    )


def physical_model(device: Device) -> AdditiveModel:
    """Milliseconds as a sum of physical terms, from the networks to learn from, or as transferred from other devices.

    Raises:
        UnavailableError: Too few networks, and nothing was transferred.
    """
    if device.profile.transferred is not None:
        return restore(device.profile.transferred)
    networks = device.table.with_role("fit")
    operators = [device.table.operators_of(n) for n in networks]
    return AdditiveModel.fit(operators, [n.latency_ms_p50 for n in networks], observed=operators_inside(device))


def operators_inside(device: Device) -> Observed:
    """Operators timed inside networks, where they take long enough for that."""
    fit = device.table.with_role("fit")
    if not fit or median(n.latency_ms_p50 / len(n.operators) for n in fit) < LEAST_TIMED_MS:
        return []
    return [(r.operator, r.latency_ms_p50, r.count) for r in device.table.operators if r.latency_ms_p50 is not None]


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


def memory_model(device: Device) -> MemoryModel | None:
    """Bytes at the peak, from the networks to learn from; None where the runtime told of too few what it allocates.

    Raises:
        InvalidFileError: Spaces of the networks are made in another way than when these were measured.
    """
    networks = networks_with_memory(device, "fit")
    if len(networks) < MIN_WEIGHED:
        return None
    try:
        operators = operators_with_held(networks)
    except HwnasError as error:
        raise InvalidFileError(
            f"device {device.name} has networks of a space that this version of hwnas makes in another way ({error}); "
            f"remove its folder, usually in {devices_folder()}, and register it anew"
        ) from error
    return MemoryModel.fit(operators, [n.peak_memory_bytes or 0 for n in networks])


def networks_with_memory(device: Device, role: Role) -> list[NetworkRow]:
    """The networks of one role of which it is known what they allocate."""
    return [n for n in device.table.with_role(role) if n.peak_memory_bytes is not None]


def operators_with_held(networks: Sequence[NetworkRow]) -> list[list[Operator]]:
    """The operators of measured networks with what they hold for later ones, which a table does not keep."""
    found: dict[str, list[Operator]] = {}
    for key in dict.fromkeys(n.space for n in networks):
        space = space_from_spec(json.loads(key))
        own = [n.candidate for n in networks if n.space == key]
        rows = space.encode_all([json.loads(candidate) for candidate in own])
        found |= {key + candidate: operators for candidate, operators in zip(own, space.operators(rows), strict=True)}
    return [found[n.space + n.candidate] for n in networks]
