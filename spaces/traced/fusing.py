"""Joins steps of a graph that run as one: a normalisation and an activation with what they follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hwnas.spaces.traced.graph import Graph, Node, renamed

Join = Callable[[Node, Node], Node | None]


def fused(graph: Graph) -> Graph:
    """The graph without steps that nothing reads, and with those joined that run as one."""
    for join in (_norm, _activation, _pad):
        graph = _joined(_without_unread(graph), join)
    return graph


def _without_unread(graph: Graph) -> Graph:
    needed = graph.before([graph.output.name]) | {graph.input.name}
    return Graph(tuple(n for n in graph if n.name in needed), graph.left)


def _joined(graph: Graph, join: Join) -> Graph:
    """Each node that alone reads another is joined with it, where ``join`` says how; the joined node has its name."""
    nodes: dict[str, Node] = {}
    names: dict[str, str] = {}
    for node in graph:
        own = renamed(node, names)
        first = nodes.get(own.inputs[0]) if len(own.inputs) == 1 else None
        alone = first is not None and len(graph.readers[node.inputs[0]]) == 1 and first.kind != "input"
        both = join(first, own) if first is not None and alone else None
        if both is None:
            nodes[own.name] = own
        else:
            assert first is not None
            del nodes[first.name]
            names[first.name] = names[node.name] = both.name
            nodes[both.name] = both
    last = names.get(graph.output.name, graph.output.name)
    order = [n for n in nodes.values() if n.name != last] + [nodes[last]]
    return Graph(tuple(order), graph.left)


def _norm(first: Node, second: Node) -> Node | None:
    """A normalisation after a convolution that has no activation."""
    is_norm = second.kind == "activate" and second.normalised and "activation" not in second.attributes
    if first.kind not in ("conv", "deconv") or not is_norm or first.normalised or "activation" in first.attributes:
        return None
    norm = {role: name for role, name in second.parameters.items() if role.startswith("norm.")}
    attributes = {**first.attributes, "epsilon": second.attributes["epsilon"]}
    return replace(first, attributes=attributes, parameters={**first.parameters, **norm})


def _activation(first: Node, second: Node) -> Node | None:
    """An activation after something that computes, and has none yet."""
    plain = second.kind == "activate" and not second.normalised
    if first.kind not in ("conv", "deconv", "linear", "add", "activate") or not plain:
        return None
    if "activation" in first.attributes:
        return None
    return replace(
        first,
        attributes={**first.attributes, **second.attributes},
        parameters={**first.parameters, **second.parameters},
    )


def _pad(first: Node, second: Node) -> Node | None:
    """Rows and columns left out, then channels of zeros added."""
    if first.kind != "pad" or second.kind != "pad" or second.attributes["stride"] != 1:
        return None
    front = first.attributes["front"] + second.attributes["front"]
    return replace(second, inputs=first.inputs, attributes={**first.attributes, "front": front})
