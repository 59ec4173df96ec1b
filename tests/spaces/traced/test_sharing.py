"""Layers of a trained model whose weights share a few values: what is decided, stored, computed and learnt."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import onnxruntime
import pytest
import torch

from hwnas.predictors.lowering import lower_space
from hwnas.spaces.calibration import recalibrate
from hwnas.spaces.catalog import load_space
from hwnas.spaces.compression.weight_sharing import share_weights
from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.network import Network
from hwnas.spaces.onnx_graph import snap_biases, to_onnx, weight_bytes
from hwnas.spaces.traced.model import TracedModel, trace_model
from hwnas.spaces.traced.space import TracedSpace
from hwnas.spaces.traced.weights import Evidence, compressed
from hwnas.spaces.unit import set_rounding
from hwnas.spaces.units import ProductUnit
from tests.spaces.traced.models import MODELS, SHAPE, settled

JOINT = {
    "weight_bits": [8, 32], "act_bits": [8, 32], "edge_bits": [8, 32], "density": [0.5, 1.0], "shared": [2, 3, 5, 32],
    "rank": [0.5, 1.0],
}  # fmt: skip


def traced(name: str, joint: dict[str, Any]) -> tuple[TracedModel, TracedSpace]:
    model = trace_model(settled(MODELS[name]()), torch.zeros(1, *SHAPE))
    return model, model.space(joint)


def images(n: int) -> torch.Tensor:
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(1))


def network_of(model: TracedModel, space: TracedSpace, changes: dict[str, Any]) -> Network:
    known = Evidence(dict.fromkeys(space.channels.segment_of, 1.0))
    return compressed(space, {**space.reference(), **changes}, model.state, known)


def sharers(network: Network) -> list[ProductUnit]:
    units = [network.unit(o) for o in network.workload.operators]
    return [unit for unit in units if isinstance(unit, ProductUnit) and unit.sharer is not None]


@pytest.mark.parametrize("name", MODELS)
def test_the_file_has_few_values_and_computes_what_the_network_computes(name: str) -> None:
    model, space = traced(name, JOINT)
    rng = np.random.default_rng(0)
    shared = {n: int(rng.choice([2, 3, 5])) for n in space.options if n.endswith(".shared")}
    network = network_of(model, space, shared)
    recalibrate(network, [images(8)])
    snap_biases(network)
    units = sharers(network)
    assert len(units) == len(shared)
    for unit in units:
        assert len(unit.rounded().unique()) <= 2**unit.operator.shared
    with torch.no_grad():
        expected = network(images(3)).numpy()
    for whole, opset in ((False, 21), (True, 18)):
        file = to_onnx(network, whole_bytes=whole, opset=opset)
        session = onnxruntime.InferenceSession(file.SerializeToString(), providers=["CPUExecutionProvider"])
        (actual,) = session.run(None, {"input": images(3).numpy()})
        assert np.abs(actual - expected).max() <= 1e-4 * max(1.0, np.abs(expected).std())
        if not whole:
            assert weight_bytes(file) == network.workload.weight_bytes
            assert network.workload.weight_bytes < space.workload(space.reference()).weight_bytes


def test_a_layer_shares_what_is_neither_rounded_nor_pruned() -> None:
    model, space = traced("resnet", JOINT)
    layer = "layer1.0.conv1"
    for changes, shared in (
        ({}, 3),
        ({f"{layer}.weight_bits": 8}, 0),
        ({f"{layer}.density": 0.5}, 0),
        ({f"{layer}.rank": 0.5}, 3),
    ):
        network = network_of(model, space, {f"{layer}.shared": 3, **changes})
        own = [o for o in network.workload.operators if o.name in (layer, f"{layer}_in")]
        assert [o.shared for o in own] == [shared] * (1 + (f"{layer}.rank" in changes))
    alike = [space.encode({**space.reference(), f"{layer}.weight_bits": 8, f"{layer}.shared": s}) for s in (2, 32)]
    assert (alike[0] == alike[1]).all(), "a decision that does not matter has one form"


def test_sharing_makes_a_network_smaller_and_runs_the_same_operators() -> None:
    _, space = traced("resnet", JOINT)
    layer = "layer1.0.conv1"
    whole, shared = (space.workload({**space.reference(), f"{layer}.shared": s}) for s in (32, 2))
    assert shared.operators == whole.operators
    weights = next(o.weights for o in whole.operators if o.name == layer)
    channels = next(o.out_channels for o in whole.operators if o.name == layer)
    table, factors = 4 * 32, 4 * channels
    assert whole.weight_bytes - shared.weight_bytes == 4 * weights - (weights // 4 + table + factors)
    lowering = lower_space(space)
    slot = next(i for i, slot in enumerate(space.slots) if slot.group == layer)
    assert lowering.slots[slot].weight_bytes.min() < shared.weight_bytes < whole.weight_bytes


def test_values_are_chosen_when_rounding_begins_and_stay_shared_while_they_are_learnt() -> None:
    model, space = traced("resnet", JOINT)
    network = network_of(model, space, {"layer1.0.conv1.shared": 2}).train()
    (unit,) = sharers(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)

    def learn() -> None:
        optimizer.zero_grad()
        network(images(8)).square().mean().backward()
        optimizer.step()

    learn()
    first = unit.sharer.indices.clone()  # type: ignore[union-attr]
    set_rounding(network, False)
    assert torch.equal(unit.rounded(), unit.by_output())
    with torch.no_grad():
        unit.layer.weight.copy_(-unit.layer.weight)
    learn()
    set_rounding(network, True)
    floats = unit.by_output().detach().clone()
    learn()
    _, expected = share_weights(floats, 2, torch.Generator().manual_seed(0))
    indices = unit.sharer.indices  # type: ignore[union-attr]
    assert torch.equal(indices, expected)
    assert not torch.equal(indices, first)
    before = unit.rounded().detach().clone()
    learn()
    assert not torch.equal(unit.rounded(), before), "shared values are learnt"
    for group in range(4):
        assert len(unit.rounded()[indices == group].unique()) == 1
    again = network_of(model, space, {"layer1.0.conv1.shared": 2})
    again.load_state_dict(network.state_dict())
    assert torch.equal(cast(ProductUnit, sharers(again)[0]).rounded(), unit.rounded())


@pytest.mark.parametrize("name", MODELS)
def test_networks_learn_on(name: str) -> None:
    model, space = traced(name, {"shared": [2, 32]})
    shared = {n: 2 for n in space.options if n.endswith(".shared")}
    network = network_of(model, space, shared).train()
    network(images(4)).square().mean().backward()
    trained = [p.grad for p in network.parameters() if p.grad is not None]
    assert trained
    assert all(g.isfinite().all() for g in trained)


def test_other_spaces_share_nothing() -> None:
    with pytest.raises(InvalidSpaceError, match=r"joint\.shared: weights are shared in spaces of trained models alone"):
        load_space("mbconv", joint={"shared": [4, 32]})
