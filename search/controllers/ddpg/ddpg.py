"""HAQ (Wang et al., CVPR 2019, https://arxiv.org/abs/1811.08886): an agent that decides a network layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from hwnas.search.controllers.acquisition import log_expected_gain
from hwnas.search.controllers.controller import Controller
from hwnas.search.controllers.ddpg.actor_critic import ActorCritic
from hwnas.search.controllers.ddpg.budget import budget, lower, strain, walled
from hwnas.search.controllers.ddpg.goal_states import GoalStates
from hwnas.search.controllers.ddpg.layer_states import Episodes, LayerStates, Vectors
from hwnas.search.controllers.ddpg.option_costs import OptionCosts
from hwnas.search.controllers.ddpg.replay import Replay
from hwnas.search.controllers.options import check_whole
from hwnas.search.controllers.packing import pack, unpack
from hwnas.search.goal import Floats
from hwnas.search.objective import Objective
from hwnas.search.warm_start import promising
from hwnas.spaces.space import Rows, Space

Indexes = NDArray[np.intp]
BATCH = 64
EPISODES = 32
"""Of the actor, and as many of random actions, from which each candidate is chosen."""
NOISE, NOISE_DECAY, LEAST_NOISE = 0.5, 0.99, 0.02
"""Standard deviation of the exploration's noise, its factor from episode to episode, and where it ends."""
ERROR = 0.125
"""Of what the critic expects, in standard deviations of all rewards."""


class DDPG(Controller):
    """Walks the layers of a network and takes one action for each: its bits, keep ratio, rank, kernel and so on.

    As in the paper, actions in [0, 1] are mapped to options in order, explored with truncated-normal noise, and lowered
    from the last layer to the first until the budget is kept (see `lower`); an actor and a critic learn from replayed
    transitions, each with its episode's reward minus the usual one. The reward is the accuracy where the goal's target
    is a budget, and the MnasNet reward where it is soft.

    Deviations from the paper, beside those that `LayerStates`, `ActorCritic` and `Replay` list:

    - one agent serves all goals: states tell which is pursued and how much of its budget the choices so far will take;
    - half of the warm-up are `promising` candidates rather than random actions, as budgets here are of dozens of
      evaluations, not of 600; a candidate that comes from elsewhere is an episode like any other;
    - of several episodes, half of them noisy and half random, each for a goal of its own, the critic chooses the one
      to evaluate (as Dulac-Arnold et al., 2015, choose between discrete actions): that whose expected accuracy adds
      most to what all results are worth;
    - few updates follow a result, as more fit the critic to noise.

    Args:
        space, objective, seed: See `Controller`.
        warmup: Results before the agent acts.
        updates: Of the agent, after each result.
    """

    def __init__(
        self, space: Space, objective: Objective, seed: int = 0, *, warmup: int = 16, updates: int = 4
    ) -> None:
        super().__init__(space, objective, seed)
        check_whole("ddpg", warmup=warmup, updates=updates)
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
        """Candidates of several episodes, those first from which the critic expects most."""
        if len(self._replay) >= self.warmup:
            rows, kept, goals = self._episodes(EPISODES)
            ordered: Rows = rows[np.lexsort((-self._gain(rows, goals), ~kept))]
            return ordered
        if self._starts is None:
            self._starts = promising(self.space, self.objective, self.rng, -(-self.warmup // 2))
        return np.concatenate([self._starts, self._episodes(0)[0]])

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

    def _episodes(self, own: int) -> tuple[Rows, NDArray[np.bool_], Indexes]:
        """Candidates of that many episodes of the actor with noise, and of `EPISODES` at random, each for a goal.

        Returns:
            The candidates, whether each keeps its budget, and the numbers of their goals.
        """
        n = own + EPISODES
        goals = np.array([self.objective.goals.index(self.objective.draw(self.rng)) for _ in range(n)])

        def act(layer: int, states: Vectors, forecasts: Floats) -> Vectors:
            actions = self.rng.random((n, self._layers.dimensions))
            if own:
                means = self._agent.act(self._goals.extend(states[:own], forecasts[:own], goals[:own]))
                actions[:own] = truncated_normal(actions[:own], means, self.sigma)
            return actions.astype(np.float32)

        bounds = [budget(self.objective.goals[goal]) for goal in goals]
        ranks, kept = lower(
            self._layers.walk(n, act).ranks,
            lambda ranks: self.space.active(self._options.rows(ranks)),
            lambda ranks, of: strain(self.objective.cost(self._rows(ranks)), [bounds[i] for i in of]),
        )
        return self._rows(ranks), kept, goals

    def _gain(self, rows: Rows, goals: Indexes) -> Floats:
        """The logarithm of what candidates (n, decisions) for these goals are expected to add to all, shape (n,).

        What the critic expects at the last action is taken for normal, off by `ERROR`.
        """
        found = self._layers.retrace(rows)
        last = (np.arange(len(rows)), found.decided.shape[1] - 1 - found.decided[:, ::-1].argmax(axis=1))
        states = self._goals.extend(found.states[last], found.forecasts[last], goals)
        value = self._agent.value(states, found.choices[last], found.actions[last])
        costs = self.objective.cost(rows)
        factors = np.stack([np.ones(len(rows)) if walled(g) else g.factor(costs) for g in self.objective.goals])
        own = factors[goals, np.arange(len(rows))]  # 0 for what does not keep its budget, and comes last
        accuracy = (self._replay.mean + self._replay.spread * value) / np.where(own > 0, own, 1)
        weights, levels = self.objective.stakes(self.results.accuracy, self.results.costs, costs)
        return log_expected_gain(accuracy, np.full(len(rows), ERROR * self._replay.spread), weights, levels)

    def _checked(self, rows: Rows) -> Rows:
        """The rows; raises ValueError where they are none of the space."""
        if not ((rows >= 0) & (rows < self.space.sizes)).all():
            raise ValueError("the state has candidates that are not of this space")
        return rows

    def _rows(self, ranks: Rows) -> Rows:
        return self.space.canonical(self._options.rows(ranks))

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
