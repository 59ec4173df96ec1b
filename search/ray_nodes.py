"""What the nodes of the Ray cluster that was joined have: resources, and the same hwnas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import ray
from ray._private.state import state as cluster_state
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hwnas.spaces.errors import UnavailableError

ONE_CPU = {"cpu": 1.0}
MAX_FAILURES = 2
"""Times that something is begun again whose worker process died; errors that it raised itself are not retried."""
ANSWER_S = 60.0
"""So long a node may take to say its version; one that says nothing is asked again when a trial begins there."""


def label(node: Mapping[str, Any]) -> str:
    """What errors call a node."""
    return f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


def alive_nodes() -> list[dict[str, Any]]:
    """As Ray describes them."""
    return [node for node in ray.nodes() if node["Alive"]]


def as_ray_says(resources: Mapping[str, float]) -> dict[str, float]:
    """Resources by Ray's names."""
    return {{"cpu": "CPU", "gpu": "GPU"}.get(name, name): amount for name, amount in resources.items()}


def threads_of(resources: Mapping[str, float]) -> int:
    """Of torch, for whom these are reserved."""
    return max(1, int(resources.get("cpu", 1)))


def shared_out(resources: Mapping[str, float], tasks: int) -> Mapping[str, float]:
    """What each of several tasks takes where there is one node and they are fewer than its cores: its part of these."""
    nodes = alive_nodes()
    if len(nodes) != 1 or not tasks or "gpu" in resources:
        return resources
    part = float(int(nodes[0]["Resources"].get("CPU", 0)) // tasks)
    return {**resources, "cpu": max(part, resources.get("cpu", 1.0))}


def check_resources(resources: Mapping[str, float], taken: Sequence[str] = (), *, at_once: int = 1) -> None:
    """Raises `UnavailableError` where the nodes, and those that an autoscaler may add, can never fulfil them.

    Args:
        resources: Of one node, by name: ``cpu``, ``gpu``, and nodes' own.
        taken: Ids of nodes that do not count, as they are measured on.
        at_once: How many need them at the same time.
    """
    needed = as_ray_says(resources)
    nodes = [node for node in alive_nodes() if node["NodeID"] not in taken]
    places = sum(_places(node["Resources"], needed) for node in nodes)
    config = cluster_state.get_cluster_config()
    for group in config.node_group_configs if config is not None else ():
        count = at_once if group.max_count < 0 else group.max_count  # -1 is any number
        places += _places(group.resources, needed) * count
    if places >= at_once:
        return
    there = "; ".join(
        f"{label(node)}: {_list({name: node['Resources'].get(name, 0) for name in needed})}" for node in nodes
    )
    others = " beside those that are measured on" if taken else ""
    what = f"a training needs {_list(needed)} of one node, and no node of the Ray cluster{others} has that"
    if at_once > 1:
        what = f"{at_once} workers need {_list(needed)} each, and the Ray cluster{others} has that {places} times"
    raise UnavailableError(
        f"{what} ({there}); change search.resources, or start a node that has them: ray start --address=… "
        "--num-cpus=… --num-gpus=… --resources=…"
    )


def _places(offer: Mapping[str, float], needed: Mapping[str, float]) -> int:
    """How often a node's resources suffice. A share of a GPU is one of a single GPU."""
    return min(
        int(offer.get(name, 0)) * int(1 / amount + 1e-9) if name == "GPU" and amount < 1
        else int(offer.get(name, 0) / amount + 1e-9)
        for name, amount in needed.items()
    )  # fmt: skip


def _list(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in resources.items())


def own_version() -> str:
    """Of hwnas, in this process."""
    return version("hwnas")


def wrong_version(where: str, there: str | None, here: str) -> str:
    """What is to be said of a node's version; nothing where it is the driver's."""
    if there == here:
        return ""
    has = f"hwnas {there}" if there else "no hwnas"
    return f"{where} has {has}, and the driver has {here}: install the same on every node"


def check_versions() -> None:
    """Raises `UnavailableError` where a node has another hwnas than this process, or none."""

    def ask() -> str | None:  # of this function, so that it is sent to nodes that could not import it
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("hwnas")
        except PackageNotFoundError:
            return None

    nodes = alive_nodes()
    asked = {}
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        asked[ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(ask).remote()] = node
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_S)
    for answer in answered:
        with suppress(RayError):  # the node was lost meanwhile
            if said := wrong_version(label(asked[answer]), ray.get(answer), own_version()):
                raise UnavailableError(said)
