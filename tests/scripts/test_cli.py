"""What a user types, and what is said back: results on stdout, one line on stderr where something is wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from hwnas.scripts.cli import main
from hwnas.search.report_data import percent
from hwnas.search.run_folder import Run
from hwnas.spaces.onnx_graph import weight_bytes
from tests.search.fixtures import NAME, RESULTS, finished_run, registered, small_search, synthetic_device

EXAMPLE = Path(__file__).resolve().parents[2] / "scripts" / "digits.yaml"


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line of an expected error."""
        assert self.code == 2, (self.out, self.err)
        assert "Traceback" not in self.err
        (line,) = self.err.splitlines()
        assert line.startswith("hwnas: ")
        return line.removeprefix("hwnas: ")


Hwnas = Callable[..., Answer]


@pytest.fixture
def hwnas(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Hwnas:
    """Runs the command in this process, in an empty folder, in a wide terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("HWNAS_DEVICES", str(tmp_path / "no devices"))

    def call(*arguments: str | Path) -> Answer:
        monkeypatch.setattr(sys, "argv", ["hwnas", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return call


@pytest.fixture
def devices(hwnas: Hwnas, tmp_path: Path) -> Iterator[Path]:
    """The synthetic device is registered."""
    with registered(tmp_path / "devices") as folder:
        yield folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.getbasetemp())


def write_search(path: Path, **sections: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(small_search(**sections).model_dump(mode="json")))
    return path


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("", ("search", "device", "report", "export", "bench", "measures this machine")),
        ("search", ("--resume RUN", "--out", "Ctrl-C keeps everything", "--address", "Ray cluster")),
        ("report", ("report.html again",)),
        ("export", ("--out", "chosen|reference", "ONNX", "checked against its torch module")),
        ("device", ("register", "list", "show", "verify", "measuring them")),
        ("device register", ("Measure this machine", "--seconds", "--threads", "default: 3,32,32")),
        ("device list", ("List the registered devices",)),
        ("device show", ("how it was measured",)),
        ("device verify", ("Measure fresh random networks", "--networks", "4<=x<=400")),
        ("bench", ("prints JSON", "latency", "scoring")),
        ("bench scoring", ("scored per second", "--batch")),
        ("bench latency", ("held-out networks", "--device")),
    ],
)
def test_help_says_what_a_command_does(command: str, words: tuple[str, ...], hwnas: Hwnas) -> None:
    for flag in ("--help", "-h"):
        answer = hwnas(*command.split(), flag)
        assert answer.code == 0
        flat = " ".join(answer.out.split())
        assert all(word in flat for word in words), flat
        assert answer.err == ""


def test_the_command_is_installed_and_starts_without_torch_or_ray() -> None:
    code = (
        "import sys; from hwnas.scripts.cli import main; sys.exit(bool({'torch', 'ray', 'optuna'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    installed = Path(sys.executable).with_name("hwnas")
    done = subprocess.run([installed, "device", "show", "nothing"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("hwnas: unknown device 'nothing'")
    assert len(done.stderr.splitlines()) == 1


class TestMistakes:
    def test_an_unknown_command_or_option(self, hwnas: Hwnas) -> None:
        answer = hwnas("serach")
        assert (answer.code, answer.out) == (2, "")
        assert "No such command 'serach'" in answer.err
        assert "No such option" in hwnas("search", "--trails", "3").err

    def test_a_search_needs_a_file_or_a_run_and_not_both(self, hwnas: Hwnas) -> None:
        for arguments in ((), ("search.yaml", "--resume", "run")):
            answer = hwnas("search", *arguments)
            assert answer.code == 2
            assert "give either a search FILE or --resume RUN" in answer.err

    @pytest.mark.usefixtures("devices")
    def test_an_unknown_device(self, hwnas: Hwnas, tmp_path: Path) -> None:
        for arguments in (
            ("device", "show", "syntetic"),
            ("device", "verify", "syntetic"),
            ("bench", "scoring", "--device", "syntetic"),
            ("bench", "latency", "--device", "syntetic"),
            ("search", write_search(tmp_path / "search.yaml", device={"name": "syntetic"})),
        ):
            assert hwnas(*arguments).complaint.startswith("unknown device 'syntetic'; did you mean 'synthetic'?")

    @pytest.mark.usefixtures("devices")
    def test_an_unknown_space(self, hwnas: Hwnas, tmp_path: Path) -> None:
        search = write_search(tmp_path / "search.yaml", space={"name": "mbcov"})
        for arguments in (("device", "register", "new", "--space", "mbcov"), ("search", search)):
            assert hwnas(*arguments).complaint.startswith("unknown space 'mbcov'; did you mean 'mbconv'?")

    def test_an_unknown_dimension_or_runtime_or_provider_or_a_nonsense_shape(self, hwnas: Hwnas) -> None:
        register = ("device", "register", "new")
        assert "dimension 'rnk'; did you mean 'rank'?" in hwnas(*register, "--joint", "bits,rnk").complaint
        assert "runtime 'onnxrntime'; did you mean" in hwnas(*register, "--runtime", "onnxrntime").complaint
        assert "has no TPU here (installed: " in hwnas(*register, "--provider", "TPU").complaint
        assert "sides from 8 to 512" in hwnas(*register, "--input-shape", "3,4,4").complaint
        assert "'3,x' is not channels,height,width" in hwnas(*register, "--input-shape", "3,x").err
        assert "cannot be called '../new'" in hwnas("device", "register", "../new").complaint

    @pytest.mark.usefixtures("devices")
    def test_an_unknown_controller_is_noticed_before_anything_is_measured(self, hwnas: Hwnas, tmp_path: Path) -> None:
        search = write_search(tmp_path / "search.yaml", controller={"name": "evolutoin"})
        said = hwnas("search", search, "--out", "run").complaint
        assert "unknown controller 'evolutoin'; did you mean 'evolution'?" in said
        assert not (tmp_path / "run" / "device").exists()

    def test_an_unknown_key(self, hwnas: Hwnas, tmp_path: Path) -> None:
        path = tmp_path / "search.yaml"
        path.write_text(EXAMPLE.read_text().replace("trials:", "trails:"))
        assert hwnas("search", path).complaint.startswith(
            f"unknown key in {path}: 'trails'; did you mean 'trials'? (known: "
        )
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize(
        ("text", "said"), [("data: [digits", "is not valid YAML"), ("3", "must hold keys and values")]
    )
    def test_malformed_yaml(self, text: str, said: str, hwnas: Hwnas, tmp_path: Path) -> None:
        path = tmp_path / "search.yaml"
        path.write_text(text)
        assert said in hwnas("search", path).complaint
        assert list(tmp_path.iterdir()) == [path]

    def test_a_value_of_the_wrong_kind(self, hwnas: Hwnas, tmp_path: Path) -> None:
        path = tmp_path / "search.yaml"
        path.write_text("data: {name: digits}\nobjective: {target_ratio: fast}\n")
        assert hwnas("search", path).complaint.startswith(f"{path}: objective.target_ratio: ")
        path.write_text("data: {name: digits}\nobjective: {target_ratio: 0.5}\n")
        assert hwnas("search", path, "--trials", "0").complaint.startswith("the command line: search.trials: ")
        assert hwnas("search", path, "--seed", "-1").complaint.startswith("the command line: search.seed: ")
        assert "is not a valid integer" in hwnas("search", path, "--trials", "many").err

    def test_a_missing_file(self, hwnas: Hwnas) -> None:
        assert hwnas("search", "none.yaml").complaint == "there is no file none.yaml"
        assert hwnas("device", "register", "new", "--space", "none.yaml").complaint == "there is no file none.yaml"

    @pytest.mark.parametrize("command", [("search", "--resume"), ("report",), ("export", "--out", "model.onnx")])
    def test_a_folder_that_is_no_run(self, command: tuple[str, ...], hwnas: Hwnas, tmp_path: Path) -> None:
        for folder in (tmp_path, tmp_path / "missing"):
            assert hwnas(*command, folder).complaint == f"{folder} is no run folder: it has no config.yaml"
        assert list(tmp_path.iterdir()) == []

    def test_a_run_that_has_not_finished(self, hwnas: Hwnas, tmp_path: Path) -> None:
        Run.create(tmp_path / "my run", small_search())
        for command in (("report",), ("export", "--out", "model.onnx")):
            answer = hwnas(*command, "my run")
            assert answer.code != 0
            assert "has not finished" in answer.err
            assert "hwnas search --resume 'my run'" in answer.err

    @pytest.mark.usefixtures("devices")
    def test_data_that_cannot_be_used(self, hwnas: Hwnas, tmp_path: Path) -> None:
        search = write_search(tmp_path / "search.yaml")
        (tmp_path / "broken.parquet").write_bytes(b"PAR1 and then nothing of the kind")
        pq.write_table(pa.table({"picture": [b""], "label": [0]}), tmp_path / "columns.parquet")
        pq.write_table(pa.table({"image": [b"no image", b"none"] * 8, "label": [0, 1] * 8}), tmp_path / "bytes.parquet")
        for name in ("cat", "dog"):
            (tmp_path / "pictures" / name).mkdir(parents=True)
            for number in range(8):
                (tmp_path / "pictures" / name / f"{number}.png").write_bytes(b"no image")
        (tmp_path / "empty").mkdir()
        for data, said in (
            ("digit", "unknown dataset 'digit'; did you mean 'digits'?"),
            ("none.parquet", "there is no file none.parquet"),
            ("broken.parquet", "broken.parquet is not a whole Parquet file"),
            ("columns.parquet", "must have the columns image and label"),
            ("bytes.parquet", "cannot be used as an image"),
            ("pictures", "0.png cannot be used as an image"),
            ("empty", "empty holds no images"),
        ):
            answer = hwnas("search", search, "--data", data, "--out", f"run-{data}")
            assert said in answer.complaint, data

    @pytest.mark.usefixtures("devices")
    def test_a_target_that_nothing_reaches(self, hwnas: Hwnas, tmp_path: Path) -> None:
        search = write_search(tmp_path / "search.yaml", objective={"target_ratio": 0.001})
        assert "cannot be reached: the least this space can do is" in hwnas("search", search).complaint

    @pytest.mark.usefixtures("devices")
    def test_a_search_that_could_not_begin_leaves_no_run_behind(self, hwnas: Hwnas, tmp_path: Path) -> None:
        search = write_search(tmp_path / "search.yaml")
        assert hwnas("search", search, "--out", "run", "--data", "digit").code == 2
        assert not (tmp_path / "run" / "config.yaml").exists()


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


class TestBenchmarks:
    @pytest.mark.usefixtures("devices")
    def test_scoring(self, hwnas: Hwnas) -> None:
        answer = hwnas("bench", "scoring", "--device", NAME, "--batch", "2000", "--repeats", "2")
        (figures,) = json.loads(answer.out).values()
        assert figures["candidates_per_second_median"] > 0
        assert figures["largest_relative_difference_to_operator_sum"] < 1e-9
        assert figures["macs_equal"] is True
        assert figures["decisions"] > 50

    @pytest.mark.usefixtures("devices")
    def test_latency(self, hwnas: Hwnas) -> None:
        figures = json.loads(hwnas("bench", "latency", "--device", NAME).out)
        device = synthetic_device()
        assert figures["networks_measured"] == len(device.table.with_role("fit"))
        assert figures["hwnas"]["mape"] < 0.001
        assert figures["hwnas"]["kendall_tau"] > 0.99
        assert figures["hwnas"]["networks"] == figures["macs"]["networks"] == 40
        # The planted latencies depend on precision, which neither line knows.
        assert figures["macs"]["mape"] > 20 * figures["hwnas"]["mape"]
        assert figures["macs, operators, bytes"]["mape"] > 20 * figures["hwnas"]["mape"]


class TestFinishedRun:
    def test_report(self, finished: Path, hwnas: Hwnas, tmp_path: Path) -> None:
        shutil.copytree(finished, tmp_path / "run")
        (tmp_path / "run" / "report.html").unlink()
        answer = hwnas("report", "run")
        assert answer.code == 0
        assert (tmp_path / "run" / "report.html").stat().st_size > 100_000
        chosen, reference = RESULTS[finished].networks
        line = next(line for line in answer.out.splitlines() if "test accuracy" in line)
        assert percent(chosen.test_accuracy) in line
        assert percent(reference.test_accuracy) in line
        assert "report: run/report.html" in answer.out

    @pytest.mark.parametrize(("network", "name"), [("chosen", "model.onnx"), ("reference", "reference.onnx")])
    def test_export(self, network: str, name: str, finished: Path, hwnas: Hwnas, tmp_path: Path) -> None:
        arguments = () if network == "chosen" else ("--network", network)
        answer = hwnas("export", finished, "--out", "deep/out.onnx", *arguments)
        assert answer.code == 0, answer.err
        assert (tmp_path / "deep" / "out.onnx").read_bytes() == (finished / name).read_bytes()
        size = (finished / name).stat().st_size
        assert answer.out.startswith(f"deep/out.onnx: {size:,} bytes; same class as the torch module on ")
        assert weight_bytes(onnx.load(tmp_path / "deep" / "out.onnx")) > 0

    def test_export_needs_a_place(self, finished: Path, hwnas: Hwnas) -> None:
        answer = hwnas("export", finished)
        assert answer.code == 2
        assert "Missing option '--out'" in answer.err

    def test_resume_shows_the_table_again(self, finished: Path, hwnas: Hwnas, tmp_path: Path) -> None:
        shutil.copytree(finished, tmp_path / "run")
        before = (tmp_path / "run" / "optuna.db").read_bytes()
        answer = hwnas("search", "--resume", "run")
        assert answer.code == 0, answer.err
        assert "test accuracy" in answer.out
        assert "model: run/model.onnx" in answer.out.replace("  ", " ")
        assert (tmp_path / "run" / "optuna.db").read_bytes() == before

    def test_a_second_search_in_its_folder(self, finished: Path, hwnas: Hwnas, tmp_path: Path) -> None:
        search = write_search(tmp_path / "search.yaml")
        said = hwnas("search", search, "--out", finished).complaint
        assert said == f"{finished} holds a run already; continue it with 'hwnas search --resume {finished}'"

    def test_decisions_that_the_space_does_not_have(self, finished: Path, hwnas: Hwnas, tmp_path: Path) -> None:
        shutil.copytree(finished, tmp_path / "run")
        path = tmp_path / "run" / "result.json"
        path.write_text(path.read_text().replace('"head.width"', '"head.widht"'))
        said = hwnas("export", "run", "--out", "out.onnx").complaint
        assert "unknown decision of space 'mbconv': 'head.widht'; did you mean 'head.width'?" in said
        assert not (tmp_path / "out.onnx").exists()

    def test_weights_of_another_network(self, finished: Path, hwnas: Hwnas, tmp_path: Path) -> None:
        shutil.copytree(finished, tmp_path / "run")
        chosen, reference = (
            tmp_path / "run" / "finals" / f"{n.digest}.safetensors" for n in RESULTS[finished].networks
        )
        shutil.copy(reference, chosen)
        assert "does not hold the weights of network" in hwnas("export", "run", "--out", "out.onnx").complaint
        chosen.write_bytes(b"no tensors")
        assert "does not hold the weights of network" in hwnas("export", "run", "--out", "out.onnx").complaint
        assert not (tmp_path / "out.onnx").exists()

    def test_a_damaged_run(self, finished: Path, hwnas: Hwnas, tmp_path: Path) -> None:
        shutil.copytree(finished, tmp_path / "run")
        (tmp_path / "run" / "result.json").write_text("{}")
        assert "result.json is not a run's result" in hwnas("report", "run").complaint
        (tmp_path / "run" / "config.yaml").write_text("data: [")
        assert "config.yaml is not valid YAML" in hwnas("report", "run").complaint

    def test_a_damaged_database(self, finished: Path, hwnas: Hwnas, tmp_path: Path) -> None:
        shutil.copytree(finished, tmp_path / "run")
        (tmp_path / "run" / "optuna.db").write_bytes(b"no database" * 500)
        assert "optuna.db is not a usable Optuna storage" in hwnas("report", "run").complaint
