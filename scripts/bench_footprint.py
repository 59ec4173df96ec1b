"""What a whole command takes: seconds, and the memory of all its processes at its peak."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

import psutil

from hwnas.spaces.errors import HwnasError

INTERVAL_S = 2.0
"""Between two looks at the memory."""


def footprint_figures(arguments: Sequence[str], interval_s: float = INTERVAL_S) -> dict[str, float]:
    """Runs ``hwnas`` with these arguments; what it says goes to the terminal's error output.

    Memory that processes share, as what workers read from a common store, is counted once (proportional set sizes),
    where the system tells; else resident memory is added up, and what is shared counts in each process.

    Raises:
        HwnasError: The command failed.
    """
    begun = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "hwnas.scripts.cli", *arguments], stdout=sys.stderr)
    peak, processes = 0, 0
    try:
        while process.poll() is None:
            memory = _memory(psutil.Process(process.pid))
            peak, processes = max(peak, sum(memory)), max(processes, len(memory))
            with suppress(subprocess.TimeoutExpired):
                process.wait(interval_s)
    finally:
        process.wait()  # an interruption reached it, too
    if process.returncode:
        raise HwnasError(f"hwnas {' '.join(arguments)} ended with {process.returncode}; it said why above")
    return {"seconds": round(time.monotonic() - begun, 1), "peak_memory_gib": peak / 2**30, "processes": processes}


def _memory(root: psutil.Process) -> list[int]:
    """Bytes of a process and of all that it began, directly or not."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                full = process.memory_full_info()
                found.append(getattr(full, "pss", full.rss))
    return found
