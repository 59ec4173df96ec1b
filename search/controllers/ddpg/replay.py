"""What an agent has seen: the transitions of all episodes, and their rewards for each goal."""

from __future__ import annotations

import numpy as np

from hwnas.search.controllers.ddpg.actor_critic import Batch
from hwnas.search.controllers.ddpg.budget import budget, strain, walled
from hwnas.search.controllers.ddpg.goal_states import GoalStates
from hwnas.search.controllers.ddpg.layer_states import Episodes
from hwnas.search.controllers.grown import Grown
from hwnas.search.goal import Costs, Floats
from hwnas.search.objective import Objective

LEAST_SPREAD = 1e-6
"""Standard deviation of rewards that are all alike, but for rounding."""


class Replay:
    """Transitions of all episodes; layers without anything to choose have none.

    One result teaches for every goal that it may serve (as in hindsight experience replay, Andrychowicz et al., NeurIPS
    2017): each time a transition is drawn it is given one of the goals whose budget the candidate keeps, or any where
    it keeps none. The reward is the goal's own where it is soft. Where its target is a budget, which candidates keep by
    construction, it is the accuracy; divided by how many times the budget a candidate was measured to cost, if more.

    Deviations from HAQ: rewards are in units of their standard deviation over all so far, rather than tenths of a per
    cent of accuracy, and less the mean of all so far, as neither the accuracy of an original network is known nor does
    a moving average over batches tell more; and nothing is forgotten, as a search has hundreds of episodes, not
    thousands.

    Attributes:
        mean, spread: Of the rewards of all episodes, for the goals that they serve.
    """

    def __init__(self, objective: Objective, goals: GoalStates) -> None:
        self._objective = objective
        self._goals = goals
        self._states, self._forecasts, self._choices, self._actions = (Grown() for _ in range(4))
        self._episode = Grown()  # of each transition
        self._rewards, self._within, self._served, self._serves = (Grown() for _ in range(4))  # of each episode
        self.mean, self.spread = 0.0, 1.0

    def __len__(self) -> int:
        """Episodes."""
        return len(self._rewards)

    def add(self, episodes: Episodes, accuracy: Floats, costs: Costs) -> None:
        """More episodes, and the accuracies (n,) and costs that they led to."""
        decided = episodes.decided
        episode, layer = np.nonzero(decided)
        for mine, theirs in (
            (self._states, episodes.states), (self._forecasts, episodes.forecasts), (self._choices, episodes.choices),
            (self._actions, episodes.actions),
        ):  # fmt: skip
            mine.add(theirs[episode, layer])
        self._episode.add(len(self) + episode)
        goals = self._objective.goals
        strains = np.stack([strain(costs, [budget(goal)] * len(accuracy)) for goal in goals], axis=1)
        own = [accuracy if walled(goal) else goal.reward(accuracy, costs) for goal in goals]
        over = [np.maximum(1, strains[:, i]) if walled(goal) else 1 for i, goal in enumerate(goals)]
        rewards = np.stack([reward / by for reward, by in zip(own, over, strict=True)], axis=1)
        within = strains <= 1
        within |= ~within.any(axis=1, keepdims=True)
        self._rewards.add(rewards)
        self._within.add(within)
        self._served.add(np.argsort(~within, axis=1, kind="stable"))  # those within its budget first
        self._serves.add(within.sum(axis=1))
        known = self._rewards.all[self._within.all]
        self.mean, self.spread = float(known.mean()), max(float(known.std()), LEAST_SPREAD)

    def draw(self, rng: np.random.Generator, n: int) -> Batch:
        """``n`` transitions, each with a goal that its candidate serves."""
        drawn = rng.integers(len(self._episode), size=n)
        episode = self._episode[drawn]
        goals = self._served[episode, rng.integers(self._serves[episode])]
        return Batch(
            states=self._goals.extend(self._states[drawn], self._forecasts[drawn], goals),
            choices=self._choices[drawn],
            actions=self._actions[drawn],
            rewards=((self._rewards[episode, goals] - self.mean) / self.spread).astype(np.float32),
        )
