"""The decisions and slots of a traced model's space, node by node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from hwnas.spaces.builder import Builder, Conditions, Layer
from hwnas.spaces.joint import FLOAT
from hwnas.spaces.operator import SAME
from hwnas.spaces.rank import Form, rank_of, taps_of
from hwnas.spaces.traced.branches import Branch, enclosing, find_branches
from hwnas.spaces.traced.channels import Bundles, described, find_channels, kept_bundles, passes_channels
from hwnas.spaces.traced.graph import PRODUCTS, Graph, Node
from hwnas.spaces.traced.lowering import (
    Spec,
    addition,
    channels_kept,
    channels_there,
    held_beside,
    product,
    read_input,
    same,
    step,
    waiting_bytes,
)
from hwnas.spaces.traced.precisions import precision_groups
from hwnas.spaces.traced.templates import alone, read_name, template_of
from hwnas.spaces.value import Choice, Constant, Value, compute, reads

MOST_COMBINATIONS = 2**12
"""Of options that decide what waits while a layer runs: beyond these, what waits is counted at its largest."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a node writes, as values."""

    channels: Value
    bits: Value


class Maker:
    """Adds the decisions and slots of a graph, node by node."""

    def __init__(self, graph: Graph, make: Builder) -> None:
        self.graph = graph
        self.make = make
        self.channels = find_channels(graph)
        self.branches, not_dropped = find_branches(graph)
        calls = {
            node.name: f"{described(node)}: computed as in the model, from floats"
            for node in graph
            if node.kind == "call" and not passes_channels(node, [graph[i] for i in node.inputs])
        }
        self.left: dict[str, str] = {**self.channels.left, **not_dropped, **calls}
        self.around = enclosing(self.branches, graph)
        self.edges = edges(graph)
        self.waiting = waiting(graph)
        self.present: dict[str, Value] = {}
        self.keeps: list[Value] = []
        self.bits: dict[str, Value] = {}
        self.written: dict[str, Written] = {}

    def add(self) -> None:
        """All of it."""
        for branch in sorted(self.branches, key=lambda b: -len(b.nodes)):  # the outer ones first
            self.present[branch.addition] = self.make.choose(
                f"{branch.name}.present", (False, True), self._when(self.around[branch.addition])
            )
        for width in self.channels.widths:
            options = _distinct(width.sizes, width.times, self.make.joint.keep)
            self.keeps.append(self.make.choose(f"{width.name}.keep", options, self._common(width.writers)))
        self._choose_bits()
        for node in self.graph:
            self.written[node.name] = Written(self._count(self.channels.layouts[node.name]), self.bits[node.name])
            self._slot(node)

    # ---- decisions --------------------------------------------------------------------------------------------------

    def _when(self, branches: Sequence[Branch]) -> Conditions:
        when: Conditions = ()
        for branch in branches:
            when = self.make.where(when, self.present[branch.addition], bool)
        return when

    def _common(self, names: Sequence[str]) -> Conditions:
        """Where any of several nodes exists: within the branches that all of them are in."""
        first, *others = (self.around[name] for name in names)
        return self._when([b for b in first if all(b in other for other in others)])

    def _choose_bits(self) -> None:
        groups, floats = precision_groups(self.graph)
        for title in dict.fromkeys(groups.values()):
            if title in floats:
                value: Value = Constant(32)
            elif title == self.graph.input.name:
                value = self.make.choose("input.act_bits", self.make.joint.edge_bits)
            else:
                members = [name for name, own in groups.items() if own == title]
                value = self.make.choose(f"{title}.act_bits", self.make.joint.act_bits, self._common(members))
            self.bits |= {name: value for name, own in groups.items() if own == title}

    def _count(self, layout: Bundles) -> Value:
        """How many channels remain of a layout."""
        fixed, parts = self.channels.parts(layout)
        numbers = sorted({width for width, _ in parts})
        spec: Spec = (
            fixed,
            tuple(
                (
                    self.channels.widths[w].sizes,
                    self.channels.widths[w].times,
                    tuple((s, each) for (own, s), each in sorted(parts.items()) if own == w),
                )
                for w in numbers
            ),
        )
        return compute(channels_kept, Constant(spec), *(self.keeps[w] for w in numbers))

    def _front(self, node: Node) -> Value:
        """Channels of zeros that a padding puts first, or channels before those that a slice takes."""
        layouts, front = self.channels.layouts, node.attributes.get("front", 0)
        return self._count(layouts[node.inputs[0] if node.kind == "slice" else node.name][:front])

    # ---- slots ------------------------------------------------------------------------------------------------------

    def _slot(self, node: Node) -> None:
        own = self.written[node.name]
        when = self._when(self.around[node.name])
        add = partial(self.make.slot, node.name, when=when, prefix=node.name)
        if node.kind == "input":
            self.make.slot(node.name, read_input, node.channels, Constant(node.size), own.bits, prefix=node.name)
            return
        source = self.written[node.inputs[0]]
        if self._only_named(node):
            add(same, Constant(read_name(node.inputs[0])), own.channels, own.bits)
            return
        held = self._held(node)
        template = Constant(template_of(node, self.graph))
        if node.kind in PRODUCTS:
            add(product, template, source.channels, own.channels, *self._layer(node, when), held, self._after(node))
        elif node.kind == "add" and node.name in self.present:
            branch = next(b for b in self.branches if b.addition == node.name)
            remaining = Constant(alone(node, self.graph, branch.kept))
            add(addition, template, remaining, own.channels, own.bits, held, self.present[node.name])
        elif node.kind == "concat":
            add(step, template, own.channels, own.channels, 0, source.bits, own.bits, held)
        else:
            if node.kind == "add":
                held = compute(held_beside, held, own.channels, Constant(node.size), own.bits)
            add(step, template, source.channels, own.channels, self._front(node), source.bits, own.bits, held)

    def _only_named(self, node: Node) -> bool:
        """Whether maps stay maps although the model makes vectors of them: linear layers flatten what they read."""
        readers = self.graph.readers[node.name]
        return node.kind == "flatten" and bool(readers) and all(reader.kind == "linear" for reader in readers)

    def _layer(self, node: Node, when: Conditions) -> tuple[Value, ...]:
        """Weight bits, bits of shared weights, bits read and written, sparsity, and factors of a layer with weights."""
        source, own = self.written[node.inputs[0]], self.written[node.name]
        edge, groups = node.name in self.edges, node.attributes.get("groups", 1)
        ranked = not edge and node.kind != "deconv" and groups == 1
        layer = self.make.layer(node.name, when, ranked=ranked, dense=groups > 1, edge=edge)
        size = node.kernel_size
        form: Value = Constant("channel")
        attributes = node.attributes
        spatial = ranked and min(size) > 1 and attributes["stride"] == 1 and attributes["margin"] == SAME
        if reads(layer.rank) and spatial:
            thin = self.make.where(when, layer.rank, lambda ratio: bool(ratio < 1))
            form = self.make.choose(f"{node.name}.form", ("channel", "spatial"), thin, ordinal=False)
        self._name_what_stays(node, ranked, spatial or min(size) == 1)
        factors = compute(_factors, source.channels, own.channels, layer.rank, Constant(size), form)
        if self._combinations(factors) <= MOST_COMBINATIONS:
            self.make.alias([layer.rank, form], factors)
        return (layer.weight_bits, self._shared(node, layer, when), source.bits, own.bits, layer.sparsity, factors)

    def _name_what_stays(self, node: Node, ranked: bool, any_form: bool) -> None:
        """Says why what others may lose is not asked of a layer."""
        joint, edge = self.make.joint, node.name in self.edges
        whole = "the first and last layers stay whole"
        if joint.rank != (1.0,) and not ranked:
            reason = whole if edge else "layers with groups, and transposed ones, do"
            self.left.setdefault(f"{node.name}.rank", f"its rank stays full: {reason}")
        elif joint.rank != (1.0,) and not any_form:
            reason = "the spatial form is for layers of stride 1 whose padding keeps their size"
            self.left.setdefault(f"{node.name}.form", f"its factors are by channels: {reason}")
        if joint.density != (1.0,) and (edge or node.attributes.get("groups", 1) > 1):
            reason = whole if edge else "layers with groups have few"
            self.left.setdefault(f"{node.name}.density", f"its weights all stay: {reason}")

    def _shared(self, node: Node, layer: Layer, when: Conditions) -> Value:
        """Bits of an index into the values that weights share: of floats, none of which is pruned."""
        if self.make.joint.shared == (FLOAT,):
            return Constant(FLOAT)
        floats = self.make.where(when, layer.weight_bits, lambda bits: bool(bits > 8))
        dense = self.make.where(floats, layer.sparsity, lambda sparsity: bool(sparsity[0] == 1))
        return self.make.choose(f"{node.name}.shared", self.make.joint.shared, dense)

    def _held(self, node: Node) -> Value:
        """Bytes of the tensors that wait while a node runs; of all beyond `MOST_COMBINATIONS` at their largest.

        What it reads beside its first input counts among them.
        """
        sizes: list[tuple[int, int]] = []
        arguments: list[Value] = []
        beside = node.inputs[1:] if node.kind in ("scale", "call") else ()
        readers = {name: [node.name] for name in beside} | self.waiting[node.name]
        for name, later in readers.items():
            own = [self._there(name, later, node), self.written[name].bits]
            if self._combinations(*arguments, *own) > MOST_COMBINATIONS:
                own = [Constant(self.graph[name].channels), Constant(32)]
            sizes.append(self.graph[name].size)
            arguments += own
        return compute(waiting_bytes, Constant(tuple(sizes)), *arguments)

    def _after(self, node: Node) -> Value:
        """Bytes of a node's input that later ones read, too."""
        name, order = node.inputs[0], {n.name: i for i, n in enumerate(self.graph)}
        later = [r.name for r in self.graph.readers[name] if order[r.name] > order[node.name]]
        if not later:
            return Constant(0)
        size = Constant((self.graph[name].size,))
        return compute(waiting_bytes, size, self._there(name, later, node), self.written[name].bits)

    def _there(self, name: str, later: Sequence[str], node: Node) -> Value:
        """Channels of a tensor that waits while a node runs; none where all that reads it later has been dropped."""
        here = {b.addition for b in self.around[node.name]}
        writer = [b.addition for b in self.around[name] if b.addition not in here]
        ways = [[*writer, *(b.addition for b in self.around[r] if b.addition not in here)] for r in later]
        names = list(dict.fromkeys(n for way in ways for n in way))
        if any(not way for way in ways):
            return self.written[name].channels
        numbered = tuple(tuple(names.index(n) for n in way) for way in ways)
        return compute(
            channels_there, Constant(numbered), self.written[name].channels, *(self.present[n] for n in names)
        )

    def _combinations(self, *values: Value) -> int:
        count = 1
        for name in reads(*values):
            count *= len(self.make.options(Choice(name)))
        return count


def _factors(cin: int, cout: int, ratio: float, kernel: tuple[int, int], form: Form) -> tuple[int, Form]:
    """The rank and the form of a layer's factors; a rank of 0 in the first form where it stays whole."""
    rank = rank_of(cin, cout, ratio, taps_of(kernel, form))
    return rank, form if rank else "channel"


def _distinct(sizes: tuple[int, ...], times: int, shares: Sequence[float]) -> tuple[float, ...]:
    """The shares that keep different numbers of channels; of equal ones the largest."""
    found = {kept_bundles(sizes, times, share): share for share in sorted(shares)}
    return tuple(sorted(found.values()))


def edges(graph: Graph) -> set[str]:
    """The layers with weights before which, and those behind which, there is none."""
    first, depth = set(), {graph.input.name: False}
    for node in graph.nodes[1:]:
        behind = any(depth[name] for name in node.inputs)
        if node.kind in PRODUCTS and not behind:
            first.add(node.name)
        depth[node.name] = behind or node.kind in PRODUCTS
    return first | last_layers(graph)


def last_layers(graph: Graph) -> set[str]:
    """The layers with weights behind which there is none."""
    last, reaches = set(), {graph.output.name}
    for node in reversed(graph.nodes):
        if node.name in reaches:
            if node.kind in PRODUCTS:
                last.add(node.name)
            else:
                reaches.update(node.inputs)
    return last


def waiting(graph: Graph) -> dict[str, dict[str, list[str]]]:
    """Of each node, the earlier tensors that it does not read and later ones do, and which these are."""
    order = {node.name: i for i, node in enumerate(graph)}
    result: dict[str, dict[str, list[str]]] = {}
    for i, node in enumerate(graph.nodes):
        later = {n.name: [r.name for r in graph.readers[n.name] if order[r.name] > i] for n in graph.nodes[:i]}
        result[node.name] = {name: own for name, own in later.items() if own and name not in node.inputs}
    return result
