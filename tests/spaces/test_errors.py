"""Errors say what was wrong in every process that they reach."""

from __future__ import annotations

import copy
import pickle

from hwnas.spaces.errors import UnknownNameError


def test_an_unknown_name_is_said_with_the_nearest() -> None:
    error = UnknownNameError("device", "labtop", ["laptop", "phone"], "Register it")
    assert str(error) == "unknown device 'labtop'; did you mean 'laptop'? (known: laptop, phone). Register it"


def test_a_copy_says_the_same() -> None:
    error = UnknownNameError("device", "labtop", ["laptop"])
    for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(again) is UnknownNameError
        assert str(again) == str(error)
