"""Convolutions with batch normalisation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.spaces.traced.models.parts import CLASSES, conv_norm


class BasicBlock(nn.Module):
    """With ResNet's shortcut of option A, as published code writes it, or a projection."""

    def __init__(self, cin: int, cout: int, stride: int, projection: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout)
        self.conv2, self.bn2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False), nn.BatchNorm2d(cout)
        self.change = stride != 1 or cin != cout
        self.pad = cout - cin
        self.shortcut = conv_norm(cin, cout, 1, stride) if projection and self.change else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.shortcut is not None:
            return F.relu(y + self.shortcut(x))
        if self.change:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad // 2, self.pad // 2))
        return F.relu(y + x)


class ResNet(nn.Module):
    def __init__(self, blocks: int = 2, projection: bool = False) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        stages, cin = [], 16
        for cout, stride in ((16, 1), (32, 2), (64, 2)):
            own = []
            for i in range(blocks):
                own.append(BasicBlock(cin, cout, stride if i == 0 else 1, projection))
                cin = cout
            stages.append(nn.Sequential(*own))
        self.layer1, self.layer2, self.layer3 = stages
        self.linear = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(F.avg_pool2d(x, x.size()[3]).view(x.size(0), -1))


class InvertedResidual(nn.Module):
    def __init__(self, cin: int, cout: int, stride: int, expand: int, gated: bool) -> None:
        super().__init__()
        hidden = cin * expand
        self.adds = stride == 1 and cin == cout
        self.expand = nn.Sequential(*conv_norm(cin, hidden, 1), nn.ReLU6(inplace=True))
        self.depthwise = nn.Sequential(*conv_norm(hidden, hidden, 3, stride, hidden), nn.ReLU6(inplace=True))
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(hidden, 8, 1), nn.ReLU(),
                                     nn.Conv2d(8, hidden, 1), nn.Sigmoid()) if gated else None  # fmt: skip
        self.project = conv_norm(hidden, cout, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(self.expand(x))
        if self.squeeze is not None:
            y = y * self.squeeze(y)
        y = self.project(y)
        return x + y if self.adds else y


class MobileNetV2(nn.Module):
    def __init__(self, gated: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_norm(3, 16, 3, 2), nn.ReLU6(inplace=True))
        plan = ((16, 24, 2, 4), (24, 24, 1, 4), (24, 32, 2, 4), (32, 32, 1, 4))
        self.blocks = nn.Sequential(*(InvertedResidual(*own, gated) for own in plan))
        self.head = nn.Sequential(*conv_norm(32, 64, 1), nn.ReLU6(inplace=True))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(64, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.head(self.blocks(self.stem(x))).mean([2, 3]))


class DenseNet(nn.Module):
    """Pre-activated layers whose outputs are concatenated, with a transition between two blocks."""

    def __init__(self, growth: int = 16, layers: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        channels = 16
        self.first, channels = self._block(channels, growth, layers)
        self.transition = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, 32, 1, bias=False),
                                        nn.AvgPool2d(2))  # fmt: skip
        self.second, channels = self._block(32, growth, layers)
        self.norm = nn.BatchNorm2d(channels)
        self.classifier = nn.Linear(channels, CLASSES)

    @staticmethod
    def _block(channels: int, growth: int, layers: int) -> tuple[nn.ModuleList, int]:
        made = []
        for _ in range(layers):
            conv = nn.Conv2d(channels, growth, 3, 1, 1, bias=False)
            made.append(nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), conv))
            channels += growth
        return nn.ModuleList(made), channels

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.first:
            x = torch.cat([x, layer(x)], 1)
        x = self.transition(x)
        for layer in self.second:
            x = torch.cat([x, layer(x)], 1)
        x = F.adaptive_avg_pool2d(F.relu(self.norm(x)), (1, 1))
        return self.classifier(torch.flatten(x, 1))


class UNet(nn.Module):
    """Down by pooling, up by a transposed convolution and by resizing, skips concatenated, then a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Sequential(*conv_norm(3, 16), nn.ReLU())
        self.down2 = nn.Sequential(*conv_norm(16, 32), nn.ReLU())
        self.bottom = nn.Sequential(*conv_norm(32, 64, dilation=2), nn.ReLU())
        self.up2 = nn.ConvTranspose2d(64, 32, 2, 2)
        self.merge2 = nn.Sequential(*conv_norm(64, 32), nn.ReLU())
        self.up1 = nn.Conv2d(32, 16, 1)
        self.merge1 = nn.Sequential(*conv_norm(32, 16), nn.ReLU())
        self.head = nn.Conv2d(16, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        three = self.bottom(F.max_pool2d(two, 2))
        up = self.merge2(torch.cat([self.up2(three), two], 1))
        up = F.interpolate(self.up1(up), scale_factor=2.0, mode="nearest")
        return self.head(self.merge1(torch.cat([up, one], 1))).mean((2, 3))


class Shuffled(nn.Module):
    """Group convolutions with a shuffle between them, and a split whose parts go different ways."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_norm(3, 32), nn.ReLU())
        self.first = nn.Sequential(*conv_norm(32, 32, groups=4), nn.ReLU())
        self.second = conv_norm(32, 32, groups=4)
        self.left, self.right = conv_norm(16, 16), conv_norm(16, 16, groups=16)
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.stem(x))
        n, c, h, w = x.shape
        x = self.second(x.view(n, 4, c // 4, h, w).transpose(1, 2).contiguous().view(n, c, h, w))
        a, b = x.chunk(2, 1)
        return self.head(F.relu(torch.cat([self.left(a), self.right(b)], 1)).mean((2, 3)))


class ShuffleNet(nn.Module):
    """Two units of ShuffleNetV2: halves of the channels go by, and are shuffled with the others."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_norm(3, 64), nn.ReLU())
        self.units = nn.ModuleList(
            nn.Sequential(*conv_norm(32, 32, 1), nn.ReLU(), *conv_norm(32, 32, 3, groups=32), *conv_norm(32, 32, 1))
            for _ in range(2)
        )
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for unit in self.units:
            a, b = x.chunk(2, 1)
            x = torch.cat([a, F.relu(unit(b))], 1)
            n, c, h, w = x.shape
            x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(x.mean((2, 3)))


class DigitsNet(nn.Module):
    """For images of 1×8×8: a stem and three residual blocks."""

    def __init__(self, width: int = 16, classes: int = CLASSES) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_norm(1, width), nn.ReLU())
        self.blocks = nn.Sequential(*(BasicBlock(width, width, 1, False) for _ in range(3)))
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))
