"""Consoles whose tables are whole where no terminal cuts them."""

from __future__ import annotations

import sys

from rich.console import Console

WIDE = 200
"""Columns where the output is no terminal."""


def table_console(*, stderr: bool = False) -> Console:
    """A console as wide as its terminal, or wide enough."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else WIDE)
