"""What a node sends, and what is saved of it here; no cluster is needed."""

from __future__ import annotations

import shutil
import socket
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hwnas.latency_tables.device import Device, list_devices, load_device
from hwnas.latency_tables.device_files import device_files
from hwnas.search import ray_cluster
from hwnas.search.device_node import register_on_node
from hwnas.spaces.errors import (
    InvalidFileError,
    InvalidOptionError,
    UnavailableError,
)

from .fixtures import digits_space, synthetic_device
from .node_requests import NAME, Heard, asked


@pytest.fixture(autouse=True)
def devices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The user's folder of devices where the command runs."""
    monkeypatch.setenv("HWNAS_DEVICES", str(tmp_path / "devices"))
    return tmp_path / "devices"


def test_a_cluster_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(ray_cluster.ray, "init", init)
    with pytest.raises(UnavailableError, match=r"^no Ray cluster can be joined at 'auto'; start one"):
        register_on_node(asked(), [], "auto", Heard())


def test_an_address_where_nobody_answers_is_refused_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(UnavailableError, match=rf"^no Ray cluster can be joined at '127\.0\.0\.1:{port}'"):
        register_on_node(asked(), [], f"127.0.0.1:{port}", Heard())


@pytest.mark.parametrize(
    ("update", "spec"),
    [
        ({"name": "other", "simulated": False}, digits_space().spec),
        ({"name": NAME, "simulated": True}, digits_space().spec),
        ({"name": NAME, "simulated": False}, asked().spec),
    ],
)
def test_what_is_not_the_device_asked_for_is_not_saved(
    update: dict[str, Any], spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    device = synthetic_device()
    sent = device_files(replace(device, profile=device.profile.model_copy(update=update)))
    monkeypatch.setattr(ray_cluster, "cluster", lambda **_: nullcontext())
    monkeypatch.setattr(ray_cluster, "run_on_device", lambda *_: sent)
    with pytest.raises(InvalidFileError, match="the node sent another device than 'board'"):
        register_on_node(asked(spec=spec), [], "auto", Heard())
    assert list_devices() == []


@pytest.mark.parametrize(
    ("before", "meanwhile", "said"),
    [(None, 1.5, "registered"), (1.5, 2.5, "changed"), (1.5, None, "removed"), (1.5, 1.5, ""), (None, None, "")],
)
def test_what_another_command_did_meanwhile_is_not_overwritten(
    before: float | None, meanwhile: float | None, said: str, devices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device is told from another by how long it was measured; None for none."""

    def board(seconds: float) -> Device:
        update = {"name": NAME, "simulated": False, "registration_seconds": seconds}
        return replace(synthetic_device(), profile=synthetic_device().profile.model_copy(update=update))

    def measure(*_: Any) -> dict[str, bytes]:
        shutil.rmtree(devices, ignore_errors=True)
        if meanwhile is not None:
            board(meanwhile).save(devices / NAME)
        return device_files(board(9.0))

    if before is not None:
        board(before).save(devices / NAME)
    known = [load_device(name) for name in list_devices()]
    monkeypatch.setattr(ray_cluster, "cluster", lambda **_: nullcontext())
    monkeypatch.setattr(ray_cluster, "run_on_device", measure)
    refused = pytest.raises(InvalidOptionError, match=rf"^board was {said} here .* not saved\. Type the command again$")
    with refused if said else nullcontext():
        register_on_node(asked(spec=digits_space().spec), known, "auto", Heard())
    expected = meanwhile if said else 9.0
    assert [load_device(name).profile.registration_seconds for name in list_devices()] == (
        [] if expected is None else [expected]
    )
