"""The measuring windows of a device: which networks ran in them, and what becomes of the figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from hwnas.latency_tables.energy.windows import Energy, EnergyProtocol, Window, energies, spread_over
from hwnas.latency_tables.table import LatencyTable, NetworkRow
from hwnas.spaces.errors import InvalidFileError, UnavailableError
from hwnas.spaces.files import write_text

FILE = "windows.json"


class Session(BaseModel):
    """Windows measured in one go.

    Attributes:
        networks: Space key and digest of each network, which the windows' items count.
        windows: In the order of time.
        protocol: How they were measured.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="after")
    def _possible(self) -> Session:
        if any(not -1 <= w.item < len(self.networks) for w in self.windows):
            raise ValueError("windows of networks that are not named")
        for w in self.windows:
            joules = 0.0 if w.joules is None else w.joules
            if not (w.runs > 0 and np.isfinite([w.start_s, w.end_s, joules]).all() and w.start_s < w.end_s):
                raise ValueError(f"an impossible window: {w}")
        if not self.protocol.max_spread > 0:
            raise ValueError(f"max_spread must be positive, got {self.protocol.max_spread}")
        return self

    networks: tuple[tuple[str, str], ...]
    windows: tuple[Window, ...]
    protocol: EnergyProtocol

    def save(self, folder: Path) -> None:
        """Writes ``windows.json`` into a device's folder, whole or not at all."""
        write_text(folder / FILE, self.model_dump_json(indent=1))

    @classmethod
    def load(cls, folder: Path) -> Session:
        """The inverse of `save`; raises `InvalidFileError`."""
        path = folder / FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise InvalidFileError(f"there is no file {path}; measure energy first, with --meter log") from error
        except (OSError, ValidationError) as error:
            raise InvalidFileError(f"{path} does not hold measuring windows: {error}") from error


def networks_to_meter(table: LatencyTable, space: str, networks: int) -> list[NetworkRow]:
    """Which networks of a space (its key) to measure: evenly over their latencies, a quarter of them held out."""
    chosen: list[NetworkRow] = []
    for role, count in (("check", networks // 4), ("fit", networks - networks // 4)):
        own = [n for n in table.networks if (n.role, n.space) == (role, space)]
        chosen += [own[i] for i in spread_over([n.latency_ms_p50 for n in own], count)]
    return chosen


def table_with_energy(
    table: LatencyTable, networks: Sequence[tuple[str, str]], windows: Sequence[Window], protocol: EnergyProtocol
) -> tuple[LatencyTable, float]:
    """The table with the energy of those networks and of no others, and the idle power in watts that was subtracted.

    What an earlier session found is dropped: another meter sees another part of the device.

    Raises:
        NoisyMeasurementError: See `energies`.
        UnavailableError: The table lacks one of the networks: the device has been registered anew since.
    """
    if missing := set(networks) - {(n.space, n.digest) for n in table.networks}:
        raise UnavailableError(
            f"energy was measured of {len(missing)} networks that the device does not hold any more; measure it again"
        )
    found = energies(windows, len(networks), protocol)
    own = dict(zip(networks, found, strict=True))
    rows = tuple(_with_energy(n, own.get((n.space, n.digest))) for n in table.networks)
    return LatencyTable(table.operators, rows), found[0].idle_watts


def _with_energy(network: NetworkRow, energy: Energy | None) -> NetworkRow:
    if energy is None:
        return replace(network, energy_mj=None, energy_spread=None)
    return replace(network, energy_mj=energy.mj, energy_spread=energy.spread)
