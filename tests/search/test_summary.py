"""The layers that a report shows are the network's own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from hwnas.search.report.data import LayerRow
from hwnas.search.report.summary import kind_in_words, layer_rows
from hwnas.search.run_folder import Run
from hwnas.spaces import Candidate, Operator
from tests.every_kind import OPERATORS

from .fixtures import PER_NETWORK_MS, digits_space, planted_ms, small_search, synthetic_device, thin_row

SIDE = (8, 8)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("summary") / "run"
    created = Run.create(folder, small_search())
    synthetic_device().save(folder / "device")
    return created


def thin_with(**changes: Any) -> Candidate:
    """The thinnest 8-bit network with a few decisions changed; underscores stand for dots."""
    values = dict(digits_space().decode(thin_row(8, 8)))
    return digits_space().decode(digits_space().encode(values | {k.replace("__", "."): v for k, v in changes.items()}))


def by_name(rows: list[LayerRow]) -> Mapping[str, LayerRow]:
    return {row.name: row for row in rows}


def some_candidates() -> list[Candidate]:
    space = digits_space()
    return [space.decode(row) for row in space.sample(np.random.default_rng(3), 25)]


def test_every_operator_has_its_row_and_they_add_up_to_the_network(run: Run) -> None:
    for candidate in (*some_candidates(), run.space.reference()):
        workload, rows = run.space.workload(candidate), layer_rows(run, candidate)
        assert [row.name for row in rows] == [o.name for o in workload.operators]
        assert sum(row.macs for row in rows) == workload.macs
        assert sum(row.weight_bytes for row in rows) == workload.weight_bytes
        costs = run.cost.of(candidate)
        total = sum(row.latency_ms for row in rows) + run.cost.latency.per_network
        assert total == pytest.approx(costs["latency_ms"], rel=1e-6)
        assert sum(map(planted_ms, workload.operators)) + PER_NETWORK_MS == pytest.approx(costs["latency_ms"], rel=0.02)


def test_executions_are_one_of_three_words_and_all_occur(run: Run) -> None:
    words = {row.execution for candidate in some_candidates() for row in layer_rows(run, candidate)}
    assert words == {"native", "emulated", "stored only"}


def test_shares_lie_between_nothing_and_all(run: Run) -> None:
    for candidate in some_candidates():
        for row in layer_rows(run, candidate):
            assert 0 < row.width_share <= 1
            assert 0 < row.rank_share <= 1
            assert math.isfinite(row.latency_std_ms)
            assert row.latency_std_ms >= 0


def test_only_factorised_layers_have_less_than_the_full_rank(run: Run) -> None:
    for candidate in some_candidates():
        rows = layer_rows(run, candidate)
        names = {row.name for row in rows}
        for row in rows:
            if row.rank_share < 1:
                base = row.name.removesuffix("_in")
                assert {base, f"{base}_in"} <= names
    assert {row.rank_share for row in layer_rows(run, run.space.reference())} == {1.0}


def factorised_head(run: Run) -> tuple[LayerRow, LayerRow, float]:
    """The two factors of the last convolution at half rank, and how much of the whole layer's work they are."""
    whole = by_name(layer_rows(run, thin_with()))
    parts = by_name(layer_rows(run, thin_with(head__rank=0.5)))
    assert parts.keys() == whole.keys() | {"head_in"}
    assert [n for n, row in parts.items() if row.rank_share < 1] == ["head_in", "head"]
    return parts["head_in"], parts["head"], (parts["head"].macs + parts["head_in"].macs) / whole["head"].macs


def test_a_factorised_layer_says_how_much_of_it_is_left(run: Run) -> None:
    """32 → 12 → 64 channels instead of 32 → 64: 12 · (32 + 64) of 32 · 64 products."""
    _, second, left = factorised_head(run)
    assert second.rank_share == pytest.approx(left) == pytest.approx(12 * 96 / 2048)


def test_both_factors_say_the_same(run: Run) -> None:
    first, second, _ = factorised_head(run)
    assert first.rank_share == pytest.approx(second.rank_share)


def test_bits_width_and_execution_are_the_candidates_own(run: Run) -> None:
    rows = by_name(layer_rows(run, thin_with(head__weight_bits=7, stem__width=8)))
    head = rows["head"]
    assert (head.weight_bits, head.act_bits, head.execution) == (7, 8, "stored only")
    assert rows["stem"].execution == "native"
    assert rows["stem"].width_share == 0.5  # 8 of at most 16 channels
    assert rows["pool"].weight_bits is None
    assert (rows["classifier"].in_channels, rows["classifier"].out_channels) == (64, 10)
    assert rows["stem"].shape == "1×8×8 → 8×8×8"


@pytest.mark.parametrize(
    ("operator", "words"),
    [
        (Operator("conv", 3, 8, SIDE, SIDE, 3), "conv 3×3"),
        (Operator("conv", 3, 8, SIDE, SIDE, 3, 2, affine="norm", activation="relu6"), "conv 3×3 /2"),
        (Operator("conv", 8, 8, SIDE, SIDE, 3, dilation=2), "conv 3×3 dilated 2"),
        (Operator("conv", 8, 8, SIDE, SIDE, 3, groups=8, dilation=4), "depthwise 3×3 dilated 4"),
        (Operator("conv", 8, 8, SIDE, SIDE, groups=2, activation="prelu"), "conv 1×1 in 2 groups with prelu"),
        (Operator("conv", 8, 8, SIDE, SIDE, 3, density=0.5, pattern=4), "conv 3×3 2:4 sparse"),
        (Operator("linear", 8, 8, density=0.3), "linear 30% dense"),
        (Operator("pool", 8, 8, SIDE), "pool"),
        (Operator("pool", 8, 8, SIDE, SIDE, 3, 2), "pool 3×3 /2"),
        (Operator("shuffle", 8, 8, SIDE, SIDE, groups=4), "shuffle in 4 groups"),
        (Operator("hadamard", 8, 8, SIDE, SIDE), "Hadamard transform"),
        (Operator("activate", 8, 8, SIDE, SIDE, affine="norm", activation="prelu"), "normalisation and prelu"),
        (Operator("activate", 8, 8, SIDE, SIDE, activation="hswish"), "hswish"),
        (Operator("zero", 8, 8, SIDE, SIDE, stride=2), "zero /2"),
        (Operator("concat", 8, 8, SIDE, SIDE), "concat"),
        (Operator("conv", 8, 8, SIDE, SIDE, 3, kernel_width=1), "conv 3×1"),
        (Operator("conv", 8, 8, SIDE, SIDE, 1, kernel_width=7, groups=8), "depthwise 1×7"),
        (Operator("conv", 3, 8, SIDE, (2, 2), 4, 4, margin=0), "conv 4×4 /4 padded by 0"),
        (Operator("pool", 8, 8, SIDE, SIDE, 1, kernel_width=3), "pool 1×3"),
        (Operator("deconv", 8, 8, SIDE, (16, 16), 4, 2, 2, activation="silu"),
         "transposed conv 4×4 /2 in 2 groups with silu"),
        (OPERATORS["slice"], "slice"), (OPERATORS["call"], "leaky_relu, mul"),
    ],
)  # fmt: skip
def test_operators_in_words(operator: Operator, words: str) -> None:
    assert kind_in_words(operator) == words


def test_layers_that_were_measured_say_so(run: Run) -> None:
    measured = {row.operator for row in run.device.table.operators}
    seen = set()
    for candidate in (*some_candidates(), run.space.reference()):
        for row, operator in zip(layer_rows(run, candidate), run.space.workload(candidate).operators, strict=True):
            assert row.measured == (operator in measured)
            seen.add(row.measured)
    assert seen == {True, False}
