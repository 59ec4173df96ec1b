"""The contract of every controller: ask for candidates, tell results, save and restore all of its state."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.search.objective import Objective
from hwnas.spaces.errors import InfeasibleError, UnknownNameError
from hwnas.spaces.space import Rows, Space

MAX_TRIES = 200
"""Batches of proposals that may hold nothing new and feasible before a controller gives up."""


class Controller(ABC):
    """Proposes candidates and learns from results. Knows nothing of Ray, of training, or of files.

    Any number of candidates may be asked before results are told, and results may come in any order.

    Args:
        space: Where to search.
        objective: What to maximise.
        seed: Of the controller's only random generator.
    """

    def __init__(self, space: Space, objective: Objective, seed: int = 0) -> None:
        self.space = space
        self.objective = objective
        self.rng = np.random.default_rng(seed)
        self._asked: set[bytes] = set()

    def ask(self, n: int) -> Rows:
        """``n`` new feasible candidates in canonical form, shape (n, decisions), none of them asked before.

        Raises:
            InfeasibleError: Nothing new that meets the constraints was found.
        """
        rows = []
        for _ in range(n):
            row = self._new(self.propose)
            self._asked.add(row.tobytes())
            rows.append(row)
        return np.array(rows, dtype=np.int16).reshape(n, len(self.space.decisions))

    def tell(self, rows: Rows, metrics: Mapping[str, NDArray[np.floating[Any]]]) -> None:
        """Results of candidates.

        Args:
            rows: Shape (n, decisions).
            metrics: ``accuracy``, shape (n,), as a share; NaN for a trial that failed.
        """
        rows = np.atleast_2d(rows)
        accuracy = np.atleast_1d(np.asarray(metrics["accuracy"], dtype=np.float64))
        reward = self.objective.reward(accuracy, self.objective.cost(rows))
        for row, value in zip(rows, reward, strict=True):
            self._asked.add(row.astype(np.int16).tobytes())
            if np.isfinite(value):
                self.learn(row.astype(np.int16), float(value))

    def avoid(self, rows: Rows) -> None:
        """Candidates (n, decisions) that somebody is evaluating or has evaluated: not to be proposed."""
        self._asked.update(row.tobytes() for row in np.atleast_2d(rows).astype(np.int16))

    @abstractmethod
    def propose(self) -> Rows:
        """Some candidates in canonical form, shape (any, decisions), best first; `ask` takes the first usable one."""

    def learn(self, row: Rows, reward: float) -> None:
        """Takes in the reward of one candidate."""
        return

    def state_dict(self) -> dict[str, Any]:
        """Everything that the controller knows, as plain JSON-able data."""
        return {
            "rng": self.rng.bit_generator.state,
            "asked": [np.frombuffer(key, dtype=np.int16).tolist() for key in sorted(self._asked)],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.rng.bit_generator.state = state["rng"]
        self._asked = {np.array(row, dtype=np.int16).tobytes() for row in state["asked"]}

    def _new(self, propose: Callable[[], Rows]) -> Rows:
        for _ in range(MAX_TRIES):
            rows = propose()
            for row in rows[self.objective.feasible(rows)]:
                if row.tobytes() not in self._asked:
                    return np.asarray(row)
        raise InfeasibleError(
            f"{MAX_TRIES} batches of proposals held no new candidate that meets {dict(self.objective.constraints)}; "
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
    from hwnas.search.evolution import RegularisedEvolution
    from hwnas.search.random_search import RandomSearch

    controllers: dict[str, Callable[..., Controller]] = {"evolution": RegularisedEvolution, "random": RandomSearch}
    if name not in controllers:
        raise UnknownNameError("controller", name, controllers)
    known = set(inspect.signature(controllers[name]).parameters) - {"space", "objective", "seed"}
    for option in options:
        if option not in known:
            raise UnknownNameError(f"option of controller {name!r}:", option, known)
    return controllers[name]
