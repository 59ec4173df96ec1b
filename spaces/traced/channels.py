"""Which channels of a traced model stand and fall together: found from its graph, channel by channel.

Every channel that a product writes is followed through the graph. Additions, depthwise convolutions and gates make
channels one, group convolutions and shuffles those in the same place of each group, and what hwnas cannot look into
holds on to all that it reads. What has become one is a bundle: to remove it, each layer that writes a part of it loses
a filter, and each that reads a part the weights for it. Dependency groups in the sense of Fang et al., "DepGraph:
Towards Any Structural Pruning" (CVPR 2023), but of single channels, so that concatenations, slices, and shortcuts that
add channels of zeros (ResNet's option A) need no rules of their own.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from hwnas.spaces.call_text import parse_call
from hwnas.spaces.traced.graph import PRODUCTS, Graph, Node
from hwnas.spaces.traced.operations import ELEMENTWISE, SPATIAL

Bundles = NDArray[np.int64]
MULTIPLE = 8
"""Channels are kept by so many, as kernels work on blocks of them."""


@dataclass(frozen=True)
class Width:
    """Bundles that a decision may take away from, because the same layers write them.

    Attributes:
        name: Of the layer that writes them first.
        writers: Names of all products that write a part of them.
        segments: Its bundles, those together that are in the same places of all tensors, in order.
        times: How many channels of the first writer a bundle is.
    """

    name: str
    writers: tuple[str, ...]
    segments: tuple[tuple[int, ...], ...]
    times: int

    @property
    def total(self) -> int:
        """Its bundles."""
        return sum(map(len, self.segments))

    def kept(self, share: float) -> tuple[int, ...]:
        """See `kept_bundles`."""
        return kept_bundles(self.sizes, self.times, share)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The bundles of each segment."""
        return tuple(map(len, self.segments))


@cache
def kept_bundles(sizes: tuple[int, ...], times: int, share: float) -> tuple[int, ...]:
    """How many bundles of each segment remain where a share of all does, as a multiple of 8 channels.

    Segments lose in proportion; what does not divide is kept in the first ones.

    Args:
        sizes: Bundles of each segment.
        times: Channels of a layer that each of them is.
        share: Of all of them.
    """
    whole = sum(sizes)
    multiple = MULTIPLE // math.gcd(MULTIPLE, times)
    total = whole if share >= 1 else min(whole, max(multiple, int(whole * share / multiple + 0.5) * multiple))
    exact = [size * total / whole for size in sizes]
    counts = [int(e) for e in exact]
    order = sorted(range(len(exact)), key=lambda i: counts[i] - exact[i])
    for i in order[: total - sum(counts)]:
        counts[i] += 1
    return tuple(counts)


@dataclass(frozen=True)
class Channels:
    """The bundles of a graph.

    Attributes:
        layouts: Of each node, the bundle of every channel that it writes, in order, shape (channels,).
        widths: What may be taken away.
        left: Nodes whose channels all stay, and why.
    """

    layouts: Mapping[str, Bundles]
    widths: tuple[Width, ...]
    left: Mapping[str, str]

    @cached_property
    def segment_of(self) -> dict[int, tuple[int, int]]:
        """The width and the segment, by number, of each bundle that may go."""
        return {
            bundle: (w, s)
            for w, width in enumerate(self.widths)
            for s, segment in enumerate(width.segments)
            for bundle in segment
        }

    def parts(self, layout: Bundles) -> tuple[int, dict[tuple[int, int], int]]:
        """How many channels of a layout always stay, and how many of it each kept bundle of each segment is."""
        fixed = 0
        counts: dict[tuple[int, int], int] = defaultdict(int)
        for bundle in layout.tolist():
            if bundle in self.segment_of:
                counts[self.segment_of[bundle]] += 1
            else:
                fixed += 1
        sizes = {key: len(self.widths[key[0]].segments[key[1]]) for key in counts}
        return fixed, {key: count // sizes[key] for key, count in counts.items()}


class _Follower:
    """Follows channels through a graph; a union-find over them."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.parent: list[int] = []
        self.layouts: dict[str, Bundles] = {}
        self.held: dict[int, str] = {}
        self.places: dict[int, list[tuple[str, int]]] = defaultdict(list)

    def new(self, n: int) -> Bundles:
        """So many channels of their own."""
        start = len(self.parent)
        self.parent += range(start, start + n)
        return np.arange(start, start + n)

    def root(self, channel: int) -> int:
        while self.parent[channel] != channel:
            self.parent[channel] = self.parent[self.parent[channel]]
            channel = self.parent[channel]
        return channel

    def unite(self, first: Bundles, second: Bundles) -> None:
        """Makes channels in the same place one; the older name stays."""
        for a, b in zip(first.ravel().tolist(), second.ravel().tolist(), strict=True):
            a, b = sorted((self.root(a), self.root(b)))
            self.parent[b] = a

    def hold(self, channels: Bundles, reason: str) -> None:
        """Keeps channels, whatever is decided."""
        for channel in channels.ravel().tolist():
            self.held.setdefault(channel, reason)

    def place(self, channels: Bundles, what: str, zone: int) -> None:
        """Notes where in a tensor channels are, so that only those in the same places share a segment."""
        for channel in channels.ravel().tolist():
            self.places[channel].append((what, zone))

    def follow(self, node: Node) -> Bundles:
        """What a node writes, from the layouts of what it reads."""
        inputs = [self.layouts[name] for name in node.inputs]
        match node.kind:
            case "input":
                own = self.new(node.channels)
                self.hold(own, "it is the model's input")
                return own
            case "conv" | "deconv" | "linear":
                return self._product(node, inputs[0])
            case "add" | "scale":
                self.unite(*inputs)
                return inputs[0]
            case "concat":
                return np.concatenate(inputs)
            case "pad":
                own = self.new(node.channels - len(inputs[0]))
                front = node.attributes["front"]
                self.place(own[:front], node.name, 0)
                self.place(own[front:], node.name, 1)
                return np.concatenate([own[:front], inputs[0], own[front:]])
            case "slice":
                front, end = node.attributes["front"], node.attributes["front"] + node.channels
                for zone, part in enumerate(np.split(inputs[0], [front, end])):
                    self.place(part, node.name, zone)
                return inputs[0][front:end]
            case "shuffle":
                groups = inputs[0].reshape(node.attributes["groups"], -1)
                for other in groups[1:]:
                    self.unite(groups[0], other)
                return groups.T.ravel()
            case "flatten":
                size = self.graph[node.inputs[0]].size
                return np.repeat(inputs[0], size[0] * size[1])
            case "call":
                return self._call(node, inputs)
        return inputs[0]

    def _product(self, node: Node, read: Bundles) -> Bundles:
        groups = node.attributes.get("groups", 1)
        own = self.new(node.channels)
        if groups == 1:
            return own
        if groups == len(read):
            self.unite(np.repeat(read, len(own) // groups), own)
            return own
        for layout in (read.reshape(groups, -1), own.reshape(groups, -1)):
            for other in layout[1:]:
                self.unite(layout[0], other)
        return own

    def _call(self, node: Node, inputs: Sequence[Bundles]) -> Bundles:
        if passes_channels(node, [self.graph[name] for name in node.inputs]):
            for other in inputs[1:]:
                self.unite(inputs[0], other)
            return inputs[0]
        for layout in inputs:
            self.hold(layout, f"{node.name} reads it: {described(node)}, which hwnas does not cut")
        own = self.new(node.channels)
        self.hold(own, f"{described(node)} writes it")
        return own


def passes_channels(node: Node, inputs: Sequence[Node]) -> bool:
    """Whether a call computes each channel from the same channel of what it reads, and nothing else."""
    first, *others = parse_call(node.attributes["call"]).steps
    if others or node.parameters or any(i.channels != node.channels for i in inputs):
        return False
    if first.op in SPATIAL:
        return len(node.shape) == 3
    if first.op in ELEMENTWISE:
        return all(i.shape == node.shape for i in inputs)
    return first.op == "aten.reshape.default" and first.args[1][1] == -1


def described(node: Node) -> str:
    """The operations of a call, such as "layer_norm, linear"."""
    return ", ".join(dict.fromkeys(parse_call(node.attributes["call"]).names))


def find_channels(graph: Graph) -> Channels:
    """The bundles of a graph, and which of them a decision may take away."""
    follower = _Follower(graph)
    for node in graph:
        follower.layouts[node.name] = follower.follow(node)
    follower.hold(follower.layouts[graph.output.name], "it is what the model returns")
    for name in graph.left:
        if name in graph.by_name:
            node = graph[name]
            for layout in (follower.layouts[name], *(follower.layouts[i] for i in node.inputs)):
                follower.hold(layout, graph.left[name])
    roots = np.array([follower.root(c) for c in range(len(follower.parent))])
    held = {int(roots[c]): reason for c, reason in follower.held.items()}
    layouts = {name: roots[layout] for name, layout in follower.layouts.items()}
    widths, left = _widths(graph, layouts, held, _signatures(graph, layouts, follower, roots))
    return Channels(layouts, tuple(widths), left)


def _signatures(
    graph: Graph, layouts: Mapping[str, Bundles], follower: _Follower, roots: Bundles
) -> dict[int, tuple[tuple[str, int], ...]]:
    """In which tensors each bundle is, how often, and in which zones of them."""
    found: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for node in graph:
        bundles, counts = np.unique(layouts[node.name], return_counts=True)
        for bundle, count in zip(bundles.tolist(), counts.tolist(), strict=True):
            found[bundle].append((node.name, count))
    for channel, places in follower.places.items():
        found[int(roots[channel])] += [(f"{what}/{zone}", 1) for what, zone in places]
    return {bundle: tuple(sorted(own)) for bundle, own in found.items()}


def _widths(
    graph: Graph,
    layouts: Mapping[str, Bundles],
    held: Mapping[int, str],
    signatures: Mapping[int, tuple[tuple[str, int], ...]],
) -> tuple[list[Width], dict[str, str]]:
    writers: dict[int, list[str]] = defaultdict(list)
    left: dict[str, str] = {}
    for node in graph:
        if node.kind in PRODUCTS:
            for bundle in dict.fromkeys(layouts[node.name].tolist()):
                writers[bundle].append(node.name)
                if bundle in held:
                    left.setdefault(node.name, held[bundle])
    groups: dict[tuple[str, ...], dict[tuple[tuple[str, int], ...], list[int]]] = {}
    for bundle, names in sorted(writers.items()):
        if bundle not in held:
            groups.setdefault(tuple(names), {}).setdefault(signatures[bundle], []).append(bundle)
    widths: list[Width] = []
    for own, segments in groups.items():
        first = layouts[own[0]].tolist()
        (bundle, *_), *_ = segments.values()
        taken = [w.writers[0] for w in widths].count(own[0])
        name = f"{own[0]}_{taken + 1}" if taken else own[0]
        width = Width(name, own, tuple(map(tuple, segments.values())), first.count(bundle))
        if width.kept(0.01) == width.kept(1.0):
            for writer in own:
                left.setdefault(writer, f"it has {width.total * width.times} channels, of which none can go")
        else:
            widths.append(width)
    return widths, left
