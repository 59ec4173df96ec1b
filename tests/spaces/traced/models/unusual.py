"""What no family has, but some model does."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.spaces.traced.models.parts import CLASSES, conv_norm


class Awkward(nn.Module):
    """Names that clash, a layer used twice, a depthwise transposed convolution, BatchNorm1d and a gate on tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.proj_in, self.proj = nn.Conv2d(3, 32, 1), nn.Conv2d(32, 32, 3, 2, 1, bias=False)
        self.twice = nn.Conv2d(32, 32, 3, 1, 1)
        self.up = nn.ConvTranspose2d(32, 32, 2, 2, groups=32)
        self.down = nn.Conv2d(32, 16, 2, 2)
        self.gated, self.out = nn.Linear(16, 64), nn.Linear(32, 32)
        self.norm, self.head = nn.BatchNorm1d(32), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.proj(F.relu(self.proj_in(x))))
        x = self.twice(F.relu(self.twice(x)))
        x = self.down(self.up(x)).flatten(2).transpose(1, 2)
        a, b = self.gated(x).chunk(2, -1)
        return self.head(F.relu(self.norm(self.out(F.silu(a) * b).mean(1))))


class Fixed(nn.Module):
    """What is not learnt, of several types: an order of channels, means and scales, positions, and a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.5, 0.4, 0.3]).reshape(3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.2, 0.3, 0.4], dtype=torch.float64).reshape(3, 1, 1))
        self.register_buffer("mask", torch.ones(16, 16, dtype=torch.bool).triu(1))
        self.patches, self.query = nn.Conv2d(3, 32, 8, 8), nn.Linear(32, 32)
        self.position = nn.Parameter(torch.linspace(-1.0, 1.0, 16 * 32).reshape(16, 32), requires_grad=False)
        self.factor = nn.Parameter(torch.ones(32))
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = ((x - self.mean) / self.scale).float()[:, [2, 1, 0]]
        x = self.patches(x).flatten(2).transpose(1, 2) + self.position
        scores = (self.query(x) @ x.transpose(1, 2)).masked_fill(self.mask, -1e4)
        return self.head((scores.softmax(-1) @ x * self.factor).mean(1))


class Vectors(nn.Module):
    """Vectors of maps that more than linear layers read, and maps of several positions made vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_norm(3, 32, 3, 2), nn.ReLU(), nn.Conv2d(32, 16, 3, 2, 1))
        self.slopes, self.gate, self.sum = nn.PReLU(16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.wide, self.spread = nn.Conv2d(16, 24, 3, 2, 1), nn.Linear(24 * 16, 32)
        self.norm, self.head = nn.LayerNorm(64), nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        v = self.slopes(x.mean((2, 3)))
        v = F.relu(self.sum(v)) + torch.sigmoid(self.gate(v)) * v
        spread = self.spread(F.hardswish(self.wide(x).flatten(1)))
        return self.head(self.norm(torch.cat([F.normalize(v), x.amax((2, 3)), spread], 1)))


class Perceptron(nn.Module):
    """Layers on vectors alone, normalised, with slopes after one that has no product to be part of."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(3 * 32 * 32, 32), nn.BatchNorm1d(32), nn.PReLU(32), nn.Linear(32, 32), nn.PReLU(32),
            nn.Linear(32, CLASSES),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
