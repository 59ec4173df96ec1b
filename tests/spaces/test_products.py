"""Kernels that are not square, margins, transposed convolutions, and linear layers on tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.latency_tables.runtimes.onnx_session import SessionExecutable
from hwnas.latency_tables.runtimes.onnxruntime import OnnxRuntime
from hwnas.spaces import Operator, Workload
from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.frozen import freeze
from hwnas.spaces.network import Network
from hwnas.spaces.onnx_graph import operator_to_onnx, snap_biases, to_onnx, weight_bytes
from hwnas.spaces.products import ConvUnit, DeconvUnit, LinearUnit, exchanged
from hwnas.spaces.quantizers import quantize_weight, weight_scale
from tests.every_call import X, chain
from tests.every_kind import OPERATORS, alone, built, images, lived_in

DECONVS = [name for name in OPERATORS if name.startswith("deconv")]


def maps(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


# ---- kernels and margins --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "layer"),
    [
        ({"kernel": 1, "kernel_width": 7}, nn.Conv2d(6, 8, (1, 7), padding=(0, 3))),
        ({"kernel": 3, "kernel_width": 1, "dilation": 2}, nn.Conv2d(6, 8, (3, 1), padding=(2, 0), dilation=2)),
        ({"kernel": 3, "margin": 0, "out_size": (6, 6)}, nn.Conv2d(6, 8, 3)),
        ({"kernel": 2, "margin": 1, "out_size": (9, 9)}, nn.Conv2d(6, 8, 2, padding=1)),
        ({"kernel": 4, "stride": 4, "margin": 0, "out_size": (2, 2)}, nn.Conv2d(6, 8, 4, 4)),
    ],
)
def test_convolutions_are_torchs(fields: dict[str, Any], layer: nn.Conv2d) -> None:
    operator = Operator("conv", 6, 8, (8, 8), **{"out_size": (8, 8), **fields}, affine="bias")
    unit = ConvUnit(operator)
    unit.conv.load_state_dict(layer.state_dict())
    x = maps(2, 6, 8, 8)
    assert torch.allclose(unit(x), layer(x), atol=1e-6)
    assert unit(x).shape[2:] == operator.out_size
    assert operator.weights == layer.weight.numel()


# ---- transposed convolutions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DECONVS)
def test_transposed_convolutions_are_torchs(name: str) -> None:
    o = replace(OPERATORS[name], density=1.0, activation="none", affine="bias")
    layer = nn.ConvTranspose2d(
        o.in_channels,
        o.out_channels,
        o.kernel_size,
        o.stride,
        o.paddings,
        o.output_paddings,
        o.groups,
        True,
        o.dilation,
    )
    unit = DeconvUnit(o)
    assert [n for n, _ in unit.named_parameters()] == ["deconv.weight", "deconv.bias"]
    unit.deconv.load_state_dict(layer.state_dict())
    x = maps(2, 6, 8, 8)
    assert torch.allclose(unit(x), layer(x), atol=1e-5)
    assert unit(x).shape[2:] == o.out_size
    weight, factor, bias = unit.folded()
    assert weight.shape == (o.out_channels, o.in_channels // o.groups, *o.kernel_size)
    assert factor.shape == (o.out_channels,)
    assert bias is unit.deconv.bias


def test_sizes_that_no_transposed_convolution_writes() -> None:
    deconv = Operator("deconv", 4, 4, (5, 5), (10, 10), 3, 2, name="up")
    assert deconv.output_paddings == (1, 1)
    for size in ((8, 9), (9, 11)):
        with pytest.raises(InvalidSpaceError, match="the transposed convolution 'up' cannot write"):
            DeconvUnit(replace(deconv, out_size=size))
    assert DeconvUnit(replace(deconv, out_size=(9, 10)))(maps(1, 4, 5, 5)).shape == (1, 4, 9, 10)


def test_exchanged_channels() -> None:
    weight = torch.arange(24.0).reshape(6, 2, 2, 1)  # 6 outputs of 2 inputs each, in 3 groups: 6 inputs, 2 outputs each
    turned = exchanged(weight, 3)
    assert turned.shape == (6, 2, 2, 1)
    for group in range(3):
        for i in range(2):
            for o in range(2):
                assert torch.equal(turned[2 * group + i, o], weight[2 * group + o, i])
    assert torch.equal(exchanged(turned, 3), weight)
    assert torch.equal(exchanged(weight, 1), weight.transpose(0, 1))


@pytest.mark.parametrize("groups", [1, 2])
def test_every_output_channel_has_a_scale_of_its_own(groups: int) -> None:
    operator = Operator("deconv", 4, 6, (4, 4), (8, 8), 2, 2, groups, weight_bits=4)
    unit = DeconvUnit(operator)
    with torch.no_grad():
        unit.deconv.weight.normal_()
        for out in range(6):  # each ten times the one before
            group, own = divmod(out, 6 // groups)
            unit.deconv.weight[group * (4 // groups) : (group + 1) * (4 // groups), own] *= 10.0**out
    weight, _, _ = unit.folded()
    assert weight_scale(weight, 4).log10().diff().sub(1).abs().max() < 0.7
    for out in range(6):
        impulse = torch.eye(4).reshape(4, 4, 1, 1)  # each input channel alone: what comes out is its kernel
        seen = functional.conv_transpose2d(impulse, unit.rounded(), stride=2, groups=groups)[:, out]
        group = out // (6 // groups)
        own = seen[group * (4 // groups) : (group + 1) * (4 // groups)]
        assert torch.equal(own, quantize_weight(weight, 4)[out])
        levels = own / weight_scale(weight, 4)[out]
        assert torch.allclose(levels, levels.round(), atol=1e-3)
        assert levels.abs().max().round() == 7


@pytest.mark.parametrize("name", DECONVS)
@pytest.mark.parametrize("bits", [32, 8, 4])
def test_files_hold_weights_in_onnx_order(name: str, bits: int) -> None:
    operator = OPERATORS[name]
    network = built(alone(replace(operator, weight_bits=bits), bits))
    model = to_onnx(network, whole_bytes=True)
    (weight,) = (t for t in model.graph.initializer if t.name == "deconv/weight")
    inner, outer = operator.in_channels // operator.groups, operator.out_channels // operator.groups
    turned = bits == 32 or operator.groups == 1
    order = (operator.in_channels, outer) if turned else (operator.out_channels, inner)
    assert tuple(weight.dims) == (*order, *operator.kernel_size)
    (scales,) = [t.dims for t in model.graph.initializer if t.name == "deconv/weight_scale"] or [
        [operator.out_channels]
    ]
    assert list(scales) == [operator.out_channels]
    assert weight_bytes(to_onnx(network)) == network.workload.weight_bytes


def test_no_integer_kernel_serves_transposed_convolutions() -> None:
    """What makes them emulated; where this fails, ONNX Runtime has learnt it."""
    assert not replace(OPERATORS["deconv"], weight_bits=8, in_bits=8, out_bits=8).integer
    model = operator_to_onnx(replace(OPERATORS["deconv"], weight_bits=8, in_bits=8, out_bits=8))
    feed = {"input0": np.ones((1, 6, 8, 8), np.uint8)}
    times = SessionExecutable(OnnxRuntime().sessions, model.SerializeToString(), feed).operator_times(1)
    assert "ConvTranspose" in {k for t in times.values() for k in t.kernels}


# ---- tokens ---------------------------------------------------------------------------------------------------------

TOKENS = 12


def on_tokens(bits: int = 32, out_bits: int = 0, weight_bits: int = 0, **fields: Any) -> Network:
    """Maps of 6 channels made 12 tokens of 6 features, then a linear layer, then floats."""
    size = (TOKENS, 1)
    turn = chain(("flatten.using_ints", [X, 2]), ("transpose.int", [{"step": 0}, 1, 2]), on=[(6, 3, 4)], to=(TOKENS, 6))
    out = out_bits or bits
    operators = [
        Operator("quantize", 6, 6, (3, 4), (3, 4), out_bits=bits, name="q"),
        turn.operator(name="turn", in_bits=bits, out_bits=bits),
        Operator("linear", 6, 10, size, size, weight_bits=weight_bits or bits, in_bits=bits, out_bits=out,
                 **{"affine": "bias", "name": "linear", **fields}),
        Operator("activate", 10, 10, size, size, in_bits=out, name="floats"),
    ]  # fmt: skip
    torch.manual_seed(0)
    return lived_in(Network(Workload.wire(operators if bits <= 8 else operators[1:3]), (6, 3, 4)))


def outputs(network: Network, n: int = 6) -> tuple[np.ndarray, np.ndarray]:
    snap_biases(network)
    model = to_onnx(network, weights_8bit="uint8")
    onnx.checker.check_model(model, full_check=True)
    x = images(network, n, 9)
    with torch.no_grad():
        expected = network(x).numpy()
    (actual,) = OnnxRuntime().session(model).run(None, {"input": x.numpy()})
    assert actual.shape == expected.shape == (n, TOKENS, 10)
    return expected, actual


def test_a_linear_layer_computes_each_token_by_itself() -> None:
    operator = Operator("linear", 6, 10, (TOKENS, 1), (TOKENS, 1), affine="bias")
    assert operator.on_tokens
    assert (operator.weights, operator.macs, operator.params) == (60, 60 * TOKENS, 70)
    unit = LinearUnit(operator)
    x = maps(3, TOKENS, 6)
    y = unit(x)
    assert y.shape == (3, TOKENS, 10)
    alone = LinearUnit(replace(operator, in_size=(1, 1), out_size=(1, 1)))
    alone.load_state_dict(unit.state_dict())
    assert not alone.operator.on_tokens
    assert torch.allclose(y[:, 4], alone(x[:, 4]), atol=1e-6)


@pytest.mark.parametrize("activation", ["none", "relu", "gelu"])
def test_tokens_in_floats(activation: str) -> None:
    network = on_tokens(activation=activation)
    expected, actual = outputs(network)
    assert np.abs(actual - expected).max() < 1e-5


@pytest.mark.parametrize("activation", ["none", "relu", "gelu"])
@pytest.mark.parametrize(("bits", "weight_bits"), [(8, 8), (8, 4), (4, 8)])
def test_tokens_in_integers_agree_but_for_ties(activation: str, bits: int, weight_bits: int) -> None:
    network = on_tokens(bits, weight_bits=weight_bits, activation=activation)
    expected, actual = outputs(network)
    level = float(network.units["linear"].quantizer.scale_and_zero_point()[0])  # type: ignore[union-attr, operator]
    difference = np.abs(actual - expected)
    assert difference.max() < 1.01 * level + 1e-5
    assert np.mean(difference > 0.1 * level) < 0.01


def test_tokens_that_stay_floats() -> None:
    expected, actual = outputs(on_tokens(8, 32))
    assert np.abs(actual - expected).max() < 1e-4


@pytest.mark.parametrize("affine", ["none", "bias"])
@pytest.mark.parametrize("activation", ["none", "relu"])
def test_an_integer_kernel_serves_tokens(affine: str, activation: str) -> None:
    network = on_tokens(8, affine=affine, activation=activation)
    feed = {"input": images(network, 1, 0).numpy()}
    model = to_onnx(network).SerializeToString()
    kernels = SessionExecutable(OnnxRuntime().sessions, model, feed).operator_times(1)["linear"].kernels
    assert set(kernels) - {"Flatten", "Reshape"} == {"QGemm"}
    assert network.workload.operators[2].integer


@pytest.mark.parametrize("bits", [32, 8])
def test_frozen_tokens(bits: int) -> None:
    network = on_tokens(bits)
    x = images(network, 4, 2)
    with torch.inference_mode():
        expected, actual = network(x), freeze(network)(x)
    assert torch.allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("bits", [32, 8])
def test_tokens_alone(bits: int) -> None:
    operator = Operator("linear", 6, 10, (TOKENS, 1), (TOKENS, 1), weight_bits=bits, in_bits=bits, out_bits=bits)
    kind = np.float32 if bits == 32 else np.uint8
    (y,) = (
        OnnxRuntime().session(operator_to_onnx(operator, batch=2)).run(None, {"input0": np.ones((2, TOKENS, 6), kind)})
    )
    assert (y.shape, y.dtype) == ((2, TOKENS, 10), kind)


def test_slopes_on_tokens_are_refused() -> None:
    with pytest.raises(InvalidSpaceError, match="'ff' on tokens cannot have the activation 'prelu'"):
        LinearUnit(Operator("linear", 6, 10, (TOKENS, 1), (TOKENS, 1), activation="prelu", name="ff"))


# ---- slices and pads ------------------------------------------------------------------------------------------------


def test_slices_and_pads_by_hand() -> None:
    x = maps(2, 6, 4, 4)
    for o, expected in (
        (Operator("slice", 6, 2, (4, 4), (4, 4), front=3), x[:, 3:5]),
        (
            Operator("pad", 6, 9, (4, 4), (2, 2), stride=2, front=1),
            functional.pad(x[:, :, ::2, ::2], (0,) * 4 + (1, 2)),
        ),
    ):
        assert torch.equal(built(Workload.wire([replace(o, name="x")]))(x), expected)


def test_channels_that_there_are_not() -> None:
    for kind, cin, cout, front in (("slice", 6, 4, 3), ("slice", 6, 4, -1), ("pad", 6, 8, 3), ("pad", 6, 8, -1)):
        operator = Operator(kind, cin, cout, (4, 4), (4, 4), name="x", front=front)  # type: ignore[arg-type]
        with pytest.raises(InvalidSpaceError, match="'x' "):
            Network(Workload((operator,)), (6, 4, 4))


def test_slices_join_to_what_they_were_cut_from() -> None:
    parts = [("a", 0, 1), ("b", 1, 3), ("c", 4, 2)]
    fields: dict[str, Any] = {"in_size": (8, 8), "out_size": (8, 8)}
    for bits in (32, 8):
        low = {**fields, "in_bits": bits, "out_bits": bits}
        operators = [
            Operator("quantize", 6, 6, **fields, out_bits=bits, name="q"),
            *(Operator("slice", 6, n, **low, front=f, name=name, inputs=("q",)) for name, f, n in parts),
            Operator("concat", 6, 6, **low, name="join", inputs=("a", "b", "c")),
            Operator("activate", 6, 6, **fields, in_bits=bits, name="floats"),
        ]
        network = built(Workload.wire(operators))
        x = images(network, 3, 5)
        (y,) = OnnxRuntime().session(to_onnx(network)).run(None, {"input": x.numpy()})
        assert np.abs(y - network(x).detach().numpy()).max() < 1e-5
        assert bits == 8 or np.array_equal(y, x.numpy())
