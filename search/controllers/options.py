"""Options of controllers, checked when one is made."""

from __future__ import annotations

import math

from hwnas.spaces.errors import InvalidOptionError

TINY = 1e-8
"""The least of a number that must be above 0."""


def check_whole(controller: str, least: int = 1, **options: object) -> None:
    """Raises `InvalidOptionError` where an option is not a whole number of at least ``least``."""
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InvalidOptionError(
                f"{name} of controller {controller!r} must be a whole number of at least {least}, got {value!r}"
            )


def check_number(controller: str, least: float, below: float = math.inf, **options: object) -> None:
    """Raises `InvalidOptionError` where an option is not a number from ``least`` on and below another."""
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < below:
            end = f" and below {below:g}" if below < math.inf else ""
            raise InvalidOptionError(
                f"{name} of controller {controller!r} must be a number of at least {least:g}{end}, got {value!r}"
            )
