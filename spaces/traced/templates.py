"""The operator of each step of a traced model, with everything that is not decided."""

from __future__ import annotations

from typing import Any

from hwnas.spaces.call_text import call_text
from hwnas.spaces.operator import Operator
from hwnas.spaces.traced.graph import Graph, Node

INPUT = "input.quantize"
"""What reads the model's input reads this."""


FLATTEN = call_text([("aten.reshape.default", [{"input": 0}, [{"batch": 1}, -1]], {})])
"""Maps made vectors, however many channels they have."""


def read_name(name: str) -> str:
    """What an operator reads that reads a node."""
    return INPUT if name == "input" else name


def template_of(node: Node, graph: Graph) -> Operator:
    """The operator of a node with everything that is not decided."""
    source = graph[node.inputs[0]]
    affine: Any = "norm" if node.normalised else "bias" if "bias" in node.parameters else "none"
    kind: Any = node.kind
    fields = node.attributes
    if kind == "flatten":
        kind, fields = "call", {"call": FLATTEN}
    cin = node.channels if node.kind == "concat" else source.channels
    in_size = (1, 1) if node.kind == "linear" and len(node.shape) == 1 else source.size
    inputs = tuple(map(read_name, node.inputs))
    return Operator(kind, cin, node.channels, in_size, node.size, affine=affine, inputs=inputs, **fields)


def alone(node: Node, graph: Graph, kept: str) -> Operator:
    """What is left of an addition that keeps one side: its activation, unless that side has been through it."""
    activation = node.attributes.get("activation", "none")
    if activation in ("relu", "relu6") and _is_through(graph[kept], graph, activation):
        activation = "none"
    kind: Any = "identity" if activation == "none" else "activate"
    return Operator(
        kind, node.channels, node.channels, node.size, node.size, activation=activation, inputs=(read_name(kept),)
    )


def _is_through(node: Node, graph: Graph, activation: str) -> bool:
    """Whether a tensor has been through a clipping, and since then was only moved."""
    while node.kind in ("pad", "slice", "shuffle", "pool", "flatten"):
        node = graph[node.inputs[0]]
    return node.attributes.get("activation") == activation
