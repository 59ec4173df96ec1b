"""What tests of the search share: a device that nobody measured, small configurations, and one finished run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwnas.latency_tables.device import Device, PowerMeter, Precision, Profile
from hwnas.latency_tables.machine import machine_facts
from hwnas.latency_tables.plan import precision_pairs, sample_networks, set_precision, uniform_precision
from hwnas.latency_tables.runtimes import make_runtime
from hwnas.latency_tables.table import LatencyTable
from hwnas.latency_tables.timing import Protocol
from hwnas.predictors.cost import CostModel
from hwnas.predictors.registration import check, verification
from hwnas.search.conclusion import conclude, measure_finals
from hwnas.search.config import SearchConfig, parse_config
from hwnas.search.datasets import Dataset, load_dataset
from hwnas.search.finals import Final
from hwnas.search.observer import Observer
from hwnas.search.report.page import write_report
from hwnas.search.report.summary import report_data
from hwnas.search.run import run_search
from hwnas.search.run_folder import Run
from hwnas.search.run_result import RunResult
from hwnas.spaces import Candidate, Space, load_space
from hwnas.spaces.decision import Decision
from hwnas.spaces.operator import Operator
from hwnas.spaces.space import Rows
from tests.synthetic_table import synthetic_table

NAME = "synthetic"
JOINT = ("bits", "rank")
"""Two of the three dimensions: cost tables a third the size, compiled in a third of the time."""
PER_NETWORK_MS = 0.01
PATIENT = Protocol(rounds=3, burst_s=0.004, max_spread=10.0, patience=60, max_wait_s=2.0)
"""Any machine repeats to within this: what it measures is not what these tests are about."""


def planted_ms(operator: Operator) -> float:
    """What an operator takes on the synthetic device: 2 µs, and work that integers do three times as fast."""
    moved = operator.out_channels * operator.out_size[0] * operator.out_size[1]
    return 0.002 + operator.macs * (0.4e-7 if operator.integer else 1.2e-7) + moved * 2e-7


def bare_space(*sizes: int) -> Space:
    """A space of decisions and nothing else, so that a trial is quickly written."""
    decisions = [Decision(f"{letter}.width", tuple(range(size))) for letter, size in zip("abcdef", sizes, strict=False)]
    return Space(name="bare", spec={}, decisions=decisions, slots=[], input_shape=(1, 8, 8), num_classes=2)


@cache
def digits_space() -> Space:
    return load_space("mbconv", input_shape=(1, 8, 8), num_classes=10, joint=JOINT)


@cache
def digits(limit: int | None = None) -> Dataset:
    return load_dataset("digits", limit=limit)


@cache
def digits_cost() -> CostModel:
    return CostModel(digits_space(), synthetic_device())


@cache
def synthetic_device() -> Device:
    """A device for `digits_space` whose networks take `PER_NETWORK_MS` and what `planted_ms` says of each operator.

    It is no machine, so runs on it measure nothing.
    """
    space, rng = digits_space(), np.random.default_rng(0)
    pairs = precision_pairs(space)
    uniform = np.array([uniform_precision(space, *pair) for pair in pairs])
    drawn = sample_networks(space, rng, 200, np.ones(len(pairs)).tolist())
    table = synthetic_table(
        space,
        {"fit": np.concatenate([uniform, drawn]), "check": space.sample(rng, 40)},
        lambda operators: PER_NETWORK_MS + sum(map(planted_ms, operators)),
    )
    runtime = make_runtime("onnxruntime")
    runtime.check_integer_kernels()
    profile = Profile(
        name=NAME,
        simulated=True,
        runtime=runtime.name,
        runtime_settings=dict(runtime.settings()),
        facts={"processor": "made up for tests", **runtime.facts()},
        protocol={"rounds": 4},
        probe_ms=1000.0,
        registered="2026-01-01 00:00:00 UTC",
        registration_seconds=1.5,
        precisions=tuple(_precision(weights, activations) for weights, activations in pairs),
    )
    device = Device(profile, table)
    return Device(profile.model_copy(update={"verified": verification(check(device, space).error)}), device.table)


def _precision(weight_bits: int, act_bits: int) -> Precision:
    floats = {bits > 8 for bits in (weight_bits, act_bits)}
    if floats == {True}:
        return Precision(weight_bits=32, act_bits=32, execution="native", relative_latency=1.0, kernels=("Conv",))
    execution: Any = "emulated" if len(floats) > 1 or act_bits < 8 else "native" if weight_bits == 8 else "stored only"
    return Precision(
        weight_bits=weight_bits, act_bits=act_bits, execution=execution, relative_latency=0.6, kernels=("QLinearConv",)
    )


def thin_row(weight_bits: int, act_bits: int) -> Rows:
    """The shallowest, thinnest network of `digits_space` in one precision, not factorised. Shape (decisions,)."""
    space = digits_space()
    row = np.zeros(len(space.decisions), dtype=np.int16)
    for column, decision in enumerate(space.decisions):
        if decision.name.endswith((".rank", ".keep")):
            row[column] = len(decision.options) - 1
    set_precision(space, row, weight_bits, act_bits)
    return np.asarray(space.canonical(row[None])[0])


def small_search(**sections: dict[str, Any]) -> SearchConfig:
    """Four trials of one epoch on 300 digits; ``sections`` are merged into it."""
    data: dict[str, Any] = {
        "space": {"joint": list(JOINT)},
        "data": {"name": "digits", "limit": 300},
        "device": {"name": NAME},
        "objective": {"target_ratio": 0.5},
        "training": {"epochs": 1, "batch_size": 32, "learning_rate": 0.01},
        "search": {"trials": 4, "workers": 1},
        "final": {"candidates": 1, "epochs": 2},
    }
    for name, values in sections.items():
        data[name] = data.get(name, {}) | values
    return parse_config(data)


PER_NETWORK_MJ = 0.05


def planted_mj(operator: Operator) -> float:
    """The energy that an operator takes on `metered_device`: 1 µJ, and 1 nJ for a MAC in integers or four in floats."""
    return 0.001 + operator.macs * (1e-6 if operator.integer else 4e-6)


@cache
def metered_device() -> Device:
    """`synthetic_device` with a power meter: networks take `PER_NETWORK_MJ` and `planted_mj`, read to one per cent."""
    device = synthetic_device()
    noise = np.exp(0.01 * np.random.default_rng(7).normal(size=len(device.table.networks)))
    networks = []
    for n, factor in zip(device.table.networks, noise, strict=True):
        mj = PER_NETWORK_MJ + sum(map(planted_mj, device.table.operators_of(n)))
        networks.append(replace(n, energy_mj=mj * float(factor), energy_spread=0.01))
    device = replace(device, table=LatencyTable(device.table.operators, tuple(networks)))
    meter = PowerMeter(name="made up", what="a meter made up for tests", windows=3, window_s=1.0, idle_watts=4.0)
    return replace(device, profile=device.profile.model_copy(update={"power_meter": meter}))


def conclude_again(finished: Path, folder: Path, device: Device, **sections: dict[str, Any]) -> tuple[Run, RunResult]:
    """The last step of a finished run done once more in ``folder``, for another device and search."""
    shutil.copytree(finished, folder)
    (folder / "result.json").unlink()
    device.save(folder / "device")
    known = RESULTS[finished]
    run = replace(Run.open(folder), config=small_search(device={"name": device.name}, **sections))
    finals = [
        Final(Candidate(values), network.validation_accuracy, folder / "finals" / f"{network.digest}.safetensors")
        for network, values in zip(known.networks, known.candidates, strict=True)
    ]
    assert measure_finals(run, finals, Observer()) is None
    found = conclude(run, finals, Observer())
    write_report(folder / "report.html", report_data(run, found))
    return run, found


@contextmanager
def registered(folder: Path) -> Iterator[Path]:
    """``folder`` as the user's devices, with the synthetic device in it."""
    with pytest.MonkeyPatch.context() as patch:
        if not (folder / NAME / "profile.yaml").exists():
            synthetic_device().save(folder / NAME)
        patch.setenv("HWNAS_DEVICES", str(folder))
        yield folder


def finished_run(base: Path) -> Path:
    """The folder of a finished small run below ``base``, made once however many test files ask for it."""
    folder = base / "finished-run"
    if not RESULTS.get(folder):
        with registered(base / "finished-run-devices"):
            RESULTS[folder] = run_search(small_search(), folder)
    return folder


RESULTS: dict[Path, RunResult] = {}
"""What `run_search` returned for each of `finished_run`."""


def on_this_machine(finished: Path, folder: Path) -> Run:
    """A copy of a finished run without its result, whose device takes itself for this machine."""
    shutil.copytree(finished, folder)
    (folder / "result.json").unlink()
    device = synthetic_device()
    facts = device.profile.facts | machine_facts()
    replace(device, profile=device.profile.model_copy(update={"facts": facts})).save(folder / "device")
    return Run.open(folder)
