"""The measuring windows of a device: which networks ran in them, and what becomes of the figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from hwnas.latency_tables.energy.windows import EnergyProtocol, Window, energies, spread_over
from hwnas.latency_tables.table import LatencyTable, NetworkRow
from hwnas.spaces.errors import InvalidFileError
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
            session = cls.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise InvalidFileError(f"there is no file {path}; measure energy first, with --meter log") from error
        except (OSError, ValidationError) as error:
            raise InvalidFileError(f"{path} does not hold measuring windows: {error}") from error
        if any(not -1 <= w.item < len(session.networks) for w in session.windows):
            raise InvalidFileError(f"{path} has windows of networks that it does not name")
        return session


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
    """The table with the energy of those networks, and the idle power in watts that was subtracted.

    Raises:
        NoisyMeasurementError: See `energies`.
    """
    found = energies(windows, len(networks), protocol)
    own = dict(zip(networks, found, strict=True))
    rows = tuple(
        replace(n, energy_mj=e.mj, energy_spread=e.spread) if (e := own.get((n.space, n.digest))) else n
        for n in table.networks
    )
    return LatencyTable(table.operators, rows), found[0].idle_watts
