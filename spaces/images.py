"""Images in the size that a network reads, which may be a decision."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def fit(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (n, channels, height, width) at another height and width; as they are where these agree already."""
    if tuple(images.shape[2:]) == tuple(size):
        return images
    return functional.interpolate(images, size, mode="bilinear", antialias=True)
