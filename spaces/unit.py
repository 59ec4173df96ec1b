"""What the torch modules of all operators have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from hwnas.spaces.operator import Operator
from hwnas.spaces.quantizers import ActivationQuantizer

ACTIVATIONS: Mapping[str, Callable[[int], nn.Module | None]] = {
    "none": lambda _: None,
    "relu": lambda _: nn.ReLU(),
    "relu6": lambda _: nn.ReLU6(),
    "sigmoid": lambda _: nn.Sigmoid(),
    "hswish": lambda _: nn.Hardswish(),
    "hsigmoid": lambda _: nn.Hardsigmoid(),
    "prelu": nn.PReLU,
    "silu": lambda _: nn.SiLU(),
    "gelu": lambda _: nn.GELU(),
    "tanh": lambda _: nn.Tanh(),
}
"""The modules of activations, for a number of channels. Slopes start at 0.25 (He et al., ICCV 2015, section 2.1)."""


class Unit(nn.Module):
    """One operator: its arithmetic, normalisation, activation, and the quantiser of the tensor that it writes.

    Attributes:
        operator: What it computes.
        rounds: Whether it rounds weights and activations to their bits; see `set_rounding`.
    """

    def __init__(self, operator: Operator) -> None:
        super().__init__()
        self.operator = operator
        self.rounds = True
        self.norm = nn.BatchNorm2d(operator.out_channels, operator.epsilon) if operator.affine == "norm" else None
        self.activation = ACTIVATIONS[operator.activation](operator.out_channels)
        quantizes = operator.out_bits <= 8 and not operator.moves_integers
        self.quantizer = ActivationQuantizer(operator.out_bits) if quantizes else None

    def set_rounding(self, rounds: bool) -> None:
        """See the function `set_rounding`."""
        self.rounds = rounds

    def compute(self, *inputs: Tensor) -> Tensor:
        """The arithmetic before normalisation and activation."""
        raise NotImplementedError

    def forward(self, *inputs: Tensor) -> Tensor:
        """Inputs (batch, channels, height, width), (batch, tokens, features) or (batch, features) to the output."""
        y = self.compute(*inputs)
        for step in (self.norm, self.activation, self.quantizer if self.rounds else None):
            y = y if step is None else cast(Tensor, step(y))
        return y


def set_rounding(network: nn.Module, rounds: bool) -> None:
    """Lets all units of a network round, or compute with weights and activations as they are: training may begin so."""
    for module in network.modules():
        if isinstance(module, Unit):
            module.set_rounding(rounds)


def folded_norm(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Factor and shift per channel that a batch normalisation amounts to in evaluation mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return factor, norm.bias - norm.running_mean * factor
