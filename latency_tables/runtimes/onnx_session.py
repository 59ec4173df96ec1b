"""Sessions of ONNX Runtime: their settings, their profiler, and whether integer kernels are exact.

Needs the standard library, numpy and onnxruntime alone: measuring kits carry it to boards.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from hwnas.latency_tables.runtimes.base import KernelClass, OperatorTime
from hwnas.latency_tables.runtimes.onnx_nodes import node_owners, read_nodes
from hwnas.spaces.errors import UnavailableError

WARMUP_RUNS = 10
MEMORY_RUNS = 3
"""The first run shows what is allocated; later ones have one block for all of that, workspaces aside."""
HOST = "CPUExecutionProvider"
"""The provider whose allocator the profiler tells of."""
OLDEST = (1, 16)
"""The oldest version of ONNX Runtime that kits were tried with."""
SUM_CHANNELS, SUM_ACTIVATION, SUM_WEIGHT = 64, 255, 127
"""Of the convolution that shows whether integer kernels are exact: its sums exceed 16 bits."""
LAYOUT_KERNELS = (
    "Transpose", "ReorderInput", "ReorderOutput", "Flatten", "Reshape", "MemcpyToHost", "MemcpyFromHost", "Concat",
    "Slice", "Pad", "Shape", "ConstantOfShape", "Identity", "Split", "Squeeze", "Unsqueeze", "Expand", "Gather",
    "DepthToSpace", "SpaceToDepth", "MaxPool",
)  # fmt: skip

NODE_RAN = re.compile(
    r'^({"cat"\s*:\s*"Node",.*?"dur"\s*:\s*(\d+),.*?"name"\s*:\s*"(.*?)_kernel_time",.*}),?\r?$', re.MULTILINE
)
"""A line of a profile for one run of one node; reading all of a profile as JSON takes longer than the runs."""


@dataclass(frozen=True)
class SessionSettings:
    """How sessions are made: the execution provider's full name, and the threads within an operator."""

    provider: str
    threads: int = 1

    def open(self, model: bytes | Path, **options: Any) -> Any:
        """An ``InferenceSession``; ``options`` are further fields of ``SessionOptions``.

        Raises:
            UnavailableError: The provider does not start.
        """
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = self.threads
        settings.inter_op_num_threads = 1
        settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        settings.log_severity_level = 3
        for name, value in options.items():
            setattr(settings, name, value)
        source = str(model) if isinstance(model, Path) else model
        session = onnxruntime.InferenceSession(source, settings, providers=[self.provider])
        if session.get_providers()[0] != self.provider:
            # ONNX Runtime only warns, and would run everything on the processor.
            raise UnavailableError(
                f"ONNX Runtime has {self.provider}, but it does not start here: the libraries or the driver that it "
                "needs are missing or of another version"
            )
        return session


class SessionExecutable:
    """A model in a session, with a fixed input.

    Args:
        settings: Of the session.
        model: The model, or its file.
        feed: Its inputs; random images of its shapes where none are given.
        batch: How many random images.
    """

    def __init__(
        self,
        settings: SessionSettings,
        model: bytes | Path,
        feed: Mapping[str, NDArray[Any]] | None = None,
        *,
        batch: int = 1,
    ) -> None:
        self.settings = settings
        self._source = model
        self._session = settings.open(model)
        rng = np.random.default_rng(0)
        self.feed = dict(feed or {}) or {
            i.name: rng.random((batch, *i.shape[1:]), dtype=np.float32) for i in self._session.get_inputs()
        }
        self._profiled = False
        self._peak: int | None = None

    def run(self) -> object:
        """One inference."""
        return self._session.run(None, self.feed)

    def operator_times(self, runs: int) -> Mapping[str, OperatorTime]:
        """From ONNX Runtime's profiler, in a session of its own; its times are whole microseconds, so runs average.

        A node that the provider does not know and another one runs is called after it, such as ``CPU:Clip``.
        """
        events, optimised = self._profile(WARMUP_RUNS + runs)
        owners = node_owners(read_nodes(optimised))
        times: dict[str, list[float]] = defaultdict(list)
        kinds: dict[str, str] = {}
        for event, duration_us, node in events:
            times[node].append(int(duration_us) / 1e3)
            if node not in kinds:
                about = json.loads(event)["args"]
                where = about.get("provider", self.settings.provider)
                aside = "" if where == self.settings.provider else where.replace("ExecutionProvider", "") + ":"
                kinds[node] = aside + about.get("op_name", "")
        result: dict[str, OperatorTime] = {}
        for node, all_values in times.items():
            values = all_values[WARMUP_RUNS:]
            owner = owners.get(node, node.partition("/")[0])
            # The slower half holds interruptions by the rest of the machine. A mean, as a profile counts in whole µs.
            ms = float(np.sort(values)[: -(-len(values) // 2)].mean())
            known = result.get(owner, OperatorTime(0.0, 0, ()))
            result[owner] = OperatorTime(known.ms + ms, known.nodes + 1, (*known.kernels, kinds[node]))
        return result

    def peak_memory_bytes(self) -> int | None:
        """See `hwnas.latency_tables.runtimes.base.Executable`. Told of the CPU, by version 1.32, but not by 1.23.

        The allocator counts its peak from the start and never resets it. The first run allocates tensor by tensor;
        later ones take one block that has room for all of them, and workspaces beside it. Their peak is the higher one
        in 95 of 100 networks of mixed precisions, and in 85 of 100 in float32. In the others the first run's is given,
        which the later ones do not exceed.
        """
        if not self._profiled:
            self._profile(MEMORY_RUNS)
        return self._peak

    def _profile(self, runs: int) -> tuple[list[tuple[str, str, str]], bytes]:
        """The `runs_of_nodes` in the profile of a session of its own, and the optimised model."""
        with tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
            optimised = Path(folder, "optimised.onnx")
            session = self.settings.open(
                self._source,
                optimized_model_filepath=str(optimised),
                enable_profiling=True,
                profile_file_prefix=str(Path(folder, "profile")),
            )
            for _ in range(runs):
                session.run(None, self.feed)
            events = runs_of_nodes(Path(session.end_profiling()).read_text(encoding="utf-8"))
            model = optimised.read_bytes()
        self._profiled = True
        if self.settings.provider == HOST and events:
            self._peak = allocated_at_peak(events[0][0], events[-1][0])
        return events, model


def runs_of_nodes(profile: str) -> list[tuple[str, str, str]]:
    """The event as JSON, whole microseconds, and node of each run of a node, in order.

    A profile that is not written as one event a line, as those of all versions tried are, is read as JSON.
    """
    if found := NODE_RAN.findall(profile):
        return found
    runs = []
    for event in json.loads(profile):
        node, _, part = event.get("name", "").rpartition("_kernel_")
        if event.get("cat") == "Node" and part == "time":
            runs.append((json.dumps(event), str(round(event["dur"])), node))
    return runs


def allocated_at_peak(first: str, last: str) -> int | None:
    """The allocator's peak after the ``last`` event of a profile, beside what it had given out before the ``first``.

    None where the events say nothing of memory, as those of older versions.
    """
    before, after = (json.loads(event)["args"] for event in (first, last))
    try:
        held = int(before["mem_bytes_in_use"]) - int(before["mem_in_use_delta"])
        return int(after["mem_in_use_peak"]) - held
    except KeyError:
        return None


def find_provider(provider: str) -> str:
    """The full name of a provider, given by it or without the ending, in any case.

    Raises:
        UnavailableError: It is not installed, or ONNX Runtime is too old.
    """
    if tuple(int(part) for part in onnxruntime.__version__.split(".")[:2]) < OLDEST:
        raise UnavailableError(
            f"ONNX Runtime {onnxruntime.__version__} is too old: install {'.'.join(map(str, OLDEST))} or newer"
        )
    available = onnxruntime.get_available_providers()
    short = {name.replace("ExecutionProvider", "").lower(): name for name in available}
    provider = short.get(provider.lower(), provider)
    if provider not in available:
        raise UnavailableError(
            f"ONNX Runtime has no {provider} here (installed: {', '.join(available)}); "
            "install the package that brings it"
        )
    return provider


def session_facts(provider: str, weights_8bit: str) -> dict[str, str]:
    """Version, provider, and how 8-bit weights are stored."""
    stored = {
        "int8": "int8: integer kernels are exact",
        "uint8": "uint8: this processor's uint8 × int8 kernels saturate, uint8 × uint8 is exact",
    }
    return {
        "runtime": f"ONNX Runtime {onnxruntime.__version__}",
        "provider": provider,
        "8-bit weights": stored[weights_8bit],
    }


def sums_are_exact(settings: SessionSettings, model: bytes) -> bool:
    """Whether the convolution of `SUM_CHANNELS` products (``x`` to ``y``) gives the right sum."""
    x = np.full((1, SUM_CHANNELS, 8, 8), SUM_ACTIVATION, np.float32)
    (y,) = settings.open(model).run(None, {"x": x})
    return bool(np.allclose(y, SUM_CHANNELS * SUM_ACTIVATION * SUM_WEIGHT, rtol=0.01))


def kernel_class(kernel: str) -> KernelClass:
    """By ONNX Runtime's names: QLinear… and QGemm compute with integers."""
    kernel = kernel.rpartition(":")[2]
    if kernel in LAYOUT_KERNELS:
        return "layout"
    if kernel.startswith(("QLinear", "QGemm")) or kernel.endswith("Integer"):
        return "integer"
    return "conversion" if kernel in ("QuantizeLinear", "DequantizeLinear", "Clip", "Cast") else "float"
