"""Ranges of a whole network: from what arrives at each quantiser while none rounds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hwnas.spaces.calibration import recalibrate
from hwnas.spaces.compression.range_calibration import calibrate_ranges
from hwnas.spaces.compression.range_observer import RangeObserver
from hwnas.spaces.compression.ranges import RANGE_METHODS, find_range
from hwnas.spaces.errors import InvalidOptionError, UnknownNameError
from hwnas.spaces.quantizers import ActivationQuantizer


def network(*bits: int) -> nn.Sequential:
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), ActivationQuantizer(bits[0]))
    second = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), ActivationQuantizer(bits[1]))
    return nn.Sequential(first, second)


def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [s * torch.randn(4, 3, 10, 10, generator=generator) for s in (1.0, 3.0, 0.5)]


def quantizers(net: nn.Module) -> list[ActivationQuantizer]:
    return [m for m in net.modules() if isinstance(m, ActivationQuantizer)]


@pytest.mark.parametrize("method", sorted(RANGE_METHODS))
def test_each_range_is_the_methods_for_unrounded_inputs(method: str) -> None:
    net = network(2, 4)
    recalibrate(net, batches())
    calibrate_ranges(net, iter(batches()), method)
    x = [net[0][:3](b) for b in batches()]
    y = [net[1][:2](v) for v in x]
    for quantizer, values in zip(quantizers(net), (x, y), strict=True):
        observer = RangeObserver()
        for batch in values:
            observer.add(batch)
        expected = find_range(observer, quantizer.bits, method)
        assert (quantizer.low.item(), quantizer.high.item()) == pytest.approx(expected, rel=1e-5)
        assert quantizer.observed
    assert quantizers(net)[0].low == 0.0, "after a rectifier"


def test_the_rest_of_the_network_is_left_alone_and_quantisers_round_again() -> None:
    net = network(2, 2)
    before = {k: v.clone() for k, v in net.state_dict().items() if not k.endswith(("low", "high", "observed"))}
    calibrate_ranges(net.train(), batches(), "mse")
    assert all(torch.equal(net.state_dict()[k], v) for k, v in before.items())
    assert not any(m.training for m in net.modules())
    assert not any(q._forward_hooks for q in quantizers(net))
    assert net(batches()[0]).unique().numel() <= 4


def test_a_quantiser_in_two_places_sees_both() -> None:
    shared = ActivationQuantizer(8)
    net = nn.Sequential(shared, nn.Conv2d(1, 1, 1, bias=False), shared)
    net[1].weight.data.fill_(-4.0)
    calibrate_ranges(net, [torch.full((1, 1, 2, 2), 2.0)], "minmax")
    assert (shared.low.item(), shared.high.item()) == (-8.0, 2.0)


def test_a_quantiser_that_nothing_arrives_at_is_reset() -> None:
    net = network(4, 4)
    net[0].unused = ActivationQuantizer(4)
    net[0].unused.train()(torch.ones(3))
    del net[0][3]  # what is left of the first block runs, but for the unused one

    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.unused = net, ActivationQuantizer(4)
            self.unused.observed.fill_(True)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.net[1](self.net[0][:3](x))
            return result

    whole = First()
    calibrate_ranges(whole, batches(), "minmax")
    assert not whole.unused.observed
    assert quantizers(net[1])[0].observed


def test_what_makes_no_sense_is_refused_and_changes_no_range() -> None:
    net = network(4, 4)
    calibrate_ranges(net, batches(), "mse")
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(UnknownNameError, match="range method 'mode'"):
        calibrate_ranges(net, batches(), "mode")
    with pytest.raises(InvalidOptionError, match="no batches"):
        calibrate_ranges(net, [], "mse")
    with pytest.raises(InvalidOptionError, match="diverges"):
        calibrate_ranges(net, [batches()[0] * torch.inf], "mse")
    assert all(torch.equal(net.state_dict()[k], v) for k, v in before.items())
    assert not any(q._forward_hooks for q in quantizers(net))
