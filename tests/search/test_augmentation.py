"""Random changes of training images."""

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform

from hwnas.search.augmentation import augment


def test_shift_reaches_every_offset_and_never_wraps():
    images = torch.zeros(2000, 2, 7, 9)
    images[:, 0, 3, 4] = 1
    images[:, 1, 3, 4] = 2
    moved = augment(images, torch.Generator().manual_seed(0), shift=2, flip=False)
    found = moved[:, 0].nonzero()
    assert len(found) == 2000
    assert {(y - 3, x - 4) for _, y, x in found.tolist()} == {(y, x) for y in range(-2, 3) for x in range(-2, 3)}
    assert torch.equal(moved[:, 1], 2 * moved[:, 0])

    corner = torch.zeros(2000, 1, 5, 5)
    corner[:, :, 0, 0] = 1
    found = augment(corner, torch.Generator().manual_seed(0), shift=2, flip=False).nonzero()
    assert len(found) == pytest.approx(2000 * 9 / 25, abs=100)
    assert found[:, 2:].max() == 2


def test_flip_mirrors_half_of_the_images_whole():
    images = torch.rand(1000, 3, 4, 5)
    result = augment(images, torch.Generator().manual_seed(0), shift=0, flip=True)
    same = (result == images).flatten(1).all(1)
    mirrored = (result == images.flip(3)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 400 < mirrored.sum() < 600


def test_turning_and_resizing_agree_with_scipy():
    """The same maps, from the same random numbers, about the centre of images that are not square."""
    images = torch.rand(20, 2, 9, 13)
    result = augment(images, torch.Generator().manual_seed(0), shift=2, flip=False, rotate=30, zoom=0.2)
    draws = torch.rand(4, 20, generator=torch.Generator().manual_seed(0)).double().numpy() * 2 - 1
    for image, changed, (turn, size, down, right) in zip(images, result, draws.T, strict=True):
        angle, scale = np.deg2rad(30 * turn), 1 + 0.2 * size
        matrix = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])  # of (y, x)
        centre = np.array([4, 6])
        offset = centre + 2 * np.array([down, right]) - matrix @ centre
        for before, after in zip(image, changed, strict=True):
            expected = affine_transform(before.numpy(), matrix, offset, order=1, mode="grid-constant")
            assert np.allclose(after, expected, atol=1e-4)


def test_what_is_in_the_middle_stays_there():
    images = torch.zeros(200, 1, 9, 9)
    images[:, :, 3:6, 3:6] = 1
    changed = augment(images, torch.Generator().manual_seed(0), shift=0, flip=False, rotate=180, zoom=0.3)
    assert changed[:, 0, 4, 4].min() > 0.99
    assert changed[:, :, [0, 0, 8, 8], [0, 8, 0, 8]].abs().max() == 0


def test_nothing_to_do():
    images = torch.rand(8, 1, 8, 8)
    assert torch.equal(augment(images, torch.Generator(), shift=0, flip=False), images)


def test_generator_determines_the_result():
    images = torch.rand(32, 3, 8, 8)
    one, two, other = (augment(images, torch.Generator().manual_seed(s), shift=2, flip=True) for s in (5, 5, 6))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert one.shape == images.shape
