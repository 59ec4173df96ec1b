"""How a run ended, as a file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hwnas.search.export import Agreement
from hwnas.search.report.data import NetworkRow
from hwnas.spaces.errors import InvalidFileError
from hwnas.spaces.files import write_text


@dataclass(frozen=True, slots=True)
class Excess:
    """A bound that is not met, and what the network costs instead."""

    bound: float
    cost: float


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended: the chosen network and the reference, in that order, and the check of the exported file.

    Latencies, predicted ones too, are at the speed of the machine at the end: ``drift`` times those of its table.
    In the file, latencies that were not measured (NaN) are null, and energy that the device does not know is left out.
    ``exceeded`` are the bounds that the chosen network does not meet, by name of the cost.
    """

    networks: tuple[NetworkRow, ...]
    candidates: tuple[Mapping[str, Any], ...]
    agreement: Agreement
    seconds: dict[str, float] = field(default_factory=dict)
    drift: float = 1.0
    exceeded: dict[str, Excess] = field(default_factory=dict)

    @classmethod
    def from_json(cls, path: Path) -> RunResult:
        """From ``result.json``; raises `InvalidFileError`."""
        try:
            data = json.loads(path.read_text())
            networks = tuple(NetworkRow(**_with_nan(row)) for row in data["networks"])
            return cls(
                networks,
                tuple(data["candidates"]),
                Agreement(**data["agreement"]),
                data["seconds"],
                data["drift"],
                {name: Excess(**excess) for name, excess in data.get("exceeded", {}).items()},
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidFileError(f"{path} is not a run's result: {error!r}") from error

    @property
    def warnings(self) -> list[str]:
        """What the chosen network lacks, in words."""
        return [
            f"does not meet {name} ≤ {excess.bound:.6g}: {excess.cost:.6g}" for name, excess in self.exceeded.items()
        ]

    def save(self, path: Path) -> None:
        """The inverse of `from_json`."""
        data = asdict(self)
        data["networks"] = [_with_null(row) for row in data["networks"]]
        write_text(path, json.dumps(data, indent=1, allow_nan=False))


def _with_null(row: dict[str, Any]) -> dict[str, Any]:
    known = {key: value for key, value in row.items() if value is not None}
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in known.items()}


def _with_nan(row: dict[str, Any]) -> dict[str, Any]:
    return {key: math.nan if value is None else value for key, value in row.items()}
