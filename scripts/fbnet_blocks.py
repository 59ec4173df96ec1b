"""The blocks of FBNet's space as tables of measured networks number them, and their operators.

Such a table has 22 indexes for a network, as HELP's (Lee et al., NeurIPS 2021) and HW-NAS-Bench's (Li et al., ICLR
2021) do. Their networks differ from those of hwnas's `fbnet` in three ways that the tables themselves show:

- An option that skips is also at the six layers that change their tensor's shape: there it is taken for a 1×1
  convolution of the layer's stride.
- Images have 32 pixels a side, and 16 are left after the second stage (costs per position of equal work say so), so
  `fbnet` is loaded for 128 pixels, where all layers but the first have these sizes.
- Blocks of expansion 1 have their first 1×1 convolution, too: on GPUs, where every call costs the same, they cost what
  the others do. They are lowered without it here; that an option may be dearer everywhere is for the table to find.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hwnas.scripts.architecture_tables import Operators
from hwnas.spaces.catalog import load_space
from hwnas.spaces.errors import InvalidFileError
from hwnas.spaces.operator import Operator
from hwnas.spaces.space import Space

OPTIONS = ("k3_e1", "k3_e1_g2", "k3_e3", "k3_e6", "k5_e1", "k5_e1_g2", "k5_e3", "k5_e6", "skip")
LAYERS = 22


def fbnet_blocks() -> list[list[tuple[Operator, ...]]]:
    """The operators of each option at each layer, the layers in order."""
    space = load_space("fbnet", input_shape=(3, 128, 128), num_classes=100, joint=())
    layers = [d.name.removesuffix(".block") for d in space.decisions if d.name.endswith(".block")]
    return [[_operators(space, layer, option) for option in OPTIONS] for layer in layers]


def _operators(space: Space, layer: str, option: str) -> tuple[Operator, ...]:
    name = f"{layer}.block"
    if option not in space.decisions[space.column(name)].options:
        return (_shortcut(_operators(space, layer, OPTIONS[0])),)
    slots = [s for s in space.slots if s.group == layer and all(option in w.values for w in s.when)]
    return tuple(o for slot in slots for o in slot.operators({name: option}))


def _shortcut(block: tuple[Operator, ...]) -> Operator:
    first, last = block[0], block[-1]
    return replace(first, out_channels=last.out_channels, out_size=last.out_size, kernel=1, groups=1, activation="none")


def choices(written: Operators) -> NDArray[np.int64]:
    """Indexes into `OPTIONS` as a table writes them, shape (n, 22).

    Raises:
        InvalidFileError: They are no such networks.
    """
    known = [str(index) for index in range(len(OPTIONS))]
    if written.shape[1] != LAYERS or not np.isin(written, known).all():
        raise InvalidFileError(
            f"'arch' must hold {LAYERS} comma-separated indexes from 0 to {len(OPTIONS) - 1}, "
            f"got {','.join(written[0])!r}"
        )
    return written.astype(np.int64)
