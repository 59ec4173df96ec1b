"""Random changes of training images that leave their class as it is."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad


def augment(
    images: Tensor, generator: torch.Generator, *, shift: int, flip: bool, rotate: float = 0.0, zoom: float = 0.0
) -> Tensor:
    """Moves, turns and resizes each image by its own random amounts, and mirrors a random half of them left to right.

    Args:
        images: Float (n, channels, height, width); zeros come in from outside.
        generator: On the CPU.
        shift: Most pixels up, down, left and right; whole pixels, unless images are turned or resized too.
        flip: Whether to mirror.
        rotate: Most degrees either way.
        zoom: Largest change of the side, as a share of it.

    Returns:
        New images of the same shape.
    """
    count = len(images)
    moved = _turned(images, generator, shift, rotate, zoom) if rotate or zoom else _shifted(images, generator, shift)
    if not flip:
        return moved
    mirrored = torch.rand(count, generator=generator).to(images.device) < 0.5
    return torch.where(mirrored.view(-1, 1, 1, 1), moved.flip(3), moved)


def _shifted(images: Tensor, generator: torch.Generator, shift: int) -> Tensor:
    count, _, height, width = images.shape
    top, left = torch.randint(2 * shift + 1, (2, count), generator=generator).to(images.device)
    windows = pad(images, [shift] * 4).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(count, device=images.device), :, top, left]


def _turned(images: Tensor, generator: torch.Generator, shift: int, rotate: float, zoom: float) -> Tensor:
    """Bilinear, about the centre. Positions are in units of half a side, so turning must undo the sides' ratio."""
    count, _, height, width = images.shape
    turn, size, down, right = torch.rand(4, count, generator=generator).to(images.device) * 2 - 1
    angle, size = turn * math.radians(rotate), 1 + size * zoom
    cos, sin = angle.cos() * size, angle.sin() * size
    rows = (
        (cos, -sin * height / width, right * shift * 2 / width),
        (sin * width / height, cos, down * shift * 2 / height),
    )
    maps = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
    grid = affine_grid(maps, list(images.shape), align_corners=False)
    return grid_sample(images, grid, align_corners=False)
