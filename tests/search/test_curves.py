"""Learning curves, read back as TensorBoard does."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from hwnas.search.curves import Curves


def events(folder: Path) -> list[tuple[int, str, float]]:
    """The scalars of the only event file: records of a length (8 bytes), a checksum (4), the event, a checksum (4)."""
    (path,) = folder.iterdir()
    data = path.read_bytes()
    found: list[tuple[int, str, float]] = []
    while data:
        length = int(np.frombuffer(data[:8], np.uint64)[0])
        event = Event.FromString(data[12 : 12 + length])
        found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        data = data[16 + length :]
    return found


def test_every_step_is_in_the_file_at_once(tmp_path: Path) -> None:
    curves = Curves(tmp_path)
    curves.add(3, 1, 0.25, 0.125)
    curves.add(4, 1, 0.75, 0.5)
    first = [(1, "accuracy", 0.25), (1, "reward", 0.125)]
    assert events(tmp_path / "trial-00003") == first
    curves.add(3, 2, 0.5, 0.25)
    curves.close(3)
    assert events(tmp_path / "trial-00003") == [*first, (2, "accuracy", 0.5), (2, "reward", 0.25)]
    curves.close(5)  # failed before its first step


def test_a_full_disk_does_not_stop_anybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    curves = Curves(tmp_path)
    curves.add(0, 1, 0.5, 0.5)
    monkeypatch.setattr("tensorboardX.record_writer.RecordWriter.flush", full)
    curves.add(0, 2, 0.75, 0.75)
    curves.close(0)
    assert events(tmp_path / "trial-00000")[:2] == [(1, "accuracy", 0.5), (1, "reward", 0.5)]
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", full)
        curves.add(1, 1, 0.5, 0.5)
        curves.close(1)
    assert [path.name for path in tmp_path.iterdir()] == ["trial-00000"]
    monkeypatch.undo()
    curves.add(1, 2, 0.25, 0.25)  # there is room again
    assert events(tmp_path / "trial-00001") == [(2, "accuracy", 0.25), (2, "reward", 0.25)]
