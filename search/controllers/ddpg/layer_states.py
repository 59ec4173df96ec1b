"""Episodes: what an agent sees at each layer of a network that it decides layer by layer, and what it does there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwnas.search.controllers.ddpg.layers import LayerOperators, layers_of
from hwnas.search.controllers.ddpg.option_costs import OptionCosts
from hwnas.search.goal import Floats
from hwnas.spaces.slot import When
from hwnas.spaces.space import Rows, Space

Vectors = NDArray[np.float32]
SAMPLE = 64
"""Candidates over whose layers the operators' features are normalised."""
Act = Callable[[int, Vectors, Floats], Vectors]
"""Actions (n, dimensions) at a layer, from states (n, width) and forecasts (n, metrics)."""


@dataclass(frozen=True, slots=True)
class Episodes:
    """Walks through all layers of n candidates.

    Attributes:
        ranks: What was chosen, shape (n, decisions).
        states: See `LayerStates`, shape (n, layers, width).
        forecasts: Expected logarithm of each metric given the choices before a layer, shape (n, layers, metrics).
        choices: Options of each dimension of the action, shape (n, layers, dimensions); 0 where there is nothing to
            choose.
        actions: Shape (n, layers, dimensions); 0 where there was nothing to choose.
    """

    ranks: Rows
    states: Vectors
    forecasts: Floats
    choices: NDArray[np.int16]
    actions: Vectors

    @property
    def decided(self) -> NDArray[np.bool_]:
        """The layers with anything to choose, shape (n, layers)."""
        return np.asarray(self.choices.any(axis=2))


class LayerStates:
    """HAQ's walk through a network (Wang et al., CVPR 2019, section 3.1) in the joint space.

    A state is the layer's index from 0 to 1; the `FEATURES` of its operator, min-max normalised, where later decisions
    have their last rank, as HAQ's layers have all of their bits; which dimensions of the action there are to choose;
    the last action in each dimension; and, beyond the paper, all choices before, each as its `thermometer`: without
    them nothing tells what network the layer is part of, and most networks of a joint space differ in more than bits.
    What has not been decided is 0. Decisions that are inactive are not decided.

    Args:
        space: Where to walk.
        options: Of the same space.

    Attributes:
        layers: In order.
        dimensions: Of an action.
        steps: From the first to the last option, of the decision with the most options.
        width: Of a state.
    """

    def __init__(self, space: Space, options: OptionCosts) -> None:
        self.space = space
        self.options = options
        self.layers = layers_of(space)
        self.dimensions = 1 + max(d for layer in self.layers for d in layer.dimensions)
        self._operators = LayerOperators(space, self.layers)
        self._conditions = [
            [self._condition(when) for when in space.conditions(c)] for c in range(len(space.decisions))
        ]
        rows = space.sample(np.random.default_rng(0), SAMPLE)
        found = np.stack([self._operators.of(k, rows) for k in range(len(self.layers))])
        self._least = found.min(axis=(0, 1))
        spread = found.max(axis=(0, 1)) - self._least
        self._spread = np.where(spread > 0, spread, np.inf)  # what never differs says nothing
        self.steps = int(space.sizes.max()) - 1
        self._told = np.arange(self.steps) < space.sizes[:, None] - 1  # (decisions, steps)
        self.width = 1 + len(spread) + 2 * self.dimensions + int(self._told.sum())

    def walk(self, n: int, act: Act) -> Episodes:
        """``n`` episodes in which ``act`` chooses. What is inactive has the first option, as in canonical form."""
        sizes = self.space.sizes
        ranks: Rows = np.tile((sizes - 1).astype(np.int16), (n, 1))
        taken = np.zeros((n, *self._told.shape), np.float32)
        last = np.zeros((n, self.dimensions), np.float32)
        forecast = np.tile(self.options.level, (n, 1))
        shape = (n, len(self.layers))
        states, forecasts = np.zeros((*shape, self.width), np.float32), np.zeros((*shape, forecast.shape[1]))
        choices, actions = (
            np.zeros((*shape, self.dimensions), np.int16),
            np.zeros((*shape, self.dimensions), np.float32),
        )
        for k, layer in enumerate(self.layers):
            columns, dimensions = list(layer.columns), list(layer.dimensions)
            rows = self.options.rows(ranks)
            active = self._active(columns, ranks)
            choices[:, k, dimensions] = active * sizes[columns]
            index = np.full((n, 1), k / max(1, len(self.layers) - 1))
            features = (self._operators.of(k, rows) - self._least) / self._spread
            available = choices[:, k] > 0
            states[:, k] = np.concatenate([index, features, available, last, taken[:, self._told]], axis=1)
            forecasts[:, k] = forecast
            chosen = to_ranks(act(k, states[:, k], forecast)[:, dimensions], sizes[columns])
            ranks[:, columns] = np.where(active, chosen, self.options.rank_of[columns, 0])
            taken[:, columns] = thermometer(chosen, self.steps) * active[:, :, None]
            actions[:, k, dimensions] = to_actions(chosen, sizes[columns]) * active
            last = np.where(available, actions[:, k], last)
            for i, column in enumerate(columns):
                forecast = forecast + self.options.effects[column, chosen[:, i]] * active[:, i, None]
        return Episodes(ranks, states, forecasts, choices, actions)

    def retrace(self, rows: Rows) -> Episodes:
        """The episodes that end in rows (n, decisions) in canonical form."""
        own = to_actions(self.options.ranks(rows), self.space.sizes)

        def act(k: int, states: Vectors, forecast: Floats) -> Vectors:
            actions = np.zeros((len(rows), self.dimensions), np.float32)
            actions[:, self.layers[k].dimensions] = own[:, self.layers[k].columns]
            return actions

        return self.walk(len(rows), act)

    def _condition(self, when: When) -> tuple[int, NDArray[np.bool_]]:
        """The column of a decision, and which of its ranks satisfy the condition."""
        column = self.space.column(when.decision)
        options = self.space.decisions[column].options
        return column, np.array([options[i] in when.values for i in self.options.option_of[column, : len(options)]])

    def _active(self, columns: list[int], ranks: Rows) -> NDArray[np.bool_]:
        """Which decisions matter given those before, shape (n, columns)."""
        active = np.ones((len(ranks), len(columns)), dtype=bool)
        for i, column in enumerate(columns):
            for of, satisfies in self._conditions[column]:
                active[:, i] &= satisfies[ranks[:, of]]
        return active


def to_ranks(actions: Vectors, sizes: NDArray[np.int64]) -> Rows:
    """Ranks from actions in [0, 1]: each option has an equal share of the interval, as HAQ's bits have (equation 2)."""
    return np.minimum((actions * sizes).astype(np.int16), sizes - 1).astype(np.int16)


def to_actions(ranks: Rows, sizes: NDArray[np.int64]) -> Vectors:
    """The middle of each rank's share."""
    return ((ranks + 0.5) / sizes).astype(np.float32)


def thermometer(ranks: Rows, steps: int) -> NDArray[np.bool_]:
    """Which steps up from the first option a rank has gone, shape (…, steps): the first ``rank`` of them."""
    return ranks[..., None] > np.arange(steps)
