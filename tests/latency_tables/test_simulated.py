"""Simulated accelerators: counts that one can do by hand, and what their authors and HAQ published."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwnas.latency_tables.simulated import ACCELERATORS, Accelerator, execution
from hwnas.latency_tables.simulated.bit_serial import BISMO_CLOUD, BISMO_EDGE
from hwnas.latency_tables.simulated.eyeriss import EYERISS, UNIT_PJ
from hwnas.latency_tables.simulated.spatial import BIT_FUSION
from hwnas.spaces import Operator, load_space
from tests.every_kind import OPERATORS

every_accelerator = pytest.mark.parametrize("accelerator", ACCELERATORS.values(), ids=ACCELERATORS)


def with_bits(operator: Operator, weight_bits: int, in_bits: int, out_bits: int | None = None) -> Operator:
    return replace(operator, weight_bits=weight_bits, in_bits=in_bits, out_bits=out_bits or in_bits)


def small(weight_bits: int, in_bits: int, out_bits: int = 8) -> Operator:
    """16 → 32 channels, 3×3, on 4×4 positions: a product of (16 × 144) by (144 × 32), 73,728 MACs.

    With 8 bits all over it moves 16·16 + 32·144 + 32·16 = 5376 bytes, or 43,008 bits.
    """
    return with_bits(Operator("conv", 16, 32, (4, 4), (4, 4), 3), weight_bits, in_bits, out_bits)


def depthwise(kernel: int) -> Operator:
    return Operator("conv", 20, 20, (8, 8), (8, 8), kernel, groups=20, weight_bits=8, in_bits=8, out_bits=8)


class TestBitFusion:
    @pytest.mark.parametrize(
        ("weight_bits", "in_bits", "cycles"),
        [
            (8, 8, 16 * 9),  # 144 = 9 · 16 rows; 32 filters in 32 columns
            (4, 8, 16 * 5),  # 144 / (16 · 2) = 4.5
            (8, 4, 16 * 5),
            (4, 4, 16 * 3),  # 144 / (16 · 4) = 2.25
            (2, 2, 16 * 1),  # 144 / (16 · 16) = 0.56
            (16, 8, 16 * 9 * 2),
            (16, 16, 16 * 9 * 4),
            (32, 32, 16 * 9 * 4),
        ],
    )
    def test_a_small_convolution(self, weight_bits: int, in_bits: int, cycles: int) -> None:
        assert BIT_FUSION.compute_cycles(small(weight_bits, in_bits)) == cycles

    def test_it_waits_for_the_slower_of_array_and_dram(self) -> None:
        assert BIT_FUSION.latency_ms(small(8, 8)) == pytest.approx(43_008 / 192 / 500e6 * 1e3)
        wide = replace(small(8, 8), in_size=(32, 32), out_size=(32, 32))
        assert BIT_FUSION.latency_ms(wide) == pytest.approx(32 * 32 * 9 / 500e6 * 1e3)

    def test_energy(self) -> None:
        expected_pj = 73_728 * 0.23 + 43_008 * (640 / 32 + 2 * 5 / 32)
        assert BIT_FUSION.energy_mj(small(8, 8)) == pytest.approx(expected_pj * 1e-9)
        saved_pj = 73_728 * 0.23 * (1 - 1 / 4) + (256 + 4608) * 4 * (640 / 32 + 2 * 5 / 32)
        assert BIT_FUSION.energy_mj(small(4, 4)) == pytest.approx((expected_pj - saved_pj) * 1e-9)

    def test_bits_are_rounded_up(self) -> None:
        for bits, rounded in ((1, 2), (3, 4), (5, 8), (7, 8), (9, 16)):
            for cost in (BIT_FUSION.latency_ms, BIT_FUSION.energy_mj):
                assert cost(small(bits, 8)) == cost(small(rounded, 8))
                assert cost(small(8, bits)) == cost(small(8, rounded))

    @pytest.mark.parametrize("weight_bits", [2, 4, 8])
    @pytest.mark.parametrize("in_bits", [2, 4, 8])
    def test_throughput_grows_as_bits_fall(self, weight_bits: int, in_bits: int) -> None:
        filling = Operator("conv", 256, 32, (14, 14), (14, 14), 3)  # a depth that all rows can share
        full = BIT_FUSION.compute_cycles(with_bits(filling, 8, 8))
        assert full / BIT_FUSION.compute_cycles(with_bits(filling, weight_bits, in_bits)) == (
            64 / weight_bits / in_bits
        )

    def test_columns_take_the_channels_of_depthwise_convolutions(self) -> None:
        assert BIT_FUSION.compute_cycles(depthwise(3)) == 64
        assert BIT_FUSION.compute_cycles(replace(depthwise(3), in_channels=40, out_channels=40, groups=40)) == 2 * 64


class TestBitSerial:
    def test_the_published_peak(self) -> None:
        """8 · 8 · 256 products and as many sums in each of 200 million cycles: 6.55 binary TOPS, less than 5 W."""
        assert BISMO_EDGE.peak_binary_tops == pytest.approx(6.5536)
        assert 4.5 < BISMO_EDGE.binary_mac_pj * BISMO_EDGE.peak_binary_tops / 2 < 5.0

    def test_a_small_convolution(self) -> None:
        tiles = 2 * 4 * 1  # of 8 positions, of 8 filters, of 256 deep
        assert BISMO_EDGE.compute_cycles(small(8, 8)) == tiles * 64
        assert BISMO_EDGE.compute_cycles(small(3, 5)) == tiles * 15
        assert BISMO_EDGE.compute_cycles(small(32, 32)) == tiles * 256
        assert BISMO_CLOUD.compute_cycles(small(8, 8)) == 64
        deep = replace(small(8, 8), in_channels=64)  # 576 deep
        assert BISMO_EDGE.compute_cycles(deep) == 2 * 4 * 3 * 64
        assert BISMO_EDGE.latency_ms(small(8, 8)) == pytest.approx(43_008 / 64 / 200e6 * 1e3)
        wide = replace(small(8, 8), in_size=(8, 8), out_size=(8, 8))
        assert BISMO_EDGE.latency_ms(wide) == pytest.approx(4 * tiles * 64 / 200e6 * 1e3)

    def test_energy(self) -> None:
        assert BISMO_EDGE.energy_mj(small(8, 8)) == pytest.approx((73_728 * 64 * 1.5 + 43_008 * 20) * 1e-9)

    @pytest.mark.parametrize("accelerator", [BISMO_EDGE, BISMO_CLOUD])
    def test_cycles_are_proportional_to_both_bits(self, accelerator: Accelerator) -> None:
        one = accelerator.compute_cycles(small(1, 1))  # type: ignore[attr-defined]
        for weight_bits in range(1, 9):
            for in_bits in range(1, 9):
                cycles = accelerator.compute_cycles(small(weight_bits, in_bits))  # type: ignore[attr-defined]
                assert cycles == one * weight_bits * in_bits

    def test_a_cycle_gives_no_more_results_than_there_are_dot_products(self) -> None:
        """Depthwise: a column for each channel, whose values must find room side by side in the depth."""
        assert BISMO_EDGE.compute_cycles(depthwise(3)) == 8 * 3 * 64  # of 8 positions, of 8 channels
        assert BISMO_CLOUD.compute_cycles(depthwise(5)) == 1 * 2 * 64  # 10 channels of 25 values in 256 bits


class TestEyeriss:
    ALEXNET = (
        Operator("conv", 3, 96, (227, 227), (55, 55), 11, 4),
        Operator("conv", 96, 256, (27, 27), (27, 27), 5, groups=2),
        Operator("conv", 256, 384, (13, 13), (13, 13), 3),
        Operator("conv", 384, 384, (13, 13), (13, 13), 3, groups=2),
        Operator("conv", 384, 256, (13, 13), (13, 13), 3, groups=2),
    )

    def test_a_small_convolution(self) -> None:
        assert EYERISS.compute_cycles(small(16, 16)) == 73_728 / (12 * 12)  # 4 rows of 3, 3 columns of 4
        assert EYERISS.latency_ms(small(8, 8)) == pytest.approx(43_008 / (64 * 90e6) * 1e3)
        moved = 256 * 2 + 2 * 512 * 3  # inputs for 2 · 16 filters, partial sums between 4 · 4 channels
        assert EYERISS.on_chip_units(small(16, 16)) == 73_728 * (1 + 4) + moved * (6 + 2)
        dram = (256 + 4608 + 512) * (200 + 6)
        assert EYERISS.energy_mj(small(16, 16, 16)) == pytest.approx((73_728 * 5 + moved * 8 + dram) * UNIT_PJ * 1e-9)

    def test_fewer_bits_save_energy_and_no_cycles(self) -> None:
        assert EYERISS.compute_cycles(small(2, 2)) == EYERISS.compute_cycles(small(16, 16))
        assert EYERISS.on_chip_units(small(8, 8)) == 73_728 * (1 / 4 + 1 / 2 + 1 / 2 + 2) + (128 * 2 + 3072) * 8

    def test_alexnet_takes_the_energy_that_was_measured_on_the_chip(self) -> None:
        """278 mW at 34.7 images a second (JSSC 2017), DRAM not counted."""
        layers = [with_bits(o, 16, 16) for o in self.ALEXNET]
        assert sum(o.macs for o in layers) == pytest.approx(665.8e6, rel=1e-4)
        on_chip_mj = sum(map(EYERISS.on_chip_units, layers)) * UNIT_PJ * 1e-9
        assert on_chip_mj == pytest.approx(7.8, abs=0.05)
        assert on_chip_mj == pytest.approx(278 / 34.7, rel=0.05)

    def test_alexnet_is_not_slower_than_the_chip(self) -> None:
        """Whose 28.8 ms hold what is left out here, such as filling the array."""
        assert 0.7 < sum(EYERISS.latency_ms(with_bits(o, 16, 16)) for o in self.ALEXNET) / (1e3 / 34.7) < 1.0


class TestHaq:
    """The table that HAQ ships for MobileNetV2: 53 layers by bits of weights by bits of inputs.

    4 bits cost 0.397 of 8; depthwise layers depend on the inputs' bits alone (weights of 2 bits: 0.88 at least, inputs
    of 2 bits: 0.25 to 0.39), the classifier on the weights' alone, expansions on both.
    """

    @pytest.fixture(scope="class")
    def layers(self) -> list[Operator]:
        space = load_space("mbconv", joint=())
        return [o for o in space.workload(space.reference()).operators if o.weights]

    @staticmethod
    def relative(layers: list[Operator], weight_bits: int, in_bits: int) -> np.ndarray:
        cost = [[BIT_FUSION.latency_ms(with_bits(o, *b)) for o in layers] for b in ((weight_bits, in_bits), (8, 8))]
        return np.array([*(np.array(cost[0]) / cost[1]), sum(cost[0]) / sum(cost[1])])

    def test_whole_network(self, layers: list[Operator]) -> None:
        assert len(layers) == 53
        assert self.relative(layers, 4, 4)[-1] == pytest.approx(0.397, abs=0.03)

    def test_depthwise_layers_depend_on_inputs(self, layers: list[Operator]) -> None:
        own = [o for o in layers if o.depthwise]
        assert len(own) == 17
        assert self.relative(own, 2, 8).min() >= 0.88
        inputs = self.relative(own, 8, 2)
        assert 0.25 <= inputs.min() <= inputs.max() < 0.45

    def test_the_classifier_depends_on_weights(self, layers: list[Operator]) -> None:
        assert self.relative(layers[-1:], 2, 8)[-1] == pytest.approx(0.25, abs=0.01)
        assert self.relative(layers[-1:], 8, 2)[-1] == pytest.approx(1.0, abs=0.01)

    def test_expansions_depend_on_both(self, layers: list[Operator]) -> None:
        own = [o for o in layers if o.name.endswith("expand")]
        assert self.relative(own, 2, 8)[-1] < 0.8
        assert self.relative(own, 8, 2)[-1] < 0.8


@every_accelerator
def test_more_bits_never_cost_less(accelerator: Accelerator) -> None:
    for cost in (accelerator.latency_ms, accelerator.energy_mj):
        for operators in ([small(b, 8) for b in (*range(1, 17), 32)], [small(8, b) for b in (*range(1, 17), 32)]):
            costs = list(map(cost, operators))
            assert costs == sorted(costs)
            assert costs[0] > 0


@every_accelerator
def test_operators_without_weights_are_traffic(accelerator: Accelerator) -> None:
    add = Operator("add", 8, 8, (4, 4), (4, 4), in_bits=8, out_bits=8)
    pool = Operator("pool", 24, 24, (4, 4), (1, 1), in_bits=8, out_bits=8)
    assert accelerator.latency_ms(add) > 0
    assert accelerator.energy_mj(add) / accelerator.energy_mj(pool) == pytest.approx((2 + 1) * 128 / (24 * 17))


@every_accelerator
def test_kinds_without_weights_cost_what_they_move(accelerator: Accelerator) -> None:
    pool = Operator("pool", 24, 24, (4, 4), (1, 1), in_bits=8, out_bits=8)
    unit = accelerator.energy_mj(pool) / (24 * 17)  # of a byte
    for name, operator in OPERATORS.items():
        if operator.weights:
            continue
        own = replace(operator, in_bits=8, out_bits=8)
        read = {"add": 2, "zero": 0}.get(own.kind, 1) * own.in_bytes  # a concatenation's in_bytes are of all inputs
        assert accelerator.energy_mj(own) == pytest.approx(unit * (read + own.out_bytes)), name
        assert accelerator.latency_ms(own) > 0


def test_a_transposed_convolution() -> None:
    """16 → 32 channels, 3×3, from 4×4 to 8×8 positions: a product of (16 × 16) by (16 × 288), 73,728 MACs."""
    up = with_bits(Operator("deconv", 16, 32, (4, 4), (8, 8), 3, 2), 8, 8)
    assert up.macs == 73_728
    assert BIT_FUSION.compute_cycles(up) == 16 * 9  # 16 deep in 16 rows; 288 filters in 32 columns
    assert BISMO_EDGE.compute_cycles(up) == 2 * 1 * 36 * 64
    assert BIT_FUSION.compute_cycles(replace(up, groups=2)) == 16 * 2 * 5  # two groups, 144 filters each
    moved_bytes = 16 * 16 + 73_728 // 16 + 32 * 64
    assert BIT_FUSION.latency_ms(up) == pytest.approx(8 * moved_bytes / 192 / 500e6 * 1e3)
    assert EYERISS.compute_cycles(up) == 73_728 / (12 * 12)  # four kernels of 3 rows, three times 4 columns
    wide = with_bits(up, 16, 16)
    assert EYERISS.on_chip_units(wide) == 73_728 * (1 + 4) + (16 * 16 * 2 + 2 * 32 * 64 * 3) * (6 + 2)


def test_kernels_that_are_not_square() -> None:
    wide = replace(small(8, 8), kernel=1, kernel_width=5)  # 80 deep
    assert BIT_FUSION.compute_cycles(wide) == 16 * 5
    assert BISMO_EDGE.compute_cycles(wide) == 2 * 4 * 1 * 64
    assert wide.macs == 40_960
    assert EYERISS.compute_cycles(wide) == 285  # 40,960 / (12 · 12)
    assert EYERISS.compute_cycles(replace(wide, kernel=5, kernel_width=1)) == 342, "in 10 of 12 rows"


@every_accelerator
def test_dilation_changes_no_product(accelerator: Accelerator) -> None:
    for cost in (accelerator.latency_ms, accelerator.energy_mj):
        assert cost(replace(small(8, 8), dilation=2)) == cost(small(8, 8))


@every_accelerator
def test_sparsity_that_no_machine_exploits_saves_nothing(accelerator: Accelerator) -> None:
    assert accelerator.latency_ms(replace(small(8, 8), density=0.5)) == accelerator.latency_ms(small(8, 8))
    assert accelerator.energy_mj(replace(small(8, 8), density=0.5)) == accelerator.energy_mj(small(8, 8))


def test_how_precisions_are_executed() -> None:
    words = {(3, 8): "stored only", (4, 8): "native", (8, 7): "stored only", (8, 32): "emulated", (32, 8): "emulated"}
    for (weight_bits, in_bits), word in words.items():
        assert execution(BIT_FUSION, small(weight_bits, in_bits)) == word
    assert {execution(BISMO_EDGE, small(w, a)) for w in range(1, 9) for a in range(1, 9)} == {"native"}
    assert execution(BISMO_EDGE, small(8, 8, 32)) == "emulated"
    assert execution(BISMO_EDGE, Operator("linear", 8, 8, weight_bits=8, in_bits=8)) == "native"
    assert execution(BIT_FUSION, Operator("pool", 8, 8, (4, 4), in_bits=8, out_bits=8)) == "native"


@every_accelerator
def test_each_says_what_it_is_and_what_is_assumed(accelerator: Accelerator) -> None:
    assert "MHz" in accelerator.what
    assert accelerator.source.startswith(("after ", "the design of "))
    assert "our assumption" in accelerator.source
