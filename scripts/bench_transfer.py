"""New devices from a handful of measurements, on published tables, beside simpler ways with the same measurements."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from hwnas.predictors.smoothing import KnownTables
from hwnas.predictors.transfer import Transfer
from hwnas.scripts.architecture_tables import SUFFIX, ArchitectureTable, read_table
from hwnas.spaces.errors import UnavailableError, UnknownNameError

Floats = NDArray[np.float64]

RIDGE = 1.0
POOL = 200
"""Networks drawn at random, among which the method chooses."""
BATCH_SIZE = re.compile(r"_\d{1,3}$")
"""Ends the names of settings of one device that differ in batch size alone."""


def transfer_figures(
    paths: Sequence[Path], *, networks: int, draws: int, devices: Sequence[str], strict: bool, seed: int
) -> dict[str, Any]:
    """Rank correlations with the networks that were not measured, each device in turn taken as new.

    Args:
        paths: Of tables, see `hwnas.scripts.architecture_tables`.
        networks: Measured of the new device.
        draws: Repetitions, each with other networks.
        devices: Columns to take as new; all by default.
        strict: Whether the new device's columns at other batch sizes are unknown, too.
        seed: Of the draws.

    Raises:
        InvalidFileError: A file is no such table.
        UnknownNameError: No table has such a device.
        UnavailableError: No known device is left, or the table has too few networks.
    """
    tables = {path: read_table(path) for path in paths}
    wanted = {name.removesuffix(SUFFIX) for name in devices}
    names = sorted({name for table in tables.values() for name in table.devices})
    for name in sorted(wanted - set(names)):
        raise UnknownNameError("device", name, names)
    files: dict[str, Any] = {}
    for path, table in tables.items():
        if min(POOL, len(table.latency_ms) // 2) < networks:
            raise UnavailableError(f"{path}: {networks} networks to measure are too many for {len(table.latency_ms)}")
        smoothed = KnownTables.of(table.latency_ms, table.features)
        targets = [i for i, name in enumerate(table.devices) if not wanted or name in wanted]
        rows = {table.devices[i]: _of_device(table, smoothed, i, networks, draws, strict, seed) for i in targets}
        if rows:
            files[path.name] = {"networks_in_table": len(table.latency_ms), "devices": rows, "mean": _mean(rows)}
    everything = {f"{file}/{name}": row for file, one in files.items() for name, row in one["devices"].items()}
    return {
        "networks_measured": networks,
        "draws": draws,
        "known": "all other columns" if not strict else "all columns of other devices, at no batch size of the same",
        "figures": "Spearman's rho on the networks not measured; coverage: share within 2 standard deviations",
        "files": files,
        "mean": _mean(everything),
        "devices": len(everything),
    }


def _of_device(
    table: ArchitectureTable, smoothed: KnownTables, new: int, networks: int, draws: int, strict: bool, seed: int
) -> dict[str, float]:
    name = BATCH_SIZE.sub("", table.devices[new])
    known = [
        i
        for i, other in enumerate(table.devices)
        if i != new and not (strict and BATCH_SIZE.sub("", other) == name)
    ]  # fmt: skip
    if not known:
        raise UnavailableError(f"no known device is left for {table.devices[new]}")
    transfer = Transfer(smoothed.select(known))
    latency, n = table.latency_ms[:, new], len(table.latency_ms)
    log_known = np.log(table.latency_ms[:, known])
    log_known = (log_known - log_known.mean(axis=0)) / log_known.std(axis=0).clip(1e-9)
    figures: dict[str, list[float]] = {}
    for draw in range(draws):
        rng = np.random.default_rng([seed, draw])
        drawn, pool = rng.choice(n, networks, replace=False), rng.choice(n, min(POOL, n), replace=False)
        for way, index in (("drawn", drawn), ("chosen", transfer.next_networks(networks, among=pool))):
            rest = np.ones(n, dtype=bool)
            rest[index] = False
            found = transfer.fit(index, latency[index])
            covered = np.abs(latency - found.latency_ms) <= 2 * found.latency_ms_std
            row = {
                f"hwnas_{way}": _rho(found.latency_ms, latency, rest),
                f"coverage_{way}": float(covered[rest].mean()),
            }
            row[f"ridge_{way}"] = _rho(_ridge(log_known, index, np.log(latency[index])), latency, rest)
            for key, value in row.items():
                figures.setdefault(key, []).append(value)
    everywhere = np.ones(n, dtype=bool)
    means = {key: float(np.mean(values)) for key, values in figures.items()}
    means["best_known_device"] = max(_rho(column, latency, everywhere) for column in table.latency_ms[:, known].T)
    means["own_table"] = _own_table(table.features, latency)
    return {key: round(value, 4) for key, value in means.items()}


def _own_table(features: Floats, latency: Floats) -> float:
    """What noise leaves possible: a sum over parts learnt from half of the device's own table, on the other half."""
    held_out = np.arange(len(latency)) % 2 == 1
    design = np.column_stack([features, np.ones(len(features))])
    fit = design[~held_out] / latency[~held_out].mean()
    theta = np.linalg.lstsq(fit, latency[~held_out] / latency[~held_out].mean(), rcond=None)[0]
    return _rho(design @ theta, latency, held_out)


def _ridge(known: Floats, index: NDArray[np.int64], target: Floats) -> Floats:
    """Ridge regression of the new device's log latency on the known devices', each standardised."""
    centre = known[index].mean(axis=0)
    design = known[index] - centre
    dual = np.linalg.solve(design @ design.T + RIDGE * np.eye(len(index)), target - target.mean())
    return np.asarray((known - centre) @ (design.T @ dual))


def _rho(predicted: Floats, measured: Floats, where: NDArray[np.bool_]) -> float:
    return float(np.corrcoef(rankdata(predicted[where]), rankdata(measured[where]))[0, 1])


def _mean(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    keys = next(iter(rows.values()))
    return {key: round(float(np.mean([row[key] for row in rows.values()])), 4) for key in keys}
