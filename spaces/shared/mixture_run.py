"""Runs a mixture: every form of every node once, inputs, channels and forms weighted by the chances that they have."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.operator import NETWORK_INPUT
from hwnas.spaces.shared.events import ALWAYS, Event
from hwnas.spaces.shared.mixture import Form, Mixture, Node, Sources

Run = Callable[..., Tensor]
"""Computes an operator: `SharedNetwork.run`."""


def run_mixture(run: Run, mixture: Mixture, images: Tensor, probabilities: Mapping[str, Tensor]) -> Tensor:
    """The logits (n, classes) of a mixture; those of the one network, where each decision has one option of weight 1.

    Channels are mixed as in FBNetV2 (Wan et al., CVPR 2020, section 3.1): the widest tensor is computed once, and
    multiplied by the sum of the masks of all widths, Σᵢ gᵢ · maskᵢ, after every layer with weights but those of gates.
    Kernels, precisions, blocks and depths are mixed as sums of the few alternatives, each weighted by its chance where
    the reader exists, as in FBNet (Wu et al., CVPR 2019, section 3.3). Decisions are taken as independent of one
    another, and the forms and widths of an operator as independent of what reads it.

    Deviations: options of weight 0 are not run, and get no gradient unless they differ in channels alone. Layers that
    `hwnas.spaces.shared.mixture` has a form per width of are run once for each.

    Normalisations use the batch's statistics in training mode, but record none: a mixture's are no candidate's.

    Args:
        run: Computes an operator.
        mixture: What there is to compute.
        images: (n, channels, height, width).
        probabilities: For each decision of the mixture, the weight of each option (options,), which sum to 1.

    Raises:
        InvalidSpaceError: Weights of another shape.
    """
    for name, count in mixture.options.items():
        if probabilities[name].shape != (count,):
            raise InvalidSpaceError(
                f"{name} has {count} options, but its probabilities have the shape {tuple(probabilities[name].shape)}"
            )
    chances = _Chances(mixture, probabilities)
    values = {NETWORK_INPUT: images}
    for name, node in mixture.nodes.items():
        if chances.is_possible(node.event):
            values[name] = _node(run, values, node, chances)
    classes = max(mixture.nodes[name].channels for name in mixture.output)
    return _blend(values, mixture.output, ALWAYS, classes, chances)


class _Chances:
    """Probabilities of all events of a mixture."""

    def __init__(self, mixture: Mixture, probabilities: Mapping[str, Tensor]) -> None:
        self._places, tables = mixture.tables
        example = next(iter(probabilities.values()))
        parts = []
        for names, table in tables:
            joint = torch.ones(1, dtype=example.dtype, device=example.device)
            for name in names:
                joint = torch.outer(joint, probabilities[name]).flatten()
            parts.append(torch.from_numpy(table).to(joint) @ joint)
        self._values = torch.cat(parts)
        self._known: list[float] = self._values.tolist()

    def is_possible(self, event: Event) -> bool:
        return self._known[self._places[event.key]] > 0

    def given(self, event: Event, condition: Event) -> Tensor:
        """The probability of an event, which is part of the condition, where that holds."""
        return self._values[self._places[event.key]] / self._values[self._places[condition.key]]


def _node(run: Run, values: Mapping[str, Tensor], node: Node, chances: _Chances) -> Tensor:
    """The outputs of a node's forms, each times Σᵢ gᵢ · maskᵢ of its widths, added up."""
    results = []
    for form in node.forms.values():
        if chances.is_possible(form.event):
            inputs = [_blend(values, s, form.event, form.operator.in_channels, chances) for s in form.inputs]
            y = run(form.operator, inputs, record=False)
            if node.masked and len(form.widths) > 1:
                y = y * _mask(form, node.event, chances).view(1, -1, *[1] * (y.ndim - 2))
            elif len(node.forms) > 1:
                y = y * chances.given(form.event, node.event)
            results.append(_fit(y, node.channels))
    return sum(results[1:], results[0])


def _mask(form: Form, where: Event, chances: _Chances) -> Tensor:
    """Σᵢ gᵢ · maskᵢ, shape (channels,)."""
    shares = torch.stack([chances.given(event, where) for event in form.widths.values()])
    widths = torch.tensor(list(form.widths), device=shares.device)
    within = torch.arange(form.operator.out_channels, device=shares.device) < widths[:, None]
    return shares @ within.to(shares.dtype)


def _blend(values: Mapping[str, Tensor], sources: Sources, where: Event, channels: int, chances: _Chances) -> Tensor:
    """What is read in an event: the sources, cut or filled with zeros to a number of channels, weighted."""
    if len(sources) == 1:
        return _fit(values[next(iter(sources))], channels)
    terms = [
        _fit(values[source], channels) * chances.given(event, where)
        for source, event in sources.items()
        if chances.is_possible(event)
    ]
    return sum(terms[1:], terms[0])


def _fit(x: Tensor, channels: int) -> Tensor:
    if x.shape[1] >= channels:
        return x[:, :channels]
    return functional.pad(x, (0, 0) * (x.ndim - 2) + (0, channels - x.shape[1]))
