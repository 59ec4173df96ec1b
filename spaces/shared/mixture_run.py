"""Runs a mixture: every node once, its inputs and channels weighted by the chances that candidates have them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.shared.events import ALWAYS, Event
from hwnas.spaces.shared.mixture import IMAGES, Mixture, Node, Sources

Run = Callable[..., Tensor]
"""Computes an operator: `SharedNetwork.run`."""


def run_mixture(run: Run, mixture: Mixture, images: Tensor, probabilities: Mapping[str, Tensor]) -> Tensor:
    """The logits (n, classes) of a mixture; those of the one network, where each decision has one option of weight 1.

    Channels are mixed as in FBNetV2 (Wan et al., CVPR 2020, section 3.1): the widest tensor is computed once, and
    multiplied by the sum of the masks of all widths, Σᵢ gᵢ · maskᵢ. Kernels, precisions, blocks and depths are mixed as
    sums of the few alternatives, each weighted by its chance where the reader exists, as in FBNet (Wu et al., CVPR
    2019, equation 5). Decisions are taken as independent of one another. One deviation: options of weight 0 are not
    run, and get no gradient unless they differ in channels alone.

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
    values = {IMAGES: images}
    for number in mixture.order:
        node = mixture.nodes[number]
        if chances.is_possible(node.event):
            inputs = [_blend(values, s, node.event, node.operator.in_channels, chances) for s in node.inputs]
            y = run(node.operator, inputs, record=False)
            values[number] = y if len(node.widths) == 1 else y * _mask(node, chances).view(1, -1, *[1] * (y.ndim - 2))
    classes = max(mixture.nodes[source].operator.out_channels for source in mixture.output)
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


def _blend(values: Mapping[int, Tensor], sources: Sources, where: Event, channels: int, chances: _Chances) -> Tensor:
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


def _mask(node: Node, chances: _Chances) -> Tensor:
    """Σᵢ gᵢ · maskᵢ, shape (channels,)."""
    shares = torch.stack([chances.given(event, node.event) for event in node.widths.values()])
    widths = torch.tensor(list(node.widths), device=shares.device)
    within = torch.arange(node.operator.out_channels, device=shares.device) < widths[:, None]
    return shares @ within.to(shares.dtype)
