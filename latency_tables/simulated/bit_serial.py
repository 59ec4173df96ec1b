"""A bit-serial array, after BISMO (Umuroglu et al., FPL 2018), HAQ's edge and cloud targets.

A product of w-bit by a-bit matrices is the weighted sum of w·a binary products. The array computes, in one cycle, a
tile of ``rows`` × ``columns`` results over ``depth`` bits of the common dimension, so an operator takes

    ⌈positions / rows⌉ · ⌈filters / columns⌉ · ⌈depth of the product / depth⌉ · w · a

cycles, or as long as its DRAM traffic if that is longer. Nothing is rounded up to powers of two: 3 bits cost 3.

Deviations: values of more than 16 bits count as 16; a group of a grouped convolution is a product of its own, but
depthwise channels stand side by side in the common dimension (one output uses one channel's share of it);
operators without weights are traffic alone; no start-up time.
"""

from __future__ import annotations

from dataclasses import dataclass

from hwnas.latency_tables.simulated.accelerator import product, traffic, up
from hwnas.spaces.operator import Operator

WIDEST = 16


@dataclass(frozen=True, slots=True)
class BitSerial:
    """The array.

    Attributes:
        rows, columns, depth: Binary dot products in parallel, and bits in each: BISMO's D_m, D_n, D_k.
        clock_hz: Cycles per second.
        dram_bits_per_cycle: Of traffic to and from DRAM.
        binary_op_pj: Energy of one binary product and sum.
        dram_pj_per_bit: Energy of moving a bit to or from DRAM.
    """

    rows: int
    columns: int
    depth: int
    clock_hz: float
    dram_bits_per_cycle: int
    binary_op_pj: float
    dram_pj_per_bit: float
    source: str

    @property
    def what(self) -> str:
        """Size and clock."""
        return (
            f"{self.rows} × {self.columns} binary dot products of {self.depth} bits at {self.clock_hz / 1e6:.0f} MHz "
            f"({self.peak_binary_tops:.1f} binary TOPS), {self.dram_bits_per_cycle} bits of DRAM traffic a cycle"
        )

    @property
    def peak_binary_tops(self) -> float:
        """10¹² binary operations a second; a product and a sum are two."""
        return 2 * self.rows * self.columns * self.depth * self.clock_hz / 1e12

    def compute_cycles(self, operator: Operator) -> int:
        """Cycles of the array without waiting for data."""
        p = product(operator)
        if p is None:
            return 0
        planes = min(operator.weight_bits, WIDEST) * min(operator.in_bits, WIDEST)
        if p.filters == 1:
            side_by_side = max(1, self.depth // p.depth)
            tiles = up(p.positions, self.rows) * up(p.groups, self.columns * side_by_side) * up(p.depth, self.depth)
        else:
            tiles = p.groups * up(p.positions, self.rows) * up(p.filters, self.columns) * up(p.depth, self.depth)
        return tiles * planes

    def latency_ms(self, operator: Operator) -> float:
        """The longer of computing and DRAM traffic."""
        moving = up(traffic(operator, WIDEST).bits, self.dram_bits_per_cycle)
        return max(self.compute_cycles(operator), moving) / self.clock_hz * 1e3

    def energy_mj(self, operator: Operator) -> float:
        """Binary products and DRAM traffic."""
        binary = operator.macs * min(operator.weight_bits, WIDEST) * min(operator.in_bits, WIDEST)
        return (binary * self.binary_op_pj + traffic(operator, WIDEST).bits * self.dram_pj_per_bit) * 1e-9


_SOURCE = (
    "BISMO, Umuroglu et al., FPL 2018: {peak}. {board}. Energy of a binary product and sum {energy}; of a bit from "
    "DRAM 20 pJ (Han et al., ISCA 2016, table I)"
)
BISMO_EDGE = BitSerial(
    rows=8,
    columns=8,
    depth=256,
    clock_hz=200e6,
    dram_bits_per_cycle=64,
    binary_op_pj=2 / 1.4,
    dram_pj_per_bit=20.0,
    source=_SOURCE.format(
        peak="8 × 8 dot products of 256 bits at 200 MHz, 6.5 binary TOPS on a Zynq 7020",
        board="64 bits of DRAM traffic a cycle, its 32-bit DDR3 interface at 1.6 GB/s net",
        energy="1.4 pJ, from the published 1.4 binary TOPS per watt",
    ),
)
BISMO_CLOUD = BitSerial(
    rows=64,
    columns=64,
    depth=256,
    clock_hz=200e6,
    dram_bits_per_cycle=512,
    binary_op_pj=2 / 1.4,
    dram_pj_per_bit=20.0,
    source=_SOURCE.format(
        peak="the same design with 64 × 64 dot products",
        board="HAQ's cloud target is a VU9P; size and 512 bits of DRAM traffic a cycle are our assumption",
        energy="as for the small array",
    ),
)
