"""The contract of every controller: ask for candidates, tell results, save and restore all of its state."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.search.controllers.packing import pack, unpack
from hwnas.search.controllers.results import Results
from hwnas.search.goal import Goal
from hwnas.search.objective import Objective
from hwnas.search.repair import repair
from hwnas.spaces.errors import InfeasibleError, UnknownNameError
from hwnas.spaces.space import Rows, Space

CONTROLLERS = {
    "ddpg": "ddpg.ddpg:DDPG",
    "evolution": "evolution:RegularisedEvolution",
    "gp": "gaussian_process:GaussianProcessSearch",
    "gumbel": "gumbel:GumbelSampling",
    "ppo": "ppo.ppo:ProximalPolicy",
    "optuna-gp": "optuna_samplers:GP",
    "optuna-nsga2": "optuna_samplers:NSGA2",
    "optuna-tpe": "optuna_samplers:TPE",
    "random": "random_search:RandomSearch",
}
"""Where each controller is, imported when it is made: some bring libraries along that take seconds to load."""
MAX_TRIES = 200
"""Batches of proposals that may hold nothing new and feasible before a controller gives up."""

REPAIRS, REPAIRED = (2, 4, 8, 64), 8
"""After so many useless batches, so many proposals are brought within the constraints."""
PATIENCE = 10
"""Batches after which a candidate for another goal than that whose turn it is will do."""


class Controller(ABC):
    """Proposes candidates and learns from results. Knows nothing of Ray, of training, or of files.

    Any number of candidates may be asked before results are told, and results may come in any order.

    Args:
        space: Where to search.
        objective: What to maximise.
        seed: Of the controller's only random generator.

    Attributes:
        results: All that was told.
    """

    def __init__(self, space: Space, objective: Objective, seed: int = 0) -> None:
        self.space = space
        self.objective = objective
        self.rng = np.random.default_rng(seed)
        self.results = Results(objective.cost, len(space.decisions))
        self._asked: dict[bytes, bool] = {}  # whether its result is still to come

    def ask(self, n: int) -> Rows:
        """``n`` new feasible candidates in canonical form, shape (n, decisions), none of them asked before.

        Raises:
            InfeasibleError: Nothing new that meets the constraints of a goal was found.
        """
        rows = []
        for _ in range(n):
            row = self._new(self.propose)
            self._asked[row.tobytes()] = True
            self.accept(row)
            rows.append(row)
        return np.array(rows, dtype=np.int16).reshape(n, len(self.space.decisions))

    def tell(self, rows: Rows, metrics: Mapping[str, NDArray[np.floating[Any]]]) -> None:
        """Results of candidates.

        Args:
            rows: Shape (n, decisions).
            metrics: ``accuracy``, shape (n,), as a share; NaN for a trial that failed. ``fidelity``, shape (n,), the
                share of the full budget after which that accuracy was had: 1 by default. Names of costs, shape (n,):
                as measured, which counts instead of what is predicted; NaN where a candidate was not measured.

        Raises:
            UnknownNameError: A metric that is no cost of the objective's.
        """
        rows = np.atleast_2d(rows).astype(np.int16)
        values = {name: np.atleast_1d(np.asarray(of, dtype=np.float64)) for name, of in metrics.items()}
        accuracy, fidelity = values.pop("accuracy"), values.pop("fidelity", np.ones(len(rows)))
        for i, row in enumerate(rows):
            measured = {name: of[i : i + 1] for name, of in values.items()}
            self._asked[row.tobytes()] = False
            self.results.add(row[None], accuracy[i : i + 1], fidelity[i : i + 1], measured)
            self.learn()

    def avoid(self, rows: Rows) -> None:
        """Candidates (n, decisions) that somebody is evaluating or has evaluated: not to be proposed."""
        for row in np.atleast_2d(rows).astype(np.int16):
            self._asked.setdefault(row.tobytes(), False)

    @property
    def turn(self) -> Goal:
        """The goal that the next candidate is for, if its constraints can be met: all goals in turn."""
        return self.objective.goals[len(self._asked) % len(self.objective.goals)]

    @property
    def pending(self) -> Rows:
        """Candidates that were asked for and whose results are still to come, shape (n, decisions)."""
        rows = [np.frombuffer(key, dtype=np.int16) for key, waiting in self._asked.items() if waiting]
        return np.array(rows, dtype=np.int16).reshape(len(rows), len(self.space.decisions))

    @abstractmethod
    def propose(self) -> Rows:
        """Some candidates in canonical form, shape (any, decisions), best first; `ask` takes the first usable one."""

    def accept(self, row: Rows) -> None:
        """One of the last proposals was taken."""
        return

    def learn(self) -> None:
        """One more result is there, the last of `results`; its accuracy is NaN where the trial failed."""
        return

    def state_dict(self) -> dict[str, Any]:
        """Everything that the controller knows, as plain JSON-able data."""
        asked = [np.frombuffer(key, dtype=np.int16) for key in self._asked]
        return {
            "rng": self.rng.bit_generator.state,
            "asked": pack(np.array(asked, dtype=np.int16).reshape(len(asked), len(self.space.decisions))),
            "waiting": pack(np.array(list(self._asked.values()), dtype=bool)),
            "results": self.results.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.rng.bit_generator.state = state["rng"]
        asked = unpack(state["asked"], (None, len(self.space.decisions)))
        waiting = unpack(state["waiting"], (len(asked),))
        self._asked = {row.tobytes(): bool(still) for row, still in zip(asked, waiting, strict=True)}
        self.results.load_state_dict(state["results"])

    def _new(self, propose: Callable[[], Rows]) -> Rows:
        """One that meets the constraints of the goal whose turn it is; where none turns up, those of any goal."""
        turn = self.turn
        for attempt in range(MAX_TRIES):
            rows = propose()
            if turn.constraints and attempt < PATIENCE:
                usable = turn.meets(self.objective.cost(rows))
            else:
                usable = self.objective.feasible(rows)
            repaired = rows[~usable][:REPAIRED] if attempt in REPAIRS else rows[:0]
            repaired = repair(self.space, self.objective, turn, self.rng, repaired)
            for row in np.concatenate([rows[usable], repaired[self.objective.feasible(repaired)]]):
                if row.tobytes() not in self._asked:
                    return np.asarray(row)
        raise InfeasibleError(
            f"{MAX_TRIES} batches of proposals held no new candidate for {self.objective.describe()}; "
            "loosen the constraints or end the search"
        )


def make_controller(name: str, space: Space, objective: Objective, seed: int = 0, **options: Any) -> Controller:
    """A controller by name; ``options`` are keyword arguments of its class.

    Raises:
        UnknownNameError: No controller, or no option, of that name.
        InvalidOptionError: An option whose value makes no sense.
    """
    return controller_class(name, options)(space, objective, seed, **options)


def controller_class(name: str, options: Iterable[str] = ()) -> Callable[..., Controller]:
    """The class of that name; raises `UnknownNameError` where there is none, or where it has no such option."""
    if name not in CONTROLLERS:
        raise UnknownNameError("controller", name, CONTROLLERS)
    module, _, of_module = CONTROLLERS[name].partition(":")
    found: Callable[..., Controller] = getattr(import_module(f"hwnas.search.controllers.{module}"), of_module)
    known = set(inspect.signature(found).parameters) - {"space", "objective", "seed"}
    for option in options:
        if option not in known:
            raise UnknownNameError(f"option of controller {name!r}:", option, known)
    return found
