"""A registration as plain data: what is asked for on one machine can be measured on another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hwnas.latency_tables.device import Device, device_folder, list_devices, load_device
from hwnas.latency_tables.profiler import Plan, Progress
from hwnas.latency_tables.runtimes import make_runtime
from hwnas.predictors.few_networks import MORE, known_devices, register_from_known
from hwnas.predictors.registration import covers, register
from hwnas.spaces.catalog import space_from_spec
from hwnas.spaces.errors import InvalidOptionError
from hwnas.spaces.space import Space


@dataclass(frozen=True)
class RegistrationRequest:
    """What to measure, and with what.

    Attributes:
        name: Of the device.
        spec: Of the space whose networks to measure, see `Space`.
        runtime, settings: For `make_runtime`.
        plan: How much to measure.
        few: Networks to measure, in all, where the rest comes from known devices; None to measure everything.
        known: Names of the devices to take it from; by default all, or those that it was taken from before.
        seed: Of the networks drawn.
    """

    name: str
    spec: Mapping[str, Any]
    runtime: str = "onnxruntime"
    settings: Mapping[str, Any] = field(default_factory=dict)
    plan: Plan = field(default_factory=Plan)
    few: int | None = None
    known: tuple[str, ...] = ()
    seed: int = 0

    @property
    def space(self) -> Space:
        """The space of the spec."""
        return space_from_spec(self.spec)

    def known_here(self) -> list[Device]:
        """The devices registered here that the registration builds on.

        These are the device itself, where it is known, and those to take the rest from.

        Raises:
            InvalidOptionError: There is nothing to register.
            UnavailableError: Nothing can be transferred.
        """
        device_folder(self.name)
        own = load_device(self.name) if self.name in list_devices() else None
        before = own.profile.transferred if own is not None and covers(own, self.space) else None
        if self.few is not None and own is not None and before is not None:
            if self.few <= before.networks:
                raise InvalidOptionError(
                    f"{self.name} has measured {before.networks} networks already; ask for more in all, such as "
                    f"--networks {before.networks + MORE}"
                )
            return [own, *known_devices(self.space, self.known or before.known)]
        if own is not None and covers(own, self.space):
            raise InvalidOptionError(
                f"{self.name} is registered for this space already; see 'hwnas device show {self.name}', or choose "
                "another name"
            )
        if self.few is None:
            return [own] if own else []
        if own is not None:
            raise InvalidOptionError(f"{self.name} is registered already; choose another name for what is transferred")
        return known_devices(self.space, self.known)

    def title(self, known: Sequence[Device]) -> str:
        """What is done, in words."""
        others = ", ".join(d.name for d in known if d.name != self.name)
        return f"Registering {self.name}{f' from {others}' if self.few is not None else ''}"


def run_registration(
    request: RegistrationRequest,
    known: Sequence[Device],
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
    note: Callable[[str], object] | None = None,
) -> Device:
    """Measures this machine as a request says, and saves the device.

    Args:
        request: What to measure.
        known: The devices to build on, see `RegistrationRequest.known_here`.
        folder: For the device's files; `device_folder` by default.
        progress: Called with what is being done.
        note: See `register`.

    Raises:
        HwnasError: As `register` and `register_from_known`.
        InvalidOptionError: The device is known with other settings of the runtime.
    """
    torch.set_num_threads(1)
    runtime = make_runtime(request.runtime, request.settings)
    own = next((d for d in known if d.name == request.name), None)
    if own is not None and not own.runs_on(runtime):
        raise InvalidOptionError(
            f"{request.name} was registered with {own.profile.runtime} and {own.profile.runtime_settings}; other "
            "settings are another device: choose another name"
        )
    common: dict[str, Any] = {
        "runtime": own.make_runtime() if own else runtime,
        "plan": request.plan,
        "seed": request.seed,
        "folder": folder,
        "progress": progress,
    }
    if request.few is None:
        return register(request.name, request.space, known=own, note=note, **common)
    others = [d for d in known if d is not own]
    return register_from_known(request.name, request.space, others, networks=request.few, own=own, **common)
