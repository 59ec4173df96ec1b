"""NAS-Bench-201 (Dong and Yang, ICLR 2020, arXiv 2001.00326): 15,625 cells, each repeated fifteen times.

A 3×3 convolution to 16 channels; three stages of five equal cells, on 16, 32 and 64 channels; before the second and the
third stage a residual block that halves the image (section 2.1, figure 1); batch normalisation, ReLU, pooling, and a
classifier.

| decision                                    | of                                                                 |
|---------------------------------------------|--------------------------------------------------------------------|
| ``0to1.op``, … ``2to3.op``                  | the operation between two nodes of every cell                      |
| ``s1.width``                                | channels of the tensors of stage 1, shares of 16                   |
| ``s1.act_bits``                             | their precision, that of all tensors that are added to each other  |
| ``s1.0to1.weight_bits``, ``.density``,      | the weights of that edge's convolution in all cells of stage 1;    |
| ``.rank``                                   | see `hwnas.spaces.blocks.cell`                                     |
| ``s2r.keep``                                | share of the channels inside the residual block before stage 2     |
| ``s2r.first.weight_bits``, …                | its layers: ``first``, ``second``, and ``shortcut``                |

Cells of a stage share their compression as they share their operations: they differ in their weights alone. Cells that
compute the same are one candidate, see `hwnas.spaces.blocks.cell_form`; the compression of an edge is that of the edge
of the canonical cell. Weights that cannot reach the output are no part of a network; the paper counts them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hwnas.spaces.blocks.cell import add_cell, edge_layers, edge_name
from hwnas.spaces.blocks.cell_form import (
    CONV1,
    CONV3,
    EDGES,
    NONE,
    OPERATIONS,
    SKIP,
    Cell,
    read_cell,
    representative,
    write_cell,
)  # fmt: skip
from hwnas.spaces.blocks.plain import Convolution, add_classifier, add_input, add_pool
from hwnas.spaces.blocks.reduction import add_reduction
from hwnas.spaces.blocks.shapes import Size, halved, shares
from hwnas.spaces.builder import Builder, Tensor
from hwnas.spaces.decision import Option
from hwnas.spaces.errors import InvalidFileError
from hwnas.spaces.operator import Operator
from hwnas.spaces.space import Space
from hwnas.spaces.value import compute

CHANNELS, CELLS = (16, 32, 64), 5
DECISIONS = tuple(f"{edge_name(edge)}.op" for edge in range(len(EDGES)))
REFERENCES: dict[str, Cell] = {
    "resnet": (CONV3, NONE, CONV3, SKIP, NONE, SKIP),
    "all_conv3x3": (CONV3,) * len(EDGES),
    "all_conv1x1": (CONV1,) * len(EDGES),
    "all_skip": (SKIP,) * len(EDGES),
}
"""Those that the authors' code (``xautodl``) has as ``ResNet_CODE``, ``AllConv3x3_CODE`` and so on."""


def nasbench201(
    make: Builder, *, name: str, spec: Mapping[str, Any], input_shape: tuple[int, int, int], num_classes: int
) -> Space:
    """The space for images of a shape; the paper's are 3×32×32."""
    operations = [make.choose(decision, OPERATIONS, ordinal=False) for decision in DECISIONS]
    options = tuple(make.options(o) for o in operations)
    make.alias(operations, compute(representative, options, *operations))
    x, size = add_input(make, input_shape[0], input_shape[1:]), input_shape[1:]
    for number, channels in enumerate(CHANNELS, 1):
        stage = f"s{number}"
        width = make.choose(f"{stage}.width", shares(channels, make.joint.keep))
        bits = make.choose(f"{stage}.act_bits", make.joint.act_bits)
        if number == 1:
            y = Tensor(width, bits, size)
            Convolution(activation="none", edge=True).add(make, "stem", x, y)
        else:
            y = Tensor(width, bits, halved(x.size, 2))
            add_reduction(make, f"{stage}r", x, y)
        x = y
        layers = edge_layers(make, stage, operations)
        for cell in range(1, CELLS + 1):
            add_cell(make, f"{stage}c{cell}", x, operations, layers)
    make.slot("last", normalise, x.channels, x.size, x.bits)
    add_classifier(make, add_pool(make, x), num_classes)
    return make.space(
        name=name, spec=spec, input_shape=input_shape, num_classes=num_classes, find=_find,
        published={title: write_cell(cell) for title, cell in REFERENCES.items()},
    )  # fmt: skip


def cell_string(space: Space, candidate: Mapping[str, Option]) -> str:
    """The cell of a candidate as the published data write it."""
    return write_cell(tuple(str({**space.fixed, **candidate}[decision]) for decision in DECISIONS))


def normalise(name: str, channels: int, size: Size, bits: int) -> tuple[Operator, ...]:
    """Batch normalisation and ReLU after the last cell."""
    return (
        Operator(
            "activate", channels, channels, size, size, in_bits=bits, out_bits=bits, activation="relu", affine="norm",
            name=name,
        ),
    )  # fmt: skip


def _find(space: Space, cell: Any) -> dict[str, Option]:
    """The options that make the cell of a string, in float32 and nothing removed.

    Raises:
        InvalidFileError: It is no string.
        InvalidSpaceError: As `read_cell`, or the decision that lacks an operation.
    """
    if not isinstance(cell, str):
        raise InvalidFileError(f"a cell is a string such as {write_cell(REFERENCES['all_conv3x3'])}")
    return space.completed(dict(zip(DECISIONS, read_cell(cell), strict=True)))
