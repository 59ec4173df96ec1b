"""Events: sets of choices of a few decisions, such as those for which a block exists."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.value_table import MANY


@dataclass(frozen=True, eq=False, slots=True)
class Event:
    """A set of choices.

    Attributes:
        names: The decisions that it depends on, sorted.
        holds: Whether a choice is in it, one axis of options per decision.
    """

    names: tuple[str, ...]
    holds: NDArray[np.bool_]

    @classmethod
    def of(cls, names: Sequence[str], holds: NDArray[np.bool_]) -> Event:
        """The event of decisions in any order, without those that make no difference to it."""
        order = sorted(range(len(names)), key=names.__getitem__)
        holds = holds.transpose(order)
        kept = []
        for axis, place in enumerate(order):
            first = holds[(slice(None),) * axis + (slice(1),)]
            if (holds == first).all():
                holds = first
            else:
                kept.append(names[place])
        return cls(tuple(kept), holds.reshape([n for n in holds.shape if n > 1]))

    def __and__(self, other: Event) -> Event:
        """Both."""
        if self is other or self.is_always or other.is_always:
            return other if self.is_always else self
        names, own, others = _aligned(self, other)
        return Event.of(names, own & others)

    def __or__(self, other: Event) -> Event:
        """At least one."""
        if not (self and other):
            return self if self else other
        names, own, others = _aligned(self, other)
        return Event.of(names, own | others)

    def __sub__(self, other: Event) -> Event:
        """The first without the second."""
        names, own, others = _aligned(self, other)
        return Event.of(names, own & ~others)

    def __bool__(self) -> bool:
        """Whether any choice is in it."""
        return bool(self.holds.any())

    @property
    def is_always(self) -> bool:
        """Whether every choice is in it."""
        return not self.names and bool(self)

    @property
    def key(self) -> Hashable:
        """Equal for equal events."""
        return self.names, self.holds.shape, self.holds.tobytes()


ALWAYS = Event((), np.array(True))
NEVER = Event((), np.array(False))


def _aligned(one: Event, other: Event) -> tuple[tuple[str, ...], NDArray[np.bool_], NDArray[np.bool_]]:
    """All names of both, and both tables with an axis for each."""
    if one.names == other.names:
        return one.names, one.holds, other.holds
    sizes = dict(zip(one.names, one.holds.shape, strict=True)) | dict(zip(other.names, other.holds.shape, strict=True))
    names = tuple(sorted(sizes))
    if prod(sizes.values()) > MANY:
        raise InvalidSpaceError(f"too many decisions would be mixed with one another ({', '.join(names)}); fix some")
    own, others = (e.holds.reshape([sizes[n] if n in e.names else 1 for n in names]) for e in (one, other))
    return names, own, others
