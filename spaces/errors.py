"""The exceptions of every layer: one base, one class for each thing a caller may want to catch."""

from __future__ import annotations

import copyreg
import difflib
from collections.abc import Iterable
from typing import Any


class HwnasError(Exception):
    """Base of every error that hwnas raises on purpose. The message says what was wrong, where, and what to do."""


class UnknownNameError(HwnasError, KeyError):
    """A name (of a space, a device, a decision, a YAML key …) that does not exist."""

    def __init__(self, what: str, name: str, known: Iterable[str], hint: str = "") -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        message = f"unknown {what} {name!r}"
        message += f"; did you mean {near[0]!r}?" if near else ""
        if not near or len(names) <= 8:
            message += f" (known: {', '.join(names) if names else 'none'})"
        super().__init__(message + (f". {hint}" if hint else ""))

    def __reduce__(self) -> tuple[Any, ...]:  # a copy, in this process or another, has no names to compare with
        return copyreg.__newobj__, (type(self), *self.args)  # type: ignore[attr-defined]

    def __str__(self) -> str:
        return str(self.args[0])


class InvalidCandidateError(HwnasError, ValueError):
    """A candidate that does not belong to its space."""


class InvalidFileError(HwnasError, ValueError):
    """A file from outside (YAML, Parquet, image …) that cannot be used as it is."""


class InvalidSpaceError(HwnasError, ValueError):
    """A description of a space that makes no sense."""


class InvalidOptionError(HwnasError, ValueError):
    """A setting whose value makes no sense."""


class NoisyMeasurementError(HwnasError, RuntimeError):
    """A measurement that does not repeat, refused instead of recorded."""


class InfeasibleError(HwnasError, ValueError):
    """A target or constraint that no candidate of the space can meet."""


class UnavailableError(HwnasError, RuntimeError):
    """Something this machine or this device lacks: a runtime, an optional package, a meter."""


class DiskFullError(HwnasError, RuntimeError):
    """No room for a file that must be written."""


class DivergedError(HwnasError, ArithmeticError):
    """A training whose loss became NaN or infinite."""
