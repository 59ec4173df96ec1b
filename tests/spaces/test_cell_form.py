"""Which cells are the same, against what they compute with weights put in."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from hwnas.spaces.blocks.cell_form import (
    CONV1,
    CONV3,
    EDGES,
    NONE,
    OPERATIONS,
    POOL,
    SKIP,
    Cell,
    form,
    published_string,
    read_cell,
    representative,
    write_cell,
)  # fmt: skip
from hwnas.spaces.errors import InvalidSpaceError

CELLS = list(product(OPERATIONS, repeat=len(EDGES)))
WEIGHTS = np.array(list(permutations([0.31, 0.47, 0.83, 1.09, 1.27, 1.71])))
"""Of the edges' convolutions, in every order, shape (720, 6): a mean over orders does not depend on which has which."""


def computed(cell: Cell) -> float:
    """A number that is that of a cell with the same operators, whichever edges these are on."""
    nodes = [np.full(len(WEIGHTS), 0.7)]
    for target in range(1, 4):
        total = np.zeros(len(WEIGHTS))
        for edge, (source, other) in enumerate(EDGES):
            x = nodes[source] if source < len(nodes) else total
            if other != target or not x.any():
                continue
            if cell[edge] == SKIP:
                total = total + x
            elif cell[edge] == POOL:
                total = total + np.sin(1.3 * x + 0.2)
            elif cell[edge] in (CONV1, CONV3):
                total = total + np.cos(WEIGHTS[:, edge] * x + (0.4 if cell[edge] == CONV1 else 0.9))
        nodes.append(total)
    return round(float((nodes[3] ** 2 + np.sin(nodes[3])).mean()), 9)


def test_cells_have_the_same_form_exactly_where_they_compute_the_same() -> None:
    cells = [CELLS[i] for i in np.random.default_rng(0).choice(len(CELLS), 2000, replace=False)]
    forms, values = {c: form(c) for c in cells}, {c: computed(c) for c in cells}
    pairs = {(forms[c], values[c]) for c in cells}
    assert len(pairs) == len(set(forms.values())) == len(set(values.values())) < 1500


def test_how_many_cells_there_are() -> None:
    """The paper counts 6,466: 1,640 strings more for cells that are the same, and 434 fewer for others."""
    strings, forms = {published_string(c) for c in CELLS}, {form(c) for c in CELLS}
    assert (len(CELLS), len(strings), len(forms)) == (15_625, 6466, 5260)
    both = len({(published_string(c), form(c)) for c in CELLS})
    assert (both - len(forms), both - len(strings)) == (1640, 434)


def cell_of(initials: str) -> Cell:
    """From the initials of its edges' operations: none, skip, pool, 1×1, 3×3."""
    letters = dict(zip("nsp13", OPERATIONS, strict=True))
    return tuple(letters[i] for i in initials)


@pytest.mark.parametrize(
    ("one", "other", "same", "same_string"),
    [
        ("3nnnnn", "nnnnnn", True, True),  # nothing reaches the output
        ("3nn1s3", "3nn1sn", True, False),  # node 2 is zero plus zero
        ("n3nnn1", "3nnn1n", True, False),  # a row of two, by way of node 2 or of node 1
        ("nnn3nn", "n3nnns", True, False),  # a convolution, and that convolution plus zero
        ("sssp1s", "ssps1s", True, False),  # pool + 1×1 + 2 · input, whose terms come by different nodes
        ("3nsn11", "33nn11", False, True),  # two 1×1 read one 3×3, or one each
        ("33nn13", "33nn31", True, False),  # node 1 and node 2 change places
        ("pnsn11", "ppnn11", True, True),  # the same with pooling, which has no weights
        ("3sssnn", "nnn3nn", False, False),
    ],
)
def test_examples(one: str, other: str, same: bool, same_string: bool) -> None:
    first, second = cell_of(one), cell_of(other)
    assert (form(first) == form(second)) == same
    assert (published_string(first) == published_string(second)) == same_string


def test_what_is_left_out_changes_nothing() -> None:
    options = (OPERATIONS,) * len(EDGES)
    for cell in CELLS[::37]:
        canonical = representative(options, *cell)
        assert representative(options, *canonical) == canonical
        assert computed(canonical) == computed(cell)
        for edge, operation in enumerate(canonical):
            if operation != NONE:
                without = (*canonical[:edge], NONE, *canonical[edge + 1 :])
                assert form(without) != form(canonical), "an edge of a canonical cell matters"


def test_strings_of_cells() -> None:
    text = "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|avg_pool_3x3~1|none~2|"
    assert read_cell(text) == (CONV3, NONE, CONV1, SKIP, POOL, NONE)
    assert all(read_cell(write_cell(cell)) == cell for cell in CELLS[::13])
    for bad, message in (
        ("|nor_conv_5x5~0|+|none~0|none~1|+|none~0|none~1|none~2|", "no operation 'nor_conv_5x5'; there are none, "),
        ("|none~0|+|none~0|none~1|", r"a cell is written as \|nor_conv_3x3~0\|\+"),
        ("|none~0|+|none~1|none~0|+|none~0|none~1|none~2|", "not as"),
        ("", "a cell is written as"),
    ):
        with pytest.raises(InvalidSpaceError, match=message):
            read_cell(bad)
