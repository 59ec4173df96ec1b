"""A spatial bit-fusion array, after Bit Fusion (Sharma et al., ISCA 2018).

A fusion unit has 16 multipliers of 2 by 2 bits. Fused, they make one product of 8 by 8 bits a cycle, four of 4 by 4, or
sixteen of 2 by 2; 16 by 16 bits take four cycles. Bits are rounded up to 2, 4, 8 or 16. Units stand in an array: inputs
enter along the rows and are added up down the columns, so that rows share the depth of a product and columns its
filters. A convolution takes

    positions · ⌈filters / columns⌉ · ⌈depth of the product / (rows · products of a unit)⌉

cycles, as in the authors' simulator with im2col, or as long as its DRAM traffic if that is longer. HAQ's observation
(Wang et al., CVPR 2019) that depthwise layers depend on the bits of activations alone, and classifiers on those of
weights alone, follows from this.

Assumptions of ours: computing and DRAM traffic overlap; each tensor crosses DRAM once, as if every layer's working set
fitted the on-chip buffers; in depthwise convolutions columns take channels; the groups of other grouped convolutions
follow each other; operators without weights are traffic alone; the array starts at once; a value of more than 16 bits
counts as 16 bits.
"""

from __future__ import annotations

from dataclasses import dataclass

from hwnas.latency_tables.simulated.accelerator import WIDEST, product, traffic, up
from hwnas.spaces.operator import Operator

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

    def width(self, bits: int) -> int:
        """2, 4, 8 or 16."""
        return next((b for b in (2, 4, 8) if bits <= b), WIDEST)

    def compute_cycles(self, operator: Operator) -> int:
        """Cycles of the array without waiting for data."""
        p = product(operator)
        if p is None:
            return 0
        bricks = self._bricks(operator)
        products = max(1, BRICKS // bricks)  # of one unit in one cycle
        cycles = up(bricks, BRICKS)  # of one product
        depth = up(p.depth, self.rows * products)
        lanes = up(p.groups, self.columns) if p.filters == 1 else p.groups * up(p.filters, self.columns)
        return p.positions * depth * lanes * cycles

    def latency_ms(self, operator: Operator) -> float:
        """The longer of computing and DRAM traffic."""
        moving = up(traffic(operator, self.width).bits, self.dram_bits_per_cycle)
        return max(self.compute_cycles(operator), moving) / self.clock_hz * 1e3

    def energy_mj(self, operator: Operator) -> float:
        """Products by their 2 by 2 bit parts, and traffic through the buffers and DRAM."""
        moved = traffic(operator, self.width).bits
        computing = operator.macs * self._bricks(operator) * self.brick_pj
        return (computing + moved * (self.dram_pj_per_bit + 2 * self.sram_pj_per_bit)) * 1e-9

    def _bricks(self, operator: Operator) -> int:
        """Multipliers of 2 by 2 bits that a product takes."""
        return self.width(operator.weight_bits) // 2 * (self.width(operator.in_bits) // 2)


BIT_FUSION = BitFusion(
    rows=16,
    columns=32,
    clock_hz=500e6,
    dram_bits_per_cycle=192,
    brick_pj=0.23 / BRICKS,
    sram_pj_per_bit=5.0 / 32,
    dram_pj_per_bit=640.0 / 32,
    source="after Bit Fusion (Sharma et al., ISCA 2018); array, clock and DRAM traffic as in the authors' simulator "
    "(github.com/hsharma35/bitfusion, bf_e_conf.ini). Energies are general ones of a 45 nm process: an 8-bit "
    "product and sum 0.23 pJ (Horowitz, ISSCC 2014), 32 bits from a 32 kB SRAM 5 pJ and from DRAM 640 pJ (Han "
    "et al., ISCA 2016, table I). That each tensor crosses DRAM once is our assumption",
)
