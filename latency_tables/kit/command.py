"""`python measure.py` on a board.

Needs the standard library, numpy and onnxruntime alone: measuring kits carry it to boards.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import zipfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from hwnas.latency_tables.energy.windows import EnergyProtocol
from hwnas.latency_tables.kit.board import PLAN, SESSION, Board
from hwnas.latency_tables.kit.journal import write_whole
from hwnas.latency_tables.kit.windows import board_windows, measure_board_windows
from hwnas.spaces.errors import HwnasError, UnavailableError

RESULTS, RESULTS_ZIP = "results.json", "results.zip"
"""What was measured: a file of the archive, and the archive."""


def run(folder: Path, arguments: Sequence[str]) -> int:
    """Measures with the kit in ``folder``, and writes ``results.zip`` beside it; the exit status."""
    options = _options(arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # boards may have terminals of another encoding
    try:
        board = Board(folder, _say)
        board.measure(60 * (board.plan["minutes"] if options.minutes is None else options.minutes))
        if options.energy:
            protocol = EnergyProtocol(rounds=options.rounds, window_s=options.window)
            measure_board_windows(board, options.networks, protocol)
        content = results(board)
        write_whole(folder / RESULTS_ZIP, pack_results((folder / PLAN).read_bytes(), content))
    except (HwnasError, OSError) as error:
        print(f"measure.py: {error}", file=sys.stderr)
        print("What is finished is kept: run measure.py again to go on.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped. What is finished is kept: run measure.py again to go on.", file=sys.stderr)
        return 130
    count = sum(len(p["timings"]) for p in content["pieces"])
    refused = f"; {len(content['refused'])} pieces were refused" if content["refused"] else ""
    _say(f"measured {count} networks in {content['seconds'] / 60:.1f} min{refused}")
    _say(f"now copy {folder / RESULTS_ZIP} back, and run: hwnas device import {RESULTS_ZIP}")
    return 0


def results(board: Board) -> dict[str, Any]:
    """What was measured on a board, as plain data.

    Raises:
        UnavailableError: Too few networks.
    """
    done, refused = board.finished(), board.refused()
    fits = sum(len(piece["timings"]) for i, piece in done.items() if board.pieces[i]["role"] == "fit")
    if fits < board.plan["min_networks"] or all(board.pieces[i]["role"] != "check" for i in done):
        reasons = "".join(f"; piece {i + 1}: {reason}" for i, reason in refused.items())
        raise UnavailableError(
            f"too few networks could be measured: {fits} to learn from (needed: {board.plan['min_networks']}) and "
            f"{sum(len(p['timings']) for i, p in done.items() if board.pieces[i]['role'] == 'check')} held out{reasons}"
        )
    session = board.journal.read(SESSION) or {}
    kept = ("timings", "anchors_ms", "probe_ms", "operators")
    return {
        "format": 1,
        **{key: session[key] for key in ("plan", "facts", "settings", "started")},
        "finished": time.time(),
        "seconds": board.spent_s(),
        "pieces": [{"index": i, **{k: piece[k] for k in kept if k in piece}} for i, piece in done.items()],
        "refused": [{"index": i, "reason": reason} for i, reason in refused.items()],
        "energy": board_windows(board),
    }


def pack_results(plan: bytes, content: dict[str, Any]) -> bytes:
    """``results.zip``: the kit's plan and what was measured, as JSON."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(PLAN, plan)
        archive.writestr(RESULTS, json.dumps(content, allow_nan=False))
    return buffer.getvalue()


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="measure.py",
        description="Measures this board. Ctrl-C keeps what is finished; run it again to go on. Close other programs.",
    )
    parser.add_argument("--minutes", type=float, help="time to spend in all; the kit's default is in README.txt")
    parser.add_argument("--energy", action="store_true", help="measuring windows too, for the log of a power meter")
    parser.add_argument("--window", type=float, default=1.0, help="least seconds of a window (default: 1)")
    parser.add_argument("--rounds", type=int, default=3, help="windows of each network (default: 3)")
    parser.add_argument("--networks", type=int, default=64, help="networks that run in windows (default: 64)")
    options = parser.parse_args(arguments)
    if not 1 <= options.window <= 600 or not 2 <= options.rounds <= 50 or not 27 <= options.networks <= 2000:
        parser.error("--window must be from 1 to 600, --rounds from 2 to 50, --networks from 27 to 2000")
    return options


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)
