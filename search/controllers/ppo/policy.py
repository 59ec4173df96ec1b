"""A recurrent policy: draws the decisions of a space one after another, for the goal that it is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwnas.search.goal import Floats, Goal
from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.space import Rows, Space
from hwnas.spaces.variation import decision_kinds

HIDDEN = 64


class Policy(nn.Module):
    """An LSTM that reads, at each decision, the option chosen last, which decision it is, and the goal.

    Decisions of one kind (see `decision_kinds`) share their output weights, so that what is learnt of one layer is
    tried in the others, too; the bias is each decision's own. At first all options are equally likely.

    A decision that does not matter after those before it is not drawn: it takes its first option, with certainty. Rows
    are therefore raw, as they were drawn: several may be one network, and become equal in canonical form.

    Args:
        space: What to decide.
        goals: What may be wanted.
        seed: Of the initial weights.
    """

    goals: Tensor
    kinds: Tensor
    offered: Tensor

    def __init__(self, space: Space, goals: Sequence[Goal], seed: int) -> None:
        super().__init__()
        self.space = space
        self.order = deciding_order(space)
        columns = decision_kinds(space).values()
        kind_of = np.empty(len(self.order), dtype=np.int64)
        for kind, own in enumerate(columns):
            kind_of[own] = kind
        options = int(space.sizes.max())
        features = goal_features(goals)
        constants = {
            "goals": torch.from_numpy(features).float(),
            "kinds": torch.from_numpy(kind_of[self.order]),
            "offered": torch.arange(options) < torch.from_numpy(space.sizes[self.order])[:, None],
        }
        for name, constant in constants.items():
            self.register_buffer(name, constant, persistent=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.choice = nn.Embedding(len(columns) * options + 1, HIDDEN)  # the last one: nothing was chosen yet
            self.kind = nn.Embedding(len(columns), HIDDEN)
            self.place = nn.Embedding(len(self.order), HIDDEN)
            self.goal = nn.Sequential(
                nn.Linear(features.shape[1], HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN)
            )  # fmt: skip
            self.lstm = nn.LSTM(HIDDEN, HIDDEN, batch_first=True)
        self.weight = nn.Parameter(torch.zeros(len(columns), options, HIDDEN))
        self.bias = nn.Parameter(torch.zeros(len(self.order), options))

    def forward(self, rows: Rows, goals: NDArray[np.integer[Any]]) -> tuple[Tensor, Tensor]:
        """What the policy thinks of choices that were made.

        Args:
            rows: Raw, shape (n, decisions).
            goals: For which of the goals each row is, shape (n,).

        Returns:
            The logarithm of each choice's probability and the entropy that the decision had, in nats, both of shape
            (n, decisions), and 0 where the decision did not matter.
        """
        choices = torch.from_numpy(rows[:, self.order].astype(np.int64))
        start = torch.full((len(rows), 1), self.choice.num_embeddings - 1)
        before = torch.cat([start, self.kinds[:-1] * self.offered.shape[1] + choices[:, :-1]], dim=1)
        hidden, _ = self.lstm(self.choice(before) + self._places() + self.goal(self.goals[goals])[:, None])
        logits = torch.einsum("ndh,doh->ndo", hidden, self.weight[self.kinds]) + self.bias
        logs = self._log_softmax(logits, self.offered)
        chosen = logs.gather(2, choices[:, :, None])[:, :, 0]
        entropy = -(logs.exp() * logs).sum(dim=2)
        active = torch.from_numpy(self.space.active(rows)[:, self.order])
        back = np.argsort(self.order)
        return (chosen * active)[:, back], (entropy * active)[:, back]

    @torch.no_grad()
    def draw(self, goal: int, chances: Floats) -> tuple[Rows, NDArray[np.float32]]:
        """Rows for one of the goals.

        Args:
            goal: Which.
            chances: Uniform in [0, 1), shape (n, decisions).

        Returns:
            Raw rows, and the logarithm of each choice's probability as `forward` gives it, both (n, decisions).
        """
        rows = np.zeros(chances.shape, dtype=np.int16)
        logs = np.zeros(chances.shape, dtype=np.float32)
        own = np.arange(len(rows))
        before = torch.full((len(rows),), self.choice.num_embeddings - 1)
        constant = self._places() + self.goal(self.goals[goal])
        hidden = memory = torch.zeros(len(rows), HIDDEN)
        for step, column in enumerate(self.order):
            read = self.choice(before) + constant[step]
            hidden, memory = torch.lstm_cell(read, (hidden, memory), *self.lstm.all_weights[0])
            kind = self.kinds[step]
            logits = hidden @ self.weight[kind].T + self.bias[step]
            given = self._log_softmax(logits, self.offered[step]).numpy()
            below = np.exp(given[:, : self.space.sizes[column]], dtype=np.float64).cumsum(axis=1)
            choice = (chances[:, column, None] * below[:, -1:] >= below).sum(axis=1)
            active = self.space.holds(self.space.conditions(column), rows)
            rows[:, column] = np.where(active, choice, 0)
            logs[:, column] = np.where(active, given[own, choice], 0)
            before = kind * self.offered.shape[1] + torch.from_numpy(rows[:, column].astype(np.int64))
        return rows, logs

    def _places(self) -> Tensor:
        places: Tensor = self.kind(self.kinds) + self.place.weight
        return places

    @staticmethod
    def _log_softmax(logits: Tensor, offered: Tensor) -> Tensor:
        """Over the last dimension; what is not offered is hopeless, but finite: so are gradients then."""
        return logits.masked_fill(~offered, -1e4).log_softmax(dim=-1)


def goal_features(goals: Sequence[Goal]) -> Floats:
    """What the policy knows of goals, shape (goals, features).

    Which metric it is; the logarithm of the target, standardised over the goals of that metric; α and e^β.
    """
    metrics = sorted({goal.metric for goal in goals})
    features = np.zeros((len(goals), len(metrics) + 3))
    for place, metric in enumerate(metrics):
        own = [i for i, goal in enumerate(goals) if goal.metric == metric]
        logs = np.log([goals[i].target for i in own])
        features[own, place] = 1
        features[own, -3] = (logs - logs.mean()) / (logs.std() or 1)
    features[:, -2:] = [[goal.exponents[0], np.exp(goal.exponents[1])] for goal in goals]
    return features


def deciding_order(space: Space) -> NDArray[np.intp]:
    """The columns in an order in which each comes after those on which it depends whether it matters.

    As near to the order of the columns as may be, which is the order itself in all spaces that come with hwnas.

    Raises:
        InvalidSpaceError: Whether some decisions matter depends on each other.
    """
    needs = [{space.column(when.decision) for when in space.conditions(c)} for c in range(len(space.decisions))]
    order: list[int] = []
    left = dict(enumerate(needs))
    while left:
        ready = next((column for column, needed in left.items() if needed.isdisjoint(left)), None)
        if ready is None:
            names = ", ".join(space.decisions[column].name for column in left)
            raise InvalidSpaceError(f"whether these decisions matter depends on each other: {names}")
        order.append(ready)
        del left[ready]
    return np.array(order, dtype=np.intp)
