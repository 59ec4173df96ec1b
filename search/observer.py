"""Who hears how a run goes."""

from __future__ import annotations

from hwnas.search.ledger import Trial


class Observer:
    """Hears how a run goes; the default one is silent."""

    def stage(self, title: str) -> None:
        """A step of the run begins."""

    def progress(self, text: str, share: float) -> None:
        """How far the present step is, from 0 to 1."""

    def trial(self, trial: Trial, done: int, planned: int) -> None:
        """A trial has ended."""

    def note(self, text: str) -> None:
        """Something worth reading."""
