"""A spatial bit-fusion array, after Bit Fusion (Sharma et al., ISCA 2018).

A fusion unit has 16 multipliers of 2 by 2 bits. Fused, they make one product of 8 by 8 bits a cycle, four of 4 by 4, or
sixteen of 2 by 2; 16 by 16 bits take four cycles. Bits are rounded up to 2, 4, 8 or 16. Units stand in an array: inputs
enter along the rows and are added up down the columns, so that rows share the depth of a product and columns its
filters; in depthwise convolutions columns take channels.

An operator takes as long as the slower of computing and DRAM traffic, which overlap (HAQ's observation that depthwise
layers depend on the bits of activations alone and classifiers on those of weights alone follows from it).

Deviations: values of more than 16 bits count as 16 bits; operators without weights are traffic alone; no start-up time
of the array; traffic reads and writes each tensor once, as if every layer's working set fitted the on-chip buffers.
"""

from __future__ import annotations

from dataclasses import dataclass

from hwnas.latency_tables.simulated.accelerator import product, traffic, up
from hwnas.spaces.operator import Operator

WIDEST = 16
BRICKS = 16
"""Multipliers of 2 by 2 bits in a fusion unit."""


@dataclass(frozen=True, slots=True)
class BitFusion:
    """The array.

    Attributes:
        rows, columns: Fusion units.
        clock_hz: Cycles per second.
        dram_bits_per_cycle: Of traffic to and from DRAM.
        brick_pj: Energy of one product of 2 by 2 bits.
        sram_pj_per_bit, dram_pj_per_bit: Energy of moving a bit; the on-chip buffers are passed both ways.
    """

    rows: int
    columns: int
    clock_hz: float
    dram_bits_per_cycle: int
    brick_pj: float
    sram_pj_per_bit: float
    dram_pj_per_bit: float
    source: str

    @property
    def what(self) -> str:
        """Size and clock."""
        return (
            f"{self.rows} × {self.columns} fusion units at {self.clock_hz / 1e6:.0f} MHz, {self.dram_bits_per_cycle} "
            "bits of DRAM traffic a cycle"
        )

    def compute_cycles(self, operator: Operator) -> int:
        """Cycles of the array without waiting for data."""
        p = product(operator)
        if p is None:
            return 0
        bricks = fused_bricks(operator.weight_bits) * fused_bricks(operator.in_bits)
        products = max(1, BRICKS // bricks)  # of one unit in one cycle
        cycles = up(bricks, BRICKS)  # of one product
        depth = up(p.depth, self.rows * products)
        lanes = up(p.groups, self.columns) if p.filters == 1 else p.groups * up(p.filters, self.columns)
        return p.positions * depth * lanes * cycles

    def latency_ms(self, operator: Operator) -> float:
        """The longer of computing and DRAM traffic."""
        moving = up(traffic(operator, WIDEST).bits, self.dram_bits_per_cycle)
        return max(self.compute_cycles(operator), moving) / self.clock_hz * 1e3

    def energy_mj(self, operator: Operator) -> float:
        """Products by their 2 by 2 bit parts, and traffic through the buffers and DRAM."""
        bricks = operator.macs * fused_bricks(operator.weight_bits) * fused_bricks(operator.in_bits)
        moved = traffic(operator, WIDEST).bits
        return (bricks * self.brick_pj + moved * (self.dram_pj_per_bit + 2 * self.sram_pj_per_bit)) * 1e-9


def fused_bricks(bits: int) -> int:
    """Groups of two bits that a value takes: 1, 2, 4 or 8."""
    return next((b // 2 for b in (2, 4, 8) if bits <= b), WIDEST // 2)


BIT_FUSION = BitFusion(
    rows=16,
    columns=32,
    clock_hz=500e6,
    dram_bits_per_cycle=128,
    brick_pj=0.23 / BRICKS,
    sram_pj_per_bit=5.0 / 32,
    dram_pj_per_bit=640.0 / 32,
    source="512 fusion units at 500 MHz as in Sharma et al., ISCA 2018 (45 nm). Energies of a 45 nm process: an "
    "8-bit product and sum 0.23 pJ (Horowitz, ISSCC 2014), 32 bits from a 32 kB SRAM 5 pJ and from DRAM 640 pJ (Han "
    "et al., ISCA 2016, table I). 128 bits a cycle of DRAM traffic are our assumption",
)
