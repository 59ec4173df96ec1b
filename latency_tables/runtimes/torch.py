"""PyTorch, eager or compiled, on any device that it knows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from hwnas.latency_tables.runtimes.base import KernelClass, OperatorTime
from hwnas.spaces.errors import UnavailableError
from hwnas.spaces.frozen import freeze
from hwnas.spaces.network import Network, module_name

WARMUP_RUNS = 10
LABEL = "hwnas::"
LAYOUT = (
    "flatten", "contiguous", "clone", "copy_", "_to_copy", "reshape", "view", "alias", "transpose", "slice", "unbind",
    "stack", "cat", "pad",
)  # fmt: skip


class Torch:
    """PyTorch on this machine. Networks run as `hwnas.spaces.frozen` has them, their input on the device already.

    Args:
        provider: Device that runs the networks, such as ``cpu`` or ``cuda``.
        threads: Threads within an operator, on CPUs.
        batch: Images per inference.
        compiled: Whether ``torch.compile`` fuses operators; on CUDA with CUDA graphs. It takes seconds to minutes for
            every network, and leaves no operators to time one by one.

    Raises:
        UnavailableError: PyTorch has no such device here.
    """

    name = "torch"

    def __init__(self, provider: str = "cpu", threads: int = 1, batch: int = 1, compiled: bool = False) -> None:
        try:
            torch.zeros(1, device=provider).item()
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).splitlines()[0]
            raise UnavailableError(f"PyTorch {torch.__version__} cannot run on {provider!r} here: {reason}") from error
        self.provider = provider
        self.threads = threads
        self.batch = batch
        self.compiled = compiled
        self.device = torch.device(provider)
        torch.set_num_threads(threads)

    def facts(self) -> dict[str, str]:
        """Version, mode, and device."""
        facts = {
            "runtime": f"PyTorch {torch.__version__}{', compiled' if self.compiled else ''}",
            "provider": self.provider,
        }
        if self.device.type == "cuda":
            facts["accelerator"] = torch.cuda.get_device_name(self.device)
        return facts

    def settings(self) -> dict[str, object]:
        """The constructor's arguments."""
        return {
            "provider": self.provider,
            "threads": self.threads,
            "batch": self.batch,
            "compiled": self.compiled,
        }

    def prepare(self, network: Network) -> TorchExecutable:
        """The frozen network on the device, compiled if so asked."""
        return TorchExecutable(self, network)

    def kernel_class(self, kernel: str) -> KernelClass:
        """By the names of PyTorch's operations."""
        if kernel in LAYOUT:
            return "layout"
        return "conversion" if "quantize" in kernel else "float"

    def check_integer_kernels(self) -> None:
        """Nothing to find out: there are none."""

    def wait(self) -> None:
        """Returns when the device has finished."""
        if self.device.type == "cpu":
            return
        torch.accelerator.synchronize(self.device)


class TorchExecutable:
    """A frozen network with a fixed random input on the device."""

    def __init__(self, runtime: Torch, network: Network) -> None:
        self.runtime = runtime
        self.network = network
        self.module = freeze(network).to(runtime.device)
        shape = (runtime.batch, *network.input_shape)
        self.images = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(runtime.device)
        self._call: Callable[[torch.Tensor], torch.Tensor] = self.module
        if runtime.compiled:
            mode = "reduce-overhead" if runtime.device.type == "cuda" else "default"
            self._call = torch.compile(self.module, fullgraph=True, dynamic=False, mode=mode)
            for _ in range(3):  # compiles, then records a CUDA graph
                self.run()

    @torch.inference_mode()
    def run(self) -> object:
        """One inference."""
        result = self._call(self.images)
        self.runtime.wait()
        return result

    def peak_memory_bytes(self) -> int | None:
        """Not told."""
        return None

    def operator_times(self, runs: int) -> Mapping[str, OperatorTime]:
        """From PyTorch's profiler: time on the device where it has one of its own, else of the calling thread.

        Compiled networks have no operators left to time: what is said of their kernels is what was compiled.
        """
        names = {module_name(o): o.name for o in self.network.workload.operators}
        handles = [h for name, module in self.module.named_children() for h in _labelled(module, names[name])]
        activities = [ProfilerActivity.CPU]
        if on_cuda := self.runtime.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        try:
            with torch.inference_mode():
                for _ in range(WARMUP_RUNS):
                    self.module(self.images)
                with profile(activities=activities, acc_events=True) as profiler:
                    for _ in range(1 if self.runtime.compiled else runs):
                        self.module(self.images)
                        self.runtime.wait()
        finally:
            for handle in handles:
                handle.remove()
        times: dict[str, list[float]] = defaultdict(list)
        kernels: dict[str, tuple[str, ...]] = {}
        for event in profiler.events() or ():
            if event.name.startswith(LABEL) and event.device_type == DeviceType.CPU:  # CUDA shows labels once more
                name = event.name.removeprefix(LABEL)
                times[name].append((event.device_time_total if on_cuda else event.cpu_time_total) / 1e3)
                kernels[name] = tuple(child.name.removeprefix("aten::") for child in event.cpu_children)
        if self.runtime.compiled:
            return {name: OperatorTime(0.0, 0, kinds) for name, kinds in kernels.items()}
        return {
            # The slowest tenth holds interruptions by the rest of the machine.
            name: OperatorTime(_lowest_mean(values), len(kernels[name]), kernels[name])
            for name, values in times.items()
        }


def _lowest_mean(values: list[float]) -> float:
    kept = sorted(values)[: max(1, int(0.9 * len(values)))]
    return sum(kept) / len(kept)


def _labelled(module: nn.Module, name: str) -> list[torch.utils.hooks.RemovableHandle]:
    """Hooks that show the module's calls to the profiler under its operator's name."""
    open_labels: list[record_function] = []

    def before(*_: object) -> None:
        open_labels.append(record_function(LABEL + name))
        open_labels[-1].__enter__()  # type: ignore[no-untyped-call]

    def after(*_: object) -> None:
        open_labels.pop().__exit__(None, None, None)

    return [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
