"""Tensors, constants and nodes of an ONNX graph in QDQ form, as units read, store and write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hwnas.spaces.operator import Operator, stored_bits, table_size, weights_per_index
from hwnas.spaces.products import exchanged
from hwnas.spaces.quantizers import ActivationQuantizer, weight_scale

Bytes8 = Literal["int8", "uint8"]
"""How 8-bit weights are stored; some CPUs add products of uint8 and int8 with saturation, and then need uint8."""
ACTIVATIONS = "act_"
"""How the names of constants begin, after their operator's, that are no weights, biases, slopes or normalisations."""

_SIGNED = {4: TensorProto.INT4, 8: TensorProto.INT8}


@dataclass(slots=True)
class Value:
    """A tensor of the graph: its name, and scale and zero-point names when it holds integers."""

    tensor: str
    scale: str = ""
    zero: str = ""
    scale_value: float = 1.0


@dataclass(slots=True)
class Writer:
    """The nodes and constants of a graph.

    Attributes:
        weights_8bit, whole_bytes, opset: See `hwnas.spaces.onnx_graph.to_onnx`.
        values: What each operator wrote, and the graph's inputs.
        shapes: Of these tensors, the batch left out.
    """

    weights_8bit: Bytes8
    whole_bytes: bool
    opset: int
    values: dict[str, Value]
    shapes: dict[str, tuple[int, ...]]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)

    def read(self, operator: Operator, position: int) -> str:
        """The float tensor that an operator reads: integers pass through a DequantizeLinear of its own."""
        name, value = operator.name, self.values[operator.inputs[position]]
        tensor = value.tensor
        if operator.kind == "linear":
            tensor = self.node(name, "Flatten", [tensor], axis=-1 if operator.on_tokens else 1)
        if not value.scale:
            return tensor
        tensor = self.node(name, "DequantizeLinear", [tensor, value.scale, value.zero], step=f"dequantize{position}")
        return self.kept_float(operator, position, tensor) if operator.weight_bits > 8 and operator.weights else tensor

    def kept_float(self, operator: Operator, position: int, tensor: str) -> str:
        """A float tensor that an operator reads, such that its float weights stay as they are.

        ONNX Runtime rounds those that meet a DequantizeLinear to 8 bits; an unbounded Clip keeps them.
        """
        if not self.values[operator.inputs[position]].scale:
            return tensor
        return self.node(operator.name, "Clip", [tensor], step=f"keep_float{position}")

    def write(self, name: str, tensor: str, quantizer: ActivationQuantizer | None) -> None:
        """Makes a float tensor what the operator of that name writes, in integers where it has a quantiser."""
        if quantizer is None:
            self.values[name] = Value(tensor)
            return
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
        self.values[name] = Value(y, scale_name, zero_name, float(scale))

    def parameters(
        self, operator: Operator, weight: torch.Tensor, factor: torch.Tensor, bias: torch.Tensor | None
    ) -> list[str]:
        """Names of the weight and bias tensors. The folded weight is ``weight`` times ``factor`` per output channel.

        Weights of transposed convolutions are given as all others, (out, in of a group, …), and written as ONNX wants
        them, (in, out of a group, …). Of several groups, an output channel is no slice along one dimension of that:
        they are stored and turned to floats as they are given, and nodes bring them into the other order then.
        """
        name, bits = operator.name, operator.weight_bits
        biases = [] if bias is None else [bias.detach().numpy(force=True).astype(np.float32)]
        shape = (-1,) + (1,) * (weight.ndim - 1)
        if operator.shared:
            shared = self._shared_weight(operator, weight.numpy(force=True), factor.numpy(force=True))
            return [shared, *(self.constant(name, "bias", b) for b in biases)]
        if bits > 8:
            folded = weight * factor.reshape(shape)
            if operator.kind == "deconv":
                folded = exchanged(folded, operator.groups)
            return [
                self.constant(name, "weight", folded.numpy(force=True)),
                *(self.constant(name, "bias", b) for b in biases),
            ]
        base = weight_scale(weight, bits)
        integers = torch.round(weight / base.reshape(shape)) * factor.sign().reshape(shape)
        scale = (base * factor.abs()).detach().numpy(force=True)
        result = [self._quantized_weight(operator, integers.detach().numpy(force=True).astype(np.int32), scale)]
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

    def _quantized_weight(self, operator: Operator, integers: NDArray[np.int32], scale: NDArray[np.float32]) -> str:
        """Weights in integers as the floats that they stand for.

        Where an operator reads floats, they meet no DequantizeLinear, which runtimes keep for integer kernels and would
        compute at every inference, but operations that they compute once, when they load the file.
        """
        stored = 8 if self.whole_bytes else stored_bits(operator.weight_bits)
        turned = operator.kind == "deconv" and operator.groups == 1
        integers = integers.swapaxes(0, 1) if turned else integers
        weight = (self._widened_once if operator.in_bits > 8 else self._dequantized)(
            operator, integers, scale, stored, int(turned)
        )
        return self._exchanged(operator, weight) if operator.kind == "deconv" and not turned else weight

    def _widened_once(
        self, o: Operator, integers: NDArray[np.int32], scale: NDArray[np.float32], stored: int, axis: int
    ) -> str:
        weight = self._typed(o.name, "weight", _SIGNED[stored], integers)
        floats = self.node(o.name, "Cast", [weight], step="widen", to=TensorProto.FLOAT)
        along = [1] * integers.ndim
        along[axis] = -1
        scale_name = self.constant(o.name, "weight_scale", scale.reshape(along))
        return self.node(o.name, "Mul", [floats, scale_name], step="weight_scaled")

    def _dequantized(
        self, o: Operator, integers: NDArray[np.int32], scale: NDArray[np.float32], stored: int, axis: int
    ) -> str:
        name = o.name
        scale_name = self.constant(name, "weight_scale", scale)
        shifted = o.weight_bits == 8 and not o.depthwise and self.weights_8bit == "uint8"
        if shifted:
            weight = self._typed(name, "weight", TensorProto.UINT8, integers + 128)
        else:
            weight = self._typed(name, "weight", _SIGNED[stored], integers)
        if stored < 8:
            weight = self.node(name, "Cast", [weight], step="widen", to=TensorProto.INT8)
        zero = self.constant(
            name, "weight_zero", np.full(len(scale), 128 if shifted else 0, np.uint8 if shifted else np.int8)
        )
        return self.node(name, "DequantizeLinear", [weight, scale_name, zero], step="dequantize_weight", axis=axis)

    def _shared_weight(self, o: Operator, weight: NDArray[np.float32], factor: NDArray[np.float32]) -> str:
        """Float weights as a table and indices into it, of which runtimes make floats when they load the file.

        A factor per channel is one more step, as weights of different channels share values before it.
        """
        name, each, mask = o.name, weights_per_index(o.shared), (1 << o.shared) - 1
        values, indices = np.unique(weight, return_inverse=True)
        codebook = np.resize(values.astype(np.float32), mask + 1)
        shifts = o.shared * np.arange(each)
        packed = np.resize(indices, (-(-weight.size // each), each)) << shifts
        stored = TensorProto.UINT8 if self.whole_bytes or stored_bits(o.shared) == 8 else TensorProto.UINT4
        index = self.node(
            name, "Cast", [self._typed(name, "weight", stored, packed.sum(1))], step="widen", to=TensorProto.INT32
        )
        entries = np.arange(table_size(o.shared) // each)
        table = self.constant(name, "codebook", codebook[(entries[:, None] >> shifts) & mask])
        looked_up = self.node(name, "Gather", [table, index], step="look_up_weight")
        if weight.size % each:
            flat = self.node(name, "Reshape", [looked_up, self.integers(name, "flat", (-1,))], step="weight_flat")
            ends = [self.integers(name, step, (n,)) for step, n in (("first", 0), ("last", weight.size))]
            looked_up = self.node(name, "Slice", [flat, *ends], step="weight_cut")
        shape = self.integers(name, "shape", weight.shape)
        found = self.node(name, "Reshape", [looked_up, shape], step="weight_shaped")
        if o.affine == "norm":
            factors = self.constant(name, "weight_factor", factor.reshape(-1, *[1] * (weight.ndim - 1)))
            found = self.node(name, "Mul", [found, factors], step="weight_scaled")
        return self._exchanged(o, found) if o.kind == "deconv" else found

    def _exchanged(self, o: Operator, weight: str) -> str:
        """Weights (out, in of a group, h, w) as (in, out of a group, h, w); see `hwnas.spaces.products.exchanged`."""
        inner, outer = o.in_channels // o.groups, o.out_channels // o.groups
        if inner > 1 and outer > 1:
            apart = self.integers(o.name, "apart", (o.groups, outer, inner, *o.kernel_size))
            weight = self.node(o.name, "Reshape", [weight, apart], step="weight_apart")
            weight = self.node(o.name, "Transpose", [weight], step="weight_exchanged", perm=[0, 2, 1, 3, 4])
        shape = self.integers(o.name, "weight_shape", (o.in_channels, outer, *o.kernel_size))
        return self.node(o.name, "Reshape", [weight, shape], step="weight_reshaped")

    def levels_of_unit_interval(self, name: str) -> Value:
        """An input of integers 0 … 255 that stand for 0 … 1."""
        scale = self.constant(name, "act_scale", np.array(1 / 255, np.float32))
        return Value(name, scale, self.constant(name, "act_zero", np.array(0, np.uint8)), 1 / 255)

    def node(self, name: str, kind: str, inputs: list[str], *, step: str = "", **attributes: Any) -> str:
        """Adds a node called ``name/step`` (the node's kind where no step is given), and gives its output's name."""
        label = f"{name}/{step or kind.lower()}"
        self.nodes.append(helper.make_node(kind, inputs, [label], label, **attributes))
        return label

    def constant(self, name: str, step: str, array: NDArray[Any]) -> str:
        """Adds a constant called ``name/step``, and gives its name."""
        label = f"{name}/{step}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array, order="C"), label))
        return label

    def integers(self, name: str, step: str, values: Sequence[int]) -> str:
        """Adds a vector of integers, such as a shape."""
        return self.constant(name, f"{ACTIVATIONS}{step}", np.array(values, dtype=np.int64))

    def _typed(self, name: str, step: str, kind: int, array: NDArray[Any]) -> str:
        return self.constant(name, step, array.astype(helper.tensor_dtype_to_np_dtype(kind)))
