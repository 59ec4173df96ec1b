"""Residual branches: what an addition adds to a shortcut, and can do without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hwnas.spaces.traced.graph import Graph
from hwnas.spaces.traced.templates import template_of


@dataclass(frozen=True)
class Branch:
    """One side of an addition, which may be dropped: the sum is then the other side.

    Attributes:
        name: Of the addition's place, such as ``layer1.0`` of ``layer1.0.add``.
        addition: The addition.
        dropped, kept: Names of the nodes that it reads.
        nodes: All nodes that run for the branch alone.
    """

    name: str
    addition: str
    dropped: str
    kept: str
    nodes: frozenset[str]


def find_branches(graph: Graph) -> tuple[list[Branch], dict[str, str]]:
    """The branches that may be dropped, and of other additions why none of theirs may."""
    branches: list[Branch] = []
    left: dict[str, str] = {}
    everything = graph.before([graph.output.name])
    macs = {layer.name: template_of(layer, graph).macs for layer in graph.products}
    for node in graph:
        if node.kind != "add" or node.inputs[0] == node.inputs[1]:
            continue
        sides: dict[str, set[str]] = {}
        for side, other in (node.inputs, node.inputs[::-1]):
            own = everything - graph.before([graph.output.name], without=(side, node.name))
            if other not in own and own & macs.keys():
                sides[side] = own
        if not sides:
            left[node.name] = "neither of what it adds is computed for it alone by a layer with weights"
            continue
        dropped = max(sides, key=lambda side: sum(macs.get(name, 0) for name in sides[side]))
        kept = node.inputs[1] if dropped == node.inputs[0] else node.inputs[0]
        name = node.name.rpartition(".")[0] or node.name
        name = name if all(b.name != name for b in branches) else node.name
        branches.append(Branch(name, node.name, dropped, kept, frozenset(sides[dropped])))
    return branches, left


def enclosing(branches: list[Branch], graph: Graph) -> Mapping[str, tuple[Branch, ...]]:
    """Of each node, the branches that it runs for."""
    return {node.name: tuple(b for b in branches if node.name in b.nodes) for node in graph}
