"""Calls as torch modules and in ONNX Runtime, against torch's own functions."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.latency_tables.kit.pack import OPSET as KIT_OPSET
from hwnas.latency_tables.runtimes.onnx_session import SessionExecutable
from hwnas.latency_tables.runtimes.onnxruntime import OnnxRuntime
from hwnas.spaces.call_text import call_text
from hwnas.spaces.calls import CallUnit, operation, run_call
from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.frozen import freeze
from hwnas.spaces.network import Network
from hwnas.spaces.onnx_calls import exported_call
from hwnas.spaces.onnx_graph import operator_to_onnx, snap_biases, to_onnx, weight_bytes
from tests.every_call import CASES, COMPUTING, MOVING, TOKENS, Case, X, chain, fed, image_shape, one
from tests.every_kind import lived_in

every_case = pytest.mark.parametrize("name", CASES)


def built(case: Case, bits: int = 32, out_bits: int = 0) -> Network:
    torch.manual_seed(0)
    return lived_in(Network(fed(case, bits, out_bits), image_shape(case)))


def images(network: Network, n: int, seed: int = 9) -> Tensor:
    return torch.randn(n, *network.input_shape, generator=torch.Generator().manual_seed(seed))


def outputs(network: Network, model: onnx.ModelProto, n: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Of the module and of the file."""
    onnx.checker.check_model(model, full_check=True)
    x = images(network, n)
    with torch.no_grad():
        expected = network(x).numpy()
    (actual,) = OnnxRuntime().session(model).run(None, {"input": x.numpy()})
    assert actual.shape == expected.shape
    return expected, actual


def call_unit(network: Network) -> CallUnit:
    unit = network.units["call"]
    assert isinstance(unit, CallUnit)
    return unit


# ---- torch ----------------------------------------------------------------------------------------------------------

HEADS = functional.scaled_dot_product_attention
FUNCTIONS = {
    "layer_norm": lambda c, x: functional.layer_norm(x, (12,), *c, eps=1e-6),
    "gelu with tanh": lambda _, x: functional.gelu(x, approximate="tanh"),
    "softmax": lambda _, x: x.softmax(-1),
    "attention": lambda _, x, y, z: HEADS(x, y, z),
    "heads": lambda _, x: HEADS(*x.reshape(-1, 5, 3, 2, 4).permute(2, 0, 3, 1, 4)).transpose(1, 2).reshape(-1, 5, 8),
    "addmm": lambda c, x: x @ c[0] + c[1],
    "class token": lambda c, x: torch.cat([c[0].repeat(len(x), 1, 1), x], 1) + c[1],
    "group_norm": lambda c, x: functional.group_norm(x, 3, *c),
    "mean of tokens": lambda _, x: x.mean(1),
    "upsample_bilinear2d": lambda _, x: functional.interpolate(x, scale_factor=2, mode="bilinear"),
    "gated halves": lambda _, x: functional.glu(x, 1),
    "max_pool2d": lambda _, x: functional.max_pool2d(x, 3, 2, 1),
    "upsample_nearest2d": lambda _, x: x.repeat_interleave(2, 2).repeat_interleave(2, 3),
    "pixel_shuffle": lambda _, x: nn.PixelShuffle(2)(x),
    "select": lambda _, x: x[:, 0],
    "first of unbound": lambda _, x: x[:, 4:5],
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("n", [1, 3])
def test_calls_compute_what_torch_does(name: str, n: int) -> None:
    case = CASES[name]
    unit = call_unit(built(case))
    inputs = [torch.randn(n, *shape, generator=torch.Generator().manual_seed(i)) for i, shape in enumerate(case.inputs)]
    assert torch.allclose(unit(*inputs), FUNCTIONS[name](unit.constants, *inputs), atol=1e-5)  # type: ignore[no-untyped-call]


@every_case
def test_shapes_are_as_the_operator_says(name: str) -> None:
    case = CASES[name]
    network = built(case)
    y = network(images(network, 3))
    assert y.shape == (3, *case.output)
    operator = network.workload.operators[-1]
    assert y[0].numel() == operator.out_channels * operator.out_size[0] * operator.out_size[1]
    assert operator.in_channels * operator.in_size[0] * operator.in_size[1] == np.prod(case.inputs[0])


def test_constants_are_parameters_that_learn() -> None:
    network = built(COMPUTING["layer_norm"])
    unit = call_unit(network)
    assert [n for n, _ in unit.named_parameters()] == ["constant_0", "constant_1"]
    assert set(unit.state_dict()) == {"constant_0", "constant_1"}
    assert unit.operator.params == network.workload.params == 24
    assert unit.operator.weight_bytes == network.workload.weight_bytes == 4 * 24
    torch.autograd.backward(network(images(network, 4)).square().sum())
    assert all(p.grad is not None and p.grad.any() for p in unit.parameters())


def test_fresh_constants_of_one_dimension_leave_a_normalisation_as_it_is() -> None:
    unit = CallUnit(COMPUTING["class token"].operator())
    assert 0 < float(unit.constants[1].detach().std()) < 0.1
    norm = CallUnit(COMPUTING["layer_norm"].operator())
    assert [c.tolist() for c in norm.constants] == [[1.0] * 12] * 2


def test_a_view_of_any_order_in_memory() -> None:
    case = chain(
        ("transpose.int", [X, 1, 2]), ("view.default", [{"step": 0}, [{"batch": 1}, 60]]), on=[TOKENS], to=(60,)
    )
    x = torch.randn(2, *TOKENS)
    assert torch.equal(CallUnit(case.operator())(x), x.transpose(1, 2).reshape(2, 60))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("aten.no_such_thing.default", "has no operation 'aten.no_such_thing.default'"),
        ("aten.gelu.no_such_thing", "has no operation 'aten.gelu.no_such_thing'"),
        ("aten.__class__.mro", "has no operation"),
        ("aten.relu_.default", "does more than to compute tensors from tensors"),
        ("aten.add.out", "does more than to compute tensors"),
        ("aten.save.default", "'aten.save.default', which does more"),
        ("aten.from_file.default", "'aten.from_file.default', which does more"),
        ("aten.sym_size.int", "'aten.sym_size.int', which does more"),
    ],
)
def test_what_may_not_be_called_is_refused_before_it_is(name: str, message: str) -> None:
    text = call_text([(name, [X], {})])
    with pytest.raises(InvalidSpaceError, match=message):
        CallUnit(one("gelu.default", X, on=[TOKENS], to=TOKENS).operator(call=text))
    with pytest.raises(InvalidSpaceError, match=message):
        operation(name)


def test_calls_say_what_they_lack() -> None:
    unit = CallUnit(COMPUTING["mul"].operator())
    with pytest.raises(InvalidSpaceError, match="a call of mul reads 2 tensors and got 1"):
        unit(torch.zeros(1, 6, 8, 8))
    several = one("chunk.default", X, 2, 1, on=[TOKENS], to=(3, 12))
    with pytest.raises(InvalidSpaceError, match=r"its last step aten\.chunk\.default gives several"):
        run_call(CallUnit(several.operator()).call, [torch.zeros(1, *TOKENS)], [])


@pytest.mark.parametrize("bits", [32, 8])
@pytest.mark.parametrize("name", ["layer_norm", "class token", "to tokens", "mul"])
def test_frozen_calls_keep_their_constants(name: str, bits: int) -> None:
    network = built(CASES[name], bits)
    x = images(network, 4)
    with torch.inference_mode():
        assert torch.allclose(freeze(network)(x), network(x), atol=1e-5)


@pytest.mark.parametrize("name", ["heads", "class token", "windows"])
def test_calls_are_compiled_copied_and_sent(name: str) -> None:
    network = built(CASES[name])
    x = images(network, 2)
    with torch.inference_mode():
        compiled = torch.compile(freeze(network), fullgraph=True, dynamic=False, backend="aot_eager")
        for other in (compiled, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
            assert torch.allclose(other(x), network(x), atol=1e-5)


# ---- ONNX -----------------------------------------------------------------------------------------------------------


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
    wanted = {f"call/constant_{i}" for i in range(len(CASES[name].parameters))}
    assert {c for c in constants if not c.startswith("call/act_")} == wanted


def test_what_runs_is_found_again() -> None:
    for name in ("attention", "class token", "layer_norm", "gelu with tanh", "windows"):
        network = built(CASES[name])
        model = to_onnx(network)
        for source in (model, to_onnx(network, opset=KIT_OPSET)):
            feed = {"input": images(network, 1).numpy()}
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


@pytest.mark.parametrize("name", ["layer_norm", "attention", "max_pool2d", "to tokens"])
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
