"""FBNet's search as a controller: candidates are sampled from architecture parameters (Wu et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.search.controllers.controller import Controller
from hwnas.search.controllers.options import TINY, check_number, check_whole
from hwnas.search.controllers.packing import pack, unpack
from hwnas.search.goal import HARD, Floats, Goal
from hwnas.search.objective import Objective
from hwnas.spaces.errors import InvalidOptionError
from hwnas.spaces.space import Rows, Space


class GumbelSampling(Controller):
    """Samples candidates from softmax(θ), of which there is one per goal, and refines θ by what it is told.

    θ comes from a supernet that was trained, see `hwnas.search.supernet`; then samples are the paper's. Without one,
    all options are alike at first, and θ is learnt from the accuracies alone: for each goal, θ follows the gradient
    of log E[accuracy] + w · log E[cost], w being the goal's exponent on that side of its target. The first term is
    estimated by the score function, with the mean as the baseline, from all results so far; every result serves all
    goals, whichever it was sampled for. The second is exact where the objective's cost offers ``expected`` of all costs
    that count, as `CostModel` does of sums; there, log (E[cost] / bound) is subtracted for each constraint that is
    broken; what was measured of single candidates does not count for it. Elsewhere the goal's reward takes the
    accuracy's place in the first.

    Results are weighed by how likely θ would draw them now, as importance sampling has it, tempered by the root of the
    number of decisions: in large spaces the plain ratio would leave one result alone. An entropy bonus keeps options
    from dying out.

    Args:
        space, objective, seed: See `Controller`.
        logits: θ of each goal, (goals, options), those of all decisions one after the other; or the path of a
            supernet's checkpoint. Where there is only one, all goals start with it.
        learning_rate: What the gradient is multiplied by.
        steps: Per result. With 0, θ stays as it is, as in the paper.
        entropy: Weight of the entropy, summed over decisions, in the gradient.
    """

    BATCH = 32

    def __init__(
        self,
        space: Space,
        objective: Objective,
        seed: int = 0,
        *,
        logits: Sequence[Sequence[float]] | str | None = None,
        learning_rate: float = 0.3,
        steps: int = 1,
        entropy: float = 0.002,
    ) -> None:
        super().__init__(space, objective, seed)
        check_whole("gumbel", 0, steps=steps)
        check_number("gumbel", 0, entropy=entropy)
        check_number("gumbel", TINY, learning_rate=learning_rate)
        self.learning_rate, self.steps, self.entropy = learning_rate, steps, entropy
        self._starts = np.cumsum([0, *space.sizes[:-1]])
        self.logits = self._given(logits)

    def probabilities(self) -> Floats:
        """softmax(θ) of every decision, shape (goals, options)."""
        return self._softmax(self.logits)

    def propose(self) -> Rows:
        """Draws for one of the goals, those that could be worth something first; uniform ones where all are known."""
        index = int(self.rng.integers(len(self.objective.goals)))
        noisy = self.logits[index] + self.rng.gumbel(size=(self.BATCH, self.logits.shape[1]))
        parts = np.split(noisy, self._starts[1:], axis=1)
        drawn = self.space.canonical(np.stack([part.argmax(axis=1) for part in parts], axis=1).astype(np.int16))
        worthless = self.objective.goals[index].factor(self.objective.cost(drawn)) == 0
        drawn = drawn[np.argsort(worthless, kind="stable")]
        return np.concatenate([drawn, self.space.sample(self.rng, self.BATCH)])

    def learn(self) -> None:
        """A few steps up the gradient, of θ of all goals."""
        known = np.flatnonzero(np.isfinite(self.results.accuracy))
        if len(known) < 2 or not np.isfinite(self.results.accuracy[-1]):
            return
        rows = self.results.rows[known]
        chosen = np.zeros((len(rows), self.logits.shape[1]))
        np.put_along_axis(chosen, rows + self._starts, self.space.active(rows).astype(np.float64), axis=1)
        rewards = np.stack([self._rewards(goal)[known] for goal in self.objective.goals])
        for _ in range(self.steps):
            self.logits = self.logits + self.learning_rate * self._gradient(chosen, rewards)

    def state_dict(self) -> dict[str, Any]:
        """See `Controller.state_dict`."""
        return super().state_dict() | {"logits": pack(self.logits)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Controller.load_state_dict`."""
        super().load_state_dict(state)
        self.logits = unpack(state["logits"], self.logits.shape)

    # ---- internals ------------------------------------------------------------------------------------------------

    def _given(self, logits: Sequence[Sequence[float]] | str | None) -> Floats:
        options, goals = int(self.space.sizes.sum()), len(self.objective.goals)
        if logits is None:
            return np.zeros((goals, options))
        if isinstance(logits, str):
            from hwnas.search.supernet.checkpoint import read_logits

            logits = read_logits(Path(logits))
        given = np.array(logits, dtype=np.float64, ndmin=2)
        if given.shape not in ((1, options), (goals, options)) or not np.isfinite(given).all():
            raise InvalidOptionError(
                f"logits of controller 'gumbel' must be finite numbers of shape ({goals}, {options}) for the goals "
                f"and options of this search, not of {given.shape}"
            )
        return np.array(np.broadcast_to(given, (goals, options)))

    def _rewards(self, goal: Goal) -> Floats:
        accuracy = self.results.accuracy
        return accuracy if self._expected else np.asarray(goal.reward(accuracy, self.results.costs))

    @property
    def _expected(self) -> Any:
        """Where all costs that count can be expected, what does it."""
        cost = self.objective.cost
        known = {name for goal in self.objective.goals for name in goal.bounds} <= {*getattr(cost, "summed", ())}
        return getattr(cost, "expected", None) if known else None

    def _gradient(self, chosen: Floats, rewards: Floats) -> Floats:
        """Of all θ, shape (goals, options), from the options of results (n, options) and their rewards (goals, n)."""
        p = self.probabilities()
        logs = np.log(np.maximum(p, np.finfo(np.float64).tiny))
        likely = chosen @ logs.T / len(self.space.sizes) ** 0.5
        weights = np.exp(likely - likely.max(axis=0)).T
        weights /= weights.sum(axis=1, keepdims=True)
        mean = (weights * rewards).sum(axis=1, keepdims=True)
        advantages = weights * (rewards - mean) / np.maximum(mean, TINY)
        decided = np.add.reduceat(chosen, self._starts, axis=1).repeat(self.space.sizes, axis=1)
        gradient = advantages @ chosen - (advantages @ decided) * p
        surprise = -logs - np.add.reduceat(-p * logs, self._starts, axis=1).repeat(self.space.sizes, axis=1)
        gradient += self.entropy * p * surprise
        return np.asarray(gradient + self._cost_gradient() if self._expected else gradient)

    def _cost_gradient(self) -> Floats:
        """Of w · log E[cost] for each goal, and of its constraints where they are broken, shape (goals, options)."""
        import torch

        gradients = []
        for goal, logits in zip(self.objective.goals, self.logits, strict=True):
            theta = torch.tensor(logits, requires_grad=True)
            chances = [part.softmax(0) for part in torch.split(theta, self.space.sizes.tolist())]
            cost = self._expected(chances, goal.metric)
            total = max(goal.exponents[int(cost > goal.target)], HARD[1]) * cost.log()
            for name, bound in goal.constraints.items():
                total = total + HARD[1] * (self._expected(chances, name) / bound).log().clamp_min(0)
            (gradient,) = torch.autograd.grad(total, [theta])
            gradients.append(gradient.numpy())
        return np.array(gradients)

    def _softmax(self, logits: Floats) -> Floats:
        shifted = np.exp(logits - np.maximum.reduceat(logits, self._starts, axis=1).repeat(self.space.sizes, axis=1))
        total: NDArray[np.float64] = np.add.reduceat(shifted, self._starts, axis=1).repeat(self.space.sizes, axis=1)
        return np.asarray(shifted / total)
