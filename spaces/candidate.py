"""A candidate: one complete choice as plain data, without weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping

from hwnas.spaces.decision import Option
from hwnas.spaces.errors import InvalidCandidateError


class Candidate(Mapping[str, Option]):
    """An immutable assignment of one option to every decision of a space.

    Candidates come from `Space.decode`, which puts them in canonical form, so that equal networks compare, hash and
    digest equally.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Option]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> Option:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Candidate) and self._values == other._values

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Candidate({self.digest}, {len(self)} decisions)"

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits, the same in every process and on every machine."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """Canonical JSON: keys sorted, no white space."""
        return json.dumps(self._values, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Candidate:
        """The inverse of `to_json`. Validate the result with `Space.validate` when the text comes from outside.

        Raises:
            InvalidCandidateError: The text is not a JSON object of plain values.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidCandidateError(f"a candidate must be a JSON object: {error}") from error
        if not isinstance(values, dict) or not all(isinstance(v, bool | int | float | str) for v in values.values()):
            raise InvalidCandidateError("a candidate must be a JSON object of numbers, strings and booleans")
        return cls(values)
