"""An accelerator with Eyeriss's energy model (Chen et al., ISCA 2016): energy is counted in accesses to memories.

Relative to a 16-bit multiply–accumulate, an access of a word costs 1 in a processing element's register file, 2 between
elements, 6 in the global buffer, and 200 in DRAM (ISCA 2016, table IV). Per MAC, the register file is accessed four
times (weight, input, partial sum read and written). Row-stationary reuse is taken as: an input leaves the buffer once
for every 16 filters, a partial sum goes there and back once for every 4 input channels, and each such access passes one
hop between elements. DRAM moves each tensor once.

The absolute unit is set by the chip: the five convolutions of AlexNet take 278 mW at 34.7 images a second (JSSC 2017),
8.0 mJ each without DRAM. Time is MACs over the elements in use, whole filter rows in 12 × 14, or DRAM traffic.

Deviations: values of b bits cost b/16 of an access, and products of w and a bits w·a/16² of a MAC, as if the chip
packed them; values of more than 16 bits count as 16; zeros are not skipped; layers without weights are traffic alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from hwnas.latency_tables.simulated.accelerator import product, traffic, up
from hwnas.spaces.operator import Operator

WORD = 16
ROWS, COLUMNS = 12, 14
CLOCK_HZ = 200e6
DRAM_BITS_PER_CYCLE = 64
REGISTER, BETWEEN, BUFFER, DRAM = 1, 2, 6, 200
REGISTER_ACCESSES = 4
FILTERS_PER_PASS, CHANNELS_PER_PASS = 16, 4
UNIT_PJ = 2.2


@dataclass(frozen=True, slots=True)
class Eyeriss:
    """The chip."""

    what: str = "12 × 14 processing elements of 16 bits at 200 MHz, 108 kB of buffer, 64 bits of DRAM traffic a cycle"
    source: str = (
        "Chen, Emer and Sze, ISCA 2016 (relative energies, row-stationary reuse) and Chen et al., JSSC 2017 (size, "
        "clock, power). 64 bits a cycle of DRAM traffic are our assumption"
    )

    def compute_cycles(self, operator: Operator) -> int:
        """Cycles of the array without waiting for data."""
        p = product(operator)
        if p is None:
            return 0
        rows = ROWS // operator.kernel * operator.kernel if operator.kernel <= ROWS else ROWS
        columns = COLUMNS if operator.out_size[0] >= COLUMNS or p.filters > 1 else operator.out_size[0]
        return up(operator.macs, rows * columns)

    def latency_ms(self, operator: Operator) -> float:
        """The longer of computing and DRAM traffic."""
        moving = up(traffic(operator, WORD).bits, DRAM_BITS_PER_CYCLE)
        return max(self.compute_cycles(operator), moving) / CLOCK_HZ * 1e3

    def on_chip_units(self, operator: Operator) -> float:
        """Energy without DRAM, in 16-bit MACs."""
        p = product(operator)
        if p is None:
            return 0.0
        w, a = min(operator.weight_bits, WORD) / WORD, min(operator.in_bits, WORD) / WORD
        moved = traffic(operator, WORD)
        channels = operator.in_channels // operator.groups
        inputs = moved.inputs / WORD * up(p.filters, FILTERS_PER_PASS)
        sums = 2 * operator.out_channels * p.positions * (up(channels, CHANNELS_PER_PASS) - 1)
        registers = REGISTER * (w + a + 2)  # partial sums are whole words
        return operator.macs * (w * a + registers) + (inputs + sums) * (BUFFER + BETWEEN)

    def energy_mj(self, operator: Operator) -> float:
        """On the chip, and DRAM."""
        units = self.on_chip_units(operator) + traffic(operator, WORD).bits / WORD * (DRAM + BUFFER)
        return units * UNIT_PJ * 1e-9


EYERISS = Eyeriss()
