"""A workload as a torch module: one unit per operator, wired as the workload says."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from hwnas.spaces.images import fit
from hwnas.spaces.operator import NETWORK_INPUT, Operator
from hwnas.spaces.units import UNITS, Unit
from hwnas.spaces.workload import Workload


class Network(nn.Module):
    """The network of a workload.

    Args:
        workload: Its operators; each becomes the unit ``units[name]``, dots in the name written as underscores.
        input_shape: Channels, height, width of one image.

    Raises:
        InvalidSpaceError: Channels that do not fit the groups of a shuffle or a Hadamard transform.
    """

    def __init__(self, workload: Workload, input_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.workload = workload
        self.input_shape = input_shape
        self.units = nn.ModuleDict({module_name(o): UNITS[o.kind](o) for o in workload.operators})
        if unused := sum(o.unused for o in workload.operators):
            self.unused = nn.Parameter(torch.zeros(unused), requires_grad=False)

    def unit(self, operator: Operator) -> Unit:
        """The module of one of the workload's operators."""
        return cast(Unit, self.units[module_name(operator)])

    def forward(self, images: Tensor) -> Tensor:
        """Images (n, channels, height, width) to logits (n, classes); those of another size are resized."""
        values = {NETWORK_INPUT: fit(images, self.input_shape[1:])}
        for operator in self.workload.operators:
            values[operator.name] = self.unit(operator)(*(values[name] for name in operator.inputs))
        return values[self.workload.operators[-1].name]


def module_name(operator: Operator) -> str:
    """The operator's name as torch allows it in a module's path, unlike the methods of `torch.nn.ModuleDict`."""
    name = operator.name.replace(".", "_")
    return f"{name}_" if hasattr(nn.ModuleDict(), name) else name
