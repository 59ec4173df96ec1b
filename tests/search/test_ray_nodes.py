"""What fits on a node of a cluster."""

from __future__ import annotations

import pytest

from hwnas.search.ray_nodes import _places


@pytest.mark.parametrize(
    ("needed", "places"),
    [
        ({"CPU": 1}, 8),
        ({"CPU": 3}, 2),
        ({"CPU": 0.1}, 80),
        ({"CPU": 1, "GPU": 1}, 2),
        ({"CPU": 1, "GPU": 0.5}, 4),
        ({"CPU": 1, "GPU": 0.6}, 2),  # not 3: a share is one of a single GPU
        ({"CPU": 1, "GPU": 0.4}, 4),
        ({"CPU": 1, "GPU": 4}, 0),
        ({"CPU": 1, "device:pi5": 1}, 0),
    ],
)
def test_a_node_of_8_cpus_and_2_gpus_has_so_many_places(needed: dict[str, float], places: int) -> None:
    assert _places({"CPU": 8.0, "GPU": 2.0}, needed) == places
