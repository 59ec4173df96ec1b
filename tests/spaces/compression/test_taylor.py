"""Taylor importance: against finite differences, and for channels that nothing reads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hwnas.spaces.compression.taylor import TaylorGates
from hwnas.spaces.errors import InvalidOptionError

LABELS = torch.tensor([0, 1, 2, 0, 1])


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 4, 3), nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4, 3)).double().eval()


def images(seed: int) -> Tensor:
    return torch.randn(5, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def differences(net: nn.Sequential, layer: int, x: Tensor, step: float = 1e-5) -> Tensor:
    """∂L/∂z of each channel's gate after a layer, by central differences."""

    def loss(gate: Tensor) -> Tensor:
        shape = (-1, 1, 1) if layer < 5 else (-1,)
        return cross_entropy(net[layer + 1 :](net[: layer + 1](x) * gate.reshape(shape)), LABELS)

    with torch.no_grad():
        channels = net[: layer + 1](x).shape[1]
        steps = step * torch.eye(channels, dtype=torch.float64)
        return torch.stack([(loss(1 + s) - loss(1 - s)) / (2 * step) for s in steps])


@pytest.mark.parametrize("layer", [0, 1, 3, 6])
def test_it_is_the_mean_square_of_finite_differences(layer: int) -> None:
    net = network()
    with TaylorGates({"layer": net[layer]}) as gates:
        for seed in (1, 2, 3):
            gates.add(cross_entropy(net(images(seed)), LABELS))
    expected = torch.stack([differences(net, layer, images(seed)) for seed in (1, 2, 3)]).square().mean(0)
    assert expected.max() > 1e-6
    assert gates.scores()["layer"].tolist() == pytest.approx(expected.tolist(), rel=1e-5, abs=1e-13)


def test_gates_change_no_output_and_no_gradient_of_parameters() -> None:
    net = network()
    before = net(images(1))
    with TaylorGates({"a": net[1], "b": net[3]}) as gates:
        gated = net(images(1))
        gates.add(cross_entropy(gated, LABELS))
    assert torch.equal(gated, before)
    assert all(p.grad is None for p in net.parameters())
    assert set(gates.scores()) == {"a", "b"}
    assert not net[1]._forward_hooks, "hooks are gone after the block"


def test_a_channel_that_the_next_weights_ignore_has_none() -> None:
    net = network()
    with torch.no_grad():
        net[3].weight[:, 2] = 0.0
    with TaylorGates({"norm": net[1]}) as gates:
        gates.add(cross_entropy(net(images(1)), LABELS))
    scores = gates.scores()["norm"]
    assert scores[2] == 0.0
    assert (scores[[0, 1, 3, 4, 5]] > 0).all()


def test_tokens_have_their_channels_last() -> None:
    layer, x = nn.Linear(4, 3), torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    with TaylorGates({"layer": layer}) as gates:
        gates.add(layer(x).sum())
    assert torch.allclose(gates.scores()["layer"], layer(x).sum((0, 1)).square().double())


def test_a_module_that_runs_twice_has_one_gate() -> None:
    layer, x = nn.Linear(4, 4, bias=False), torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    with TaylorGates({"layer": layer}) as gates:
        gates.add((layer(x) + layer(2 * x)).sum())
    assert torch.allclose(gates.scores()["layer"], (3 * layer(x)).sum(0).square().double())


def test_modules_that_did_not_run_are_named() -> None:
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    with TaylorGates({"one": one, "other": other}) as gates:
        with pytest.raises(InvalidOptionError, match="within the `with` block"):
            gates.add(torch.zeros((), requires_grad=True))
        gates.add(one(torch.ones(1, 2)).sum())
    with pytest.raises(InvalidOptionError, match=r"\['other'\] never ran"):
        gates.scores()


def test_a_module_that_a_batch_passes_by_has_no_part_in_it() -> None:
    one, other, x = nn.Linear(2, 2), nn.Linear(2, 2), torch.ones(1, 2)
    with TaylorGates({"one": one, "other": other}) as gates:
        gates.add((one(x) + other(x)).sum())
        gates.add(one(x).sum())
    scores = gates.scores()
    assert torch.allclose(scores["one"], one(x)[0].square().double())
    assert torch.allclose(scores["other"], other(x)[0].square().double() / 2)
