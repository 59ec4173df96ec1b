"""What a board does when it is slow, changes its speed, or cannot repeat a figure; timing is planted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from hwnas.latency_tables import chunks as chunks_module
from hwnas.latency_tables.energy.windows import EnergyProtocol, Window
from hwnas.latency_tables.kit import windows as windows_module
from hwnas.latency_tables.kit.board import Board, in_words, plain_text
from hwnas.latency_tables.kit.command import results, run
from hwnas.latency_tables.kit.journal import Journal
from hwnas.latency_tables.kit.windows import board_windows, measure_board_windows
from hwnas.latency_tables.steadiness import Steadiness
from hwnas.latency_tables.timing import Timing
from hwnas.spaces.errors import NoisyMeasurementError, UnavailableError

from .kits import unpack

HOUR = 3600.0


class Stub:
    """A network that is never loaded."""

    def __init__(self, *_: object, batch: int) -> None:
        pass

    def run(self) -> None:
        pass


class Planted:
    """A board on which every call of `measure` takes a minute, and networks take 7, 8, 9 … ms times a slowness.

    ``slowness`` gives that of each call, None for figures that do not repeat; 1 after the last.
    """

    def __init__(self, kit: Path, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "hwnas-kit"
        if not self.folder.exists():
            unpack(kit, folder)
        self.slowness: list[float | None] = []
        self.calls: list[int] = []
        self.said: list[str] = []
        self.now = 0.0
        patch.setattr(chunks_module, "measure", self._measure)
        patch.setattr("hwnas.latency_tables.kit.board.SessionExecutable", Stub)
        patch.setattr(Board, "_operator_times", lambda *_: {"stem": {"ms": 1.0, "nodes": 1, "kernels": ["Conv"]}})

    def _measure(
        self, items: Sequence[Callable[[], object]], *_: object, steadiness: Steadiness, **__: object
    ) -> list[Timing]:
        self.now += 60.0
        steadiness.settle(0.1)
        self.calls.append(len(items) - 6)
        factor = self.slowness.pop(0) if self.slowness else 1.0
        if factor is None:
            raise NoisyMeasurementError("it does not repeat")
        return [Timing(factor * (i + 1), factor * (i + 1), 0.0, 1) for i in range(len(items))]

    def board(self) -> Board:
        self.said.clear()
        self.calls.clear()
        return Board(self.folder, self.said.append, steadiness=Steadiness(0.1), clock=lambda: self.now)


@pytest.fixture
def planted(kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planted:
    return Planted(kit, tmp_path, monkeypatch)


def test_every_piece_is_measured_once_with_its_anchors(planted: Planted) -> None:
    board = planted.board()
    board.measure(HOUR)
    assert planted.calls == [12, 6, 6, 6]
    content = results(board)
    assert [[t["p50_ms"] for t in p["timings"]] for p in content["pieces"][1:]] == [[*range(7, 13)]] * 3
    assert list(content["pieces"][0]["anchors_ms"]) == [1, 2, 3, 4, 5, 6]
    assert content["seconds"] == 4 * 60
    assert planted.said == [
        "checking integer kernels",
        f"measuring piece 1 of 4, {board.plan['estimate']}",
        "timing operators",
        "measuring piece 2 of 4, about 2 min left",  # 60 s for 18 networks, 36 to come
        "measuring piece 3 of 4, about 2 min left",
        "measuring piece 4 of 4, about 51 s left",
    ]
    again = planted.board()
    again.measure(HOUR)
    assert planted.calls == []
    assert results(again)["pieces"] == content["pieces"]


def test_the_limit_ends_the_time_left(planted: Planted) -> None:
    board = planted.board()
    board.plan["min_networks"] = 12
    board.measure(130.0)
    assert planted.calls == [12, 6, 6], "the limit came during the third piece"
    assert planted.said[3:] == ["measuring piece 2 of 4, about 70 s left", "measuring piece 3 of 4, about 10 s left"]


def test_beyond_the_limit_only_what_is_needed_is_measured(planted: Planted) -> None:
    board = planted.board()
    board.plan["min_networks"] = 18
    board.measure(0.0)
    assert planted.calls == [12, 6, 6], "the held-out networks, and as many to learn from as needed"
    assert results(board)["seconds"] == 3 * 60
    more = planted.board()
    more.measure(HOUR)
    assert planted.calls == [6], "a longer limit goes on"


def test_a_piece_that_does_not_repeat_is_tried_again_at_the_end_and_else_refused_with_the_reason(
    planted: Planted,
) -> None:
    planted.slowness = [1.0, 1.0, None, None, None, 1.0, None, None, None]
    board = planted.board()
    board.plan["min_networks"] = 18
    board.measure(HOUR)
    assert planted.calls == [12, 6, 6, 6, 6, 6, 6, 6, 6], "three attempts each time"
    assert "piece 3 is refused: it does not repeat" in planted.said
    content = results(board)
    assert content["refused"] == [{"index": 2, "reason": "it does not repeat"}]
    assert [p["index"] for p in content["pieces"]] == [0, 1, 3]
    again = planted.board()
    again.measure(HOUR)
    assert planted.calls == [6], "a new session tries it once more"
    assert results(again)["refused"] == []


def test_too_few_networks_are_no_results(planted: Planted) -> None:
    planted.slowness = [1.0, 1.0] + [None] * 12
    board = planted.board()
    board.measure(HOUR)
    with pytest.raises(UnavailableError, match=r"12 to learn from \(needed: 24\) and 6 held out; piece 3: it does not"):
        results(board)


def test_without_the_reference_network_there_is_nothing_to_go_on(planted: Planted) -> None:
    planted.slowness = [None] * 3
    with pytest.raises(NoisyMeasurementError, match="it does not repeat"):
        planted.board().measure(HOUR)
    board = planted.board()
    board.measure(HOUR)
    assert planted.calls == [12, 6, 6, 6]


def test_a_piece_at_another_speed_is_measured_again_once(planted: Planted) -> None:
    planted.slowness = [1.0, 1.9, 1.0, 1.0, 1.8]
    board = planted.board()
    board.measure(HOUR)
    assert planted.calls == [12, 6, 6, 6, 6]
    assert planted.said[-1] == "measuring piece 2 again: it was measured at another speed of this board"
    assert board.finished()[1]["timings"][0]["p50_ms"] == pytest.approx(1.8 * 7)
    again = planted.board()
    again.measure(HOUR)
    assert planted.calls == [], "and no further time"


def test_where_measuring_again_fails_the_first_figures_stay(planted: Planted) -> None:
    planted.slowness = [1.0, 1.9, 1.0, 1.0, None, None, None]
    board = planted.board()
    board.measure(HOUR)
    assert board.finished()[1]["timings"][0]["p50_ms"] == pytest.approx(1.9 * 7)
    assert results(board)["seconds"] == 7 * 60


def test_figures_of_two_settings_are_never_mixed(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = planted.board().settings["weights_8bit"] == "int8"
    monkeypatch.setattr("hwnas.latency_tables.kit.board.sums_are_exact", lambda *_: not exact)
    with pytest.raises(UnavailableError, match=r"another facts and other settings .* remove the folder .*journal"):
        planted.board()


def test_8_bit_weights_are_stored_so_that_sums_are_exact(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    for exact, stored in ((True, "int8"), (False, "uint8")):
        monkeypatch.setattr("hwnas.latency_tables.kit.board.sums_are_exact", lambda *_, exact=exact: exact)
        board = planted.board()
        (planted.folder / "journal" / "session.json").unlink()
        assert board.settings["weights_8bit"] == stored
        inner = board.archive.read
        monkeypatch.setattr(board.archive, "read", lambda name, inner=inner: (read.append(name), inner(name))[1])
        both = next(f.split(".")[0] for f in board.files if f.endswith(f".{stored}.onnx"))
        single = next(f for f in sorted(board.files) if f.count(".") == 1 and f != "sum.onnx")
        board.prepare(both).run()
        board.prepare(single.split(".")[0]).run()
        assert read[-2:] == [f"{both}.{stored}.onnx", single]


def window_of(item: int) -> Window:
    return Window(item, 10.0, 12.0, 5)


def test_a_network_that_onnx_runtime_cannot_run_is_named(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("NOT_IMPLEMENTED : Cast")

    board = planted.board()
    monkeypatch.setattr("hwnas.latency_tables.kit.board.SessionExecutable", fail)
    with pytest.raises(UnavailableError, match=r"cannot run network [0-9a-f]{16}: NOT_IMPLEMENTED : Cast"):
        board.measure(HOUR)


def test_windows_are_kept_round_by_round(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    board = planted.board()
    with pytest.raises(UnavailableError, match="nothing is measured yet"):
        measure_board_windows(board, 12, EnergyProtocol())
    board.measure(HOUR)
    rounds: list[int] = []

    def measured(items: Sequence[object], meter: object, protocol: EnergyProtocol) -> list[Any]:
        if len(rounds) == 1:
            rounds.append(-1)
            raise KeyboardInterrupt
        rounds.append(len(items))
        assert (meter, protocol.rounds) == (None, 1)
        return [window_of(i) for i in range(-1, len(items))]

    monkeypatch.setattr(windows_module, "measure_windows", measured)
    protocol = EnergyProtocol(rounds=2, window_s=1.5)
    with pytest.raises(KeyboardInterrupt):
        measure_board_windows(board, 12, protocol)
    assert board_windows(board) is None
    measure_board_windows(planted.board(), 40, EnergyProtocol(rounds=9))
    assert rounds == [12, -1, 12], "a measurement that was begun goes on as it was"
    found = board_windows(board)
    assert found is not None
    assert found["protocol"]["window_s"] == 1.5
    assert len(found["windows"]) == 2 * 13
    held_out = set(board.pieces[1]["networks"])
    assert [name in held_out for name in found["networks"]] == [True] * 3 + [False] * 9
    assert results(board)["energy"] == found


def test_the_command_keeps_what_is_finished_when_it_fails(planted: Planted, capsys: pytest.CaptureFixture[str]) -> None:
    planted.slowness = [None] * 3
    assert run(planted.folder, []) == 2
    assert "measure.py: it does not repeat" in (said := capsys.readouterr()).err
    assert "run measure.py again to go on" in said.err
    assert run(planted.folder, ["--minutes", "60"]) == 0
    assert "measured 30 networks" in capsys.readouterr().out


def test_a_journal_keeps_whole_entries(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    assert journal.read("a") is None
    journal.write("a", {"x": 1})
    journal.write("a", {"x": 2})
    assert journal.read("a") == {"x": 2}
    for damaged in (b'{"x": ', b"[1]", b"\xff"):
        (tmp_path / "journal" / "a.json").write_bytes(damaged)
        assert journal.read("a") is None
    with pytest.raises(ValueError, match="JSON"):
        journal.write("b", {"x": float("nan")})
    assert journal.read("b") is None


def test_text_for_terminals_and_times_for_people() -> None:
    assert plain_text("Cortex-A72 × 4 (asimddp)") == "Cortex-A72 × 4 (asimddp)"
    assert plain_text("a\x1b[31m\u202eb\n") == "a??31m?b?"
    assert plain_text("") == "?"
    assert len(plain_text("x" * 999)) == 200
    assert [in_words(s) for s in (0.2, 45, 89, 90, 1200)] == [
        "about 1 s", "about 45 s", "about 89 s", "about 2 min", "about 20 min"
    ]  # fmt: skip
