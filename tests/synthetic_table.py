"""Latency tables that nobody measured: what networks take is planted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hwnas.latency_tables.table import LatencyTable, NetworkRow, OperatorRow, Role
from hwnas.spaces import Operator, Space
from hwnas.spaces.space import Rows


def synthetic_table(
    space: Space, rows: Mapping[Role, Rows], network_ms: Callable[[Sequence[Operator]], float]
) -> LatencyTable:
    """The networks of rows (n, decisions) of each role, each taking what ``network_ms`` says of its operators."""
    index: dict[Operator, int] = {}
    networks = []
    for role, own in rows.items():
        for row in own:
            operators = space.workload_of_row(row).operators
            ms = network_ms(operators)
            candidate = space.decode(row)
            networks.append(
                NetworkRow(
                    digest=candidate.digest,
                    space=space.key,
                    candidate=candidate.to_json(),
                    role=role,
                    operators=tuple(index.setdefault(o, len(index)) for o in operators),
                    latency_ms_p50=ms,
                    latency_ms_p90=1.1 * ms,
                    spread=0.01,
                    runs=100,
                )
            )
    return LatencyTable(tuple(OperatorRow(o, count=1) for o in index), tuple(networks))
