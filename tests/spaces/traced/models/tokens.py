"""Linear layers on tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.spaces.traced.models.parts import CLASSES


class Attention(nn.Module):
    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(features, 3 * features), nn.Linear(features, features)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, features = x.shape
        qkv = self.qkv(x).reshape(n, tokens, 3, self.heads, features // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(n, tokens, features))


class Encoder(nn.Module):
    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(features), nn.LayerNorm(features)
        self.attn = Attention(features, heads)
        self.fc1, self.fc2 = nn.Linear(features, 2 * features), nn.Linear(2 * features, features)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class VisionTransformer(nn.Module):
    def __init__(self, features: int = 32, depth: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, features, 8, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, features))
        self.position = nn.Parameter(torch.zeros(1, 17, features))
        self.blocks = nn.Sequential(*(Encoder(features, 4) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(features), nn.Linear(features, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        x = self.norm(self.blocks(x))
        return self.head(x[:, 0] + x.mean(1))


class Pooled(nn.Module):
    """Attention by a query that was learnt: its token is the only one, before layers that others read, too."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.query = nn.Conv2d(3, 32, 8, 8), nn.Parameter(torch.zeros(1, 1, 32))
        self.attend = nn.MultiheadAttention(32, 4, batch_first=True)
        self.norm, self.hidden, self.slope = nn.LayerNorm(32), nn.Linear(32, 64), nn.PReLU()
        self.out, self.tokens, self.head = nn.Linear(64, 32), nn.Linear(32, 32), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.slope(self.tokens(x))
        y = self.attend(self.query.expand(len(x), -1, -1), x, x, need_weights=False)[0]
        y = y + self.out(F.gelu(self.hidden(self.norm(y))))
        return self.head(y).squeeze(1)


class Layered(nn.Module):
    """A block of ConvNeXt: its linear layers read maps whose channels come last."""

    def __init__(self, channels: int, approximate: str) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm, self.act = nn.LayerNorm(channels, eps=1e-6), nn.GELU(approximate)
        self.wide, self.narrow = nn.Linear(channels, 2 * channels), nn.Linear(2 * channels, channels)
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.narrow(self.act(self.wide(y)))
        return x + y.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 4, 4)
        self.blocks = nn.Sequential(Layered(32, "none"), Layered(32, "tanh"))
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.stem(x)).mean((2, 3))))
