"""`python measure.py` in a folder of its own, with a Python that has numpy and onnxruntime alone."""

from __future__ import annotations

import json
import signal
import time
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from hwnas.latency_tables.kit.board import PLAN
from hwnas.latency_tables.kit.command import RESULTS

from .kits import IsolatedPython, unpack


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> IsolatedPython:
    return IsolatedPython(tmp_path_factory.mktemp("python"))


def results_of(folder: Path) -> tuple[bytes, dict[str, Any]]:
    with zipfile.ZipFile(folder / "results.zip") as archive:
        assert sorted(archive.namelist()) == [PLAN, RESULTS]
        return archive.read(PLAN), json.loads(archive.read(RESULTS))


def test_the_python_of_these_tests_is_bare(python: IsolatedPython, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from importlib.util import find_spec\n"
        "for name in ('hwnas', 'torch', 'onnx', 'pydantic', 'yaml', 'psutil', 'numpy', 'onnxruntime'):\n"
        "    print(name, find_spec(name) is not None)\n"
    )
    _, out, _ = python.run(script)
    assert [line.split()[0] for line in out.splitlines() if line.endswith("True")] == ["numpy", "onnxruntime"]


def test_a_board_measures_stops_and_goes_on(kit: Path, python: IsolatedPython, tmp_path: Path) -> None:
    folder = unpack(kit, tmp_path)
    journal, before = folder / "journal", set(tmp_path.rglob("*"))
    process = python.start(folder / "measure.py")
    end = time.monotonic() + 60
    while not (journal / "piece-001.json").exists() and time.monotonic() < end and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (out, err)
    assert "run measure.py again to go on" in err
    assert "Traceback" not in err
    assert not (folder / "results.zip").exists()
    finished = {p.name: p.read_bytes() for p in journal.glob("*.json")}
    assert {"session.json", "piece-000.json", "piece-001.json"} <= set(finished)
    assert len(finished) < 5, "it was stopped in time"

    # As a loss of power leaves them: an entry half written beside its place, and one that the disk lost.
    (journal / ".piece-003.json.unfinished").write_bytes(b'{"timings": [')
    (journal / "piece-002.json").write_bytes(b"\0\0\0")
    finished.pop("piece-002.json", None)
    # Without time for more than what is needed, so that noise makes it measure no piece twice.
    code, out, err = python.run(folder / "measure.py", "--minutes", "0")
    assert (code, err) == (0, "")
    for name, content in finished.items():
        assert (journal / name).read_bytes() == content, "what is finished is not measured again"
    said = [line.split("  ")[1] for line in out.splitlines()]
    assert said[0] == "checking integer kernels"
    assert said[1:3] == ["measuring piece 3 of 4", "measuring piece 4 of 4"]
    assert said[-2].startswith("measured 30 networks in ")
    assert said[-1].endswith("hwnas device import results.zip")

    source, results = results_of(folder)
    assert source == (folder / PLAN).read_bytes()
    assert results["plan"] == sha256(source).hexdigest()
    assert [len(p["timings"]) for p in results["pieces"]] == [12, 6, 6, 6]
    assert all(len(p["anchors_ms"]) == 6 for p in results["pieces"])
    assert all(0 < t["p50_ms"] <= t["p90_ms"] for p in results["pieces"] for t in p["timings"])
    assert "operators" not in results["pieces"][1]
    kernels = {k for own in results["pieces"][0]["operators"] for o in own.values() for k in o["kernels"]}
    assert {"QLinearConv", "Conv", "DequantizeLinear"} <= kernels
    assert results["facts"]["runtime"].startswith("ONNX Runtime 1.")
    assert results["facts"]["python"].startswith("CPython 3.")
    assert results["settings"]["weights_8bit"] in ("int8", "uint8")
    assert results["refused"] == []
    assert results["energy"] is None
    left = {p.name for p in set(tmp_path.rglob("*")) - before if "__pycache__" not in p.parts} - set(finished)
    assert left <= {"journal", "__pycache__", "results.zip", ".piece-003.json.unfinished", "piece-002.json",
                    "piece-003.json"}  # fmt: skip


def test_a_kit_says_what_it_lacks(kit: Path, python: IsolatedPython, tmp_path: Path) -> None:
    folder = unpack(kit, tmp_path)
    (folder / "networks.zip").write_bytes((folder / "networks.zip").read_bytes()[:5000])
    code, _, err = python.run(folder / "measure.py")
    assert code == 2
    assert "is incomplete; unpack it again" in err
    assert "Traceback" not in err
    python.packages = tmp_path  # neither numpy nor onnxruntime
    code, _, err = python.run(folder / "measure.py")
    assert (code, err) == (2, "This kit needs numpy and onnxruntime: run 'pip install numpy onnxruntime'\n")


def test_what_the_command_line_says(kit: Path, tmp_path: Path) -> None:
    python = IsolatedPython(tmp_path)
    folder = unpack(kit, tmp_path)
    code, out, _ = python.run(folder / "measure.py", "--help")
    assert code == 0
    assert "--minutes" in out
    assert "--energy" in out
    code, _, err = python.run(folder / "measure.py", "--energy", "--window", "0.2")
    assert code == 2
    assert "--window must be from 1 to 600" in err
