"""Learning curves as TensorBoard shows them."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.summary import scalar


class Curves:
    """A folder ``trial-00000`` with one event file per evaluation; each step is in it when `add` returns.

    They are for people to look at. Where there is no room for them the search goes on: Ray Tune's own logger writes
    from a thread, and waits for it for ever after the disk was full.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[int, EventsWriter] = {}

    def add(self, number: int, step: int, accuracy: float, reward: float) -> None:
        """What a trial has come to after a step."""
        with suppress(OSError):
            if number not in self._open:
                folder = self.folder / f"trial-{number:05d}"
                folder.mkdir(parents=True, exist_ok=True)
                self._open[number] = EventsWriter(str(folder / "events"))
            writer = self._open[number]
            for name, value in (("accuracy", accuracy), ("reward", reward)):
                writer.write_event(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
            writer.flush()

    def close(self, number: int) -> None:
        """Nothing more will come of a trial."""
        with suppress(OSError):
            if writer := self._open.pop(number, None):
                writer.close()
