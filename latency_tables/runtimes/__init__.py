"""The runtimes that can be measured, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hwnas.latency_tables.runtimes.base import Executable, OperatorTime, Runtime
from hwnas.spaces.errors import UnknownNameError


def _onnxruntime(**settings: Any) -> Runtime:
    from hwnas.latency_tables.runtimes.onnxruntime import OnnxRuntime

    return OnnxRuntime(**settings)


def _torch(**settings: Any) -> Runtime:
    from hwnas.latency_tables.runtimes.torch import Torch

    return Torch(**settings)


RUNTIMES: dict[str, Callable[..., Runtime]] = {"onnxruntime": _onnxruntime, "torch": _torch}


def make_runtime(name: str, settings: Mapping[str, Any] | None = None) -> Runtime:
    """A runtime by name; raises `UnknownNameError`, or `UnavailableError` where it is not installed."""
    if name not in RUNTIMES:
        raise UnknownNameError("runtime", name, RUNTIMES)
    return RUNTIMES[name](**(settings or {}))


__all__ = ["RUNTIMES", "Executable", "OperatorTime", "Runtime", "make_runtime"]
