"""Tables of neighbouring slots against the tables of each."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from hwnas.predictors.slot_tables import LARGEST_JOINED, SlotTable, gather


def table(*reads: tuple[int, int], seed: int, identities: int = 5) -> SlotTable:
    """Reads (column, options) pairs; its identities cost whole numbers, which add up exactly."""
    rng = np.random.default_rng(seed)
    columns, sizes = zip(*reads, strict=True)
    sums, peak = rng.integers(1, 1000, (identities + 1, 4)).astype(float), rng.integers(1, 1000, identities + 1)
    sums[0], peak[0] = 0, 0
    identity = rng.integers(1, identities + 1, int(np.prod(sizes))).astype(np.uint16)
    return SlotTable(columns, sizes, (), identity, sums, peak.astype(float))


ONE = table((0, 2), (2, 3), (1, 4), seed=0)
OTHER = table((1, 4), (3, 2), (0, 2), seed=1)
ROWS = np.array(list(product(range(2), range(4), range(3), range(2))), dtype=np.int16)


def of_combinations(own: SlotTable, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums and peaks of rows, looked up one by one."""
    identity = [own.identity.reshape(own.sizes)[tuple(row[list(own.columns)])] for row in rows]
    return own.sums[identity], own.peak[identity]


def test_a_joined_table_has_the_sums_and_the_larger_peak_of_both() -> None:
    both = ONE.joined(OTHER)
    assert both is not None
    assert both.columns == (0, 2, 1, 3)
    (first, first_peak), (second, second_peak) = (of_combinations(t, ROWS) for t in (ONE, OTHER))
    for tables in ([both], [ONE, OTHER], [OTHER, ONE]):
        sums, peak = gather(tables, ROWS)
        assert np.array_equal(sums, first + second)
        assert np.array_equal(peak, np.maximum(first_peak, second_peak))


def test_slots_that_exist_at_different_times_keep_their_tables() -> None:
    sometimes = replace(OTHER, when=((2, (False, True, True)),))
    assert ONE.joined(sometimes) is None
    assert sometimes.joined(ONE) is None
    sums, peak = gather([ONE, sometimes], ROWS)
    (first, first_peak), (second, second_peak) = (of_combinations(t, ROWS) for t in (ONE, OTHER))
    present = ROWS[:, 2] > 0
    assert np.array_equal(sums, first + second * present[:, None])
    assert np.array_equal(peak, np.maximum(first_peak, second_peak * present))


@pytest.mark.parametrize("options", [255, 256, 257, 70_000])
def test_tables_of_any_length_are_indexed(options: int) -> None:
    own = table((0, options), (1, 2), seed=2, identities=3)
    rows = np.random.default_rng(0).integers(0, [min(options, 30_000), 2], (100, 2)).astype(np.int16)
    assert np.array_equal(gather([own], rows)[0], of_combinations(own, rows)[0])


def test_only_small_tables_are_joined() -> None:
    large = table((0, 2), (1, LARGEST_JOINED // 2), seed=3)
    assert large.joined(table((0, 2), seed=4)) is not None
    assert large.joined(table((2, 2), seed=4)) is None
