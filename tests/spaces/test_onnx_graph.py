"""The exported file computes what the torch module computes, in ONNX Runtime, and is as small as promised."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from hwnas.latency_tables.runtimes.onnxruntime import OnnxRuntime
from hwnas.spaces import Space, load_space
from hwnas.spaces.decision import Option
from hwnas.spaces.network import Network
from hwnas.spaces.onnx_graph import snap_biases, to_onnx, weight_bytes
from hwnas.spaces.operator import Operator
from hwnas.spaces.space import Rows
from hwnas.spaces.units import ConvUnit, LinearUnit
from hwnas.spaces.variation import sample_coherent

SHAPES = ((1, 8, 8), (3, 32, 32))
IMAGES = 24


@cache
def space_of(shape: tuple[int, int, int]) -> Space:
    return load_space("mbconv", input_shape=shape, num_classes=10)


def lived_in(network: Network, seed: int) -> Network:
    """Parameters and batch statistics as after some training: scales of both signs, ranges that fit."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for unit in network.units.values():
            if isinstance(unit, ConvUnit) and unit.norm is not None:
                n = len(unit.norm.weight)
                sign = torch.where(torch.rand(n, generator=g) < 0.2, -1.0, 1.0)
                unit.norm.weight.copy_((torch.rand(n, generator=g) + 0.5) * sign)
                unit.norm.bias.copy_(torch.randn(n, generator=g) * 0.3)
            elif isinstance(unit, ConvUnit) and unit.conv.bias is not None:
                unit.conv.bias.copy_(torch.randn(len(unit.conv.bias), generator=g) * 0.3)
            elif isinstance(unit, LinearUnit):
                unit.linear.weight.copy_(torch.randn(unit.linear.weight.shape, generator=g) * 0.3)
                unit.linear.bias.copy_(torch.randn(len(unit.linear.bias), generator=g) * 0.3)
        for _ in range(3):
            network.train()(torch.randn(16, *network.input_shape, generator=g))
    return network.eval()


def built(space: Space, row: Rows, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    return lived_in(space.build(space.decode(row)), seed)


def in_precision(space: Space, weight_bits: int, act_bits: int) -> Rows:
    """The reference network in one precision, first and last layer in 8 bits where they lack it, with one squeeze."""
    values: dict[str, Option] = dict(space.reference())
    for decision in space.decisions:
        if decision.name.endswith("_bits"):
            wanted = weight_bits if decision.name.endswith(".weight_bits") else act_bits
            values[decision.name] = wanted if wanted in decision.options else 8
    return space.encode({**values, "s2b1.se": 0.25})


def candidates(space: Space, act_bits: tuple[int, ...]) -> Rows:
    """Random rows, half of them coherent, with activations of some bits only."""
    rng = np.random.default_rng(3)
    rows = np.concatenate([space.sample(rng, 5), sample_coherent(space, rng, 5)])
    for column, decision in enumerate(space.decisions):
        if decision.name.endswith(".act_bits"):
            bad = [i for i, bits in enumerate(decision.options) if bits not in act_bits]
            good = [i for i, bits in enumerate(decision.options) if bits in act_bits]
            wrong = np.isin(rows[:, column], bad)
            rows[wrong, column] = rng.choice(good, size=int(wrong.sum()))
    return space.canonical(rows)


def difference(network: Network, model: onnx.ModelProto) -> np.ndarray:
    """Largest difference of each image's logits, relative to the spread of the logits. Shape (images,)."""
    x = torch.randn(IMAGES, *network.input_shape, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        expected = network(x).numpy()
    (actual,) = OnnxRuntime().session(model).run(None, {"input": x.numpy()})
    assert actual.shape == expected.shape
    return np.asarray(np.abs(actual - expected).max(axis=1) / expected.std())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("act_bits", [(8, 32), (4, 8, 32)], ids=str)
def test_the_file_computes_what_the_module_computes(shape: tuple[int, int, int], act_bits: tuple[int, ...]) -> None:
    space = space_of(shape)
    differences = []
    for seed, row in enumerate(candidates(space, act_bits)):
        network = built(space, row, seed)
        snap_biases(network)
        model = to_onnx(network, weights_8bit="uint8")
        onnx.checker.check_model(model, full_check=True)
        assert weight_bytes(model) == network.workload.weight_bytes
        differences.append(difference(network, model))
    # Integer kernels add exactly and torch in float32, so that a value at a tie may round to the other side.
    assert np.mean(np.array(differences) < 1e-3) >= 0.95
    assert np.median(differences, axis=1).max() < 1e-3
    assert np.max(differences) < 0.6


def test_float_networks_agree_to_the_last_digits() -> None:
    space = load_space("mbconv", input_shape=(3, 32, 32), num_classes=10, joint=("sparsity", "rank"))
    for seed, row in enumerate(space.sample(np.random.default_rng(0), 3)):
        network = built(space, row, seed)
        model = to_onnx(network)
        assert difference(network, model).max() < 1e-4
        assert {t.data_type for t in model.graph.initializer} == {TensorProto.FLOAT}


def test_snapped_biases_move_by_less_than_half_a_step_and_only_once() -> None:
    space = space_of((1, 8, 8))
    network = built(space, in_precision(space, 8, 8))
    before = {k: v.clone() for k, v in network.state_dict().items()}
    snap_biases(network)
    once = {k: v.clone() for k, v in network.state_dict().items()}
    snap_biases(network)
    twice = network.state_dict()
    moved = [k for k in before if not torch.equal(before[k], once[k])]
    integer = [o for o in network.workload.operators if o.integer and o.weights and o.affine != "none"]
    assert len(moved) == len(integer) > 15
    for name in moved:
        assert name.endswith(".bias")
        assert (once[name] - before[name]).abs().max() < 0.01
        assert torch.allclose(once[name], twice[name], atol=1e-6)
    model = to_onnx(network)
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    for o in integer:
        assert arrays[f"{o.name}/bias"].dtype == np.int32
        unit = network.unit(o)
        if isinstance(unit, LinearUnit):
            stored = arrays[f"{o.name}/bias"] * arrays[f"{o.name}/bias_scale"]
            assert np.allclose(stored, unit.linear.bias.detach().numpy(), rtol=1e-5, atol=1e-7)


def test_batch_normalisation_is_gone() -> None:
    space = space_of((1, 8, 8))
    network = built(space, in_precision(space, 8, 8))
    assert any(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    model = to_onnx(network)
    kinds = Counter(n.op_type for n in model.graph.node)
    assert "BatchNormalization" not in kinds
    assert kinds["Conv"] == sum(o.kind == "conv" for o in network.workload.operators)
    assert kinds["Gemm"] == 1
    assert not [t.name for t in model.graph.initializer if "norm" in t.name or "running" in t.name]


def test_every_node_carries_the_name_of_its_operator() -> None:
    space = space_of((1, 8, 8))
    for row in space.sample(np.random.default_rng(2), 5):
        network = built(space, row)
        names = {o.name for o in network.workload.operators}
        nodes = [n.name for n in to_onnx(network).graph.node]
        assert len(set(nodes)) == len(nodes)
        assert {name.rpartition("/")[0] for name in nodes} == names


def initializer(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(t for t in model.graph.initializer if t.name == name)


def inner(network: Network) -> list[Operator]:
    """Convolutions other than the first, whose edge precision is their own, and the squeeze, which stays float."""
    return [o for o in network.workload.operators if o.kind == "conv" and o.name != "stem" and ".se_" not in o.name]


def test_4_bit_weights_are_int4_in_the_file_and_half_the_bytes(tmp_path: Path) -> None:
    space = space_of((1, 8, 8))
    models = {bits: to_onnx(built(space, in_precision(space, bits, 8))) for bits in (4, 8)}
    network = built(space, in_precision(space, 4, 8))
    for o in inner(network):
        low, high = (initializer(models[bits], f"{o.name}/weight") for bits in (4, 8))
        assert (low.data_type, high.data_type) == (TensorProto.INT4, TensorProto.INT8)
        assert list(low.dims) == list(high.dims)
        values = onnx.numpy_helper.to_array(low).astype(np.int32)
        assert values.min() >= -7
        assert values.max() <= 7
        assert np.abs(values).reshape(len(values), -1).max(axis=1).min() == 7, "every channel uses its range"
    sizes = {}
    for bits, model in models.items():
        onnx.save(model, tmp_path / f"{bits}.onnx")
        sizes[bits] = (tmp_path / f"{bits}.onnx").stat().st_size
    weights = sum(o.weights for o in inner(network))
    saved_in_theory = weight_bytes(models[8]) - weight_bytes(models[4])
    assert saved_in_theory == pytest.approx(weights / 2, rel=0.001)
    assert sizes[8] - sizes[4] > 0.9 * saved_in_theory, "the file really is smaller"


@pytest.mark.parametrize("bits", [4, 8, 32])
def test_a_weight_takes_its_bits_in_the_file_and_no_more(bits: int) -> None:
    network = built(space_of((3, 32, 32)), in_precision(space_of((3, 32, 32)), bits, 8))
    for weights_8bit in ("int8", "uint8"):
        model = to_onnx(network, weights_8bit=weights_8bit)
        stored = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
        assert stored == pytest.approx(weight_bytes(model), rel=0.05)
        assert sum(tensor.ByteSize() for tensor in model.graph.initializer) < stored + 100 * len(
            model.graph.initializer
        )


@pytest.mark.parametrize(("bits", "level"), [(4, 7), (7, 63), (8, 127)])
def test_integers_in_the_file_are_the_modules_levels(bits: int, level: int) -> None:
    space = space_of((1, 8, 8))
    network = built(space, in_precision(space, bits, 8))
    model = to_onnx(network)
    for o in inner(network):
        values = onnx.numpy_helper.to_array(initializer(model, f"{o.name}/weight")).astype(np.int32)
        assert np.abs(values).max() == level


def test_uint8_weights_are_the_same_numbers_shifted() -> None:
    space = space_of((1, 8, 8))
    network = built(space, in_precision(space, 8, 8))
    signed, unsigned = to_onnx(network, weights_8bit="int8"), to_onnx(network, weights_8bit="uint8")
    shifted = 0
    for o in inner(network):
        a, b = (onnx.numpy_helper.to_array(initializer(m, f"{o.name}/weight")) for m in (signed, unsigned))
        zero = onnx.numpy_helper.to_array(initializer(unsigned, f"{o.name}/weight_zero"))
        assert a.dtype == np.int8
        assert (b.dtype, zero.dtype) == ((np.int8, np.int8) if o.depthwise else (np.uint8, np.uint8))
        assert np.array_equal(a.astype(int), b.astype(int) - zero.astype(int).reshape(-1, 1, 1, 1))
        shifted += b.dtype == np.uint8
    assert shifted > 10
    assert weight_bytes(signed) == weight_bytes(unsigned)


@pytest.mark.parametrize("act_bits", [4, 8])
def test_activations_use_as_many_levels_as_they_have(act_bits: int) -> None:
    space = space_of((1, 8, 8))
    network = built(space, in_precision(space, 8, act_bits))
    model = to_onnx(network, weights_8bit="uint8")
    watched = [o for o in network.workload.operators if o.kind == "conv" and o.out_bits == act_bits]
    assert len(watched) > 10
    last = "clip" if act_bits < 8 else "quantize"
    for o in watched:
        model.graph.output.append(onnx.helper.make_tensor_value_info(f"{o.name}/{last}", TensorProto.UINT8, None))
    session = OnnxRuntime().session(model)
    x = np.random.default_rng(0).normal(scale=20, size=(8, 1, 8, 8)).astype(np.float32)  # far out of range
    _, *tensors = session.run(None, {"input": x})
    assert max(t.max() for t in tensors) == 2**act_bits - 1
    assert all(t.dtype == np.uint8 for t in tensors)


def test_the_batch_is_free_and_metadata_is_kept() -> None:
    space = space_of((1, 8, 8))
    network = built(space, in_precision(space, 8, 8))
    model = to_onnx(network, metadata={"candidate": "{}"})
    assert {p.key: p.value for p in model.metadata_props} == {"candidate": "{}"}
    session = OnnxRuntime().session(model)
    x = np.random.default_rng(0).random((5, 1, 8, 8), dtype=np.float32)
    (together,) = session.run(None, {"input": x})
    apart = np.concatenate([session.run(None, {"input": x[i : i + 1]})[0] for i in range(5)])
    assert together.shape == (5, 10)
    assert np.array_equal(together, apart)
    assert [o.name for o in session.get_outputs()] == ["logits"]


def test_exporting_does_not_change_the_network() -> None:
    space = space_of((1, 8, 8))
    network = built(space, in_precision(space, 4, 4))
    before = {k: v.clone() for k, v in network.state_dict().items()}
    first, again = to_onnx(network), to_onnx(network)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert first.SerializeToString(deterministic=True) == again.SerializeToString(deterministic=True)
