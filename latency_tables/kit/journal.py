"""The journal of a measurement: what is finished survives Ctrl-C and a loss of power.

Needs the standard library alone: measuring kits carry it to boards.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Journal:
    """Named entries, each a JSON file of its own in a folder, written whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, name: str) -> dict[str, Any] | None:
        """An entry; None where it was never finished, or cannot be read."""
        try:
            data = json.loads(self._path(name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return data if isinstance(data, dict) else None

    def write(self, name: str, entry: dict[str, Any]) -> None:
        """Writes an entry, in place of an older one, and waits until it is on the disk."""
        self.folder.mkdir(exist_ok=True)
        write_whole(self._path(name), json.dumps(entry, allow_nan=False).encode())

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file under a temporary name, waits until it is on the disk, then renames it."""
    temporary = path.with_name(f".{path.name}.unfinished")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
