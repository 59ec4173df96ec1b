"""A registration whose process is really killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hwnas.latency_tables.device import list_devices

from .resumable import NAME, entries

KILLED = """
import itertools, sys
from hwnas.latency_tables import profiler
from hwnas.latency_tables.profiler import Plan
from hwnas.latency_tables.steadiness import Steadiness
from hwnas.latency_tables.timing import Protocol
from hwnas.predictors.registration import register
from hwnas.spaces import load_space

profiler.CHUNK = 3
protocol = Protocol(rounds=2, burst_s=0.002, min_runs=3, warmup_runs=1, max_spread=1e9)
plan = Plan(seconds=60, checks=4, min_networks=40, max_networks=40, profiled_networks=10, profiled_runs=2,
            protocol=protocol)
steady = Steadiness(work=lambda: None, clock=itertools.count(0, 1e-4).__next__)
space = load_space("mbconv", input_shape=(1, 8, 8), num_classes=10, joint=())
device = register("laptop", space, plan=plan, steadiness=steady, progress=lambda text, _: print(text, flush=True))
print(*(network.digest for role in ("fit", "check") for network in device.table.with_role(role)))
"""


@pytest.mark.slow
def test_a_process_that_is_killed(own_devices: Path) -> None:
    command = [sys.executable, "-c", KILLED]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while len(entries(own_devices)) < 4 and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    kept = {path: path.read_bytes() for path in entries(own_devices)}
    assert 4 <= len(kept) < 14
    assert list_devices() == []
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    *said, measured = result.stdout.splitlines()
    asked = [json.loads(data)["asked"] for data in kept.values()]
    before = [own for a in asked for own in zip(a["roles"], a["networks"], strict=True)]
    assert any(text.startswith(f"going on with {len(before)} networks measured before (") for text in said)
    first = [digest for role, digest in before if role == "fit"]
    assert measured.split()[: len(first)] == first
    assert {digest for role, digest in before if role == "check"} <= set(measured.split()[40:])
    assert len(set(measured.split())) == 44
    assert list_devices() == [NAME]
    assert not entries(own_devices)
