"""A slot: a position in the network, the few decisions it reads, and how their values lower to operators."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field

from hwnas.spaces.decision import Option
from hwnas.spaces.operator import Operator

Lower = Callable[..., tuple[Operator, ...]]


@dataclass(frozen=True, slots=True)
class When:
    """A condition on one decision: true when its value is among ``values``."""

    decision: str
    values: frozenset[Option]


@dataclass(frozen=True, slots=True)
class Slot:
    """A position in the network.

    Attributes:
        name: Unique in the space; the prefix of its operators' names.
        reads: Names of the decisions whose values decide the operators, in the order of ``lower``'s arguments.
        lower: Maps those values to the operators, in the order they run. Must be pure. Every combination is lowered
            once for each space: one that gives the same tuple again (`functools.lru_cache`) is done sooner.
        when: Conditions that must all hold for the slot to exist at all (such as a block within its stage's depth).
            Conditions are kept out of ``reads`` so that they do not multiply the size of the slot's cost table.
        twin: Slots of equal twins (other than None) and equal options lower alike but for names; costs are shared.
    """

    name: str
    reads: tuple[str, ...]
    lower: Lower
    when: tuple[When, ...] = field(default=())
    twin: Hashable = None


def bind(slot: Slot, fixed: Mapping[str, Option]) -> Slot | None:
    """The slot with fixed decisions filled in and every other one read once, or None where they rule the slot out."""
    if any(w.decision in fixed and fixed[w.decision] not in w.values for w in slot.when):
        return None
    when = tuple(w for w in slot.when if w.decision not in fixed)
    free = tuple(dict.fromkeys(name for name in slot.reads if name not in fixed))
    if free == slot.reads:
        return Slot(slot.name, slot.reads, slot.lower, when, slot.twin)
    # For each argument of the slot's own function, the position among the free decisions, or the fixed value.
    sources = tuple((free.index(name), None) if name in free else (-1, fixed[name]) for name in slot.reads)

    def lower(*values: Option) -> tuple[Operator, ...]:
        return slot.lower(*(value if position < 0 else values[position] for position, value in sources))

    return Slot(slot.name, free, lower, when, None if slot.twin is None else (slot.twin, sources))
