"""Optuna's samplers behind the contract of controllers, as baselines that others know."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseGASampler, BaseSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState

from hwnas.search.controllers.controller import Controller
from hwnas.search.controllers.options import check_whole
from hwnas.search.controllers.packing import pack, unpack
from hwnas.search.objective import Objective
from hwnas.search.repair import repair
from hwnas.spaces.space import Rows, Space

STUDY = "search"
BATCH = 64


class OptunaController(Controller):
    """Keeps a study in memory, and asks one of Optuna's samplers what to try next.

    Ordinal decisions are integers to the sampler, others categories; options are known by their index. A row becomes a
    trial in canonical form, whatever the sampler suggested for decisions that do not matter. With one goal the study
    maximises its reward; with several, or a whole front, it has many objectives: accuracy, and each metric of the
    goals. Results of a part of the budget count like all others; candidates whose results are to come are running
    trials, which TPE and the Gaussian process keep away from.

    Optuna's samplers know nothing of constraints that can be computed, nor that a candidate need not be tried twice.
    Suggestions of no use are passed over, and after `SUGGESTIONS` of them a random candidate is tried. With many
    objectives, a suggestion whose result is known becomes one more trial with that result, as where everything is
    tried again, and the sampler turns elsewhere; with one, copies of the best would crowd out all else.

    The sampler is made anew and seeded from the controller's own generator for each suggestion, so that all its state
    is the study's: nothing but trials and their attributes.
    """

    SUGGESTIONS = 16

    def __init__(self, space: Space, objective: Objective, seed: int = 0) -> None:
        super().__init__(space, objective, seed)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._distributions: dict[str, BaseDistribution] = {
            d.name: IntDistribution(0, n - 1) if d.ordinal else CategoricalDistribution(range(n))
            for d, n in zip(space.decisions, space.sizes.tolist(), strict=True)
        }
        self._metrics = sorted({goal.metric for goal in objective.goals}) if len(objective.goals) > 1 else []
        self._open: int | None = None  # the trial whose candidate is being looked for
        self._begin()

    @abstractmethod
    def sampler(self, seed: int) -> BaseSampler:
        """What suggests the next candidate."""

    def propose(self) -> Rows:
        """What the sampler suggests for the next trial; where that is of no use, it repaired, and random candidates."""
        if self._open is None:
            self._open = self._new_trial()
            for _ in range(self.SUGGESTIONS):
                row = self._suggest(self._open)
                key = row.tobytes()
                if self._metrics and key in self._values:
                    self._run(self._open, row)
                    self._end(self._open, row, self._values[key])
                    self._open = self._new_trial()
                elif key not in self._asked and self.objective.feasible(row[None])[0]:
                    return row[None]
            repaired = repair(self.space, self.objective, self.turn, self.rng, row[None])
            return np.concatenate([repaired, self.space.sample(self.rng, BATCH)])
        return self.space.sample(self.rng, BATCH)

    def accept(self, row: Rows) -> None:
        """The open trial runs with that candidate."""
        assert self._open is not None
        self._run(self._open, row)
        self._open = None

    def learn(self) -> None:
        """Ends the trial of the candidate, or one more where nobody asked for it."""
        row = self.results.rows[-1]
        trial = self._running.get(row.tobytes())
        if trial is None:
            trial = self._new_trial()
            self._run(trial, row)
        accuracy = self.results.accuracy[-1:]
        costs = {name: values[-1:] for name, values in self.results.costs.items()}
        if self._metrics:
            values = [float(accuracy[0]), *(float(costs[metric][0]) for metric in self._metrics)]
        else:
            values = [float(self.objective.reward(accuracy, costs)[0])]
        self._end(trial, row, values if np.isfinite(accuracy[0]) else None)

    def state_dict(self) -> dict[str, Any]:
        """See `Controller.state_dict`."""
        trials = self._storage.get_all_trials(self._study, deepcopy=False)
        rows = [[trial.params.get(name, -1) for name in self._distributions] for trial in trials]
        values = [trial.values or [np.nan] * len(self._directions) for trial in trials]
        return super().state_dict() | {
            "trials": {
                "rows": pack(np.array(rows, dtype=np.int16).reshape(len(trials), len(self._distributions))),
                "states": pack(np.array([trial.state.value for trial in trials], dtype=np.int8)),
                "values": pack(np.array(values, dtype=np.float64).reshape(len(trials), len(self._directions))),
                "attributes": [dict(trial.system_attrs) for trial in trials],
            },
            "attributes": dict(self._storage.get_study_system_attrs(self._study)),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Controller.load_state_dict`."""
        super().load_state_dict(state)
        self._begin()
        trials = state["trials"]
        rows = unpack(trials["rows"], (None, len(self._distributions)))
        states = unpack(trials["states"], (len(rows),))
        values = unpack(trials["values"], (len(rows), len(self._directions)))
        for row, ended, own, attributes in zip(rows, states, values, trials["attributes"], strict=True):
            trial = self._storage.create_new_trial(self._study)
            for key, value in attributes.items():
                self._storage.set_trial_system_attr(trial, key, value)
            if (row < 0).any():
                self._open = trial
                continue
            self._run(trial, row)
            if (became := TrialState(int(ended))) != TrialState.RUNNING:
                self._end(trial, row, own.tolist() if became == TrialState.COMPLETE else None)
        for key, value in state["attributes"].items():
            self._storage.set_study_system_attr(self._study, key, value)

    @property
    def _directions(self) -> list[StudyDirection]:
        return [StudyDirection.MAXIMIZE, *(StudyDirection.MINIMIZE for _ in self._metrics)]

    def _begin(self) -> None:
        """A study without trials."""
        self._storage = InMemoryStorage()
        self._study = self._storage.create_new_study(self._directions, STUDY)
        self._running: dict[bytes, int] = {}
        self._values: dict[bytes, list[float]] = {}
        self._open = None

    def _new_trial(self) -> int:
        """A trial without a candidate; samplers with generations count it in the present one."""
        trial = self._storage.create_new_trial(self._study)
        sampler = self.sampler(0)
        if isinstance(sampler, BaseGASampler):
            sampler.get_trial_generation(self._study_for(sampler), self._storage.get_trial(trial))
        return trial

    def _run(self, trial: int, row: Rows) -> None:
        for (name, distribution), option in zip(self._distributions.items(), row.tolist(), strict=True):
            self._storage.set_trial_param(trial, name, option, distribution)
        self._running[row.tobytes()] = trial

    def _end(self, trial: int, row: Rows, values: list[float] | None) -> None:
        """With the values of the study's objectives, None where it failed."""
        key = row.tobytes()
        if values is None:
            self._storage.set_trial_state_values(trial, TrialState.FAIL)
        else:
            self._storage.set_trial_state_values(trial, TrialState.COMPLETE, values)
            self._values[key] = values
        del self._running[key]

    def _suggest(self, trial: int) -> Rows:
        """Shape (decisions,).

        Two samplers, as one would draw decisions that it takes together and those that it takes one by one from
        generators of the same seed.
        """
        together, alone = (self.sampler(int(self.rng.integers(2**31))) for _ in range(2))
        study, frozen = self._study_for(together), self._storage.get_trial(trial)
        chosen = together.sample_relative(study, frozen, together.infer_relative_search_space(study, frozen))
        for name, distribution in self._distributions.items():
            if name not in chosen:
                chosen[name] = alone.sample_independent(study, frozen, name, distribution)
        row = np.array([chosen[name] for name in self._distributions], dtype=np.int16)
        return np.asarray(self.space.canonical(row[None])[0])

    def _study_for(self, sampler: BaseSampler) -> optuna.Study:
        return optuna.load_study(study_name=STUDY, storage=self._storage, sampler=sampler)


class TPE(OptunaController):
    """Tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011), with Optuna's defaults.

    With many objectives as by Ozaki et al. (JAIR 2022). Running trials count among the bad ones.
    """

    def sampler(self, seed: int) -> BaseSampler:
        """See `OptunaController.sampler`."""
        return TPESampler(seed=seed, constant_liar=True)


class NSGA2(OptunaController):
    """Non-dominated sorting (Deb et al., IEEE TEC 2002), with Optuna's uniform crossover and mutation.

    Args:
        space, objective, seed: See `Controller`.
        population: Trials of each generation.
    """

    def __init__(self, space: Space, objective: Objective, seed: int = 0, *, population: int = 50) -> None:
        check_whole("optuna-nsga2", 2, population=population)
        self.population = population
        super().__init__(space, objective, seed)

    def sampler(self, seed: int) -> BaseSampler:
        """See `OptunaController.sampler`."""
        return NSGAIISampler(seed=seed, population_size=self.population)


class GP(OptunaController):
    """Gaussian processes, one per objective, and the expected improvement, or that of the hypervolume.

    It takes seconds per candidate, and so few suggestions are made again.
    """

    SUGGESTIONS = 2

    def sampler(self, seed: int) -> BaseSampler:
        """See `OptunaController.sampler`."""
        return GPSampler(seed=seed)
