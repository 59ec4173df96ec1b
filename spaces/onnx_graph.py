"""A network as a standard ONNX graph: batch normalisation folded, low-bit layers in QDQ form.

Every node is called ``<operator>/<step>``, so that what a runtime does with the graph can be traced back to operators.

- Weights are stored in the narrowest ONNX integer type that holds them (INT4, INT8), cast to INT8 where narrower.
- A tensor of b bits is written by one QuantizeLinear of type UINT8. With b < 8 a Clip of the integers to 0 … 2^b − 1
  follows, so that exactly the torch module's levels remain and the layer before still fuses to an integer kernel.
- An integer layer has an INT32 bias of scale (input scale × weight scale), as integer kernels require.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hwnas.spaces.network import UNITS, ConvUnit, LinearUnit, Network, Unit
from hwnas.spaces.operator import NETWORK_INPUT, Operator, stored_bits
from hwnas.spaces.quantizers import weight_scale

OPSET = 21
IR_VERSION = 10
OUTPUT = "logits"

Bytes8 = Literal["int8", "uint8"]
"""How 8-bit weights are stored; some CPUs add products of uint8 and int8 with saturation, and then need uint8."""


def to_onnx(
    network: Network,
    *,
    weights_8bit: Bytes8 = "int8",
    whole_bytes: bool = False,
    metadata: dict[str, str] | None = None,
) -> onnx.ModelProto:
    """The network in evaluation mode as an ONNX model of input ``input`` (batch, c, h, w) and output ``logits``.

    Args:
        network: Trained, its quantisers' ranges set.
        weights_8bit: Type of weights of exactly 8 bits in integer layers. As ``uint8`` they are shifted by their zero
            point 128, which changes no value.
        whole_bytes: Whether to store narrower weights as INT8, too, for runtimes that cannot read INT4, as ONNX Runtime
            1.22. Runtimes widen them when they load the file, so that the same kernels run.
        metadata: Text stored in the file.
    """
    graph = _Graph(weights_8bit, whole_bytes, {NETWORK_INPUT: _Value(NETWORK_INPUT)})
    for operator in network.workload.operators:
        graph.add(operator, network.unit(operator))
    last = network.workload.operators[-1]
    graph.nodes.append(helper.make_node("Identity", [graph.values[last.name].tensor], [OUTPUT], f"{last.name}/output"))
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "hwnas",
            [helper.make_tensor_value_info(NETWORK_INPUT, TensorProto.FLOAT, ["batch", *network.input_shape])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", last.out_channels])],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="hwnas",
    )
    helper.set_model_props(model, metadata or {})
    return model


@torch.no_grad()
def operator_to_onnx(operator: Operator, *, weights_8bit: Bytes8 = "int8", batch: int = 1) -> onnx.ModelProto:
    """One operator alone, with random weights, as a model that reads and writes what it does inside a network.

    Tensors of at most 8 bits are uint8. The inputs are called ``input0`` and, of an addition or a gate, ``input1``.
    """
    o = operator
    shapes = [(batch, o.in_channels, *o.in_size)]
    if o.kind in ("add", "scale"):
        shapes.append(shapes[0] if o.kind == "add" else (batch, o.in_channels, 1, 1))
    names = tuple(f"{NETWORK_INPUT}{i}" for i in range(len(shapes)))
    unit = UNITS[o.kind](o)
    unit.train()(*(torch.rand(shape) for shape in shapes))
    graph = _Graph(weights_8bit, whole_bytes=False, values={})
    for name in names:
        graph.values[name] = graph.levels_of_unit_interval(name) if o.in_bits <= 8 else _Value(name)
    graph.add(replace(o, name="operator", inputs=names), unit.eval())
    (final,) = (v.tensor for name, v in graph.values.items() if name not in names)
    types = {True: TensorProto.UINT8, False: TensorProto.FLOAT}
    made = helper.make_graph(
        graph.nodes,
        "operator",
        [helper.make_tensor_value_info(n, types[o.in_bits <= 8], s) for n, s in zip(names, shapes, strict=True)],
        [helper.make_tensor_value_info(final, types[o.out_bits <= 8], None)],
        graph.initializers,
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


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
        if not operator.weights or not operator.integer or operator.affine == "none":
            continue
        step = torch.as_tensor(scales[operator.inputs[0]])
        if isinstance(unit, ConvUnit):
            weight, factor, bias = unit.folded()
            assert bias is not None
            step = step * weight_scale(weight, operator.weight_bits) * factor.abs()
            target = unit.conv.bias if unit.norm is None else unit.norm.bias
        else:
            assert isinstance(unit, LinearUnit)
            bias = target = unit.linear.bias
            step = step * weight_scale(unit.linear.weight, operator.weight_bits)
        assert target is not None
        target += torch.where(step > 0, torch.round(bias / step) * step - bias, 0.0)


def weight_bytes(model: onnx.ModelProto) -> int:
    """Bytes of the file's weights and biases with their scales and zero points; those of activations excluded."""
    return sum(
        -(-int(np.prod(t.dims)) * _BITS[t.data_type] // 8)
        for t in model.graph.initializer
        if not t.name.rpartition("/")[2].startswith("act_")
    )


_BITS = {
    TensorProto.FLOAT: 32, TensorProto.INT32: 32, TensorProto.INT8: 8, TensorProto.UINT8: 8, TensorProto.INT4: 4,
}  # fmt: skip
_SIGNED = {4: TensorProto.INT4, 8: TensorProto.INT8}


@dataclass(slots=True)
class _Value:
    """A tensor of the graph: its name, and scale and zero-point names when it holds integers."""

    tensor: str
    scale: str = ""
    zero: str = ""
    scale_value: float = 1.0


@dataclass(slots=True)
class _Graph:
    weights_8bit: Bytes8
    whole_bytes: bool
    values: dict[str, _Value]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)

    def add(self, operator: Operator, unit: Unit) -> None:
        name = operator.name
        inputs = [self.read(operator, self.values[source], i) for i, source in enumerate(operator.inputs)]
        match operator.kind:
            case "conv":
                assert isinstance(unit, ConvUnit)
                o = operator
                parameters = self.parameters(operator, *unit.folded())
                y = self.node(name, "Conv", [*inputs, *parameters], kernel_shape=[o.kernel] * 2, strides=[o.stride] * 2,
                              pads=[o.kernel // 2] * 4, group=o.groups)  # fmt: skip
            case "linear":
                assert isinstance(unit, LinearUnit)
                weight, bias = unit.linear.weight, unit.linear.bias
                parameters = self.parameters(operator, weight, torch.ones(len(weight)), bias)
                y = self.node(name, "Gemm", [*inputs, *parameters], transB=1)
            case "pool":
                y = self.node(name, "GlobalAveragePool", inputs)
            case "add":
                y = self.node(name, "Add", inputs)
            case "scale":
                y = self.node(name, "Mul", inputs)
            case "quantize":
                y = inputs[0]
        if operator.activation != "none":
            y = self.node(name, {"relu": "Relu", "sigmoid": "Sigmoid"}[operator.activation], [y])
        self.values[name] = self.write(name, y, unit)

    def read(self, operator: Operator, value: _Value, position: int) -> str:
        """The float tensor that an operator reads: integers pass through a DequantizeLinear of its own."""
        name, tensor = operator.name, value.tensor
        if operator.kind == "linear":
            tensor = self.node(name, "Flatten", [tensor], axis=1)
        if not value.scale:
            return tensor
        tensor = self.node(name, "DequantizeLinear", [tensor, value.scale, value.zero], step=f"dequantize{position}")
        if operator.weight_bits > 8 and operator.weights:
            # ONNX Runtime rounds float weights that meet a DequantizeLinear to 8 bits; an unbounded Clip keeps them.
            tensor = self.node(name, "Clip", [tensor], step="keep_float")
        return tensor

    def write(self, name: str, tensor: str, unit: Unit) -> _Value:
        quantizer = unit.quantizer
        if quantizer is None:
            return _Value(tensor)
        scale, zero = quantizer.scale_and_zero_point()
        scale_name = self.constant(name, "act_scale", scale.numpy(force=True))
        zero_name = self.constant(name, "act_zero", zero.numpy(force=True).astype(np.uint8))
        y = self.node(name, "QuantizeLinear", [tensor, scale_name, zero_name], step="quantize")
        if quantizer.bits < 8:
            bounds = [
                self.constant(name, f"act_{n}", np.array(v, dtype=np.uint8))
                for n, v in (("low", 0), ("high", quantizer.levels))
            ]
            y = self.node(name, "Clip", [y, *bounds])
        return _Value(y, scale_name, zero_name, float(scale))

    def parameters(
        self, operator: Operator, weight: torch.Tensor, factor: torch.Tensor, bias: torch.Tensor | None
    ) -> list[str]:
        """Names of the weight and bias tensors. The folded weight is ``weight`` times ``factor`` per output channel."""
        name, bits = operator.name, operator.weight_bits
        biases = [] if bias is None else [bias.detach().numpy(force=True).astype(np.float32)]
        shape = (-1,) + (1,) * (weight.ndim - 1)
        if bits > 8:
            folded = (weight * factor.reshape(shape)).detach().numpy(force=True)
            return [self.constant(name, "weight", folded), *(self.constant(name, "bias", b) for b in biases)]
        base = weight_scale(weight, bits)
        integers = torch.round(weight / base.reshape(shape)) * factor.sign().reshape(shape)
        scale = (base * factor.abs()).detach().numpy(force=True)
        result = [self.quantized_weight(operator, integers.detach().numpy(force=True).astype(np.int32), scale)]
        source = self.values[operator.inputs[0]]
        for b in biases:
            if operator.integer:
                bias_scale = (scale * np.float32(source.scale_value)).astype(np.float32)
                rounded = np.clip(np.rint(b / bias_scale), -(2**31) + 1, 2**31 - 1).astype(np.int32)
                tensors = [self.constant(name, "bias", rounded), self.constant(name, "bias_scale", bias_scale)]
                result.append(self.node(name, "DequantizeLinear", tensors, step="dequantize_bias", axis=0))
            else:
                result.append(self.constant(name, "bias", b))
        return result

    def quantized_weight(self, operator: Operator, integers: NDArray[np.int32], scale: NDArray[np.float32]) -> str:
        name, stored = operator.name, 8 if self.whole_bytes else stored_bits(operator.weight_bits)
        scale_name = self.constant(name, "weight_scale", scale)
        shifted = operator.weight_bits == 8 and not operator.depthwise and self.weights_8bit == "uint8"
        if shifted:
            weight = self.typed(name, "weight", TensorProto.UINT8, integers + 128)
        else:
            weight = self.typed(name, "weight", _SIGNED[stored], integers)
        if stored < 8:
            weight = self.node(name, "Cast", [weight], step="widen", to=TensorProto.INT8)
        zero = self.constant(
            name, "weight_zero", np.full(len(scale), 128 if shifted else 0, np.uint8 if shifted else np.int8)
        )
        return self.node(name, "DequantizeLinear", [weight, scale_name, zero], step="dequantize_weight", axis=0)

    def levels_of_unit_interval(self, name: str) -> _Value:
        """An input of integers 0 … 255 that stand for 0 … 1."""
        scale = self.constant(name, "act_scale", np.array(1 / 255, np.float32))
        return _Value(name, scale, self.constant(name, "act_zero", np.array(0, np.uint8)), 1 / 255)

    def node(self, name: str, kind: str, inputs: list[str], *, step: str = "", **attributes: Any) -> str:
        label = f"{name}/{step or kind.lower()}"
        self.nodes.append(helper.make_node(kind, inputs, [label], label, **attributes))
        return label

    def constant(self, name: str, step: str, array: NDArray[Any]) -> str:
        label = f"{name}/{step}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array, order="C"), label))
        return label

    def typed(self, name: str, step: str, kind: int, array: NDArray[Any]) -> str:
        return self.constant(name, step, array.astype(helper.tensor_dtype_to_np_dtype(kind)))
