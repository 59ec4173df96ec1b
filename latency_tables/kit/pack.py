"""Packs a measuring kit: the networks to measure as ONNX files, the plan, and the programs that run on the board."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from hwnas.latency_tables.kit.board import NETWORKS, PLAN, SUM_MODEL, in_words
from hwnas.latency_tables.kit.budget import MOST_CHECKS, MOST_NETWORKS, PIECE, Budget, guess_s, network_s
from hwnas.latency_tables.plan import anchors, precision_pairs, sample_networks, uniform_precision
from hwnas.latency_tables.profiler import Progress, settle
from hwnas.latency_tables.runtimes.onnxruntime import sum_model
from hwnas.latency_tables.timing import Protocol
from hwnas.spaces.files import replacing
from hwnas.spaces.network import Network
from hwnas.spaces.onnx_graph import to_onnx
from hwnas.spaces.onnx_writer import Bytes8
from hwnas.spaces.operator import NETWORK_INPUT
from hwnas.spaces.space import Rows, Space
from hwnas.spaces.units import CallUnit, ProductUnit

FOLDER = "hwnas-kit"
"""What the archive unpacks to."""
BOARD_MODULES = (
    "spaces.errors",
    "latency_tables.timing",
    "latency_tables.steadiness",
    "latency_tables.chunks",
    "latency_tables.machine",
    "latency_tables.energy.windows",
    "latency_tables.runtimes.base",
    "latency_tables.runtimes.onnx_nodes",
    "latency_tables.runtimes.onnx_session",
    "latency_tables.kit.journal",
    "latency_tables.kit.board",
    "latency_tables.kit.windows",
    "latency_tables.kit.command",
)
"""Modules of hwnas that run on the board, as they are: they need the standard library, numpy and onnxruntime."""
OPSET, IR_VERSION = 18, 8
"""The oldest operator set that calls can be written in; ONNX Runtime 1.16 reads it."""
STORED: tuple[Bytes8, ...] = ("int8", "uint8")
ROTATED = 4
"""Weights of an output channel from which on they are repeated; fewer take little room anyway."""


@dataclass(frozen=True, slots=True)
class KitPlan:
    """How much a kit measures.

    Attributes:
        networks: To learn from, at most; None for as many as a Raspberry-Pi-class board measures in time.
        minutes: Time to spend on the board; longer only for what cannot be left out.
        checks: Networks held out; None for 40, or 20 where time is short.
        profiled_runs: See `hwnas.latency_tables.profiler.Plan`.
        protocol: How to time.
    """

    networks: int | None = None
    minutes: float = 20.0
    checks: int | None = None
    profiled_runs: int = 60
    protocol: Protocol = field(default_factory=lambda: Protocol(rounds=8, burst_s=0.006, min_runs=3, warmup_runs=1))


@dataclass(frozen=True, slots=True)
class Kit:
    """A packed kit: its networks to learn from and those held out, its bytes, and its time on a Pi-class board."""

    networks: int
    checks: int
    size_bytes: int
    estimate_s: float


def pack_kit(
    path: Path,
    name: str,
    space: Space,
    plan: KitPlan | None = None,
    *,
    provider: str = "cpu",
    threads: int = 1,
    batch: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
) -> Kit:
    """Writes a kit that measures a board as the device ``name`` for ``space``, whole or not at all.

    Args:
        path: The archive to write.
        name: What the device will be called.
        space: Whose networks to measure.
        plan: How much to measure.
        provider, threads, batch: See `hwnas.latency_tables.runtimes.onnxruntime.OnnxRuntime`.
        seed: Of the networks drawn.
        progress: Called with what is being done.
    """
    plan = plan or KitPlan()
    rng = np.random.default_rng(seed)
    uniform = np.array([uniform_precision(space, *pair) for pair in precision_pairs(space)])
    checks = _without(space.sample(rng, MOST_CHECKS if plan.checks is None else plan.checks), uniform)
    wanted = MOST_NETWORKS if plan.networks is None else plan.networks
    drawn = sample_networks(space, rng, max(0, wanted - len(uniform)), (1 / guess_s(space, uniform)).tolist())
    drawn = _without(drawn, np.concatenate([uniform, checks]))
    budget = Budget(
        float(network_s(space, anchors(space), plan.protocol).sum()),
        *(network_s(space, own, plan.protocol) for own in (uniform, checks, drawn)),
    )
    affordable_checks, affordable = budget.amounts(plan.minutes)
    if plan.checks is None:
        checks = checks[:affordable_checks]
    if plan.networks is None:
        drawn = drawn[:affordable]
    pieces = [("fit", uniform), *_pieces("check", checks), *_pieces("fit", drawn)]
    estimate_s = budget.total_s(len(checks), len(drawn))
    count = len(uniform) + len(drawn)
    rows = np.concatenate([rows for _, rows in pieces])
    candidates = {c.digest: dict(c) for c in map(space.decode, rows)}
    content = {
        "format": 1,
        "name": name,
        "space": space.spec,
        "settings": {"provider": provider, "threads": threads, "batch": batch},
        "protocol": asdict(plan.protocol),
        "profiled_runs": plan.profiled_runs,
        "minutes": plan.minutes,
        "min_networks": max(min(count, 48), round(0.6 * count)),
        "estimate": f"{in_words(estimate_s)} on a Raspberry-Pi-class board",
        "input": NETWORK_INPUT,
        "anchors": [space.decode(row).digest for row in anchors(space)],
        "pieces": [{"role": role, "networks": [space.decode(row).digest for row in own]} for role, own in pieces],
        "candidates": candidates,
    }
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, source in _programs():
            archive.writestr(f"{FOLDER}/{file}", source)
        archive.writestr(f"{FOLDER}/README.txt", _readme(content))
        archive.writestr(f"{FOLDER}/{PLAN}", json.dumps(content))
        networks = _networks_archive(space, rows, seed, progress)
        archive.writestr(f"{FOLDER}/{NETWORKS}", networks, compress_type=zipfile.ZIP_STORED)
    return Kit(count, len(checks), path.stat().st_size, estimate_s)


def _pieces(role: str, rows: Rows) -> list[tuple[str, Rows]]:
    """Rows (n, decisions) in pieces of about the same size."""
    count = -(-len(rows) // PIECE)
    return [(role, part) for part in np.array_split(rows, count)] if count else []


def _networks_archive(space: Space, rows: Rows, seed: int, progress: Progress | None) -> bytes:
    """An archive of the networks: ``<digest>.onnx``, or ``<digest>.int8.onnx`` and ``<digest>.uint8.onnx``."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        archive.writestr(SUM_MODEL, _for_old_runtimes(sum_model()))
        for i, row in enumerate(rows):
            if progress:
                progress(f"writing networks ({i} of {len(rows)})", i / len(rows))
            candidate = space.decode(row)
            network = space.build(candidate)
            repeat_weights(network)
            int8, uint8 = (
                _for_old_runtimes(to_onnx(network, weights_8bit=stored, whole_bytes=True, opset=OPSET))
                for stored in STORED
            )
            if int8 == uint8:
                archive.writestr(f"{candidate.digest}.onnx", int8)
            else:
                archive.writestr(f"{candidate.digest}.int8.onnx", int8)
                archive.writestr(f"{candidate.digest}.uint8.onnx", uint8)
    return buffer.getvalue()


def _for_old_runtimes(model: onnx.ModelProto) -> bytes:
    """A file of an operator set that boards know: without INT4 it needs nothing newer."""
    model.opset_import[0].version, model.ir_version = OPSET, IR_VERSION
    return bytes(model.SerializeToString())


def _without(rows: Rows, known: Rows) -> Rows:
    """The distinct rows (n, decisions) that are not known."""
    _, first = np.unique(np.concatenate([known, rows]), axis=0, return_index=True)
    return rows[np.sort(first[first >= len(known)]) - len(known)]


@torch.no_grad()
def repeat_weights(network: Network) -> None:
    """Settles a fresh network with weights that take little room in an archive, though not in memory.

    The weights of each output channel are those of the first one, rotated, unless they are few, and channels are
    normalised alike; of transposed convolutions and of the constants of calls, the same along their first dimension.
    What a kernel does, and how long it takes, does not depend on the values.
    """
    units = [network.unit(o) for o in network.workload.operators]
    for unit in units:
        weights = [unit.layer.weight] if isinstance(unit, ProductUnit) else []
        weights += [w for w in unit.constants if w.ndim > 1 and len(w)] if isinstance(unit, CallUnit) else []
        for weight in weights:
            first = weight[0].flatten()
            if len(first) >= ROTATED:
                weight.copy_(torch.stack([first.roll(i) for i in range(len(weight))]).reshape(weight.shape))
    settle(network)
    for norm in (unit.norm for unit in units if unit.norm is not None):
        for values in (norm.running_mean, norm.running_var):
            assert values is not None
            values.fill_(values.mean())


def _programs() -> Iterator[tuple[str, bytes]]:
    """The files that run on the board: their paths in the kit, and their content."""
    yield "measure.py", _source("hwnas.latency_tables.kit.measure")
    files = [f"hwnas/{module.replace('.', '/')}.py" for module in BOARD_MODULES]
    yield from zip(files, (_source(f"hwnas.{module}") for module in BOARD_MODULES), strict=True)
    for folder in sorted({str(parent) for file in files for parent in Path(file).parents} - {"."}):
        yield f"{folder}/__init__.py", b""  # so that these come before an installed hwnas


def _source(module: str) -> bytes:
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_bytes()


def _readme(content: dict[str, Any]) -> str:
    return f"""A measuring kit of hwnas for the device {content["name"]}.

It needs Python 3.9 or newer with numpy and onnxruntime (1.16 or newer). On the board, in this folder:

    python measure.py

It takes {content["estimate"]}, and at most {content["minutes"]:g} minutes unless the board is so slow that
even the least number of networks takes longer. Close other programs. Ctrl-C, or a loss of power, keeps what
is finished: run it again to go on. The journal of the measurement is in the folder "journal".

For the energy too, let a power meter log, and run

    python measure.py --energy

Then copy results.zip back, and run

    hwnas device import results.zip
    hwnas device import results.zip --power power.csv
"""
