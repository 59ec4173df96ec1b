"""Reading and writing files so that nothing from outside is trusted and nothing half-written stays."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from hwnas.spaces.errors import DiskFullError, InvalidFileError


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML or JSON file; raises `InvalidFileError` saying where it is malformed."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InvalidFileError(f"there is no file {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidFileError(f"{path} cannot be read: {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidFileError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise InvalidFileError(f"{path} must hold keys and values, such as 'name: mbconv', not {type(data).__name__}")
    return data


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends, and vanishes when it fails.

    Raises:
        DiskFullError: There is no room for it.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise (no_room(path) if is_full(error) else error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def is_full(error: OSError) -> bool:
    """Whether it says that a disk, or what one may use of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def no_room(path: Path) -> DiskFullError:
    """What to raise where a file finds no room."""
    return DiskFullError(f"there is no room on the disk for {path}; free some, then go on: what is finished is kept")


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a whole file or nothing."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Writes a whole text file, in UTF-8, or nothing."""
    write_bytes(path, text.encode())


def write_yaml(path: Path, data: dict[str, Any]) -> None:
    """Writes a mapping as YAML, keys in their order, or nothing."""
    write_text(path, yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120))
