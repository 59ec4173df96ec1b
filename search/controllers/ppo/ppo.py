"""MnasNet's reinforcement learning: a recurrent policy, improved by proximal policy optimisation."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from hwnas.search.controllers.controller import Controller
from hwnas.search.controllers.optimiser_state import load_optimiser, pack_optimiser
from hwnas.search.controllers.options import TINY, check_number, check_whole
from hwnas.search.controllers.packing import pack, pack_tensors, unpack, unpack_tensors
from hwnas.search.controllers.ppo.critic import MEMBERS, Critic
from hwnas.search.controllers.ppo.policy import Policy
from hwnas.search.goal import Floats, Goal
from hwnas.search.objective import Objective
from hwnas.search.warm_start import promising
from hwnas.spaces.space import Rows, Space
from hwnas.spaces.variation import mutate


@dataclass(frozen=True, slots=True)
class Draw:
    """How a candidate came about.

    Attributes:
        row: Raw, shape (decisions,).
        logs: Of each choice's probability when it was drawn, shape (decisions,).
        result: Its place among the results, -1 before it has one.
    """

    row: Rows
    logs: NDArray[np.float32]
    result: int = -1


class ProximalPolicy(Controller):
    """Platform-aware search of MnasNet (Tan et al., CVPR 2019, section 4.2, https://arxiv.org/abs/1807.11626).

    Each candidate is a sequence of choices that a recurrent policy draws. After every few results the policy moves
    towards those of high reward by proximal policy optimisation (Schulman et al., 2017, equation 7, with the entropy
    bonus of equation 9). The paper publishes neither its settings nor its baseline, and spends 8,000 evaluations; what
    deviates here is for few, costly, asynchronous results:

    - The policy is told which goal to pursue, drawn anew for every candidate, so that one policy serves all goals.
      Each result is learnt from for other goals as well, as its costs are known (hindsight: Andrychowicz et al.,
      NeurIPS 2017).
    - Results are remembered for a while, and come when they come: a choice counts by its probability before the
      update over that when it was drawn, at most 1 (Espeholt et al., ICML 2018), and the clipped ratio is to the policy
      before the update (Hilton et al., NeurIPS 2022).
    - The baseline of a goal is what the remembered results are worth to it on average (Shao et al., 2024), and they are
      worth something by their ranks, of which only the highest count.
    - Costs are free. The first candidates are `promising` ones, at most one for each goal. Afterwards, of a batch of
      draws that could be better for the goal than all that is known, the one is proposed of which a `Critic` expects
      most. Where few could, or most of those are known, their mutants compete with them.

    Results of candidates that the policy did not draw (those, and others' that are merely told) are learnt from as if
    each option had been equally likely. Failed trials are not learnt from.

    Args:
        space, objective, seed: See `Controller`.
        batch: Results between updates of the policy.
        epochs: Steps of the optimiser in each update, each with another sample of the remembered results.
        learning_rate: Of the optimisers (Adam) of the policy and of the critic.
        entropy: Weight of the entropy, in nats per decision.
        clip: ε: by how much the probability of a choice may change in one update and still be rewarded for it.
    """

    DRAWS = 64
    ENOUGH = 16
    """Draws that are new and could be better: of fewer, mutants stand beside them."""
    MEMORY = 300
    SAMPLE = 32
    ELITE = 0.1
    """The utility of a result falls by the factor e with this share of the remembered ones ahead of it."""
    STARTS = 16
    MAX_GRADIENT = 1.0

    def __init__(
        self,
        space: Space,
        objective: Objective,
        seed: int = 0,
        *,
        batch: int = 5,
        epochs: int = 4,
        learning_rate: float = 3e-3,
        entropy: float = 0.05,
        clip: float = 0.3,
    ) -> None:
        super().__init__(space, objective, seed)
        check_whole("ppo", batch=batch, epochs=epochs)
        check_number("ppo", TINY, 1, learning_rate=learning_rate, clip=clip)
        check_number("ppo", 0, entropy=entropy)
        self.batch = batch
        self.epochs = epochs
        self.entropy = entropy
        self.clip = clip
        self.policy = Policy(space, objective.goals, int(self.rng.integers(2**31)))
        self.optimiser = torch.optim.Adam(self.policy.parameters(), learning_rate)
        self.critic = Critic(space, int(self.rng.integers(2**31)))
        self.critic_optimiser = torch.optim.Adam(self.critic.parameters(), learning_rate)
        self.waiting: dict[bytes, Draw] = {}
        self.memory: deque[Draw] = deque(maxlen=self.MEMORY)
        self.fresh = 0
        self.starts: Rows | None = None
        self.stuck = False
        self._place = {goal: place for place, goal in enumerate(objective.goals)}
        self._drawn: dict[bytes, Draw] = {}

    def propose(self) -> Rows:
        """Draws of the policy that could be the best for one of the goals; see the class for the rest."""
        self._drawn = {}
        if self.starts is None:
            self.starts = promising(self.space, self.objective, self.rng, min(self.STARTS, len(self._place)))
        if self._usable(self.starts).any():
            return self.starts
        goal = self.objective.draw(self.rng)
        rows = self.starts[:0] if self.stuck else self._draw(self._place[goal])
        parents = rows[self._hopeful(rows, goal)]
        usable = parents[self._usable(parents)]
        if len(usable) < self.ENOUGH:
            if not len(parents):
                known = np.concatenate([self.starts, self.results.rows[-self.MEMORY :]])
                hopeful = self._hopeful(known, goal)
                parents = known[hopeful] if hopeful.any() else known
            mutants = mutate(self.space, self.rng, self.rng.choice(parents, self.DRAWS))
            usable = np.concatenate([usable, mutants[self._usable(mutants) & self._hopeful(mutants, goal)]])
        if len(usable):
            return self._best_first(usable)
        self.stuck = True
        return np.concatenate([mutants, self.space.sample(self.rng, self.DRAWS)])

    def accept(self, row: Rows) -> None:
        """Remembers how it was drawn."""
        self.stuck = False
        if (draw := self._drawn.get(row.tobytes())) is not None:
            self.waiting[row.tobytes()] = draw

    def learn(self) -> None:
        """Remembers the result, and improves the policy with every few of them."""
        row = self.results.rows[-1].copy()
        draw = self.waiting.pop(row.tobytes(), None)
        if np.isnan(self.results.accuracy[-1]):
            return
        if draw is None:
            uniform = -np.log(self.space.sizes) * self.space.active(row[None])[0]
            draw = Draw(row, uniform.astype(np.float32))
        self.memory.append(Draw(draw.row, draw.logs, len(self.results) - 1))
        self.fresh += 1
        if self.fresh >= self.batch:
            self.fresh = 0
            self._update()
            finite = np.flatnonzero(np.isfinite(self.results.accuracy))
            rows, accuracy = self.results.rows[finite], self.results.accuracy[finite]
            self.critic.fit(rows, accuracy, self.critic_optimiser, self.rng)

    def state_dict(self) -> dict[str, Any]:
        """See `Controller.state_dict`."""
        return super().state_dict() | {
            "policy": pack_tensors(self.policy.state_dict()),
            "optimiser": pack_optimiser(self.optimiser),
            "critic": pack_tensors(self.critic.state_dict()),
            "critic_optimiser": pack_optimiser(self.critic_optimiser),
            "draws": self._pack(list(self.waiting.values())),
            "memory": self._pack(self.memory),
            "fresh": self.fresh,
            "starts": None if self.starts is None else pack(self.starts),
            "stuck": self.stuck,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Controller.load_state_dict`."""
        super().load_state_dict(state)
        self.policy.load_state_dict(unpack_tensors(state["policy"], self.policy.state_dict()))
        load_optimiser(self.optimiser, state["optimiser"])
        self.critic.load_state_dict(unpack_tensors(state["critic"], self.critic.state_dict()))
        load_optimiser(self.critic_optimiser, state["critic_optimiser"])
        draws = self._unpack(state["draws"])
        keys = self.space.canonical(np.array([draw.row for draw in draws]).reshape(-1, len(self.space.decisions)))
        self.waiting = {key.tobytes(): draw for key, draw in zip(keys, draws, strict=True)}
        self.memory = deque(self._unpack(state["memory"]), maxlen=self.MEMORY)
        self.fresh = int(state["fresh"])
        self.starts = None if state["starts"] is None else self._unpack_rows(state["starts"])
        self.stuck = bool(state["stuck"])

    def _draw(self, goal: int) -> Rows:
        """In canonical form, shape (DRAWS, decisions); how they were drawn is kept until one is accepted."""
        raw, logs = self.policy.draw(goal, self.rng.random((self.DRAWS, len(self.space.decisions))))
        rows = self.space.canonical(raw)
        for i, row in enumerate(rows):
            self._drawn.setdefault(row.tobytes(), Draw(raw[i], logs[i]))
        return rows

    def _best_first(self, rows: Rows) -> Rows:
        """Those from which most is to be gained first; in the order of the draws before the critic knows anything."""
        if not self.critic.fitted:
            return rows
        known = self.results
        stakes = self.objective.stakes(known.accuracy, known.costs, self.objective.cost(rows))
        gain = self.critic.gain(rows, stakes, int(self.rng.integers(MEMBERS)))
        return np.asarray(rows[np.argsort(-gain, kind="stable")])

    def _usable(self, rows: Rows) -> NDArray[np.bool_]:
        """Which of the rows (n, decisions) are new and meet the constraints, shape (n,)."""
        new = np.array([row.tobytes() not in self._asked for row in rows], dtype=bool)
        return new & self.objective.feasible(rows)

    def _hopeful(self, rows: Rows, goal: Goal) -> NDArray[np.bool_]:
        """Which of the rows (n, decisions) some accuracy would make the best for the goal, shape (n,)."""
        rewards = goal.reward(self.results.accuracy, self.results.costs) if len(self.results) else np.empty(0)
        factor = goal.factor(self.objective.cost(rows))
        best = float(np.nanmax(np.append(rewards, 0.0)))
        return np.asarray((factor > 0) & (factor >= best))

    def _update(self) -> None:
        raw = np.stack([draw.row for draw in self.memory])
        drawn = torch.from_numpy(np.stack([draw.logs for draw in self.memory]))
        active = torch.from_numpy(self.space.active(raw)).float()
        advantages = torch.from_numpy(self._advantages().astype(np.float32))
        each = min(len(raw), self.SAMPLE)
        samples = [self.rng.permutation(len(raw))[:each] for _ in range(self.epochs)]
        goals = [np.array([self._place[self.objective.draw(self.rng)] for _ in sample]) for sample in samples]
        with torch.no_grad():
            before = self.policy(raw[np.concatenate(samples)], np.concatenate(goals))[0].split(each)
        for own, wanted, old in zip(samples, goals, before, strict=True):
            logs, entropy = self.policy(raw[own], wanted)
            advantage = advantages[wanted, own][:, None]
            ratio = (logs - old).exp()
            gain = torch.minimum(ratio * advantage, ratio.clamp(1 - self.clip, 1 + self.clip) * advantage)
            gain = gain * (old - drawn[own]).exp().clamp(max=1)
            loss = -((gain + self.entropy * entropy) * active[own]).sum() / active[own].sum()
            self.optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.MAX_GRADIENT)
            self.optimiser.step()

    def _advantages(self) -> Floats:
        """Of each remembered result for each goal, shape (goals, memory); the worst ones never have a positive one."""
        places = [draw.result for draw in self.memory]
        costs = {name: values[places] for name, values in self.results.costs.items()}
        rewards = np.stack([goal.reward(self.results.accuracy[places], costs) for goal in self.objective.goals])
        ahead = 1 - rankdata(rewards, axis=1) / len(places)
        utilities = np.exp(-ahead / self.ELITE)
        centred = utilities - utilities.mean(axis=1, keepdims=True)
        advantages = centred / (centred.std(axis=1, keepdims=True) + 1e-8)
        worst = rewards <= rewards.min(axis=1, keepdims=True)
        return np.asarray(np.where(worst, advantages.clip(max=0), advantages))

    def _pack(self, draws: Sequence[Draw] | deque[Draw]) -> dict[str, Any]:
        shape = (len(draws), len(self.space.decisions))
        return {
            "rows": pack(np.array([draw.row for draw in draws], dtype=np.int16).reshape(shape)),
            "logs": pack(np.array([draw.logs for draw in draws], dtype=np.float32).reshape(shape)),
            "results": [draw.result for draw in draws],
        }

    def _unpack(self, packed: Mapping[str, Any]) -> list[Draw]:
        """Raises as `unpack` does, and `ValueError` where a row or a result does not exist."""
        rows = self._unpack_rows(packed["rows"])
        logs = unpack(packed["logs"], rows.shape).astype(np.float32)
        results = [int(result) for result in packed["results"]]
        if not all(-1 <= result < len(self.results) for result in results):
            raise ValueError(f"the controller remembers results beyond the {len(self.results)} that there are")
        return [Draw(*draw) for draw in zip(rows, logs, results, strict=True)]

    def _unpack_rows(self, packed: Mapping[str, Any]) -> Rows:
        rows = unpack(packed, (None, len(self.space.decisions))).astype(np.int16)
        if ((rows < 0) | (rows >= self.space.sizes)).any():
            raise ValueError("the controller's state holds candidates that do not exist")
        return rows
