"""What the models have in common."""

from __future__ import annotations

import torch
from torch import nn

CLASSES = 10
SHAPE = (3, 32, 32)


def settled(module: nn.Module, seed: int = 0) -> nn.Module:
    """Weights, scales, shifts and statistics that are all different."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            wide = parameter[0].numel() if parameter.ndim > 1 else 1
            parameter.copy_(noise * 0.3 + (parameter.ndim == 1) if parameter.ndim < 2 else noise * wide**-0.5)
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                norm.running_mean.copy_(torch.randn(norm.num_features, generator=generator) * 0.2)
                norm.running_var.copy_(torch.rand(norm.num_features, generator=generator) + 0.5)
    return module.eval()


def conv_norm(cin: int, cout: int, kernel: int = 3, stride: int = 1, groups: int = 1, dilation: int = 1) -> nn.Module:
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(cin, cout, kernel, stride, padding, dilation, groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(cout))
