"""Archives that nobody vouches for: refused without a trace, whatever they try."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import pytest

from hwnas.latency_tables.kit.archive import MAX_ENTRIES, MAX_FILE_BYTES, parse_json, read_files
from hwnas.spaces.errors import InvalidFileError

WANTED = ("a.json", "b.json")


def write(
    path: Path, entries: list[tuple[str | zipfile.ZipInfo, bytes]], compression: int = zipfile.ZIP_DEFLATED
) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return path


def good(path: Path) -> Path:
    return write(path, [("a.json", b"{}"), ("b.json", b"[1]")])


def linked(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.create_system, entry.external_attr = 3, 0o120777 << 16
    return entry


def test_what_is_wanted_is_read(tmp_path: Path) -> None:
    assert read_files(good(tmp_path / "a.zip"), WANTED) == {"a.json": b"{}", "b.json": b"[1]"}
    kit = write(tmp_path / "kit.zip", [("k/", b""), ("k/a.json", b"{}"), ("k/large.bin", bytes(10**6))])
    assert read_files(kit, ("k/a.json",), others=True) == {"k/a.json": b"{}"}


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ([("a.json", b"{}")], "lacks 'b.json'"),
        ([("a.json", b"{}"), ("b.json", b""), ("c.json", b"")], "'c.json', which does not belong there"),
        ([("a.json", b"{}"), ("b.json", b""), ("../b.json", b"")], "dangerous name '../b.json'"),
        ([("a.json", b"{}"), ("b.json", b""), ("x/../../b.json", b"")], "dangerous name"),
        ([("a.json", b"{}"), ("b.json", b""), ("/etc/cron.d/x", b"")], "dangerous name '/etc"),
        ([("a.json", b"{}"), ("b.json", b""), ("..\\b.json", b"")], "dangerous name"),
        ([("a.json", b"{}"), ("b.json", b""), ("C:\\b.json", b"")], "dangerous name"),
        ([("a.json", b"{}"), ("b.json", b""), ("b\x1b[2J", b"")], "dangerous name"),
        ([("a.json", b"{}"), ("b.json", b""), ("a.json", b"[]")], "'a.json' twice"),
        ([("a.json", b"{}"), (linked("b.json"), b"/etc/passwd")], "'b.json', which is a link"),
        ([("a.json", b"{}"), ("b.json", bytes(3 * 10**6))], "b.json in .* would be 3000000 bytes"),
        ([("a.json", b"{}"), ("b.json", b""), *((f"{i}.json", b"") for i in range(MAX_ENTRIES))], "holds 66 files"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_archives(entries: list[tuple[str | zipfile.ZipInfo, bytes]], complaint: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", entries)
    with pytest.raises(InvalidFileError, match=complaint):
        read_files(path, WANTED)
    assert list(tmp_path.iterdir()) == [path]


def test_a_kits_further_files_are_judged_by_their_names_too(tmp_path: Path) -> None:
    for name in ("../x", "/x", linked("x")):
        path = write(tmp_path / "kit.zip", [("a.json", b"{}"), (name, b"")])
        with pytest.raises(InvalidFileError, match=r"dangerous name|link or a device"):
            read_files(path, ("a.json",), others=True)


def test_files_that_are_no_archives(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with pytest.raises(InvalidFileError, match="there is no file"):
        read_files(path, WANTED)
    whole = good(tmp_path / "good.zip").read_bytes()
    for data in (b"", b"PK", b"\x1f\x8b" + bytes(100), whole[:-10], whole[: len(whole) // 2], whole[40:]):
        path.write_bytes(data)
        with pytest.raises(InvalidFileError, match="is not a whole ZIP archive"):
            read_files(path, WANTED)
    with pytest.raises(InvalidFileError, match="is not a whole ZIP archive"):
        read_files(tmp_path, WANTED)


def test_damaged_content(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", [("a.json", b"[1, 2, 3, 4, 5, 6]" * 50), ("b.json", b"")])
    data = bytearray(path.read_bytes())
    for position in range(40, 60):
        data[position] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(InvalidFileError, match="is not a whole ZIP archive"):
        read_files(path, WANTED)


def declared(data: bytes, offset: int, value: int) -> bytes:
    """An archive whose central directory declares another figure for the first entry."""
    start = data.index(b"PK\x01\x02") + offset
    return data[:start] + struct.pack("<I", value) + data[start + 4 :]


COMPRESSED, SIZE = 20, 24
"""Offsets in an entry of the central directory."""


@pytest.mark.parametrize("size", [10, 1000, MAX_FILE_BYTES + 1, 2**32 - 2])
def test_a_size_that_is_not_the_real_one(size: int, tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", [("a.json", b"[" + b"1," * 200 + b"1]"), ("b.json", b"")])
    path.write_bytes(declared(path.read_bytes(), SIZE, size))
    with pytest.raises(InvalidFileError):
        read_files(path, WANTED)


def test_a_bomb_whose_declared_ratio_is_harmless(tmp_path: Path) -> None:
    bomb = write(tmp_path / "a.zip", [("a.json", bytes(200 * 10**6)), ("b.json", b"")])
    lied = declared(declared(bomb.read_bytes(), SIZE, 30 * 10**6), COMPRESSED, 190_000)
    bomb.write_bytes(lied)
    with pytest.raises(InvalidFileError):
        read_files(bomb, WANTED)


def test_a_large_table_of_contents_is_not_even_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.zip", [(f"{i:0200}", b"") for i in range(400)])
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(InvalidFileError, match="unusually large table of contents"):
        read_files(path, WANTED)


def test_the_form_of_large_archives_is_refused(tmp_path: Path) -> None:
    whole = good(tmp_path / "good.zip").read_bytes()
    locator = b"PK\x06\x07" + bytes(16)
    path = tmp_path / "a.zip"
    path.write_bytes(whole[:-22] + locator + whole[-22:])
    with pytest.raises(InvalidFileError, match="unusually large table of contents"):
        read_files(path, WANTED)


def test_encrypted_or_unusually_compressed_files(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", [("a.json", b"{}"), ("b.json", b"")], zipfile.ZIP_LZMA)
    with pytest.raises(InvalidFileError, match="compressed in an unusual way"):
        read_files(path, WANTED)
    data = good(path).read_bytes()
    start = data.index(b"PK\x01\x02") + 8
    path.write_bytes(data[:start] + b"\x01\x00" + data[start + 2 :])
    with pytest.raises(InvalidFileError, match=r"a.json in .* is encrypted"):
        read_files(path, WANTED)


def test_an_archive_within_an_archive_is_not_opened(tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("a.json", b"{}")
    path = write(tmp_path / "a.zip", [("inner.zip", inner.getvalue()), ("b.json", b"")])
    with pytest.raises(InvalidFileError, match="does not belong there"):
        read_files(path, WANTED)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "Expecting value"),
        ("{", "x is not valid JSON"),
        ('{"a": NaN}', "NaN is no figure"),
        ('{"a": [-Infinity]}', "-Infinity is no figure"),
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' comes twice"),
        ("[" * 100_000, "x is not valid JSON"),
        ("[" * 30 + "]" * 30, "nested deeper than 16"),
        ("1" * 10_000, "x is not valid JSON"),
        ("\ud800", "x is not valid JSON"),
    ],
)
def test_hostile_json(text: str, complaint: str) -> None:
    with pytest.raises(InvalidFileError, match=complaint):
        parse_json(text.encode("utf-8", "surrogatepass"), "x")


def test_json_is_data() -> None:
    assert parse_json(b'{"a": [1, 2.5, "x", null, true]}', "x") == {"a": [1, 2.5, "x", None, True]}
