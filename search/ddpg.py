"""HAQ (Wang et al., CVPR 2019, https://arxiv.org/abs/1811.08886): an agent that decides a network layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from hwnas.search.actor_critic import ActorCritic
from hwnas.search.budget import budget, lower, strain
from hwnas.search.controller import Controller
from hwnas.search.goal import Floats, Goal
from hwnas.search.goal_states import GoalStates
from hwnas.search.layer_states import Episodes, LayerStates, Vectors
from hwnas.search.objective import Objective
from hwnas.search.option_costs import OptionCosts
from hwnas.search.packing import pack, unpack
from hwnas.search.replay import Replay
from hwnas.search.warm_start import promising
from hwnas.spaces.errors import InvalidOptionError
from hwnas.spaces.space import Rows, Space

BATCH = 64
EPISODES, RANDOM_EPISODES = 16, 4
"""Of the actor and of random actions, from which each candidate is chosen."""
NOISE, NOISE_DECAY, LEAST_NOISE = 0.5, 0.99, 0.02
"""Standard deviation of the exploration's noise, its factor from episode to episode, and where it ends."""


class DDPG(Controller):
    """Walks the layers of a network and takes one action for each: its bits, keep ratio, rank, kernel and so on.

    As in the paper, actions in [0, 1] are mapped to options in order, explored with truncated-normal noise, and lowered
    from the last layer to the first until the budget is kept (`hwnas.search.budget.lower`); an actor and a critic learn
    from replayed transitions, each with its episode's reward minus the usual one. The reward is the accuracy where the
    goal's target is a budget, and the MnasNet reward where it is soft.

    Deviations from the paper, beside those that `LayerStates`, `ActorCritic` and `Replay` list:

    - one agent serves all goals: states tell which is pursued and how much of its budget the choices so far will take;
    - candidates of the warm-up are `promising` ones rather than random actions, as budgets here are of dozens of
      evaluations, not of 600; a candidate that comes from elsewhere is an episode like any other;
    - of several noisy episodes the critic chooses the one to evaluate, by its value of the last action (as
      Dulac-Arnold et al., 2015, choose between discrete actions), random ones only where no other is new;
    - few updates follow a result, as more fit the critic to noise.

    Args:
        space, objective, seed: See `Controller`.
        warmup: Results before the agent acts.
        updates: Of the agent, after each result.
    """

    def __init__(
        self, space: Space, objective: Objective, seed: int = 0, *, warmup: int = 16, updates: int = 3
    ) -> None:
        super().__init__(space, objective, seed)
        for name, value in (("warmup", warmup), ("updates", updates)):
            if not isinstance(value, int) or value < 1:
                raise InvalidOptionError(f"{name} of DDPG must be a whole number of at least 1, got {value!r}")
        self.warmup, self.updates = warmup, updates
        self._goals = GoalStates(objective)
        self._options = OptionCosts(space, objective.cost, self._goals.metrics)
        self._layers = LayerStates(space, self._options)
        self._agent = ActorCritic(
            self._layers.width + self._goals.width, self._layers.dimensions, self._layers.steps, self.rng
        )
        self._replay = Replay(objective, self._goals)
        self._starts: Rows | None = None

    @property
    def sigma(self) -> float:
        """Of the noise by now."""
        return max(LEAST_NOISE, NOISE * NOISE_DECAY ** max(0, len(self._replay) - self.warmup))

    def propose(self) -> Rows:
        """What the critic thinks the best of some episodes for one of the goals, and episodes of random actions."""
        goal = self.objective.draw(self.rng)
        acts = len(self._replay) >= self.warmup
        rows, kept = self._episodes(goal, EPISODES if acts else 0)
        if acts:
            value = self._value(rows[:EPISODES], goal)
            rows[:EPISODES] = rows[:EPISODES][np.lexsort((-value, ~kept[:EPISODES]))]
            return rows
        if self._starts is None:
            self._starts = promising(self.space, self.objective, self.rng, self.warmup)
        return np.concatenate([self._starts, rows])

    def learn(self) -> None:
        """Remembers the episode that leads to the last result, and updates the agent."""
        last = slice(len(self.results) - 1, None)
        if not np.isfinite(self.results.accuracy[last]).all():
            return
        self._remember(last)
        if len(self._replay) >= self.warmup:
            for _ in range(self.updates * (self.warmup if len(self._replay) == self.warmup else 1)):
                self._agent.update(self._replay.draw(self.rng, BATCH))

    def state_dict(self) -> dict[str, Any]:
        """See `Controller.state_dict`. Episodes are left out, as they can be retraced."""
        starts = None if self._starts is None else pack(self._starts)
        return super().state_dict() | {"starts": starts, "agent": self._agent.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Controller.load_state_dict`."""
        super().load_state_dict(state)
        starts = state["starts"]
        self._starts = None if starts is None else self._checked(unpack(starts, (None, len(self.space.decisions))))
        self._checked(self.results.rows)
        self._agent.load_state_dict(state["agent"])
        self._replay = Replay(self.objective, self._goals)
        self._remember(slice(None))

    def _episodes(self, goal: Goal, own: int) -> tuple[Rows, NDArray[np.bool_]]:
        """Candidates of that many episodes of the actor and of some at random, and which of them keep the budget."""
        number = self.objective.goals.index(goal)
        at_random = np.arange(own + RANDOM_EPISODES)[:, None] >= own

        def act(layer: int, states: Vectors, forecasts: Floats) -> Vectors:
            uniform = self.rng.random((len(states), self._layers.dimensions))
            if not own:
                return uniform.astype(np.float32)
            means = self._agent.act(self._goals.extend(states, forecasts, np.full(len(states), number)))
            noisy = truncated_normal(uniform, means, self.sigma)
            return np.where(at_random, uniform, noisy).astype(np.float32)

        ranks, kept = self._layers.walk(len(at_random), act).ranks, np.ones(len(at_random), dtype=bool)
        if bounds := budget(self.objective, goal):
            ranks, kept = lower(
                ranks,
                lambda ranks: self.space.active(self._options.rows(ranks)),
                lambda ranks: strain(self.objective.cost(self._rows(ranks)), bounds),
            )
        return self._rows(ranks), kept

    def _checked(self, rows: Rows) -> Rows:
        """The rows; raises ValueError where they are none of the space."""
        if not ((rows >= 0) & (rows < self.space.sizes)).all():
            raise ValueError("the state has candidates that are not of this space")
        return rows

    def _rows(self, ranks: Rows) -> Rows:
        return self.space.canonical(self._options.rows(ranks))

    def _value(self, rows: Rows, goal: Goal) -> Vectors:
        """What the critic expects of candidates (n, decisions) at their last actions, shape (n,)."""
        found = self._layers.retrace(rows)
        last = found.decided.shape[1] - 1 - found.decided[:, ::-1].argmax(axis=1)
        at = (np.arange(len(rows)), last)
        goals = np.full(len(rows), self.objective.goals.index(goal))
        states = self._goals.extend(found.states[at], found.forecasts[at], goals)
        return self._agent.value(states, found.choices[at], found.actions[at])

    def _remember(self, which: slice) -> None:
        """The episodes of these results; those that failed taught nothing."""
        accuracy = self.results.accuracy[which]
        told = np.isfinite(accuracy)
        if told.any():
            costs = {name: values[which][told] for name, values in self.results.costs.items()}
            found: Episodes = self._layers.retrace(self.results.rows[which][told])
            self._replay.add(found, accuracy[told], costs)


def truncated_normal(uniform: Floats, means: Vectors, sigma: float) -> Floats:
    """Draws from normal distributions between 0 and 1, from uniform draws of the same shape."""
    low, high = ndtr(-means / sigma), ndtr((1 - means) / sigma)
    return np.asarray(np.clip(means + sigma * ndtri(low + uniform * (high - low)), 0, 1))
