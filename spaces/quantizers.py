"""Fake quantisation with a straight-through gradient: the arithmetic that an exported QDQ file performs.

Linear quantisation as in HAQ (Wang et al., CVPR 2019, section 3.3), with two deviations: weights have one scale per
output channel, and the range of activations is tracked (Jacob et al., CVPR 2018) rather than found by KL divergence.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

NO_SCALE = 1e-5
"""Scale of weights that are all zero: small enough to round a bias by it, large enough for the bias to fit 32 bits."""


def weight_scale(weight: Tensor, bits: int) -> Tensor:
    """Scale per output channel, shape (out,): the largest magnitude maps to the largest level 2^(bits−1) − 1.

    Channels whose weights are all pruned have the scale `NO_SCALE`.
    """
    levels = (1 << (bits - 1)) - 1
    scale: Tensor = weight.detach().flatten(1).abs().amax(dim=1) / levels
    return scale.masked_fill(scale == 0, NO_SCALE).clamp_min(1e-8)


def quantize_weight(weight: Tensor, bits: int) -> Tensor:
    """Weights (out, …) rounded to symmetric levels per output channel; the gradient passes straight through."""
    if bits >= 32:
        return weight
    levels = 2 ** (bits - 1) - 1
    scale = weight_scale(weight, bits)
    zero = torch.zeros(len(scale), dtype=torch.int32, device=weight.device)
    rounded: Tensor = torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -levels, levels)
    return rounded


class ActivationQuantizer(nn.Module):
    """Rounds a tensor to 2^bits evenly spaced values, of which real zero is one.

    In training mode it tracks the range as a moving average of each batch's extremes, unless the range was set. Values
    outside the range are clipped and get no gradient; inside it the gradient passes straight through.

    Args:
        bits: At most 8.
        momentum: Weight of a new batch in the moving average.

    Attributes:
        tracks: Whether training moves the range.
    """

    low: Tensor
    high: Tensor
    observed: Tensor

    def __init__(self, bits: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.bits = bits
        self.momentum = momentum
        self.tracks = True
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.ones(()))
        self.register_buffer("observed", torch.zeros((), dtype=torch.bool))

    @property
    def levels(self) -> int:
        """The largest integer; the smallest is 0."""
        return (1 << self.bits) - 1

    def scale_and_zero_point(self) -> tuple[Tensor, Tensor]:
        """Scale (float32) and zero point (int32), both of shape ()."""
        scale = ((self.high - self.low) / self.levels).clamp_min(1e-8)
        return scale, torch.round(-self.low / scale).clamp(0, self.levels).to(torch.int32)

    def reset(self) -> None:
        """Forgets the range, so that the next batch in training mode sets it."""
        self.observed.fill_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``."""
        if self.training and self.tracks:
            self._observe(x)
        scale, zero = self.scale_and_zero_point()
        return cast(Tensor, _Round.apply(x, scale, -int(zero), self.levels - int(zero)))  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def _observe(self, x: Tensor) -> None:
        low, high = x.amin().clamp_max(0.0), x.amax().clamp_min(0.0)  # aminmax would copy channels-last tensors
        momentum = torch.where(self.observed, self.momentum, 1.0)
        self.low.lerp_(low, momentum)
        self.high.lerp_(high, momentum)
        self.observed.fill_(True)


class _Round(torch.autograd.Function):
    """x rounded to the multiples ``low`` … ``high`` of ``scale``, as QuantizeLinear and DequantizeLinear do it.

    The same as torch.fake_quantize_per_tensor_affine, from operations that are vectorised on CPUs: over three times as
    fast there.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bounds = (low - 0.5) * float(scale), (high + 0.5) * float(scale)
        return torch.div(x, scale).round_().clamp_(low, high).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (x,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(gradients[0], x, *ctx.bounds), None, None, None
