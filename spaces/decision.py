"""A decision: one thing to choose, with its options in order."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from hwnas.spaces.errors import InvalidCandidateError, InvalidSpaceError

Option = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Decision:
    """One thing to choose.

    Attributes:
        name: Dotted name, unique in its space, such as ``"s1b2.kernel"``.
        options: The options in order. A row of the canonical encoding stores an index into this tuple.
        ordinal: Whether neighbouring options are similar (numbers), or the options are mere categories.

    Raises:
        InvalidSpaceError: No options, options that are not unique, or ordinal options that do not increase.
    """

    name: str
    options: tuple[Option, ...]
    ordinal: bool = True

    def __post_init__(self) -> None:
        if not self.options:
            raise InvalidSpaceError(f"decision {self.name!r} has no options; give it at least one")
        if len({(type(o), o) for o in self.options}) != len(self.options):
            raise InvalidSpaceError(f"decision {self.name!r} repeats an option: {self.options}")
        if self.ordinal:
            numbers = [o for o in self.options if not isinstance(o, str)]
            if len(numbers) != len(self.options) or sorted(numbers) != numbers:
                raise InvalidSpaceError(f"ordinal decision {self.name!r} needs increasing numbers, got {self.options}")

    def index(self, value: Option) -> int:
        """The position of ``value`` among the options; raises `InvalidCandidateError` when it is none of them."""
        for position, option in enumerate(self.options):
            if option == value and isinstance(option, bool) == isinstance(value, bool):
                return position
        raise InvalidCandidateError(f"{self.name} cannot be {value!r}; its options are {self.describe_options()}")

    def describe_options(self) -> str:
        """The options in words, short fractions for floats."""
        return ", ".join(
            str(Fraction(o).limit_denominator(64)) if isinstance(o, float) and not o.is_integer() else str(o)
            for o in self.options
        )
