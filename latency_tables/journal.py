"""The journal of a registration: what is measured survives Ctrl-C, a killed process, and a loss of power."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from hwnas.latency_tables.chunks import Chunk
from hwnas.latency_tables.kit.journal import write_whole
from hwnas.latency_tables.runtimes import OperatorTime
from hwnas.latency_tables.table import Role
from hwnas.spaces.errors import NoisyMeasurementError, UnavailableError

BEGINNING = "beginning.json"
"""The file that says what is measured, and with what; each chunk has another."""
TINY = 1e-9
"""No time in milliseconds is shorter."""


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


D = TypeVar("D", bound=_Document)


class _Beginning(_Document):
    """``conditions``: all that must not change while it is measured, as text by name."""

    format: Literal[1] = 1
    version: str
    conditions: dict[str, str]


class Asked(_Document):
    """Which networks make a chunk, by their digests, and what each is for."""

    anchors: tuple[str, ...]
    networks: tuple[str, ...]
    roles: tuple[Role, ...]


class _Entry(_Document):
    """What was measured of a chunk: nothing where its figures did not repeat.

    ``operators``: of its networks to learn from, what the runtime's profiler said, where it was asked. ``spent_s``:
    seconds since the registration began, without those between its sessions.
    """

    asked: Asked
    chunk: Chunk | None
    operators: tuple[dict[str, OperatorTime], ...] | None = None
    spent_s: float

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        asked, counts = self.asked, [(len(self.asked.roles), len(self.asked.networks))]
        if self.operators is not None:
            counts.append((len(self.operators), asked.roles.count("fit")))
        if self.chunk is not None:
            counts.append((len(self.chunk.timings), len(asked.networks)))
            counts.append((len(self.chunk.anchors_ms), len(asked.anchors)))
        if any(own != wanted for own, wanted in counts):
            raise ValueError("figures are missing")
        if any(figure < least or not isfinite(figure) for figure, least in self._figures()):
            raise ValueError("a figure is impossible")
        return self

    def _figures(self) -> Iterator[tuple[float, float]]:
        """Each with the least that it can be."""
        yield self.spent_s, 0.0
        for times in self.operators or ():
            yield from ((figure, 0.0) for t in times.values() for figure in (t.ms, t.nodes))
        if self.chunk is not None:
            yield from ((ms, TINY) for ms in (*self.chunk.anchors_ms, self.chunk.probe_ms))
            for timing in self.chunk.timings:
                yield from ((timing.p50_ms, TINY), (timing.p90_ms, TINY), (timing.spread, 0.0), (timing.runs, 1.0))


class Journal:
    """Chunks in the order in which they are measured: first those of earlier sessions, which are not measured again.

    Args:
        folder: Where they are kept; None to keep nothing.
        conditions: All that figures depend on, so that those of other conditions are not mixed with them.
        clock: Seconds; injectable for tests.

    Attributes:
        found: What earlier sessions left, in words; empty where they left nothing.
        earlier: Networks to learn from that they measured.

    Raises:
        UnavailableError: Under other conditions a registration is unfinished in the folder.
    """

    def __init__(
        self,
        folder: Path | None = None,
        conditions: Mapping[str, object] | None = None,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.folder = folder
        self.found, self.earlier = "", 0
        self._own = _Beginning(
            version=version("hwnas"), conditions={name: str(value) for name, value in (conditions or {}).items()}
        )
        self._entries: list[_Entry] = []
        if folder is not None and folder.exists():
            self._take_up(folder)
        self._replayed = 0
        self._kept = len(self._entries)
        self._clock = clock
        self._start = clock() - (self._entries[-1].spent_s if self._entries else 0.0)

    @property
    def spent_s(self) -> float:
        """Seconds since the registration began, without those between its sessions."""
        return self._clock() - self._start

    def knows(self, asked: Asked) -> bool:
        """Whether an earlier session measured this chunk next, or tried to."""
        return self._replayed < len(self._entries) and self._entries[self._replayed].asked == asked

    def replay(self, asked: Asked) -> Chunk | None:
        """The chunk as an earlier session measured it; None where it is to be measured now.

        Where an earlier session went on with another chunk, the rest of it is dropped.

        Raises:
            NoisyMeasurementError: It did not repeat then, and was left out.
        """
        if not self.knows(asked):
            del self._entries[self._replayed :]
            self._kept = min(self._kept, self._replayed)
            self._trim()
            return None
        chunk = self._entries[self._replayed].chunk
        self._replayed += 1
        if chunk is None:
            raise NoisyMeasurementError("these networks did not repeat when they were measured before")
        return chunk

    def add(self, asked: Asked, chunk: Chunk | None) -> None:
        """Keeps a chunk measured now; None for one that did not repeat.

        The latter is kept only when another is measured after it: a session that ends with it leaves it to the next.
        """
        self._entries.append(_Entry.model_construct(asked=asked, chunk=chunk, operators=None, spent_s=self.spent_s))
        self._replayed += 1
        if chunk is not None:
            self._keep()

    def replay_operators(self) -> Sequence[Mapping[str, OperatorTime]] | None:
        """What the profiler said of the networks of the latest chunk; None where it is to be asked now."""
        return self._entries[self._replayed - 1].operators

    def add_operators(self, said: Sequence[Mapping[str, OperatorTime]]) -> None:
        """Keeps what the profiler said of the networks of the latest chunk."""
        latest = self._replayed - 1
        update = {"operators": tuple(map(dict, said)), "spent_s": self.spent_s}
        self._entries[latest] = self._entries[latest].model_copy(update=update)
        self._kept = min(self._kept, latest)
        self._keep()

    def remove(self) -> None:
        """Removes what is kept: it has become a device."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            if self.folder.parent.exists() and not any(self.folder.parent.iterdir()):
                self.folder.parent.rmdir()

    def _take_up(self, folder: Path) -> None:
        before = _read(_Beginning, folder / BEGINNING)
        if before is None or before.version != self._own.version:
            fault = "cannot be read" if before is None else f"is of version {_printable(before.version)} of hwnas"
            self.found = f"beginning anew: what was measured before {fault}"
            shutil.rmtree(folder)
            return
        if before.conditions != self._own.conditions:
            then, now = before.conditions, self._own.conditions
            changed = [name for name in dict.fromkeys((*then, *now)) if then.get(name) != now.get(name)]
            own, other = (
                _printable(", ".join(f"{name} {of.get(name, 'unknown')}" for name in changed)) for of in (now, then)
            )
            raise UnavailableError(
                f"a registration that was begun with {other} is unfinished, and its figures cannot be mixed with those "
                f"of {own}. Finish it as it was begun, or remove the folder {folder} to begin anew"
            )
        while entry := _read(_Entry, _path(folder, len(self._entries))):
            self._entries.append(entry)
        while self._entries and self._entries[-1].chunk is None:
            self._entries.pop()
        self._trim()
        if self._entries:
            roles = [role for entry in self._entries if entry.chunk for role in entry.asked.roles]
            self.earlier = roles.count("fit")
            spent = f"{self._entries[-1].spent_s:.0f} s"
            self.found = (
                f"going on with {len(roles)} networks measured before ({spent}); to begin anew, remove {folder}"
            )

    def _keep(self) -> None:
        """Writes the entries that are not yet in the folder, each whole or not at all."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._kept == 0:
            write_whole(self.folder / BEGINNING, self._own.model_dump_json().encode())
        for index in range(self._kept, len(self._entries)):
            write_whole(_path(self.folder, index), self._entries[index].model_dump_json().encode())
        self._kept = len(self._entries)

    def _trim(self) -> None:
        """Removes the files of entries that are none any more."""
        if self.folder is not None:
            for path in sorted(self.folder.glob("chunk-*.json"))[len(self._entries) :]:
                path.unlink()


def _path(folder: Path, index: int) -> Path:
    return folder / f"chunk-{index:04}.json"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _read(kind: type[D], path: Path) -> D | None:
    """A file as it was written; None where it is not there, or not that."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
