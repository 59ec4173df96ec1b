"""`hwnas device` and `hwnas bench` on a registered device."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hwnas.latency_tables.device import PeakMemory, Verification
from hwnas.latency_tables.simulated import ACCELERATORS
from tests.search.fixtures import NAME, synthetic_device

from .command import Hwnas


class TestDevices:
    def test_no_devices(self, hwnas: Hwnas, tmp_path: Path) -> None:
        answer = hwnas("device", "list")
        assert answer.code == 0
        assert f"no devices in {tmp_path / 'no devices'}; register this machine with" in answer.out

    @pytest.mark.usefixtures("devices")
    def test_a_device_is_listed(self, hwnas: Hwnas) -> None:
        line = next(line for line in hwnas("device", "list").out.splitlines() if NAME in line)
        networks = len(synthetic_device().table.networks)
        assert "made up for tests" in line
        assert f" {networks} " in line
        assert "0.0%" in line

    @pytest.mark.usefixtures("devices")
    def test_a_device_is_shown(self, hwnas: Hwnas) -> None:
        device = synthetic_device()
        answer = hwnas("device", "show", NAME)
        assert answer.code == 0
        said = " ".join(answer.out.split())
        assert f"{NAME} (simulated)" in said
        fit = len(device.table.with_role("fit"))
        assert f"{fit} networks to learn from and 40 held out, {len(device.table.operators)} distinct" in said
        assert "stored only" in said
        assert "emulated" in said
        assert "MAPE 0.0%" in said
        assert "(40 networks)" in said
        assert "from lifetimes of activations; what the runtime allocates was not measured" in said

    def test_a_device_shows_how_well_peak_memory_is_predicted(self, hwnas: Hwnas, tmp_path: Path) -> None:
        device = synthetic_device()
        verified = Verification(networks=38, mape=0.123, kendall_tau=0.75, within_10_percent=0.5, when="now")
        known = device.profile.model_copy(update={"peak_memory": PeakMemory(verified=verified, lifetimes_tau=0.25)})
        replace(device, profile=known).save(tmp_path / "weighed")
        said = " ".join(hwnas("device", "show", tmp_path / "weighed").out.replace("│", " ").split())
        assert "as the runtime allocates it; held out: MAPE 12.3%, Kendall tau 0.750 (0.250 by lifetimes" in said
        assert "50% within ±10 % (38 networks)" in said

    def test_a_simulated_device_says_nothing_of_allocations(self, hwnas: Hwnas) -> None:
        assert "peak memory" not in hwnas("device", "show", "simulated-eyeriss").out

    @pytest.mark.usefixtures("devices")
    def test_what_is_transferred_has_a_new_name_and_known_devices(self, hwnas: Hwnas) -> None:
        new = ("device", "register", "new", "--input-shape", "1,8,8", "--joint", "bits,rank")
        assert "--known needs --from-known" in hwnas(*new, "--known", NAME).err
        assert "--networks must be 20 at least without --from-known" in hwnas(*new, "--networks", "10").err
        other = hwnas(*new, "--classes", "11", "--from-known")
        assert other.complaint.startswith("no registered device has measured this very space")
        again = hwnas("device", "register", NAME, "--input-shape", "3,8,8", "--from-known")
        assert f"{NAME} is registered already; choose another name" in again.err

    def test_a_device_may_be_shown_by_its_path(self, devices: Path, hwnas: Hwnas) -> None:
        assert hwnas("device", "show", devices / NAME).out == hwnas("device", "show", NAME).out

    @pytest.mark.usefixtures("devices")
    def test_a_device_that_knows_the_space_is_not_measured_again(self, hwnas: Hwnas) -> None:
        answer = hwnas("device", "register", NAME, "--input-shape", "1,8,8", "--classes", "10", "--joint", "bits,rank")
        assert answer.code != 0
        assert f"{NAME} is registered for this space already" in answer.err

    def test_damaged_files_of_a_device(self, devices: Path, hwnas: Hwnas) -> None:
        (devices / NAME / "networks.parquet").write_bytes(b"PAR1 no more")
        assert "networks.parquet is not a readable Parquet file" in hwnas("device", "show", NAME).complaint
        (devices / NAME / "networks.parquet").unlink()
        assert "there is no file" in hwnas("device", "show", NAME).complaint
        (devices / NAME / "profile.yaml").write_text("name: synthetic\nspeed: 3\n")
        assert "profile.yaml: " in hwnas("device", "show", NAME).complaint


class TestSimulatedDevices:
    NAME = "simulated-bit-fusion"

    @pytest.mark.usefixtures("devices")
    def test_they_are_listed_after_the_registered_ones(self, hwnas: Hwnas) -> None:
        lines = [line for line in hwnas("device", "list").out.splitlines() if line.startswith("│ s")]
        assert [line.split()[1] for line in lines] == [NAME, *ACCELERATORS]
        for line in lines[1:]:
            assert "simulated │ –" in " ".join(line.split())
            assert "computed" in line

    def test_one_is_shown_with_its_source(self, hwnas: Hwnas) -> None:
        answer = hwnas("device", "show", self.NAME)
        assert answer.code == 0
        said = " ".join(answer.out.split())
        assert f"{self.NAME} (simulated)" in said
        assert "16 × 32 fusion units at 500 MHz" in said
        assert "after Bit Fusion (Sharma et al., ISCA 2018)" in said
        assert "computed from the operators" in said
        assert "threads" not in said
        assert "Precisions" not in said

    def test_nothing_is_measured_on_them(self, hwnas: Hwnas, tmp_path: Path) -> None:
        for arguments in (
            ("register", self.NAME),
            ("energy", self.NAME, "--meter", "log"),
            ("energy", self.NAME, "--log", "power.csv"),
        ):
            assert "nothing can be measured on it" in hwnas("device", *arguments).complaint
        assert f"{self.NAME} is simulated" in hwnas("device", "verify", self.NAME).complaint
        assert list(tmp_path.iterdir()) == []

    def test_there_is_nothing_to_compare(self, hwnas: Hwnas) -> None:
        assert "no held-out networks" in hwnas("bench", "latency", "--device", self.NAME).complaint
        assert "nothing to score" in hwnas("bench", "scoring", "--device", self.NAME).complaint


class TestBenchmarks:
    @pytest.mark.usefixtures("devices")
    def test_scoring(self, hwnas: Hwnas) -> None:
        answer = hwnas("bench", "scoring", "--device", NAME, "--batch", "2000", "--repeats", "2")
        ((space, figures),) = json.loads(answer.out).items()
        (line,) = [line.replace("│", " ").split() for line in answer.err.splitlines() if space in line]
        assert line[-1] == "yes"
        assert f"{figures['candidates_per_second_median']:,}" in line
        assert figures["candidates_per_second_median"] > 0
        assert figures["largest_relative_difference_to_operator_sum"] < 1e-9
        assert figures["macs_equal"] is True
        assert figures["decisions"] > 50

    @pytest.mark.usefixtures("devices")
    def test_latency(self, hwnas: Hwnas) -> None:
        figures = json.loads(hwnas("bench", "latency", "--device", NAME, "--stored").out)
        device = synthetic_device()
        assert figures["networks_measured"] == len(device.table.with_role("fit"))
        assert figures["networks_held_out"] == 40
        ways = figures["ways"]
        assert ways["hwnas"]["mape"] < 0.001
        assert ways["hwnas"]["kendall_tau"] > 0.99
        # The planted latencies depend on precision, which neither line knows.
        assert ways["line through MACs"]["mape"] > 20 * ways["hwnas"]["mape"]
        assert ways["line through MACs, operators, bytes"]["mape"] > 20 * ways["hwnas"]["mape"]
