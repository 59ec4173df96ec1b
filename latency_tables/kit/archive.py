"""Reads JSON files out of archives that nobody vouches for: in memory, within limits, nothing extracted."""

from __future__ import annotations

import json
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from hwnas.spaces.errors import InvalidFileError

MAX_ARCHIVE_BYTES = 1_000_000_000
"""A kit may be large: it holds networks, which are not read."""
MAX_ENTRIES = 64
MAX_DIRECTORY_BYTES = 64_000
"""Of the archive's table of contents, which is read before its entries can be counted."""
MAX_FILE_BYTES = 16_000_000
MAX_RATIO = 200
"""Of a file's size to what it takes in the archive; lists of numbers and names stay far below."""
MAX_DEPTH = 16

_END_BYTES, _LOCATOR_BYTES = 22, 20
"""Of the record that ends an archive, and of the one before it in large archives."""


def read_files(path: Path, wanted: Collection[str], *, others: bool = False) -> dict[str, bytes]:
    """The files of those names in a ZIP archive, each of which it must hold once.

    Args:
        path: The archive.
        wanted: Names as in the archive.
        others: Whether further files may be there; they are not read.

    Raises:
        InvalidFileError: It is no such archive, or one that tries something.
    """
    try:
        if path.stat().st_size > MAX_ARCHIVE_BYTES:
            raise InvalidFileError(f"{path} is larger than {MAX_ARCHIVE_BYTES // 10**6} MB")
        _check_directory(path)
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_names(path, [e.orig_filename for e in entries], wanted, others)
            for entry in entries:
                _check_kind(path, entry)
            return {e.filename: _read(path, archive, e) for e in entries if e.filename in wanted}
    except FileNotFoundError as error:
        raise InvalidFileError(f"there is no file {path}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, ValueError, RuntimeError) as error:
        if isinstance(error, InvalidFileError):
            raise
        raise InvalidFileError(f"{path} is not a whole ZIP archive: {error}") from error


def parse_json(data: bytes, where: str) -> Any:
    """Plain data from JSON; refuses NaN and infinities, a key that comes twice, and deep nesting.

    Raises:
        InvalidFileError: It is no such JSON.
    """

    def constant(name: str) -> Any:
        raise ValueError(f"{name} is no figure")

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(items)
        if len(result) != len(items):
            keys = [key for key, _ in items]
            raise ValueError(f"the key {next(k for k in keys if keys.count(k) > 1)[:40]!r} comes twice")
        return result

    try:
        value = json.loads(data.decode("utf-8"), parse_constant=constant, object_pairs_hook=pairs)
        _check_depth(value, MAX_DEPTH)
    except (ValueError, RecursionError) as error:
        raise InvalidFileError(f"{where} is not valid JSON: {error}") from error
    return value


def _check_directory(path: Path) -> None:
    """Refuses a table of contents that is large, or in the form for large archives."""
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - _LOCATOR_BYTES - _END_BYTES))
        tail = file.read()
    end = tail[-_END_BYTES:]
    if len(end) < _END_BYTES or end[:4] != b"PK\x05\x06":
        raise zipfile.BadZipFile("it does not end as such archives do")
    if struct.unpack("<I", end[12:16])[0] > MAX_DIRECTORY_BYTES or tail[:4] == b"PK\x06\x07":
        raise InvalidFileError(f"{path} has an unusually large table of contents")


def _check_names(path: Path, names: list[str], wanted: Collection[str], others: bool) -> None:
    if len(names) > MAX_ENTRIES:
        raise InvalidFileError(f"{path} holds {len(names)} files, more than {MAX_ENTRIES}")
    for name in names:
        parts = name.replace("\\", "/").split("/")
        if ".." in parts or name.startswith(("/", "\\")) or ":" in name or not name.isprintable():
            raise InvalidFileError(f"{path} holds a file with the dangerous name {name[:80]!r}")
        if names.count(name) > 1:
            raise InvalidFileError(f"{path} holds {name[:80]!r} twice")
        if name not in wanted and not others:
            raise InvalidFileError(f"{path} holds {name[:80]!r}, which does not belong there")
    if missing := sorted(set(wanted) - set(names)):
        raise InvalidFileError(f"{path} lacks {missing[0]!r}")


def _check_kind(path: Path, entry: zipfile.ZipInfo) -> None:
    mode = entry.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise InvalidFileError(f"{path} holds {entry.filename[:80]!r}, which is a link or a device, not a file")


def _read(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    name = entry.filename
    if entry.flag_bits & 0x1:
        raise InvalidFileError(f"{name} in {path} is encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InvalidFileError(f"{name} in {path} is compressed in an unusual way")
    if entry.file_size > MAX_FILE_BYTES or entry.file_size > MAX_RATIO * max(entry.compress_size, 1):
        raise InvalidFileError(
            f"{name} in {path} would be {entry.file_size} bytes, from {entry.compress_size} in the archive: refused"
        )
    with archive.open(entry) as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) != entry.file_size:
        raise InvalidFileError(f"{name} in {path} has another size than the archive says")
    return data


def _check_depth(value: Any, left: int) -> None:
    if left < 0:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH}")
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in inner:
        _check_depth(part, left - 1)
