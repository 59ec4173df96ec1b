"""The layers of a space as an agent walks them: the decisions of each, and the operators that they shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwnas.predictors.lowering import SlotLowering, lower_space
from hwnas.search.goal import Floats
from hwnas.spaces.operator import Operator
from hwnas.spaces.slot import Slot
from hwnas.spaces.space import Rows, Space

FEATURES = ("depthwise", "in_channels", "out_channels", "stride", "kernel", "weights", "in_positions")
"""Of a layer's operator, as in HAQ's state vector (Wang et al., CVPR 2019, equation 1)."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Decisions that are made at once.

    Attributes:
        name: What their names begin with, up to the last dot: ``s1b2.expand`` of ``s1b2.expand.weight_bits``.
        columns: Of the decisions.
        dimensions: Of each decision, which dimension of an action it is: decisions whose names end alike, such as in
            ``weight_bits``, are the same dimension of different layers.
    """

    name: str
    columns: tuple[int, ...]
    dimensions: tuple[int, ...]


def layers_of(space: Space) -> tuple[Layer, ...]:
    """The layers in the order of the decisions.

    A name without a dot is a layer of its own. A decision that matters only for some options of one before it in its
    layer begins another layer of that name.
    """
    dimensions: dict[str, int] = {}
    layers: list[Layer] = []
    names: set[str] = set()  # in the last layer
    for column, decision in enumerate(space.decisions):
        name, _, end = decision.name.rpartition(".")
        layer = Layer(name or end, (column,), (dimensions.setdefault(end if name else "", len(dimensions)),))
        depends = not names.isdisjoint(when.decision for when in space.conditions(column))
        if layers and layers[-1].name == layer.name and not depends:
            last = layers.pop()
            layer = Layer(name, last.columns + layer.columns, last.dimensions + layer.dimensions)
        else:
            names = set()
        names.add(decision.name)
        layers.append(layer)
    return tuple(layers)


@dataclass(frozen=True, slots=True)
class _SlotFeatures:
    """Of one slot: its combinations' identities, and by identity MACs and `FEATURES` of its largest operator."""

    slot: Slot
    columns: tuple[int, ...]
    sizes: tuple[int, ...]
    identity: NDArray[np.int32]
    features: Floats  # (identities, 1 + features)


class LayerOperators:
    """The operator of each layer that computes most, for any choice of options.

    A layer's slots are those of its name or below; where there are none, those that read one of its decisions.
    """

    def __init__(self, space: Space, layers: tuple[Layer, ...]) -> None:
        self._space = space
        self._lowering = lower_space(space)
        slots = [
            _SlotFeatures(
                slot, columns, tuple(int(n) for n in self._lowering.sizes[list(columns)]), own.identity,
                _features(own, self._lowering.operators),
            )
            for slot, columns, own in zip(space.slots, self._lowering.columns, self._lowering.slots, strict=True)
        ]  # fmt: skip
        self._slots = [_slots_of(layer, slots, space) for layer in layers]

    def of(self, layer: int, rows: Rows) -> Floats:
        """`FEATURES` of the layer's operator for rows (n, decisions), shape (n, features); 0 where there is none."""
        largest = np.zeros((len(rows), 1 + len(FEATURES)))
        if not self._slots[layer]:
            return largest[:, 1:]
        extended = self._lowering.extended(rows)
        for own in self._slots[layer]:
            index = np.zeros(len(rows), dtype=np.int64)
            for column, size in zip(own.columns, own.sizes, strict=True):
                index = index * size + extended[:, column]
            found = own.features[own.identity[index]]
            better = self._space.holds(own.slot.when, rows) & (found[:, 0] > largest[:, 0])
            largest = np.where(better[:, None], found, largest)
        return largest[:, 1:]


def _slots_of(layer: Layer, slots: list[_SlotFeatures], space: Space) -> list[_SlotFeatures]:
    named = [s for s in slots if f"{s.slot.name}.".startswith(f"{layer.name}.")]
    decisions = {space.decisions[column].name for column in layer.columns}
    return named or [s for s in slots if not decisions.isdisjoint(s.slot.reads)]


def _features(own: SlotLowering, operators: tuple[Operator, ...]) -> Floats:
    """MACs and features of each identity's operator of most MACs, the first of those that are equal."""
    result = np.zeros((len(own.peak), 1 + len(FEATURES)))
    for owner, index in zip(own.owner, own.operator, strict=True):
        o = operators[index]
        if o.macs > result[owner, 0]:
            result[owner] = (
                o.macs, o.depthwise, o.in_channels, o.out_channels, o.stride, max(o.kernel_size), o.weights,
                o.in_size[0] * o.in_size[1],
            )  # fmt: skip
    return result
