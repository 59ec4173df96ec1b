"""Controllers as people write them on the command line, options and all."""

from __future__ import annotations

from typing import Any


def with_options(written: str) -> tuple[str, dict[str, Any]]:
    """The name and the options of a controller such as ``evolution:population=50:tournament=9``."""
    name, *rest = written.split(":")
    pairs = (pair.partition("=") for pair in rest)
    return name, {key: _number(text) for key, _, text in pairs}


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
