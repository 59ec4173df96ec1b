"""`hwnas bench energy` on planted tables and devices."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hwnas.latency_tables.table import LatencyTable
from hwnas.predictors.additive import AdditiveModel
from hwnas.predictors.features import energy_terms
from hwnas.scripts.architecture_tables import on_a_path
from hwnas.scripts.cell_networks import CHOICES, cell_networks
from tests.search.fixtures import NAME, synthetic_device

from .command import Hwnas

BILINEAR, PROCESS = "one coefficient per position and operator (bilinear)", "robust sum and Gaussian process"
WITH_LATENCY = f"{PROCESS}, latency known"
WAYS = ("macs", "latency", BILINEAR, "macs, robust", "latency, robust", f"{BILINEAR}, robust", PROCESS, WITH_LATENCY,
        "hwnas")  # fmt: skip
MJ = {"nor_conv_1x1": 0.4, "nor_conv_3x3": 4.5, "avg_pool_3x3": 0.2}


def cells(n: int, seed: int = 0) -> list[tuple[str, ...]]:
    """Every edge to the output is there, so that all operators are on a path."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(1, len(CHOICES), size=(n, 6))
    return [tuple(CHOICES[i] for i in row) for row in drawn]


def as_written(cell: tuple[str, ...]) -> str:
    a, b, c, d, e, f = cell
    return f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"


def table(path: Path, n: int = 300, **more: Any) -> Path:
    """Energies are sums over operators; latency says little of them."""
    own = cells(n)
    energy = np.array([1.5 + sum(MJ.get(choice, 0.0) for choice in cell) for cell in own])
    latency = np.random.default_rng(1).uniform(5, 10, n)
    columns = {"arch": list(map(as_written, own)), "pi_energy_mj": energy, "pi_latency_ms": latency}
    pq.write_table(pa.table(columns | {name: values for name, values in more.items() if values is not None}), path)
    return path


def bench(hwnas: Hwnas, *arguments: str | Path) -> dict[str, Any]:
    answer = hwnas("bench", "energy", *arguments)
    assert answer.code == 0, answer.err
    found: dict[str, Any] = json.loads(answer.out)
    for word in " ".join(found["ways"]).split():  # long names go over several lines
        assert word in answer.err
    for heading in ("median relative error", "mape", "kendall tau"):
        assert heading in answer.err
    return found


def test_planted_energies_beside_a_latency_that_says_nothing(hwnas: Hwnas, tmp_path: Path) -> None:
    found = bench(hwnas, "--table", table(tmp_path / "cells.parquet"), "--draws", "2")
    assert (found["energy"], found["latency"]) == ("pi_energy_mj", "pi_latency_ms")
    assert (found["networks_in_table"], found["networks_measured"], found["draws"]) == (300, 100, 2)
    assert (found["without_a_path"], found["repeats"]) == (0, 0.0)
    assert found["ways_without_repeats"] == found["ways"]
    assert tuple(found["ways"]) == WAYS
    for way in (BILINEAR, f"{BILINEAR}, robust", PROCESS, WITH_LATENCY):
        assert found["ways"][way]["median_relative_error"] < 0.002, way
        assert found["ways"][way]["kendall_tau"] > 0.95, way  # energies that are equal but for rounding count
    for way in ("latency", "latency, robust"):
        assert found["ways"][way]["median_relative_error"] > 0.2
        assert abs(found["ways"][way]["kendall_tau"]) < 0.2
    assert 0.01 < found["ways"]["macs"]["median_relative_error"] < 0.1


def test_an_energy_that_follows_latency_alone(hwnas: Hwnas, tmp_path: Path) -> None:
    latency = np.random.default_rng(2).uniform(1, 10, 300)
    path = table(tmp_path / "cells.parquet", other_latency_ms=latency, other_energy_mj=0.2 + 1.5 * latency)
    found = bench(hwnas, "--table", path, "--draws", "1", "--energy", "other_energy_mj")
    assert found["latency"] == "other_latency_ms"
    for way in ("latency", "latency, robust", WITH_LATENCY):
        assert found["ways"][way] == {"median_relative_error": 0.0, "mape": 0.0, "kendall_tau": pytest.approx(1.0)}
    assert found["ways"][PROCESS]["median_relative_error"] > 0.1
    swapped = bench(hwnas, "--table", path, "--draws", "1", "--energy", "other_energy_mj", "--latency", "pi_latency_ms")
    assert swapped["ways"]["latency"]["median_relative_error"] > 0.1


def test_hwnas_is_the_model_that_searches_use(hwnas: Hwnas, tmp_path: Path) -> None:
    """Learnt from, and summed over, the operators that a path passes; energies are noisy, so that models differ."""
    own = [("none", "nor_conv_3x3", *cell[2:]) if i % 3 == 0 else cell for i, cell in enumerate(cells(300))]
    passed = on_a_path(np.array(own), 3)
    assert (passed != np.array(own)).any()
    networks = [cell_networks(passed).of_network(i) for i in range(300)]
    energy = np.array([1.0 + sum(a * 0.05 for o in network for _, a in energy_terms(o)) for network in networks])
    energy *= np.random.default_rng(5).lognormal(0.0, 0.1, 300)
    path = table(tmp_path / "cells.parquet", arch=list(map(as_written, own)), pi_energy_mj=energy)
    found = bench(hwnas, "--table", path, "--draws", "1", "--networks", "60")

    measured = np.random.default_rng([0, 0]).choice(300, 60, replace=False)
    model = AdditiveModel.fit([networks[i] for i in measured], list(energy[measured]), energy_terms)
    assert model.per_network > 0.1
    error = np.delete(np.abs(model.of_networks(networks) / energy - 1), measured)
    assert found["ways"]["hwnas"]["median_relative_error"] == pytest.approx(np.median(error), abs=1e-4)
    assert found["ways"]["hwnas"]["mape"] == pytest.approx(error.mean(), abs=1e-4)
    assert "is not what searches use" in found["note"]
    assert "was chosen on draws of this kind" in found["note"]
    few = bench(hwnas, "--table", path, "--draws", "1", "--networks", "19")
    assert tuple(few["ways"]) == tuple(way for way in WAYS if way != "hwnas")


def test_outliers_spoil_least_squares_alone(hwnas: Hwnas, tmp_path: Path) -> None:
    path = table(tmp_path / "cells.parquet")
    energy = pq.read_table(path)["pi_energy_mj"].to_numpy().copy()
    energy[::9] *= 6.0
    found = bench(hwnas, "--table", table(path, pi_energy_mj=energy), "--draws", "1")
    assert found["ways"][f"{BILINEAR}, robust"]["median_relative_error"] < 0.005
    assert found["ways"][BILINEAR]["median_relative_error"] > 0.02


def test_the_same_seed_gives_the_same_figures(hwnas: Hwnas, tmp_path: Path) -> None:
    ask = ("bench", "energy", "--table", table(tmp_path / "cells.parquet"), "--draws", "1", "--networks", "40")
    assert hwnas(*ask, "--seed", "3").out == hwnas(*ask, "--seed", "3").out
    assert hwnas(*ask, "--seed", "3").out != hwnas(*ask, "--seed", "4").out


def test_cells_without_a_path_are_counted_and_kept(hwnas: Hwnas, tmp_path: Path) -> None:
    own = [as_written(cell) for cell in cells(300)]
    own[::10] = ["|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|"] * 30
    energy, latency = np.random.default_rng(0).uniform(1, 2, (2, 300))
    energy[::10] = latency[::10] = 40.0
    path = table(tmp_path / "cells.parquet", arch=own, pi_energy_mj=energy, pi_latency_ms=latency)
    found = bench(hwnas, "--table", path, "--draws", "1")
    assert found["without_a_path"] == 30
    assert 0.05 < found["repeats"] < 0.2
    assert found["ways"][PROCESS]["mape"] < found["ways"]["macs"]["mape"]
    for way in WAYS:  # the very networks that were left out are 40 mJ each, and no line through MACs says so
        assert found["ways"][way] != found["ways_without_repeats"][way]


def test_tables_of_other_spaces_have_no_macs(hwnas: Hwnas, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 3, size=(300, 5))
    path = table(
        tmp_path / "chains.parquet",
        arch=[",".join(map(str, row)) for row in rows],
        pi_energy_mj=1 + (rows == 2).sum(axis=1).astype(float),
    )
    found = bench(hwnas, "--table", path, "--draws", "1")
    assert tuple(found["ways"]) == tuple(way for way in WAYS if "macs" not in way and way != "hwnas")
    assert found["ways"][PROCESS]["median_relative_error"] < 0.02


def test_mistakes_with_tables(hwnas: Hwnas, tmp_path: Path) -> None:
    path = table(tmp_path / "cells.parquet")
    ask = ("bench", "energy", "--table", path)
    assert "give either --table FILE or --device NAME" in hwnas("bench", "energy").err
    assert "give either --table FILE or --device NAME" in hwnas(*ask, "--device", NAME).err
    assert "columns of a table" in hwnas("bench", "energy", "--device", NAME, "--energy", "pi_energy_mj").err
    assert "there is no file" in hwnas("bench", "energy", "--table", tmp_path / "absent.parquet").complaint
    missing = hwnas(*ask, "--energy", "pie_energy_mj").complaint
    assert "unknown column" in missing
    assert "'pie_energy_mj'; did you mean 'pi_energy_mj'?" in missing
    assert "'phone_latency_ms'; did you mean" in hwnas(*ask, "--latency", "phone_latency_ms").complaint
    assert "151 networks to measure are too many for 300" in hwnas(*ask, "--networks", "151").complaint
    assert "not in the range" in hwnas(*ask, "--networks", "9").err


def test_tables_without_one_usable_energy(hwnas: Hwnas, tmp_path: Path) -> None:
    for name, more, said in (
        ("two", {"gpu_energy_mj": np.ones(300)}, "has pi_energy_mj, gpu_energy_mj: choose one with --energy"),
        ("zero", {"pi_energy_mj": np.zeros(300)}, "pi_energy_mj has figures that are missing or not positive"),
        ("words", {"pi_energy_mj": ["much"] * 300}, "pi_energy_mj does not hold numbers"),
    ):
        path = table(tmp_path / f"{name}.parquet", **more)
        assert said in hwnas("bench", "energy", "--table", path).complaint, name
    bare = tmp_path / "bare.parquet"
    pq.write_table(pq.read_table(table(tmp_path / "cells.parquet")).drop_columns(["pi_energy_mj"]), bare)
    assert "needs a column '<device>_energy_mj', and has none" in hwnas("bench", "energy", "--table", bare).complaint


@pytest.mark.parametrize("arch", ["none,none", as_written(("none",) * 6), as_written(("nor_conv_3x3", *["none"] * 5))])
def test_a_table_whose_networks_have_no_operators(hwnas: Hwnas, tmp_path: Path, arch: str) -> None:
    path = table(tmp_path / "empty.parquet", arch=[arch] * 300)
    said = hwnas("bench", "energy", "--table", path).complaint
    assert f"{path}: 'arch' has no operator but 'none', or none that a path passes, in any network" in said


def meter(folder: Path, networks: int) -> None:
    """Energy of some networks: what terms cost, whatever their latency."""
    device = synthetic_device()
    rows = []
    for i, n in enumerate(device.table.networks):
        operators = device.table.operators_of(n)
        mj = 1.0 + sum(amount * 0.05 for o in operators for _, amount in energy_terms(o))
        rows.append(replace(n, energy_mj=mj, energy_spread=0.01) if i < networks else n)
    replace(device, table=LatencyTable(device.table.operators, tuple(rows))).save(folder / NAME)


def test_a_device_with_energy(hwnas: Hwnas, devices: Path) -> None:
    meter(devices, 120)
    found = bench(hwnas, "--device", NAME)
    assert tuple(found["ways"]) == ("macs", "latency", "bilinear", "hwnas")
    assert (found["networks"], found["folds"]) == (120, 5)
    ours = found["ways"]["hwnas"]
    assert ours["median_relative_error"] < 0.02
    assert ours["kendall_tau"] > 0.95
    for way in ("macs", "bilinear"):
        assert found["ways"][way]["median_relative_error"] > ours["median_relative_error"]


def test_devices_without_energy(hwnas: Hwnas, devices: Path) -> None:
    said = hwnas("bench", "energy", "--device", NAME).complaint
    assert said == (
        f"energy of at least 25 networks is needed, and {NAME} has it of 0; run 'hwnas device energy' first"
    )
    meter(devices, 24)
    assert "has it of 24" in hwnas("bench", "energy", "--device", NAME).complaint
    assert "is computed" in hwnas("bench", "energy", "--device", "simulated-bit-fusion").complaint
    assert "unknown device" in hwnas("bench", "energy", "--device", "syntetic").complaint
