"""A space: decisions, slots, and the encoding of candidates as rows of option indexes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hwnas.spaces.candidate import Candidate
from hwnas.spaces.canonical import Activity, Alias, CanonicalForm, Series
from hwnas.spaces.decision import Decision, Option
from hwnas.spaces.errors import InvalidCandidateError, InvalidSpaceError, UnknownNameError
from hwnas.spaces.operator import Operator
from hwnas.spaces.slot import Slot, When, bind
from hwnas.spaces.value import Constant, Value, evaluate, fill, reads
from hwnas.spaces.workload import Workload

if TYPE_CHECKING:
    from hwnas.spaces.network import Network

Rows = NDArray[np.int16]
"""Candidates as option indexes, shape (n, decisions)."""
MOST_REMEMBERED = 10_000
"""Choices of slots whose operators a space remembers."""


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
        self._canonical = CanonicalForm(self.decisions, self.fixed, self.column, activities, aliases, series)
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
        return self._canonical.of(rows)

    def computed(self, rows: Rows) -> Rows:
        """Rows (n, decisions) of the networks that these compute: equal rows are equally accurate.

        Canonical rows themselves, but where networks that compute the same are told apart by how they are written.
        """
        return rows

    def holds(self, when: Sequence[When], rows: Rows) -> NDArray[np.bool_]:
        """Whether all conditions hold, for each row. Shape (n,)."""
        return self._canonical.holds(when, rows)

    def conditions(self, column: int) -> tuple[When, ...]:
        """All that must hold for the decision of a column to matter."""
        return self._canonical.conditions.get(column, ())

    def active(self, rows: Rows) -> NDArray[np.bool_]:
        """Which decisions matter for each row. Shape (n, decisions)."""
        return self._canonical.active(rows)

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
