"""A run's folder: its files, and what can be made from them."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hwnas.latency_tables.device import Device, list_devices, load_device
from hwnas.latency_tables.steadiness import Steadiness
from hwnas.predictors.cost import CostModel
from hwnas.predictors.several import CostsInPlaces
from hwnas.search.config import SearchConfig, SpaceConfig, TeacherConfig, load_config
from hwnas.search.controllers.controller import controller_class
from hwnas.search.datasets import Dataset, load_dataset
from hwnas.search.goal import FORMS, Floats, Goal
from hwnas.search.ledger import Ledger, Trial
from hwnas.search.objective import Objective
from hwnas.search.run_lock import held
from hwnas.search.run_result import RunResult
from hwnas.spaces.candidate import Candidate
from hwnas.spaces.catalog import space_from_spec
from hwnas.spaces.errors import InvalidFileError, InvalidSpaceError
from hwnas.spaces.files import replacing, write_yaml
from hwnas.spaces.space import Space

if TYPE_CHECKING:
    from hwnas.spaces.traced.model import TracedModel


@dataclass(frozen=True)
class Run:
    """A run's folder, its configuration, and what can be made from them.

    Attributes:
        folder: With ``config.yaml``, ``device/``, ``optuna.db``, ``controller.json``, ``finals/``, ``tune/``,
            ``model.onnx``, ``result.json``, ``report.html``, the ``lock`` of the process that is searching, and in
            ``also/`` a run's folder for each part.
        config: As in ``config.yaml``.
        outer: The run that this one is a part of.
    """

    folder: Path
    config: SearchConfig
    outer: Run | None = field(default=None, repr=False)

    @classmethod
    def create(cls, folder: Path, config: SearchConfig) -> Run:
        """A new run. Its data, space and controller are looked at before anything is written.

        Raises:
            InvalidFileError: The folder holds a run that has begun already. One that never got as far as knowing its
                devices, because something was wrong with it, is replaced.
            UnavailableError: Another search is running in the folder.
            HwnasError: What the configuration names cannot be used.
        """
        if config.part_of is not None:
            raise InvalidFileError("this is the configuration of a part of a run; search with that of the whole")
        run = cls(folder, config.model_copy(update={"space": config.space.resolved()}))
        if (folder / "device").exists():
            raise InvalidFileError(f"{folder} holds a run already; continue it with '{run.resume_command}'")
        controller_class(config.controller.name, config.controller.options)
        run.take_models()
        _ = run.space
        with held(folder):
            shutil.rmtree(folder / "also", ignore_errors=True)
            for name, model in (("original", run.original), ("teacher", run.teacher)):
                if model is not None and (name == "original" or model is not run.original):
                    model.save(folder, name)
            for each in run.all:
                write_yaml(each.folder / "config.yaml", each.config.model_dump(mode="json"))
        return run

    @classmethod
    def open(cls, folder: Path) -> Run:
        """An existing run, or a part of one; raises `InvalidFileError` where there is none."""
        if not (folder / "config.yaml").exists():
            raise InvalidFileError(f"{folder} is no run folder: it has no config.yaml")
        config = load_config(folder / "config.yaml")
        if config.part_of is None:
            return cls(folder, config)
        whole, name = cls.open(folder / config.part_of), folder.resolve().name
        if name not in whole.parts:
            raise InvalidFileError(f"{folder} is a part of the run in {whole.folder}, which does not know it")
        return whole.parts[name]

    @property
    def resume_command(self) -> str:
        """What continues this run, or the one that it is a part of."""
        return f"hwnas search --resume {shlex.quote(str((self.outer or self).folder))}"

    @cached_property
    def parts(self) -> dict[str, Run]:
        """The runs of the further networks that are wanted from the same trials, by name."""
        return {name: Run(self.folder / "also" / name, self.config.part(name), self) for name in self.config.also}

    @property
    def all(self) -> list[Run]:
        """This run and its parts."""
        return [self, *self.parts.values()]

    @cached_property
    def dataset(self) -> Dataset:
        """The data, loaded once."""
        if self.outer is not None:
            return self.outer.dataset
        data = self.config.data
        return load_dataset(
            data.name,
            validation=data.validation,
            test=data.test,
            image_size=data.image_size,
            limit=data.limit,
            test_path=data.test_path,
            seed=self.config.search.seed,
            mean=data.mean,
            std=data.std,
        )

    @cached_property
    def space(self) -> Space:
        """The space, for the data's images and classes."""
        if self.outer is not None:
            return self.outer.space
        if self.original is not None:
            return self.original.space(self.config.space.joint, self.config.space.narrow)
        data = {"input_shape": list(self.dataset.input_shape), "num_classes": self.dataset.num_classes}
        return space_from_spec(self.config.space.spec | data)

    @cached_property
    def original(self) -> TracedModel | None:
        """The trained model whose compression is searched, as it was when the run began; None where there is none."""
        if self.outer is not None:
            return self.outer.original
        return self._model("original", self.config.space)

    @cached_property
    def teacher(self) -> TracedModel | None:
        """What candidates are distilled from."""
        given = (self.outer or self).config.compression.teacher
        return self.original if given is None else self._model("teacher", given)

    def take_models(self) -> None:
        """Traces the models that the configuration names, whatever the folder holds of a run that never began.

        Raises:
            InvalidSpaceError: One cannot be followed, or the teacher knows other classes than the data.
            InvalidFileError: A file of weights is not there, or holds others.
        """
        teacher = self.config.compression.teacher
        self.__dict__["original"] = self._traced(self.config.space)
        self.__dict__["teacher"] = self.original if teacher is None else self._traced(teacher)
        if self.teacher is not None and self.teacher.graph.output.shape != (self.dataset.num_classes,):
            raise InvalidSpaceError(
                f"the teacher returns {self.teacher.graph.output.shape} for an image, but the data have "
                f"{self.dataset.num_classes} classes"
            )

    def _traced(self, given: SpaceConfig | TeacherConfig) -> TracedModel | None:
        if given.model is None:
            return None
        from hwnas.spaces.traced.model import load_model

        weights = Path(given.weights) if given.weights else None
        return load_model(given.model, weights, self.dataset.input_shape, given.options)

    def _model(self, name: str, given: SpaceConfig | TeacherConfig) -> TracedModel | None:
        if given.model is None:
            return None
        from hwnas.spaces.traced.model import TracedModel

        return TracedModel.load((self.outer or self).folder, name)

    # ---- device and objective ---------------------------------------------------------------------------------------

    @property
    def by_device(self) -> list[list[Run]]:
        """This run and its parts, those for the same device together; its own device comes first."""
        groups: dict[str, list[Run]] = {}
        for run in self.all:
            groups.setdefault(run.config.device.name, []).append(run)
        return list(groups.values())

    @cached_property
    def leader(self) -> Run:
        """The run whose folder holds this one's device: that of the first for the same device, or this one."""
        groups = (self.outer or self).by_device
        return next(group[0] for group in groups if any(run.folder == self.folder for run in group))

    @property
    def has_device(self) -> bool:
        """Whether the run knows its device."""
        return (self.leader.folder / "device" / "profile.yaml").exists()

    @property
    def registered(self) -> Device | None:
        """The device that the config names, as registered; None where that is this machine and it never was."""
        name = self.config.device.name
        return None if name == "this-machine" and name not in list_devices() else load_device(name)

    @cached_property
    def device(self) -> Device:
        """The device as the run knows it: as registered, and what the run measured itself."""
        return self.leader.device if self.leader is not self else Device.load(self.folder / "device")

    @cached_property
    def steadiness(self) -> Steadiness:
        """What is known of this machine's speed; all measurements for a device since the run was opened share it."""
        if self.leader is not self:
            return self.leader.steadiness
        known = self.device if self.has_device else self.registered
        return known.steadiness() if known else Steadiness()

    def keep_device(self, device: Device) -> None:
        """Puts a device, or one that knows more, into the folder; costs and objectives follow it from now on."""
        device.save(self.leader.folder / "device")
        for run in (self.outer or self).all:
            for name in ("device", "cost", "objective", "wanted"):
                run.__dict__.pop(name, None)

    @cached_property
    def cost(self) -> CostModel:
        """Costs on that device."""
        return self.leader.cost if self.leader is not self else CostModel(self.space, self.device)

    @cached_property
    def objective(self) -> Objective:
        """What this run's own network is to be, with the costs of its device."""
        return Objective(self.cost, (self.goal_with(self.cost),))

    @cached_property
    def wanted(self) -> Objective:
        """What the search maximises: this network and those of all parts; other devices' costs are ``device:cost``."""
        cost: CostModel | CostsInPlaces = self.cost
        goals: list[Goal] = []
        elsewhere: dict[str, CostModel] = {}
        for group in self.by_device:
            own = [goal for run in group for goal in run.objective.goals]
            if group[0] is not self:
                place = group[0].config.device.name
                elsewhere[place] = group[0].cost
                own = [goal.on(place) for goal in own]
            goals += own
        if elsewhere:
            cost = CostsInPlaces(self.cost, elsewhere)
        return Objective(cost, tuple(goals))

    @property
    def measures_trials(self) -> bool:
        """Whether trials are measured on this network's device."""
        return self.leader.config.device.measure_trials

    @property
    def measured_on(self) -> dict[str, Device]:
        """The devices on which trials are measured, by the place before the names of their costs, see `wanted`."""
        leaders = [group[0] for group in self.by_device if group[0].measures_trials]
        return {"" if each is self else each.config.device.name: each.device for each in leaders}

    def goal_with(self, cost: CostModel) -> Goal:
        """The network that is wanted; targets given as shares are of the reference network's cost.

        Raises:
            UnavailableError: The device does not know a cost that the config names.
        """
        config = self.config.objective
        for name in (config.metric, *config.constraints, *config.constraint_ratios):
            cost.require(name)
        reference = cost.of(self.space.reference())
        target = config.target or (config.target_ratio or 1.0) * reference[config.metric]
        constraints = {**config.constraints}
        constraints |= {name: ratio * reference[name] for name, ratio in config.constraint_ratios.items()}
        return Goal(target, config.metric, FORMS[config.form], constraints)

    # ---- what it leaves ---------------------------------------------------------------------------------------------

    @property
    def supernet_path(self) -> Path:
        """Of its supernet's checkpoint."""
        return self.folder / "supernet.safetensors"

    @cached_property
    def ledger(self) -> Ledger:
        """All trials."""
        return Ledger(self.folder / "optuna.db", self.space, self.config.objective.metric)

    def adopt_trials(self, trials: Sequence[Trial]) -> None:
        """Makes the finished trials of another run its own, with costs and rewards as they are here; once."""
        if len(self.ledger) == len(trials):
            return
        self.ledger.settle()  # what SQLite keeps beside the file must not outlive it
        trials = [replace(trial, measured=self._measured_here(trial)) for trial in trials]
        costs = self.cost(np.array([t.row for t in trials]))
        accuracy = np.array([t.accuracy for t in trials], dtype=np.float64)
        rewards = self.objective.reward(accuracy, self.costs_of(trials))
        with replacing(self.ledger.path) as temporary:
            ledger = Ledger(temporary, self.space, self.config.objective.metric)
            for i, (trial, reward) in enumerate(zip(trials, rewards, strict=True)):
                ledger.adopt(trial, {name: float(values[i]) for name, values in costs.items()}, float(reward))
            ledger.settle()
        del self.__dict__["ledger"]

    def costs_of(self, trials: Sequence[Trial]) -> dict[str, Floats]:
        """What trials' candidates cost, by name, shape (n,): as measured, else as the device predicts now."""
        costs = dict(self.cost(np.array([t.row for t in trials])))
        for name, predicted in costs.items():
            measured = np.array([t.measured.get(name, np.nan) for t in trials])
            costs[name] = np.where(np.isnan(measured), predicted, measured)
        return costs

    def _measured_here(self, trial: Trial) -> dict[str, float]:
        """What was measured of a trial of the whole run on this one's device; see `wanted` for the names."""
        place = "" if self.leader is (self.outer or self) else self.config.device.name
        found = {name.rpartition(":"): value for name, value in trial.measured.items()}
        return {name: value for (there, _, name), value in found.items() if there == place}

    def weights_path(self, candidate: Candidate) -> Path:
        """Where the weights of a network are that was trained in full."""
        return self.folder.resolve() / "finals" / f"{candidate.digest}.safetensors"

    @property
    def result(self) -> RunResult | None:
        """How the run ended, or None before it has."""
        path = self.folder / "result.json"
        return RunResult.from_json(path) if path.exists() else None
