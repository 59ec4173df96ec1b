"""Where registrations of these tests are kept, and a machine whose timings are planted."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwnas.latency_tables import profiler

from .resumable import Machine


@pytest.fixture
def own_devices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder of devices; networks are measured in chunks of three."""
    monkeypatch.setenv("HWNAS_DEVICES", str(tmp_path / "devices"))
    monkeypatch.setattr(profiler, "CHUNK", 3)
    return tmp_path / "devices"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, own_devices: Path) -> Machine:
    """On which nothing is registered yet."""
    return Machine(monkeypatch)
