"""A space: decisions, slots, and the canonical encoding of candidates as rows of option indexes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hwnas.spaces.candidate import Candidate
from hwnas.spaces.decision import Decision, Option
from hwnas.spaces.errors import InvalidCandidateError, InvalidSpaceError, UnknownNameError
from hwnas.spaces.operator import Operator
from hwnas.spaces.slot import Slot, When, bind
from hwnas.spaces.workload import Workload

if TYPE_CHECKING:
    from hwnas.spaces.network import Network

Rows = NDArray[np.int16]
"""Candidates as option indexes, shape (n, decisions)."""


@dataclass(frozen=True, slots=True)
class Activity:
    """Says when a decision matters. Where it does not, its canonical option is the first one."""

    decision: str
    when: tuple[When, ...]


@dataclass(frozen=True, slots=True)
class Alias:
    """Says which combinations of decisions give the same network.

    Combinations of ``among`` that share a key under equal ``given`` are one network, and the first of them in option
    order is canonical.

    Attributes:
        given, among: Decision names.
        keys: The network's identity for each combination: integer array over the options of ``given`` then ``among``.
    """

    given: tuple[str, ...]
    among: tuple[str, ...]
    keys: NDArray[np.int64]


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
        references: Published or hand-designed networks by name.
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
        references: Mapping[str, Mapping[str, Option]] | None = None,
    ) -> None:
        self.name = name
        self.spec = dict(spec)
        self.input_shape = input_shape
        self.num_classes = num_classes
        self.references = dict(references or {})
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
        self._aliases = tuple((a, self._canonical_combinations(a)) for a in map(self._free, aliases) if a.among)

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
        self._reset_inactive(rows)
        for alias, table in self._aliases:
            columns = [self._column[name] for name in (*alias.given, *alias.among)]
            rows[:, columns[len(alias.given) :]] = table[tuple(rows[:, c] for c in columns)]
        self._reset_inactive(rows)
        return rows

    def holds(self, when: Sequence[When], rows: Rows) -> NDArray[np.bool_]:
        """Whether all conditions hold, for each row. Shape (n,)."""
        result = np.ones(len(rows), dtype=bool)
        for condition in when:
            column = self.column(condition.decision)
            allowed = np.array([o in condition.values for o in self.decisions[column].options])
            result &= allowed[rows[:, column]]
        return result

    def active(self, rows: Rows) -> NDArray[np.bool_]:
        """Which decisions matter for each row. Shape (n, decisions)."""
        result = np.ones(rows.shape, dtype=bool)
        for activity in self._activities:
            result[:, self._column[activity.decision]] &= self.holds(activity.when, rows)
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
        for slot in self.slots:
            columns = [self.column(name) for name in slot.reads]
            for i in np.flatnonzero(self.holds(slot.when, rows)):
                result[i] += slot.lower(*(self.decisions[c].options[rows[i, c]] for c in columns))
        return result

    def build(self, candidate: Mapping[str, Option]) -> Network:
        """A torch module of exactly the workload's operators, freshly initialised."""
        from hwnas.spaces.network import Network

        return Network(self.workload(candidate), self.input_shape)

    def reference(self, name: str | None = None) -> Candidate:
        """A published or hand-designed network of this space; the first one when no name is given."""
        name = name or next(iter(self.references), "")
        if name not in self.references:
            raise UnknownNameError(f"reference network of space {self.name!r}:", name, self.references)
        return self.decode(self.encode(self.references[name]))

    # ---- internals ------------------------------------------------------------------------------------------------

    def _check_names(self, candidate: Mapping[str, Option]) -> None:
        for name, value in candidate.items():
            if name not in self.fixed:
                self.column(name)
            elif value != self.fixed[name]:
                raise InvalidCandidateError(f"{name} is fixed at {self.fixed[name]!r} in this space, not {value!r}")
        if missing := [d.name for d in self.decisions if d.name not in candidate]:
            raise InvalidCandidateError(f"the candidate does not decide {missing[0]!r} ({len(missing)} missing in all)")

    def _free(self, alias: Alias) -> Alias:
        """The alias without the fixed decisions; their axes have one entry, so the keys keep their order."""
        return Alias(
            tuple(n for n in alias.given if n not in self.fixed),
            tuple(n for n in alias.among if n not in self.fixed),
            alias.keys,
        )

    def _reset_inactive(self, rows: Rows) -> None:
        # In the order of the activities: a decision switched off may switch off others further down.
        for activity in self._activities:
            rows[~self.holds(activity.when, rows), self._column[activity.decision]] = 0

    def _canonical_combinations(self, alias: Alias) -> NDArray[np.int16]:
        """For each combination, the canonical options of ``among``; shape (*given, *among, len(among))."""
        given = [len(self.decisions[self.column(n)].options) for n in alias.given]
        among = [len(self.decisions[self.column(n)].options) for n in alias.among]
        keys = alias.keys.reshape(math.prod(given), math.prod(among))
        first = np.array([[int(np.flatnonzero(line == key)[0]) for key in line] for line in keys])
        return np.stack(np.unravel_index(first, among), axis=-1).astype(np.int16).reshape(*given, *among, len(among))
