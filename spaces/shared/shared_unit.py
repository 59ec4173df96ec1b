"""The weights of one part, and the slices of them that smaller operators use."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Size, Tensor, nn
from torch.nn import functional

from hwnas.spaces.shared.parts import Part
from hwnas.spaces.units import UNITS


class SharedUnit(nn.Module):
    """A part at its largest: weights, normalisation, bias and slopes of all operators that share it.

    Smaller operators use the first channels. A smaller kernel is the centre of the next larger one, times a learnt
    matrix that all channels of the part share, from the identity on: once-for-all's kernel transformation (Cai et al.,
    ICLR 2020, section 3.3).

    Attributes:
        whole: The unit of the largest operator, which never runs itself.
        transforms: ``7to5`` and so on, (25, 25).
    """

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.whole = UNITS[part.operator.kind](part.operator)
        steps = list(pairwise(reversed(part.kernels)))
        self.transforms = nn.ParameterDict({f"{a}to{b}": nn.Parameter(torch.eye(b * b)) for a, b in steps})
        self._steps = steps

    def slices(self, shapes: Mapping[str, Size]) -> dict[str, Tensor]:
        """The tensors of a smaller operator's unit, by their names in it: views, but for weights of convolutions.

        These are laid out as the whole ones. Torch takes slices for channels-last tensors, which it adds up in another
        order: enough to round other values than a network of its own would.

        Args:
            shapes: Of each of them.
        """
        whole = dict(self.whole.named_parameters()) | dict(self.whole.named_buffers())
        return {name: self._slice(whole[name], shape) for name, shape in shapes.items()}

    def _slice(self, tensor: Tensor, shape: Size) -> Tensor:
        first = tensor[tuple(slice(n) for n in shape[:2])]
        if len(shape) < 4:
            return first
        layout = torch.contiguous_format if tensor.is_contiguous() else torch.channels_last
        return self._centre(first, shape[-1]).contiguous(memory_format=layout)

    def _centre(self, weight: Tensor, kernel: int) -> Tensor:
        """Weights (out, in, k, k) for a smaller kernel."""
        for larger, smaller in self._steps:
            if larger <= kernel:
                break
            edge = (larger - smaller) // 2
            taps = weight[:, :, edge : edge + smaller, edge : edge + smaller].flatten(2)
            weight = functional.linear(taps, self.transforms[f"{larger}to{smaller}"])
            weight = weight.reshape(*weight.shape[:2], smaller, smaller)
        return weight
