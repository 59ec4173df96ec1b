"""Power meters that this machine has, read through the library zeus."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

from hwnas.spaces.errors import UnavailableError, UnknownNameError


class Meter(Protocol):
    """Counts energy."""

    @property
    def name(self) -> str:
        """The name under which `make_meter` finds it."""

    @property
    def what(self) -> str:
        """What it measures, in words."""

    def joules(self) -> float:
        """Energy since some moment; only differences mean anything."""


class Nvml:
    """The NVIDIA GPU that CUDA calls 0, through NVML's energy counter (Volta and later)."""

    name = "nvml"

    def __init__(self) -> None:
        device = _zeus("gpu")
        self._gpus = _open(device.get_gpus, "no NVIDIA GPU answers")
        if not len(self._gpus) or not self._gpus.supports_get_total_energy_consumption(0):
            raise UnavailableError("this GPU has no energy counter: NVML offers one from the Volta generation on")
        self.what = f"{self._gpus.get_name(0)}, the whole board, NVML energy counter"

    def joules(self) -> float:
        """Of the whole board, memory included."""
        return float(self._gpus.get_total_energy_consumption(0)) / 1e3


_RAPL_HINT = (
    "the kernel shows no readable counters under /sys/class/powercap; virtual machines rarely have them, and elsewhere "
    "reading them needs root"
)


class Rapl:
    """The processor packages and their memory, through RAPL (Intel, and AMD from Zen on, under Linux)."""

    name = "rapl"

    def __init__(self) -> None:
        device = _zeus("cpu")
        self._cpus = _open(device.get_cpus, _RAPL_HINT)
        self._indexes = range(len(self._cpus))
        if not self._indexes:
            raise UnavailableError(f"the power meter cannot be read: {_RAPL_HINT}")
        _open(self.joules, _RAPL_HINT)
        memory = any(self._cpus.supports_get_dram_energy_consumption(i) for i in self._indexes)
        self.what = f"{len(self._cpus)} processor package(s){' and memory' if memory else ''}, RAPL"

    def joules(self) -> float:
        """Of all packages, and of their memory where it is counted."""
        readings = [self._cpus.get_total_energy_consumption(i) for i in self._indexes]
        return float(sum(r.cpu_mj + (r.dram_mj or 0.0) for r in readings)) / 1e3


class Soc:
    """A Jetson's whole board, or an Apple chip."""

    name = "soc"
    PARTS = ("cpu_energy", "gpu_energy", "cpu_total", "gpu", "gpu_sram", "ane", "dram")
    """What zeus calls the parts that do not overlap, of a Jetson and of an Apple chip."""

    def __init__(self) -> None:
        device = _zeus("soc")
        self._soc = _open(device.get_soc, "this is neither a Jetson nor an Apple chip with readable power rails")
        self._parts = self._read()
        if not self._parts:
            raise UnavailableError("this board shows no power rail that can be read")
        self.what = f"{type(self._soc).__name__}: {', '.join(self._parts)}"

    def joules(self) -> float:
        """Of the whole board where it has such a rail, else the sum of its parts."""
        return sum(self._read().values()) / 1e3

    def _read(self) -> dict[str, float]:
        reading = vars(self._soc.get_total_energy_consumption())
        names = ("total_energy",) if reading.get("total_energy_mj") is not None else self.PARTS
        return {name: float(mj) for name in names if (mj := reading.get(f"{name}_mj")) is not None}


METERS: dict[str, Callable[[], Meter]] = {"nvml": Nvml, "rapl": Rapl, "soc": Soc}


def make_meter(name: str) -> Meter:
    """A meter by name; raises `UnknownNameError`, or `UnavailableError` with the reason where it cannot be read."""
    if name not in METERS:
        raise UnknownNameError("meter", name, METERS)
    return METERS[name]()


def _zeus(part: str) -> Any:
    try:
        return import_module(f"zeus.device.{part}")
    except ImportError as error:
        raise UnavailableError(
            f"reading a power meter needs the package zeus, which cannot be imported ({error}); run "
            "'pip install hwnas[energy]'"
        ) from error


def _open(get: Callable[[], Any], hint: str) -> Any:
    try:
        return get()
    except Exception as error:  # zeus raises exceptions of its own, and whatever the driver's library raises
        raise UnavailableError(f"the power meter cannot be read: {hint} ({error})") from error
