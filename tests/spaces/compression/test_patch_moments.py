"""Second moments of patches: against torch's unfold, and what a sample of them tells."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, unfold

from hwnas.spaces.compression.patch_moments import PatchMoments
from hwnas.spaces.errors import InvalidOptionError

GEOMETRIES = [
    ((3, 3), (1, 1), (1, 1), (1, 1)),
    ((3, 5), (2, 1), (0, 3), (1, 2)),
    ((1, 4), (3, 2), (2, 0), (2, 3)),
    ((1, 1), (2, 2), (0, 0), (1, 1)),
]


def maps(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)) + 0.5


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), GEOMETRIES)
def test_patches_are_unfolds(kernel: object, stride: object, padding: object, dilation: object) -> None:
    x = maps(3, 4, 11, 14)
    moments = PatchMoments(kernel, stride, padding, dilation)  # type: ignore[arg-type]
    moments.add(x)
    patches = unfold(x.double(), kernel, dilation, padding, stride).movedim(1, 2).flatten(0, 1)  # type: ignore[arg-type]
    assert moments.count == len(patches)
    assert torch.allclose(moments.matrix(), patches.T @ patches / len(patches))
    assert moments.matrix().dtype == torch.float64


def test_they_tell_the_mean_square_of_a_convolutions_output() -> None:
    x, weight = maps(2, 4, 9, 10), maps(6, 4, 3, 2)
    moments = PatchMoments((3, 2), (2, 1), (1, 0), (1, 2))
    moments.add(x)
    output = conv2d(x.double(), weight.double(), None, (2, 1), (1, 0), (1, 2))
    rows = weight.flatten(1).double()
    assert torch.allclose((rows @ moments.matrix() @ rows.T).diagonal(), output.square().mean((0, 2, 3)))


def test_vertical_patches_are_those_of_the_first_spatial_factor() -> None:
    x, first = maps(2, 4, 9, 10), maps(5, 4, 3, 1)
    moments = PatchMoments.vertical((3, 5), (2, 3), (1, 4), (2, 7))
    moments.add(x)
    output = conv2d(x.double(), first.double(), None, (2, 1), (1, 0), (2, 1))
    rows = first.flatten(1).double()
    assert torch.allclose((rows @ moments.matrix() @ rows.T).diagonal(), output.square().mean((0, 2, 3)))


def test_batches_add_up_whatever_their_size() -> None:
    x = maps(5, 3, 6, 6)
    whole, parts = PatchMoments((3, 3)), PatchMoments((3, 3))
    whole.add(x)
    parts.add(x[:1])
    parts.add(x[1:])
    assert parts.count == whole.count == 5 * 4 * 4
    assert torch.allclose(parts.matrix(), whole.matrix())


def test_features_and_tokens_are_patches() -> None:
    x = maps(4, 7, 3)
    tokens, features = PatchMoments(), PatchMoments()
    tokens.add(x)
    features.add(x.flatten(0, 1))
    expected = torch.einsum("nti,ntj->ij", x.double(), x.double()) / 28
    assert torch.allclose(tokens.matrix(), expected)
    assert torch.allclose(features.matrix(), expected)


@pytest.mark.parametrize("shape", [(8, 4, 32, 32), (8192, 4)])
def test_a_sample_of_positions_is_close_and_the_same_for_a_seed(shape: tuple[int, ...]) -> None:
    x = maps(*shape)
    x[: len(x) // 2] *= 3.0  # the first images are not like the rest
    found = []
    for seed, positions in ((1, 2000), (1, 2000), (2, 2000), (0, 10**6)):
        moments = PatchMoments(positions=positions, generator=torch.Generator().manual_seed(seed))
        moments.add(x)
        found.append(moments.matrix())
        assert moments.count == min(positions, 8192)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert torch.allclose(found[0], found[3], atol=0.1 * float(found[3].max()))


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(InvalidOptionError, match="kernel of \\(1, 1\\)"):
        PatchMoments((3, 3)).add(maps(4, 3))
    with pytest.raises(InvalidOptionError, match=r"\(2, 2\) are smaller than a patch of \(3, 3\)"):
        PatchMoments((3, 3)).add(maps(1, 3, 2, 2))
    with pytest.raises(InvalidOptionError, match="no patches"):
        PatchMoments().matrix()
    with pytest.raises(InvalidOptionError, match="stride \\(0, 1\\)"):
        PatchMoments(stride=(0, 1))
    moments = PatchMoments()
    moments.add(maps(4, 3))
    with pytest.raises(InvalidOptionError, match="4 values follow patches of 3"):
        moments.add(maps(4, 4))
