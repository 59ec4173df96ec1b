"""A run's folder: its files, and what can be made from them."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hwnas.latency_tables.device import Device, list_devices, load_device
from hwnas.latency_tables.steadiness import Steadiness
from hwnas.predictors.cost import CostModel
from hwnas.search.config import SearchConfig, load_config
from hwnas.search.controllers.controller import controller_class
from hwnas.search.datasets import Dataset, load_dataset
from hwnas.search.export import Agreement
from hwnas.search.goal import FORMS, Goal
from hwnas.search.ledger import Ledger
from hwnas.search.objective import Objective
from hwnas.search.report.data import NetworkRow
from hwnas.search.run_lock import held
from hwnas.spaces.catalog import space_from_spec
from hwnas.spaces.errors import InvalidFileError
from hwnas.spaces.files import write_text, write_yaml
from hwnas.spaces.space import Space


@dataclass(frozen=True)
class Run:
    """A run's folder, its configuration, and what can be made from them.

    Attributes:
        folder: With ``config.yaml``, ``device/``, ``optuna.db``, ``controller.json``, ``finals/``, ``tune/``,
            ``model.onnx``, ``result.json``, ``report.html``, and the ``lock`` of the process that is searching.
        config: As in ``config.yaml``.
    """

    folder: Path
    config: SearchConfig

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
        return f"hwnas search --resume {shlex.quote(str(self.folder))}"

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
        for name in ("device", "cost", "objective"):
            self.__dict__.pop(name, None)

    @cached_property
    def cost(self) -> CostModel:
        """Costs on that device."""
        return CostModel(self.space, self.device)

    @cached_property
    def objective(self) -> Objective:
        """What is maximised, with the costs of the device in this folder."""
        return self.objective_with(self.cost)

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
        return Objective(cost, (Goal(target, config.metric, FORMS[config.form]),), constraints)

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
