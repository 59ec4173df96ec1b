"""ONNX Runtime, with any execution provider that is installed."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from hwnas.latency_tables.runtimes.base import KernelClass, OperatorTime
from hwnas.spaces.errors import UnavailableError
from hwnas.spaces.network import Network
from hwnas.spaces.onnx_graph import OPSET, Bytes8, to_onnx
from hwnas.spaces.operator import NETWORK_INPUT

WARMUP_RUNS = 10


class OnnxRuntime:
    """ONNX Runtime on this machine.

    Args:
        provider: Execution provider: its name, such as ``CUDAExecutionProvider``, or that without the ending, in any
            case, such as ``cuda``.
        threads: Threads within an operator; operators run one after the other.
        batch: Images per inference.
        weights_8bit: See `to_onnx`; `check_integer_kernels` finds it out.

    Raises:
        UnavailableError: The provider is not installed, or does not start.
    """

    name = "onnxruntime"

    def __init__(
        self,
        provider: str = "CPUExecutionProvider",
        threads: int = 1,
        batch: int = 1,
        weights_8bit: Bytes8 = "int8",
    ) -> None:
        available = onnxruntime.get_available_providers()
        short = {name.removesuffix("ExecutionProvider").lower(): name for name in available}
        provider = short.get(provider.lower(), provider)
        if provider not in available:
            raise UnavailableError(
                f"ONNX Runtime has no {provider} here (installed: {', '.join(available)}); "
                "install the package that brings it"
            )
        self.provider = provider
        self.threads = threads
        self.batch = batch
        self.weights_8bit: Bytes8 = weights_8bit

    def facts(self) -> dict[str, str]:
        """Version, provider, and how 8-bit weights are stored."""
        stored = {
            "int8": "int8: integer kernels are exact",
            "uint8": "uint8: this processor's uint8 × int8 kernels saturate, uint8 × uint8 is exact",
        }
        return {
            "runtime": f"ONNX Runtime {onnxruntime.__version__}",
            "provider": self.provider,
            "8-bit weights": stored[self.weights_8bit],
        }

    def settings(self) -> dict[str, object]:
        """The constructor's arguments."""
        return {
            "provider": self.provider,
            "threads": self.threads,
            "batch": self.batch,
            "weights_8bit": self.weights_8bit,
        }

    def session(self, model: onnx.ModelProto | Path, **options: Any) -> onnxruntime.InferenceSession:
        """A session with this runtime's settings; ``options`` are further fields of ``SessionOptions``."""
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = self.threads
        settings.inter_op_num_threads = 1
        settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        settings.log_severity_level = 3
        for name, value in options.items():
            setattr(settings, name, value)
        source = str(model) if isinstance(model, Path) else model.SerializeToString()
        session = onnxruntime.InferenceSession(source, settings, providers=[self.provider])
        if session.get_providers()[0] != self.provider:
            # ONNX Runtime only warns, and would run everything on the processor.
            raise UnavailableError(
                f"ONNX Runtime has {self.provider}, but it does not start here: the libraries or the driver that it "
                "needs are missing or of another version"
            )
        return session

    def prepare(self, network: Network) -> OnnxExecutable:
        """The network as `to_onnx` writes it, in a session."""
        return OnnxExecutable(self, to_onnx(network, weights_8bit=self.weights_8bit), network.input_shape)

    def kernel_class(self, kernel: str) -> KernelClass:
        """By ONNX Runtime's names: QLinear… and QGemm compute with integers."""
        kernel = kernel.rpartition(":")[2]
        if kernel in (
            "Transpose",
            "ReorderInput",
            "ReorderOutput",
            "Flatten",
            "Reshape",
            "MemcpyToHost",
            "MemcpyFromHost",
        ):
            return "layout"
        if kernel.startswith(("QLinear", "QGemm")) or kernel.endswith("Integer"):
            return "integer"
        return "conversion" if kernel in ("QuantizeLinear", "DequantizeLinear", "Clip", "Cast") else "float"

    def check_integer_kernels(self) -> None:
        """Runs a convolution whose sums exceed 16 bits, and stores 8-bit weights as uint8 where int8 gives a wrong sum.

        Without VNNI, x86 processors add pairs of uint8 × int8 products in 16 bits, with saturation. Weights of at most
        7 bits cannot overflow there, and uint8 weights take a slower, exact kernel.
        """
        self.weights_8bit = "int8" if self._sum_is_exact() else "uint8"

    def _sum_is_exact(self) -> bool:
        channels, activation, weight = 64, 255, 127
        total = np.float32(channels * activation * weight / 255)
        arrays: dict[str, Any] = {
            "scale": np.float32(1),
            "zero": np.uint8(0),
            "weight": np.full((16, channels, 1, 1), weight, np.int8),
            "weight_scale": np.ones(16, np.float32),
            "out_scale": total,
        }
        node = helper.make_node
        nodes = [
            node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
            node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
            node("DequantizeLinear", ["weight", "weight_scale"], ["w"], axis=0),
            node("Conv", ["d", "w"], ["c"]),
            node("QuantizeLinear", ["c", "out_scale", "zero"], ["cq"]),
            node("DequantizeLinear", ["cq", "out_scale", "zero"], ["y"]),
        ]
        graph = helper.make_graph(
            nodes,
            "saturation",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels, 8, 8])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16, 8, 8])],
            [numpy_helper.from_array(np.asarray(a), n) for n, a in arrays.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
        (y,) = self.session(model).run(None, {"x": np.full((1, channels, 8, 8), activation, np.float32)})
        return bool(np.allclose(y, activation * total, rtol=0.01))


class OnnxExecutable:
    """A model in a session, with a fixed random input."""

    def __init__(self, runtime: OnnxRuntime, model: onnx.ModelProto | Path, input_shape: tuple[int, int, int]) -> None:
        self.runtime = runtime
        self.model = model
        self.feed = {NETWORK_INPUT: np.random.default_rng(0).random((runtime.batch, *input_shape), dtype=np.float32)}
        self._session = runtime.session(model)

    def run(self) -> object:
        """One inference."""
        return self._session.run(None, self.feed)

    def operator_times(self, runs: int) -> Mapping[str, OperatorTime]:
        """From ONNX Runtime's profiler, in a session of its own; its times are whole microseconds, so runs average.

        A node that the provider does not know and another one runs is called after it, such as ``CPU:Clip``.
        """
        with tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
            optimised = Path(folder, "optimised.onnx")
            session = self.runtime.session(
                self.model,
                optimized_model_filepath=str(optimised),
                enable_profiling=True,
                profile_file_prefix=str(Path(folder, "profile")),
            )
            for _ in range(WARMUP_RUNS + runs):
                session.run(None, self.feed)
            events = json.loads(Path(session.end_profiling()).read_text())
            owners = node_owners(onnx.load(optimised))
        times: dict[str, list[float]] = defaultdict(list)
        kinds: dict[str, str] = {}
        for event in events:
            node, _, part = event.get("name", "").rpartition("_kernel_")
            if event.get("cat") == "Node" and part == "time":
                times[node].append(event["dur"] / 1e3)
                where = event["args"].get("provider", self.runtime.provider)
                aside = "" if where == self.runtime.provider else where.removesuffix("ExecutionProvider") + ":"
                kinds[node] = aside + event["args"].get("op_name", "")
        result: dict[str, OperatorTime] = {}
        for node, all_values in times.items():
            values = all_values[WARMUP_RUNS:]
            owner = owners.get(node, node.partition("/")[0])
            # The slowest tenth holds interruptions by the rest of the machine.
            ms = float(np.sort(values)[: max(1, int(0.9 * len(values)))].mean())
            known = result.get(owner, OperatorTime(0.0, 0, ()))
            result[owner] = OperatorTime(known.ms + ms, known.nodes + 1, (*known.kernels, kinds[node]))
        return result


def node_owners(optimised: onnx.ModelProto) -> dict[str, str]:
    """The operator that each node of an optimised graph belongs to.

    A node called ``<operator>/<step>`` belongs to its operator. One that the optimiser added, such as a change of
    layout, belongs to the operator that reads its output, or failing that to the one that wrote its input.
    """
    nodes = list(optimised.graph.node)
    owners = {n.name: n.name.partition("/")[0] for n in nodes if "/" in n.name}
    producer = {output: n.name for n in nodes for output in n.output}
    readers: dict[str, list[str]] = defaultdict(list)
    for n in nodes:
        for name in n.input:
            readers[name].append(n.name)
    for _ in range(len(nodes)):
        orphans = [n for n in nodes if n.name not in owners]
        if not orphans:
            break
        for n in reversed(orphans):
            near = [r for o in n.output for r in readers[o]] + [producer[i] for i in n.input if i in producer]
            if owner := next((owners[m] for m in near if m in owners), None):
                owners[n.name] = owner
    return owners
