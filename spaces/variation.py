"""Moves within a space: extremes, coherent draws, mutation, crossover. All return rows in canonical form."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from hwnas.spaces.space import Rows, Space

COHERENCE = (0.6, 0.85, 1.0)
"""Shares of the places of a kind of decision that follow the network's preferred option, equally likely."""
PREFERENCE = 0.7
"""Probability that a network has a preferred option for a kind of decision."""


def decision_kinds(space: Space) -> dict[str, list[int]]:
    """Columns of the decisions that differ only in place, by the last part of their names, such as ``kernel``."""
    kinds: dict[str, list[int]] = {}
    for column, decision in enumerate(space.decisions):
        kinds.setdefault(decision.name.rpartition(".")[2], []).append(column)
    return kinds


@lru_cache(maxsize=16)
def extremes(space: Space) -> Rows:
    """The largest network and the smallest, in canonical form. Shape (2, decisions).

    Ordinal decisions have their last and their first option. Those of mere categories, such as a block's kind, have the
    option of most and of fewest multiply–accumulates, decision after decision; of equals the last and the first.
    """
    largest = (space.sizes - 1).astype(np.int16)
    smallest = np.zeros_like(largest)
    for column, decision in enumerate(space.decisions):
        if not decision.ordinal:
            macs = [_macs(space, largest, column, option) for option in range(len(decision.options))]
            largest[column] = max(range(len(macs)), key=lambda option: (macs[option], option))
            macs = [_macs(space, smallest, column, option) for option in range(len(macs))]
            smallest[column] = min(range(len(macs)), key=macs.__getitem__)
    return space.canonical(np.stack([largest, smallest]))


def _macs(space: Space, row: Rows, column: int, option: int) -> int:
    changed = row.copy()
    changed[column] = option
    return space.workload_of_row(space.canonical(changed[None])[0]).macs


def sample_coherent(space: Space, rng: np.random.Generator, n: int) -> Rows:
    """``n`` networks that mostly repeat one option for each kind of decision. Shape (n, decisions).

    Uniform draws mix every precision, width and kernel within one network; what people build, and what a search ends
    with, repeats a few of them throughout.
    """
    rows = space.sample(rng, n)
    for columns in decision_kinds(space).values():
        preferred = rng.random((n, 1))
        coherence = rng.choice(COHERENCE, size=(n, 1))
        follows = (rng.random((n, len(columns))) < coherence) & (rng.random((n, 1)) < PREFERENCE)
        options = (preferred * space.sizes[columns]).astype(np.int16)
        rows[:, columns] = np.where(follows, options, rows[:, columns])
    return space.canonical(rows)


def mutate(space: Space, rng: np.random.Generator, rows: Rows, most: int = 3) -> Rows:
    """A mutant of each row (n, decisions) in canonical form.

    Half of them change one to ``most`` active decisions at random; the other half set all decisions of one kind, such
    as every layer's weight bits, to the same relative option, a move that single changes would need many steps for.
    """
    keys = np.where(space.active(rows), rng.random(rows.shape), -1.0)
    changed = np.minimum(rng.integers(1, most + 1, size=(len(rows), 1)), rows.shape[1])
    last = min(most, rows.shape[1]) - 1
    highest = -np.sort(np.partition(-keys, last, axis=1)[:, : last + 1], axis=1)
    chosen = (keys >= np.take_along_axis(highest, changed - 1, axis=1)) & (keys >= 0)
    steps = 1 + (rng.random(rows.shape) * (space.sizes - 1)).astype(np.int16)
    single = np.where(chosen, (rows + steps) % space.sizes, rows)

    kinds = list(decision_kinds(space).values())
    kind_of = np.empty(rows.shape[1], dtype=np.int64)
    for number, columns in enumerate(kinds):
        kind_of[columns] = number
    same = kind_of == rng.integers(len(kinds), size=(len(rows), 1))
    alike = np.where(same, (rng.random((len(rows), 1)) * space.sizes).astype(np.int16), rows)
    return space.canonical(np.where(rng.random((len(rows), 1)) < 0.5, single, alike).astype(np.int16))


def crossover(space: Space, rng: np.random.Generator, first: Rows, second: Rows) -> Rows:
    """A child of each pair of rows (n, decisions): every decision from either parent with equal chance."""
    return space.canonical(np.where(rng.random(first.shape) < 0.5, first, second))
