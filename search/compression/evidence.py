"""Measures which of a model's channels matter, and what its layers read: once, for all candidates."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.spaces.compression.importance import ChannelEvidence, channel_scores, normalised
from hwnas.spaces.compression.patch_moments import PatchMoments
from hwnas.spaces.compression.taylor import TaylorGates
from hwnas.spaces.network import Network
from hwnas.spaces.traced.graph import Node
from hwnas.spaces.traced.model import TracedModel
from hwnas.spaces.traced.space import TracedSpace
from hwnas.spaces.traced.weights import Evidence
from hwnas.spaces.units import Unit

MOST_READ = 8192
"""Values of a patch whose second moments are measured: those of more would take gigabytes."""

Batches = Iterable[tuple[Tensor, Tensor]]


def find_evidence(model: TracedModel, space: TracedSpace, batches: Batches, criterion: str) -> Evidence:
    """The importance of the model's channels, and the second moments of what its layers read.

    Args:
        model: Trained.
        space: Of the model; what it does not decide is not measured.
        batches: Images as the model reads them, and their labels.
        criterion: Of `hwnas.spaces.compression.importance.CRITERIA`.
    """
    network, kept = model.network, list(batches)
    writers = [space.graph[name] for name in dict.fromkeys(n for w in space.channels.widths for n in w.writers)]
    taylor = _taylor(network, writers, kept) if criterion == "taylor" else {}
    importance = dict.fromkeys(space.channels.segment_of, 0.0)
    for node in writers:
        found = channel_scores(criterion, ChannelEvidence(filters(node, model), taylor.get(node.name)))
        for bundle, score in zip(space.channels.layouts[node.name].tolist(), normalised(found).tolist(), strict=True):
            if bundle in importance:
                importance[bundle] += score
    return Evidence(importance, _moments(network, space, kept))


def reads_much(space: TracedSpace) -> dict[str, int]:
    """The layers that may be factorised and read more than `MOST_READ` values, and how many.

    Their factors are those of least error in the weights, not on data.
    """
    found = {}
    for node in space.graph.products:
        values = space.graph[node.inputs[0]].channels * math.prod(node.kernel_size)
        if len(space.options.get(f"{node.name}.rank", ())) > 1 and values > MOST_READ:
            found[node.name] = values
    return found


def filters(node: Node, model: TracedModel) -> Tensor:
    """The filters of a layer's output channels, (out, …), also of a transposed convolution."""
    weight = model.state[node.parameters["weight"]]
    if node.kind != "deconv":
        return weight
    groups = node.attributes.get("groups", 1)
    return weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)


def _taylor(network: Network, writers: list[Node], batches: Batches) -> dict[str, Tensor]:
    """Of each layer's channels behind its normalisation, by the layer's name."""
    modules: dict[str, nn.Module] = {}
    units = units_of(network)
    for node in writers:
        unit = units[node.name]
        modules[node.name] = unit.norm if unit.norm is not None else unit
    network.eval()
    with TaylorGates(modules) as gates:
        for images, labels in batches:
            gates.add(functional.cross_entropy(network(images), labels))
    return gates.scores()


def units_of(network: Network) -> dict[str, Unit]:
    """The modules of a network by the names of their operators, which are those of the model's nodes."""
    return {operator.name: network.unit(operator) for operator in network.workload.operators}


@torch.no_grad()
def _moments(network: Network, space: TracedSpace, batches: Batches) -> dict[tuple[str, str], Tensor]:
    """By layer and form of its factors, of the layers whose rank is decided."""
    found: dict[tuple[str, str], PatchMoments] = {}
    units = units_of(network)
    too_wide = reads_much(space)
    hooks = []
    for node in space.graph.products:
        own: dict[str, PatchMoments] = {}
        if node.name in too_wide:
            continue
        if len(space.options.get(f"{node.name}.rank", ())) > 1:
            own["channel"] = _patches(node, units[node.name])
        if "spatial" in space.options.get(f"{node.name}.form", ()):
            own["spatial"] = _patches(node, units[node.name], vertical=True)
        if own:
            hooks.append(units[node.name].register_forward_pre_hook(_adding(list(own.values()))))
            found |= {(node.name, form): moments for form, moments in own.items()}
    network.eval()
    try:
        for images, _ in batches:
            network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return {key: moments.matrix().float() for key, moments in found.items()}


def _adding(moments: list[PatchMoments]) -> Any:
    def hook(unit: Unit, inputs: tuple[Tensor, ...]) -> None:
        (x, *_) = inputs
        if unit.operator.kind == "linear" and not unit.operator.on_tokens:
            x = x.flatten(1)
        for each in moments:
            each.add(x)

    return hook


def _patches(node: Node, unit: Unit, *, vertical: bool = False) -> PatchMoments:
    if node.kind == "linear":
        return PatchMoments()
    o = unit.operator
    make = PatchMoments.vertical if vertical else PatchMoments
    return make(o.kernel_size, (o.stride,) * 2, o.paddings, (o.dilation,) * 2)
