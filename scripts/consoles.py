"""What commands print: JSON, and tables that are whole where no terminal cuts them."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
from rich.console import Console

WIDE = 200
"""Columns where the output is no terminal."""


def table_console(*, stderr: bool = False) -> Console:
    """A console as wide as its terminal, or wide enough."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else WIDE)


def emit(figures: dict[str, Any]) -> None:
    """Prints figures as JSON."""
    click.echo(json.dumps(figures, indent=1))
