"""Collects the decisions and slots of a space, layer by layer, with the compression decisions of each layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from hwnas.spaces.canonical import Activity, Alias, Series
from hwnas.spaces.decision import Decision, Option
from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.joint import Joint, sparsity_of
from hwnas.spaces.slot import Lower, Slot, When
from hwnas.spaces.space import Space
from hwnas.spaces.value import Constant, Value, compute, evaluate, reads, value
from hwnas.spaces.value_table import tabulate
from hwnas.spaces.variation import extremes

Conditions = tuple[When, ...] | None
"""All must hold; None where they never do."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """What one block writes and the next reads; each attribute is a `value` or becomes one.

    Attributes:
        channels: Their number.
        bits: Of an activation.
        size: Height and width.
    """

    channels: Any
    bits: Any
    size: Any


@dataclass(frozen=True, slots=True)
class Layer:
    """The compression decisions of one layer.

    Attributes:
        weight_bits: Of its weights.
        sparsity: Density and pattern, see `sparsity_of`.
        rank: Ratio, see `hwnas.spaces.rank`.
    """

    weight_bits: Value
    sparsity: Value
    rank: Value


class Builder:
    """Names are given once here, and become the decisions and slots of a `Space`.

    Args:
        joint: Options of the compression decisions.
        narrow: For patterns of decision names, such as ``s1b*.kernel``, the options that remain.
    """

    def __init__(self, joint: Joint, narrow: Mapping[str, Sequence[Option]] | None = None) -> None:
        self.joint = joint
        self._narrow = {pattern: list(options) for pattern, options in (narrow or {}).items()}
        self._unmatched = set(self._narrow)
        self._decisions: dict[str, Decision] = {}
        self._slots: list[Slot] = []
        self._activities: list[Activity] = []
        self._aliases: list[Alias] = []
        self._series: list[Series] = []

    def choose(self, name: str, options: Sequence[Option], when: Conditions = (), *, ordinal: bool = True) -> Value:
        """A decision, narrowed as asked for; the last option where it would never matter."""
        if when is None:
            return Constant(options[-1])
        kept = tuple(options)
        for pattern, allowed in self._narrow.items():
            if fnmatchcase(name, pattern):
                self._unmatched.discard(pattern)
                odd = [o for o in allowed if o not in options]
                if odd or not allowed:
                    known = ", ".join(map(str, options))
                    raise InvalidSpaceError(f"narrow: {name} cannot be {odd or 'nothing'}; its options are {known}")
                kept = tuple(o for o in kept if o in allowed)
                if not kept:
                    raise InvalidSpaceError(f"narrow: several patterns match {name}, and leave it no option")
        if name in self._decisions:
            raise InvalidSpaceError(f"two decisions are called {name!r}")
        self._decisions[name] = Decision(name, kept, ordinal)
        if when:
            self._activities.append(Activity(name, when))
        return value(name)

    def options(self, v: Value) -> tuple[Option, ...]:
        """The options of the single decision that a value is."""
        (name,) = reads(v)
        return self._decisions[name].options

    def where(self, when: Conditions, v: Value, holds: Callable[[Any], bool]) -> Conditions:
        """The conditions, and that ``holds`` is true of the value, which may depend on one decision at most."""
        names = reads(v)
        if not names or when is None:
            return when if when is not None and holds(evaluate(v, {})) else None
        if len(names) > 1:
            raise InvalidSpaceError(f"a condition can depend on one decision, not on {', '.join(names)}")
        options = self._decisions[names[0]].options
        good = frozenset(o for o in options if holds(evaluate(v, {names[0]: o})))
        if len(good) == len(options):
            return when
        return (*when, When(names[0], good)) if good else None

    def layer(
        self, name: str, when: Conditions = (), *, ranked: bool = True, dense: bool = False, edge: bool = False
    ) -> Layer:
        """The compression decisions of one layer.

        Args:
            name: Prefix of the decisions.
            when: Conditions under which the layer exists.
            ranked: Whether it may be factorised: a 1×1 layer.
            dense: Whether none of its weights may be zero: a depthwise layer has too few.
            edge: Whether it is the first or the last layer, which stays whole and keeps bits of its own.
        """
        joint = self.joint
        bits = self.choose(f"{name}.weight_bits", joint.edge_bits if edge else joint.weight_bits, when)
        rank: Value = Constant(1.0)
        density: Value = Constant(1.0)
        if ranked and not edge:
            rank = self.choose(f"{name}.rank", joint.rank, when)
        if not dense and not edge and joint.density != (1.0,):
            density = self.choose(f"{name}.density", joint.density, when, ordinal=False)
        return Layer(bits, compute(sparsity_of, density), rank)

    def check(self, holds: Value, message: str) -> None:
        """Raises `InvalidSpaceError` with the message where the value is false for some options."""
        options = {name: self._decisions[name].options for name in reads(holds)}
        if not all(tabulate(holds, options).values):
            raise InvalidSpaceError(message)

    def slot(self, name: str, lower: Lower, *arguments: Any, when: Conditions = (), prefix: str = "") -> None:
        """A slot, see `Slot`."""
        if when is not None:
            self._slots.append(Slot(name, arguments, lower, when, prefix))

    def alias(self, among: Value | Sequence[Value], network: Value) -> None:
        """Options of the decisions ``among`` that give equal ``network`` are one, see `Alias`."""
        names = reads(*(among if isinstance(among, Sequence) else (among,)))
        if names:
            self._aliases.append(Alias(names, network))

    def series(self, prefixes: Sequence[str], skip: str, skipped: Option) -> None:
        """Blocks in a row whose decision ``skip`` may be ``skipped``, see `Series`; none where their options differ."""
        if len(prefixes) < 2:
            return
        places = [
            [n.removeprefix(p) for n, d in self._decisions.items() if n.startswith(f"{p}.") and len(d.options) > 1]
            for p in prefixes
        ]
        first = places[0]
        alike = all(
            own == first and all(self._same(p + n, prefixes[0] + n) for n in own)
            for p, own in zip(prefixes, places, strict=True)
        )
        if alike and f".{skip}" in first and skipped in self._decisions[f"{prefixes[0]}.{skip}"].options:
            blocks = tuple(tuple(p + n for n in first) for p in prefixes)
            self._series.append(Series(blocks, (first.index(f".{skip}"), skipped)))

    def space(
        self,
        *,
        name: str,
        spec: Mapping[str, Any],
        input_shape: tuple[int, int, int],
        num_classes: int,
        image_size: Value | None = None,
        references: Mapping[str, Mapping[str, Option]] | None = None,
        find: Callable[..., dict[str, Option]] | None = None,
        published: Mapping[str, Any] | None = None,
        of: Callable[..., Space] = Space,
    ) -> Space:
        """The space of everything collected.

        References are given by their options, where what they do not decide is the last one (float32, and nothing
        removed), or as ``published`` tables that ``find`` reads; a narrowed space may lack some of these, and one in
        which something is always removed has none. Without any the largest network is one, see `extremes`.

        Another class of spaces, ``of``, is made with the keywords of `Space`.

        Raises:
            InvalidSpaceError: A pattern to narrow that matches no decision, or a table that the space lacks.
        """
        if self._unmatched:
            raise InvalidSpaceError(
                f"narrow: no decision of space {name!r} matches {min(self._unmatched)!r}; "
                f"such are {', '.join(list(self._decisions)[:8])}, …"
            )
        whole = {d.name: d.options[-1] for d in self._decisions.values()}
        given = {title: whole | dict(options) for title, options in (references or {}).items()}
        space = of(
            name=name,
            spec=spec,
            decisions=list(self._decisions.values()),
            slots=self._slots,
            input_shape=input_shape,
            num_classes=num_classes,
            activities=self._activities,
            aliases=self._aliases,
            series=self._series,
            image_size=image_size,
            references=given,
            find=find,
        )
        if find and published and not self.joint.removes_always:
            self._add_references(space, find, published)
        if not space.references:
            space.references["largest"] = dict(space.decode(extremes(space)[0]))
        return space

    def _add_references(
        self, space: Space, find: Callable[..., dict[str, Option]], published: Mapping[str, Any]
    ) -> None:
        for title, network in published.items():
            try:
                space.references[title] = find(space, network)
            except InvalidSpaceError as error:
                if not self._narrow:
                    raise InvalidSpaceError(f"reference {title}: {error}") from error

    def _same(self, name: str, other: str) -> bool:
        return self._decisions[name].options == self._decisions[other].options
