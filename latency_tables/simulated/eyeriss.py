"""An accelerator with Eyeriss's energy model (Chen et al., ISCA 2016): energy is counted in accesses to memories.

Relative to a 16-bit multiply–accumulate, an access of a word costs 1 in a processing element's register file, 2 between
elements, 6 in the global buffer, and 200 in DRAM (ISCA 2016, table IV). Per MAC, the register file is accessed four
times (weight, input, partial sum read and written).

The absolute unit is set by the chip: the five convolutions of AlexNet take 278 mW at 34.7 images a second (JSSC 2017),
8.0 mJ each without DRAM; here they take 7.8 mJ. Time is MACs over the elements in use, or DRAM traffic if that takes
longer: whole filter rows stand in the 12 rows of elements, whole output columns (of transposed convolutions, whole
input columns) in the 14 columns.

Assumptions of ours: row-stationary reuse is the same for all layers (an input leaves the buffer once for every 16
filters, a partial sum goes there and back once for every 4 input channels, and each such access passes one hop between
elements); DRAM moves each tensor once; values of b bits cost b/16 of an access, and products of w by a bits w·a/16² of
a MAC, as if the chip packed them, though it has 16 bits only and no fewer bits make it faster; values of more than 16
bits count as 16; zeros are not skipped; layers without weights are traffic alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from hwnas.latency_tables.simulated.accelerator import WIDEST, product, traffic, up
from hwnas.spaces.operator import Operator

ROWS, COLUMNS = 12, 14
CLOCK_HZ = 200e6
LINK_BITS, LINK_HZ = 64, 90e6
REGISTER, BETWEEN, BUFFER, DRAM = 1, 2, 6, 200
FILTERS_PER_PASS, CHANNELS_PER_PASS = 16, 4
UNIT_PJ = 2.2


@dataclass(frozen=True, slots=True)
class Eyeriss:
    """The chip."""

    what: str = (
        f"{ROWS} × {COLUMNS} processing elements of 16 bits at {CLOCK_HZ / 1e6:.0f} MHz, {LINK_BITS} bits of DRAM "
        f"traffic at {LINK_HZ / 1e6:.0f} MHz"
    )
    source: str = (
        "after Eyeriss: relative energies from Chen, Emer and Sze, ISCA 2016, size, clocks and power from Chen et al., "
        "JSSC 2017. The 64 bits of the DRAM link, the same reuse in all layers, and that fewer bits save energy are "
        "our assumptions"
    )

    def width(self, bits: int) -> int:
        """As many as they are: see the assumptions."""
        return min(bits, WIDEST)

    def compute_cycles(self, operator: Operator) -> int:
        """Cycles of the array without waiting for data."""
        if product(operator) is None:
            return 0
        columns = operator.in_size[0] if operator.kind == "deconv" else operator.out_size[0]
        return up(operator.macs, _in_use(operator.kernel, ROWS) * _in_use(columns, COLUMNS))

    def latency_ms(self, operator: Operator) -> float:
        """The longer of computing and DRAM traffic."""
        moving_s = traffic(operator, self.width).bits / (LINK_BITS * LINK_HZ)
        return max(self.compute_cycles(operator) / CLOCK_HZ, moving_s) * 1e3

    def on_chip_units(self, operator: Operator) -> float:
        """Energy without DRAM, in 16-bit MACs."""
        if product(operator) is None:
            return 0.0
        w, a = self.width(operator.weight_bits) / WIDEST, self.width(operator.in_bits) / WIDEST
        channels, filters = operator.in_channels // operator.groups, operator.out_channels // operator.groups
        inputs = traffic(operator, self.width).inputs / WIDEST * up(filters, FILTERS_PER_PASS)
        written = operator.out_channels * operator.out_size[0] * operator.out_size[1]
        sums = 2 * written * (up(channels, CHANNELS_PER_PASS) - 1)
        registers = REGISTER * (w + a + 2)  # partial sums are whole words
        return operator.macs * (w * a + registers) + (inputs + sums) * (BUFFER + BETWEEN)

    def energy_mj(self, operator: Operator) -> float:
        """On the chip, and DRAM with the buffer before it."""
        words = traffic(operator, self.width).bits / WIDEST
        return (self.on_chip_units(operator) + words * (DRAM + BUFFER)) * UNIT_PJ * 1e-9


def _in_use(wanted: int, there: int) -> float:
    """How many of a row or column of elements work: as many wholes as fit, or a part of one in each pass."""
    return there // wanted * wanted if wanted <= there else wanted / up(wanted, there)


EYERISS = Eyeriss()
