"""What a measuring kit does on a board: measures the networks of its plan, piece after piece.

Needs the standard library, numpy and onnxruntime alone: measuring kits carry it to boards.
"""

from __future__ import annotations

import json
import platform
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.latency_tables.chunks import chunk_slowness, measure_chunk, off_speed
from hwnas.latency_tables.kit.journal import Journal
from hwnas.latency_tables.machine import machine_facts
from hwnas.latency_tables.runtimes.onnx_session import (
    SessionExecutable,
    SessionSettings,
    find_provider,
    session_facts,
    sums_are_exact,
)
from hwnas.latency_tables.steadiness import Steadiness
from hwnas.latency_tables.timing import Protocol
from hwnas.spaces.errors import InvalidFileError, NoisyMeasurementError, UnavailableError

PLAN, NETWORKS, SUM_MODEL = "plan.json", "networks.zip", "sum.onnx"
"""Files of a kit: what to measure, the networks, and the convolution that tells whether integer kernels are exact."""
SESSION = "session"
"""The journal's entry that says what was measured with."""

Report = Callable[[str], None]


class Board:
    """A kit unpacked on the board that it measures.

    Args:
        folder: Where the kit was unpacked.
        report: Called with what is being done.
        steadiness: Of this board; injectable for tests.
        clock: Seconds; injectable for tests.

    Raises:
        InvalidFileError: The kit is incomplete.
        UnavailableError: This board cannot run it.
    """

    def __init__(
        self,
        folder: Path,
        report: Report,
        *,
        steadiness: Steadiness | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.report = report
        self.clock = clock
        try:
            source = (folder / PLAN).read_bytes()
            self.plan: dict[str, Any] = json.loads(source)
            self.archive = zipfile.ZipFile(folder / NETWORKS)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise InvalidFileError(f"the kit in {folder} is incomplete; unpack it again ({error})") from error
        self.files = set(self.archive.namelist())
        self.pieces: list[dict[str, Any]] = self.plan["pieces"]
        self.protocol = Protocol(**self.plan["protocol"])
        wanted = self.plan["settings"]
        self.sessions = SessionSettings(find_provider(wanted["provider"]), wanted["threads"])
        report("checking integer kernels")
        exact = sums_are_exact(self.sessions, self.archive.read(SUM_MODEL))
        self.settings = {
            "provider": self.sessions.provider,
            "threads": wanted["threads"],
            "batch": wanted["batch"],
            "weights_8bit": "int8" if exact else "uint8",
        }
        self.facts = machine_facts() | session_facts(self.sessions.provider, str(self.settings["weights_8bit"]))
        self.facts["python"] = f"{platform.python_implementation()} {platform.python_version()}, numpy {np.__version__}"
        self.facts = {key: plain_text(value) for key, value in self.facts.items()}
        self.journal = Journal(folder / "journal")
        self._begin(sha256(source).hexdigest())
        self.steadiness = steadiness or Steadiness(min((p["probe_ms"] for p in self.finished().values()), default=None))

    def _begin(self, plan: str) -> None:
        own = {"plan": plan, "facts": self.facts, "settings": self.settings}
        known = self.journal.read(SESSION)
        if known is None:
            self.journal.write(SESSION, {**own, "started": time.time()})
        elif changed := [key for key, value in own.items() if known.get(key) != value]:
            raise UnavailableError(
                f"another {' and other '.join(changed)} than when this measurement began; figures of both cannot be "
                f"mixed. To begin anew, remove the folder {self.journal.folder}"
            )

    # ---- latency --------------------------------------------------------------------------------------------------

    def measure(self, limit_s: float) -> None:
        """Measures the pieces that are not finished, until ``limit_s`` seconds were spent in all sessions.

        Beyond the limit goes what cannot be left out: the first piece, the held-out networks, and the plan's least
        number of networks. Pieces whose figures do not repeat are tried again at the end, and those measured at another
        speed of the board than most are measured again, as long as there is time.

        Raises:
            NoisyMeasurementError: The board is too busy for a figure of the first piece to repeat.
        """
        anchors: list[SessionExecutable] = []
        for again in (False, True):
            waiting = [i for i in range(len(self.pieces)) if i not in self.finished()]
            for position, index in enumerate(waiting):
                late = self.spent_s() >= limit_s
                if late and not self._needed(index):
                    continue
                anchors = anchors or [self.prepare(name) for name in self.plan["anchors"]]
                left = "" if late else self._time_left(waiting[position:], limit_s)
                retry = " again" if again else ""
                self.report(f"measuring piece {index + 1} of {len(self.pieces)}{retry}{left}")
                self._measure_piece(index, anchors)
        for index in self._off_speed():
            if self.spent_s() < limit_s:
                self.report(f"measuring piece {index + 1} again: it was measured at another speed of this board")
                self._measure_piece(index, anchors or [self.prepare(name) for name in self.plan["anchors"]], again=True)

    def _needed(self, index: int) -> bool:
        fits = sum(len(self.pieces[i]["networks"]) for i in self.finished() if self.pieces[i]["role"] == "fit")
        return index == 0 or self.pieces[index]["role"] == "check" or fits < self.plan["min_networks"]

    def _measure_piece(self, index: int, anchors: Sequence[SessionExecutable], again: bool = False) -> None:
        start = self.clock()
        names = self.pieces[index]["networks"]
        known = self.journal.read(_piece(index)) or {}
        executables = [self.prepare(name) for name in names]
        entry: dict[str, Any]
        try:
            chunk = measure_chunk(
                [e.run for e in anchors],
                [e.run for e in executables],
                self.protocol,
                names=[f"network {name}" for name in (*self.plan["anchors"], *names)],
                steadiness=self.steadiness,
            )
            entry = asdict(chunk)
            if index == 0:
                self.report("timing operators")
                entry["operators"] = [self._operator_times(e) for e in executables]
        except NoisyMeasurementError as error:
            self.report(f"piece {index + 1} is refused: {error}")
            if index == 0 and not again:
                raise
            entry = known if again else {"refused": str(error)}
        entry["seconds"] = self.clock() - start + known.get("seconds", 0.0)
        entry["repeated"] = again
        self.journal.write(_piece(index), entry)

    def _operator_times(self, executable: SessionExecutable) -> dict[str, Any]:
        try:
            times = executable.operator_times(self.plan["profiled_runs"])
        except Exception as error:  # of whatever kind a provider's profiler raises: there are latencies without it
            self.report(f"this provider's operators cannot be timed one by one: {error}")
            return {}
        return {
            plain_text(name): {"ms": t.ms, "nodes": t.nodes, "kernels": [plain_text(k) for k in t.kernels]}
            for name, t in times.items()
        }

    def _off_speed(self) -> list[int]:
        """Finished pieces that were measured at another speed than most, and only once."""
        done = self.finished()
        if not done:
            return []
        off = off_speed(chunk_slowness([p["anchors_ms"] for p in done.values()]))
        return [i for (i, piece), slow in zip(done.items(), off.tolist()) if slow and not piece["repeated"]]  # noqa: B905

    # ---- networks and the journal ---------------------------------------------------------------------------------

    def prepare(self, name: str) -> SessionExecutable:
        """A network in a session, its 8-bit weights stored so that integer kernels are exact.

        Raises:
            UnavailableError: ONNX Runtime cannot run it here.
        """
        other = f"{name}.{self.settings['weights_8bit']}.onnx"
        model = self.archive.read(other if other in self.files else f"{name}.onnx")
        try:
            return SessionExecutable(self.sessions, model, batch=self.plan["settings"]["batch"])
        except UnavailableError:
            raise
        except Exception as error:  # ONNX Runtime raises exceptions of its own
            raise UnavailableError(f"this board's ONNX Runtime cannot run network {name}: {error}") from error

    def finished(self) -> dict[int, Mapping[str, Any]]:
        """The measured pieces by index; those refused are not among them."""
        entries = {i: self.journal.read(_piece(i)) for i in range(len(self.pieces))}
        return {i: entry for i, entry in entries.items() if entry and "refused" not in entry}

    def refused(self) -> dict[int, str]:
        """Why pieces were refused, by index."""
        entries = {i: self.journal.read(_piece(i)) for i in range(len(self.pieces))}
        return {i: entry["refused"] for i, entry in entries.items() if entry and "refused" in entry}

    def spent_s(self) -> float:
        """Seconds spent on all pieces, in all sessions."""
        entries = [self.journal.read(_piece(i)) for i in range(len(self.pieces))]
        return float(sum(entry["seconds"] for entry in entries if entry))

    def _time_left(self, waiting: Sequence[int], limit_s: float) -> str:
        done = self.finished()
        if not done:
            return f", {self.plan['estimate']}"
        count = sum(len(self.pieces[i]["networks"]) + len(self.plan["anchors"]) for i in done)
        ahead = sum(len(self.pieces[i]["networks"]) + len(self.plan["anchors"]) for i in waiting)
        seconds = min(self.spent_s() / count * ahead, limit_s - self.spent_s())
        return f", {in_words(seconds)} left"


def plain_text(text: str) -> str:
    """One line of at most 200 characters, none of which a terminal would take for a command."""
    return "".join(c if c.isprintable() and c not in "[]" else "?" for c in text)[:200] or "?"


def in_words(seconds: float) -> str:
    """A time as people say it."""
    return f"about {seconds / 60:.0f} min" if seconds >= 90 else f"about {max(1.0, seconds):.0f} s"


def _piece(index: int) -> str:
    return f"piece-{index:03}"
