"""Spaces of traced models keep the contract of all spaces."""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar

import pytest
import torch

from hwnas.spaces import Space
from hwnas.spaces.traced.model import trace_model
from tests.spaces.traced.models import MODELS, SHAPE, settled

from .space_contract import SpaceContract

JOINT: dict[str, Any] = {
    "weight_bits": [4, 8, 32], "act_bits": [8, 32], "edge_bits": [8, 32], "keep": [0.5, 0.75, 1.0], "rank": [0.5, 1.0],
}  # fmt: skip


@cache
def traced(family: str) -> Space:
    return trace_model(settled(MODELS[family]()), torch.zeros(1, *SHAPE)).space(JOINT)


class TracedContract(SpaceContract):
    family: ClassVar[str]
    arguments: ClassVar[dict[str, Any]] = {}
    rows = 120
    networks = 1
    always = (".act_bits",)
    repeating = "weight_bits"
    redundant = 0.0

    @pytest.fixture
    def space(self) -> Space:
        return traced(self.family)


class TestResNet(TracedContract):
    family = "resnet"


class TestMobileNetV2(TracedContract):
    family = "squeeze_excite"


class TestDenseNet(TracedContract):
    family = "densenet"


class TestUNet(TracedContract):
    family = "unet"


class TestVisionTransformer(TracedContract):
    family = "vision_transformer"


class TestVectors(TracedContract):
    family = "vectors"
