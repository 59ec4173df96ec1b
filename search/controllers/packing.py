"""Arrays and tensors as text in JSON: exact, compact, and read without trusting it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

KINDS = "iufb"


def pack(array: NDArray[Any]) -> dict[str, Any]:
    """The array as plain data: its type, its shape, and its bytes in base64."""
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
    return {"type": array.dtype.str, "shape": list(array.shape), "data": data}


def unpack(packed: Mapping[str, Any], shape: tuple[int | None, ...] | None = None) -> NDArray[Any]:
    """The inverse of `pack`.

    Args:
        packed: As `pack` gives it.
        shape: What it must have, None for any length.

    Raises:
        ValueError: It is damaged, or has another shape.
        KeyError, TypeError: It is something else.
    """
    dtype = np.dtype(str(packed["type"]))
    if dtype.kind not in KINDS:
        raise ValueError(f"arrays of type {dtype} are not read")
    found = np.frombuffer(base64.b64decode(packed["data"], validate=True), dtype).reshape(packed["shape"]).copy()
    if shape is not None and (
        len(shape) != found.ndim or any(n not in (None, m) for n, m in zip(shape, found.shape, strict=True))
    ):
        raise ValueError(f"an array has shape {found.shape} where {shape} is needed")
    return found


def pack_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Tensors by name, such as a module's ``state_dict()``."""
    return {name: pack(tensor.detach().cpu().numpy()) for name, tensor in tensors.items()}


def unpack_tensors(packed: Mapping[str, Any], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `pack_tensors`, for tensors of the names, shapes and types of ``like``; errors as `unpack`."""
    import torch

    if set(packed) != set(like):
        raise ValueError(f"tensors are named {sorted(packed)} where {sorted(like)} are needed")
    return {
        name: torch.from_numpy(unpack(packed[name], tuple(tensor.shape))).to(tensor.dtype)
        for name, tensor in like.items()
    }
