"""What the networks of a space have in common: for each layer, the largest form that any of them has.

A part is what operators of one name share: its weights have the channels of the widest and the kernel of the largest of
them. Forms that have no channels in common are parts of their own:

| part                  | of                                                                                   |
|-----------------------|--------------------------------------------------------------------------------------|
| ``s1b2_expand``       | the operators ``s1b2.expand`` of all networks, at the channels and kernels of each   |
| ``s1b2_depthwise_dw`` | depthwise convolutions                                                               |
| ``s1b2_project_g2``   | convolutions in two groups, transposed ones too                                      |
| ``s1b2_project_in``,  | the two factors of a layer of low rank: a rank's first directions serve all lower    |
| ``…_project_factor``  | ranks. Factors of the shared whole weights, by SVD, would have to be found anew in   |
|                       | every step, and have no useful gradients where singular values meet                  |
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.operator import Operator
from hwnas.spaces.rank import is_factor
from hwnas.spaces.slot import bind
from hwnas.spaces.space import Space
from hwnas.spaces.value import reads
from hwnas.spaces.value_table import combine
from hwnas.spaces.variation import decision_kinds


@dataclass(frozen=True, slots=True)
class Part:
    """What the operators of one form and name share.

    Attributes:
        operator: With the most channels, the largest kernel and the most constants of all of them, in float32.
        kernels: Their kernels, smallest first.
    """

    operator: Operator
    kernels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SharedParts:
    """All that the networks of a space share.

    Attributes:
        parts: By `part_name`.
        precisions: Bits of the quantised tensors that operators write, by the operators' names.
    """

    parts: dict[str, Part]
    precisions: dict[str, tuple[int, ...]]


def part_name(operator: Operator) -> str:
    """The part whose weights an operator uses; wired or as slots give it."""
    name = operator.name.replace(".", "_")
    if operator.depthwise:
        return f"{name}_dw"
    if operator.kind in ("conv", "deconv") and operator.groups > 1:
        return f"{name}_g{operator.groups}"
    return f"{name}_factor" if is_factor(operator) else name


def shared_parts(space: Space) -> SharedParts:
    """The parts of a space, found slot by slot: no network is enumerated.

    Raises:
        InvalidSpaceError: Kernels of one part that differ, and are not all square.
    """
    parts: dict[str, Part] = {}
    precisions: dict[str, set[int]] = {}
    for operator in _operators(space):
        name = part_name(operator)
        part = parts.get(name)
        parts[name] = Part(operator, (operator.kernel,)) if part is None else _joined(part, operator)
        if operator.out_bits <= 8 and not operator.moves_integers:
            precisions.setdefault(operator.name, set()).add(operator.out_bits)
    return SharedParts(
        {name: replace(p, operator=_whole(p.operator)) for name, p in parts.items()},
        {name: tuple(sorted(bits)) for name, bits in precisions.items()},
    )


def _operators(space: Space) -> Iterator[Operator]:
    """Operators of every size and of every precision written, though not of every combination of both.

    What changes no size is held fixed: bits and density of weights, and the images' size. All tensors take their first
    precision together, then all their second, and so on, for a tensor's precision depends on the same decisions of
    every network.
    """
    kinds = decision_kinds(space)
    first = [*(c for kind in ("weight_bits", "density") for c in kinds.get(kind, ()))]
    first += [space.column(name) for name in reads(space.image_size)]
    tensors = kinds.get("act_bits", [])
    for turn in range(max((int(space.sizes[c]) for c in tensors), default=1)):
        places = dict.fromkeys(first, 0) | {c: min(turn, int(space.sizes[c]) - 1) for c in tensors}
        fixed = {space.decisions[c].name: space.decisions[c].options[place] for c, place in places.items()}
        for slot in filter(None, (bind(slot, fixed) for slot in space.slots)):
            options = {name: space.decisions[space.column(name)].options for name in slot.reads}
            for values in combine(slot.values, slot.reads, options)[1]:
                yield from slot.lower(slot.group, *values)


def _joined(part: Part, other: Operator) -> Part:
    own = part.operator
    if own.kernel_size != other.kernel_size and (own.kernel_width or other.kernel_width):
        raise InvalidSpaceError(
            f"{own.name} has kernels of {own.kernel_size} and {other.kernel_size}, and kernels share weights only "
            "where they are square: give them different names, or one size"
        )
    largest = replace(
        own,
        in_channels=max(own.in_channels, other.in_channels),
        out_channels=max(own.out_channels, other.out_channels),
        kernel=max(own.kernel, other.kernel),
        groups=max(own.groups, other.groups),
        call=max(own, other, key=lambda o: o.constant_bytes).call,
    )
    return Part(largest, tuple(sorted({*part.kernels, other.kernel})))


def _whole(operator: Operator) -> Operator:
    return replace(operator, weight_bits=32, in_bits=32, out_bits=32, density=1.0, pattern=0, held_bytes=0, front=0)
