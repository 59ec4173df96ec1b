"""A slot: a position in the network, the few decisions it reads, and how their values lower to operators."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from hwnas.spaces.decision import Option
from hwnas.spaces.operator import Operator
from hwnas.spaces.value import Value, evaluate, fill, reads, structure, value

Lower = Callable[..., tuple[Operator, ...]]


@dataclass(frozen=True, slots=True)
class When:
    """A condition on one decision: true when its value is among ``values``."""

    decision: str
    values: frozenset[Option]


@dataclass(frozen=True)
class Slot:
    """A position in the network.

    Attributes:
        name: Unique in the space. What stands before a dot is its group, such as a block.
        arguments: What the operators depend on: names of decisions, constants other than strings, or anything that
            `hwnas.spaces.value` computes of them.
        lower: Maps the group's name and the arguments' values to the operators, in the order they run. Must be pure.
        when: Conditions that must all hold for the slot to exist at all (such as a block within its stage's depth).
            Conditions are kept out of the arguments so that they do not multiply the size of the slot's cost table.
        prefix: What ``lower`` is told that the group is called, where that is not the first part of the slot's name.
    """

    name: str
    arguments: tuple[Any, ...]
    lower: Lower
    when: tuple[When, ...] = field(default=())
    prefix: str = ""

    @cached_property
    def values(self) -> tuple[Value, ...]:
        """The arguments as values."""
        return tuple(value(a) for a in self.arguments)

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """The decisions that the operators depend on, in the order of the arguments."""
        return reads(*self.values)

    @property
    def group(self) -> str:
        """The first part of the name, or the prefix where there is one."""
        return self.prefix or self.name.partition(".")[0]

    @cached_property
    def twin(self) -> Hashable:
        """Slots of equal twins and equal options lower alike but for names, so they share their costs."""
        positions = {name: i for i, name in enumerate(self.reads)}
        return (self.lower, tuple(structure(v, positions) for v in self.values))

    def operators(self, options: Mapping[str, Option]) -> tuple[Operator, ...]:
        """The operators under a choice of options for the decisions that it reads."""
        return self.lower(self.group, *[evaluate(v, options) for v in self.values])


def bind(slot: Slot, fixed: Mapping[str, Option]) -> Slot | None:
    """The slot with fixed decisions filled in, or None where they rule the slot out."""
    if any(w.decision in fixed and fixed[w.decision] not in w.values for w in slot.when):
        return None
    when = tuple(w for w in slot.when if w.decision not in fixed)
    return replace(slot, arguments=tuple(fill(v, fixed) for v in slot.values), when=when)
