"""Costs of candidates from slot tables: one gather per slot, no Python per candidate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwnas.latency_tables.device import Device
from hwnas.predictors.learnt import energy_model, latency_model
from hwnas.predictors.lowering import SlotLowering, lower_space
from hwnas.spaces.errors import UnavailableError
from hwnas.spaces.slot import Slot
from hwnas.spaces.space import Rows, Space

if TYPE_CHECKING:
    from torch import Tensor

Costs = dict[str, NDArray[np.float64]]
COUNTED = ("weight_bytes", "macs", "params")
CHUNK = 16384


@dataclass(frozen=True, slots=True)
class _SlotTable:
    """Costs of one slot for every combination of what it reads.

    Attributes:
        columns, strides: Of the decisions read: the flat index of a row is ``rows[:, columns] @ strides``.
        sums: Shape (combinations, costs), in the order of `CostModel.summed`.
        peak: Largest activation bytes while the slot runs, shape (combinations,).
        active: For each condition, its column and which options satisfy it.
    """

    columns: list[int]
    strides: NDArray[np.int32]
    sums: NDArray[np.float64]
    peak: NDArray[np.float64]
    active: tuple[tuple[int, NDArray[np.bool_]], ...] = field(default=())


class CostModel:
    """What candidates of a space cost on a device.

    Args:
        space: The space.
        device: A registered device, whose measured whole networks are what latency and energy are learnt from, or a
            simulated one.

    Attributes:
        latency: Milliseconds of operators and networks.
        energy: Millijoules of them, or None where no power meter was read or it saw no such operators.
        summed: Names of the costs that are sums over operators.

    Raises:
        UnavailableError: The device has not measured such operators.
    """

    def __init__(self, space: Space, device: Device) -> None:
        self.space = space
        self.device = device
        operators = lower_space(space).operators
        self.latency = latency_model(device)
        self._models = {"latency_ms": self.latency}
        costs = [self.latency.of_operators(operators)]
        self.energy, self._no_energy = energy_model(device), "no power meter was read when it was measured"
        if self.energy is not None:
            try:
                costs.append(self.energy.of_operators(operators))
                self._models["energy_mj"] = self.energy
            except UnavailableError as error:
                self.energy, self._no_energy = None, f"its meter saw other networks, {error}".partition(";")[0]
        self.summed = (*self._models, *COUNTED)
        self._tables = self._compile(costs)

    def __call__(self, rows: Rows) -> Costs:
        """Costs of rows (n, decisions) in canonical form.

        Returns:
            Arrays of shape (n,): ``latency_ms``, ``latency_ms_std``, ``weight_bytes``, ``peak_memory_bytes``, ``macs``,
            ``params``, and where the device's energy is known ``energy_mj`` and ``energy_mj_std``.
        """
        rows = np.atleast_2d(rows)
        sums = np.empty((len(rows), len(self.summed)))
        peak = np.empty(len(rows))
        for start in range(0, len(rows), CHUNK):
            part = slice(start, start + CHUNK)
            sums[part], peak[part] = self._gather(np.ascontiguousarray(rows[part].T, dtype=np.int32))
        costs: Costs = {name: sums[:, i].copy() for i, name in enumerate(self.summed)}
        for name, model in self._models.items():
            costs[name] += model.per_network
            costs[f"{name}_std"] = costs[name] * model.relative_std
        costs["peak_memory_bytes"] = peak
        return costs

    def require(self, cost: str) -> None:
        """Raises `UnavailableError` with the reason where the device does not know a cost."""
        if cost == "energy_mj" and self.energy is None:
            raise UnavailableError(
                f"nothing is known of energy on {self.device.name}: {self._no_energy}; run 'hwnas device energy "
                f"{self.device.name} --meter …' on the device, or choose another cost"
            )

    def of(self, candidate: Mapping[str, object]) -> dict[str, float]:
        """Costs of one candidate."""
        row = self.space.encode(candidate)  # type: ignore[arg-type]
        return {name: float(values[0]) for name, values in self(row[None]).items()}

    def expected(self, probabilities: Sequence[Tensor], cost: str = "latency_ms") -> Tensor:
        """Expected cost when every decision is drawn independently; differentiable.

        Args:
            probabilities: One tensor per decision, shape (options,), each summing to one.
            cost: One of `summed`.
        """
        import torch

        position = self.summed.index(cost)
        base = self._models[cost].per_network if cost in self._models else 0.0
        total = torch.as_tensor(base, dtype=probabilities[0].dtype)
        for table in self._tables:
            sizes = [int(self.space.sizes[c]) for c in table.columns]
            value = torch.as_tensor(table.sums[:, position], dtype=total.dtype).reshape(sizes)
            for column in table.columns:
                value = torch.tensordot(probabilities[column], value, dims=([0], [0]))
            for column, allowed in table.active:
                value = value * probabilities[column][torch.as_tensor(allowed)].sum()
            total = total + value
        return total

    def _gather(self, columns: NDArray[np.int32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Sums (n, costs) and peaks (n,) from the transposed rows, shape (decisions, n)."""
        n = columns.shape[1]
        sums = np.zeros((n, len(self.summed)))
        peak = np.zeros(n)
        for table in self._tables:
            index = np.zeros(n, dtype=np.int32)
            for column, stride in zip(table.columns, table.strides, strict=True):
                index += columns[column] * stride
            own, own_peak = table.sums[index], table.peak[index]
            if table.active:
                mask = np.ones(n, dtype=bool)
                for column, allowed in table.active:
                    mask &= allowed[columns[column]]
                own *= mask[:, None]
                own_peak *= mask
            sums += own
            np.maximum(peak, own_peak, out=peak)
        return sums, peak

    def _compile(self, costs: list[NDArray[np.float64]]) -> list[_SlotTable]:
        lowering = lower_space(self.space)
        return [self._table(slot, own, costs) for slot, own in zip(self.space.slots, lowering.slots, strict=True)]

    def _table(self, slot: Slot, own: SlotLowering, costs: list[NDArray[np.float64]]) -> _SlotTable:
        columns = [self.space.column(name) for name in slot.reads]
        sizes = [int(self.space.sizes[c]) for c in columns]
        strides = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
        conditions = ((self.space.column(w.decision), w.values) for w in slot.when)
        active = tuple(
            (column, np.array([o in values for o in self.space.decisions[column].options]))
            for column, values in conditions
        )
        sums = np.column_stack(
            [np.bincount(own.owner, weights=cost[own.operator], minlength=len(own.peak)) for cost in costs]
            + [own.weight_bytes, own.macs, own.params]
        )
        return _SlotTable(columns, np.array(strides, dtype=np.int32), sums, own.peak, active)
