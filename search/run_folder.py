"""A run's folder: its files, and what can be made from them."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.latency_tables.device import Device, list_devices, load_device
from hwnas.latency_tables.steadiness import Steadiness
from hwnas.predictors.cost import CostModel
from hwnas.predictors.several import CostsInPlaces
from hwnas.search.config import SearchConfig, load_config
from hwnas.search.controllers.controller import controller_class
from hwnas.search.datasets import Dataset, load_dataset
from hwnas.search.export import Agreement
from hwnas.search.goal import FORMS, Goal
from hwnas.search.ledger import Ledger, Trial
from hwnas.search.objective import Objective
from hwnas.search.report.data import NetworkRow
from hwnas.search.run_lock import held
from hwnas.spaces.candidate import Candidate
from hwnas.spaces.catalog import space_from_spec
from hwnas.spaces.errors import InvalidFileError
from hwnas.spaces.files import replacing, write_text, write_yaml
from hwnas.spaces.space import Space


@dataclass(frozen=True)
class Run:
    """A run's folder, its configuration, and what can be made from them.

    Attributes:
        folder: With ``config.yaml``, ``device/``, ``optuna.db``, ``controller.json``, ``finals/``, ``tune/``,
            ``model.onnx``, ``result.json``, ``report.html``, the ``lock`` of the process that is searching, and a run's
            folder for each part.
        config: As in ``config.yaml``.
    """

    folder: Path
    config: SearchConfig

    @cached_property
    def parts(self) -> dict[str, Run]:
        """The runs of the further networks that are wanted from the same trainings, by name, each in its folder."""
        parts = {name: Run(self.folder / name, self.config.part(name)) for name in self.config.also}
        for part in parts.values():
            part.__dict__.update(dataset=self.dataset, space=self.space)
        return parts

    @classmethod
    def create(cls, folder: Path, config: SearchConfig) -> Run:
        """A new run. Its data, space and controller are looked at before anything is written.

        Raises:
            InvalidFileError: The folder holds a run that has begun already. One that never got as far as knowing its
                device, because something was wrong with it, is replaced.
            UnavailableError: Another search is running in the folder.
            HwnasError: What the configuration names cannot be used.
        """
        run = cls(folder, config.model_copy(update={"space": config.space.resolved()}))
        if (folder / "device").exists():
            raise InvalidFileError(f"{folder} holds a run already; continue it with '{run.resume_command}'")
        controller_class(config.controller.name, config.controller.options)
        _ = run.space
        with held(folder):
            write_yaml(folder / "config.yaml", run.config.model_dump(mode="json"))
        return run

    @classmethod
    def open(cls, folder: Path) -> Run:
        """An existing run; raises `InvalidFileError` where there is none."""
        if not (folder / "config.yaml").exists():
            raise InvalidFileError(f"{folder} is no run folder: it has no config.yaml")
        return cls(folder, load_config(folder / "config.yaml"))

    @property
    def resume_command(self) -> str:
        """What continues this run."""
        return f"hwnas search --resume {shlex.quote(str(self.whole))}"

    @property
    def whole(self) -> Path:
        """The folder of the run that this one is a part of; its own if it is none."""
        outer = self.folder.absolute().parent
        known = (outer / "config.yaml").exists() and self.folder.name in load_config(outer / "config.yaml").also
        return self.folder.parent if known else self.folder

    @cached_property
    def dataset(self) -> Dataset:
        """The data, loaded once."""
        data = self.config.data
        return load_dataset(
            data.name,
            validation=data.validation,
            test=data.test,
            image_size=data.image_size,
            limit=data.limit,
            test_path=data.test_path,
            seed=self.config.search.seed,
        )

    @cached_property
    def space(self) -> Space:
        """The space, for the data's images and classes."""
        data = {"input_shape": list(self.dataset.input_shape), "num_classes": self.dataset.num_classes}
        return space_from_spec(self.config.space.model_dump(mode="json") | data)

    @property
    def registered(self) -> Device | None:
        """The device that the config names, as registered; None where that is this machine and it never was."""
        name = self.config.device.name
        return None if name == "this-machine" and name not in list_devices() else load_device(name)

    @cached_property
    def device(self) -> Device:
        """The device as the run knows it: as registered, and what the run measured itself."""
        return Device.load(self.folder / "device")

    @cached_property
    def steadiness(self) -> Steadiness:
        """What is known of this machine's speed; all measurements since the run was opened share it."""
        known = self.device if (self.folder / "device" / "profile.yaml").exists() else self.registered
        return known.steadiness() if known else Steadiness()

    def replace_device(self, device: Device) -> None:
        """Puts a device that knows more into the folder; costs and objective follow it from now on."""
        device.save(self.folder / "device")
        for name in ("device", "cost", "objective", "wanted"):
            self.__dict__.pop(name, None)

    @cached_property
    def cost(self) -> CostModel:
        """Costs on that device."""
        return CostModel(self.space, self.device)

    @cached_property
    def objective(self) -> Objective:
        """What this run's own network is to be, with the costs of the device in this folder."""
        return self.objective_with(self.cost)

    @cached_property
    def wanted(self) -> Objective:
        """What the search maximises: this network and those of all parts, whose costs are named ``part:cost``."""
        if not self.parts:
            return self.objective
        cost = CostsInPlaces(self.cost, {name: part.cost for name, part in self.parts.items()})
        others = [goal.on(name) for name, part in self.parts.items() for goal in part.objective.goals]
        return Objective(cost, (*self.objective.goals, *others))

    def objective_with(self, cost: CostModel) -> Objective:
        """What is maximised; targets given as shares are of the reference network's cost.

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
        return Objective(cost, (Goal(target, config.metric, FORMS[config.form], constraints),))

    @property
    def supernet_path(self) -> Path:
        """Of its supernet's checkpoint."""
        return self.folder / "supernet.safetensors"

    @property
    def controller_options(self) -> dict[str, Any]:
        """Those of the configuration; architecture parameters are those of the run's supernet, if it has one."""
        options = dict(self.config.controller.options)
        if self.config.controller.name == "gumbel" and self.config.supernet is not None:
            options.setdefault("logits", str(self.supernet_path))
        return options

    @cached_property
    def ledger(self) -> Ledger:
        """All trials."""
        return Ledger(self.folder / "optuna.db", self.space, self.config.objective.metric)

    def begin(self) -> None:
        """Writes the configuration, where there is none yet."""
        self.folder.mkdir(exist_ok=True)
        if not (self.folder / "config.yaml").exists():
            write_yaml(self.folder / "config.yaml", self.config.model_dump(mode="json"))

    def adopt_trials(self, trials: Sequence[Trial]) -> None:
        """Makes the finished trials of another run its own, with costs and rewards as they are here; once."""
        path = self.folder / "optuna.db"
        if path.exists() or not trials:
            return
        costs = self.cost(np.array([t.row for t in trials]))
        rewards = self.objective.reward(np.array([t.accuracy for t in trials], dtype=np.float64), costs)
        with replacing(path) as temporary:
            ledger = Ledger(temporary, self.space, self.config.objective.metric)
            for i, (trial, reward) in enumerate(zip(trials, rewards, strict=True)):
                ledger.adopt(trial, {name: float(values[i]) for name, values in costs.items()}, float(reward))
            ledger.settle()

    def weights_path(self, candidate: Candidate) -> Path:
        """Where the weights of a network are that was trained in full."""
        return self.folder.resolve() / "finals" / f"{candidate.digest}.safetensors"

    @property
    def result(self) -> RunResult | None:
        """How the run ended, or None before it has."""
        path = self.folder / "result.json"
        return RunResult.from_json(path) if path.exists() else None


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended: the chosen network and the reference, in that order, and the check of the exported file.

    Latencies, predicted ones too, are at the speed of the machine at the end: ``drift`` times those of its table.
    In the file, latencies that were not measured (NaN) are null, and energy that the device does not know is left out.
    """

    networks: tuple[NetworkRow, ...]
    candidates: tuple[Mapping[str, Any], ...]
    agreement: Agreement
    seconds: dict[str, float] = field(default_factory=dict)
    drift: float = 1.0

    @classmethod
    def from_json(cls, path: Path) -> RunResult:
        """From ``result.json``; raises `InvalidFileError`."""
        try:
            data = json.loads(path.read_text())
            networks = tuple(NetworkRow(**_with_nan(row)) for row in data["networks"])
            return cls(
                networks, tuple(data["candidates"]), Agreement(**data["agreement"]), data["seconds"], data["drift"]
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidFileError(f"{path} is not a run's result: {error!r}") from error

    def save(self, path: Path) -> None:
        """The inverse of `from_json`."""
        data = asdict(self)
        data["networks"] = [_with_null(row) for row in data["networks"]]
        write_text(path, json.dumps(data, indent=1, allow_nan=False))


def _with_null(row: dict[str, Any]) -> dict[str, Any]:
    known = {key: value for key, value in row.items() if value is not None}
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in known.items()}


def _with_nan(row: dict[str, Any]) -> dict[str, Any]:
    return {key: math.nan if value is None else value for key, value in row.items()}
