"""The benchmark of supernets."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from hwnas.scripts import bench_supernet

from .command import Hwnas

TOY = {
    "stem": {"kernel": 3, "channels": 8, "stride": 2},
    "stages": [{"kernel": [3, 5], "expansion": 1, "channels": [8, 16]}],
    "head": {"kernel": 1, "channels": 32},
    "references": {
        "thin": {
            "stem": {"kernel": 3, "channels": 8, "stride": 2},
            "stages": [{"kernel": 3, "expansion": 1, "channels": 8}],
            "head": {"kernel": 1, "channels": 32},
        }
    },
}


def test_it_times_steps_and_ranks_networks(hwnas: Hwnas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_supernet, "ProcessPoolExecutor", lambda workers, context: ThreadPoolExecutor(workers))
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(TOY))
    options = ("--steps", 1, "--supernet-epochs", 2, "--epochs", 1, "--candidates", 4)
    answer = hwnas("bench", "supernet", "--space", tmp_path / "toy.yaml", *options)
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert set(found["ways"]) == set(bench_supernet.WAYS)
    assert all(way["seconds_per_step"] > 0 and way["peak_mb"] >= 0 for way in found["ways"].values())
    assert found["ways"]["reference alone"]["times_the_reference"] == 1
    ranking = found["ranking"]
    assert ranking["candidates"] == 4
    assert -1 <= ranking["kendall_tau"] <= 1
    assert 0.1 < ranking["accuracy_alone"] <= 1
    assert "shared weights against training alone" in answer.err
