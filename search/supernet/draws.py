"""What one forward pass of a supernet computes, drawn from its architecture parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from hwnas.search.supernet.architecture_parameters import ArchitectureParameters
from hwnas.spaces.space import Rows, Space


@dataclass(frozen=True, slots=True)
class Draw:
    """A network, or a mixture of networks.

    Attributes:
        row: The options of the decisions that are not mixed, shape (decisions,), not in canonical form.
        mixed: The weights of the options of the others, by name.
    """

    row: Rows
    mixed: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Sampler:
    """Draws from a space of which some decisions are mixed.

    Attributes:
        space: Whose.
        mixed: Names of the decisions.
    """

    space: Space
    mixed: tuple[str, ...]

    @property
    def draws_nothing(self) -> bool:
        """Whether all decisions are mixed."""
        return len(self.mixed) == len(self.space.decisions)

    def draw(self, theta: ArchitectureParameters, noise: Tensor, temperature: float) -> Draw:
        """One draw; see `ArchitectureParameters` for the noise (options,) and the temperature."""
        relaxed = theta.relaxed(noise, temperature) if self.mixed else ()
        return Draw(theta.draw(noise), {name: relaxed[self.space.column(name)] for name in self.mixed})

    def log_probability(self, theta: ArchitectureParameters, draws: Sequence[Draw]) -> Tensor:
        """Of what was drawn, shape (draws,). Where nothing is mixed, decisions that do not matter are left out."""
        rows = np.stack([draw.row for draw in draws])
        drawn = np.array([d.name not in self.mixed for d in self.space.decisions])
        matters = np.ones(rows.shape, dtype=bool) if self.mixed else self.space.active(rows)
        return theta.log_probability(rows, drawn & matters)
