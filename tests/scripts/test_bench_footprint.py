from __future__ import annotations

import pytest

from hwnas.scripts.bench_footprint import footprint_figures
from hwnas.spaces.errors import HwnasError


def test_seconds_and_memory_of_a_command() -> None:
    figures = footprint_figures(["space", "show", "ugconv"], interval_s=0.02)
    assert figures["seconds"] > 0.1
    assert 0.02 < figures["peak_memory_gib"] < 8, "an interpreter with some libraries"
    assert figures["processes"] >= 1


def test_a_command_that_fails_has_no_figures() -> None:
    with pytest.raises(HwnasError, match="hwnas space show nothing ended with 2"):
        footprint_figures(["space", "show", "nothing"])
