"""Which networks are measured."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.latency_tables.plan import precision_pairs, sample_networks, set_precision, uniform_precision
from hwnas.spaces import Operator, Space, load_space
from hwnas.spaces.space import Rows


def make(*joint: str) -> Space:
    return load_space("mbconv", input_shape=(1, 8, 8), num_classes=10, joint=joint)


@pytest.fixture(scope="module")
def space() -> Space:
    return make("bits", "sparsity", "rank")


def inner(space: Space, row: Rows) -> list[Operator]:
    """Convolutions whose precision is free: not the first, whose options are 8 and 32, nor the squeeze."""
    return [
        o for o in space.workload_of_row(row).operators if o.kind == "conv" and o.name != "stem" and "se_" not in o.name
    ]


def test_every_pair_of_bits(space: Space) -> None:
    assert precision_pairs(space) == [(w, a) for w in (4, 7, 8, 32) for a in (4, 8, 32)]
    assert precision_pairs(make("sparsity")) == [(32, 32)]


@pytest.mark.parametrize("pair", [(4, 4), (4, 32), (7, 8), (8, 8), (32, 4), (32, 32)])
def test_the_reference_in_one_precision(space: Space, pair: tuple[int, int]) -> None:
    row = uniform_precision(space, *pair)
    assert np.array_equal(space.canonical(row[None])[0], row)
    assert {o.weight_bits for o in inner(space, row)} == {pair[0]}
    assert {o.out_bits for o in inner(space, row)} == {pair[1]}
    reference = space.workload(space.reference())
    assert space.workload_of_row(row).macs == reference.macs


def test_the_first_and_the_last_layer_take_the_nearest_bits_they_have(space: Space) -> None:
    operators = {o.name: o for o in space.workload_of_row(uniform_precision(space, 4, 4)).operators}
    assert operators["input.quantize"].out_bits == 8
    assert operators["stem"].weight_bits == 8
    assert operators["classifier"].weight_bits == 8
    full = {o.name: o for o in space.workload_of_row(uniform_precision(space, 32, 32)).operators}
    assert "input.quantize" not in full
    assert full["classifier"].weight_bits == 32


def test_float_precision_is_the_reference_itself(space: Space) -> None:
    assert np.array_equal(uniform_precision(space, 32, 32), space.encode(space.reference()))


def test_setting_a_precision_changes_nothing_else(space: Space) -> None:
    row = space.sample(np.random.default_rng(0), 1)[0]
    before = row.copy()
    set_precision(space, row, 8, 32)
    kept = np.array([not d.name.endswith("_bits") for d in space.decisions])
    assert np.array_equal(row[kept], before[kept])
    assert {d.options[i] for d, i in zip(space.decisions, row, strict=True) if d.name.endswith("weight_bits")} == {8}
    assert {d.options[i] for d, i in zip(space.decisions, row, strict=True) if d.name.endswith("act_bits")} == {32}


def test_networks_are_distinct_canonical_and_as_many_as_asked(space: Space) -> None:
    rows = sample_networks(space, np.random.default_rng(0), 200, [1.0] * 12)
    assert rows.shape == (200, len(space.decisions))
    assert len(np.unique(rows, axis=0)) == 200
    assert np.array_equal(space.canonical(rows), rows)
    again = sample_networks(space, np.random.default_rng(0), 200, [1.0] * 12)
    assert np.array_equal(rows, again)


def test_a_third_of_the_networks_is_in_one_precision_the_fast_ones_more_often(space: Space) -> None:
    pairs = precision_pairs(space)
    speeds = [1.0] * 12
    speeds[pairs.index((8, 8))] = 33.0  # three quarters of the sum
    rows = sample_networks(space, np.random.default_rng(0), 300, speeds)
    uniform = [
        next(iter(found)) for row in rows if len(found := {(o.weight_bits, o.out_bits) for o in inner(space, row)}) == 1
    ]
    # Other coherent networks may be in one precision too, by chance; uniform draws hardly ever.
    assert 95 <= len(uniform) <= 140
    assert 0.6 < uniform.count((8, 8)) / 100 < 0.95
    assert len(set(uniform)) > 4, "the slow ones are not left out"


def test_a_space_smaller_than_the_plan_gives_what_it_has() -> None:
    space = make()
    rows = sample_networks(space, np.random.default_rng(0), 50, [1.0])
    assert len(np.unique(rows, axis=0)) == len(rows) == 50
