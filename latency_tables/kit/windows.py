"""Measuring windows on a board for the log of an external power meter; see `hwnas.latency_tables.energy.windows`.

Needs the standard library, numpy and onnxruntime alone: measuring kits carry it to boards.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from hwnas.latency_tables.energy.windows import EnergyProtocol, measure_windows, spread_over
from hwnas.latency_tables.kit.board import Board, in_words
from hwnas.spaces.errors import UnavailableError

ENERGY = "energy"
"""The journal's entry that says which networks run in the windows."""


def measure_board_windows(board: Board, networks: int, protocol: EnergyProtocol) -> None:
    """Runs some of the board's measured networks, a quarter of them held out, in windows of their own.

    Every round is an entry of the journal. A measurement that was begun goes on with its own networks and protocol.

    Raises:
        UnavailableError: No latencies were measured yet.
    """
    session = board.journal.read(ENERGY)
    if session is None:
        chosen = _choose(board, "check", networks // 4) + _choose(board, "fit", networks - networks // 4)
        if not chosen:
            raise UnavailableError("nothing is measured yet: run 'python measure.py' without --energy first")
        session = {"networks": chosen, "protocol": asdict(protocol)}
        board.journal.write(ENERGY, session)
    protocol = EnergyProtocol(**session["protocol"])
    one_round = EnergyProtocol(**{**session["protocol"], "rounds": 1})
    items = [board.prepare(name).run for name in session["networks"]]
    for turn in range(protocol.rounds):
        if board.journal.read(_round(turn)) is not None:
            continue
        left = (protocol.rounds - turn) * ((len(items) + 1) * protocol.window_s + protocol.settle_s)
        board.report(f"measuring windows, round {turn + 1} of {protocol.rounds}, {in_words(left)} left")
        windows = measure_windows(items, None, one_round)
        board.journal.write(_round(turn), {"windows": [asdict(w) for w in windows]})


def board_windows(board: Board) -> dict[str, Any] | None:
    """The windows of all rounds, as results hold them; None unless every round is finished."""
    session = board.journal.read(ENERGY)
    if session is None:
        return None
    rounds = [board.journal.read(_round(turn)) for turn in range(session["protocol"]["rounds"])]
    windows = [{k: w[k] for k in ("item", "start_s", "end_s", "runs")} for r in rounds if r for w in r["windows"]]
    return None if None in rounds else {**session, "windows": windows}


def _choose(board: Board, role: str, count: int) -> list[str]:
    measured = [
        (name, timing["p50_ms"])
        for index, piece in board.finished().items()
        if board.pieces[index]["role"] == role
        for name, timing in zip(board.pieces[index]["networks"], piece["timings"])  # noqa: B905
    ]
    return [measured[i][0] for i in spread_over([ms for _, ms in measured], count)]


def _round(turn: int) -> str:
    return f"{ENERGY}-{turn:02}"
