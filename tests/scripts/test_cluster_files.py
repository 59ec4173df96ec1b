"""The cluster files: valid for the tools that read them, and of one mind with the rest."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from ray.autoscaler._private.util import prepare_config, validate_config

from hwnas.scripts.cli import cli

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "scripts" / "cluster"


def load(name: str) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    return data


def locked(package: str) -> str:
    """The version in requirements.lock."""
    return dict(line.split("==") for line in (ROOT / "requirements.lock").read_text().split())[package]


def test_ray_up_accepts_the_cluster() -> None:
    config = prepare_config(load("ray-cluster.yaml"))
    validate_config(config)
    assert config["provider"]["type"] == "local"
    workers = config["provider"]["worker_ips"]
    types = config["available_node_types"]
    assert sum(node.get("max_workers", 0) for node in types.values()) == len(workers) == config["max_workers"]


def test_every_machine_of_ray_up_gets_this_hwnas() -> None:
    config = load("ray-cluster.yaml")
    assert config["file_mounts"] == {"~/hwnas-code": "."}
    setup = "\n".join(config["setup_commands"])
    assert "--requirement ~/hwnas-code/requirements.lock" in setup
    assert "--no-deps --force-reinstall ~/hwnas-code" in setup
    starts = [config[f"{kind}_start_ray_commands"][-1] for kind in ("head", "worker")]
    assert all("~/hwnas-venv/bin/ray start" in command for command in starts)
    assert "--head --port=6379" in starts[0]
    assert "--address=$RAY_HEAD_IP:6379" in starts[1]


def test_the_job_searches_or_resumes_in_the_folder_that_is_kept() -> None:
    job = load("rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    shell, option, script = shlex.split(job["spec"]["entrypoint"])
    assert (shell, option) == ("sh", "-c")
    begins = [re.split(r"[;]", part)[0].split() for part in script.split("exec hwnas ")[1:]]
    known = {o for p in cli.commands["search"].params for o in p.opts}
    assert [c[0] for c in begins] == ["search", "search"]
    assert {word for c in begins for word in c if word.startswith("--")} == {"--resume", "--out", "--address"} <= known
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    mounts = {m["mountPath"]: m["name"] for m in head["containers"][0]["volumeMounts"]}
    claims = {v["name"]: v.get("persistentVolumeClaim") for v in head["volumes"]}
    assert claims[mounts["/results"]] is not None
    assert claims[mounts["/data"]] is not None
    assert set(mounts.values()) == set(claims)


def test_all_nodes_of_the_job_are_of_one_image_and_of_our_ray() -> None:
    spec = load("rayjob.yaml")["spec"]["rayClusterSpec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    images = {c["image"] for g in groups for c in g["template"]["spec"]["containers"]}
    assert len(images) == 1
    assert spec["rayVersion"] == locked("ray")
    assert f"rayproject/ray:{locked('ray')}-" in (ROOT / "docs" / "cluster.md").read_text()
    assert all(g["replicas"] == g["minReplicas"] <= g["maxReplicas"] for g in spec["workerGroupSpecs"])


@pytest.mark.parametrize("option", ["--address", "--resume"])
def test_the_options_that_the_page_tells_of_exist(option: str) -> None:
    assert option in CliRunner().invoke(cli, ["search", "--help"]).output
