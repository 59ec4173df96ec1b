"""Power meters through a stand-in for zeus: units, sums, and the reason where there is none."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import pytest

from hwnas.latency_tables.energy.meters import METERS, make_meter
from hwnas.spaces.errors import UnavailableError, UnknownNameError


class FakeGpus:
    def __init__(self, mj: list[int], counts: bool = True) -> None:
        self.mj, self.counts = mj, counts

    def __len__(self) -> int:
        return len(self.mj)

    def get_name(self, index: int) -> str:
        return f"Planted GPU {index}"

    def supports_get_total_energy_consumption(self, index: int) -> bool:
        return self.counts

    def get_total_energy_consumption(self, index: int) -> int:
        return self.mj[index]


class FakeCpus:
    def __init__(self, *mj: tuple[float, float | None]) -> None:
        self.mj = mj

    def __len__(self) -> int:
        return len(self.mj)

    def supports_get_dram_energy_consumption(self, index: int) -> bool:
        return self.mj[index][1] is not None

    def get_total_energy_consumption(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(cpu_mj=self.mj[index][0], dram_mj=self.mj[index][1])


class FakeSoc:
    def __init__(self, **reading: float | list[int] | None) -> None:
        self.reading = reading

    def get_total_energy_consumption(self) -> SimpleNamespace:
        return SimpleNamespace(**self.reading)


def plant(patch: pytest.MonkeyPatch, part: str, get: Callable[[], object]) -> None:
    """Makes ``zeus.device.<part>`` importable."""
    for name in ("zeus", "zeus.device"):
        patch.setitem(sys.modules, name, ModuleType(name))
    module = ModuleType(f"zeus.device.{part}")
    setattr(module, {"gpu": "get_gpus", "cpu": "get_cpus", "soc": "get_soc"}[part], get)
    patch.setitem(sys.modules, module.__name__, module)


@pytest.fixture
def without_zeus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zeus", None)


@pytest.mark.usefixtures("without_zeus")
@pytest.mark.parametrize("name", METERS)
def test_without_zeus_it_says_what_to_install(name: str) -> None:
    with pytest.raises(UnavailableError, match=r"needs the package zeus, .*; run 'pip install hwnas\[energy\]'"):
        make_meter(name)


def test_an_unknown_meter() -> None:
    with pytest.raises(UnknownNameError, match="unknown meter 'nvlm'; did you mean 'nvml'"):
        make_meter("nvlm")


def test_a_gpu_counts_millijoules(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = FakeGpus([1500, 9999])
    plant(monkeypatch, "gpu", lambda: gpus)
    meter = make_meter("nvml")
    assert meter.joules() == 1.5
    gpus.mj[0] += 250
    assert meter.joules() == 1.75
    assert meter.what == "Planted GPU 0, the whole board, NVML energy counter"


@pytest.mark.parametrize("gpus", [FakeGpus([]), FakeGpus([1], counts=False)])
def test_a_gpu_without_a_counter_is_refused(gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, "gpu", lambda: gpus)
    with pytest.raises(UnavailableError, match="this GPU has no energy counter"):
        make_meter("nvml")


@pytest.mark.parametrize(
    ("cpus", "joules", "what"),
    [
        (FakeCpus((1500, None), (500, None)), 2.0, "2 processor package(s), RAPL"),
        (FakeCpus((1500, 300.0)), 1.8, "1 processor package(s) and memory, RAPL"),
    ],
)
def test_packages_and_memory_are_added(
    cpus: FakeCpus, joules: float, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, "cpu", lambda: cpus)
    meter = make_meter("rapl")
    assert meter.joules() == pytest.approx(joules)
    assert meter.what == what


def test_a_machine_without_packages_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, "cpu", FakeCpus)
    with pytest.raises(UnavailableError, match="no readable counters under /sys/class/powercap"):
        make_meter("rapl")


def test_what_a_driver_raises_is_passed_on_as_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("Driver not loaded")

    for part, name, hint in (("gpu", "nvml", "no NVIDIA GPU answers"), ("cpu", "rapl", "needs root"),
                             ("soc", "soc", "neither a Jetson nor an Apple chip")):  # fmt: skip
        plant(monkeypatch, part, fail)
        with pytest.raises(UnavailableError, match=rf"{hint} .*\(Driver not loaded\)|{hint}.*Driver not loaded"):
            make_meter(name)


@pytest.mark.parametrize(
    ("soc", "joules", "parts"),
    [
        (FakeSoc(cpu_energy_mj=100.0, gpu_energy_mj=200.0, total_energy_mj=900.0), 0.9, "total_energy"),
        (FakeSoc(cpu_energy_mj=100.0, gpu_energy_mj=200.0, total_energy_mj=None), 0.3, "cpu_energy, gpu_energy"),
        (
            FakeSoc(
                cpu_total_mj=100, efficiency_cores_mj=[10, 20], performance_cores_mj=[30, 40], dram_mj=7, gpu_mj=200,
                gpu_sram_mj=3, ane_mj=None, efficiency_core_manager_mj=5,
            ),
            0.31,
            "cpu_total, gpu, gpu_sram, dram",
        ),
    ],
)  # fmt: skip
def test_a_board_or_the_parts_that_do_not_overlap(
    soc: FakeSoc, joules: float, parts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first two are a Jetson's rails, the third is what zeus says of an Apple chip."""
    plant(monkeypatch, "soc", lambda: soc)
    meter = make_meter("soc")
    assert meter.joules() == pytest.approx(joules)
    assert meter.what == f"FakeSoc: {parts}"


def test_a_board_without_rails_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, "soc", lambda: FakeSoc(total_energy_mj=None))
    with pytest.raises(UnavailableError, match="no power rail"):
        make_meter("soc")
