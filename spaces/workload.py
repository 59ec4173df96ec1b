"""A workload: the operators of one candidate, in order, wired to each other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.operator import ENTRY, NETWORK_INPUT, PREVIOUS, Operator


@dataclass(frozen=True, slots=True)
class Workload:
    """The operators of one network in the order they run. Every input is the name of an earlier operator or `input`."""

    operators: tuple[Operator, ...]

    @classmethod
    def wire(cls, operators: Iterable[Operator]) -> Workload:
        """Resolves ``PREVIOUS`` and ``^group`` to names, and names of identities to what these read.

        Raises:
            InvalidSpaceError: An input that no earlier operator produces, or a name that occurs twice.
        """
        wired: list[Operator] = []
        entries: dict[str, str] = {}
        previous = NETWORK_INPUT
        names = {NETWORK_INPUT: NETWORK_INPUT}
        for operator in operators:
            entries.setdefault(operator.name.partition(".")[0], previous)
            inputs = tuple(
                previous if name == PREVIOUS else entries.get(name[1:], name) if name.startswith(ENTRY) else name
                for name in operator.inputs
            )
            if missing := [name for name in inputs if name not in names]:
                raise InvalidSpaceError(
                    f"operator {operator.name!r} reads {missing[0]!r}, which nothing before it writes"
                )
            if operator.name in names:
                raise InvalidSpaceError(f"two operators are called {operator.name!r}")
            sources = tuple(names[name] for name in inputs)
            if operator.kind == "identity":
                (previous,) = sources
            else:
                wired.append(operator if sources == operator.inputs else replace(operator, inputs=sources))
                previous = operator.name
            names[operator.name] = previous
        return cls(tuple(wired))

    @property
    def macs(self) -> int:
        """Multiply–accumulates for one image."""
        return sum(o.macs for o in self.operators)

    @property
    def params(self) -> int:
        """Trainable parameters."""
        return sum(o.params for o in self.operators)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the constants in the exported file."""
        return sum(o.weight_bytes for o in self.operators)

    @property
    def peak_memory_bytes(self) -> int:
        """Largest sum of activation bytes alive at once, for one image, from the lifetimes of the tensors.

        Runtimes hold copies and workspaces, too: `hwnas.predictors.memory` predicts what one allocates.
        """
        last_use = {name: step for step, o in enumerate(self.operators) for name in o.inputs}
        first = self.operators[0]
        alive = {NETWORK_INPUT: first.in_bytes}
        peak = 0
        for step, operator in enumerate(self.operators):
            alive[operator.name] = operator.out_bytes
            peak = max(peak, sum(alive.values()))
            alive = {
                name: size for name, size in alive.items() if last_use.get(name, -1) > step or name == operator.name
            }
        return peak
