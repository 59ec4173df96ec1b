"""A device carried as the bytes of its files."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hwnas.latency_tables import device_files as module
from hwnas.latency_tables.device_files import device_files, device_from_files
from hwnas.spaces.errors import InvalidFileError

from .test_device import a_device


def test_round_trip() -> None:
    device = a_device()
    files = device_files(device)
    assert sorted(files) == ["networks.parquet", "profile.yaml", "table.parquet"]
    assert device_from_files(files) == device


Change = Callable[[dict[str, bytes]], object]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda files: files.pop("table.parquet"), "not networks.parquet, profile.yaml$"),
        (lambda files: files.update({"../table.parquet": b""}), "a device has the files"),
        (lambda files: files.update({"table.parquet": b"PAR1"}), "^table.parquet is not a readable Parquet file"),
        (lambda files: files.update({"networks.parquet": b""}), "^networks.parquet is not a readable Parquet file"),
        (lambda files: files.update({"profile.yaml": b"name: laptop\nspeed: 3\n"}), "^profile.yaml: "),
        (lambda files: files.update({"profile.yaml": b"!!python/object:os.system {}"}), "^profile.yaml is not valid"),
        (lambda files: files.clear(), "not none$"),
    ],
)
def test_other_files_are_refused(change: Change, said: str) -> None:
    files = device_files(a_device())
    change(files)
    with pytest.raises(InvalidFileError, match=said):
        device_from_files(files)


def test_large_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    files = device_files(a_device())
    monkeypatch.setattr(module, "MAX_FILE_BYTES", len(files["table.parquet"]) - 1)
    with pytest.raises(InvalidFileError, match=r"table\.parquet is larger than 0 MB"):
        device_from_files(files)
