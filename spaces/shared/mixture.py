"""The graph of many networks at once: every operator that some of them have, and for which choices.

A node is an operator in one form: once for every kernel, stride, precision and so on, but for all widths together. It
exists in an event, a set of choices; so does each of the tensors that it may read, and each width. What a candidate of
the event skips is nothing but another source of the next node's input.

Some operators compute other values in their first channels where there are more of them. These are one node per width:
those that move channels about, grouped convolutions, weights that are rounded or sparse (scales and masks depend on all
weights that are used).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from graphlib import TopologicalSorter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.spaces.decision import Option
from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.operator import ENTRY, NETWORK_INPUT, PREVIOUS, Operator
from hwnas.spaces.shared.events import ALWAYS, NEVER, Event
from hwnas.spaces.shared.parts import part_name
from hwnas.spaces.slot import Slot, bind
from hwnas.spaces.space import Space
from hwnas.spaces.value import reads
from hwnas.spaces.value_table import combine

IMAGES = -1
"""The number of the source that is the network's input."""
MIXED = frozenset({"conv", "linear", "pool", "add", "scale", "quantize", "activate", "shuffle", "hadamard"})
"""Kinds of operators that a mixture may hold."""

Sources = dict[int, Event]
"""Numbers of nodes, and for which choices each is what is read."""


@dataclass(slots=True)
class Node:
    """An operator of some of the networks.

    Attributes:
        operator: With the most channels that it has in any of them.
        event: Where it exists.
        widths: Output channels, and where it has them.
        inputs: For each of its inputs, the sources.
    """

    operator: Operator
    event: Event = NEVER
    widths: dict[int, Event] = field(default_factory=dict)
    inputs: list[Sources] = field(default_factory=list)

    def meet(self, operator: Operator, event: Event, inputs: Sequence[Sources]) -> None:
        """One more set of choices for which it exists."""
        own = self.operator
        self.operator = replace(
            own,
            in_channels=max(own.in_channels, operator.in_channels),
            out_channels=max(own.out_channels, operator.out_channels),
            groups=max(own.groups, operator.groups),
        )
        self.event |= event
        self.widths[operator.out_channels] = self.widths.get(operator.out_channels, NEVER) | event
        self.inputs = [_merged(a, b) for a, b in zip(self.inputs or [{} for _ in inputs], inputs, strict=True)]


@dataclass(frozen=True, eq=False)
class Mixture:
    """All networks that differ in some decisions.

    Attributes:
        nodes: By number.
        order: Their numbers in an order in which they can run.
        options: Numbers of options of the decisions.
        output: Sources of the result.
    """

    nodes: Sequence[Node]
    order: Sequence[int]
    options: Mapping[str, int]
    output: Sources

    @cached_property
    def tables(self) -> tuple[dict[Hashable, int], list[tuple[tuple[str, ...], NDArray[np.float32]]]]:
        """All events: the place of each by its key, in the rows of the tables of those that depend on the same
        decisions, one table after the other, (events, choices)."""
        alike: dict[tuple[str, ...], dict[Hashable, Event]] = {}
        alike[()] = {ALWAYS.key: ALWAYS}
        for node in self.nodes:
            for event in (node.event, *node.widths.values(), *(e for s in node.inputs for e in s.values())):
                alike.setdefault(event.names, {})[event.key] = event
        places = {key: place for place, key in enumerate(key for events in alike.values() for key in events)}
        tables = [
            (names, np.stack([e.holds.ravel() for e in events.values()]).astype(np.float32))
            for names, events in alike.items()
        ]
        return places, tables


def mix(space: Space, row: NDArray[np.integer[Any]], names: Sequence[str]) -> Mixture:
    """The mixture of the networks that differ from a row (decisions,) in the decisions named at most.

    Raises:
        UnknownNameError: A decision that the space does not have.
        InvalidSpaceError: A decision that changes the images' size, or an operator whose kind cannot be mixed.
    """
    mixed = {name: space.decisions[space.column(name)].options for name in names}
    if sizes := [n for n in reads(space.image_size) if n in mixed]:
        raise InvalidSpaceError(f"{sizes[0]} cannot be mixed: networks for images of different sizes have no sum")
    fixed = {d.name: d.options[i] for d, i in zip(space.decisions, row, strict=True) if d.name not in mixed}
    graph = _Graph()
    for slot in filter(None, (bind(slot, fixed) for slot in space.slots)):
        graph.add(slot.group, _variants(slot, mixed))
    before = {n: {s for sources in node.inputs for s in sources if s != IMAGES} for n, node in enumerate(graph.nodes)}
    order = tuple(TopologicalSorter(before).static_order())
    return Mixture(graph.nodes, order, {n: len(options) for n, options in mixed.items()}, graph.previous)


class _Graph:
    """Wires nodes as `Workload.wire` wires the operators of one network."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.previous: Sources = {IMAGES: ALWAYS}
        self._numbers: dict[Hashable, int] = {}
        self._named: dict[str, Sources] = {NETWORK_INPUT: {IMAGES: ALWAYS}}
        self._entries: dict[str, Sources] = {}

    def add(self, group: str, variants: Iterator[tuple[tuple[Operator, ...], Event]]) -> None:
        """The different operators of one slot, and where it has them."""
        self._entries.setdefault(group, self.previous)
        after: Sources = {}
        elsewhere = ALWAYS
        for operators, event in variants:
            previous = _restricted(self.previous, event)
            for operator in operators:
                inputs = [_restricted(self._sources(name, previous), event) for name in operator.inputs]
                if operator.kind == "identity":
                    (previous,) = inputs
                else:
                    previous = {self._number(operator, event, inputs): event}
                self._named[operator.name] = _merged(self._named.get(operator.name, {}), previous)
            after = _merged(after, previous)
            elsewhere -= event
        self.previous = _merged(after, _restricted(self.previous, elsewhere))

    def _sources(self, name: str, previous: Sources) -> Sources:
        if name == PREVIOUS:
            return previous
        return self._entries[name[1:]] if name.startswith(ENTRY) else self._named[name]

    def _number(self, operator: Operator, event: Event, inputs: Sequence[Sources]) -> int:
        if operator.kind not in MIXED:
            raise InvalidSpaceError(f"{operator.name} is a {operator.kind}, which mixtures cannot hold")
        number = self._numbers.setdefault(_form(operator), len(self._numbers))
        if number == len(self.nodes):
            self.nodes.append(Node(operator))
        self.nodes[number].meet(operator, event, inputs)
        return number


def _variants(slot: Slot, options: Mapping[str, tuple[Option, ...]]) -> Iterator[tuple[tuple[Operator, ...], Event]]:
    """The different operators that a slot lowers to, and where; it exists nowhere else."""
    exists = ALWAYS
    for condition in slot.when:
        holds = np.array([o in condition.values for o in options[condition.decision]])
        exists &= Event.of((condition.decision,), holds)
    which, arguments = combine(slot.values, slot.reads, {name: options[name] for name in slot.reads})
    alike: dict[Hashable, list[int]] = {}
    lowered = [slot.lower(slot.group, *values) for values in arguments]
    for index, operators in enumerate(lowered):
        alike.setdefault(tuple((o, o.affine, o.name, o.inputs) for o in operators), []).append(index)
    for indexes in alike.values():
        event = exists & Event.of(slot.reads, np.isin(which, indexes))
        if event:
            yield lowered[indexes[0]], event


def _form(operator: Operator) -> Hashable:
    """Equal for operators that one node computes."""
    o = replace(operator, in_bits=32, held_bytes=0)
    moves = o.kind in ("shuffle", "hadamard") or (o.kind == "conv" and o.groups > 1 and not o.depthwise)
    if not moves and o.density == 1 and (o.weight_bits == 32 or o.depthwise):
        o = replace(o, in_channels=0, out_channels=0, groups=0 if o.depthwise else o.groups)
    return part_name(operator), o, operator.affine


def _merged(one: Sources, other: Sources) -> Sources:
    return one | {source: one.get(source, NEVER) | event for source, event in other.items()}


def _restricted(sources: Sources, event: Event) -> Sources:
    both = {source: own & event for source, own in sources.items()}
    return {source: own for source, own in both.items() if own}
