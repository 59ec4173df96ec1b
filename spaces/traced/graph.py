"""What a traced model computes, as plain data: nodes in the order they run. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from hwnas.spaces.errors import InvalidFileError

NodeKind = Literal[
    "input", "conv", "deconv", "linear", "activate", "add", "scale", "concat", "pool", "pad", "slice", "shuffle",
    "flatten", "call",
]  # fmt: skip
PRODUCTS: frozenset[NodeKind] = frozenset({"conv", "deconv", "linear"})
"""Kinds with weights that are quantised, factorised and cut."""


@dataclass(frozen=True)
class Node:
    """One step of a traced model, with the normalisation and activation that follow it and nothing else reads.

    Attributes:
        name: Where it is in the model, such as ``layer1.0.conv1``; unique.
        kind: As the kinds of `hwnas.spaces.operator.Operator`; ``flatten`` makes vectors of maps.
        inputs: Names of the nodes read.
        shape: Of what it writes, the batch left out: (channels, height, width), (features,), or (tokens, features).
        attributes: What its kind needs beside shapes: fields of the operator, such as ``stride`` or ``activation``.
        parameters: Names in the model's state, by role: ``weight``, ``bias``, ``slope`` of a PReLU, ``constants.0`` of
            a call; ``norm.weight``, ``norm.bias``, ``norm.mean``, ``norm.variance`` of a batch normalisation.
    """

    name: str
    kind: NodeKind
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def normalised(self) -> bool:
        """Whether a batch normalisation is part of it."""
        return "norm.mean" in self.parameters

    @property
    def kernel_size(self) -> tuple[int, int]:
        """Height and width of a convolution's kernel; 1 and 1 of what has none."""
        height = int(self.attributes.get("kernel", 1))
        return height, int(self.attributes.get("kernel_width", 0)) or height

    @property
    def channel_axis(self) -> int:
        """Which dimension of ``shape`` is that of channels or features; they come last where tokens are counted."""
        return 0 if len(self.shape) != 2 else 1

    @property
    def channels(self) -> int:
        """Channels or features."""
        return self.shape[self.channel_axis]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of maps; (tokens, 1) where there are tokens, and (1, 1) for vectors."""
        match self.shape:
            case (_, int(height), int(width)):
                return height, width
            case (int(tokens), _):
                return tokens, 1
            case _:
                return 1, 1


@dataclass(frozen=True)
class Graph:
    """A traced model.

    Attributes:
        nodes: In the order they run, an input first. The last one is what the model returns.
        left: What is left as it is, and why, by name.
    """

    nodes: tuple[Node, ...]
    left: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Node:
        return self.by_name[name]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    @cached_property
    def by_name(self) -> dict[str, Node]:
        """The nodes by name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def readers(self) -> dict[str, list[Node]]:
        """The nodes that read each node."""
        found: dict[str, list[Node]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                found[name].append(node)
        return found

    @property
    def input(self) -> Node:
        """What the model reads."""
        return self.nodes[0]

    @property
    def output(self) -> Node:
        """What the model returns."""
        return self.nodes[-1]

    @property
    def products(self) -> list[Node]:
        """Convolutions and linear layers."""
        return [node for node in self.nodes if node.kind in PRODUCTS]

    def before(self, names: Sequence[str], without: tuple[str, str] | None = None) -> set[str]:
        """These nodes and all that they depend on, where of a pair ``without`` the second does not read the first."""
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += [i for i in self[name].inputs if (i, name) != without]
        return found

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "nodes": [
                {
                    "name": n.name,
                    "kind": n.kind,
                    "inputs": list(n.inputs),
                    "shape": list(n.shape),
                    **({"attributes": dict(n.attributes)} if n.attributes else {}),
                    **({"parameters": dict(n.parameters)} if n.parameters else {}),
                }
                for n in self.nodes
            ],
            "left": dict(self.left),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Graph:
        """The graph of plain data; raises `InvalidFileError` where it is none."""
        try:
            nodes = [
                Node(
                    n["name"], n["kind"], tuple(n["inputs"]), tuple(n["shape"]),
                    {k: _tuples(v) for k, v in n.get("attributes", {}).items()}, dict(n.get("parameters", {})),
                )
                for n in data["nodes"]
            ]  # fmt: skip
            return cls(tuple(nodes), dict(data.get("left", {})))
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidFileError(f"this is no traced model: {type(error).__name__} {error}") from error


def renamed(node: Node, names: Mapping[str, str]) -> Node:
    """The node reading others in place of those that ``names`` replaces."""
    return replace(node, inputs=tuple(names.get(name, name) for name in node.inputs))


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
