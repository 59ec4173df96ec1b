"""Cells of NAS-Bench-201 as operators: a convolution is ReLU, convolution and batch normalisation.

A tensor is rectified once for all convolutions that read it, and by the convolution that writes it where nothing else
reads it. All tensors of a cell have the same shape and precision, as sums need. Of edge ``0to1`` the decisions are
``.weight_bits``, ``.density`` and ``.rank``, the last of 1×1 convolutions alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import chain

from hwnas.spaces.blocks.cell_form import CONV1, CONV3, EDGES, NONE, OUTPUT, POOL, SKIP, Cell, representative
from hwnas.spaces.blocks.shapes import Size, tensor_bytes
from hwnas.spaces.builder import Builder, Layer, Tensor
from hwnas.spaces.operator import ENTRY, Activation, Kind, Operator
from hwnas.spaces.rank import factorise, rank_of
from hwnas.spaces.value import Value, compute

KERNELS = {CONV1: 1, CONV3: 3}
INPUT = ""
"""The name of the tensor that a cell reads."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operator of a cell, without its shape and precision.

    Attributes:
        kind, kernel, activation: As of `Operator`.
        held: Tensors that wait while it runs, beside the first that it reads and the one that it writes.
        kept: Whether what it reads is read again later; asked of 1×1 convolutions, which may be two operators.
        name, inputs: In the cell; no part of equality, as they do not change what it costs.
    """

    kind: Kind
    kernel: int
    activation: Activation
    held: int
    kept: bool
    name: str = field(compare=False)
    inputs: tuple[str, ...] = field(compare=False)


def edge_name(edge: int) -> str:
    """Such as ``0to1``."""
    source, target = EDGES[edge]
    return f"{source}to{target}"


def edge_layers(make: Builder, stage: str, operations: Sequence[Value]) -> tuple[Layer, ...]:
    """The compression decisions of a stage's cells, edge by edge."""
    layers = []
    for edge, operation in enumerate(operations):
        name = f"{stage}.{edge_name(edge)}"
        layer = make.layer(name, make.where((), operation, _has_weights), ranked=False)
        rank = make.choose(f"{name}.rank", make.joint.rank, make.where((), operation, _has_rank))
        layers.append(replace(layer, rank=rank))
    return tuple(layers)


def add_cell(make: Builder, name: str, x: Tensor, operations: Sequence[Value], layers: Sequence[Layer]) -> None:
    """Adds the slots of a cell: one, or where weights are compressed, one for each edge.

    A slot of all edges would have to read the decisions of all of them.

    Args:
        make: Where to.
        name: Of the cell, its operators' group.
        x: What it reads, and writes.
        operations: Of its edges.
        layers: Of its edges.
    """
    options = tuple(make.options(o) for o in operations)
    together = len(make.joint.weight_bits) == len(make.joint.density) == len(make.joint.rank) == 1
    for edges in [tuple(range(len(EDGES)))] if together else [(edge,) for edge in range(len(EDGES))]:
        layer = layers[edges[0]]
        rank = compute(rank_of, x.channels, x.channels, layer.rank)
        make.alias(layer.rank, rank)
        place = name if together else f"{name}.{edge_name(edges[0])}"
        make.slot(place, lower_steps, compute(steps_of, edges, options, *operations), x.channels, x.size, x.bits,
                  layer.weight_bits, layer.sparsity, rank)  # fmt: skip


def steps_of(edges: tuple[int, ...], options: tuple[Cell, ...], *cell: str) -> tuple[Step, ...]:
    """The steps of some edges of the `representative` of a cell."""
    steps = _steps(representative(options, *cell))
    return tuple(chain.from_iterable(steps[edge] for edge in edges))


def lower_steps(
    name: str, steps: tuple[Step, ...], channels: int, size: Size, bits: int, w: int, sparsity: tuple[float, int],
    rank: int,
) -> tuple[Operator, ...]:  # fmt: skip
    """The operators of steps, each of which reads and writes ``channels`` maps of ``size`` of ``bits`` bits."""
    whole, operators = tensor_bytes(channels, size, bits), []
    for step in steps:
        weighs = step.kind == "conv"
        operator = Operator(
            step.kind, channels, channels, size, size, step.kernel, 1, 1, w if weighs else 32, bits, bits,
            sparsity[0] if weighs else 1.0, step.activation, pattern=sparsity[1] if weighs else 0,
            affine="norm" if weighs else "none", name=f"{name}.{step.name}",
            inputs=tuple([f"{name}.{i}" if i else f"{ENTRY}{name}" for i in step.inputs]),
            held_bytes=step.held * whole,
        )  # fmt: skip
        if step.kernel == 1 and weighs and rank:
            first, second = factorise(operator, rank)
            operators += [first, replace(second, held_bytes=(step.held + step.kept) * whole)]
        else:
            operators.append(operator)
    return tuple(operators)


@dataclass(slots=True)
class _Draft:
    """A step whose readers are not known yet."""

    edge: int
    kind: Kind
    name: str
    inputs: tuple[str, ...]
    kernel: int = 1
    activation: Activation = "none"


@cache
def _steps(cell: Cell) -> tuple[tuple[Step, ...], ...]:
    """The steps of each edge, in the order in which they run; the last one writes the cell's output."""
    drafts = _rectified_by_writers(_drafts(cell))
    last_read = {name: i for i, d in enumerate(drafts) for name in d.inputs}
    steps: list[list[Step]] = [[] for _ in EDGES]
    alive = {INPUT}
    for i, d in enumerate(drafts):
        alive = {name for name in alive if last_read[name] >= i}
        kept = d.kind == "conv" and d.kernel == 1 and last_read[d.inputs[0]] > i
        steps[d.edge].append(Step(d.kind, d.kernel, d.activation, len(alive) - 1, kept, d.name, d.inputs))
        alive.add(d.name)
    return tuple(map(tuple, steps))


def _drafts(cell: Cell) -> list[_Draft]:
    nodes = {0: INPUT}
    drafts: dict[str, _Draft] = {}

    def once(edge: int, kind: Kind, name: str, *inputs: str, kernel: int = 1, activation: Activation = "none") -> str:
        drafts.setdefault(name, _Draft(edge, kind, name, inputs, kernel, activation))
        return name

    for edge, ((source, target), operation) in enumerate(zip(EDGES, cell, strict=True)):
        if operation == NONE or source not in nodes:
            continue
        read, name = nodes[source], edge_name(edge)
        if operation == SKIP:
            term = read
        elif operation == POOL:
            term = once(edge, "pool", f"{read or 'input'}_pool", read, kernel=3)
        else:
            rectified = once(edge, "activate", f"{read or 'input'}_relu", read, activation="relu")
            term = once(edge, "conv", name, rectified, kernel=KERNELS[operation])
        nodes[target] = once(edge, "add", f"{name}_add", nodes[target], term) if target in nodes else term
    if OUTPUT not in nodes:
        once(len(EDGES) - 1, "zero", "zero", INPUT)
    return list(drafts.values())


def _rectified_by_writers(drafts: list[_Draft]) -> list[_Draft]:
    """The steps, where a convolution that only a rectifier reads does that itself."""
    readers: dict[str, list[_Draft]] = {}
    for d in drafts:
        for name in d.inputs:
            readers.setdefault(name, []).append(d)
    kept: list[_Draft] = []
    renamed: dict[str, str] = {}
    for d in drafts:
        if d.kind == "activate" and d.inputs[0] in renamed:
            renamed[d.name] = renamed[d.inputs[0]]
            continue
        if d.kind == "conv" and [r.kind for r in readers.get(d.name, [])] == ["activate"]:
            d.activation = "relu"
            renamed[d.name] = d.name
        d.inputs = tuple(renamed.get(name, name) for name in d.inputs)
        kept.append(d)
    return kept


def _has_weights(operation: str) -> bool:
    return operation in KERNELS


def _has_rank(operation: str) -> bool:
    return operation == CONV1
