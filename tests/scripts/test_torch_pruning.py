"""The baseline by Torch-Pruning: what remains, that it computes what the pruned module does, and what cannot be had."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor, nn

from hwnas.scripts.torch_pruning import half_pruned
from hwnas.spaces.errors import InvalidSpaceError, UnavailableError
from hwnas.spaces.traced.model import TracedModel, trace_model
from tests.spaces.traced.models import SHAPE, ResNet, VisionTransformer, settled

IMAGES = torch.zeros(1, *SHAPE)


class Plain(nn.Module):
    """Two 1×1 convolutions of 3·32 + 32·64 MACs per pixel, and a linear layer of 64·10 on the means."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(3, 32, 1), nn.Conv2d(32, 64, 1), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(self.one(x).relu()).relu().mean((2, 3)))


def channels(model: TracedModel) -> dict[str, int]:
    return {node.name: node.channels for node in model.graph.products}


def macs(model: TracedModel) -> int:
    space = model.space([])
    return space.workload(space.reference()).macs


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(UnavailableError, match=r"pip install hwnas\[bench\]"):
        half_pruned(settled(Plain()), IMAGES)


def test_the_weakest_channels_go_until_half_the_macs_remain() -> None:
    pytest.importorskip("torch_pruning")
    module = settled(Plain())
    with torch.no_grad():
        module.one.weight[8:16] = module.one.bias[8:16] = module.two.weight[:, 8:16] = 0
    before = {name: value.clone() for name, value in module.state_dict().items()}
    pruned = half_pruned(module, IMAGES)
    # (3·24 + 24·40)·1024 + 40·10 is the first below half of (3·32 + 32·64)·1024 + 64·10: 24·48 is too much.
    assert channels(pruned) == {"one": 24, "two": 40, "head": 10}
    assert macs(pruned) == (3 * 24 + 24 * 40) * 1024 + 40 * 10
    kept = [*range(8), *range(16, 32)]
    assert torch.equal(pruned.state["one.weight"], module.one.weight[kept])
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_module_that_counts_its_channels_loses_those_within_its_blocks() -> None:
    pytest.importorskip("torch_pruning")
    module = settled(ResNet())
    pruned = half_pruned(module, IMAGES)
    left = channels(pruned)
    whole = {"conv1": 16, "layer1.0.conv2": 16, "layer2.0.conv2": 32, "layer3.1.conv2": 64, "linear": 10}
    assert {name: left[name] for name in whole} == whole
    assert left["layer1.0.conv1"] == 8
    assert 0.4 < macs(pruned) / macs(trace_model(module, IMAGES)) <= 0.5
    images = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert pruned.network(images).shape == module(images).shape


def test_what_cannot_be_pruned_is_said_with_the_reason() -> None:
    pytest.importorskip("torch_pruning")
    with pytest.raises(InvalidSpaceError, match="Torch-Pruning cannot prune the module: RuntimeError: shape"):
        half_pruned(settled(VisionTransformer()), IMAGES)
