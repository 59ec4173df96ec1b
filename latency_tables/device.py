"""A device profile: a named device, its runtime, how it was measured, and what was measured."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hwnas.latency_tables.execution import Execution
from hwnas.latency_tables.runtimes import Runtime, make_runtime
from hwnas.latency_tables.simulated import ACCELERATORS, Accelerator
from hwnas.latency_tables.steadiness import Steadiness
from hwnas.latency_tables.table import LatencyTable
from hwnas.latency_tables.transferred import TransferredModel
from hwnas.spaces.errors import InvalidFileError, UnavailableError, UnknownNameError
from hwnas.spaces.files import read_yaml, write_yaml

SIMULATED = "simulated"
"""The runtime of a device whose costs are computed."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Precision(_Model):
    """What the device does with one pair of weight and activation bits, found by measuring.

    Attributes:
        weight_bits, act_bits: Bits of the weights and of the activations.
        execution: See `Execution`.
        relative_latency: Latency of a network all in this precision, relative to float32.
        kernels: What ran its convolutions.
    """

    weight_bits: int
    act_bits: int
    execution: Execution
    relative_latency: float
    kernels: tuple[str, ...]


class Verification(_Model):
    """Error of the cost model on whole networks that it never saw.

    Attributes:
        networks: How many.
        mape: Mean absolute percentage error, as a share.
        kendall_tau: Rank correlation.
        within_10_percent: Share of networks predicted within ±10 %.
        when: Date and time, UTC.
    """

    networks: int
    mape: float
    kendall_tau: float
    within_10_percent: float
    when: str


class PeakMemory(_Model):
    """Error of the predicted peak memory on whole networks held out.

    Attributes:
        verified: What the cost model predicts.
        lifetimes_tau: Kendall tau of what lifetimes of activations say alone.
    """

    verified: Verification
    lifetimes_tau: float


class PowerMeter(_Model):
    """How a device's energy was measured.

    Attributes:
        name: Of `hwnas.latency_tables.energy.meters`, or ``log`` for a meter whose log was read afterwards.
        what: What it measures.
        idle_watts: Power when nothing runs, which was subtracted.
        clock_offset_s: How far the log's clock is ahead of the device's.
        windows, window_s: Of each network, and how long each is at least.
        verified: Error of the energy model on networks that it never saw.
    """

    name: str
    what: str
    windows: int
    window_s: float
    idle_watts: float
    clock_offset_s: float | None = None
    verified: Verification | None = None

    @property
    def in_words(self) -> str:
        """What was measured, how, and to what error."""
        text = f"{self.what}; {self.windows} windows of {self.window_s:g} s, {self.idle_watts:.1f} W idle power "
        text += "subtracted"
        if self.verified:
            v = self.verified
            text += f"; held out: MAPE {v.mape:.1%}, Kendall tau {v.kendall_tau:.3f} ({v.networks} networks)"
        return text


class Profile(_Model):
    """The content of ``profile.yaml``.

    ``probe_ms``: see `hwnas.latency_tables.steadiness`. ``off_speed``: how many networks were measured at another speed
    of the machine than most when it was registered, and whether they were left out. ``simulated``: nobody measured it.
    ``transferred``: what latency is predicted with, where too few networks were measured to learn from them alone.
    """

    format: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    simulated: bool = False
    runtime: str
    runtime_settings: dict[str, Any]
    facts: dict[str, str]
    protocol: dict[str, float | int | str]
    probe_ms: float | None
    registered: str
    registration_seconds: float
    off_speed: int = 0
    off_speed_left_out: bool = False
    precisions: tuple[Precision, ...] = ()
    verified: Verification | None = None
    power_meter: PowerMeter | None = None
    peak_memory: PeakMemory | None = None
    transferred: TransferredModel | None = None

    @property
    def off_speed_in_words(self) -> str:
        """What became of the networks that were measured at another speed of the machine."""
        fate = "left out" if self.off_speed_left_out else "brought to its usual one as the anchors show"
        return f"{self.off_speed} networks were measured at another speed of the machine: {fate}"


@dataclass(frozen=True, slots=True)
class Device:
    """A device, registered or simulated: a folder with ``profile.yaml``, ``table.parquet`` and ``networks.parquet``."""

    profile: Profile
    table: LatencyTable = field(default_factory=LatencyTable)

    @property
    def name(self) -> str:
        """The profile's name."""
        return self.profile.name

    @property
    def accelerator(self) -> Accelerator | None:
        """What computes the costs of a simulated device; None where they are measured."""
        if self.profile.runtime != SIMULATED:
            return None
        name = str(self.profile.runtime_settings.get("accelerator"))
        if name not in ACCELERATORS:
            raise UnknownNameError("simulated accelerator", name, ACCELERATORS)
        return ACCELERATORS[name]

    @property
    def measured_in_words(self) -> str:
        """How much was measured, and when."""
        if self.accelerator:
            return "nothing: latency and energy are computed from the operators"
        roles = [n.role for n in self.table.networks]
        return (
            f"{roles.count('fit')} networks to learn from and {roles.count('check')} held out, "
            f"{len(self.table.operators)} distinct operators, {self.profile.registered}, "
            f"{self.profile.registration_seconds:.0f} s"
        )

    def make_runtime(self) -> Runtime:
        """The runtime that the device was measured with.

        Raises:
            UnavailableError: It is not installed, or the device is simulated and runs nothing.
        """
        if self.accelerator:
            raise UnavailableError(f"{self.name} is simulated: its costs are computed, and nothing can run on it")
        return make_runtime(self.profile.runtime, self.profile.runtime_settings)

    def runs_on(self, runtime: Runtime) -> bool:
        """Whether a runtime is the one that the device was measured with, in everything that the user chooses."""
        own, other = self.profile.runtime_settings, runtime.settings()
        chosen = [name for name in other if name != "weights_8bit"]
        return self.profile.runtime == runtime.name and all(own.get(name) == other[name] for name in chosen)

    def steadiness(self) -> Steadiness:
        """Knows how fast the machine was when it was registered."""
        return Steadiness(self.profile.probe_ms)

    @classmethod
    def simulate(cls, name: str) -> Device:
        """The simulated device of that name in `ACCELERATORS`."""
        accelerator = ACCELERATORS[name]
        profile = Profile(
            name=name,
            simulated=True,
            runtime=SIMULATED,
            runtime_settings={"accelerator": name},
            facts={"processor": accelerator.what, "runtime": SIMULATED, "source": accelerator.source},
            protocol={},
            probe_ms=None,
            registered="",
            registration_seconds=0.0,
        )
        return cls(profile)

    def save(self, folder: Path) -> None:
        """Writes the device's files into ``folder``, the profile last, so that an unfinished device is not listed."""
        self.table.save(folder)
        write_yaml(folder / "profile.yaml", self.profile.model_dump(mode="json"))

    @classmethod
    def load(cls, folder: Path) -> Device:
        """The inverse of `save`; raises `InvalidFileError`."""
        data = read_yaml(folder / "profile.yaml")
        try:
            profile = Profile.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise InvalidFileError(f"{folder / 'profile.yaml'}: {where}: {first['msg']}") from error
        device = cls(profile, LatencyTable.load(folder))
        try:
            _ = device.accelerator
        except UnknownNameError as error:
            raise InvalidFileError(f"{folder / 'profile.yaml'}: {error}") from error
        if device.accelerator and not profile.simulated:
            raise InvalidFileError(f"{folder / 'profile.yaml'}: simulated: must be true where costs are computed")
        return device


def devices_folder() -> Path:
    """Where registered devices live: ``$HWNAS_DEVICES``, or ``hwnas/devices`` in the user's data folder."""
    if path := os.environ.get("HWNAS_DEVICES"):
        return Path(path)
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "hwnas" / "devices"


def list_devices() -> list[str]:
    """Names of the registered devices. Beside them `load_device` knows the simulated ones, those of `ACCELERATORS`."""
    return sorted({p.parent.name for p in devices_folder().glob("*/profile.yaml")} - ACCELERATORS.keys())


def load_device(name: str) -> Device:
    """A registered or simulated device by name, or by the path of its folder.

    Raises:
        UnknownNameError: No device of that name; names the nearest.
        InvalidFileError: Its files cannot be used.
    """
    if len(name) < 4096 and os.path.exists(os.path.join(name, "profile.yaml")):  # noqa: PTH110, PTH118
        return Device.load(Path(name))
    if name in ACCELERATORS:
        return Device.simulate(name)
    if name not in list_devices():
        hint = "Register this machine with 'hwnas device register NAME'"
        raise UnknownNameError("device", name, [*list_devices(), *ACCELERATORS], hint)
    return Device.load(device_folder(name))


def device_folder(name: str) -> Path:
    """The folder of a device in the user's data folder.

    Raises:
        InvalidFileError: A name that is no name.
        UnavailableError: The name of a simulated device: there is nothing to measure on it.
    """
    if name in ACCELERATORS:
        raise UnavailableError(
            f"{name} is a simulated device that comes with hwnas: its costs are computed, and nothing can be measured "
            "on it. Choose another name for a device of your own"
        )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise InvalidFileError(
            f"a device cannot be called {name!r}: use letters, digits, dots, dashes and underscores, at most 64"
        )
    return devices_folder() / name
