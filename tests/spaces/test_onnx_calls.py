"""Calls in ONNX Runtime, against the torch modules."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from hwnas.latency_tables.kit.pack import OPSET as KIT_OPSET
from hwnas.latency_tables.runtimes.onnx_session import SessionExecutable
from hwnas.latency_tables.runtimes.onnxruntime import OnnxRuntime
from hwnas.spaces.call_text import call_text
from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.network import Network
from hwnas.spaces.onnx_calls import exported_call
from hwnas.spaces.onnx_graph import operator_to_onnx, snap_biases, to_onnx, weight_bytes
from tests.every_call import CASES, COMPUTING, MOVING, TOKENS, X, built, call_unit, fed, image_shape, one
from tests.every_kind import images, lived_in, outputs

every_case = pytest.mark.parametrize("name", CASES)


@every_case
@pytest.mark.parametrize("n", [1, 4])
def test_files_compute_what_modules_do(name: str, n: int) -> None:
    network = built(CASES[name])
    expected, actual = outputs(network, to_onnx(network), n)
    assert np.abs(actual - expected).max() < 1e-5 * max(1.0, float(np.abs(expected).max()))
    assert expected.std() > 0.03


LEVELS_OFF = {"softmax": 2, "windows": 2}
"""ONNX Runtime's integer softmax looks up exponentials."""


@pytest.mark.parametrize("name", COMPUTING)
def test_calls_between_integers_agree_but_for_ties(name: str) -> None:
    network = built(COMPUTING[name], 8)
    snap_biases(network)
    expected, actual = outputs(network, to_onnx(network, weights_8bit="uint8"))
    quantizer = call_unit(network).quantizer
    assert quantizer is not None
    level = float(quantizer.scale_and_zero_point()[0])
    difference = np.abs(actual - expected)
    assert difference.max() < (LEVELS_OFF.get(name, 1) + 0.01) * level
    assert name in LEVELS_OFF or np.mean(difference > 0.1 * level) < 0.02
    assert len(np.unique(expected)) > 20


@pytest.mark.parametrize("name", COMPUTING)
def test_calls_read_integers_and_write_floats(name: str) -> None:
    network = built(COMPUTING[name], 8, 32)
    expected, actual = outputs(network, to_onnx(network))
    bound = 1e-4 if name not in LEVELS_OFF else 0.02
    assert np.abs(actual - expected).max() < bound * max(1.0, float(np.abs(expected).max()))


@pytest.mark.parametrize("name", MOVING)
@pytest.mark.parametrize("bits", [8, 4])
def test_what_only_moves_stays_integers(name: str, bits: int) -> None:
    network = built(MOVING[name], bits)
    operator = network.workload.operators[-2]
    assert operator.moves_integers
    assert operator.integer
    assert call_unit(network).quantizer is None
    model = to_onnx(network)
    expected, actual = outputs(network, model)
    assert np.array_equal(actual, expected)
    own = [n for n in model.graph.node if n.name.startswith("call/")]
    assert own
    assert not {"QuantizeLinear", "DequantizeLinear"} & {n.op_type for n in own}
    types = {t.name: t.type.tensor_type.elem_type for t in onnx.shape_inference.infer_shapes(model).graph.value_info}
    assert types[own[-1].output[0]] == onnx.TensorProto.UINT8


def test_more_than_moving_is_rounded_again() -> None:
    for name in COMPUTING:
        assert not COMPUTING[name].operator(in_bits=8, out_bits=8).moves_integers, name
    moving = MOVING["max_pool2d"]
    assert not moving.operator(in_bits=8, out_bits=4).moves_integers
    assert not moving.operator(in_bits=8, out_bits=8, activation="relu").moves_integers
    assert not moving.operator().moves_integers


@every_case
def test_nodes_and_constants_carry_the_operators_name(name: str) -> None:
    network = built(CASES[name])
    model = to_onnx(network)
    owners = {label.partition("/")[0] for n in model.graph.node for label in (n.name, *n.output) if "/" in label}
    assert owners == {o.name for o in network.workload.operators}
    assert len({n.name for n in model.graph.node}) == len(model.graph.node)
    assert weight_bytes(model) == network.workload.weight_bytes
    constants = {t.name for t in model.graph.initializer if not t.name.startswith("part")}
    wanted = {f"call/constant_{i}" for i in range(len(CASES[name].parameters) + len(CASES[name].buffers))}
    assert {c for c in constants if not c.startswith("call/act_")} == wanted


def test_what_runs_is_found_again() -> None:
    for name in ("attention", "class token", "layer_norm", "gelu with tanh", "windows"):
        network = built(CASES[name])
        model = to_onnx(network)
        for source in (model, to_onnx(network, opset=KIT_OPSET)):
            feed = {"input": images(network, 1, 9).numpy()}
            times = SessionExecutable(OnnxRuntime().sessions, source.SerializeToString(), feed).operator_times(1)
            assert "call" in times, name


@every_case
def test_kits_have_the_same_calls(name: str) -> None:
    network = built(CASES[name])
    model = to_onnx(network, opset=KIT_OPSET)
    model.ir_version = 8
    assert model.opset_import[0].version == KIT_OPSET
    expected, actual = outputs(network, model)
    assert np.abs(actual - expected).max() < 1e-5 * max(1.0, float(np.abs(expected).max()))


@pytest.mark.parametrize("name", ["layer_norm", "attention", "what is not learnt", "max_pool2d", "to tokens"])
@pytest.mark.parametrize("bits", [32, 8])
def test_a_call_runs_alone(name: str, bits: int) -> None:
    case = CASES[name]
    model = operator_to_onnx(case.operator(in_bits=bits, out_bits=bits), batch=3)
    onnx.checker.check_model(model)
    kind = np.float32 if bits == 32 else np.uint8
    feed = {f"input{i}": np.ones((3, *shape), kind) for i, shape in enumerate(case.inputs)}
    assert {i.name for i in model.graph.input} == set(feed)
    (y,) = OnnxRuntime().session(model).run(None, feed)
    assert (y.shape, y.dtype) == ((3, *case.output), kind)


def test_the_network_tells_the_shapes_that_a_text_does_not() -> None:
    """And a call alone goes by its first input."""
    for name in ("attention", "class token", "max_pool2d", "mean of tokens"):
        case = CASES[name]
        silent = call_text(case.steps, case.parameters)
        workload = fed(case)
        operators = [o if o.name != "call" else case.operator(call=silent, inputs=o.inputs) for o in workload.operators]
        network = lived_in(Network(type(workload)(tuple(operators)), image_shape(case)))
        expected, actual = outputs(network, to_onnx(network))
        assert np.abs(actual - expected).max() < 1e-5
    for name in ("layer_norm", "max_pool2d", "addmm"):
        case = CASES[name]
        alone = operator_to_onnx(case.operator(call=call_text(case.steps, case.parameters)))
        assert [d.dim_value for d in alone.graph.input[0].type.tensor_type.shape.dim] == [1, *case.inputs[0]]


def test_what_torch_cannot_export_is_refused() -> None:
    text = one("linalg_svdvals.default", X, on=[TOKENS], to=(5,)).text
    with pytest.raises(InvalidSpaceError, match=r"torch cannot write a call of linalg_svdvals on \(5, 12\) as ONNX"):
        exported_call(text, (TOKENS,), 21)
    misfit = one("view.default", X, [{"batch": 1}, 7], on=[TOKENS], to=(7,)).text
    with pytest.raises(InvalidSpaceError, match="torch cannot write a call of view"):
        exported_call(misfit, (TOKENS,), 21)


def test_an_export_is_made_once_and_changes_no_random_numbers() -> None:
    case = COMPUTING["softmax"]
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    exported_call.cache_clear()
    first = exported_call(case.text, case.inputs, 21)
    assert torch.equal(torch.rand(3), expected)
    assert exported_call(case.text, case.inputs, 21) is first


def test_the_last_call_of_a_network_says_its_shape() -> None:
    network = built(COMPUTING["attention"])
    (output,) = to_onnx(network).graph.output
    assert [d.dim_param or d.dim_value for d in output.type.tensor_type.shape.dim] == ["batch", 2, 5, 4]
