"""The journal of a registration: what it takes up of a folder, and what not; chunks are made up."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from hwnas.latency_tables.chunks import Chunk
from hwnas.latency_tables.journal import BEGINNING, Asked, Journal
from hwnas.latency_tables.runtimes import OperatorTime
from hwnas.latency_tables.timing import Timing
from hwnas.spaces.errors import NoisyMeasurementError, UnavailableError

CONDITIONS = {"seed": 0, "threads": 1, "burst_s": 0.003}
SAID = [{"head": OperatorTime(0.1 / 3, 2, ("Conv", "Relu")), "stem": OperatorTime(0.0, 0, ())}, {}]
ALL = range(4)


def asked(index: int) -> Asked:
    """Two networks to learn from, and one that is held out."""
    networks = tuple(f"{10 * index + i:016x}" for i in range(3))
    return Asked(anchors=("a" * 16, "b" * 16), networks=networks, roles=("fit", "fit", "check"))


def chunk(index: int) -> Chunk:
    timings = tuple(Timing((index + 1) / 3 + i, 10.0 / 3 + i, 0.01 / 3, 48) for i in range(3))
    return Chunk(timings, (0.7 / 3, 1.0), 0.1 + index)


def journal(folder: Path, **conditions: Any) -> Journal:
    """Every look at its clock takes a second."""
    return Journal(folder, CONDITIONS | conditions, clock=map(float, count()).__next__)


def measure(folder: Path, indexes: Iterable[int], refused: tuple[int, ...] = ()) -> None:
    own = journal(folder)
    for i in indexes:
        own.add(asked(i), None if i in refused else chunk(i))
        if i not in refused:
            own.add_operators(SAID)


def known(folder: Path) -> list[int]:
    """Which chunks a journal gives back, in their order."""
    own = journal(folder)
    found = []
    while left := [i for i in ALL if own.knows(asked(i))]:
        found += left
        assert own.replay(asked(left[0])) == chunk(left[0])
        assert own.replay_operators() == tuple(SAID)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "device" / "unfinished" / "a space"


def test_all_figures_come_back_exactly(folder: Path) -> None:
    measure(folder, ALL)
    assert known(folder) == list(ALL)


def test_without_a_folder_nothing_is_kept_and_nothing_known() -> None:
    own = Journal()
    assert own.replay(asked(0)) is None
    own.add(asked(0), chunk(0))
    assert own.replay_operators() is None
    own.add_operators(SAID)
    assert not own.knows(asked(0))
    own.remove()


def test_what_is_found_is_said_and_its_time_counts(folder: Path) -> None:
    assert journal(folder).found == ""
    measure(folder, ALL)  # the start, and two looks a chunk
    own = journal(folder)
    assert own.found == f"going on with 12 networks measured before (8 s); to begin anew, remove {folder}"
    assert own.earlier == 8
    assert own.spent_s == 9.0


def test_operators_that_were_not_timed_are_timed_later(folder: Path) -> None:
    measure(folder, [0])
    own = journal(folder)
    own.replay(asked(0))
    own.add(asked(1), chunk(1))
    again = journal(folder)
    again.replay(asked(0))
    again.replay(asked(1))
    assert again.replay_operators() is None
    again.add_operators(SAID)
    assert known(folder) == [0, 1]


def test_refusals_count_where_something_was_measured_after_them(folder: Path) -> None:
    measure(folder, ALL, refused=(1, 3))
    own = journal(folder)
    assert own.replay(asked(0)) == chunk(0)
    with pytest.raises(NoisyMeasurementError, match="did not repeat when they were measured before"):
        own.replay(asked(1))
    assert own.replay(asked(2)) == chunk(2)
    assert own.replay(asked(3)) is None
    assert own.found.startswith("going on with 6 networks")
    assert own.earlier == 4


def test_a_refusal_alone_at_the_end_is_not_final(folder: Path) -> None:
    measure(folder, ALL, refused=(1,))
    (folder / "chunk-0002.json").unlink()
    own = journal(folder)
    assert own.replay(asked(0)) == chunk(0)
    assert own.replay(asked(1)) is None


def test_where_it_goes_on_with_other_networks_the_rest_is_dropped(folder: Path) -> None:
    measure(folder, ALL)
    own = journal(folder)
    own.replay(asked(0))
    assert own.replay(asked(2)) is None
    assert known(folder) == [0]
    own.add(asked(2), chunk(2))
    assert len(list(folder.glob("chunk-*"))) == 2
    own.add_operators(SAID)
    assert known(folder) == [0, 2]


def test_nothing_else_is_removed_with_it(folder: Path) -> None:
    measure(folder, ALL)
    other = folder.with_name("another space")
    measure(other, ALL)
    journal(folder).remove()
    assert not folder.exists()
    assert known(other) == list(ALL)
    journal(other).remove()
    assert list(folder.parent.parent.iterdir()) == []


def test_other_conditions_are_refused_and_nothing_is_lost(folder: Path) -> None:
    measure(folder, ALL)
    with pytest.raises(UnavailableError) as caught:
        journal(folder, threads="2\x1b", batch=8)
    assert str(caught.value) == (
        "a registration that was begun with threads 1, batch unknown is unfinished, and its figures cannot be mixed "
        f"with those of threads 2?, batch 8. Finish it as it was begun, or remove the folder {folder} to begin anew"
    )
    assert known(folder) == list(ALL)


def changed(entry: Any, *place: Any, to: Any) -> bytes:
    *path, last = place
    inner = entry
    for key in path:
        inner = inner[key]
    inner[last] = to
    return json.dumps(entry).encode()


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "torn": lambda data: data[: len(data) // 2],
    "no text": lambda data: b"\xff\xfe" + data,
    "nested": lambda _: b"[" * 100_000,
    "a list": lambda _: b"[]",
    "NaN": lambda data: changed(json.loads(data), "chunk", "timings", 1, "p50_ms", to=float("nan")),
    "infinite": lambda data: changed(json.loads(data), "chunk", "anchors_ms", 1, to=float("inf")),
    "zero": lambda data: changed(json.loads(data), "chunk", "timings", 1, "p90_ms", to=0.0),
    "negative": lambda data: changed(json.loads(data), "chunk", "timings", 0, "spread", to=-0.1),
    "no run": lambda data: changed(json.loads(data), "chunk", "timings", 0, "runs", to=0),
    "no probe": lambda data: changed(json.loads(data), "chunk", "probe_ms", to=0.0),
    "no time": lambda data: changed(json.loads(data), "spent_s", to=float("nan")),
    "text": lambda data: changed(json.loads(data), "chunk", "timings", 0, "p50_ms", to="fast"),
    "too few": lambda data: changed(json.loads(data), "chunk", "timings", to=[]),
    "too few anchors": lambda data: changed(json.loads(data), "chunk", "anchors_ms", to=[1.0]),
    "too few roles": lambda data: changed(json.loads(data), "asked", "roles", to=["fit"]),
    "no role": lambda data: changed(json.loads(data), "asked", "roles", 0, to="fat"),
    "too few operators": lambda data: changed(json.loads(data), "operators", to=[{}]),
    "negative operator": lambda data: changed(json.loads(data), "operators", 0, "head", "ms", to=-1.0),
    "more": lambda data: changed(json.loads(data), "more", to=1),
    "other networks": lambda data: changed(json.loads(data), "asked", "networks", 0, to="0" * 16),
    "other roles": lambda data: changed(json.loads(data), "asked", "roles", to=["check", "fit", "fit"]),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_and_what_follows_it_is_not_used(damage: str, folder: Path) -> None:
    measure(folder, ALL)
    path = folder / "chunk-0001.json"
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    assert known(folder) == [0]
    own = journal(folder)
    own.replay(asked(0))
    assert own.replay(asked(1)) is None
    assert [p.name for p in sorted(folder.iterdir())] == [BEGINNING, "chunk-0000.json"]
    own.add(asked(1), chunk(1))
    own.add_operators(SAID)
    assert known(folder) == [0, 1]


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": 2, "version": "0", "conditions": {}}', None])
def test_where_the_beginning_cannot_be_read_nothing_is_used(content: bytes | None, folder: Path) -> None:
    measure(folder, ALL)
    path = folder / BEGINNING
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    own = journal(folder)
    assert own.found == "beginning anew: what was measured before cannot be read"
    assert not own.knows(asked(0))
    measure(folder, [2])
    assert known(folder) == [2]
