"""What the command says of itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .command import Hwnas


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("", ("search", "device", "report", "export", "bench", "measures this machine")),
        ("search", ("--resume RUN", "--out", "Ctrl-C keeps everything", "--address", "Ray cluster")),
        ("report", ("report.html again",)),
        ("export", ("--out", "chosen|reference", "ONNX", "checked against its torch module")),
        ("adapt", ("other devices and budgets", "--device", "--target", "without training anything")),
        ("device", ("register", "kit", "import", "list", "show", "verify", "measuring them")),
        ("device register", ("Measure this machine", "--seconds", "--threads", "default: 3,32,32", "--on-cluster")),
        ("device kit", ("without hwnas", "--out", "--minutes", "default: 20", "python measure.py")),
        ("device import", ("results.zip", "--kit", "--power", "--name")),
        ("device list", ("List the registered devices",)),
        ("device show", ("how it was measured",)),
        ("device verify", ("Measure fresh random networks", "--networks", "4<=x<=400", "--on-cluster", "--address")),
        ("space", ("show", "check", "published networks")),
        ("space show", ("what the space NAME offers", "package.module:function", "--joint", "--input-shape")),
        ("space check", ("Find the networks of FILE", "--space", "--out", "exit status is 1")),
        ("bench", ("prints JSON", "latency", "scoring")),
        ("bench scoring", ("scored per second", "--batch")),
        ("bench latency", ("held-out networks", "--device")),
        ("bench search", ("Compare controllers", "--table", "--cost", "default: 200", "hypervolume regret")),
        ("bench runs", ("whole search of FILE", "--controllers", "--out", "are continued")),
        ("bench spaces", ("Sizes and speeds", "--data", "reference_nets.yaml", "fbnet_devices.parquet")),
        ("bench energy", ("few measured networks", "--table", "--energy", "default: 100", "--device")),
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
