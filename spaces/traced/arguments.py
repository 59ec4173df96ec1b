"""Arguments of ATen operations, wherever they are given."""

from __future__ import annotations

from typing import Any

from torch import fx


def arguments(step: fx.Node, *defaults: tuple[str, Any]) -> list[Any]:
    """Of a step, by position or keyword."""
    return [
        step.args[i] if i < len(step.args) else step.kwargs.get(name, default)
        for i, (name, default) in enumerate(defaults)
    ]


def one(value: Any) -> int | None:
    """The number that a list repeats, or None where it has several."""
    numbers = set(value) if isinstance(value, list | tuple) else {value}
    return int(numbers.pop()) if len(numbers) == 1 else None
