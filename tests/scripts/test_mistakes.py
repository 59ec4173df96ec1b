"""Bad input on the command line: one line on stderr that says what, where and what to do."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hwnas.search.run_folder import Run
from tests.search.fixtures import small_search

from .command import Hwnas, write_search

EXAMPLE = Path(__file__).resolve().parents[2] / "scripts" / "digits.yaml"


def test_an_unknown_command_or_option(hwnas: Hwnas) -> None:
    answer = hwnas("serach")
    assert (answer.code, answer.out) == (2, "")
    assert "No such command 'serach'" in answer.err
    assert "No such option" in hwnas("search", "--trails", "3").err


def test_a_search_needs_a_file_or_a_run_and_not_both(hwnas: Hwnas) -> None:
    for arguments in ((), ("search.yaml", "--resume", "run")):
        answer = hwnas("search", *arguments)
        assert answer.code == 2
        assert "give either a search FILE or --resume RUN" in answer.err


@pytest.mark.usefixtures("devices")
def test_an_unknown_device(hwnas: Hwnas, tmp_path: Path) -> None:
    for arguments in (
        ("device", "show", "syntetic"),
        ("device", "verify", "syntetic"),
        ("bench", "scoring", "--device", "syntetic"),
        ("bench", "latency", "--device", "syntetic"),
        ("bench", "energy", "--device", "syntetic"),
        ("search", write_search(tmp_path / "search.yaml", device={"name": "syntetic"})),
    ):
        assert hwnas(*arguments).complaint.startswith("unknown device 'syntetic'; did you mean 'synthetic'?")


@pytest.mark.usefixtures("devices")
def test_an_unknown_space(hwnas: Hwnas, tmp_path: Path) -> None:
    search = write_search(tmp_path / "search.yaml", space={"name": "mbcov"})
    for arguments in (("device", "register", "new", "--space", "mbcov"), ("search", search)):
        assert hwnas(*arguments).complaint.startswith("unknown space 'mbcov'; did you mean 'mbconv'?")


def test_an_unknown_dimension_or_runtime_or_provider_or_a_nonsense_shape(hwnas: Hwnas) -> None:
    register = ("device", "register", "new")
    assert "dimension 'rnk'; did you mean 'rank'?" in hwnas(*register, "--joint", "bits,rnk").complaint
    assert "runtime 'onnxrntime'; did you mean" in hwnas(*register, "--runtime", "onnxrntime").complaint
    assert "has no TPU here (installed: " in hwnas(*register, "--provider", "TPU").complaint
    assert "sides from 8 to 512" in hwnas(*register, "--input-shape", "3,4,4").complaint
    assert "'3,x' is not channels,height,width" in hwnas(*register, "--input-shape", "3,x").err
    assert "cannot be called '../new'" in hwnas("device", "register", "../new").complaint


@pytest.mark.usefixtures("devices")
def test_an_unknown_controller_is_noticed_before_anything_is_measured(hwnas: Hwnas, tmp_path: Path) -> None:
    search = write_search(tmp_path / "search.yaml", controller={"name": "evolutoin"})
    said = hwnas("search", search, "--out", "run").complaint
    assert "unknown controller 'evolutoin'; did you mean 'evolution'?" in said
    assert not (tmp_path / "run" / "device").exists()


def test_an_unknown_key(hwnas: Hwnas, tmp_path: Path) -> None:
    path = tmp_path / "search.yaml"
    path.write_text(EXAMPLE.read_text().replace("trials:", "trails:"))
    assert hwnas("search", path).complaint.startswith(
        f"unknown key in {path}: 'trails'; did you mean 'trials'? (known: "
    )
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("text", "said"), [("data: [digits", "is not valid YAML"), ("3", "must hold keys and values")])
def test_malformed_yaml(text: str, said: str, hwnas: Hwnas, tmp_path: Path) -> None:
    path = tmp_path / "search.yaml"
    path.write_text(text)
    assert said in hwnas("search", path).complaint
    assert list(tmp_path.iterdir()) == [path]


def test_a_value_of_the_wrong_kind(hwnas: Hwnas, tmp_path: Path) -> None:
    path = tmp_path / "search.yaml"
    path.write_text("data: {name: digits}\nobjective: {target_ratio: fast}\n")
    assert hwnas("search", path).complaint.startswith(f"{path}: objective.target_ratio: ")
    path.write_text("data: {name: digits}\nobjective: {target_ratio: 0.5}\n")
    assert hwnas("search", path, "--trials", "0").complaint.startswith("the command line: search.trials: ")
    assert hwnas("search", path, "--seed", "-1").complaint.startswith("the command line: search.seed: ")
    assert "is not a valid integer" in hwnas("search", path, "--trials", "many").err


def test_a_missing_file(hwnas: Hwnas) -> None:
    assert hwnas("search", "none.yaml").complaint == "there is no file none.yaml"
    assert hwnas("device", "register", "new", "--space", "none.yaml").complaint == "there is no file none.yaml"


@pytest.mark.parametrize("command", [("search", "--resume"), ("report",), ("export", "--out", "model.onnx")])
def test_a_folder_that_is_no_run(command: tuple[str, ...], hwnas: Hwnas, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        assert hwnas(*command, folder).complaint == f"{folder} is no run folder: it has no config.yaml"
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_has_not_finished(hwnas: Hwnas, tmp_path: Path) -> None:
    Run.create(tmp_path / "my run", small_search())
    for command in (("report",), ("export", "--out", "model.onnx")):
        answer = hwnas(*command, "my run")
        assert answer.code != 0
        assert "has not finished" in answer.err
        assert "hwnas search --resume 'my run'" in answer.err


@pytest.mark.usefixtures("devices")
def test_data_that_cannot_be_used(hwnas: Hwnas, tmp_path: Path) -> None:
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
def test_a_target_that_nothing_reaches(hwnas: Hwnas, tmp_path: Path) -> None:
    search = write_search(tmp_path / "search.yaml", objective={"target_ratio": 0.001})
    assert "cannot be reached: the least this space can do is" in hwnas("search", search).complaint


@pytest.mark.usefixtures("devices")
def test_a_search_that_could_not_begin_leaves_no_run_behind(hwnas: Hwnas, tmp_path: Path) -> None:
    search = write_search(tmp_path / "search.yaml")
    assert hwnas("search", search, "--out", "run", "--data", "digit").code == 2
    assert not (tmp_path / "run" / "config.yaml").exists()
