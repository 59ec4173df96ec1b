"""The canonical form of rows: those of equal networks are equal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwnas.spaces.decision import Decision, Option
from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.slot import When
from hwnas.spaces.value import Value, fill, reads
from hwnas.spaces.value_table import combine

if TYPE_CHECKING:
    from hwnas.spaces.space import Rows

_Combinations = tuple[list[int], list[int], NDArray[np.int16]]


@dataclass(frozen=True, slots=True)
class Activity:
    """Says when a decision matters. Where it does not, its canonical option is the first one."""

    decision: str
    when: tuple[When, ...]


@dataclass(frozen=True, slots=True)
class Alias:
    """Says which combinations of decisions give the same network.

    Combinations of ``among`` that give equal ``network`` under equal other decisions are one network, and the first of
    them in option order is canonical.

    Attributes:
        among: Decision names.
        network: What tells networks apart; it may depend on other decisions, too.
    """

    among: tuple[str, ...]
    network: Value


@dataclass(frozen=True, slots=True)
class Series:
    """Blocks in a row, each of which may be skipped: which of them are makes no difference, only what the others are.

    Those that are skipped come last in canonical form.

    Attributes:
        blocks: The decisions of each block, in the same order, with the same options in all of them.
        skipped: The place of the decision that may skip the block, and the option that does.
    """

    blocks: tuple[tuple[str, ...], ...]
    skipped: tuple[int, Option]


class CanonicalForm:
    """Which decisions matter, and which rows say the same.

    Args:
        decisions: Of the columns.
        fixed: Values of those that are not decided.
        column: Of a decision by name; raises an error where there is none of that name.
        activities, aliases, series: Of decisions, also of those that are fixed.

    Attributes:
        conditions: All that must hold for a decision to matter, by column; nothing for those that always do.

    Raises:
        InvalidSpaceError: Blocks of a series have different options.
    """

    def __init__(
        self,
        decisions: Sequence[Decision],
        fixed: Mapping[str, Option],
        column: Callable[[str], int],
        activities: Sequence[Activity],
        aliases: Sequence[Alias],
        series: Sequence[Series],
    ) -> None:
        self._decisions = decisions
        self._fixed = fixed
        self._column = column
        self._activities = tuple(
            Activity(a.decision, tuple(w for w in a.when if w.decision not in fixed))
            for a in activities
            if a.decision not in fixed
        )
        self.conditions: dict[int, tuple[When, ...]] = {}
        for activity in self._activities:
            own = column(activity.decision)
            self.conditions[own] = self.conditions.get(own, ()) + activity.when
        combinations = tuple(filter(None, map(self._canonical_combinations, aliases)))
        conditional = {self._column(a.decision) for a in self._activities if a.when}
        leading = sum(1 for _ in takewhile(lambda alias: conditional.isdisjoint(alias[0]), combinations))
        # What matters under conditions is known once the decisions that always matter are in canonical form.
        self._first_aliases, self._aliases = combinations[:leading], combinations[leading:]
        self._series = tuple((self._columns_of(s), s.skipped) for s in series)
        self._allowed: dict[When, tuple[int, NDArray[np.bool_]]] = {}

    def of(self, rows: Rows) -> Rows:
        """A copy of rows (n, decisions) in canonical form."""
        rows = np.array(rows, dtype=np.int16, ndmin=2)
        self._rewrite(rows, self._first_aliases)
        self._reset_inactive(rows)
        self._rewrite(rows, self._aliases)
        self._reset_inactive(rows)
        for columns, (place, option) in self._series:
            self._close_ranks(rows, columns, self._decisions[columns[0, place]].index(option), place)
        return rows

    def holds(self, when: Sequence[When], rows: Rows) -> NDArray[np.bool_]:
        """Whether all conditions hold, for each row. Shape (n,)."""
        result = np.ones(len(rows), dtype=bool)
        for condition in when:
            if condition not in self._allowed:
                column = self._column(condition.decision)
                offered = self._decisions[column].options
                self._allowed[condition] = column, np.array([o in condition.values for o in offered])
            column, allowed = self._allowed[condition]
            result &= allowed[rows[:, column]]
        return result

    def active(self, rows: Rows) -> NDArray[np.bool_]:
        """Which decisions matter for each row. Shape (n, decisions)."""
        result = np.ones(rows.shape, dtype=bool)
        for when, columns in self._switches:
            result[:, columns] &= self.holds(when, rows)[:, None]
        return result

    # ---- internals ------------------------------------------------------------------------------------------------

    @cached_property
    def _switches(self) -> list[tuple[tuple[When, ...], NDArray[np.int64]]]:
        """The activities in their order; those in a row that are under the same conditions of others as one."""
        result: list[tuple[tuple[When, ...], list[int]]] = []
        changed: set[str] = set()
        for activity in self._activities:
            if not result or result[-1][0] != activity.when or any(w.decision in changed for w in activity.when):
                result.append((activity.when, []))
                changed.clear()
            result[-1][1].append(self._column(activity.decision))
            changed.add(activity.decision)
        return [(when, np.array(columns)) for when, columns in result]

    def _reset_inactive(self, rows: Rows) -> None:
        # In the order of the activities: a decision switched off may switch off others further down.
        for when, columns in self._switches:
            if len(off := np.flatnonzero(~self.holds(when, rows))):
                rows[off[:, None], columns] = 0

    @staticmethod
    def _rewrite(rows: Rows, aliases: Sequence[_Combinations]) -> None:
        for read, written, table in aliases:
            rows[:, written] = table[tuple(rows[:, c] for c in read)]

    def _canonical_combinations(self, alias: Alias) -> _Combinations | None:
        """The columns read and written, and for each combination of the former the canonical options of the latter."""
        network = fill(alias.network, self._fixed)
        among = [n for n in alias.among if n not in self._fixed]
        if not among:
            return None
        given = [n for n in reads(network) if n not in among]
        options = {n: self._decisions[self._column(n)].options for n in (*given, *among)}
        key, _ = combine((network,), tuple(options), options)
        sizes = [len(options[n]) for n in among]
        keys = key.reshape(-1, math.prod(sizes))
        table = np.stack(np.unravel_index(_firsts(keys), sizes), axis=-1).astype(np.int16)
        read = [self._column(n) for n in options]
        return read, read[len(given) :], table.reshape(*key.shape, len(among))

    def _columns_of(self, series: Series) -> NDArray[np.int64]:
        """Shape (blocks, decisions)."""
        columns = np.array([[self._column(n) for n in names] for names in series.blocks])
        for place, same in enumerate(columns.T):
            if len({self._decisions[c].options for c in same}) > 1:
                raise InvalidSpaceError(
                    f"blocks that are interchangeable need the same options, but {series.blocks[0][place]!r} and its "
                    "like differ"
                )
        return columns

    @staticmethod
    def _close_ranks(rows: Rows, columns: NDArray[np.int64], skipped: int, place: int) -> None:
        blocks = rows[:, columns]  # (n, blocks, decisions)
        order = np.argsort(blocks[:, :, place] == skipped, axis=1, kind="stable")
        rows[:, columns] = np.take_along_axis(blocks, order[:, :, None], axis=1)


def _firsts(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each number of a line occurs first in it, shape of ``keys``."""
    result = np.empty_like(keys)
    for own, line in zip(result, keys, strict=True):
        _, first, inverse = np.unique(line, return_index=True, return_inverse=True)
        own[:] = first[inverse]
    return result
