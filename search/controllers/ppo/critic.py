"""A critic: guesses what candidates are worth before anybody pays for their accuracies."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from hwnas.search.controllers.acquisition import log_expected_gain
from hwnas.search.goal import Floats
from hwnas.spaces.space import Rows, Space

MEMBERS = 4
HIDDEN = 64
STEPS = 20
"""Of the optimiser, each time that there is something new to learn."""
SAMPLE = 32
LEAST_ERROR = 0.1
"""Of a guess, as a share of the spread of all accuracies."""


class Critic(nn.Module):
    """Perceptrons that read the active choices of complete candidates, each of which guesses their accuracies.

    It looks at nothing else: what a candidate costs is known, and so is what an accuracy is then worth to each goal.

    Args:
        space: Of the candidates.
        seed: Of the initial weights.
    """

    starts: Tensor
    centre: Tensor
    spread: Tensor
    error: Tensor

    def __init__(self, space: Space, seed: int) -> None:
        super().__init__()
        self.space = space
        self.register_buffer("starts", torch.from_numpy(space.sizes.cumsum() - space.sizes), persistent=False)
        for name in ("centre", "spread", "error"):
            self.register_buffer(name, torch.zeros((), dtype=torch.float64))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.choice = nn.Embedding(int(space.sizes.sum()), MEMBERS * HIDDEN)
            self.inner = nn.Parameter(torch.randn(MEMBERS, HIDDEN, HIDDEN) * (2 / HIDDEN) ** 0.5)
            self.outer = nn.Parameter(torch.randn(MEMBERS, HIDDEN) * (1 / HIDDEN) ** 0.5)
        self.shift = nn.Parameter(torch.zeros(MEMBERS, HIDDEN))
        self.offset = nn.Parameter(torch.zeros(MEMBERS))
        with torch.no_grad():
            self.choice.weight /= len(space.sizes) ** 0.5  # their sums have unit variance

    @property
    def fitted(self) -> bool:
        """Whether its guesses say anything."""
        return self.spread.item() > 0

    def forward(self, rows: Rows) -> Tensor:
        """Of rows (n, decisions), shape (n, members): accuracies, standardised."""
        active = torch.from_numpy(self.space.active(rows)).float()
        choices = self.choice(torch.from_numpy(rows.astype(np.int64)) + self.starts)
        read = (choices * active[:, :, None]).sum(dim=1).view(-1, MEMBERS, HIDDEN).relu()
        hidden = (torch.einsum("nmh,mhi->nmi", read, self.inner) + self.shift).relu()
        return (hidden * self.outer).sum(dim=2) + self.offset

    def fit(self, rows: Rows, accuracy: Floats, optimiser: torch.optim.Optimizer, rng: np.random.Generator) -> None:
        """Some steps towards the accuracies (n,) of rows (n, decisions), on samples of them."""
        self.centre.fill_(float(accuracy.mean()))
        self.spread.fill_(float(accuracy.std()) or 1.0)
        wanted = torch.from_numpy((accuracy - self.centre.item()) / self.spread.item()).float()
        squares = []
        for _ in range(STEPS):
            own = rng.permutation(len(rows))[:SAMPLE]
            missed = (self(rows[own]) - wanted[own, None]).square().mean()
            optimiser.zero_grad()
            missed.backward()
            optimiser.step()
            squares.append(missed.item())
        self.error.fill_(max(float(np.mean(squares)) ** 0.5, LEAST_ERROR))

    @torch.no_grad()
    def gain(self, rows: Rows, stakes: tuple[Floats, Floats], member: int) -> Floats:
        """The logarithm of what candidates may be expected to add to what is known, shape (n,).

        The expected improvement, as though accuracies were spread normally about what one member guesses.

        Args:
            rows: Shape (n, decisions).
            stakes: Of the rows, see `Objective.stakes`.
            member: The one that is believed. Where another is believed each time, what they disagree about is tried
                (Osband et al., NeurIPS 2016).
        """
        weights, levels = stakes
        error = (self.error * self.spread).item()
        guesses = self(rows)[:, member].double().numpy() * self.spread.item() + self.centre.item()
        return log_expected_gain(guesses, np.full(len(rows), error), weights, levels)
