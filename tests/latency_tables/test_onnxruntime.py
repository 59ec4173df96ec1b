"""ONNX Runtime on this machine: whose node is whose, and which integer kernels are exact."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from hwnas.latency_tables.plan import uniform_precision
from hwnas.latency_tables.profiler import prepare, settle
from hwnas.latency_tables.runtimes import make_runtime, onnx_session
from hwnas.latency_tables.runtimes.onnx_nodes import node_owners, read_nodes
from hwnas.latency_tables.runtimes.onnx_session import (
    NODE_RAN,
    SessionExecutable,
    allocated_at_peak,
    runs_of_nodes,
)
from hwnas.latency_tables.runtimes.onnxruntime import OnnxExecutable, OnnxRuntime
from hwnas.spaces import Space, load_space
from hwnas.spaces.errors import UnavailableError, UnknownNameError
from hwnas.spaces.network import Network
from hwnas.spaces.onnx_graph import IR_VERSION, OPSET, to_onnx
from hwnas.spaces.space import Rows
from hwnas.spaces.variation import sample_coherent


@pytest.fixture(scope="module")
def space() -> Space:
    return load_space("mbconv", input_shape=(1, 8, 8), num_classes=10)


def network_of(space: Space, row: Rows) -> Network:
    torch.manual_seed(0)
    network = space.build(space.decode(row))
    settle(network)
    return network


def optimised(runtime: OnnxRuntime, model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    path = folder / "optimised.onnx"
    runtime.session(model, optimized_model_filepath=str(path))
    return onnx.load(path)


def test_unknown_providers_are_unavailable() -> None:
    with pytest.raises(UnavailableError, match=r"no TpuExecutionProvider here \(installed: .*CPUExecutionProvider"):
        OnnxRuntime(provider="TpuExecutionProvider")
    with pytest.raises(UnknownNameError, match="unknown runtime 'tflite'"):
        make_runtime("tflite")


def test_settings_make_the_same_runtime_again() -> None:
    runtime = OnnxRuntime(threads=2, batch=3, weights_8bit="uint8")
    again = make_runtime(runtime.name, runtime.settings())
    assert again.settings() == runtime.settings()
    assert again.facts()["provider"] == "CPUExecutionProvider"
    assert again.facts()["runtime"].startswith("ONNX Runtime 1.")


def test_a_batch_is_fed_as_asked(space: Space) -> None:
    row = space.encode(space.reference())
    executable = OnnxRuntime(batch=3).prepare(network_of(space, row))
    assert isinstance(executable, OnnxExecutable)
    assert executable.feed["input"].shape == (3, 1, 8, 8)
    assert np.array(executable.run()).shape == (1, 3, 10)


def test_every_node_of_an_optimised_graph_has_an_owner(space: Space, tmp_path: Path) -> None:
    runtime = OnnxRuntime()
    rng = np.random.default_rng(0)
    pairs = [(8, 8), (8, 4), (4, 8), (32, 32), (8, 32)]
    rows = np.concatenate(
        [space.sample(rng, 4), sample_coherent(space, rng, 4), [uniform_precision(space, *pair) for pair in pairs]]
    )
    unnamed = 0
    for row in rows:
        network = network_of(space, row)
        graph = optimised(runtime, to_onnx(network), tmp_path)
        names = {o.name for o in network.workload.operators} | {"input"}
        nodes = read_nodes(graph.SerializeToString())
        assert [(n.name, n.inputs, n.outputs) for n in nodes] == [
            (n.name, tuple(n.input), tuple(n.output)) for n in graph.graph.node
        ]
        owners = node_owners(nodes)
        assert set(owners) == {n.name for n in graph.graph.node}
        assert set(owners.values()) <= names
        unnamed += sum("/" not in n.name for n in graph.graph.node)
        for node in graph.graph.node:
            if node.op_type in ("Conv", "QLinearConv", "FusedConv"):
                # The weight is named after its operator, whatever became of the node.
                weights = {i.partition("/")[0] for i in node.input if "weight" in i}
                assert not weights or owners[node.name] in weights
        layers = {o.name for o in network.workload.operators if o.kind in ("conv", "linear")}
        assert layers <= set(owners.values()), "the runtime runs every layer under its name"
    assert unnamed > 0, "the optimiser does add nodes of its own"


def test_added_nodes_belong_to_their_readers_or_else_to_their_writers() -> None:
    node = helper.make_node
    graph = helper.make_graph(
        [
            node("Reorder", ["x"], ["a"], "r1"),
            node("Reorder", ["a"], ["b"], "r2"),
            node("Conv", ["b"], ["c"], "first/conv"),
            node("Reorder", ["c"], ["d"], "r3"),
            node("Conv", ["d"], ["e"], "second/conv"),
            node("Reorder", ["e"], ["f"], "r4"),
            node("Reorder", ["f"], ["g"], "r5"),
            node("Reorder", ["e"], ["q"], "r6"),
            node("Reorder", ["z"], ["y"], "alone"),
            node("QLinearConv", ["g", "s", "third/weight", "third/weight_scale"], ["h"], "renamed"),
            node("Gelu", ["h"], ["third/gelu"], "Gelu_token_3"),
            node("Conv", ["third/gelu"], ["i"], "fourth/conv"),
        ],
        "graph", [], [],
    )  # fmt: skip
    owners = node_owners(read_nodes(helper.make_model(graph).SerializeToString()))
    assert owners == {
        "r1": "first", "r2": "first", "first/conv": "first",
        "r3": "second", "second/conv": "second", "r4": "third", "r5": "third",
        "renamed": "third", "r6": "second", "Gelu_token_3": "third", "fourth/conv": "fourth",
    }  # fmt: skip


LINE = (
    '{{"cat" : "{cat}","pid" :1,"tid" :1,"dur" :{us},"ts" :3,"ph" : "X","name" :"{name}","args" : '
    '{{"op_name" : "Conv","provider" : "CPUExecutionProvider"}}}},'
)


def test_the_runs_of_nodes_are_found_however_a_profile_is_written() -> None:
    wanted = [(7, "stem/conv"), (9, "head/conv"), (5, "stem/conv")]
    lines = [LINE.format(cat="Node", us=us, name=f"{node}_kernel_time") for us, node in wanted]
    others = [
        LINE.format(cat="Session", us=100, name="model_run"),
        LINE.format(cat="Node", us=1, name="stem/conv_fence_before"),
    ]
    text = "[\n" + "\n".join([others[0], lines[0], others[1], *lines[1:]]).rstrip(",") + "\n]\n"
    assert NODE_RAN.search(text)
    indented = json.dumps(json.loads(text), indent=2)
    assert not NODE_RAN.search(indented)
    for written in (text, text.replace("\n", "\r\n"), indented):
        found = runs_of_nodes(written)
        assert [(int(us), node) for _, us, node in found] == wanted
        assert all(json.loads(event)["args"]["op_name"] == "Conv" for event, _, _ in found)


def test_the_warm_up_and_the_slower_half_of_runs_do_not_count(monkeypatch: pytest.MonkeyPatch, space: Space) -> None:
    executable = prepare(space, uniform_precision(space, 32, 32), OnnxRuntime())
    us = [1000] * onnx_session.WARMUP_RUNS + [40, 10, 30, 20, 50]
    lines = "\n".join(LINE.format(cat="Node", us=n, name="stem/conv_kernel_time") for n in us)
    monkeypatch.setattr(onnx_session, "runs_of_nodes", lambda _: NODE_RAN.findall(lines))
    assert executable.operator_times(5)["stem"].ms == pytest.approx(0.02), "the mean of 10, 20 and 30 µs"


def test_operator_times_cover_the_workload(space: Space) -> None:
    runtime = OnnxRuntime()
    for pair in ((8, 8), (32, 32)):
        row = uniform_precision(space, *pair)
        times = prepare(space, row, runtime).operator_times(5)
        operators = space.workload_of_row(row).operators
        assert set(times) <= {o.name for o in operators} | {"input"}
        for o in operators:
            if o.weights:
                assert times[o.name].ms >= 0
                assert times[o.name].nodes == len(times[o.name].kernels) >= 1
        kernels = {runtime.kernel_class(k) for o in operators if o.kind == "conv" for k in times[o.name].kernels}
        assert ("integer" in kernels) == (pair == (8, 8))
        assert 0 < sum(t.ms for t in times.values()) < 1000


def test_what_a_network_allocates_is_known_after_its_operators_were_timed(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = uniform_precision(space, 4, 32)
    alone = prepare(space, row, OnnxRuntime()).peak_memory_bytes()
    profiled = prepare(space, row, OnnxRuntime())
    profiled.operator_times(1)
    monkeypatch.setattr(OnnxExecutable, "_profile", lambda *_: pytest.fail("it was profiled again"))
    assert profiled.peak_memory_bytes() == alone
    assert alone is not None


def test_a_chain_of_two_nodes_allocates_two_tensors() -> None:
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node(kind, [x], [y], f"only/{kind}") for kind, x, y in (("Sin", "x", "a"), ("Cos", "a", "y"))],
            "two",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1000])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1000])],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    feed = {"x": np.ones((1, 1000), np.float32)}
    peak = SessionExecutable(OnnxRuntime().sessions, model.SerializeToString(), feed).peak_memory_bytes()
    assert peak == 2 * 4096, "two tensors of 4000 bytes, in whole units of 256; the input is the caller's"


def test_the_peak_is_counted_from_before_the_first_node() -> None:
    before = {"mem_bytes_in_use": "700", "mem_in_use_delta": "200"}
    after = {"mem_bytes_in_use": "900", "mem_in_use_delta": "0", "mem_in_use_peak": "1500"}
    events = [json.dumps({"args": args}) for args in (before, after, {"op_name": "Conv"})]
    assert allocated_at_peak(events[0], events[1]) == 1000
    assert allocated_at_peak(events[2], events[2]) is None, "as of older versions"


def test_profiling_leaves_no_files_behind(space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    prepare(space, space.encode(space.reference()), OnnxRuntime()).operator_times(2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ("QLinearConv", "integer"), ("QLinearAdd", "integer"), ("QGemm", "integer"), ("MatMulInteger", "integer"),
        ("ConvInteger", "integer"), ("Transpose", "layout"), ("ReorderInput", "layout"), ("Flatten", "layout"),
        ("Conv", "float"), ("FusedConv", "float"), ("QuantizeLinear", "conversion"),
        ("DequantizeLinear", "conversion"), ("Clip", "conversion"), ("CPU:Clip", "conversion"),
        ("MemcpyToHost", "layout"), ("Concat", "layout"), ("QLinearConcat", "integer"), ("HardSigmoid", "float"),
    ],
)  # fmt: skip
def test_kernel_classes(kernel: str, expected: str) -> None:
    assert OnnxRuntime().kernel_class(kernel) == expected


def saturating_convolution(weights: str) -> onnx.ModelProto:
    """64 products of 255 and 127 added up, of which two already exceed 16 bits; weights stored either way."""
    zero = {"int8": np.int8(0), "uint8": np.uint8(128)}[weights]
    weight = np.full((4, 64, 1, 1), 127 + int(zero), zero.dtype)
    total = np.float32(64 * 127)
    arrays = {
        "scale": np.float32(1), "zero": np.uint8(0), "w": weight, "wscale": np.ones(4, np.float32),
        "wzero": np.full(4, zero), "oscale": total,
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        node("DequantizeLinear", ["w", "wscale", "wzero"], ["wd"], axis=0),
        node("Conv", ["d", "wd"], ["c"]),
        node("QuantizeLinear", ["c", "oscale", "zero"], ["cq"]),
        node("DequantizeLinear", ["cq", "oscale", "zero"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "saturating",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 64, 5, 5])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 4, 5, 5])],
        [onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def is_exact(runtime: OnnxRuntime, model: onnx.ModelProto) -> bool:
    (y,) = runtime.session(model).run(None, {"x": np.full((1, 64, 5, 5), 255, np.float32)})
    return bool((y == np.float32(255 * 64 * 127)).all())


def test_integer_kernels_are_exact_after_the_check(tmp_path: Path) -> None:
    runtime = OnnxRuntime()
    runtime.check_integer_kernels()
    assert runtime.weights_8bit in ("int8", "uint8")
    assert runtime.settings()["weights_8bit"] == runtime.weights_8bit
    kinds = {n.op_type for n in optimised(runtime, saturating_convolution("uint8"), tmp_path).graph.node}
    assert "QLinearConv" in kinds
    assert is_exact(runtime, saturating_convolution("uint8")), "exact on every processor"
    assert is_exact(runtime, saturating_convolution("int8")) == (runtime.weights_8bit == "int8")


def test_the_check_finds_saturation(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = OnnxRuntime()
    monkeypatch.setattr(OnnxRuntime, "_sum_is_exact", lambda _: False)
    runtime.check_integer_kernels()
    assert runtime.weights_8bit == "uint8"
    network = network_of(space := load_space("mbconv", input_shape=(1, 8, 8), num_classes=10, joint=("bits",)),
                         uniform_precision(space, 8, 8))  # fmt: skip
    executable = runtime.prepare(network)
    assert isinstance(executable.model, onnx.ModelProto)
    stored = {t.name: t.data_type for t in executable.model.graph.initializer}
    assert stored["head/weight"] == onnx.TensorProto.UINT8
