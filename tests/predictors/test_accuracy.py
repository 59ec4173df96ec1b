"""The accuracy process: against the formula, and what it learns from partial trainings."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.predictors.accuracy import AccuracyProcess, Compression
from hwnas.predictors.encoding import Floats

GROUPS = np.array([0, 0, 1])


def learnt(points: Floats, accuracy: Floats, fidelity: Floats | None = None, rescale: bool = True) -> AccuracyProcess:
    process = AccuracyProcess(GROUPS)
    process.learn(points, accuracy, np.ones(len(points)) if fidelity is None else fidelity, rescale=rescale)
    return process


def smooth(points: Floats) -> Floats:
    return np.asarray(0.7 + 0.1 * np.sin(2 * points[:, 0]) + 0.05 * points[:, 1] * points[:, 2] + 0.05 * points[:, 3])


def test_the_compressed_scale_counted_by_hand() -> None:
    compression = Compression.of(np.array([0.0, 0.4, 0.5, 0.6, 0.8]))
    assert (compression.centre, compression.scale) == (0.5, pytest.approx(0.2))
    # Linear down to one interquartile range below the median; three further ranges are a logarithm of 1 + 3.
    assert compression(np.array([0.9, 0.5, 0.3, -0.3])) == pytest.approx([2.0, 0.0, -1.0, -1 - np.log(4)])
    values = np.linspace(-3, 2, 50)
    assert compression.inverse(compression(values)) == pytest.approx(values)
    assert compression(np.array([np.inf, -np.inf])).tolist() == [np.inf, -np.inf]
    assert Compression.of(np.full(5, 0.5))(np.array([0.5])) == 0.0


def test_predictions_are_those_of_the_formula() -> None:
    rng = np.random.default_rng(0)
    points, new = rng.normal(size=(20, 4)), rng.normal(size=(7, 4))
    accuracy = smooth(points)
    process = learnt(points, accuracy)
    scales = {name.rpartition(".")[2]: np.array(values) for name, values in process.scales.items()}
    lengths = np.exp(scales["log_lengths"])[[0, 0, 1, 2]]

    def kernel(one: Floats, other: Floats) -> Floats:
        squares = ((one[:, None] - other[None]) / lengths) ** 2
        distances = [np.sqrt(3 * squares[..., part].sum(axis=-1)) for part in (slice(0, 3), slice(3, 4))]
        parts = [(1 + d) * np.exp(-d) for d in distances]
        return np.asarray(np.tensordot(np.exp(scales["log_variances"]), parts, axes=1))

    y = process.compression(accuracy) - scales["constant"]
    covariance = kernel(points, points) + (np.exp(scales["raw_noise"]) + 1e-4) * np.eye(20)
    mean = scales["constant"] + kernel(new, points) @ np.linalg.solve(covariance, y)
    variance = np.diag(kernel(new, new) - kernel(new, points) @ np.linalg.solve(covariance, kernel(points, new)))
    found, std = process.predict(new)
    assert found == pytest.approx(mean, abs=1e-6)
    assert std == pytest.approx(np.sqrt(variance), abs=1e-5)


def test_scales_found_once_are_used_again() -> None:
    points = np.random.default_rng(1).normal(size=(15, 4))
    first = learnt(points, smooth(points))
    again = AccuracyProcess(GROUPS)
    again.scales = first.scales
    again.learn(points, smooth(points), np.ones(15), rescale=False)
    assert np.array_equal(first.predict(points + 0.1)[0], again.predict(points + 0.1)[0])


def test_it_predicts_a_smooth_function_and_knows_its_error() -> None:
    rng = np.random.default_rng(2)
    points, new = rng.normal(size=(80, 4)), rng.normal(size=(200, 4))
    process = learnt(points, smooth(points))
    mean, std = process.predict(new)
    error = (mean - process.compression(smooth(new))) / std
    assert np.corrcoef(mean, smooth(new))[0, 1] > 0.95
    assert 0.5 < np.sqrt(np.mean(error**2)) < 2
    assert process.predict(points)[1].max() < std.mean()


def test_what_is_believed_leaves_nothing_to_learn_there() -> None:
    rng = np.random.default_rng(3)
    points, new = rng.normal(size=(20, 4)), rng.normal(size=(3, 4))
    process = learnt(points, smooth(points))
    mean, std = process.predict(new)
    process.believe(new[:1])
    after, narrower = process.predict(new)
    assert after == pytest.approx(mean, abs=0.02)
    assert narrower[0] < 0.35 * std[0]
    assert (narrower <= std + 1e-9).all()


def test_partial_trainings_tell_of_full_ones() -> None:
    """They lack the same everywhere; only few candidates were trained in full."""
    rng = np.random.default_rng(4)
    points, new = rng.normal(size=(60, 4)), rng.normal(size=(100, 4))
    fidelity = np.where(np.arange(60) < 12, 1.0, 0.25)
    process = learnt(points, smooth(points) - 0.2 * (1 - fidelity), fidelity)
    with_partial = process.compression.inverse(process.predict(new)[0])
    alone = learnt(points[:12], smooth(points[:12]))
    without = alone.compression.inverse(alone.predict(new)[0])
    error, error_without = (np.abs(p - smooth(new)).mean() for p in (with_partial, without))
    assert error < 0.6 * error_without


def test_training_where_it_is_uncertain_teaches_more_than_at_random() -> None:
    """ChamNet's sampling: a lower error over all candidates with as many trainings, in the median of seeds."""
    grid = np.array(list(np.ndindex(4, 4, 4, 4))) - 1.5
    ratios = []
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(grid))
        chosen = order[:8].tolist()
        while len(chosen) < 40:
            process = learnt(grid[chosen], smooth(grid[chosen]))
            for _ in range(4):
                chosen.append(int(np.argmax(process.predict(grid)[1])))
                process.believe(grid[chosen[-1:]])
        errors = []
        for taken in (chosen, order[:40].tolist()):
            process = learnt(grid[taken], smooth(grid[taken]))
            predicted = process.compression.inverse(process.predict(grid)[0])
            errors.append(np.sqrt(np.mean((predicted - smooth(grid)) ** 2)))
        ratios.append(errors[0] / errors[1])
    assert np.median(ratios) < 1
