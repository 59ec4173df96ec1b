"""Holds a space of one's own to the contract: ``pytest tests/contracts/test_own_space.py --space my_space.yaml``."""

from __future__ import annotations

from functools import cache

import pytest

from hwnas.spaces import Space, load_space

from .space_contract import SpaceContract


@cache
def loaded(name: str) -> Space:
    return load_space(name, input_shape=(3, 32, 32), num_classes=10)


class TestOwnSpace(SpaceContract):
    rows = 240
    networks = 2

    @pytest.fixture
    def space(self, request: pytest.FixtureRequest) -> Space:
        return loaded(request.config.getoption("--space"))
