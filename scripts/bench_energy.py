"""Energy predicted from few measured networks, on published tables and on devices, beside simpler ways.

"hwnas" is the additive model that searches use (`hwnas.predictors.learnt.energy_model`), on devices and on tables of
NAS-Bench-201's cells, whose operators are known; other tables have no such row, nor have fewer networks than the model
learns from. The robust sum and Gaussian process (`hwnas.predictors.energy_process`) is on tables alone, and searches do
not use it.

The lines are fitted by least squares of the relative error, those called robust with weights that forgive outliers and
without negative coefficients. In tables widths are fixed. What is left of the bilinear model's products of widths
(`hwnas.predictors.bilinear`) is whether an operator is at a position, so it has a coefficient for each operator at
each, those without weights included.

Of cells, operators that no path passes are left out in all ways. Cells that no path passes at all are learnt from and
predicted like others: their MACs are those of the network around the cells.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.latency_tables.device import Device, load_device
from hwnas.latency_tables.table import NetworkRow
from hwnas.predictors.additive import FOLDS, MIN_NETWORKS, AdditiveModel
from hwnas.predictors.bilinear import BilinearModel
from hwnas.predictors.energy_process import EnergyProcess
from hwnas.predictors.features import energy_terms
from hwnas.predictors.learnt import networks_with_energy
from hwnas.predictors.linear import LinearModel
from hwnas.predictors.metrics import prediction_error
from hwnas.scripts.architecture_tables import NONE, EnergyTable, one_hot, read_energy
from hwnas.scripts.cell_networks import CellNetworks, are_cells, cell_networks
from hwnas.spaces.candidate import Candidate
from hwnas.spaces.catalog import space_from_spec
from hwnas.spaces.errors import UnavailableError
from hwnas.spaces.operator import Operator

Floats = NDArray[np.float64]
Indexes = NDArray[np.int64]
Predict = Callable[[Indexes], Floats]
"""Learns from the networks of these indexes, and says the energy of all."""

BILINEAR = "one coefficient per position and operator (bilinear)"
PROCESS = "robust sum and Gaussian process"
NOTE = (
    f"'{PROCESS}' is not what searches use: they use the additive model, 'hwnas' where it can be learnt here. Its rule "
    "that keeps outlying networks out of the process was chosen on draws of this kind, from energies of NAS-Bench-201 "
    "on a Raspberry Pi 5: there its figures are no independent test"
)

LEAST_NETWORKS = MIN_NETWORKS * FOLDS // (FOLDS - 1)


def table_figures(
    path: Path, *, energy: str | None, latency: str | None, networks: int, draws: int, seed: int
) -> dict[str, Any]:
    """Errors on the networks that were not measured, means over draws of those that were.

    Args:
        path: Of a table, see `hwnas.scripts.architecture_tables`.
        energy, latency: Columns, see `read_energy`.
        networks: Measured.
        draws: Repetitions, each with other networks.
        seed: Of the draws.

    Raises:
        InvalidFileError: The file is no such table.
        UnknownNameError: It has no such column.
        UnavailableError: It has too few networks.
    """
    table = read_energy(path, energy, latency)
    n = len(table.energy_mj)
    if networks > n // 2:
        raise UnavailableError(f"{path}: {networks} networks to measure are too many for {n}")
    operators = table.architectures.operators
    ways = _ways_of_table(table, networks)
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    anew: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    pairs = np.unique(np.column_stack([table.energy_mj, table.latency_ms]), axis=0, return_inverse=True)[1].ravel()
    repeated = []
    for draw in range(draws):
        measured = np.random.default_rng([seed, draw]).choice(n, networks, replace=False)
        rest = np.setdiff1d(np.arange(n), measured)
        others = rest[~np.isin(pairs[rest], pairs[measured])]
        repeated.append(1 - len(others) / len(rest))
        for way, predict in ways.items():
            predicted = predict(measured)
            found[way].append(_figures(predicted[rest], table.energy_mj[rest]))
            if len(others) > 1:
                anew[way].append(_figures(predicted[others], table.energy_mj[others]))
    return {
        "table": path.name,
        "energy": table.energy,
        "latency": table.latency,
        "networks_in_table": n,
        "networks_measured": networks,
        "without_a_path": int((operators == NONE).all(axis=1).sum()),
        "repeats": round(float(np.mean(repeated)), 4),
        "draws": draws,
        "figures": "on all networks not measured, those without a path too; means over the draws. Repeats, a share of "
        "them, have the very energy and latency of one measured: tables may give equal networks one measurement",
        "note": NOTE,
        "latency_known": "of all networks, for the ways through latency and the one that says so",
        "ways": {way: _mean(figures) for way, figures in found.items()},
        "ways_without_repeats": {way: _mean(figures) for way, figures in anew.items() if figures},
    }


def device_figures(device_name: str, seed: int = 0) -> dict[str, Any]:
    """Errors on each fifth of a device's metered networks, learnt from the others.

    Raises:
        UnknownNameError: There is no such device.
        UnavailableError: No energy, or that of too few networks, is known.
    """
    device = load_device(device_name)
    if device.accelerator:
        raise UnavailableError(f"the energy of {device_name} is computed: there is nothing to learn")
    networks = [*networks_with_energy(device, "fit"), *networks_with_energy(device, "check")]
    if len(networks) < LEAST_NETWORKS:
        raise UnavailableError(
            f"energy of at least {LEAST_NETWORKS} networks is needed, and {device_name} has it of {len(networks)}; "
            "run 'hwnas device energy' first"
        )
    measured = np.array([n.energy_mj for n in networks], dtype=np.float64)
    fold = np.random.default_rng(seed).permutation(len(networks)) % FOLDS
    rows = {}
    for way, predict in _ways_of_device(device, networks, measured).items():
        held_out = np.empty(len(networks))
        for number in range(FOLDS):
            held_out[fold == number] = predict(np.flatnonzero(fold != number))[fold == number]
        rows[way] = _mean([_figures(held_out, measured)])
    return {
        "device": device.profile.facts,
        "networks": len(networks),
        "folds": FOLDS,
        "figures": "on each network as learnt from the other folds",
        "ways": rows,
    }


def _ways_of_table(table: EnergyTable, networks: int) -> dict[str, Predict]:
    operators, energy = table.architectures.operators, table.energy_mj
    present, latency = one_hot(operators, but=NONE), table.latency_ms[:, None]
    cells = cell_networks(operators) if are_cells(operators) else None
    amounts: dict[str, Floats] = {"macs": cells.macs[:, None]} if cells else {}
    amounts |= {"latency": latency, BILINEAR: present}
    parts = present
    if table.architectures.passed is not None:  # cells: what an operator costs is the same on all edges
        choices = [choice for choice in np.unique(operators) if choice != NONE]
        parts = np.column_stack([(operators == choice).sum(axis=1) for choice in choices]).astype(np.float64)
    ways = {name: _line(columns, energy) for name, columns in amounts.items()}
    ways |= {f"{name}, robust": _robust_line(columns, energy) for name, columns in amounts.items()}
    ways[PROCESS] = _process(parts, one_hot(operators), energy)
    known = np.hstack([one_hot(operators), np.log(latency)])
    ways[f"{PROCESS}, latency known"] = _process(np.hstack([parts, latency]), known, energy)
    if cells and networks >= MIN_NETWORKS:
        ways["hwnas"] = _additive(cells, energy)
    return ways


def _ways_of_device(device: Device, networks: list[NetworkRow], measured: Floats) -> dict[str, Predict]:
    operators = [device.table.operators_of(n) for n in networks]
    macs = np.array([[sum(o.macs for o in own)] for own in operators], dtype=np.float64)
    latency = np.array([[n.latency_ms_p50] for n in networks])
    layers = _layers(networks)

    def bilinear(index: Indexes) -> Floats:
        return BilinearModel.fit([layers[i] for i in index], measured[index]).of_networks(layers)

    def additive(index: Indexes) -> Floats:
        learnt = AdditiveModel.fit([operators[i] for i in index], list(measured[index]), energy_terms)
        return learnt.of_networks(operators)

    return {
        "macs": _line(macs, measured),
        "latency": _line(latency, measured),
        "bilinear": bilinear,
        "hwnas": additive,
    }


def _layers(networks: list[NetworkRow]) -> list[dict[Hashable, Operator]]:
    """Operators by space and name: tables of devices do not keep where an operator was."""
    spaces = {spec: space_from_spec(json.loads(spec)) for spec in {n.space for n in networks}}
    return [
        {(n.space, o.name): o for o in spaces[n.space].workload(Candidate.from_json(n.candidate)).operators}
        for n in networks
    ]


def _line(amounts: Floats, energy: Floats) -> Predict:
    return lambda index: LinearModel.fit(amounts[index], energy[index]).predict(amounts)


def _robust_line(amounts: Floats, energy: Floats) -> Predict:
    return lambda index: LinearModel.fit_robust(amounts[index], energy[index]).predict(amounts)


def _additive(cells: CellNetworks, energy: Floats) -> Predict:
    """The networks around the cells have all kinds of operators, so none is new to the model."""

    def predict(index: Indexes) -> Floats:
        learnt = AdditiveModel.fit([cells.of_network(i) for i in index], list(energy[index]), energy_terms)
        return cells.sums(learnt.of_operators(cells.operators)) + learnt.per_network

    return predict


def _process(parts: Floats, features: Floats, energy: Floats) -> Predict:
    return lambda index: EnergyProcess.fit(parts[index], features[index], energy[index]).predict(parts, features)


def _figures(predicted: Floats, measured: Floats) -> dict[str, float]:
    error = prediction_error(predicted, measured)
    median = float(np.median(np.abs(predicted / measured - 1)))
    tau = error.kendall_tau if np.isfinite(error.kendall_tau) else 0.0  # all predictions are equal: they rank nothing
    return {"median_relative_error": median, "mape": error.mape, "kendall_tau": tau}


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(float(np.mean([row[key] for row in rows])), 4) for key in rows[0]}
