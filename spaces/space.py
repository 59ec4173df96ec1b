"""A space: decisions, slots, and the canonical encoding of candidates as rows of option indexes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hwnas.spaces.candidate import Candidate
from hwnas.spaces.decision import Decision, Option
from hwnas.spaces.errors import InvalidCandidateError, InvalidSpaceError, UnknownNameError
from hwnas.spaces.operator import Operator
from hwnas.spaces.slot import Slot, When, bind
from hwnas.spaces.value import Constant, Value, evaluate, fill, reads
from hwnas.spaces.value_table import combine
from hwnas.spaces.workload import Workload

if TYPE_CHECKING:
    from hwnas.spaces.network import Network

Rows = NDArray[np.int16]
"""Candidates as option indexes, shape (n, decisions)."""
MOST_REMEMBERED = 10_000
"""Choices of slots whose operators a space remembers."""
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


class Space:
    """A small factor graph of decisions and slots.

    Everything else follows from it: encoding, sampling, workloads, cost tables and built networks.

    Attributes:
        name: Name under which `load_space` finds it.
        spec: Plain data that `load_space` rebuilds this space from.
        decisions: What there is to choose, in the order of the columns of a row.
        fixed: Values of those given with a single option: nothing to choose, but slots read them all the same.
        slots: Positions in the network, in the order they run.
        input_shape: Channels, height, width of one image.
        num_classes: Outputs of the classifier.
        image_size: Height and width of the images that a network reads, where decisions change it.
        references: Published or hand-designed networks by name.
        find: Finds the options that make a network, which is given as files hold it, such as by a stage table. Raises
            `InvalidSpaceError` with what the space lacks, `InvalidFileError` or `UnknownNameError` where networks of
            this space are written otherwise. None where they are not written at all.
    """

    def __init__(
        self,
        *,
        name: str,
        spec: Mapping[str, Any],
        decisions: Sequence[Decision],
        slots: Sequence[Slot],
        input_shape: tuple[int, int, int],
        num_classes: int,
        activities: Sequence[Activity] = (),
        aliases: Sequence[Alias] = (),
        series: Sequence[Series] = (),
        image_size: Value | None = None,
        references: Mapping[str, Mapping[str, Option]] | None = None,
        find: Callable[[Space, Any], dict[str, Option]] | None = None,
    ) -> None:
        self.name = name
        self.spec = dict(spec)
        self.input_shape = input_shape
        self.num_classes = num_classes
        self.references = dict(references or {})
        self.find = find
        self.fixed = {d.name: d.options[0] for d in decisions if len(d.options) == 1}
        self.decisions = tuple(d for d in decisions if d.name not in self.fixed)
        self._column = {d.name: i for i, d in enumerate(self.decisions)}
        if len(self._column) + len(self.fixed) != len(decisions):
            raise InvalidSpaceError(f"space {name!r} has two decisions of the same name")
        bound = (bind(slot, self.fixed) for slot in slots)
        self.slots = tuple(slot for slot in bound if slot is not None)
        self._activities = tuple(
            Activity(a.decision, tuple(w for w in a.when if w.decision not in self.fixed))
            for a in activities
            if a.decision not in self.fixed
        )
        self._conditions: dict[int, tuple[When, ...]] = {}
        for activity in self._activities:
            column = self._column[activity.decision]
            self._conditions[column] = self._conditions.get(column, ()) + activity.when
        combinations = tuple(filter(None, map(self._canonical_combinations, aliases)))
        conditional = {self._column[a.decision] for a in self._activities if a.when}
        leading = sum(1 for _ in takewhile(lambda alias: conditional.isdisjoint(alias[0]), combinations))
        # What matters under conditions is known once the decisions that always matter are in canonical form.
        self._first_aliases, self._aliases = combinations[:leading], combinations[leading:]
        self._series = tuple((self._columns_of(s), s.skipped) for s in series)
        self._allowed: dict[When, tuple[int, NDArray[np.bool_]]] = {}
        self._lowered: dict[tuple[int, ...], tuple[Operator, ...]] = {}
        self.image_size = fill(image_size or Constant(input_shape[1:]), self.fixed)

    def __repr__(self) -> str:
        return f"Space({self.name!r}, {len(self.decisions)} decisions, 10^{self.log10_size:.1f} rows)"

    @cached_property
    def key(self) -> str:
        """The spec as JSON with sorted keys: what tells spaces apart in files."""
        return json.dumps(self.spec, sort_keys=True)

    # ---- encoding -------------------------------------------------------------------------------------------------

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Number of options of each decision, shape (decisions,)."""
        return np.array([len(d.options) for d in self.decisions])

    @property
    def log10_size(self) -> float:
        """Decimal logarithm of the number of rows; equal networks are counted as often as they can be written."""
        return float(np.log10(self.sizes).sum())

    @cached_property
    def options(self) -> dict[str, tuple[Option, ...]]:
        """The options of each decision by name, the single ones of those that are fixed, too."""
        return {d.name: d.options for d in self.decisions} | {name: (option,) for name, option in self.fixed.items()}

    def completed(self, chosen: Mapping[str, Option]) -> dict[str, Option]:
        """The options of all decisions: those chosen, and of the others the last, in float32 and nothing removed.

        Raises:
            InvalidSpaceError: A decision does not offer what was chosen; says what it offers.
        """
        for name, option in chosen.items():
            if option not in self.options[name]:
                offered = ", ".join(map(str, self.options[name]))
                raise InvalidSpaceError(f"space {self.name!r} lacks it: {name} offers {offered}, not {option}")
        return {d.name: chosen.get(d.name, d.options[-1]) for d in self.decisions}

    def column(self, decision: str) -> int:
        """The column of a decision; raises `UnknownNameError` with the nearest valid name."""
        if decision not in self._column:
            raise UnknownNameError(f"decision of space {self.name!r}:", decision, self._column)
        return self._column[decision]

    def sample(self, rng: np.random.Generator, n: int) -> Rows:
        """``n`` candidates, each decision drawn uniformly, in canonical form. Shape (n, decisions)."""
        return self.canonical(rng.integers(0, self.sizes, size=(n, len(self.decisions))).astype(np.int16))

    def canonical(self, rows: Rows) -> Rows:
        """A copy of ``rows`` (n, decisions) in which rows of equal networks are equal."""
        rows = np.array(rows, dtype=np.int16, ndmin=2)
        self._rewrite(rows, self._first_aliases)
        self._reset_inactive(rows)
        self._rewrite(rows, self._aliases)
        self._reset_inactive(rows)
        for columns, (place, option) in self._series:
            self._close_ranks(rows, columns, self.decisions[columns[0, place]].index(option), place)
        return rows

    def computed(self, rows: Rows) -> Rows:
        """Rows (n, decisions) of the networks that these compute: equal rows are equally accurate.

        Canonical rows themselves, but where networks that compute the same are told apart by how they are written.
        """
        return rows

    def holds(self, when: Sequence[When], rows: Rows) -> NDArray[np.bool_]:
        """Whether all conditions hold, for each row. Shape (n,)."""
        result = np.ones(len(rows), dtype=bool)
        for condition in when:
            if condition not in self._allowed:
                column = self.column(condition.decision)
                offered = self.decisions[column].options
                self._allowed[condition] = column, np.array([o in condition.values for o in offered])
            column, allowed = self._allowed[condition]
            result &= allowed[rows[:, column]]
        return result

    def conditions(self, column: int) -> tuple[When, ...]:
        """All that must hold for the decision of a column to matter."""
        return self._conditions.get(column, ())

    def active(self, rows: Rows) -> NDArray[np.bool_]:
        """Which decisions matter for each row. Shape (n, decisions)."""
        result = np.ones(rows.shape, dtype=bool)
        for when, columns in self._switches:
            result[:, columns] &= self.holds(when, rows)[:, None]
        return result

    def decode(self, row: NDArray[np.integer[Any]]) -> Candidate:
        """The candidate of one row (decisions,), in canonical form."""
        canonical = self.canonical(np.asarray(row, dtype=np.int16)[None])[0]
        return Candidate({d.name: d.options[i] for d, i in zip(self.decisions, canonical, strict=True)})

    def encode(self, candidate: Mapping[str, Option]) -> NDArray[np.int16]:
        """The row of a candidate, shape (decisions,), in canonical form. Validates the candidate."""
        row: Rows = self.encode_all([candidate])[0]
        return row

    def encode_all(self, candidates: Sequence[Mapping[str, Option]]) -> Rows:
        """The rows of candidates, shape (n, decisions), as `encode` gives them."""
        for candidate in candidates:
            self._check_names(candidate)
        rows = [[d.index(candidate[d.name]) for d in self.decisions] for candidate in candidates]
        return self.canonical(np.array(rows, dtype=np.int16).reshape(len(rows), len(self.decisions)))

    def validate(self, candidate: Mapping[str, Option]) -> None:
        """Raises `InvalidCandidateError` or `UnknownNameError` unless ``candidate`` belongs to this space."""
        self.encode(candidate)

    # ---- networks -------------------------------------------------------------------------------------------------

    def workload(self, candidate: Mapping[str, Option]) -> Workload:
        """The operators of a candidate: those of every slot, concatenated and wired."""
        return self.workload_of_row(self.encode(candidate))

    def workload_of_row(self, row: NDArray[np.integer[Any]]) -> Workload:
        """As `workload`, from a row in canonical form."""
        return Workload.wire(self.operators(np.asarray(row, dtype=np.int16)[None])[0])

    def operators(self, rows: Rows) -> list[list[Operator]]:
        """The operators of rows (n, decisions) in canonical form, as slots give them: not wired yet."""
        result: list[list[Operator]] = [[] for _ in rows]
        there: dict[tuple[When, ...], list[int]] = {}
        given = rows.tolist()
        for number, slot in enumerate(self.slots):
            if slot.when not in there:
                there[slot.when] = np.flatnonzero(self.holds(slot.when, rows)).tolist()
            columns = self._columns_read[number]
            for i in there[slot.when]:
                result[i] += self._operators(number, columns, [given[i][c] for c in columns])
        return result

    def build(self, candidate: Mapping[str, Option]) -> Network:
        """A torch module of exactly the workload's operators, freshly initialised."""
        from hwnas.spaces.network import Network

        return Network(self.workload(candidate), self.input_shape_of(candidate))

    def input_shape_of(self, candidate: Mapping[str, Option]) -> tuple[int, int, int]:
        """Channels, height, width of the images that a candidate reads."""
        height, width = evaluate(self.image_size, candidate)
        return (self.input_shape[0], height, width)

    def image_size_of(self, row: NDArray[np.integer[Any]]) -> tuple[int, int]:
        """Height and width of the images that the candidate of a row (decisions,) reads."""
        options = {n: self.decisions[c].options[row[c]] for n in reads(self.image_size) for c in [self.column(n)]}
        height, width = evaluate(self.image_size, options)
        return height, width

    def reference(self, name: str | None = None) -> Candidate:
        """A published or hand-designed network of this space; the first one when no name is given."""
        name = name or next(iter(self.references), "")
        if name not in self.references:
            raise UnknownNameError(f"reference network of space {self.name!r}:", name, self.references)
        return self.decode(self.encode(self.references[name]))

    # ---- internals ------------------------------------------------------------------------------------------------

    @cached_property
    def _columns_read(self) -> list[list[int]]:
        """Of each slot."""
        return [[self.column(name) for name in slot.reads] for slot in self.slots]

    def _operators(self, number: int, columns: Sequence[int], chosen: Sequence[int]) -> tuple[Operator, ...]:
        """Of one slot, under a choice of the decisions that it reads; remembered, as networks share most of theirs."""
        key = (number, *chosen)
        if key not in self._lowered:
            if len(self._lowered) >= MOST_REMEMBERED:
                self._lowered.clear()
            decisions = zip((self.decisions[c] for c in columns), chosen, strict=True)
            self._lowered[key] = self.slots[number].operators({d.name: d.options[i] for d, i in decisions})
        return self._lowered[key]

    def _check_names(self, candidate: Mapping[str, Option]) -> None:
        for name, value in candidate.items():
            if name not in self.fixed:
                self.column(name)
            elif value != self.fixed[name]:
                raise InvalidCandidateError(f"{name} is fixed at {self.fixed[name]!r} in this space, not {value!r}")
        if missing := [d.name for d in self.decisions if d.name not in candidate]:
            raise InvalidCandidateError(f"the candidate does not decide {missing[0]!r} ({len(missing)} missing in all)")

    @cached_property
    def _switches(self) -> list[tuple[tuple[When, ...], NDArray[np.int64]]]:
        """The activities in their order; those in a row that are under the same conditions of others as one."""
        result: list[tuple[tuple[When, ...], list[int]]] = []
        changed: set[str] = set()
        for activity in self._activities:
            if not result or result[-1][0] != activity.when or any(w.decision in changed for w in activity.when):
                result.append((activity.when, []))
                changed.clear()
            result[-1][1].append(self._column[activity.decision])
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
        network = fill(alias.network, self.fixed)
        among = [n for n in alias.among if n not in self.fixed]
        if not among:
            return None
        given = [n for n in reads(network) if n not in among]
        options = {n: self.decisions[self.column(n)].options for n in (*given, *among)}
        key, _ = combine((network,), tuple(options), options)
        sizes = [len(options[n]) for n in among]
        keys = key.reshape(-1, math.prod(sizes))
        table = np.stack(np.unravel_index(_firsts(keys), sizes), axis=-1).astype(np.int16)
        read = [self._column[n] for n in options]
        return read, read[len(given) :], table.reshape(*key.shape, len(among))

    def _columns_of(self, series: Series) -> NDArray[np.int64]:
        """Shape (blocks, decisions)."""
        columns = np.array([[self.column(n) for n in names] for names in series.blocks])
        for place, same in enumerate(columns.T):
            if len({self.decisions[c].options for c in same}) > 1:
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
