"""Values that decisions decide: channels, heights, bits, computed from the options of a few decisions.

A slot's arguments are values. Most read one decision; others compute something from several, such as the channels
inside a block from its input's channels, its expansion and its keep ratio. Many combinations of options give the same
few values, and these alone make operators: costs are tabulated by them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from hwnas.spaces.decision import Option


@dataclass(frozen=True, slots=True)
class Choice:
    """The option chosen of a decision."""

    decision: str


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that no decision changes."""

    value: Any


@dataclass(frozen=True, slots=True)
class Computed:
    """A pure function of other values.

    Attributes:
        of: The function, most often one of a module: functions that compare equal compute the same.
        arguments: What it is called with.
    """

    of: Callable[..., Any]
    arguments: tuple[Value, ...]


Value = Choice | Constant | Computed


def value(given: Any) -> Value:
    """Values as they are, a decision for its name, and a constant for anything else."""
    if isinstance(given, Choice | Constant | Computed):
        return given
    return Choice(given) if isinstance(given, str) else Constant(given)


def compute(of: Callable[..., Any], *arguments: Any) -> Value:
    """The function of those `value`s: a constant where all of them are."""
    values = tuple(value(a) for a in arguments)
    if all(isinstance(v, Constant) for v in values):
        return Constant(of(*(v.value for v in values if isinstance(v, Constant))))
    return Computed(of, values)


def reads(*values: Value) -> tuple[str, ...]:
    """The decisions that the values depend on, each once, in the order in which they are read."""
    found: dict[str, None] = {}
    for v in values:
        if isinstance(v, Choice):
            found[v.decision] = None
        elif isinstance(v, Computed):
            found |= dict.fromkeys(reads(*v.arguments))
    return tuple(found)


def evaluate(v: Value, options: Mapping[str, Option]) -> Any:
    """The value under a choice of options for the decisions that it reads."""
    if isinstance(v, Choice):
        return options[v.decision]
    if isinstance(v, Constant):
        return v.value
    return v.of(*[evaluate(a, options) for a in v.arguments])


def fill(v: Value, fixed: Mapping[str, Option]) -> Value:
    """The value with fixed decisions filled in."""
    if isinstance(v, Choice):
        return Constant(fixed[v.decision]) if v.decision in fixed else v
    if isinstance(v, Constant):
        return v
    return compute(v.of, *(fill(a, fixed) for a in v.arguments))


def structure(v: Value, positions: Mapping[str, int]) -> Hashable:
    """What the value computes, decisions named by their positions: equal where only names differ."""
    if isinstance(v, Choice):
        return positions[v.decision]
    if isinstance(v, Constant):
        return ("constant", type(v.value), v.value)
    return (v.of, tuple(structure(a, positions) for a in v.arguments))
