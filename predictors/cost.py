"""Costs of candidates from slot tables: a few gathers per table, no Python per candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwnas.latency_tables.device import Device
from hwnas.predictors.learnt import energy_model, latency_model, memory_model
from hwnas.predictors.lowering import lower_space
from hwnas.predictors.memory import amounts
from hwnas.predictors.slot_tables import Peaks, gather, slot_tables
from hwnas.spaces.errors import UnavailableError
from hwnas.spaces.space import Rows, Space

if TYPE_CHECKING:
    from torch import Tensor

Costs = dict[str, NDArray[np.float64]]
COUNTED = ("weight_bytes", "macs", "params")


class CostModel:
    """What candidates of a space cost on a device.

    Args:
        space: The space.
        device: A registered device, whose measured whole networks are what latency and energy are learnt from, or a
            simulated one.

    Attributes:
        latency: Milliseconds of operators and networks.
        energy: Millijoules of them, or None where no power meter was read or it saw no such operators.
        memory: What networks allocate at their peak, or None where the runtime did not tell.
        summed: Names of the costs that are sums over operators.

    Raises:
        UnavailableError: The device has not measured such operators.
    """

    def __init__(self, space: Space, device: Device) -> None:
        self.space = space
        self.device = device
        self._lowering = lowering = lower_space(space)
        self.latency = latency_model(device)
        self._models = {"latency_ms": self.latency}
        costs = [self.latency.of_operators(lowering.operators)]
        self.energy, self._no_energy = energy_model(device), "no power meter was read when it was measured"
        if self.energy is not None:
            try:
                costs.append(self.energy.of_operators(lowering.operators))
                self._models["energy_mj"] = self.energy
            except UnavailableError as error:
                self.energy, self._no_energy = None, f"its meter saw other networks, {error}".partition(";")[0]
        self.summed = (*self._models, *COUNTED)
        self.memory, peaks = memory_model(device), None
        if self.memory is not None:
            own = amounts(lowering.operators)
            peaks = Peaks(self.memory.peaks(own), self.memory.per_held)
            costs.append(self.memory.sums(own))
        self._columns = [*range(len(self._models)), *range(len(costs), len(costs) + len(COUNTED))]
        self._tables = slot_tables(space, lowering, costs, peaks)

    def __call__(self, rows: Rows) -> Costs:
        """Costs of rows (n, decisions) in canonical form.

        Returns:
            Arrays of shape (n,): ``latency_ms``, ``latency_ms_std``, ``weight_bytes``, ``peak_memory_bytes``, ``macs``,
            ``params``, and where the device's energy is known ``energy_mj`` and ``energy_mj_std``. Peak memory is what
            the runtime allocates beside the loaded model for one inference, as its allocator told of measured networks;
            where it did not (`memory` is None), the largest sum of activation bytes alive at once.
        """
        sums, peak = gather(self._tables, self._lowering.extended(np.atleast_2d(rows)))
        costs: Costs = {name: sums[:, i].copy() for name, i in zip(self.summed, self._columns, strict=True)}
        for name, model in self._models.items():
            costs[name] += model.per_network
            costs[f"{name}_std"] = costs[name] * model.relative_std
        if self.memory is not None:
            peak = self.memory.constant + sums[:, len(self._models)] + peak.sum(axis=1)
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

        position = self._columns[self.summed.index(cost)]
        base = self._models[cost].per_network if cost in self._models else 0.0
        total = torch.as_tensor(base, dtype=probabilities[0].dtype)
        of_columns = [*probabilities, *(f.probabilities(probabilities) for f in self._lowering.folds)]
        for table in self._tables:
            value = torch.as_tensor(table.sums[table.identity, position], dtype=total.dtype).reshape(table.sizes)
            # A condition may be on a decision that the table reads, too.
            present: dict[int, Tensor] = {}
            for column, allowed in table.when:
                present[column] = present.get(column, of_columns[column]) * torch.as_tensor(allowed)
            for column in table.columns:
                value = torch.tensordot(present.pop(column, of_columns[column]), value, dims=([0], [0]))
            for elsewhere in present.values():
                value = value * elsewhere.sum()
            total = total + value
        return total
