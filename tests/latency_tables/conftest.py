"""The space that most of these tests measure."""

from __future__ import annotations

import pytest

from hwnas.spaces import Space, load_space


@pytest.fixture(scope="module")
def space() -> Space:
    """Networks for images of 8×8 pixels."""
    return load_space("mbconv", input_shape=(1, 8, 8), num_classes=10)
