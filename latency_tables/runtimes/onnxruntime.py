"""ONNX Runtime, with any execution provider that is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hwnas.latency_tables.runtimes.base import KernelClass
from hwnas.latency_tables.runtimes.onnx_session import (
    SUM_ACTIVATION,
    SUM_CHANNELS,
    SUM_WEIGHT,
    SessionExecutable,
    SessionSettings,
    find_provider,
    kernel_class,
    session_facts,
    sums_are_exact,
)
from hwnas.spaces.network import Network
from hwnas.spaces.onnx_graph import OPSET, to_onnx
from hwnas.spaces.onnx_writer import Bytes8
from hwnas.spaces.operator import NETWORK_INPUT


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
        self.provider = find_provider(provider)
        self.threads = threads
        self.batch = batch
        self.weights_8bit: Bytes8 = weights_8bit
        self.sessions = SessionSettings(self.provider, threads)

    def facts(self) -> dict[str, str]:
        """Version, provider, and how 8-bit weights are stored."""
        return session_facts(self.provider, self.weights_8bit)

    def settings(self) -> dict[str, object]:
        """The constructor's arguments."""
        return {
            "provider": self.provider,
            "threads": self.threads,
            "batch": self.batch,
            "weights_8bit": self.weights_8bit,
        }

    def session(self, model: onnx.ModelProto | Path, **options: Any) -> Any:
        """A session with this runtime's settings; ``options`` are further fields of ``SessionOptions``."""
        return self.sessions.open(model if isinstance(model, Path) else model.SerializeToString(), **options)

    def prepare(self, network: Network) -> OnnxExecutable:
        """The network as `to_onnx` writes it, in a session."""
        return OnnxExecutable(self, to_onnx(network, weights_8bit=self.weights_8bit), network.input_shape)

    def kernel_class(self, kernel: str) -> KernelClass:
        """By ONNX Runtime's names: QLinear… and QGemm compute with integers."""
        return kernel_class(kernel)

    def check_integer_kernels(self) -> None:
        """Runs a convolution whose sums exceed 16 bits, and stores 8-bit weights as uint8 where int8 gives a wrong sum.

        Without VNNI, x86 processors add pairs of uint8 × int8 products in 16 bits, with saturation. Weights of at most
        7 bits cannot overflow there, and uint8 weights take a slower, exact kernel.
        """
        self.weights_8bit = "int8" if self._sum_is_exact() else "uint8"

    def _sum_is_exact(self) -> bool:
        return sums_are_exact(self.sessions, sum_model().SerializeToString())


class OnnxExecutable(SessionExecutable):
    """A model in a session, with a fixed random input."""

    def __init__(self, runtime: OnnxRuntime, model: onnx.ModelProto | Path, input_shape: tuple[int, int, int]) -> None:
        self.runtime = runtime
        self.model = model
        images = np.random.default_rng(0).random((runtime.batch, *input_shape), dtype=np.float32)
        source = model if isinstance(model, Path) else model.SerializeToString()
        super().__init__(runtime.sessions, source, {NETWORK_INPUT: images})


def sum_model() -> onnx.ModelProto:
    """The convolution that `sums_are_exact` runs, its weights stored as int8."""
    arrays: dict[str, Any] = {
        "scale": np.float32(1),
        "zero": np.uint8(0),
        "weight": np.full((16, SUM_CHANNELS, 1, 1), SUM_WEIGHT, np.int8),
        "weight_scale": np.ones(16, np.float32),
        "out_scale": np.float32(SUM_CHANNELS * SUM_ACTIVATION * SUM_WEIGHT / 255),
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
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, SUM_CHANNELS, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16, 8, 8])],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
