"""The compression decisions that join an architecture: bits, channels kept, zeros or shared values, rank."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from hwnas.spaces.decision import Option
from hwnas.spaces.errors import InvalidFileError, InvalidSpaceError, UnknownNameError

DIMENSIONS = ("bits", "sparsity", "rank", "density", "sharing")
OF_ALL_SPACES = DIMENSIONS[:4]
"""The dimensions that are not of trained models alone."""
FLOAT = 32


@dataclass(frozen=True, slots=True)
class Joint:
    """Options of the compression decisions; one option means not searched.

    Attributes:
        weight_bits, act_bits: Of layers, and of the tensors they write: 2 to 8, or 32 for float32.
        edge_bits: Of the first and the last layer and of the network's input.
        keep: Shares of output channels that are kept.
        rank: Of 1×1 layers, see `hwnas.spaces.rank`.
        density: Shares of a layer's weights that are not zero, or ``"N:M"``: N of every M along the input channels.
        shared: Of layers of trained models whose weights are floats, all of them kept: bits of an index into values
            that weights share (Deep Compression; HAQ for size), 2 to 8, or 32 for values of their own.
    """

    weight_bits: tuple[int, ...] = (FLOAT,)
    act_bits: tuple[int, ...] = (FLOAT,)
    edge_bits: tuple[int, ...] = (FLOAT,)
    keep: tuple[float, ...] = (1.0,)
    rank: tuple[float, ...] = (1.0,)
    density: tuple[float | str, ...] = (1.0,)
    shared: tuple[int, ...] = (FLOAT,)

    @property
    def removes_always(self) -> bool:
        """Whether no network is whole: some of its channels, weights or rank are always removed."""
        return not all(1.0 in options for options in (self.keep, self.rank, self.density))

    @classmethod
    def of(cls, dimensions: Sequence[str] | Mapping[str, Any]) -> Joint:
        """The default options of the dimensions named, or the options given of each kind of decision.

        Raises:
            UnknownNameError: A dimension or kind of that name does not exist.
            InvalidSpaceError: Options that make no sense, with the reason.
        """
        if isinstance(dimensions, Mapping):
            return cls._of_options(dimensions)
        if isinstance(dimensions, str) or not isinstance(dimensions, Sequence):
            raise InvalidFileError(
                f"joint must be a list of dimensions such as [bits, rank], or options such as {{weight_bits: [4, 8]}}, "
                f"got {dimensions!r}"
            )
        joint = cls()
        for dimension in dimensions:
            if dimension not in DIMENSIONS:
                raise UnknownNameError("joint dimension", str(dimension), DIMENSIONS)
            joint = replace(joint, **_DEFAULTS[dimension])
        return joint

    @classmethod
    def _of_options(cls, options: Mapping[str, Any]) -> Joint:
        kinds = {f.name for f in fields(cls)}
        joint = cls()
        for kind, values in options.items():
            if kind not in kinds:
                raise UnknownNameError("kind of joint decision:", str(kind), kinds)
            if not isinstance(values, list | tuple) or not values:
                raise InvalidSpaceError(f"joint.{kind} must be a list of options, got {values!r}")
            check = _CHECKS.get(kind, _check_share)
            for v in values:
                check(f"joint.{kind}", v)
            ordered = tuple(sorted(values, key=_density_order if kind == "density" else None))
            if len(set(map(sparsity_of, ordered))) < len(ordered):
                raise InvalidSpaceError(f"joint.{kind} repeats an option: {values}")
            joint = replace(joint, **{kind: ordered})
        return joint


_DEFAULTS: dict[str, dict[str, Any]] = {
    "bits": {"weight_bits": (4, 7, 8, 32), "act_bits": (4, 8, 32), "edge_bits": (8, 32)},
    "sparsity": {"keep": (0.5, 0.75, 1.0)},
    "rank": {"rank": (0.25, 0.5, 1.0)},
    "density": {"density": ("2:4", 0.5, 1.0)},
    "sharing": {"shared": (2, 4, 8, 32)},
}


def sparsity_of(option: Option) -> tuple[float, int]:
    """Share of weights that are not zero, and M of an N:M pattern or 0: ``"2:4"`` is (0.5, 4), 0.25 is (0.25, 0)."""
    if isinstance(option, str):
        kept, group = map(int, option.split(":"))
        return kept / group, group
    return float(option), 0


def _density_order(density: float | str) -> tuple[float, int]:
    """Dense weights come last, as what is whole does in all kinds."""
    share, group = sparsity_of(density)
    return share, -group


def _check_bits(where: str, bits: Any) -> None:
    if type(bits) is not int or not (2 <= bits <= 8 or bits == FLOAT):
        raise InvalidSpaceError(f"{where} must be whole numbers from 2 to 8, or 32 for float32, got {bits!r}")


def _check_share(where: str, share: Any) -> None:
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise InvalidSpaceError(f"{where} must be shares above 0 and up to 1, got {share!r}")


def _check_density(where: str, density: Any) -> None:
    if not isinstance(density, str):
        return _check_share(where, density)
    match = re.fullmatch(r"([1-9][0-9]?):([1-9][0-9]?)", density)
    if not match or not 0 < int(match[1]) < int(match[2]) <= 64:
        raise InvalidSpaceError(f"{where} must be shares above 0 and up to 1, or patterns such as 2:4, got {density!r}")
    return None


_CHECKS: Mapping[str, Callable[[str, Any], None]] = {
    "weight_bits": _check_bits,
    "act_bits": _check_bits,
    "edge_bits": _check_bits,
    "shared": _check_bits,
    "density": _check_density,
}
