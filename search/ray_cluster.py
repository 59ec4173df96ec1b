"""Joins a Ray cluster, and runs something alone on the node that is a device.

A node is a device if it was started with the custom resource ``device:NAME``. What comes from it is unpickled by Ray
itself, as everything that nodes of a cluster send each other: join only clusters that you trust.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hwnas.search.observer import Observer
from hwnas.search.ray_nodes import alive_nodes, check_versions, label
from hwnas.spaces.errors import HwnasError, UnavailableError

DEVICE = "device:"
"""What the names of resources begin with that say which device a node is."""
ATTEMPTS = 2
"""Times that something is begun whose process or node is lost."""
CONNECT_S = 5.0
POLL_S = 0.5
SAY_S = 1.0
"""So long a node waits at most until what it says has arrived."""
CANCEL_S = 5.0
"""So long a cancelled task may take to tidy up."""


@contextmanager
def cluster(workers: int = 1, address: str | None = None) -> Iterator[None]:
    """Joins the Ray cluster at ``address``, or starts one on this machine with ``workers`` CPU slots.

    Raises:
        UnavailableError: The cluster cannot be joined, or a node of it has another hwnas.
        RuntimeError: Ray runs in this process already; it is left as it is.
    """
    if address:
        _join(address)
    else:
        ray.init(address="local", num_cpus=workers, include_dashboard=False, **_QUIET)  # whatever else runs here
    try:
        if address:
            check_versions()
        yield
    finally:
        ray.shutdown()


_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}


def _join(address: str) -> None:
    try:
        host, _, port = address.rpartition(":")
        if port.isdigit() and "/" not in host:
            # Ray itself would try for minutes.
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
        ray.init(address=address, **_QUIET)
    except (OSError, OverflowError, RuntimeError, ValueError, RayError) as error:
        if isinstance(error, RuntimeError) and ray.is_initialized():
            raise  # the address has nothing to do with it
        raise UnavailableError(
            f"no Ray cluster can be joined at {address!r}; start one with 'ray start --head', or give the --address of "
            f"one that runs ({error})"
        ) from error


def run_on_device(
    name: str,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    observer: Observer,
    consequence: str = "nothing is saved",
) -> Any:
    """``function(*arguments, progress=…)`` on the node that is the device, alone on its resources.

    All of the node's CPUs, GPUs and devices are taken, so nothing of Ray's that needs one of them runs there meanwhile.
    What needs none does: tasks and actors with ``num_cpus=0``, and actors for which nothing was asked, to which Ray
    gives no CPU while they run.

    Where its process or its node is lost, it begins once more, on the node that is the device then.

    Args:
        name: Of the device.
        function: Of a module that the node has, too.
        arguments: Sent to the node.
        observer: Hears what ``progress`` is called with.
        consequence: Of its loss, for the error.

    Raises:
        UnavailableError: No node is the device, or more than one is, or it was lost.
        HwnasError: What the function raised; the message begins with the node's name.
    """
    lost: _LostError | None = None
    for _ in range(ATTEMPTS):
        try:
            node = node_of(name)
        except UnavailableError as error:
            raise UnavailableError(f"{lost}; {consequence}. Now {error}" if lost else str(error)) from lost
        if lost:
            observer.note(f"{lost}; beginning afresh")
        try:
            return _run(node, function, arguments, observer)
        except _LostError as error:
            lost = error
    raise UnavailableError(f"{lost}, {ATTEMPTS} times; {consequence}") from lost


class _LostError(Exception):
    """A measurement whose process or node is no more."""


class _Messages:
    """Keeps what a node says until the driver asks for it."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, float | None]] = []

    def say(self, text: str, share: float | None) -> None:
        """Progress; with a share of None, something worth reading, which stays on the screen."""
        self.messages.append((text, share))

    def take(self) -> list[tuple[str, float | None]]:
        taken, self.messages = self.messages, []
        return taken


def node_of(name: str) -> dict[str, Any]:
    """The node that is the device, as Ray describes it."""
    nodes = alive_nodes()
    found = [node for node in nodes if node["Resources"].get(DEVICE + name, 0) > 0]
    if len(found) > 1:
        raise UnavailableError(
            f"{len(found)} nodes of the Ray cluster have the resource {DEVICE + name}, and a device is one: "
            f"{', '.join(sorted(map(label, found)))}. Type 'ray stop' on all but the one that is the device, and "
            "start the others with names of their own"
        )
    if found:
        return found[0]
    there = "; ".join(f"{label(n)}: {', '.join(f'{a:g} {r}' for r, a in sorted(whole(n).items()))}" for n in nodes)
    address = ray.get_runtime_context().gcs_address
    raise UnavailableError(
        f"no node of the Ray cluster has the resource {DEVICE + name} ({there}). On the device, type: ray start "
        f"--address={address} --resources='{{\"{DEVICE}{name}\": 1}}'"
    )


def whole(node: Mapping[str, Any]) -> dict[str, float]:
    """All of a node's processors, and every device that it is: who takes these has the node alone."""
    return {k: n for k, n in node["Resources"].items() if k in ("CPU", "GPU") or k.startswith(DEVICE)}


def _run(node: Mapping[str, Any], function: Callable[..., Any], arguments: tuple[Any, ...], observer: Observer) -> Any:
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    messages = ray.remote(num_cpus=0, scheduling_strategy=here)(_Messages).remote()
    resources = whole(node)
    remote = ray.remote(
        num_cpus=resources.pop("CPU", 0),
        num_gpus=resources.pop("GPU", 0),
        resources=resources,
        max_retries=0,
        scheduling_strategy=there,
    )(_there)
    observer.progress(f"waiting until {label(node)} is free", 0.0)
    task = remote.remote(messages, function, arguments)
    try:
        return _result(label(node), task, messages, observer)
    except RayTaskError as error:
        raise _in_words(label(node), error) from None
    except RayError as error:
        with suppress(RayError):
            _cancel(task)  # where only Ray lost sight of it, it would go on holding the node
        raise _LostError(f"what ran on {label(node)} is lost: {str(error).splitlines()[0].rstrip('.')}") from error
    except BaseException:
        _cancel(task)
        raise
    finally:
        ray.kill(messages)


def _result(label: str, task: Any, messages: Any, observer: Observer) -> Any:
    """What a task returns; the observer hears what it says meanwhile."""
    while True:
        ready, _ = ray.wait([task], timeout=POLL_S)
        said: list[tuple[str, float | None]] = []
        with suppress(RayError):  # who keeps the messages is lost, and the task none the worse
            said = ray.get(messages.take.remote())
        for text, share in said:
            if share is None:
                observer.note(f"{label}: {text}")
            else:
                observer.progress(text, share)
        if ready:
            return ray.get(task)


def _cancel(task: Any) -> None:
    ray.cancel(task)
    ready, _ = ray.wait([task], timeout=CANCEL_S)
    if not ready:
        ray.cancel(task, force=True)


def _in_words(label: str, error: Any) -> Exception:
    """What a task raised, as it is raised here."""
    cause: Exception = error.cause
    if isinstance(cause, HwnasError):
        cause.args = (f"{label}: {cause}",)
        return cause
    if "failed to import" in str(cause):
        return UnavailableError(f"{label} has no hwnas, or another one: install the same on every node")
    unexpected: Exception = error
    return unexpected


def _there(messages: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Runs a function on a node."""

    def say(text: str, share: float | None) -> None:
        with suppress(RayError):
            ray.wait([messages.say.remote(text, share)], timeout=SAY_S)  # measuring goes on with nothing under way

    with priority_of_node(say):
        return function(*arguments, progress=say)


@contextmanager
def priority_of_node(say: Callable[[str, None], None] = lambda words, share: None) -> Iterator[None]:
    """The priority with which the node was started, instead of the low one that Ray gives its processes.

    They are used again, so they get theirs back. ``say`` hears where that cannot be had.
    """
    try:
        low, usual = os.getpriority(os.PRIO_PROCESS, 0), os.getpriority(os.PRIO_PROCESS, os.getppid())
    except (OSError, AttributeError):  # no such thing on this system
        low = usual = 0
    try:
        if low != usual:
            os.setpriority(os.PRIO_PROCESS, 0, usual)
    except OSError:
        say(
            f"measuring at niceness {low} instead of {usual}, which only root may set: other programs there make it "
            "slower; start the node with RAY_worker_niceness=0",
            None,
        )
    try:
        yield
    finally:
        with suppress(OSError):
            if low != usual:
                os.setpriority(os.PRIO_PROCESS, 0, low)
