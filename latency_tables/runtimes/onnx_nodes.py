"""Which operator each node of an ONNX graph belongs to; reads the file without the package onnx.

Needs the standard library alone: measuring kits carry it to boards.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

GRAPH, NODE = 7, 1
"""Fields of ModelProto and GraphProto."""
INPUT, OUTPUT, NAME = 1, 2, 3
"""Fields of NodeProto."""
JOINED = re.compile(r"(Gelu|BiasGelu|FastGelu|SkipLayerNormalization)(_token_\d+|_\d+)?")
"""Names that ONNX Runtime gives to nodes that it makes of several."""
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""How protobuf stores a field."""


@dataclass(frozen=True)
class Node:
    """A node of a graph: its name, and the tensors that it reads and writes."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def read_nodes(model: bytes) -> list[Node]:
    """The nodes of an ONNX file's graph, in order."""
    return [_node(node) for graph in _parts(model, GRAPH) for node in _parts(graph, NODE)]


def node_owners(nodes: Iterable[Node]) -> dict[str, str]:
    """The operator that each node of an optimised graph belongs to.

    A node called ``<operator>/<step>`` belongs to its operator, and so does one that reads ``<operator>/weight…``, as
    older versions of ONNX Runtime rename some nodes. One that joins several, whose names it loses (`JOINED`), belongs
    to the operator whose tensor it writes. One that the optimiser added, such as a change of layout, belongs to the
    operator that reads its output, or failing that to the one that wrote its input.
    """
    nodes = list(nodes)
    owners = {}
    for n in nodes:
        weights = [name for name in n.inputs if name.partition("/")[2].startswith("weight")]
        written = n.outputs[:1] if JOINED.fullmatch(n.name) else ()
        if named := [name for name in (n.name, *weights, *written) if "/" in name]:
            owners[n.name] = named[0].partition("/")[0]
    producer = {output: n.name for n in nodes for output in n.outputs}
    readers: dict[str, list[str]] = defaultdict(list)
    for n in nodes:
        for name in n.inputs:
            readers[name].append(n.name)
    for _ in range(len(nodes)):
        orphans = [n for n in nodes if n.name not in owners]
        if not orphans:
            break
        for n in reversed(orphans):
            near = [r for o in n.outputs for r in readers[o]] + [producer[i] for i in n.inputs if i in producer]
            if owner := next((owners[m] for m in near if m in owners), None):
                owners[n.name] = owner
    return owners


def _node(data: bytes) -> Node:
    inputs, outputs, (name,) = (tuple(p.decode() for p in _parts(data, f)) or ("",) for f in (INPUT, OUTPUT, NAME))
    return Node(name, inputs, outputs)


def _parts(data: bytes, wanted: int) -> Iterator[bytes]:
    """The contents of a message's fields of one number, of those that hold bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == VARINT:
            _, at = _varint(data, at)
        elif kind == BYTES:
            length, at = _varint(data, at)
            if tag >> 3 == wanted:
                yield data[at : at + length]
            at += length
        else:
            at += {FIXED64: 8, FIXED32: 4}[kind]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
