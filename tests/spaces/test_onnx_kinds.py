"""Every kind of operator and activation in ONNX Runtime, against the torch module."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto

from hwnas.latency_tables.kit.pack import OPSET as KIT_OPSET
from hwnas.latency_tables.runtimes.onnx_session import SessionExecutable
from hwnas.latency_tables.runtimes.onnxruntime import OnnxRuntime
from hwnas.spaces import Operator, Workload
from hwnas.spaces.network import Network
from hwnas.spaces.onnx_graph import operator_to_onnx, snap_biases, to_onnx, weight_bytes
from hwnas.spaces.quantizers import NO_SCALE, ActivationQuantizer, weight_scale
from hwnas.spaces.units import ConvUnit
from tests.every_kind import OPERATORS, alone, built, conv, everything, images, outputs

every_operator = pytest.mark.parametrize("name", OPERATORS)


def exported(network: Network) -> onnx.ModelProto:
    snap_biases(network)
    model = to_onnx(network, weights_8bit="uint8")
    onnx.checker.check_model(model, full_check=True)
    return model


@every_operator
def test_float_operators_agree(name: str) -> None:
    network = built(alone(OPERATORS[name]))
    expected, actual = outputs(network, exported(network))
    assert np.abs(actual - expected).max() < 1e-4
    assert name == "zero" or expected.std() > 0.1


@every_operator
@pytest.mark.parametrize("bits", [8, 4])
def test_integer_operators_agree_but_for_ties(name: str, bits: int) -> None:
    network = built(alone(OPERATORS[name], bits))
    expected, actual = outputs(network, exported(network))
    quantizer = network.unit(network.workload.operators[1]).quantizer  # none where integers are moved
    level = 0.0 if quantizer is None else float(quantizer.scale_and_zero_point()[0])
    difference = np.abs(actual - expected)
    assert difference.max() < 1.01 * level + 1e-5
    assert np.mean(difference > 1e-4 * (1 + np.abs(expected))) < 0.01
    assert name == "zero" or len(np.unique(expected)) > min(2 ** (bits - 2), 20)


@pytest.mark.parametrize("bits", [32, 8])
def test_a_network_of_every_kind_agrees(bits: int) -> None:
    network = built(everything(bits))
    model = exported(network)
    expected, actual = outputs(network, model, 24)
    difference = np.abs(actual - expected).max(axis=1) / expected.std()
    assert np.median(difference) < (1e-4 if bits == 32 else 0.05)
    assert difference.max() < (1e-4 if bits == 32 else 0.2)
    assert weight_bytes(model) == network.workload.weight_bytes


def owners(model: onnx.ModelProto) -> list[str]:
    """Of the nodes, whose names must differ."""
    nodes = [node.name for node in model.graph.node]
    assert len(set(nodes)) == len(nodes)
    return [node.partition("/")[0] for node in nodes]


@every_operator
@pytest.mark.parametrize("bits", [32, 8, 4])
def test_every_node_carries_the_name_of_its_operator(name: str, bits: int) -> None:
    network = built(alone(OPERATORS[name], bits))
    assert set(owners(to_onnx(network))) == {o.name for o in network.workload.operators}


@pytest.mark.parametrize("bits", [32, 8, 4])
def test_operators_are_found_again_in_what_runs(bits: int) -> None:
    network = built(everything(bits))
    model = to_onnx(network)
    names = {o.name for o in network.workload.operators}
    assert set(owners(model)) == names
    feed = {"input": images(network, 1, 0).numpy()}
    times = SessionExecutable(OnnxRuntime().sessions, model.SerializeToString(), feed).operator_times(1)
    assert set(times) == names


@pytest.mark.parametrize("bits", [32, 8, 4])
def test_relu6_ends_at_6(bits: int) -> None:
    """In integers its upper end is that of the quantiser's range, which the file leaves to the last level."""
    network = built(alone(OPERATORS["conv relu6"], bits))
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, ConvUnit):
                module.conv.weight.mul_(10)
            elif isinstance(module, ActivationQuantizer):
                module.reset()
        network.train()(images(network, 8, 9))
    expected, actual = outputs(network.eval(), exported(network))
    assert np.mean(expected > 5.99) > 0.1
    assert expected.max() == pytest.approx(actual.max()) == pytest.approx(6)
    assert np.abs(actual - expected).max() <= (1e-4 if bits == 32 else 6.01 / (2**bits - 1))


def test_constants_take_the_bytes_that_operators_say() -> None:
    for name, operator in OPERATORS.items():
        for bits in (32, 8):
            workload = alone(operator, bits)
            assert weight_bytes(to_onnx(built(workload))) == workload.weight_bytes, name


@pytest.mark.parametrize("bits", [32, 8, 4])
def test_older_runtimes_know_the_nodes(bits: int) -> None:
    network = built(everything(bits))
    x = images(network, 2, 0).numpy()
    (expected,) = OnnxRuntime().session(to_onnx(network, whole_bytes=True)).run(None, {"input": x})
    model = to_onnx(network, whole_bytes=True, opset=KIT_OPSET)
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    (actual,) = OnnxRuntime().session(model).run(None, {"input": x})
    assert np.array_equal(actual, expected)


def kernels(operator: Operator) -> set[str]:
    model = operator_to_onnx(operator)
    feed = {i.name: np.ones([d.dim_value for d in i.type.tensor_type.shape.dim], np.uint8) for i in model.graph.input}
    runtime = OnnxRuntime()
    times = SessionExecutable(runtime.sessions, model.SerializeToString(), feed).operator_times(1)
    return {runtime.kernel_class(kernel) for time in times.values() for kernel in time.kernels} - {"layout"}


@pytest.mark.parametrize("name", [n for n, o in OPERATORS.items() if replace(o, in_bits=8, out_bits=8).kind != "zero"])
@pytest.mark.parametrize("bits", [8, 4])
def test_integer_is_what_integer_kernels_serve(name: str, bits: int) -> None:
    operator = replace(OPERATORS[name], weight_bits=8, in_bits=8, out_bits=bits)
    found = kernels(operator)
    if operator.moves_integers:
        assert not found, "nothing is computed"
        return
    assert ("integer" in found) == operator.integer
    assert found <= ({"integer", "conversion"} if operator.integer else {"float", "conversion"})
    assert not (operator.integer and bits == 8 and "conversion" in found)


@every_operator
def test_every_operator_runs_alone(name: str) -> None:
    for bits in (32, 8):
        operator = replace(OPERATORS[name], in_bits=bits, out_bits=bits, weight_bits=bits)
        model = operator_to_onnx(operator, batch=2)
        kind = np.uint8 if bits == 8 else np.float32
        feed = {i.name: np.ones([d.dim_value for d in i.type.tensor_type.shape.dim], kind) for i in model.graph.input}
        whole = len(feed) if operator.kind in ("add", "call") else 1  # tensors of so many channels each
        assert sum(x.shape[1] for x in feed.values()) == operator.in_channels * whole
        (y,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed)
        size = () if operator.kind == "linear" else operator.out_size
        assert y.shape == (2, operator.out_channels, *size)
        assert y.dtype == kind


@pytest.mark.parametrize("bits", [32, 8, 4])
def test_pruned_weights_are_stored_as_zeros(bits: int) -> None:
    operator = conv(16, 8, density=0.5, pattern=4)
    model = to_onnx(built(Workload.wire([replace(operator, weight_bits=bits)])))
    (weight,) = (t for t in model.graph.initializer if t.name == "conv/weight")
    values = onnx.numpy_helper.to_array(weight).astype(np.float32)
    assert values.shape == (8, 16, 3, 3)
    assert (np.count_nonzero(values.reshape(8, 4, 4, 3, 3), axis=2) <= 2).all()
    assert np.mean(values != 0) == 0.5 if bits == 32 else 0.4 < np.mean(values != 0) <= 0.5
    assert weight.data_type == {32: TensorProto.FLOAT, 8: TensorProto.INT8, 4: TensorProto.INT4}[bits]


@pytest.mark.parametrize("affine", ["norm", "bias"])
def test_a_channel_without_weights_is_its_bias(affine: str) -> None:
    """What pruning may leave of a small layer: its bias must fit 32 bits, and be as exact as elsewhere."""
    network = built(alone(conv(6, 6, groups=6, density=1 / 54, affine=affine), 8))
    unit = network.unit(network.workload.operators[1])
    assert isinstance(unit, ConvUnit)
    assert (weight_scale(unit.folded()[0], 8) == NO_SCALE).sum() == 5
    expected, actual = outputs(network, exported(network))
    assert len(np.unique(expected[0].round(4), axis=0)) >= 5
    assert np.abs(actual - expected).max() < 1e-4
