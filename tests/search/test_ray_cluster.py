"""What runs on the node of a real Ray cluster that is a device, and sessions of Ray that were there before."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import cloudpickle
from ray.cluster_utils import Cluster
from ray.exceptions import RayError

from hwnas.search import ray_cluster
from hwnas.search.ray_cluster import cluster, run_on_device
from hwnas.spaces.errors import UnavailableError

from .test_device_node import NAME, Heard

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # nodes cannot import the tests


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a cluster of one node, which is the device."""
    resources = {f"device:{NAME}": 1}
    made = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, "resources": resources}
    )
    yield made.address
    made.shutdown()


def count_begun(folder: str, first_lasts_s: float, progress: Any) -> int:
    """How often it was begun before; a first one that is interrupted says so."""
    begun = len(list(Path(folder).glob("begun*")))
    Path(folder, f"begun{begun}").touch()
    try:
        for _ in range(0 if begun else int(first_lasts_s / 0.1)):
            time.sleep(0.1)
    except BaseException:
        Path(folder, "interrupted").touch()
        raise
    return begun


def test_without_messages_the_task_goes_on(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dying(ray_cluster._Messages):
        def take(self) -> list[Any]:
            os._exit(1)

    monkeypatch.setattr(ray_cluster, "_Messages", Dying)
    heard = Heard()
    with cluster(address=address):
        assert run_on_device(NAME, count_begun, (str(tmp_path), 2.0), heard) == 0
    assert heard.notes == []


def test_a_task_that_is_given_up_leaves_the_node(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = ray_cluster._result

    def lose_sight(*arguments: Any) -> Any:
        monkeypatch.setattr(ray_cluster, "_result", result)
        while not (tmp_path / "begun0").exists():
            time.sleep(0.1)
        raise RayError("out of sight")

    monkeypatch.setattr(ray_cluster, "_result", lose_sight)
    heard = Heard()
    with cluster(address=address):
        assert run_on_device(NAME, count_begun, (str(tmp_path), 15.0), heard) == 1
    assert (tmp_path / "interrupted").exists()
    assert [note.split(": ")[1] for note in heard.notes] == ["out of sight; beginning afresh"]


def test_a_session_of_the_caller_is_left_alone(address: str) -> None:
    with cluster(address=address):
        for other in (address, "auto", None):
            with pytest.raises(RuntimeError, match=r"^Maybe you called ray\.init twice"), cluster(address=other):
                pass
            assert ray.is_initialized()
    assert not ray.is_initialized()


def test_two_nodes_cannot_be_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def node(number: int, **resources: float) -> dict[str, Any]:
        return {
            "NodeID": str(number),
            "Alive": number < 4,
            "NodeManagerHostname": f"pi{number}",
            "NodeManagerAddress": f"10.0.0.{number}",
            "Resources": {"CPU": 1.0, **resources},
        }

    board = {f"device:{NAME}": 1.0}
    nodes = [node(3, **board), node(2), node(1, **board), node(4, **board)]
    monkeypatch.setattr(ray_cluster.ray, "nodes", lambda: nodes)
    said = r"^2 nodes .* device:board, .*: node pi1 \(10\.0\.0\.1\), node pi3 \(10\.0\.0\.3\)\. Type 'ray stop'"
    with pytest.raises(UnavailableError, match=said):
        run_on_device(NAME, count_begun, (), Heard())
    del nodes[0]
    assert ray_cluster.node_of(NAME)["NodeID"] == "1"


def niceness(progress: Any) -> int:
    return os.getpriority(os.PRIO_PROCESS, 0)


@pytest.mark.parametrize("permitted", [True, False])
def test_a_measurement_has_the_priority_of_its_node(
    permitted: bool, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def there(*arguments: Any) -> tuple[int, int]:
        """In a process of niceness 15 on a node of niceness 0: the one that the function had, and the one after it."""
        own = [15]

        def set_priority(_: int, __: int, priority: int) -> None:
            if not permitted:
                raise PermissionError
            own[0] = priority

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "getpriority", lambda _, process: 0 if process else own[0])
            patch.setattr(os, "setpriority", set_priority)
            return ray_cluster._there(*arguments), own[0]

    monkeypatch.setattr(ray_cluster, "_there", there)
    heard = Heard()
    with cluster(address=address):
        assert run_on_device(NAME, niceness, (), heard) == ((0, 15) if permitted else (15, 15))
    assert len(heard.texts) == 1
    if permitted:
        assert heard.notes == []
    else:
        (note,) = heard.notes
        assert note.startswith("node ")
        assert "measuring at niceness 15 instead of 0, " in note
        assert note.endswith("start the node with RAY_worker_niceness=0")


def test_without_an_address_it_is_a_cluster_of_its_own(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else runs on the machine, and whatever the environment says."""
    monkeypatch.setenv("RAY_ADDRESS", address)
    with cluster(1):
        assert f"device:{NAME}" not in ray.cluster_resources()
        assert ray.cluster_resources()["CPU"] == 1
