"""Low rank: a layer's weights as two thinner factors, the best for given weights, or for given data.

Both forms approximate a matrix M of outputs by inputs, y = M x, by a product of rank r. With the second moment
C = E[x xᵀ] of what the first factor reads (see `patch_moments.PatchMoments`), the product minimises
E‖(M − M̃) x‖², the error of the output on that data, rather than ‖M − M̃‖². For any root C = R Rᵀ that error is
‖(M − M̃) R‖², so that M̃ = U_r U_rᵀ M with U_r the first r left singular vectors of M R: R is never undone, and any root
serves. Here it is the Cholesky factor: a symmetric root has the same U_r, and takes an eigendecomposition.

Biases need no correction: C holds the inputs' means, so errors of the mean output are minimised with the rest.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hwnas.spaces.errors import InvalidOptionError
from hwnas.spaces.rank import Form

RIDGE = 1e-6
"""What is added to C, relative to its mean eigenvalue, so that directions without data keep their place at the end."""


def factor_channel(weight: Tensor, rank: int, second_moment: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A layer as one of ``rank`` channels, then a 1×1 one.

    The channel split of Zhang et al. (TPAMI 2016, arXiv 1505.06798, section 3.1), which centres the outputs where this
    does not. The first factor has the layer's kernel, stride, padding and dilation, the second its bias. What each rank
    reads and writes has the same norm in both, so that neither factor's weights are far larger than the other's.

    Args:
        weight: Of a convolution of one group, (out, in, kh, kw), or of a linear layer, (out, in).
        rank: From 1 to min(out, in·kh·kw), where the product is the layer.
        second_moment: Of the layer's patches, (in·kh·kw, in·kh·kw). The plain SVD without.

    Returns:
        (rank, in, kh, kw) and (out, rank, 1, 1), or (rank, in) and (out, rank).

    Raises:
        InvalidOptionError: A rank that there is not, weights or moments of another shape, or moments that are none.
    """
    matrix = _matricised(weight, "channel")
    first, second = _factors(matrix, rank, second_moment)
    ones = [1] * (weight.ndim - 2)
    return (
        first.reshape(rank, *weight.shape[1:]).to(weight.dtype),
        second.reshape(len(weight), rank, *ones).to(weight.dtype),
    )


def factor_spatial(weight: Tensor, rank: int, second_moment: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A convolution as a kh×1 one of ``rank`` channels, then a 1×kw one: the SVD of the (in·kh) × (out·kw) matrix.

    Spatial split as in ENC (Kim et al., CVPR 2019, arXiv 1811.12781). The first factor has the vertical stride,
    padding and dilation, the second the horizontal ones and the bias. With moments the error that is minimised is that
    of the kernel's columns one by one; where their errors happen to add up, that of their sum can be above the plain
    SVD's.

    Args:
        weight: Of one group, (out, in, kh, kw).
        rank: From 1 to min(in·kh, out·kw), where the product is the layer.
        second_moment: Of the columns that the first factor reads, (in·kh, in·kh): `PatchMoments.vertical`.

    Returns:
        (rank, in, kh, 1) and (out, rank, 1, kw).

    Raises:
        InvalidOptionError: See `factor_channel`; also linear weights.
    """
    out, in_channels, height, width = _maps(weight)
    first, second = _factors(_matricised(weight, "spatial"), rank, second_moment)
    return (
        first.reshape(rank, in_channels, height, 1).to(weight.dtype),
        second.reshape(out, width, rank).transpose(1, 2).reshape(out, rank, 1, width).to(weight.dtype),
    )


def even_rank(weight: Tensor, form: Form) -> int:
    """The largest rank whose factors have no more weights than the layer, or 0 where every rank has more.

    ENC's r_max, in·out·k / (in + out) for square kernels split spatially, rounded down.
    """
    return weight.numel() // sum(_matricised(weight, form).shape)


def energy(weight: Tensor, form: Form, second_moment: Tensor | None = None) -> Tensor:
    """How much of a layer each rank keeps, from 0 at rank 1 to 1 at the even rank: ENC's PCA metric.

    y_p(r) = (σ'(r) − σ'(1)) / (σ'(r_max) − σ'(1)), where σ'(r) is the sum of the first r squared singular values: the
    mean square of the output that is kept, where moments are given. Two deviations, or readings: squares, as "energy"
    says (whether the paper squares could not be checked), and r_max is not above the matrix's full rank.

    Returns:
        (r_max,) in double precision, the entry r − 1 for rank r; [1] where r_max is 1 or 0 or all kept ranks are equal.

    Raises:
        InvalidOptionError: See `factor_channel`.
    """
    matrix = _matricised(weight, form)
    kept = _decomposed(matrix, second_moment)[1].square().cumsum(0)
    kept = kept[: max(1, min(even_rank(weight, form), len(kept)))]
    span = kept[-1] - kept[0]
    # Ranks that add nothing are as good as all of them.
    return (kept - kept[0]) / span if span > 0 else torch.ones_like(kept)


def _maps(weight: Tensor) -> tuple[int, int, int, int]:
    if weight.ndim != 4:
        raise InvalidOptionError(
            f"weights of the shape {tuple(weight.shape)} cannot be split spatially; that needs (out, in, kh, kw), and "
            "linear layers have the form 'channel'"
        )
    out, in_channels, height, width = weight.shape
    return out, in_channels, height, width


def _matricised(weight: Tensor, form: Form) -> Tensor:
    """M (outputs, inputs of the first factor), float64; of spatial splits the outputs are (out, kw)."""
    weight = weight.detach().double()
    if form == "spatial":
        out, in_channels, height, width = _maps(weight)
        return weight.permute(0, 3, 1, 2).reshape(out * width, in_channels * height)
    if form != "channel":
        raise InvalidOptionError(f"there is no low-rank form {form!r}; forms are 'channel' and 'spatial'")
    if weight.ndim not in (2, 4):
        raise InvalidOptionError(
            f"weights of the shape {tuple(weight.shape)} cannot be factorised; they must be (out, in, kh, kw) or "
            "(out, in)"
        )
    return weight.flatten(1)


def _factors(matrix: Tensor, rank: int, second_moment: Tensor | None) -> tuple[Tensor, Tensor]:
    """First (rank, inputs) and second (outputs, rank), whose product is the best approximation."""
    if not 1 <= rank <= min(matrix.shape):
        raise InvalidOptionError(
            f"a rank of {rank} for a matrix of {tuple(matrix.shape)}; ranks go from 1 to {min(matrix.shape)}"
        )
    vectors = _decomposed(matrix, second_moment)[0][:, :rank]
    first = vectors.T @ matrix
    sizes = first.norm(dim=1)
    even = sizes.clamp_min(1e-8 * sizes.max()).clamp_min(1e-30).sqrt()[:, None]
    return first / even, vectors * even.T


def _decomposed(matrix: Tensor, second_moment: Tensor | None) -> tuple[Tensor, Tensor]:
    """Left singular vectors (outputs, full rank) and values of M R, the largest first."""
    weighted = matrix if second_moment is None else matrix @ _root(second_moment.double(), matrix.shape[1])
    vectors, values, _ = torch.linalg.svd(weighted, full_matrices=False)
    return vectors, values


def _root(moment: Tensor, size: int) -> Tensor:
    """R with R Rᵀ = C + ridge; R = 1 where there is no data but zeros."""
    if moment.shape != (size, size):
        raise InvalidOptionError(
            f"second moments of the shape {tuple(moment.shape)} for a first factor that reads {size} values; "
            "accumulate them with the geometry of the same layer and form"
        )
    mean = float(moment.diagonal().mean())
    identity = torch.eye(size, dtype=moment.dtype, device=moment.device)
    if mean == 0 and not moment.any():
        return identity
    root: Tensor
    root, failed = torch.linalg.cholesky_ex(moment + RIDGE * mean * identity)
    if failed or not math.isfinite(mean) or not torch.allclose(moment, moment.T, rtol=1e-6, atol=1e-9 * mean):
        raise InvalidOptionError(
            "second moments must be finite, symmetric and without negative eigenvalues, and these are not; pass "
            "PatchMoments.matrix(), and accumulate in double precision"
        )
    return root
