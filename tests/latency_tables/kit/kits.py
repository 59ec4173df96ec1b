"""A tiny kit, and a board that has Python, numpy and onnxruntime and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import onnxruntime
import pytest

from hwnas.latency_tables.kit import pack as pack_module
from hwnas.latency_tables.kit.board import PLAN
from hwnas.latency_tables.kit.command import RESULTS
from hwnas.latency_tables.kit.pack import FOLDER, KitPlan, pack_kit
from hwnas.latency_tables.timing import Protocol
from hwnas.spaces import Space, load_space

LENIENT = Protocol(
    rounds=2, burst_s=0.001, min_runs=2, warmup_runs=1, max_spread=1e9, patience=60, max_wait_s=0.0
)  # fmt: skip
PLAN_OF_TESTS = KitPlan(networks=24, checks=6, profiled_runs=4, protocol=LENIENT)
NAME = "tiny-board"
START = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.append(sys.argv[1])
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def tiny_space() -> Space:
    return load_space("mbconv", input_shape=(1, 8, 8), num_classes=10, joint=("bits",))


def tiny_kit(path: Path) -> Path:
    """Of 24 networks to learn from and 6 held out, in pieces of at most 6 beside the first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack_module, "PIECE", 6)
        pack_kit(path, NAME, tiny_space(), PLAN_OF_TESTS)
    return path


def unpack(kit: Path, folder: Path) -> Path:
    with zipfile.ZipFile(kit) as archive:
        archive.extractall(folder)
    return folder / FOLDER


class IsolatedPython:
    """This interpreter with its standard library, numpy and onnxruntime, and no other package."""

    def __init__(self, folder: Path) -> None:
        self.packages = folder / "packages"
        self.packages.mkdir()
        for module in (numpy, onnxruntime):
            own = Path(str(module.__file__)).parent
            for source in (own, own.with_name(f"{own.name}.libs")):
                if source.exists():
                    (self.packages / source.name).symlink_to(source)

    def start(self, script: Path, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-I", "-S", "-c", START, str(self.packages), str(script), *arguments]
        return subprocess.Popen(
            command, cwd=script.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )  # fmt: skip

    def run(self, script: Path, *arguments: str) -> tuple[int, str, str]:
        process = self.start(script, *arguments)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err


Change = Callable[[dict[str, Any], dict[str, Any]], object]


def changed_results(good: Path, path: Path, change: Change) -> Path:
    """A copy of good results with the plan and the results changed, the plan's checksum put right."""
    from hashlib import sha256

    with zipfile.ZipFile(good) as archive:
        plan, results = (json.loads(archive.read(name)) for name in (PLAN, RESULTS))
    change(plan, results)
    source = json.dumps(plan).encode()
    if "plan" in results:
        results["plan"] = sha256(source).hexdigest()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(PLAN, source)
        archive.writestr(RESULTS, json.dumps(results))
    return path
