"""A search as one YAML file, checked key by key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from hwnas.search.goal import COSTS
from hwnas.search.supernet.recipe import SupernetRecipe
from hwnas.search.training import Recipe
from hwnas.spaces.catalog import JOINT, named_space, with_settings
from hwnas.spaces.errors import HwnasError, InvalidFileError, UnknownNameError
from hwnas.spaces.files import read_yaml
from hwnas.spaces.joint import Joint


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SpaceConfig(BaseModel):
    """Where to search: the arguments of `load_space`, or the keys of a space's own file.

    The image size and the number of classes come from the data.

    Or a trained model, from which to take away: ``model`` is a function that makes a torch module, as
    ``package.module:function``, called with ``options``; ``weights`` a safetensors file with the module's state, where
    the function does not load it.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = "mbconv"
    model: str | None = None
    weights: str | None = None
    options: dict[str, Any] = {}
    joint: Any = JOINT
    narrow: dict[str, list[Any]] = {}

    @field_validator("joint")
    @classmethod
    def _known(cls, joint: Any) -> Any:
        try:
            Joint.of(joint)
        except HwnasError as error:
            raise ValueError(str(error)) from error
        return joint if isinstance(joint, dict) else tuple(joint)

    @property
    def title(self) -> str:
        """What people call it: the function that makes the model, or the space's name."""
        return self.model or self.name

    @property
    def spec(self) -> dict[str, Any]:
        """What `space_from_spec` makes a space of that is no trained model's, beside the data's shapes."""
        return self.model_dump(mode="json", exclude={"model", "weights", "options"})

    def resolved(self) -> SpaceConfig:
        """With the keys of the file that it names, if it names one; what is said here wins."""
        if self.model is not None:
            return self
        given = {key: getattr(self, key) for key in self.model_fields_set - {"name"}}
        return type(self).model_validate(with_settings(named_space(self.name), given))


class DataConfig(_Section):
    """What to train on: ``digits``, a folder of images by class, or a Parquet file; see `load_dataset`."""

    name: str
    test_path: str | None = None
    validation: float = Field(default=0.2, gt=0, lt=1)
    test: float = Field(default=0.25, gt=0, lt=1)
    image_size: PositiveInt | None = None
    limit: PositiveInt | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[PositiveFloat, ...] | None = None


class TeacherConfig(_Section):
    """A trained model to distil from: see `SpaceConfig`."""

    model: str
    weights: str | None = None
    options: dict[str, Any] = {}


class CompressionConfig(_Section):
    """How what is taken away from a trained model is chosen, and how candidates are judged.

    ``criterion`` says which channels go first: ``taylor``, ``l1`` or ``geometric_median``. ``images`` are looked at to
    find that, what layers read, and how each single change alters the model's answers. Of ``proposals`` of the
    controller, judged by these, the best is fine-tuned. All learn from ``teacher``, too, by default from the model.
    """

    criterion: Literal["taylor", "l1", "geometric_median"] = "taylor"
    images: PositiveInt = Field(default=1024, ge=16)
    proposals: PositiveInt = 1000
    teacher: TeacherConfig | None = None


class DeviceConfig(_Section):
    """What the network will run on: a registered device, a simulated one, or this machine, which is registered first.

    Where the device is this machine, ``focus_networks`` networks beside the most promising candidates are measured too
    before the search, and as many beside its best candidates after it.

    With ``measure_trials`` the network of every trial is measured while it trains, and so are the last ones: on this
    machine, or on the node of the Ray cluster that has the resource ``device:NAME``. What was measured counts instead
    of the prediction.
    """

    name: str = "this-machine"
    register_seconds: PositiveFloat = 75.0
    focus_networks: int = Field(default=64, ge=0)
    measure_trials: bool = False


class ObjectiveConfig(_Section):
    """What to maximise. Give the target in the metric's unit, or as a share of the reference network's cost."""

    metric: Literal[COSTS] = "latency_ms"  # type: ignore[valid-type]
    target: PositiveFloat | None = None
    target_ratio: PositiveFloat | None = None
    form: Literal["soft", "hard", "strict"] = "soft"
    constraints: dict[Literal[COSTS], PositiveFloat] = {}  # type: ignore[valid-type]
    constraint_ratios: dict[Literal[COSTS], PositiveFloat] = {}  # type: ignore[valid-type]

    @model_validator(mode="after")
    def _one_target(self) -> ObjectiveConfig:
        if (self.target is None) == (self.target_ratio is None):
            raise ValueError("give either target or target_ratio")
        return self


class AlsoConfig(_Section):
    """A further network that is wanted from the same trainings: for another budget, perhaps on another device."""

    objective: ObjectiveConfig
    device: DeviceConfig | None = None


class ControllerConfig(_Section):
    """Who proposes candidates; ``options`` are arguments of the controller's class."""

    name: str = "evolution"
    options: dict[str, Any] = {}


class SupernetConfig(SupernetRecipe):
    """A supernet that is trained before the trials: how, by how many workers, and how θ weighs the cost.

    Each worker takes the CPUs, and the GPU, that a trial takes: see `SearchBudget`. One worker without a GPU is the
    driver's own process.

    ``loss`` is FBNet's ``product``, or a ``hinge`` on each goal's target.
    """

    loss: Literal["product", "hinge"] = "product"
    workers: PositiveInt = 1

    @property
    def recipe(self) -> SupernetRecipe:
        """How to train it."""
        return SupernetRecipe.model_validate(self.model_dump(include=set(SupernetRecipe.model_fields)))


class EvaluatorConfig(_Section):
    """How candidates are evaluated.

    By training them from scratch (``train``), from shared weights on (``fine_tune``), or with these alone (``shared``).
    ``weights`` is a supernet's checkpoint; that of the run's own supernet by default. Candidates of a trained model are
    fine-tuned from what they keep of it.
    """

    name: Literal["train", "fine_tune", "shared"] = "train"
    weights: str | None = None


class SearchBudget(_Section):
    """How much to spend, on how many workers, and what each takes of its node.

    ``resources`` are ``cpu``, also the threads of torch, ``gpu``, and ``device:NAME`` for a node that is a device.
    """

    trials: PositiveInt = 64
    minutes: PositiveFloat | None = None
    workers: PositiveInt = 2
    early_stopping: bool = True
    seed: int = Field(default=0, ge=0)
    resources: dict[str, PositiveFloat] = {"cpu": 1.0}

    @field_validator("resources")
    @classmethod
    def _schedulable(cls, resources: dict[str, float]) -> dict[str, float]:
        for name, amount in resources.items():
            if name not in ("cpu", "gpu") and not re.fullmatch("device:.+", name):
                raise ValueError(f"there is no resource {name!r}: give cpu, gpu, or device:NAME")
            if amount > 1 and amount != int(amount):
                raise ValueError(f"{name} must be a whole number or a share of one, got {amount:g}")
        return {"cpu": 1.0} | resources


class FinalConfig(_Section):
    """What happens to the best: how many are retrained, on how many epochs and images each (as is the reference)."""

    candidates: PositiveInt = 3
    epochs: PositiveInt = 40
    images: PositiveInt | None = None


class SearchConfig(_Section):
    """A whole search.

    ``also`` are further networks from the same trials, by name. A run writes ``part_of`` itself, into the
    configurations of those: where the run is that they are a part of.
    """

    space: SpaceConfig = SpaceConfig()
    data: DataConfig
    device: DeviceConfig = DeviceConfig()
    objective: ObjectiveConfig
    also: dict[str, AlsoConfig] = {}
    controller: ControllerConfig = ControllerConfig()
    supernet: SupernetConfig | None = None
    evaluator: EvaluatorConfig = EvaluatorConfig()
    compression: CompressionConfig = CompressionConfig()
    training: Recipe = Recipe()
    search: SearchBudget = SearchBudget()
    final: FinalConfig = FinalConfig()
    part_of: str | None = None

    @property
    def final_recipe(self) -> Recipe:
        """How the best are trained."""
        return self.training.model_copy(update={"epochs": self.final.epochs, "images": self.final.images})

    @model_validator(mode="after")
    def _weights_to_share(self) -> SearchConfig:
        if self.space.model is not None:
            if self.supernet is not None or self.evaluator != EvaluatorConfig():
                raise ValueError("candidates of a trained model are fine-tuned; leave out evaluator and supernet")
            return self
        if self.compression != CompressionConfig():
            raise ValueError("compression is of a trained model; give space.model, or leave it out")
        if self.evaluator.name != "train" and self.supernet is None and self.evaluator.weights is None:
            raise ValueError(f"evaluator {self.evaluator.name} needs weights, or a supernet section to train them")
        return self

    @model_validator(mode="after")
    def _measured_or_not(self) -> SearchConfig:
        for own in self.also.values():
            device = own.device or self.device
            if device.name == self.device.name and device.measure_trials != self.device.measure_trials:
                raise ValueError(f"measure_trials of {device.name} must be the same everywhere")
        return self

    @field_validator("also")
    @classmethod
    def _names_of_folders(cls, also: dict[str, AlsoConfig]) -> dict[str, AlsoConfig]:
        for name in also:
            if not re.fullmatch(r"[A-Za-z0-9][\w-]*", name):
                raise ValueError(f"{name!r} cannot be the name of a network: give letters, digits, - and _")
        return also

    def part(self, name: str) -> SearchConfig:
        """The search for one network of ``also`` alone."""
        own = self.also[name]
        changes = {"objective": own.objective, "device": own.device or self.device, "also": {}, "part_of": "../.."}
        return self.model_copy(update=changes)

    @property
    def steps(self) -> int:
        """Of a full evaluation."""
        return 1 if self.evaluator.name == "shared" else self.training.epochs


def load_config(path: Path) -> SearchConfig:
    """A search from a YAML file.

    Raises:
        InvalidFileError: Malformed YAML, or a value of the wrong kind; says which.
        UnknownNameError: A key that does not exist; names the nearest.
    """
    return parse_config(read_yaml(path), str(path))


def load_changed(path: Path, changes: Mapping[str, Mapping[str, Any]]) -> SearchConfig:
    """As `load_config`, with keys of some sections changed; those of None are left as they are."""
    settings = load_config(path).model_dump(mode="json")
    for section, values in changes.items():
        settings[section] |= {key: value for key, value in values.items() if value is not None}
    return parse_config(settings, "the command line")


def parse_config(data: dict[str, Any], where: str = "the search") -> SearchConfig:
    """As `load_config`, from plain data; ``where`` is what an error calls it."""
    try:
        return SearchConfig.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        location = [str(part) for part in first["loc"]]
        if first["type"] == "extra_forbidden":
            known = _section(location[:-1]).model_fields
            raise UnknownNameError(f"key in {where}:", location[-1], known) from error
        message = first["msg"].removeprefix("Value error, ")
        raise InvalidFileError(f"{where}: {'.'.join(location) or 'the whole'}: {message}") from error


def _section(location: list[str]) -> type[BaseModel]:
    section: Any = SearchConfig
    for part in location:
        if get_origin(section) is dict:  # the part is a key of it
            section = get_args(section)[1]
            continue
        annotation = section.model_fields[part].annotation
        optional = type(None) in get_args(annotation)
        section = next(a for a in get_args(annotation) if a is not type(None)) if optional else annotation
    found: type[BaseModel] = section
    return found
