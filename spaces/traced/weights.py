"""Gives a candidate's network its share of what the traced model has learnt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwnas.spaces.compression.low_rank import factor_channel, factor_spatial
from hwnas.spaces.decision import Option
from hwnas.spaces.network import Network
from hwnas.spaces.operator import Operator
from hwnas.spaces.rank import is_factor
from hwnas.spaces.traced.channels import Channels
from hwnas.spaces.traced.graph import PRODUCTS, Node
from hwnas.spaces.traced.space import TracedSpace
from hwnas.spaces.units import ProductUnit, Unit

Indexes = NDArray[np.int64]


@dataclass(frozen=True)
class Evidence:
    """What was found out about a model, that says what to keep of it.

    Attributes:
        importance: Of each bundle of channels that may go; those of least importance go first.
        moments: E[x xᵀ] of what the layers read, by layer and `hwnas.spaces.rank.Form`; factors of layers that are not
            there are those of least error in the weights.
    """

    importance: Mapping[int, float]
    moments: Mapping[tuple[str, str], Tensor] = field(default_factory=dict)


def kept_channels(channels: Channels, options: Mapping[str, Option], importance: Mapping[int, float]) -> set[int]:
    """The bundles that a candidate keeps of those that may go.

    Args:
        channels: Of the space.
        options: Of all decisions, also of those that are fixed.
        importance: Of each bundle; of equal ones the first are kept.
    """
    kept: set[int] = set()
    for width in channels.widths:
        counts = width.kept(float(options[f"{width.name}.keep"]))
        for segment, count in zip(width.segments, counts, strict=True):
            order = segment if count == len(segment) else sorted(segment, key=lambda bundle: -importance[bundle])
            kept.update(order[:count])
    return kept


@torch.no_grad()
def compressed(
    space: TracedSpace, candidate: Mapping[str, Option], state: Mapping[str, Tensor], evidence: Evidence
) -> Network:
    """The network of a candidate with the model's weights: channels chosen, layers factorised.

    Statistics of normalisations are the model's, and ranges of quantisers are not set: calibrate both.

    Args:
        space: Of the model.
        candidate: Which.
        state: What the model has learnt, by the names that its graph has.
        evidence: What to keep.
    """
    options = {**space.fixed, **space.decode(space.encode(candidate))}
    network = space.build(candidate)
    kept = kept_channels(space.channels, options, evidence.importance)
    stays = {
        name: np.array([i for i, b in enumerate(layout) if b not in space.channels.segment_of or b in kept])
        for name, layout in space.channels.layouts.items()
    }
    units = {operator.name: network.unit(operator) for operator in network.workload.operators}
    for node in space.graph:
        if node.parameters and node.name in units:  # a dropped branch has none
            read, whole = stays[node.inputs[0]], space.graph[node.inputs[0]].channels
            _give(units, node, state, stays[node.name], read, whole, evidence.moments)
    return network.eval()


def _give(
    units: Mapping[str, Unit], node: Node, state: Mapping[str, Tensor], out: Indexes, read: Indexes, whole: int,
    moments: Mapping[tuple[str, str], Tensor],
) -> None:  # fmt: skip
    unit = units[node.name]
    own = {role: state[name] for role, name in node.parameters.items()}
    bias = own.get("bias")
    if node.kind in PRODUCTS:
        weight = cut_weight(own["weight"], node, out, read)
        if is_factor(unit.operator):
            first_unit = cast(ProductUnit, units[f"{node.name}_in"])
            first, second = _factors(weight, node, read, whole, first_unit.operator, moments)
            first_unit.layer.weight.copy_(first)
            _layer(unit).weight.copy_(second)
        else:
            _layer(unit).weight.copy_(weight)
        if bias is not None and unit.norm is None:
            assert _layer(unit).bias is not None
            cast(Tensor, _layer(unit).bias).copy_(bias[out])
    if unit.norm is not None:
        _give_norm(unit.norm, node, own, out, bias)
    if "slope" in own:
        cast(nn.PReLU, unit.activation).weight.copy_(own["slope"].expand(node.channels)[out])
    for role, tensor in own.items():
        if role.startswith("constants."):
            getattr(unit, role.replace("constants.", "constant_")).copy_(tensor)


def _layer(unit: Unit) -> nn.Conv2d | nn.ConvTranspose2d | nn.Linear:
    return cast(ProductUnit, unit).layer


def _give_norm(norm: nn.BatchNorm2d, node: Node, own: Mapping[str, Tensor], out: Indexes, bias: Tensor | None) -> None:
    """A bias before the normalisation is one less in its mean."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean = own["norm.mean"] if bias is None else own["norm.mean"] - bias
    norm.running_mean.copy_(mean[out])
    norm.running_var.copy_(own["norm.variance"][out])
    norm.weight.copy_(own["norm.weight"][out] if "norm.weight" in own else torch.ones(len(out)))
    norm.bias.copy_(own["norm.bias"][out] if "norm.bias" in own else torch.zeros(len(out)))


def cut_weight(weight: Tensor, node: Node, out: Indexes, read: Indexes) -> Tensor:
    """The part of a layer's weights for the channels that it still writes and reads, by their indexes.

    Args:
        weight: Of a convolution (out, in/groups, …), transposed convolution (in, out/groups, …), or linear layer.
        node: The layer.
        out, read: Indexes of channels, in order.
    """
    groups = node.attributes.get("groups", 1)
    first, second = (read, out) if node.kind == "deconv" else (out, read)
    width = weight.shape[1]
    channels = len(weight) if node.kind == "deconv" else width * groups
    whole = np.arange(width) if groups == channels else second[second < width]  # depthwise layers lose groups instead
    within = second if groups == 1 else whole
    return weight[torch.as_tensor(first)][:, torch.as_tensor(within)]


def _factors(
    weight: Tensor, node: Node, read: Indexes, whole: int, first: Operator, moments: Mapping[tuple[str, str], Tensor]
) -> tuple[Tensor, Tensor]:
    """Of weights cut already; of ``whole`` channels that the layer reads in the model, ``read`` are left."""
    form = "spatial" if node.kind == "conv" and first.kernel_size != node.kernel_size else "channel"
    moment = moments.get((node.name, form))
    if moment is not None:
        taps = len(moment) // whole
        where = torch.as_tensor((read[:, None] * taps + np.arange(taps)).ravel())
        moment = moment[where][:, where]
    factor = factor_spatial if form == "spatial" else factor_channel
    return factor(weight, first.out_channels, moment)
