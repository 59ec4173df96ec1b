"""What a runtime must offer to be measured. To add one, see CONTRIBUTING."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from hwnas.spaces.network import Network

KernelClass = Literal["integer", "float", "conversion", "layout"]
"""Computes with integers; with floats; turns one into the other, or rounds; only moves values."""


@dataclass(frozen=True)
class OperatorTime:
    """What a runtime's own profiler says of one operator inside a network.

    Attributes:
        ms: Mean milliseconds per inference, of all nodes that belong to the operator.
        nodes: How many nodes the runtime runs for it; 0 where it cannot be timed alone.
        kernels: Their kinds, such as ``("QLinearConv",)``.
    """

    ms: float
    nodes: int
    kernels: tuple[str, ...]


class Executable(Protocol):
    """A network made ready to run on the device with a fixed input."""

    def run(self) -> object:
        """One inference; returns when it has finished."""

    def operator_times(self, runs: int) -> Mapping[str, OperatorTime]:
        """Per-operator times inside the network, by operator name; operators fused into others are absent."""

    def peak_memory_bytes(self) -> int | None:
        """Bytes that the runtime has allocated at the peak of inferences, beside what it held before the first.

        Activations, copies of them and of weights, and workspaces, as its allocator counts. None where the runtime does
        not tell. Costs nothing after `operator_times`.
        """


class Runtime(Protocol):
    """A way to run networks on this machine."""

    @property
    def name(self) -> str:
        """The name under which `hwnas.latency_tables.runtimes.make_runtime` finds it."""

    def facts(self) -> dict[str, str]:
        """Version, provider, and whatever else a figure depends on."""

    def settings(self) -> dict[str, object]:
        """Arguments that make the same runtime again."""

    def prepare(self, network: Network) -> Executable:
        """The network in evaluation mode, ready to run on one batch."""

    def check_integer_kernels(self) -> None:
        """Finds out, by running them, which integer kernels are exact, and sets itself up to be exact."""

    def kernel_class(self, kernel: str) -> KernelClass:
        """What a kernel, by its kind in `OperatorTime`, does."""
