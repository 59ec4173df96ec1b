"""A device as the bytes of its files, to carry it from one machine to another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from hwnas.latency_tables.device import Device
from hwnas.spaces.errors import InvalidFileError

Files = Mapping[str, bytes]
"""Contents by name."""

NAMES = ("networks.parquet", "profile.yaml", "table.parquet")
MAX_FILE_BYTES = 64_000_000
"""A registration makes some hundred kilobytes."""


def device_files(device: Device) -> dict[str, bytes]:
    """The files that `Device.save` writes."""
    with TemporaryDirectory(prefix="hwnas-") as folder:
        device.save(Path(folder))
        return {name: Path(folder, name).read_bytes() for name in NAMES}


def device_from_files(files: Files) -> Device:
    """The inverse of `device_files`; they are checked as those of a device's folder are, and not kept.

    Raises:
        InvalidFileError: They are not the files of a device.
    """
    if sorted(files) != sorted(NAMES):
        raise InvalidFileError(f"a device has the files {', '.join(NAMES)}, not {', '.join(sorted(files)) or 'none'}")
    for name, content in files.items():
        if len(content) > MAX_FILE_BYTES:
            raise InvalidFileError(f"{name} is larger than {MAX_FILE_BYTES // 10**6} MB")
    with TemporaryDirectory(prefix="hwnas-") as folder:
        for name, content in files.items():
            Path(folder, name).write_bytes(content)
        try:
            return Device.load(Path(folder))
        except InvalidFileError as error:
            raise InvalidFileError(str(error).replace(f"{folder}/", "")) from error
