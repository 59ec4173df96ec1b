"""Accelerators that are computed, not measured; their profiles say so.

They stand in for hardware that HAQ (Wang et al., CVPR 2019) searched for and few own. Their figures compare candidates
with each other; they are no promise for any chip.
"""

from __future__ import annotations

from hwnas.latency_tables.simulated.accelerator import Accelerator, execution
from hwnas.latency_tables.simulated.bit_serial import BISMO_CLOUD, BISMO_EDGE
from hwnas.latency_tables.simulated.eyeriss import EYERISS
from hwnas.latency_tables.simulated.spatial import BIT_FUSION

ACCELERATORS: dict[str, Accelerator] = {
    "simulated-bit-fusion": BIT_FUSION,
    "simulated-bit-serial-edge": BISMO_EDGE,
    "simulated-bit-serial-cloud": BISMO_CLOUD,
    "simulated-eyeriss": EYERISS,
}

__all__ = ["ACCELERATORS", "Accelerator", "execution"]
