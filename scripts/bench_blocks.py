"""A table of FBNet's blocks from few of a device's networks, beside simpler ways on the same networks.

No sum over blocks predicts better than the one that is fitted to all networks of the table. What that one misses is its
ceiling, and the figures ask where it comes from. Two answers are tried, each on the relative error that the sum makes
of every network when it is learnt from the others, hiccups cut to four times the median:

- **pairs**: which options neighbouring layers have together (a ridge on all such pairs, the share of variance that it
  explains of each fifth network, learnt from the others): what interaction of blocks there is.
- **order**: the errors of the ten networks before it in the file (least squares, the same share): a device that was
  warm, busy or slow for a while. What networks were measured in a row has nothing to do with what they are made of.

On the 5,000 networks of HELP's table (11 device settings, means over them; 200 networks, medians of 5 draws), the table
of blocks has a MAPE of 3.0 % and a Kendall tau of 0.81; a ridge on the same columns 5.0 % and 0.67, a line through MACs
6.9 % and 0.42, least squares 10.6 % and 0.57. The ceiling is 2.7 % and 0.83: pairs explain less than 4 % of what it
misses on every device, order 37 % in the mean and up to 84 % (a phone). So what can be seen of its cause is the
measuring, not that blocks are no sum; the rest is noise, or depends on more than two neighbours. Equal networks would
tell, but no two of that table are. One column (pixel3) is a sum over blocks exactly, as if it had been computed.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV

from hwnas.predictors.block_table import Blocks, BlockTable
from hwnas.predictors.linear import LinearModel
from hwnas.predictors.metrics import prediction_error
from hwnas.scripts.architecture_tables import read_table
from hwnas.scripts.fbnet_blocks import OPTIONS, choices, fbnet_blocks
from hwnas.spaces.errors import UnavailableError

Floats = NDArray[np.float64]
Indexes = NDArray[np.int64]

FOLDS = 10
BEFORE = 10
"""Networks before one in the file."""
CUT = 4.0
RIDGES = np.logspace(-2, 5, 15)


def block_figures(path: Path, *, networks: int = 200, draws: int = 5, seed: int = 0) -> dict[str, Any]:
    """Errors on the networks that were not learnt from, medians over draws of those that were.

    Args:
        path: Of a table with the columns ``arch``, see `hwnas.scripts.fbnet_blocks`, and ``<device>_latency_ms``.
        networks: Learnt from.
        draws: Repetitions, each with other networks.
        seed: Of the draws.

    Raises:
        InvalidFileError: The file is no such table.
        UnavailableError: It has too few networks.
    """
    table = read_table(path)
    n = len(table.latency_ms)
    if networks > n // 2:
        raise UnavailableError(f"{path}: {networks} networks to learn from are too many for {n}")
    chosen, blocks = choices(table.architectures.written), fbnet_blocks()
    one_hot = _one_hot(chosen)
    sums = [_held_out(one_hot, latency) for latency in table.latency_ms.T]
    missed = np.column_stack([_cut(p / t - 1) for p, t in zip(sums, table.latency_ms.T, strict=True)])
    rows = {}
    for device, latency, held_out, errors, by_pairs in zip(
        table.devices, table.latency_ms.T, sums, missed.T, _explained_by_pairs(chosen, missed), strict=True
    ):
        in_sample = LinearModel.fit(one_hot, latency).predict(one_hot)
        rows[device] = _of_draws(chosen, latency, blocks, networks, draws, seed) | {
            **_figures("ceiling_", held_out, latency),
            "ceiling_in_sample_mape_percent": round(100 * prediction_error(in_sample, latency).mape, 4),
            "ceiling_error_explained_by_pairs": round(by_pairs, 4),
            "ceiling_error_explained_by_order": round(_explained_by_order(errors), 4),
        }
    keys = next(iter(rows.values()))
    return {
        "table": path.name,
        "networks_in_table": n,
        "networks_learnt_from": networks,
        "draws": draws,
        "figures": "on all networks not learnt from, medians over the draws; ceiling: a sum over blocks, by least "
        "squares of the relative error, of each tenth of the networks as learnt from the others; in sample: from all",
        "devices": rows,
        "mean": {key: round(float(np.mean([row[key] for row in rows.values()])), 4) for key in keys},
    }


def _of_draws(
    chosen: Indexes, latency: Floats, blocks: Blocks, networks: int, draws: int, seed: int
) -> dict[str, float]:
    """Figures of all ways that learn from few of a device's networks."""
    macs = np.array([[sum(o.macs for o in operators) for operators in layer] for layer in blocks], dtype=np.float64)
    amounts, one_hot = macs[np.arange(len(blocks)), chosen].sum(axis=1)[:, None], _one_hot(chosen)
    found: dict[str, list[float]] = {}
    for draw in range(draws):
        index = np.random.default_rng([seed, draw]).choice(len(chosen), networks, replace=False)
        rest = np.setdiff1d(np.arange(len(chosen)), index)
        table = BlockTable.fit(chosen[index], latency[index], blocks)
        ways = {
            "": table.predict(chosen[rest]),
            "macs_": LinearModel.fit(amounts[index], latency[index]).predict(amounts[rest]),
            "least_squares_": LinearModel.fit(one_hot[index], latency[index]).predict(one_hot[rest]),
            "ridge_": RidgeCV(RIDGES).fit(one_hot[index], latency[index]).predict(one_hot[rest]),
        }
        figures = {k: v for way, predicted in ways.items() for k, v in _figures(way, predicted, latency[rest]).items()}
        figures["within_2_std"] = float((np.abs(ways[""] - latency[rest]) <= 2 * table.std(chosen[rest])).mean())
        for key, figure in figures.items():
            found.setdefault(key, []).append(figure)
    return {key: round(median(values), 4) for key, values in found.items()}


def _figures(way: str, predicted: Floats, measured: Floats) -> dict[str, float]:
    error = prediction_error(predicted, measured)
    return {f"{way}mape_percent": round(100 * error.mape, 4), f"{way}kendall_tau": round(error.kendall_tau, 4)}


def _one_hot(chosen: Indexes) -> Floats:
    """Shape (n, layers · options)."""
    return np.eye(len(OPTIONS))[chosen].reshape(len(chosen), -1)


def _held_out(one_hot: Floats, latency: Floats) -> Floats:
    """The sum over blocks of each network, learnt from the other folds, shape (n,)."""
    predicted = np.empty(len(latency))
    for fold in range(FOLDS):
        out = np.arange(len(latency)) % FOLDS == fold
        predicted[out] = LinearModel.fit(one_hot[~out], latency[~out]).predict(one_hot[out])
    return predicted


def _cut(errors: Floats) -> Floats:
    limit = CUT * np.median(np.abs(errors))
    return np.asarray(np.clip(errors, -limit, limit))


def _explained_by_pairs(chosen: Indexes, missed: Floats) -> list[float]:
    """Of each device's errors (n, devices), none where the ridge does worse than nothing."""
    pairs = chosen[:, :-1] * len(OPTIONS) + chosen[:, 1:]
    design = np.eye(len(OPTIONS) ** 2)[pairs].reshape(len(chosen), -1)
    out = np.arange(len(chosen)) % 5 == 0
    model = RidgeCV(RIDGES, alpha_per_target=True).fit(design[~out], missed[~out])
    left = missed[out] - model.predict(design[out])
    return [max(0.0, _share(rest, errors)) for rest, errors in zip(left.T, missed[out].T, strict=True)]


def _explained_by_order(errors: Floats) -> float:
    before = np.column_stack([errors[BEFORE - lag : len(errors) - lag] for lag in range(1, BEFORE + 1)])
    now = errors[BEFORE:]
    left = now - before @ np.linalg.lstsq(before, now, rcond=None)[0]
    return _share(left, now)


def _share(left: Floats, whole: Floats) -> float:
    """The share of the squares that is gone."""
    squares = float(whole @ whole)
    return 1 - float(left @ left) / squares if squares else 0.0
