"""Which tensors of a traced model share the bits of a decision."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from hwnas.spaces.call_text import parse_call
from hwnas.spaces.traced.graph import PRODUCTS, Graph, Node, NodeKind

MOVERS: frozenset[NodeKind] = frozenset({"pad", "slice", "shuffle", "flatten", "pool"})
"""Kinds whose output is in the bits of their input."""


def precision_groups(graph: Graph) -> tuple[dict[str, str], frozenset[str]]:
    """The tensor, by its node's name, whose bits each tensor has; and which of these are always floats.

    What moves values has the bits of what it reads, a gated tensor those from before the gate, and concatenations and
    sums those of all that they read: what is left of a sum without its branch is then the other side as it is, rather
    than rounded once more. What the model returns is in float32, and so is what no layer with weights writes or reads.
    """
    parent = {node.name: node.name for node in graph}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    order = {node.name: i for i, node in enumerate(graph)}
    for node in graph:
        for name in _alike(node, graph):
            first, second = sorted((root(node.name), root(name)), key=order.__getitem__)
            parent[second] = first
    groups: dict[str, list[Node]] = defaultdict(list)
    for node in graph:
        groups[root(node.name)].append(node)
    names = {key: _title(own) for key, own in groups.items()}
    floats = {
        names[key]
        for key, own in groups.items()
        if graph.output in own or not any(_computes(node, graph) for node in own)
    }
    return {node.name: names[root(node.name)] for node in graph}, frozenset(floats)


def _alike(node: Node, graph: Graph) -> tuple[str, ...]:
    moves = node.kind == "call" and node is not graph.output and parse_call(node.attributes["call"]).moves
    if node.kind in MOVERS or moves:
        return node.inputs[:1]
    match node.kind:
        case "scale":
            return node.inputs[:1]
        case "concat" | "add":
            return node.inputs
    return ()


def _title(group: Sequence[Node]) -> str:
    """The name of the first layer with weights, or else of the first node."""
    return next((n.name for n in group if n.kind in PRODUCTS), group[0].name)


def _computes(node: Node, graph: Graph) -> bool:
    return node.kind in PRODUCTS or any(reader.kind in PRODUCTS for reader in graph.readers[node.name])
