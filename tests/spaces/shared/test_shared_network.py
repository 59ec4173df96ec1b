"""Networks on shared weights are the networks that they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from hwnas.spaces import Space, load_space
from hwnas.spaces.calibration import recalibrate
from hwnas.spaces.shared.sandwich import sandwich
from hwnas.spaces.shared.shared_network import SharedNetwork, _template
from hwnas.spaces.space import Rows
from hwnas.spaces.units import ConvUnit
from hwnas.spaces.variation import extremes

EVERYTHING = ("bits", "sparsity", "rank", "density")
SMALL = {
    "stem.width": [8], "s1.width": [8], "s2.width": [16, 24], "s3.width": [24], "s4.width": [32, 48],
    "head.width": [64], "s[34].depth": [1], "*.se": [0], "s1b1.expand": [1], "s[34]b1.expand": [3],
    "s2b1.expand": [3], "s2b2.expand": [1, 3],
}  # fmt: skip
"""Of mbconv, small enough to train in a test."""


@cache
def space_of(name: str, joint: tuple[str, ...] = ()) -> Space:
    shape = (1, 8, 8) if name == "mbconv" else (3, 32, 32)
    return load_space(name, input_shape=shape, num_classes=10, joint=joint)


def images(space: Space, n: int = 4) -> Tensor:
    return torch.rand(n, *space.input_shape, generator=torch.Generator().manual_seed(0)) - 0.3


def shared_network(space: Space, seen: Sequence[Any] = ()) -> SharedNetwork:
    """Fresh only in its products' weights, in evaluation mode.

    The statistics are those of the last row seen: without, signals die out layer by layer, and logits hardly depend on
    the images or on what is chosen.
    """
    torch.manual_seed(0)
    shared = SharedNetwork(space)
    with torch.no_grad():
        for name, parameter in shared.named_parameters():
            if "transforms" in name or "norm" in name or "bias" in name:
                parameter += 0.2 * torch.randn(parameter.shape)
        for row in seen:
            shared.calibrate(row, [images(space, 16)])
    return shared.eval()


CASES = [
    ("mbconv", (), 4), ("mbconv", EVERYTHING, 4), ("fbnet", (), 2), ("fbnet", EVERYTHING, 2),
    ("mnasnet", (), 2), ("ofa_mobilenetv3", EVERYTHING, 2),
]  # fmt: skip


@pytest.mark.parametrize(("name", "joint", "n"), CASES, ids=lambda v: str(v))
def test_an_extracted_network_has_the_same_outputs(name: str, joint: tuple[str, ...], n: int) -> None:
    space = space_of(name, joint)
    rows = space.sample(np.random.default_rng(0), n)
    shared = shared_network(space)
    x = images(space)
    with torch.no_grad():
        for row in rows:
            shared.calibrate(row, [images(space, 16)])
            y = shared(x, row)
            network = shared.extract(row)
            assert network.workload == space.workload_of_row(row)
            torch.testing.assert_close(network(x), y, rtol=0, atol=1e-5)
            assert y.std(0).mean() > 1e-3  # images differ


def test_training_mode_has_the_same_outputs_statistics_and_gradients_as_a_network_of_its_own() -> None:
    space = space_of("mbconv", EVERYTHING)
    row = space.sample(np.random.default_rng(5), 1)[0]
    shared = shared_network(space, [row]).train()
    network = shared.extract(row)
    x = images(space)
    one, other = shared(x, row), network(x)
    torch.testing.assert_close(one, other)
    one.square().sum().backward()
    other.square().sum().backward()
    for operator in network.workload.operators:
        unit = network.unit(operator)
        tensors = shared.tensors(operator)
        for name, buffer in unit.named_buffers():
            torch.testing.assert_close(tensors[name], buffer)
        if isinstance(unit, ConvUnit) and operator.kernel == 1 and operator.groups == 1:
            part = shared.parts[_part(operator.name, shared, operator.inputs)]
            out, inside = unit.conv.weight.shape[:2]
            gradient = part.whole.conv.weight.grad  # type: ignore[union-attr]
            torch.testing.assert_close(gradient[:out, :inside], unit.conv.weight.grad)
            assert not gradient[out:].any()
            assert not gradient[:, inside:].any()


def _part(name: str, shared: SharedNetwork, inputs: tuple[str, ...]) -> str:
    part = name.replace(".", "_")
    return f"{part}_factor" if inputs == (f"{name}_in",) else part


def test_there_are_as_many_parameters_as_in_the_largest_network_and_in_its_kernel_transformations() -> None:
    space = space_of("mbconv")
    shared = SharedNetwork(space)
    largest, _ = extremes(space)
    blocks = 1 + 2 + 3 + 3
    expected = space.workload_of_row(largest).params + blocks * 9 * 9  # a kernel of 3 from one of 5
    assert sum(p.numel() for p in shared.parameters()) == expected


def test_blocks_of_a_position_share_their_layers() -> None:
    """FBNet's nine blocks: expand to 6 times, depthwise 5×5, project; project in two groups is apart.

    Blocks without expansion have no expand layer.
    """
    shared = SharedNetwork(space_of("fbnet"))
    c = 24
    sizes = {n: sum(p.numel() for p in part.parameters()) for n, part in shared.parts.items() if n.startswith("s2b2_")}
    assert sizes == {
        "s2b2_expand": 6 * c * c + 2 * 6 * c,
        "s2b2_depthwise_dw": 25 * 6 * c + 2 * 6 * c + 9 * 9,
        "s2b2_project": 6 * c * c + 2 * c,
        "s2b2_project_g2": c * c // 2 + 2 * c,
    }


def test_a_smaller_kernel_is_the_transformed_centre_of_the_next_larger() -> None:
    space = space_of("ofa_mobilenetv3")
    shared = shared_network(space)
    row = extremes(space)[1]  # kernels of 3, the largest has 7
    operator = next(o for o in space.workload_of_row(row).operators if o.name == "s2b1.depthwise")
    part: Any = shared.parts["s2b1_depthwise_dw"]
    weight = part.whole.conv.weight[: operator.in_channels]
    five = torch.einsum("ab,cb->ca", part.transforms["7to5"], weight[:, 0, 1:6, 1:6].reshape(-1, 25))
    three = torch.einsum("ab,cb->ca", part.transforms["5to3"], five.reshape(-1, 5, 5)[:, 1:4, 1:4].reshape(-1, 9))
    torch.testing.assert_close(shared.tensors(operator)["conv.weight"], three.reshape(-1, 1, 3, 3))
    fresh: Any = SharedNetwork(space).parts["s2b1_depthwise_dw"]
    centre = fresh.slices({"conv.weight": torch.Size((8, 1, 3, 3))})["conv.weight"]
    torch.testing.assert_close(centre, fresh.whole.conv.weight[:8, :, 2:5, 2:5])


def test_calibration_is_that_of_a_network_of_its_own_and_leaves_weights_alone() -> None:
    space = space_of("mbconv", ("bits",))
    rows = space.sample(np.random.default_rng(1), 3)
    shared = shared_network(space, rows)
    batches = [images(space, 16), images(space, 8)]
    network = shared.extract(rows[0])
    recalibrate(network, batches)
    before = {name: p.clone() for name, p in shared.named_parameters()}
    other = shared(batches[0], rows[0])
    shared.calibrate(rows[0], batches)
    torch.testing.assert_close(shared(batches[0], rows[0]), network(batches[0]))
    assert not torch.allclose(other, network(batches[0]), atol=1e-3)
    assert all(torch.equal(before[name], p) for name, p in shared.named_parameters())


def test_the_state_goes_round_and_channels_may_be_last() -> None:
    space = space_of("mbconv", ("bits",))
    rows = space.sample(np.random.default_rng(2), 2)
    shared = shared_network(space, rows)
    copy = SharedNetwork(space).eval()
    x = images(space)
    assert not torch.allclose(copy(x, rows[0]), shared(x, rows[0]), atol=1e-3)
    copy.load_state_dict(shared.state_dict())
    assert torch.equal(copy(x, rows[0]), shared(x, rows[0]))
    copy.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x_last = x.to(memory_format=torch.channels_last)
    torch.testing.assert_close(copy(x_last, rows[1]), shared(x, rows[1]), rtol=0, atol=1e-4)


def test_it_moves_to_another_device_whole() -> None:
    """The meta device refuses tensors of another one."""
    space = space_of("mbconv")
    shared = shared_network(space).to("meta")
    row = space.sample(np.random.default_rng(0), 1)[0]
    assert shared(images(space).to("meta"), row).device.type == "meta"
    assert {t.device.type for t in shared.extract(row).state_dict().values()} == {"meta"}


def test_the_extremes_are_the_largest_and_the_smallest() -> None:
    for name in ("mbconv", "fbnet"):
        space = space_of(name)
        rows = space.sample(np.random.default_rng(0), 10)
        largest, smallest = (space.workload_of_row(r).macs for r in extremes(space))
        assert all(smallest < space.workload_of_row(row).macs < largest for row in rows)
    blocks = {d.name: o for d, o in _options(space_of("fbnet"), extremes(space_of("fbnet"))[0]).items()}
    assert {o for n, o in blocks.items() if n.endswith(".block")} == {"k5_e6"}


def _options(space: Space, row: Rows) -> dict[Any, Any]:
    return {d: d.options[i] for d, i in zip(space.decisions, row, strict=True)}


def test_training_by_the_sandwich_rule_makes_good_networks_of_random_ones() -> None:
    space = load_space("mbconv", input_shape=(1, 8, 8), num_classes=10, joint=(), narrow=SMALL)
    digits = load_digits()
    x = torch.from_numpy(digits.images).float()[:, None] / 8 - 1
    y = torch.from_numpy(digits.target)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    shared = SharedNetwork(space)
    steps = 50
    optimizer = torch.optim.AdamW(shared.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=steps)
    for _ in range(steps):
        chosen = torch.randperm(1400)[:32]
        optimizer.zero_grad()
        for row in sandwich(space, rng, 1):
            functional.cross_entropy(shared.train()(x[chosen], row), y[chosen]).backward()
        optimizer.step()
        schedule.step()
    for row in space.sample(rng, 5):
        shared.calibrate(row, [x[:256]])
        with torch.no_grad():
            accuracy = (shared.eval()(x[1400:], row).argmax(1) == y[1400:]).double().mean()
        assert accuracy > 0.4  # chance is 0.1


def test_templates_of_units_are_not_initialised() -> None:
    space = space_of("mbconv", EVERYTHING)
    ran: list[str] = []

    class Listening(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            ran.append(function.__name__)
            return function(*args, **(kwargs or {}))

    for row in space.sample(np.random.default_rng(0), 10):
        for operator in space.workload_of_row(row).operators:
            with Listening():
                unit, shapes = _template.__wrapped__(operator, operator.affine)
            assert all(t.is_meta for t in unit.parameters())
            assert all(shapes[name] == t.shape for name, t in unit.named_parameters())
    assert "empty.memory_format" in ran
    assert not {name for name in ran if name.partition(".")[0] in ("normal_", "uniform_", "fill_", "zero_")}
