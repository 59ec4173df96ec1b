"""Criteria of channels' importance: by hand, and which filters go first."""

from __future__ import annotations

import pytest
import torch

from hwnas.spaces.compression.importance import CRITERIA, ChannelEvidence, channel_scores, joint_importance, normalised
from hwnas.spaces.errors import InvalidOptionError, UnknownNameError


def test_scores_by_hand() -> None:
    weight = torch.tensor([[3.0, -4.0], [0.0, 0.0], [3.0, 0.0]])
    assert channel_scores("l1", ChannelEvidence(weight)).tolist() == [7.0, 0.0, 3.0]
    assert channel_scores("geometric_median", ChannelEvidence(weight)).tolist() == [9.0, 8.0, 7.0]
    taylor = torch.tensor([0.5, 2.0, 0.0])
    assert channel_scores("taylor", ChannelEvidence(weight, taylor)).tolist() == [0.5, 2.0, 0.0]


def test_duplicates_are_the_first_to_go_while_their_norm_hides_them() -> None:
    weight = torch.randn(24, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    duplicates = [3, 7, 12, 15, 18, 21]
    norms = weight.flatten(1).abs().sum(1)
    weight[duplicates] = 1.01 * norms.max() / norms[3] * weight[3]
    evidence = ChannelEvidence(weight)
    assert sorted(channel_scores("geometric_median", evidence).argsort()[:6].tolist()) == duplicates
    assert sorted(channel_scores("l1", evidence).argsort()[-6:].tolist()) == duplicates


def test_equal_filters_have_equal_scores_to_the_last_bit() -> None:
    weight = 100 + torch.rand(40, 16, 3, 3, generator=torch.Generator().manual_seed(0))
    assert channel_scores("geometric_median", ChannelEvidence(weight[:1].repeat(30, 1, 1, 1))).tolist() == [0.0] * 30
    expected = [(weight.double() - filter_).flatten(1).norm(dim=1).sum().item() for filter_ in weight.double()]
    assert channel_scores("geometric_median", ChannelEvidence(weight)).tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", sorted(CRITERIA))
def test_every_criterion_follows_the_channels_and_leaves_the_weights_alone(name: str) -> None:
    weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    evidence, order = ChannelEvidence(weight, torch.rand(6)), torch.tensor([4, 0, 5, 2, 1, 3])
    scores = channel_scores(name, evidence)
    assert scores.shape == (6,)
    assert not scores.requires_grad
    assert (scores >= 0).all()
    assert evidence.taylor is not None
    moved = channel_scores(name, ChannelEvidence(weight[order], evidence.taylor[order]))
    assert torch.allclose(moved, scores[order])


def test_layers_of_any_scale_have_the_same_say() -> None:
    one, other = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([9e6, 0.0, 0.0])
    assert normalised(one).tolist() == [0.5, 1.0, 1.5]
    assert joint_importance([one, other]).tolist() == [3.5, 1.0, 1.5]
    assert joint_importance([one, 1e-6 * other]).tolist() == pytest.approx([3.5, 1.0, 1.5])


def test_layers_that_are_all_zero_have_no_say() -> None:
    assert normalised(torch.zeros(3)).tolist() == [0.0, 0.0, 0.0]
    assert joint_importance([torch.zeros(3), torch.tensor([1.0, 2.0, 3.0])]).tolist() == [0.5, 1.0, 1.5]


def test_what_cannot_be_scored_is_refused() -> None:
    weight = torch.ones(4, 3)
    with pytest.raises(UnknownNameError, match="did you mean 'taylor'"):
        channel_scores("tailor", ChannelEvidence(weight))
    with pytest.raises(InvalidOptionError, match="TaylorGates"):
        channel_scores("taylor", ChannelEvidence(weight))
    with pytest.raises(InvalidOptionError, match=r"4 output channels with a tensor \(5,\)"):
        channel_scores("taylor", ChannelEvidence(weight, torch.ones(5)))
    with pytest.raises(InvalidOptionError, match="finite"):
        channel_scores("l1", ChannelEvidence(weight * torch.nan))
    with pytest.raises(InvalidOptionError, match=r"\[\(3,\), \(4,\)\]"):
        joint_importance([torch.ones(3), torch.ones(4)])
    with pytest.raises(InvalidOptionError, match=r"shapes \[\]"):
        joint_importance([])
