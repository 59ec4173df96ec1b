"""Statistics of normalisations and ranges of quantisers, estimated anew for weights as they are now."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from hwnas.spaces.quantizers import ActivationQuantizer


@torch.no_grad()
def recalibrate(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Re-estimates batch-norm statistics, as means over the batches by their sizes, and quantiser ranges.

    Leaves the network in evaluation mode.

    Args:
        network: Changed in place; weights stay as they are.
        batches: Images (n, channels, height, width).
    """
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
    for module in network.modules():
        if isinstance(module, ActivationQuantizer):
            module.reset()
    network.train()
    seen = 0
    for images in batches:
        seen += len(images)
        for norm in norms:
            norm.momentum = len(images) / seen
        network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
