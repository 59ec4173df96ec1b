"""The spaces that come with hwnas, by name or from a YAML or JSON file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hwnas.spaces.errors import InvalidFileError, InvalidSpaceError, UnknownNameError
from hwnas.spaces.files import read_yaml
from hwnas.spaces.mbconv import mbconv
from hwnas.spaces.space import Space

SPACES: dict[str, Callable[..., Space]] = {"mbconv": mbconv}
DIMENSIONS = ("bits", "sparsity", "rank")
MIN_SIDE, MAX_SIDE = 8, 512


def load_space(
    name: str,
    *,
    input_shape: Sequence[int] = (3, 224, 224),
    num_classes: int = 1000,
    joint: Sequence[str] = DIMENSIONS,
) -> Space:
    """A space by name, or from a YAML or JSON file with the keys ``name``, ``input_shape``, ``num_classes``, ``joint``.

    Args:
        name: A name from `SPACES`, or a path that ends in .yaml, .yml or .json; the file's keys win over the arguments.
        input_shape: Channels, height, width of one image.
        num_classes: Outputs of the classifier.
        joint: Dimensions searched with the architecture, among ``bits``, ``sparsity``, ``rank``.

    Raises:
        UnknownNameError: No space, dimension or key of that name; names the nearest.
        InvalidSpaceError: A shape that the space cannot take.
        InvalidFileError: A file that cannot be read.
    """
    if Path(name).suffix in (".yaml", ".yml", ".json"):
        return space_from_spec(read_yaml(Path(name)))
    return space_from_spec(
        {"name": name, "input_shape": list(input_shape), "num_classes": num_classes, "joint": list(joint)}
    )


def space_from_spec(spec: Mapping[str, Any]) -> Space:
    """The space of a `Space.spec`; raises as `load_space`."""
    known = {"name": None, "input_shape": (3, 224, 224), "num_classes": 1000, "joint": DIMENSIONS}
    for key in spec:
        if key not in known:
            raise UnknownNameError("key of a space:", str(key), known)
    values = known | dict(spec)
    name = str(values["name"])
    if name not in SPACES:
        raise UnknownNameError("space", name, SPACES)
    shape, classes, joint = values["input_shape"], values["num_classes"], values["joint"]
    if not _is_shape(shape):
        raise InvalidSpaceError(
            f"input_shape must be channels, height, width with sides from {MIN_SIDE} to {MAX_SIDE}, got {shape!r}"
        )
    if not isinstance(classes, int) or classes < 2:
        raise InvalidSpaceError(f"num_classes must be a whole number of at least 2, got {classes!r}")
    if isinstance(joint, str) or not isinstance(joint, Sequence):
        raise InvalidFileError(f"joint must be a list of dimensions such as [bits, rank], got {joint!r}")
    for dimension in joint:
        if dimension not in DIMENSIONS:
            raise UnknownNameError("joint dimension", str(dimension), DIMENSIONS)
    dimensions = tuple(d for d in DIMENSIONS if d in joint)
    return SPACES[name](input_shape=tuple(shape), num_classes=classes, joint=dimensions)


def _is_shape(shape: Any) -> bool:
    return (
        isinstance(shape, Sequence)
        and len(shape) == 3
        and all(type(n) is int for n in shape)
        and 1 <= shape[0] <= 64
        and all(MIN_SIDE <= n <= MAX_SIDE for n in shape[1:])
    )
