"""One search at a time in one run folder."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hwnas.spaces.errors import UnavailableError

LOCK = "lock"
UNSUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}
"""What file systems without locks answer: there the ledger alone notices a second search, at its first trial."""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a run folder; a process that dies, however it does, lets go of it.

    Raises:
        UnavailableError: Another search holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                file.seek(0)
                raise UnavailableError(
                    f"another search is running in {folder} ({file.read().strip()}); wait until it has ended, or give "
                    "another folder"
                ) from error
        with suppress(OSError):  # of a full disk: who it is only helps
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        yield
