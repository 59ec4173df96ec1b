"""`hwnas device kit` and `hwnas device import`."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.latency_tables.kit.kits import IsolatedPython, unpack

from .command import Hwnas

SPACE = ("--input-shape", "1,8,8", "--classes", "10", "--joint", "")


def test_a_kit_is_packed(hwnas: Hwnas, tmp_path: Path) -> None:
    answer = hwnas("device", "kit", "pi", *SPACE, "--networks", "48", "--minutes", "3", "--out", tmp_path / "kit.zip")
    assert answer.code == 0, answer.err
    said = " ".join(answer.out.split())
    assert re.search(
        r"kit\.zip: \d\.\d MB, 48 networks to learn from and 40 held out; about \d+ s on a Raspberry-Pi-class", said
    )
    assert "python measure.py" in said
    with zipfile.ZipFile(tmp_path / "kit.zip") as archive:
        readme = archive.read("hwnas-kit/README.txt").decode()
    assert "for the device pi." in readme
    assert "at most 3 minutes" in readme


def test_mistakes(hwnas: Hwnas, tmp_path: Path) -> None:
    assert "cannot be called" in hwnas("device", "kit", "../pi", *SPACE, "--out", tmp_path / "kit.zip").complaint
    assert "unknown space 'mbcon'" in hwnas("device", "kit", "pi", "--space", "mbcon", "--out", "kit.zip").complaint
    assert "there is no file" in hwnas("device", "import", tmp_path / "results.zip").complaint
    (tmp_path / "results.zip").write_bytes(b"no archive")
    assert "is not a whole ZIP archive" in hwnas("device", "import", tmp_path / "results.zip").complaint
    assert hwnas("device", "kit", "pi", *SPACE).code == 2, "--out is required"
    assert not (tmp_path / "kit.zip").exists()
    assert not (tmp_path / "no devices").exists()


@pytest.mark.slow
def test_a_board_is_measured_and_used(hwnas: Hwnas, tmp_path: Path) -> None:
    """With the timing as it ships, on a Python that has numpy and onnxruntime alone."""
    space = ("--input-shape", "1,8,8", "--classes", "10")
    assert hwnas("device", "kit", "pi", *space, "--networks", "100", "--out", tmp_path / "kit.zip").code == 0
    folder = unpack(tmp_path / "kit.zip", tmp_path)
    process = IsolatedPython(tmp_path).start(folder / "measure.py", "--minutes", "3")
    out, err = process.communicate(timeout=280)
    assert process.returncode == 0, (out, err)
    answer = hwnas("device", "import", folder / "results.zip", "--kit", tmp_path / "kit.zip")
    assert answer.code == 0, answer.err
    figures = re.search(r"MAPE ([\d.]+)%, Kendall tau ([\d.]+)", answer.out)
    assert figures, answer.out
    assert float(figures[1]) < 15
    assert float(figures[2]) > 0.75
    assert "pi" in hwnas("device", "list").out
    assert '"networks_measured": ' in hwnas("bench", "latency", "--device", "pi").out


def test_packing_and_importing_start_without_torch() -> None:
    code = "import sys, hwnas.scripts.cli_kit; print(sorted({'torch', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"
