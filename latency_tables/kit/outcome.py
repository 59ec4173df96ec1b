"""What came back from a board: checked against the project's own space, and turned into records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from hwnas.latency_tables.chunks import Chunk
from hwnas.latency_tables.kit.archive import read_files
from hwnas.latency_tables.kit.board import PLAN
from hwnas.latency_tables.kit.command import RESULTS
from hwnas.latency_tables.kit.documents import PieceEntry, PlanFile, ResultsFile, parse_document
from hwnas.latency_tables.kit.pack import FOLDER
from hwnas.latency_tables.plan import anchors, precision_pairs, uniform_precision
from hwnas.latency_tables.records import Profiled, Records
from hwnas.latency_tables.runtimes import OperatorTime, make_runtime
from hwnas.latency_tables.table import LatencyTable
from hwnas.latency_tables.timing import Timing
from hwnas.spaces.candidate import Candidate
from hwnas.spaces.catalog import space_from_spec
from hwnas.spaces.errors import HwnasError, InvalidFileError
from hwnas.spaces.space import Rows, Space


@dataclass(frozen=True, slots=True)
class Outcome:
    """Results that belong to their plan, and a plan that belongs to its space.

    Attributes:
        space: Of the plan.
        plan, results: As read.
        rows: Of each network by its digest, shape (decisions,).
    """

    space: Space
    plan: PlanFile
    results: ResultsFile
    rows: Mapping[str, Rows]

    def profiled(self) -> Profiled:
        """The same as a registration finds out."""
        records = Records(self.space, LatencyTable())
        times: list[dict[str, OperatorTime]] = []
        for piece in self.results.pieces:
            planned = self.plan.pieces[piece.index]
            timings = tuple(Timing(t.p50_ms, t.p90_ms, t.spread, t.runs) for t in piece.timings)
            rows = np.array([self.rows[digest] for digest in planned.networks])
            chunk = Chunk(timings, tuple(piece.anchors_ms), piece.probe_ms)
            records.add(rows, [planned.role] * len(rows), chunk)
            for row, timing, own in zip(rows, timings, piece.operators, strict=False):
                times.append({name: OperatorTime(o.ms, o.nodes, tuple(o.kernels)) for name, o in own.items()})
                records.add_operators(row, timing, times[-1])
        # Kernels are named alike by every provider; the board's need not be installed here.
        return records.conclude(make_runtime("onnxruntime"), times, self.plan.min_networks)


def read_outcome(path: Path, kit: Path | None = None) -> Outcome:
    """Reads ``results.zip``, which may come from anywhere; nothing is written.

    Args:
        path: The archive that a board wrote.
        kit: The kit that was carried to it; without it, the plan within the results is taken.

    Raises:
        InvalidFileError: An archive that is damaged, or that holds anything else than results of the plan.
    """
    files = read_files(path, (PLAN, RESULTS))
    source = files[PLAN]
    if kit is not None:
        planned = f"{FOLDER}/{PLAN}"
        source = read_files(kit, (planned,), others=True)[planned]
    results = parse_document(ResultsFile, files[RESULTS], f"{RESULTS} in {path}")
    if results.plan != sha256(source).hexdigest():
        raise InvalidFileError(f"{path} was not measured with {kit or 'the plan that it holds'}")
    plan = parse_document(PlanFile, source, f"{PLAN} in {kit or path}")
    try:
        space = space_from_spec(plan.space.model_dump() | {"joint": list(plan.space.joint)})
    except HwnasError as error:
        raise InvalidFileError(f"the plan in {kit or path} is for a space that cannot be loaded: {error}") from error
    rows = _rows(plan, space, kit or path)
    _check_results(plan, results, path)
    return Outcome(space, plan, results, rows)


def _rows(plan: PlanFile, space: Space, path: Path) -> dict[str, Rows]:
    """The networks of the plan by digest, each of which is what its digest says."""
    rows: dict[str, Rows] = {}
    for digest, values in plan.candidates.items():
        try:
            row = space.encode(Candidate(values))
        except HwnasError as error:
            raise InvalidFileError(f"the plan in {path}: network {digest} is none of the space: {error}") from error
        if space.decode(row).digest != digest:
            raise InvalidFileError(f"the plan in {path}: network {digest} is not the one that it names")
        rows[digest] = row
    reference = [space.decode(uniform_precision(space, *pair)).digest for pair in precision_pairs(space)]
    if plan.pieces[0].role != "fit" or plan.pieces[0].networks != reference:
        raise InvalidFileError(
            f"the plan in {path} does not begin with the space's reference network in every precision; it may come "
            "from another version of hwnas: make a new kit"
        )
    if plan.anchors != [space.decode(row).digest for row in anchors(space)]:
        raise InvalidFileError(f"the plan in {path} has other anchors than the space; make a new kit")
    planned = [digest for piece in plan.pieces for digest in piece.networks]
    if len(set(planned)) != len(planned):
        raise InvalidFileError(f"the plan in {path} names a network twice")
    if set(planned) != set(rows):
        odd = min(set(planned) ^ set(rows))
        raise InvalidFileError(f"the plan in {path} does not say what network {odd} is, or when it is measured")
    return rows


def _check_results(plan: PlanFile, results: ResultsFile, path: Path) -> None:
    wanted, used = plan.settings, results.settings
    providers = {wanted.provider.lower(), f"{wanted.provider.lower()}executionprovider"}
    if used.provider.lower() not in providers or (used.threads, used.batch) != (wanted.threads, wanted.batch):
        raise InvalidFileError(f"{path} was measured with other settings than the plan's")
    indexes = [p.index for p in results.pieces]
    if indexes[0] != 0:
        raise InvalidFileError(f"{path} does not begin with the reference network")
    entries: list[PieceEntry] = [*results.pieces, *results.refused]
    for entry in entries:
        if entry.index >= len(plan.pieces):
            raise InvalidFileError(f"{path} has a piece {entry.index}, which the plan does not have")
    if len({entry.index for entry in entries}) != len(entries):
        raise InvalidFileError(f"{path} has a piece twice")
    for piece in results.pieces:
        networks = plan.pieces[piece.index].networks
        if len(piece.timings) != len(networks) or len(piece.anchors_ms) != len(plan.anchors):
            raise InvalidFileError(f"{path}: piece {piece.index} has another number of networks than the plan")
        if len(piece.operators) != (len(networks) if piece.index == 0 else 0):
            raise InvalidFileError(f"{path}: piece {piece.index} has the operators of other networks than the plan")
        if any(t.p90_ms < t.p50_ms for t in piece.timings):
            raise InvalidFileError(f"{path}: piece {piece.index} has a 90th percentile below the median")
    if results.energy is not None:
        _check_energy(results, {d for p in plan.pieces for d in p.networks}, path)


def _check_energy(results: ResultsFile, known: set[str], path: Path) -> None:
    assert results.energy is not None
    networks, windows = results.energy.networks, results.energy.windows
    if unknown := [d for d in networks if d not in known]:
        raise InvalidFileError(f"{path} has windows of the network {unknown[0]}, which the plan does not name")
    if len(set(networks)) != len(networks):
        raise InvalidFileError(f"{path} names a network twice in its windows")
    if any(w.item >= len(networks) for w in windows):
        raise InvalidFileError(f"{path} has windows of networks that it does not name")
    if any(not w.end_s > w.start_s for w in windows):
        raise InvalidFileError(f"{path} has windows that end before they begin")
