"""Candidates are immutable plain data with a digest that never changes."""

from __future__ import annotations

import hashlib

import pytest

from hwnas.spaces import Candidate
from hwnas.spaces.errors import InvalidCandidateError


def test_json_is_canonical() -> None:
    assert Candidate({"b": 0.5, "a": 3, "c": True, "d": "x"}).to_json() == '{"a":3,"b":0.5,"c":true,"d":"x"}'


def test_the_digest_is_the_beginning_of_a_sha256() -> None:
    expected = hashlib.sha256(b'{"a":3,"b":0.5}').hexdigest()[:16]
    assert Candidate({"b": 0.5, "a": 3}).digest == expected == "ed215ea5c6b6bb5d"


def test_order_does_not_matter_values_and_names_do() -> None:
    first = Candidate({"a": 1, "b": 2})
    assert first == Candidate({"b": 2, "a": 1})
    assert hash(first) == hash(Candidate({"b": 2, "a": 1}))
    others = [Candidate({"a": 2, "b": 1}), Candidate({"a": 1}), Candidate({"a": 1, "c": 2})]
    assert len({first.digest, *(o.digest for o in others)}) == 4
    assert first not in others


def test_a_candidate_is_a_read_only_mapping() -> None:
    values = {"a": 1, "b": 2}
    candidate = Candidate(values)
    values["a"] = 5
    assert dict(candidate) == {"a": 1, "b": 2}
    assert (len(candidate), candidate.get("c"), list(candidate)) == (2, None, ["a", "b"])
    with pytest.raises(TypeError):
        candidate["a"] = 3  # type: ignore[index]
    assert candidate != {"a": 1, "b": 2}


def test_round_trip_keeps_types() -> None:
    candidate = Candidate({"i": 1, "f": 1.0, "b": False, "s": "1"})
    again = Candidate.from_json(candidate.to_json())
    assert again == candidate
    assert [type(v) for v in again.values()] == [bool, float, int, str]


@pytest.mark.parametrize(
    "text", ["", "{", "[1, 2]", "3", "null", '{"a": null}', '{"a": [1]}', '{"a": {"b": 1}}', '{"a": 1} trailing']
)
def test_text_that_is_no_object_of_plain_values_is_refused(text: str) -> None:
    with pytest.raises(InvalidCandidateError, match="a candidate must be a JSON object"):
        Candidate.from_json(text)


@pytest.mark.parametrize("text", ['{"a": ' + "9" * 5000 + "}", "[" * 100_000], ids=["huge number", "deep nesting"])
def test_json_that_python_cannot_parse_is_refused_as_a_candidate(text: str) -> None:
    with pytest.raises(InvalidCandidateError):
        Candidate.from_json(text)
