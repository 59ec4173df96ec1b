"""A bit-serial array, after BISMO (Umuroglu et al., FPL 2018), HAQ's edge and cloud targets.

A product of w-bit by a-bit matrices is the weighted sum of w·a binary products. The array computes, in one cycle, a
tile of ``rows`` × ``columns`` results over ``depth`` bits of the common dimension, so a product takes

    ⌈positions / rows⌉ · ⌈filters / columns⌉ · ⌈depth of the product / depth⌉ · w · a

cycles, or as long as its DRAM traffic if that is longer. Nothing is rounded up to powers of two: 3 bits cost 3.

Assumptions of ours: computing and DRAM traffic overlap; each tensor crosses DRAM once; operators without weights are
traffic alone; the array starts at once; a value of more than 16 bits counts as 16 bits. The groups of a grouped
convolution follow each other. Of a depthwise convolution a tile takes as many channels as it has columns: their values
stand side by side in the common dimension, as far as it reaches, and in each column all weights but those of its own
channel are zero. So most of the array idles, and depthwise layers are bound by it; HAQ calls them bound by memory, and
leaves open how it maps them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hwnas.latency_tables.simulated.accelerator import WIDEST, product, traffic, up
from hwnas.spaces.operator import Operator


@dataclass(frozen=True, slots=True)
class BitSerial:
    """The array.

    Attributes:
        rows, columns, depth: Binary dot products in parallel, and bits in each: BISMO's D_m, D_n, D_k.
        clock_hz: Cycles per second.
        dram_bits_per_cycle: Of traffic to and from DRAM.
        binary_mac_pj: Energy of one binary product and sum.
        dram_pj_per_bit: Energy of moving a bit to or from DRAM.
    """

    rows: int
    columns: int
    depth: int
    clock_hz: float
    dram_bits_per_cycle: int
    binary_mac_pj: float
    dram_pj_per_bit: float
    source: str

    @property
    def what(self) -> str:
        """Size and clock."""
        return (
            f"{self.rows} × {self.columns} binary dot products of {self.depth} bits at {self.clock_hz / 1e6:.0f} MHz "
            f"({self.peak_binary_tops:.3g} binary TOPS), {self.dram_bits_per_cycle} bits of DRAM traffic a cycle"
        )

    @property
    def peak_binary_tops(self) -> float:
        """10¹² binary operations a second; a product and a sum are two."""
        return 2 * self.rows * self.columns * self.depth * self.clock_hz / 1e12

    def width(self, bits: int) -> int:
        """As many as they are."""
        return min(bits, WIDEST)

    def compute_cycles(self, operator: Operator) -> int:
        """Cycles of the array without waiting for data."""
        p = product(operator)
        if p is None:
            return 0
        tiles = up(p.positions, self.rows) * up(p.depth, self.depth)
        if p.filters == 1:
            tiles *= up(p.groups, min(self.columns, max(1, self.depth // p.depth)))
        else:
            tiles *= p.groups * up(p.filters, self.columns)
        return tiles * self._planes(operator)

    def latency_ms(self, operator: Operator) -> float:
        """The longer of computing and DRAM traffic."""
        moving = up(traffic(operator, self.width).bits, self.dram_bits_per_cycle)
        return max(self.compute_cycles(operator), moving) / self.clock_hz * 1e3

    def energy_mj(self, operator: Operator) -> float:
        """Binary products and DRAM traffic."""
        binary = operator.macs * self._planes(operator)
        moved = traffic(operator, self.width).bits
        return (binary * self.binary_mac_pj + moved * self.dram_pj_per_bit) * 1e-9

    def _planes(self, operator: Operator) -> int:
        """Binary products that a product takes."""
        return self.width(operator.weight_bits) * self.width(operator.in_bits)


BINARY_MAC_PJ = 1.5
"""5 W at 8 · 8 · 256 binary products and sums in each of 200 million cycles a second."""
_ENERGY = (
    "Energy is our assumption: 1.5 pJ for a binary product and sum, the most that fits the authors' figure of less "
    "than 5 W at 6.5 binary TOPS, and 20 pJ for a bit from DRAM (Han et al., ISCA 2016, table I, 45 nm)"
)
BISMO_EDGE = BitSerial(
    rows=8,
    columns=8,
    depth=256,
    clock_hz=200e6,
    dram_bits_per_cycle=64,
    binary_mac_pj=BINARY_MAC_PJ,
    dram_pj_per_bit=20.0,
    source="after BISMO (Umuroglu et al., FPL 2018): its array on a PYNQ-Z1 board (Zynq 7020), 6.5 binary TOPS "
    f"(github.com/EECS-NTNU/bismo). One 64-bit memory port, 1.6 GB/s, is our assumption. {_ENERGY}",
)
BISMO_CLOUD = replace(
    BISMO_EDGE,
    rows=64,
    columns=64,
    dram_bits_per_cycle=512,
    source="the design of BISMO (Umuroglu et al., FPL 2018) 64 times as large. HAQ's cloud target is BISMO on a VU9P, "
    f"its size not published: size, clock and 512 bits of DRAM traffic a cycle are our assumption. {_ENERGY}",
)
