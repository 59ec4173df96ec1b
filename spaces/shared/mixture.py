"""The graph of many networks at once: every operator that some of them have, and for which choices.

A node has the name of an operator, and exists in an event: a set of choices. It has a form for every kernel, stride,
precision and so on, but one for all widths together; each form and each width exists in an event of its own. So does
each of the tensors that a form may read: what a candidate skips is nothing but another source of what comes next.

Some operators compute other values in their first channels where there are more of them. These have a form per width:
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

MIXED = frozenset({"conv", "linear", "pool", "add", "scale", "quantize", "activate", "shuffle", "hadamard", "pad"})
"""Kinds of operators that a mixture may hold."""
KEEP_ZEROS = frozenset({"pool", "add", "scale", "quantize", "pad"})
"""Kinds of operators that write zeros to channels where they read zeros."""

Sources = dict[str, Event]
"""Names of nodes, or of the network's input, and for which choices each is what is read."""


@dataclass(slots=True)
class Form:
    """An operator that some of the networks have, at any of its widths.

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
        self.operator = replace(
            self.operator,
            in_channels=max(self.operator.in_channels, operator.in_channels),
            out_channels=max(self.operator.out_channels, operator.out_channels),
            groups=max(self.operator.groups, operator.groups),
        )
        self.event |= event
        self.widths[operator.out_channels] = self.widths.get(operator.out_channels, NEVER) | event
        self.inputs = [_merged(a, b) for a, b in zip(self.inputs or [{} for _ in inputs], inputs, strict=True)]


@dataclass(slots=True)
class Node:
    """All operators of one name.

    Attributes:
        event: Where any of them exists.
        forms: Those that differ in more than channels.
        masked: Whether what it writes beyond a width has to be set to zero. It is zero already where it was read as
            such; and gates multiply zeros.
    """

    event: Event = NEVER
    forms: dict[Hashable, Form] = field(default_factory=dict)
    masked: bool = True

    @property
    def channels(self) -> int:
        """Of its output, at the widest."""
        return max(form.operator.out_channels for form in self.forms.values())


@dataclass(frozen=True, eq=False)
class Mixture:
    """All networks that differ in some decisions.

    Attributes:
        nodes: By name, in an order in which they can run.
        options: Numbers of options of the decisions.
        output: Sources of the result.
    """

    nodes: Mapping[str, Node]
    options: Mapping[str, int]
    output: Sources

    @cached_property
    def tables(self) -> tuple[dict[Hashable, int], list[tuple[tuple[str, ...], NDArray[np.float32]]]]:
        """All events: the place of each by its key, in the rows of the tables of those that depend on the same
        decisions, one table after the other, (events, choices)."""
        alike: dict[tuple[str, ...], dict[Hashable, Event]] = {}
        for event in (ALWAYS, *self.output.values(), *(e for node in self.nodes.values() for e in _events(node))):
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
    forms = [(name, form) for name, node in graph.nodes.items() for form in node.forms.values()]
    for name, form in forms:
        graph.nodes[name].masked &= form.operator.kind not in KEEP_ZEROS
        if form.operator.kind == "scale":
            for gate in form.inputs[1]:
                graph.nodes[gate].masked = False
    before = {
        name: {s for form in node.forms.values() for sources in form.inputs for s in sources if s != NETWORK_INPUT}
        for name, node in graph.nodes.items()
    }
    nodes = {name: graph.nodes[name] for name in TopologicalSorter(before).static_order()}
    return Mixture(nodes, {n: len(options) for n, options in mixed.items()}, graph.previous)


class _Graph:
    """Wires nodes as `Workload.wire` wires the operators of one network."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.previous: Sources = {NETWORK_INPUT: ALWAYS}
        self._named: dict[str, Sources] = {NETWORK_INPUT: {NETWORK_INPUT: ALWAYS}}
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
                    self._meet(operator, event, inputs)
                    previous = {operator.name: event}
                self._named[operator.name] = _merged(self._named.get(operator.name, {}), previous)
            after = _merged(after, previous)
            elsewhere -= event
        self.previous = _merged(after, _restricted(self.previous, elsewhere))

    def _sources(self, name: str, previous: Sources) -> Sources:
        if name == PREVIOUS:
            return previous
        return self._entries[name[1:]] if name.startswith(ENTRY) else self._named[name]

    def _meet(self, operator: Operator, event: Event, inputs: Sequence[Sources]) -> None:
        if operator.kind not in MIXED or operator.on_tokens:
            tokens = " on tokens" * operator.on_tokens
            raise InvalidSpaceError(f"{operator.name} is a {operator.kind}{tokens}, which mixtures cannot hold")
        node = self.nodes.setdefault(operator.name, Node())
        node.event |= event
        node.forms.setdefault(_form(operator), Form(operator)).meet(operator, event, inputs)


def _variants(slot: Slot, options: Mapping[str, tuple[Option, ...]]) -> Iterator[tuple[tuple[Operator, ...], Event]]:
    """The different operators that a slot lowers to, and where; it exists nowhere else."""
    exists = ALWAYS
    for condition in slot.when:
        holds = np.array([o in condition.values for o in options[condition.decision]])
        exists &= Event.of((condition.decision,), holds)
    which, arguments = combine(slot.values, slot.reads, {name: options[name] for name in slot.reads})
    alike: dict[Hashable, list[int]] = {}
    lowered = [
        tuple(
            replace(o, in_bits=o.out_bits if o.moves_integers else 32, held_bytes=0) for o in slot.lower(slot.group, *v)
        )
        for v in arguments
    ]  # without what does not change what is computed
    for index, operators in enumerate(lowered):
        alike.setdefault(tuple((o, o.affine, o.front, o.name, o.inputs) for o in operators), []).append(index)
    for indexes in alike.values():
        event = exists & Event.of(slot.reads, np.isin(which, indexes))
        if event:
            yield lowered[indexes[0]], event


def _form(operator: Operator) -> Hashable:
    """Equal for operators that one form computes."""
    o = operator
    moves = o.kind in ("shuffle", "hadamard") or (o.kind == "conv" and o.groups > 1 and not o.depthwise)
    if not moves and o.density == 1 and (o.weight_bits == 32 or o.depthwise):
        o = replace(o, in_channels=0, out_channels=0, groups=0 if o.depthwise else o.groups)
    return part_name(operator), o, operator.affine, operator.front


def _events(node: Node) -> Iterator[Event]:
    yield node.event
    for form in node.forms.values():
        yield from (form.event, *form.widths.values(), *(e for sources in form.inputs for e in sources.values()))


def _merged(one: Sources, other: Sources) -> Sources:
    return one | {source: one.get(source, NEVER) | event for source, event in other.items()}


def _restricted(sources: Sources, event: Event) -> Sources:
    both = {source: own & event for source, own in sources.items()}
    return {source: own for source, own in both.items() if own}
