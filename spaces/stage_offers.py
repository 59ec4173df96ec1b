"""What a space's decisions offer for a block, and which of them lacks what a network has there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

from hwnas.spaces.decision import Option
from hwnas.spaces.stage_rows import Row
from hwnas.spaces.value import Constant, Value, evaluate, reads

Chosen = Mapping[str, Option]
Wanted = Mapping[str, tuple[Value, Any]]
"""By attribute, as a stage table calls it: where the space has it, and what the network has."""


def wanted_of(values: Mapping[str, Value], channels: Value, activation: str, row: Row) -> dict[str, tuple[Value, Any]]:
    """What a block must be to be the row; what makes no difference is not asked for."""
    attributes = ["op", "kernel", *(("expansion", "groups", "se") if row.op == "mbconv" else ())]
    attributes += [] if row.starts else ["residual"]
    wanted = {a: (values[a], getattr(row, a)) for a in attributes} | {"channels": (channels, row.channels)}
    return wanted if row.activation is None else wanted | {"activation": (Constant(activation), row.activation)}


@dataclass(frozen=True, slots=True)
class Offers:
    """The options of a space's decisions, by name.

    Attributes:
        options: Of all of them, those with a single option, too.
        whole: Decisions of the whole network, such as its resolution.
    """

    options: Mapping[str, tuple[Option, ...]]
    whole: tuple[str, ...] = ()

    def completions(self, wanted: Iterable[tuple[Value, Any]], chosen: Chosen) -> Iterator[dict[str, Option]]:
        """All ways to complete the choice so that each value is as wanted."""
        wanted = tuple(wanted)
        free = [n for n in dict.fromkeys(n for v, _ in wanted for n in reads(v)) if n not in chosen]
        for choice in product(*(self.options[n] for n in free)):
            options = {**chosen, **dict(zip(free, choice, strict=True))}
            if all(evaluate(v, options) == w for v, w in wanted):
                yield options

    def lacking(self, wanted: Wanted, chosen: Chosen) -> list[tuple[str, ...]]:
        """The attributes that cannot be had: each one alone, or else the smallest set that cannot be had together."""
        for size in range(1, len(wanted) + 1):
            sets = [
                names
                for names in combinations(wanted, size)
                if next(self.completions((wanted[n] for n in names), chosen), None) is None
            ]
            if sets:
                return sets if size == 1 else sets[:1]
        return []

    def offer(self, name: str) -> str:
        """What a decision offers, in words."""
        offered = self.options[name]
        return f"{name} {'offers' if len(offered) > 1 else 'is always'} {', '.join(map(str, offered))}"

    def why(self, place: str, attributes: tuple[str, ...], wanted: Wanted, chosen: Chosen) -> str:
        """Why those of a block cannot be had: which decision offers what, and what is wanted."""
        has = " with ".join(f"{a} {wanted[a][1]}" for a in attributes)
        names = tuple(dict.fromkeys(n for a in attributes for n in reads(wanted[a][0])))
        if not names:
            value, target = wanted[attributes[0]]
            always = f"{attributes[0]} of {place} is always {evaluate(value, {})}, not {target}"
            return f"the space has no decision for that: {always}"
        free = [n for n in names if n not in chosen or n in self.whole]
        if set(free) <= set(self.whole):
            given = " and ".join(f"{n} {chosen[n]}" for n in names if n not in self.whole)
            return f"what comes before it has {given}, this one has {has}"
        several = any(len(self.options[n]) > 1 for n in free)
        return f"{' and '.join(map(self.offer, free))}{': none has' if several else ', not'} {has}"
