"""Who hears how a run goes."""

from __future__ import annotations

from hwnas.search.ledger import Trial


class Observer:
    """Hears how a run goes; the default one is silent."""

    def stage(self, title: str) -> None:
        """A step of the run begins."""

    def progress(self, text: str, share: float) -> None:
        """How far the present step is, from 0 to 1."""

    def trial(self, trial: Trial, best: Trial | None, planned: int) -> None:
        """One of so many trials has ended; which is the best by now of those that were trained to the end."""

    def note(self, text: str) -> None:
        """Something worth reading."""
