"""What an evaluator must offer: accuracy of a candidate, step by step, so that hopeless ones can be stopped."""

from __future__ import annotations

from typing import Protocol

from hwnas.spaces.candidate import Candidate


class Evaluation(Protocol):
    """One candidate under evaluation."""

    def step(self) -> float:
        """Spends one unit of budget (an epoch) and returns the validation accuracy so far, a share.

        Raises:
            DivergedError: The candidate cannot be trained.
        """


class Evaluator(Protocol):
    """Turns candidates into accuracies. Sent to worker processes, so it must be plain data."""

    @property
    def steps(self) -> int:
        """Units of budget that a full evaluation takes."""

    def start(self, candidate: Candidate, seed: int) -> Evaluation:
        """Begins with a candidate; the same seed gives the same accuracies."""
