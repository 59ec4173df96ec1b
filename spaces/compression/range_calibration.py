"""Ranges of a network's quantisers, from all that arrives at them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from hwnas.spaces.compression.range_observer import RangeObserver
from hwnas.spaces.compression.ranges import RANGE_METHODS, find_range
from hwnas.spaces.errors import InvalidOptionError, UnknownNameError
from hwnas.spaces.quantizers import ActivationQuantizer


@torch.no_grad()
def calibrate_ranges(network: nn.Module, batches: Iterable[Tensor], method: str) -> None:
    """Sets the range of every `ActivationQuantizer` by a method of `RANGE_METHODS`, in one pass over the batches.

    Runs in evaluation mode, and leaves the network in it: normalisations use the statistics that they have, where
    `hwnas.spaces.calibration.recalibrate` estimates them anew and takes ranges as moving averages of extremes. While
    they observe, quantisers pass values on as they are, so that no range depends on another one. Quantisers that
    nothing arrives at are reset.

    Args:
        network: Changed in place; weights stay as they are.
        batches: Images (n, channels, height, width), or what else the network takes.
        method: See `hwnas.spaces.compression.ranges`.

    Raises:
        UnknownNameError: A method that does not exist.
        InvalidOptionError: There were no batches, or values that are not finite; ranges are as they were.
    """
    if method not in RANGE_METHODS:
        raise UnknownNameError("range method", method, RANGE_METHODS)
    observers = {m: RangeObserver() for m in network.modules() if isinstance(m, ActivationQuantizer)}

    def observe(module: nn.Module, inputs: tuple[Any, ...], _: Tensor) -> Tensor:
        x: Tensor = inputs[0]
        observers[module].add(x)  # type: ignore[index]
        return x

    hooks = [quantizer.register_forward_hook(observe) for quantizer in observers]
    network.eval()
    count = 0
    try:
        for count, images in enumerate(batches, 1):  # noqa: B007
            network(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not count:
        raise InvalidOptionError("there are no batches to find ranges from; pass a few of the images trained on")
    for quantizer, observer in observers.items():
        if not observer.total:
            quantizer.reset()
            continue
        low, high = find_range(observer, quantizer.bits, method)
        quantizer.low.fill_(low)
        quantizer.high.fill_(high)
        quantizer.observed.fill_(True)
