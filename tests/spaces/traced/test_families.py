from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from hwnas.spaces.calibration import recalibrate
from hwnas.spaces.catalog import space_from_spec
from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.onnx_graph import snap_biases, to_onnx
from hwnas.spaces.traced.graph import PRODUCTS
from hwnas.spaces.traced.model import TracedModel, load_model, trace_model
from hwnas.spaces.traced.space import TracedSpace
from hwnas.spaces.traced.weights import Evidence, compressed
from tests.spaces.traced.models import CLASSES, MODELS, SHAPE, settled

JOINT = {
    "weight_bits": [4, 8, 32], "act_bits": [8, 32], "edge_bits": [8, 32], "keep": [0.5, 0.75, 1.0], "rank": [0.5, 1.0],
    "density": [0.5, 1.0],
}  # fmt: skip


@pytest.fixture(scope="module", params=list(MODELS))
def family(request: pytest.FixtureRequest) -> tuple[torch.nn.Module, TracedModel, TracedSpace]:
    module = settled(MODELS[request.param]())
    model = trace_model(module, torch.zeros(1, *SHAPE))
    return module, model, model.space(JOINT)


def images(n: int) -> torch.Tensor:
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(1))


def evidence(space: TracedSpace) -> Evidence:
    rng = np.random.default_rng(0)
    return Evidence({bundle: float(rng.random()) for bundle in space.channels.segment_of})


def test_the_traced_network_computes_what_the_module_computes(family) -> None:
    module, model, _ = family
    for n in (1, 5):
        with torch.no_grad():
            torch.testing.assert_close(model.network(images(n)), module(images(n)), rtol=1e-4, atol=1e-4)


def test_counts_are_those_of_the_module(family) -> None:
    module, _, space = family
    work = space.workload(space.reference())
    twice = module.twice if hasattr(module, "twice") else None  # each use has a copy of its own
    copies = sum(p.numel() for p in twice.parameters()) if twice is not None else 0
    assert work.params == sum(p.numel() for p in module.parameters() if p.requires_grad) + copies


def test_every_layer_with_weights_is_decided_or_named(family) -> None:
    _, _, space = family
    for node in space.graph:
        if node.kind in PRODUCTS:
            assert f"{node.name}.weight_bits" in space.options
            decided = any(node.name in width.writers for width in space.channels.widths)
            assert decided or space.left[node.name]
            assert f"{node.name}.rank" in space.options or space.left[f"{node.name}.rank"]
            if f"{node.name}.rank" in space.options and min(node.kernel_size) > 1:
                assert f"{node.name}.form" in space.options or space.left[f"{node.name}.form"]
            assert f"{node.name}.density" in space.options or space.left[f"{node.name}.density"]


def test_a_space_without_the_model_itself_is_refused() -> None:
    model = trace_model(settled(MODELS["resnet"]()), torch.zeros(1, *SHAPE))
    for joint in (
        {"weight_bits": [4, 8]},
        {"act_bits": [8]},
        {"edge_bits": [8]},
        {"keep": [0.5, 0.75]},
        {"rank": [0.5]},
    ):
        with pytest.raises(InvalidSpaceError, match="the model itself must be in the space"):
            model.space(joint)
    with pytest.raises(InvalidSpaceError, match="the model itself must be in the space"):
        model.space(JOINT, {"layer1.0.present": [False]})


class Awkward(torch.nn.Module):
    """As wide as a batch that models are traced with, with a layer named like a method of torch's."""

    def __init__(self, softmax: bool = False) -> None:
        super().__init__()
        self.values = torch.nn.Conv2d(3, 211, 3)
        self.pop = torch.nn.Linear(211, CLASSES)
        self.softmax = softmax

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.pop(torch.relu(self.values(x)).mean((2, 3)))
        return scores.softmax(1) if self.softmax else scores


def test_sizes_and_names_that_clash_are_followed() -> None:
    module = Awkward().eval()
    model = trace_model(module, torch.zeros(1, *SHAPE))
    assert model.space(JOINT).channels.widths[0].name == "values"
    with torch.no_grad():
        torch.testing.assert_close(model.network(images(3)), module(images(3)), rtol=1e-4, atol=1e-4)


def test_probabilities_are_refused() -> None:
    with pytest.raises(InvalidSpaceError, match="leave out the softmax at its end"):
        trace_model(Awkward(softmax=True), torch.zeros(1, *SHAPE))


def broken() -> torch.nn.Module:
    raise KeyError("backbone")


def test_what_a_factory_raises_is_said() -> None:
    with pytest.raises(InvalidSpaceError, match="test_families:broken': KeyError: 'backbone'"):
        load_model(f"{__name__}:broken", None, SHAPE, {})


def test_what_the_model_does_not_learn_is_not_trained(tmp_path) -> None:
    module = settled(MODELS["fixed"]())
    model = trace_model(module, torch.zeros(1, *SHAPE))
    model.save(tmp_path, "model")
    for network in (model.network, TracedModel.load(tmp_path, "model").network):
        learnt = {tuple(p.shape) for name, p in network.named_parameters() if "constant" in name}
        assert learnt == {(32,)}, "the factor alone"
        fixed = [b for name, b in network.named_buffers() if "constant" in name]
        types = ["torch.bool", "torch.float32", "torch.float32", "torch.float64", "torch.int64"]
        assert sorted(str(b.dtype) for b in fixed) == types
        for own in (module.mean, module.scale, module.mask, module.position, torch.tensor([2, 1, 0])):
            assert any(b.shape == own.shape and bool((b == own).all()) for b in fixed)


def test_what_is_computed_of_something_learnt_is_learnt() -> None:
    class Biased(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Parameter(torch.randn(9))
            self.register_buffer("index", torch.arange(16) % 9)
            self.head = torch.nn.Linear(16, CLASSES)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x.mean(1)[:, :4, :4].reshape(-1, 16) + self.table[self.index])

    with torch.no_grad():
        network = trace_model(Biased(), torch.zeros(1, *SHAPE)).network
    assert [tuple(p.shape) for name, p in network.named_parameters() if "constant" in name] == [(16,)]


def test_vectors_are_made_of_maps_where_not_only_linear_layers_read_them() -> None:
    resnet, vectors = (
        trace_model(settled(MODELS[n]()), torch.zeros(1, *SHAPE)).space(JOINT) for n in ("resnet", "vectors")
    )
    assert not any(o.kind == "call" for o in resnet.workload(resnet.reference()).operators)
    assert {"stem.0", "wide"} <= {width.name for width in vectors.channels.widths}, "channels go, vectors or not"
    candidate = dict(vectors.reference()) | {"wide.keep": 0.75}
    spread = next(o for o in vectors.workload(candidate).operators if o.name == "spread")
    assert spread.in_channels == 16 * 16, "24 channels at 16 positions, of which 16 are left"


def test_what_is_computed_as_in_the_model_is_named() -> None:
    space = trace_model(settled(MODELS["vision_transformer"]()), torch.zeros(1, *SHAPE)).space(JOINT)
    named = " ".join(space.left.values())
    assert all(word in named for word in ("layer_norm", "scaled_dot_product_attention", "expand"))


def test_candidates_are_built_with_the_models_weights_and_agree_with_their_workload(family) -> None:
    _, model, space = family
    for row in space.sample(np.random.default_rng(0), 8):
        candidate = space.decode(row)
        network = compressed(space, candidate, model.state, evidence(space))
        recalibrate(network, [images(8)])
        with torch.no_grad():
            assert network(images(3)).shape == (3, CLASSES)
        assert sum(p.numel() for p in network.parameters()) == space.workload(candidate).params


def test_removed_channels_are_as_good_as_channels_of_zeros(family) -> None:
    """The network cut is the module whose removed filters, scales and shifts are zeros."""
    _, model, space = family
    keep = {name: options[0] for name, options in space.options.items() if name.endswith(".keep")}
    if not keep:
        pytest.skip("nothing of it can be cut")
    known = evidence(space)
    candidate = dict(space.reference()) | keep
    network = compressed(space, candidate, model.state, known)
    assert space.workload(candidate).macs < space.workload(space.reference()).macs
    masked = TracedModel(model.graph, _masked(space, model, candidate, known))
    with torch.no_grad():
        torch.testing.assert_close(network(images(3)), masked.network(images(3)), rtol=1e-3, atol=1e-3)


def _masked(space, model, candidate, known) -> dict[str, torch.Tensor]:
    from hwnas.spaces.traced.weights import kept_channels

    kept = kept_channels(space.channels, {**space.fixed, **candidate}, known.importance)
    state = {name: tensor.clone() for name, tensor in model.state.items()}
    for node in space.graph:
        gone = [
            i
            for i, b in enumerate(space.channels.layouts[node.name])
            if b in space.channels.segment_of and b not in kept
        ]
        if not gone:
            continue
        for role in ("bias", "norm.weight", "norm.bias"):
            if role in node.parameters:
                state[node.parameters[role]][gone] = 0.0
        if node.kind == "deconv":
            state[node.parameters["weight"]][:, gone] = 0.0
        elif node.kind in PRODUCTS:
            state[node.parameters["weight"]][gone] = 0.0
    return state


def test_the_file_computes_what_the_network_computes(family, tmp_path) -> None:
    _, model, space = family
    bits = {name: 8 for name in space.options if name.endswith("_bits")}
    for name, candidate in {"float": space.reference(), "integer": dict(space.reference()) | bits}.items():
        network = compressed(space, candidate, model.state, evidence(space))
        recalibrate(network, [images(16)])
        snap_biases(network)
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(to_onnx(network).SerializeToString())
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (actual,) = session.run(None, {"input": images(3).numpy()})
        with torch.no_grad():
            expected = network(images(3)).numpy()
        tolerance = 1e-4 if name == "float" else 0.1
        assert np.abs(actual - expected).max() <= tolerance * max(1.0, np.abs(expected).std())


def test_what_a_dropped_branch_leaves_is_not_rounded_again(tmp_path) -> None:
    """ONNX Runtime would round it once, with one of the two scales."""
    model = trace_model(settled(MODELS["resnet"]()), torch.zeros(1, *SHAPE))
    space = model.space(JOINT)
    bits = {name: 8 for name in space.options if name.endswith("_bits")}
    candidate = dict(space.reference()) | bits | {"layer1.0.present": False, "layer1.1.present": False}
    network = compressed(space, candidate, model.state, evidence(space))
    assert not any(o.name.startswith("layer1") for o in network.workload.operators)
    recalibrate(network, [images(16)])
    snap_biases(network)
    path = tmp_path / "model.onnx"
    path.write_bytes(to_onnx(network).SerializeToString())
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (actual,) = session.run(None, {"input": images(64).numpy()})
    with torch.no_grad():
        expected = network(images(64)).numpy()
    assert np.abs(actual - expected).mean() <= 0.005 * expected.std()


def test_the_space_is_rebuilt_from_plain_data(family) -> None:
    _, _, space = family
    again = space_from_spec(space.spec)
    rows = space.sample(np.random.default_rng(3), 4)
    assert [again.workload_of_row(r) for r in rows] == [space.workload_of_row(r) for r in rows]
