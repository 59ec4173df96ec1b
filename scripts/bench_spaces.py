"""The spaces that come with hwnas: what they are, what making candidates takes, and the published networks in them."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from hwnas.scripts.network_files import Finder, FoundNetwork, WrittenNetwork, read_networks
from hwnas.spaces.blocks.cell_form import EDGES, OPERATIONS, published_string
from hwnas.spaces.catalog import SPACES, load_space
from hwnas.spaces.joint import OF_ALL_SPACES
from hwnas.spaces.space import Space

REPEATS = 5
SAMPLED, LOWERED = 2000, 20
"""Candidates of one timing."""
COUNTABLE = 100_000
"""Rows of spaces whose different networks are counted one by one."""
CELLS = (
    WrittenNetwork(
        "nasbench201, least",
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
        computed={"params": 73_306, "macs": 7_783_040},
        published={"params_m": 0.073306, "flops_m": 7.78305},
    ),
    WrittenNetwork(
        "nasbench201, largest",
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|",
        computed={"params": 1_531_546, "macs": 220_119_680},
        published={"params_m": 1.531546, "flops_m": 220.11969},
    ),
)
"""The extremes of NAS-Bench-201 (Dong and Yang, ICLR 2020): published FLOPs have the classifier's ten biases, too. They
are computed by hand: what is around the cells, and six 3×3 convolutions in each of five cells on 16 channels of 32×32,
32 of 16×16 and 64 of 8×8."""


def space_figures() -> dict[str, dict[str, float]]:
    """Of each space, at the images it was published for: size, decisions and slots, and how fast candidates are made.

    Sizes are decimal logarithms of the number of rows; joint means all of `OF_ALL_SPACES` at their default options.
    Where there are few rows, the different networks among them are counted; of NAS-Bench-201, the strings by which its
    paper counts them, too.
    Speeds are of the joint space, medians of repeats: rows drawn in canonical form, workloads of random rows, and the
    PyTorch module of the first reference.
    """
    return {name: _figures(*(load_space(name, joint=joint) for joint in ((), OF_ALL_SPACES))) for name in SPACES}


def strings_line(cells: dict[str, float]) -> str:
    """How the networks of NAS-Bench-201 are counted here and in its paper, of its `space_figures`, and why they differ.

    See `hwnas.spaces.blocks.cell_form`.
    """
    return (
        f"nasbench201 has {cells['different_networks']:,} different networks; its paper counts "
        f"{cells['published_strings']:,} strings, of which some compute the same (x and x + 0, sums in another order), "
        "and some stand for several networks (a convolution read twice is written as two)"
    )


def network_figures(path: Path) -> dict[str, dict[str, Any]]:
    """Of each network of a file, see `hwnas.scripts.network_files`, and of `CELLS`: the space, parameters and MACs.

    Raises:
        InvalidFileError: The file is no such file.
    """
    finder = Finder()
    rows: dict[str, dict[str, Any]] = {}
    for network in (*read_networks(path), *CELLS):
        result = finder.find(network)
        if not isinstance(result, FoundNetwork):
            rows[network.name] = {"equal": False, "lacks": result.reasons[0]}
            continue
        computed = {f"computed_{key}": count for key, count in network.computed.items()}
        published = {key: figure for key, figure in network.published.items() if key[-2:] == "_m"}
        rows[network.name] = {
            "space": result.spaces[0], **result.counts, **computed, **published,
            "equal": bool(computed) and not result.differs,
        }  # fmt: skip
    return rows


def _figures(plain: Space, joint: Space) -> dict[str, float]:
    rng = np.random.default_rng(0)
    rows = joint.sample(rng, LOWERED)
    reference = joint.reference()
    return {
        "log10_size": round(plain.log10_size, 2),
        **({"different_networks": _different(plain)} if plain.sizes.prod(dtype=float) <= COUNTABLE else {}),
        **({"published_strings": _published_strings()} if plain.name == "nasbench201" else {}),
        "log10_size_joint": round(joint.log10_size, 2),
        "decisions": len(plain.decisions),
        "decisions_joint": len(joint.decisions),
        "slots": len(plain.slots),
        "slots_joint": len(joint.slots),
        "samples_per_second": round(SAMPLED / _seconds(lambda: joint.sample(rng, SAMPLED))),
        "workloads_per_second": round(LOWERED / _seconds(lambda: [joint.workload_of_row(row) for row in rows])),
        "load_ms": round(1e3 * _seconds(lambda: load_space(joint.name, joint=OF_ALL_SPACES)), 1),
        "build_ms": round(1e3 * _seconds(lambda: joint.build(reference)), 1),
    }


def _different(space: Space) -> int:
    """Networks of a space that differ: rows in canonical form."""
    rows = np.indices(tuple(map(int, space.sizes))).reshape(len(space.sizes), -1).T
    return len(np.unique(space.canonical(rows.astype(np.int16)), axis=0))


def _published_strings() -> int:
    """Cells of NAS-Bench-201 that differ by the account of its paper."""
    return len({published_string(cell) for cell in product(OPERATIONS, repeat=len(EDGES))})


def _seconds(work: Callable[[], object]) -> float:
    """The median time that it takes."""
    found = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return median(found)
