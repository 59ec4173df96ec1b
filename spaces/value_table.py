"""Values under every combination of options, as arrays: each function is called once for each different argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.spaces.value import Choice, Constant, Value, reads

Indexes = NDArray[np.int64]
Options = tuple[Any, ...]
"""All values that a name may take: of a decision its options."""
MANY = 2**22
"""Combinations of values that are numbered by a table; more are sorted."""


@dataclass(frozen=True, slots=True)
class ValueTable:
    """A value under every combination of options.

    Attributes:
        reads: The decisions that it depends on.
        which: Index into ``values`` for each combination, one axis per decision read.
        values: All different ones.
    """

    reads: tuple[str, ...]
    which: Indexes
    values: Sequence[Any]


def tabulate(v: Value, options: Mapping[str, Options]) -> ValueTable:
    """The value's table, given the options of the decisions that it reads."""
    if isinstance(v, Constant):
        return ValueTable((), np.zeros((), dtype=np.int64), (v.value,))
    if isinstance(v, Choice):
        return ValueTable((v.decision,), np.arange(len(options[v.decision])), options[v.decision])
    names = reads(v)
    combinations, arguments = combine(v.arguments, names, options)
    number: dict[tuple[type, Any], int] = {}
    results = [v.of(*values) for values in arguments]
    kinds = np.array([number.setdefault((type(r), r), len(number)) for r in results])
    return ValueTable(names, kinds[combinations], [r for _, r in number])


def combine(
    values: Sequence[Value], names: tuple[str, ...], options: Mapping[str, Options]
) -> tuple[Indexes, list[tuple[Any, ...]]]:
    """All different combinations of the values, and which of them each combination of options gives.

    Args:
        values: They read ``names`` at most.
        names: Decisions.
        options: Of each decision.

    Returns:
        Indexes into the second result, one axis per name; and a tuple of what the values are for each of them.
    """
    shape = tuple(len(options[name]) for name in names)
    tables = [tabulate(v, options) for v in values]
    key, size = np.zeros(shape, dtype=np.int64), 1
    for table in tables:
        if size * len(table.values) > MANY:
            key, first = _renumber(key, size)
            size = len(first)
        axes = [names.index(name) for name in table.reads]
        spread = table.which.transpose(np.argsort(axes)) if axes else table.which
        key = key * len(table.values) + spread.reshape([n if i in axes else 1 for i, n in enumerate(shape)])
        size *= len(table.values)
    key, first = _renumber(key, size)
    where = dict(zip(names, np.unravel_index(first, shape), strict=True)) if shape else {}
    columns = []
    for table in tables:
        at = table.which[tuple(where[name] for name in table.reads)]
        columns.append([table.values[i] for i in np.broadcast_to(at, first.shape)])
    return key, list(zip(*columns, strict=True)) if columns else [()]


def _renumber(key: Indexes, size: int) -> tuple[Indexes, Indexes]:
    """Numbers from 0 without gaps for those that occur, all below ``size``; and where each occurs first."""
    if size > MANY:
        _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
        return inverse.reshape(key.shape), first
    first = np.full(size, -1, dtype=np.int64)
    first[key.ravel()[::-1]] = np.arange(key.size)[::-1]
    number = np.cumsum(first >= 0) - 1
    return number[key], first[first >= 0]
