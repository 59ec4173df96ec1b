"""Random search: the baseline that every controller must beat."""

from __future__ import annotations

from hwnas.search.controllers.controller import Controller
from hwnas.spaces.space import Rows

BATCH = 64


class RandomSearch(Controller):
    """Uniform over the decisions, rejecting what breaks a constraint."""

    def propose(self) -> Rows:
        """A batch of uniform draws."""
        return self.space.sample(self.rng, BATCH)
