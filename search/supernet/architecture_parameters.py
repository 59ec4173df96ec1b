"""The architecture parameters θ: logits of every option of every decision, and draws from them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwnas.spaces.space import Rows, Space


class ArchitectureParameters(nn.Module):
    """A distribution over the rows of a space in which decisions are independent of one another.

    Args:
        space: Whose.
        start: Logits (options,), those of all decisions one after the other; all options alike by default.

    Attributes:
        logits: The same.
    """

    def __init__(self, space: Space, start: Tensor | None = None) -> None:
        super().__init__()
        self.sizes = [int(n) for n in space.sizes]
        self.logits = nn.Parameter(torch.zeros(sum(self.sizes)) if start is None else start.clone())

    def probabilities(self) -> tuple[Tensor, ...]:
        """The distribution itself, of each decision (options,): softmax(θ)."""
        return tuple(part.softmax(0) for part in self._parts(self.logits))

    def relaxed(self, noise: Tensor, temperature: float) -> tuple[Tensor, ...]:
        """A draw that can be differentiated, of each decision the weights of its options (options,), which sum to 1.

        Gumbel-softmax, softmax((θ + g) / τ): FBNet, equation 6.

        Args:
            noise: g, of the Gumbel distribution, shape (options,).
            temperature: τ.
        """
        return tuple(part.softmax(0) for part in self._parts((self.logits + noise) / temperature))

    @torch.no_grad()
    def draw(self, noise: Tensor) -> Rows:
        """A row (decisions,), not in canonical form: the options of the largest θ + g, a draw of softmax(θ)."""
        chosen = [int(part.argmax()) for part in self._parts(self.logits + noise)]
        return np.array(chosen, dtype=np.int16)

    def log_probability(self, rows: Rows, counted: NDArray[np.bool_] | None = None) -> Tensor:
        """log p of each row (n, decisions), shape (n,).

        Args:
            rows: Any.
            counted: Of which decisions, shape (n, decisions); of all by default.
        """
        logs = torch.cat([part.log_softmax(0) for part in self._parts(self.logits)])
        starts = np.cumsum([0, *self.sizes[:-1]])
        of_decisions = logs[torch.from_numpy(rows + starts)]
        return (of_decisions if counted is None else of_decisions * torch.from_numpy(counted)).sum(1)

    def _parts(self, flat: Tensor) -> tuple[Tensor, ...]:
        return torch.split(flat, self.sizes)


def gumbel_noise(options: int, generator: torch.Generator) -> Tensor:
    """Draws of the standard Gumbel distribution, −log E with E exponential, shape (options,)."""
    exponential = torch.empty(options).exponential_(generator=generator)
    return -exponential.clamp_min(torch.finfo(torch.float32).tiny).log()
