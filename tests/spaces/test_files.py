"""Files from outside are read with messages that help; files written are whole or absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwnas.spaces.errors import HwnasError, InvalidFileError
from hwnas.spaces.files import read_yaml, replacing, write_text, write_yaml


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    write_text(path, "old")
    with replacing(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".txt"
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, MemoryError])
def test_a_failure_leaves_nothing_behind(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == []
    path.write_text("old")
    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "old"


def test_a_failing_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    write_yaml(path, {"a": 1})
    with pytest.raises(Exception, match="cannot represent"):
        write_yaml(path, {"a": object()})
    assert read_yaml(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_yaml_round_trip_keeps_order_and_letters(tmp_path: Path) -> None:
    data = {"z": [1, 2.5, None, True], "a": {"ü": "±5 %"}, "text": "on"}
    write_yaml(tmp_path / "a.yaml", data)
    again = read_yaml(tmp_path / "a.yaml")
    assert again == data
    assert list(again) == ["z", "a", "text"]
    assert "±5 %" in (tmp_path / "a.yaml").read_text(encoding="utf-8")


def test_json_is_yaml(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": [1, 2], "b": "x"}')
    assert read_yaml(tmp_path / "a.json") == {"a": [1, 2], "b": "x"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1", "is not valid YAML.*line 1"),
        (b"a: 1\nb: {", "is not valid YAML.*line 2"),
        (b"a: 1\n\tb: 2", "is not valid YAML.*line 2"),
        (b"- 1\n- 2", "must hold keys and values, .* not list"),
        (b"", "must hold keys and values"),
        (b"just text", "must hold keys and values, .* not str"),
        (b"\xff\xfe\x00broken", "cannot be read"),
        (b"a: !!python/object/apply:os.getcwd []", "is not valid YAML.*constructor"),
    ],
)
def test_malformed_yaml_names_the_file_and_the_place(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(InvalidFileError, match=f"bad.yaml {message}") as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, HwnasError)


def test_missing_files_and_folders_are_said_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match=r"there is no file .*nothing\.yaml"):
        read_yaml(tmp_path / "nothing.yaml")
    with pytest.raises(InvalidFileError, match="cannot be read"):
        read_yaml(tmp_path)


@pytest.mark.parametrize("text", ["date: 2020-13-45", "a: " + "[" * 5000], ids=["impossible date", "deep nesting"])
def test_yaml_that_python_cannot_build_is_refused_as_a_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(InvalidFileError, match=r"bad\.yaml"):
        read_yaml(tmp_path / "bad.yaml")
