"""Second moments of what a layer's filters read: E[x xᵀ] of patches, features or tokens."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from hwnas.spaces.errors import InvalidOptionError

Pair = tuple[int, int]


class PatchMoments:
    """Accumulates E[x xᵀ] over the patches x of a layer's inputs, batch by batch, in double precision.

    A patch has the order of a filter's weights, (in, kernel height, kernel width), flattened. Of maps
    (n, in, h, w) it takes the patches that a convolution of this geometry reads, padding included; features (n, in)
    and tokens (n, tokens, in) are patches themselves, for a kernel of 1×1. For a spatial factorisation, whose first
    factor is kh×1, give the layer's vertical geometry: `PatchMoments.vertical`.

    The moments are about zero, not about the mean: a bias or a mean is then part of what a factorisation has to
    reproduce, and needs no correction afterwards.

    Args:
        kernel: Height and width.
        stride: Vertical and horizontal.
        padding: Rows at the top and bottom, and columns at both sides, of zeros.
        dilation: Vertical and horizontal.
        positions: The most patches to take from a batch; of more, that many are drawn at random.
        generator: What draws them; by default one of seed 0.
    """

    def __init__(
        self,
        kernel: Pair = (1, 1),
        stride: Pair = (1, 1),
        padding: Pair = (0, 0),
        dilation: Pair = (1, 1),
        *,
        positions: int = 4096,
        generator: torch.Generator | None = None,
    ) -> None:
        if min(*kernel, *stride, *dilation, positions, 1 + min(padding)) < 1:
            raise InvalidOptionError(
                f"patches of kernel {kernel}, stride {stride}, dilation {dilation}, padding {padding} and {positions} "
                "positions: all must be at least 1, and the padding at least 0"
            )
        self.kernel, self.stride, self.padding, self.dilation = kernel, stride, padding, dilation
        self.positions = positions
        self.generator = generator or torch.Generator().manual_seed(0)
        self.count = 0
        self._sum: Tensor | None = None

    @classmethod
    def vertical(
        cls,
        kernel: Pair,
        stride: Pair = (1, 1),
        padding: Pair = (0, 0),
        dilation: Pair = (1, 1),
        *,
        positions: int = 4096,
        generator: torch.Generator | None = None,
    ) -> PatchMoments:
        """Moments of the columns (in, kernel height) that the first factor of `low_rank.factor_spatial` reads.

        The geometry given is the whole layer's; its horizontal half belongs to the second factor.
        """
        halves = (kernel[0], 1), (stride[0], 1), (padding[0], 0), (dilation[0], 1)
        return cls(*halves, positions=positions, generator=generator)

    @torch.no_grad()
    def add(self, x: Tensor) -> None:
        """Takes a batch of the layer's inputs, of one of the shapes above.

        Raises `InvalidOptionError` for features where the kernel is not 1×1, for maps smaller than a patch, and for
        another number of channels than before.
        """
        patches = self._patches(x).to(torch.float64)
        values = patches.shape[1]
        if self._sum is None:
            self._sum = patches.new_zeros(values, values)
        if len(self._sum) != values:
            raise InvalidOptionError(
                f"patches of {values} values follow patches of {len(self._sum)}; keep one PatchMoments per layer"
            )
        self._sum.addmm_(patches.T, patches)
        self.count += len(patches)

    def matrix(self) -> Tensor:
        """E[x xᵀ], (in·kh·kw, in·kh·kw), float64. Raises `InvalidOptionError` before the first patch."""
        if self._sum is None or not self.count:
            raise InvalidOptionError("no patches were added, so their second moment is unknown; add batches of inputs")
        return self._sum / self.count

    def _patches(self, x: Tensor) -> Tensor:
        """Patches (positions, in·kh·kw)."""
        if x.ndim != 4:
            if self.kernel != (1, 1) or x.ndim not in (2, 3):
                raise InvalidOptionError(
                    f"inputs of the shape {tuple(x.shape)} for a kernel {self.kernel}; maps are (n, in, h, w), and "
                    "features (n, in) or tokens (n, tokens, in) need a kernel of (1, 1)"
                )
            rows = x.flatten(0, -2)
            return rows[self._drawn(len(rows)).to(x.device)]
        x = pad(x, (self.padding[1], self.padding[1], self.padding[0], self.padding[0]))
        reach = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        height, width = ((size - r) // s + 1 for size, r, s in zip(x.shape[2:], reach, self.stride, strict=True))
        if height < 1 or width < 1:
            raise InvalidOptionError(
                f"padded maps of {tuple(x.shape[2:])} are smaller than a patch of {tuple(reach)}; check the geometry"
            )
        drawn = self._drawn(len(x) * height * width).to(x.device)
        image, place = drawn // (height * width), drawn % (height * width)
        starts = place // width * self.stride[0], place % width * self.stride[1]
        rows, columns = (
            start[:, None] + d * torch.arange(k, device=x.device)
            for start, k, d in zip(starts, self.kernel, self.dilation, strict=True)
        )
        found = x.movedim(1, -1)[image[:, None, None], rows[:, :, None], columns[:, None, :]]  # (positions, kh, kw, in)
        return found.movedim(-1, 1).flatten(1)

    def _drawn(self, total: int) -> Tensor:
        """Indexes of the patches to take, of ``total``."""
        if total <= self.positions:
            return torch.arange(total)
        return torch.randperm(total, generator=self.generator)[: self.positions]
