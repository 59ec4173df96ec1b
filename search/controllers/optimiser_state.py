"""What an optimiser has learnt, as plain data: it goes on exactly where it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from hwnas.search.controllers.packing import pack_tensors, unpack_tensors


def pack_optimiser(optimiser: Optimizer) -> dict[str, Any]:
    """Of an Adam: the moments and the steps of each parameter; nothing before the first step."""
    state = optimiser.state_dict()["state"]
    return pack_tensors({f"{i}.{name}": tensor for i, of_one in state.items() for name, tensor in of_one.items()})


def load_optimiser(optimiser: Optimizer, packed: Mapping[str, Any]) -> None:
    """The inverse of `pack_optimiser`, for an Adam of the same parameters; raises as `unpack_tensors`."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    like: dict[str, Tensor] = {}
    for i, parameter in enumerate(parameters if packed else []):
        like |= {f"{i}.step": torch.zeros(()), f"{i}.exp_avg": parameter, f"{i}.exp_avg_sq": parameter}
    tensors = unpack_tensors(packed, like)
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        place, _, of_one = name.partition(".")
        state.setdefault(int(place), {})[of_one] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
