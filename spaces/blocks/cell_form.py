"""Cells of NAS-Bench-201 (Dong and Yang, ICLR 2020, arXiv 2001.00326): how they are written, and which are the same.

A cell has nodes 0 to 3, node 0 being its input and node 3 its output. Six edges each carry one of five operations; a
node is the sum of what its edges bring. Cells are the same where they compute the same by the same operators:

- what is zero brings nothing, and what reaches no output is left out;
- a node that skips is its source;
- sums have no order, in one node or across two;
- pooling a tensor twice gives one tensor, while two convolutions of one tensor have weights of their own.

Operators are not moved: a pooled sum and the sum of what is pooled are two cells, though their values are equal.

Of 15,625 cells 5,260 differ. The paper counts 6,466, by strings (`published_string`). These write 1,640 cells more than
once, as they tell ``x`` from ``x + 0`` and order the terms of a sum within a node alone; and they take 434 cells for
others, as they write a convolution that two operations read as if each had one of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from itertools import product

from hwnas.spaces.errors import InvalidSpaceError

NONE, SKIP, POOL, CONV1, CONV3 = OPERATIONS = ("none", "skip_connect", "avg_pool_3x3", "nor_conv_1x1", "nor_conv_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""Source and target, in the order in which cells are written and run."""
OUTPUT = 3

Cell = tuple[str, ...]
"""The operation of each edge."""
Term = tuple[object, ...]
"""An operation and the sorted terms that it reads, or a tensor's name alone."""
Form = tuple[Term, tuple[Term, ...]]
"""What node 1 is where it is a convolution read twice, and the sorted terms of the output."""
INPUT: tuple[Term, ...] = (("input",),)


def read_cell(text: str) -> Cell:
    """The cell of a string such as ``|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|``.

    Raises:
        InvalidSpaceError: What is no such string, with the first thing that is wrong.
    """
    nodes = [re.findall(r"([^|~+]+)~(\d+)", node) for node in text.split("+")]
    cell = tuple(operation for node in nodes for operation, _ in node)
    for operation in cell:
        if operation not in OPERATIONS:
            raise InvalidSpaceError(f"cells have no operation {operation!r}; there are {', '.join(OPERATIONS)}")
    if len(cell) != len(EDGES) or write_cell(cell) != text:
        raise InvalidSpaceError(f"a cell is written as {write_cell((CONV3,) * len(EDGES))}, not as {text!r}")
    return cell


def write_cell(cell: Cell) -> str:
    """The string of a cell, as the published data have it."""
    nodes = [
        "".join(
            f"|{operation}~{source}" for operation, (source, target) in zip(cell, EDGES, strict=True) if target == n
        )
        for n in range(1, OUTPUT + 1)
    ]
    return "+".join(f"{node}|" for node in nodes)


def published_string(cell: Cell) -> str:
    """The string by which the paper tells cells apart: 6,466 of them.

    As ``to_unique_str`` of the authors' code with zeros considered: ``#`` is zero, and stays in sums.
    """
    nodes = {0: "0"}
    for target in range(1, OUTPUT + 1):
        terms = []
        for operation, (source, other) in zip(cell, EDGES, strict=True):
            if other != target:
                continue
            if operation == NONE or nodes[source] == "#":
                terms.append("#")
            else:
                terms.append(nodes[source] if operation == SKIP else f"({nodes[source]})@{operation}")
        nodes[target] = "+".join(sorted(terms))
    return nodes[OUTPUT]


def form(cell: Cell) -> Form:
    """What a cell computes: equal for cells that are the same.

    Only node 1 can be read by two nodes; where it is a convolution, it is kept apart under a name. All else is written
    out as a tree, in which equal terms are equal tensors, or convolutions with weights of their own.
    """
    to_first, to_second, first_to_second, to_output, first_to_output, second_to_output = cell
    first = _read(to_first, INPUT)
    twice = first_to_output != NONE and NONE not in (first_to_second, second_to_output)
    shared: Term = ()
    if twice and to_first in (CONV1, CONV3):
        (shared,), first = first, (("node 1",),)
    second = _read(to_second, INPUT) + _read(first_to_second, first)
    output = _read(to_output, INPUT) + _read(first_to_output, first) + _read(second_to_output, second)
    return shared, tuple(sorted(output, key=repr))


def _read(operation: str, terms: tuple[Term, ...]) -> tuple[Term, ...]:
    """The terms that an edge brings of a node's terms."""
    if operation == NONE or not terms:
        return ()
    return terms if operation == SKIP else ((operation, *sorted(terms, key=repr)),)


def representative(options: tuple[tuple[str, ...], ...], *cell: str) -> Cell:
    """The first of the cells that are the same as this one, by the order of each edge's options."""
    return _representatives(options)[cell]


@cache
def _representatives(options: Sequence[Sequence[str]]) -> dict[Cell, Cell]:
    first: dict[Form, Cell] = {}
    return {cell: first.setdefault(form(cell), cell) for cell in product(*options)}
