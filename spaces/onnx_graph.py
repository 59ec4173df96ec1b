"""A network as a standard ONNX graph: batch normalisation folded into products, low-bit layers in QDQ form.

Every node is called ``<operator>/<step>``, so that what a runtime does with the graph can be traced back to operators.

- Weights are stored in the narrowest ONNX integer type that holds them (INT4, INT8), cast to INT8 where narrower.
  Pruned weights are stored as zeros.
- A tensor of b bits is written by one QuantizeLinear of type UINT8. With b < 8 a Clip of the integers to 0 … 2^b − 1
  follows, so that exactly the torch module's levels remain and the layer before still fuses to an integer kernel.
- An integer layer has an INT32 bias of scale (input scale × weight scale), as integer kernels require.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

from hwnas.spaces.call_text import parse_call
from hwnas.spaces.network import Network
from hwnas.spaces.onnx_kinds import write_operator
from hwnas.spaces.onnx_writer import ACTIVATIONS, Bytes8, Value, Writer
from hwnas.spaces.operator import NETWORK_INPUT, Operator
from hwnas.spaces.quantizers import weight_scale
from hwnas.spaces.units import UNITS, ProductUnit

OPSET = 21
IR_VERSION = 10
OUTPUT = "logits"


def to_onnx(
    network: Network,
    *,
    weights_8bit: Bytes8 = "int8",
    whole_bytes: bool = False,
    metadata: dict[str, str] | None = None,
    opset: int = OPSET,
) -> onnx.ModelProto:
    """The network in evaluation mode as an ONNX model of input ``input`` (batch, c, h, w) and output ``logits``.

    Args:
        network: Trained, its quantisers' ranges set, its biases snapped (`snap_biases`): others round otherwise in the
            file than in the module.
        weights_8bit: Type of weights of exactly 8 bits in integer layers. As ``uint8`` they are shifted by their zero
            point 128, which changes no value.
        whole_bytes: Whether to store narrower weights as INT8, too, for runtimes that cannot read INT4, as ONNX Runtime
            1.22. Runtimes widen them when they load the file, so that the same kernels run.
        metadata: Text stored in the file.
        opset: ONNX's operator set, 18 or newer; 4-bit weights need 21.

    Raises:
        InvalidSpaceError: A ``call`` that torch cannot export.
    """
    graph = Writer(
        weights_8bit, whole_bytes, opset, {NETWORK_INPUT: Value(NETWORK_INPUT)}, {NETWORK_INPUT: network.input_shape}
    )
    for operator in network.workload.operators:
        write_operator(graph, operator, network.unit(operator))
    last = network.workload.operators[-1]
    graph.nodes.append(helper.make_node("Identity", [graph.values[last.name].tensor], [OUTPUT], f"{last.name}/output"))
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "hwnas",
            [helper.make_tensor_value_info(NETWORK_INPUT, TensorProto.FLOAT, ["batch", *network.input_shape])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", *graph.shapes[last.name]])],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=IR_VERSION,
        producer_name="hwnas",
    )
    helper.set_model_props(model, metadata or {})
    return model


@torch.no_grad()
def operator_to_onnx(operator: Operator, *, weights_8bit: Bytes8 = "int8", batch: int = 1) -> onnx.ModelProto:
    """One operator alone, with random weights, as a model that reads and writes what it does inside a network.

    Tensors of at most 8 bits are uint8. The inputs are called ``input0`` and, of operators that read more, ``input1``
    and so on. A concatenation reads as many as its ``inputs`` say, two at least, of about as many channels each. For
    what a ``call`` reads see `hwnas.spaces.call_text.Call.shapes`.

    Raises:
        InvalidSpaceError: A ``call`` that torch cannot export.
    """
    o = operator
    shapes = _input_shapes(o)
    names = tuple(f"{NETWORK_INPUT}{i}" for i in range(len(shapes)))
    unit = UNITS[o.kind](o)
    unit.train()(*(torch.rand(2, *shape) for shape in shapes))
    graph = Writer(weights_8bit, False, OPSET, {}, dict(zip(names, shapes, strict=True)))
    for name in names:
        graph.values[name] = graph.levels_of_unit_interval(name) if o.in_bits <= 8 else Value(name)
    write_operator(graph, replace(o, name="operator", inputs=names), unit.eval())
    (final,) = (v.tensor for name, v in graph.values.items() if name not in names)
    types = {True: TensorProto.UINT8, False: TensorProto.FLOAT}
    made = helper.make_graph(
        graph.nodes,
        "operator",
        [helper.make_tensor_value_info(n, types[o.in_bits <= 8], (batch, *graph.shapes[n])) for n in names],
        [helper.make_tensor_value_info(final, types[o.out_bits <= 8], (batch, *graph.shapes["operator"]))],
        graph.initializers,
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def _input_shapes(o: Operator) -> list[tuple[int, ...]]:
    """Of one image, shapes of the tensors that the operator reads."""
    first = (o.in_channels, *o.in_size)
    match o.kind:
        case "add":
            return [first] * 2
        case "scale":
            return [first, (o.in_channels, 1, 1)]
        case "concat":
            parts = max(2, len(o.inputs))
            return [(o.in_channels // parts + (i < o.in_channels % parts), *o.in_size) for i in range(parts)]
        case "call":
            return list(parse_call(o.call).shapes(o.in_channels, o.in_size))
        case "linear" if o.on_tokens:
            return [(o.in_size[0] * o.in_size[1], o.in_channels)]
    return [first]


@torch.no_grad()
def snap_biases(network: Network) -> None:
    """Rounds the biases of integer layers, in place, to the steps that their INT32 form in the file has.

    A step is input scale × weight scale, far below a step of the output; without this a few outputs per thousand would
    round the other way in the file than in the module.
    """
    scales: dict[str, float] = {}
    for operator in network.workload.operators:
        unit = network.unit(operator)
        if unit.quantizer is not None:
            scales[operator.name] = float(unit.quantizer.scale_and_zero_point()[0])
        elif operator.moves_integers:
            scales[operator.name] = scales[operator.inputs[0]]
        if not isinstance(unit, ProductUnit) or not operator.integer or operator.affine == "none":
            continue
        weight, factor, bias = unit.folded()
        target = unit.layer.bias if unit.norm is None else unit.norm.bias
        assert bias is not None
        assert target is not None
        step = scales[operator.inputs[0]] * weight_scale(weight, operator.weight_bits) * factor.abs()
        target += torch.where(step > 0, torch.round(bias / step) * step - bias, 0.0)


def weight_bytes(model: onnx.ModelProto) -> int:
    """Bytes of the file's weights and biases with their scales and zero points, slopes, normalisations and constants.

    Scales of activations, bounds, shapes and matrices of Hadamard transforms are not counted.
    """
    return sum(
        -(-int(np.prod(t.dims)) * _BITS[t.data_type] // 8)
        for t in model.graph.initializer
        if not t.name.rpartition("/")[2].startswith(ACTIVATIONS)
    )


_BITS = {
    TensorProto.FLOAT: 32, TensorProto.INT32: 32, TensorProto.INT8: 8, TensorProto.UINT8: 8, TensorProto.INT4: 4,
    TensorProto.UINT4: 4, TensorProto.DOUBLE: 64, TensorProto.FLOAT16: 16, TensorProto.BFLOAT16: 16,
    TensorProto.INT64: 64, TensorProto.INT16: 16, TensorProto.BOOL: 8,
}  # fmt: skip
