"""How much each output channel of a layer matters: one function per criterion, from the same evidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hwnas.spaces.errors import InvalidOptionError, UnknownNameError


@dataclass(frozen=True, slots=True)
class ChannelEvidence:
    """What is known of a layer's output channels.

    Attributes:
        weight: The filters, (out, in, …).
        taylor: The Taylor importance of each output channel, (out,), as `taylor.TaylorGates` accumulates it; None where
            it was not measured.
    """

    weight: Tensor
    taylor: Tensor | None = None


Criterion = Callable[[ChannelEvidence], Tensor]
"""From evidence to a score per output channel, (out,): at least 0, and larger for channels that matter more."""


def l1(evidence: ChannelEvidence) -> Tensor:
    """The L1 norm of each filter (Li et al., ICLR 2017, arXiv 1608.08710, section 3.1)."""
    return evidence.weight.detach().flatten(1).abs().sum(1)


def taylor(evidence: ChannelEvidence) -> Tensor:
    """The squared first-order Taylor term of removing each channel, as it was accumulated; see `taylor.TaylorGates`.

    Raises `InvalidOptionError` where it was not measured.
    """
    if evidence.taylor is None:
        raise InvalidOptionError(
            "the criterion 'taylor' needs a loss's gradients, and the evidence has none; measure them with "
            "TaylorGates, or choose a criterion that reads weights alone"
        )
    return evidence.taylor


def geometric_median(evidence: ChannelEvidence) -> Tensor:
    """Σ_j ‖F_i − F_j‖₂ for each filter F_i (FPGM: He et al., CVPR 2019, arXiv 1811.00250).

    A filter near the geometric median of all is one that the others can stand in for, whatever its norm.
    """
    filters = evidence.weight.detach().flatten(1)
    # Distances from inner products are wrong by far more than a small distance.
    distances: Tensor = torch.cdist(filters, filters, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.sum(1)


CRITERIA: Mapping[str, Criterion] = {"l1": l1, "taylor": taylor, "geometric_median": geometric_median}
"""Criteria by name; one more is an entry here."""


def channel_scores(criterion: str, evidence: ChannelEvidence) -> Tensor:
    """The scores (out,) of a layer's output channels by a criterion's name, not normalised.

    Raises:
        UnknownNameError: A criterion that does not exist.
        InvalidOptionError: Evidence that the criterion lacks, or that does not have one finite score per channel.
    """
    if criterion not in CRITERIA:
        raise UnknownNameError("criterion of importance", criterion, CRITERIA)
    scores = CRITERIA[criterion](evidence)
    if scores.shape != evidence.weight.shape[:1] or not scores.isfinite().all():
        raise InvalidOptionError(
            f"the criterion {criterion!r} scores a layer of {len(evidence.weight)} output channels with a tensor "
            f"{tuple(scores.shape)}, where one finite number per channel is needed; check that the evidence is the "
            "layer's, and that its weights and loss are finite"
        )
    return scores


def normalised(scores: Tensor) -> Tensor:
    """Scores (out,) divided by their mean, so that layers of any scale can be compared; zeros stay zeros."""
    mean = scores.mean()
    return torch.where(mean > 0, scores / mean.where(mean > 0, 1.0), 0.0)


def joint_importance(scores: Sequence[Tensor]) -> Tensor:
    """The importance (out,) of channels that several layers write and that can only go together.

    The sum of the layers' normalised scores: each layer has the same say, whatever its weights' scale.

    Args:
        scores: Of each layer, (out,), channels in the same order.

    Raises `InvalidOptionError` for no layers, or for layers of different numbers of channels.
    """
    if len({tuple(s.shape) for s in scores}) != 1 or scores[0].ndim != 1:
        raise InvalidOptionError(
            f"scores of tied layers have the shapes {[tuple(s.shape) for s in scores]}, and need one and the same "
            "(channels,); layers are tied only where each writes the same channels"
        )
    return torch.stack([normalised(s) for s in scores]).sum(0)
