"""Distances between candidates, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.predictors.encoding import Encoding
from hwnas.spaces import Space, load_space
from hwnas.spaces.canonical import Activity
from hwnas.spaces.decision import Decision
from hwnas.spaces.slot import When
from hwnas.spaces.space import Rows


def a_space() -> Space:
    """Two blocks: the second has a kind, a width and an operation where there is one."""
    return Space(
        name="blocks",
        spec={},
        decisions=[
            Decision("depth", (1, 2)),
            Decision("b1.op", ("conv", "pool", "skip"), ordinal=False),
            Decision("b2.op", ("conv", "pool", "skip"), ordinal=False),
            Decision("b2.width", (8, 16, 24)),
        ],
        slots=[],
        input_shape=(1, 8, 8),
        num_classes=2,
        activities=[Activity(name, (When("depth", frozenset({2})),)) for name in ("b2.op", "b2.width")],
    )


def no_costs(rows: Rows) -> dict[str, np.ndarray]:
    return {"macs": np.full(len(rows), 7.0)}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((1, 0, 0, 0), (1, 0, 0, 0), 0.0),
        ((1, 0, 0, 0), (1, 1, 0, 0), 1.0),  # another category
        ((1, 0, 0, 0), (1, 2, 0, 0), 1.0),  # all categories are equally far
        ((1, 0, 0, 0), (1, 0, 0, 1), 0.25),  # one of two steps
        ((1, 0, 0, 0), (1, 0, 0, 2), 1.0),  # both
        ((0, 0, 0, 0), (0, 1, 0, 0), 1.0),  # what is inactive in both does not count
        ((0, 0, 0, 0), (1, 0, 0, 1), 1.0 + 1.0 + 0.5),  # depth, an operation, a width in the middle
        ((0, 0, 0, 0), (1, 0, 0, 2), 1.0 + 1.0 + 0.75),  # and at the end
    ],
)
def test_distances(one: tuple[int, ...], other: tuple[int, ...], expected: float) -> None:
    points = Encoding(a_space(), no_costs)(np.array([one, other], dtype=np.int16))
    assert np.square(points[0] - points[1]).sum() == pytest.approx(expected)


def test_costs_that_differ_are_coordinates_and_their_scale_is_that_of_random_candidates() -> None:
    space = a_space()

    def cost(rows: Rows) -> dict[str, np.ndarray]:
        macs = np.exp(rows.sum(axis=1).astype(float))
        return {"macs": macs, "params": np.full(len(rows), 3.0), "latency_ms": 5 * macs, "latency_ms_std": macs}

    encoding = Encoding(space, cost)
    assert encoding.costs == ("macs", "latency_ms")
    drawn = encoding(space.sample(np.random.default_rng(5), 5000))[:, -2:]
    assert np.abs(drawn.mean(axis=0)).max() < 0.1
    assert np.abs(drawn.std(axis=0) - 1).max() < 0.1
    # Whatever else is encoded with it: the scale is the encoding's own.
    rows = space.sample(np.random.default_rng(6), 4)
    assert np.array_equal(encoding(rows)[1:2], encoding(rows[1:2]))


def test_decisions_of_a_small_space_count_apart_and_those_of_a_large_one_by_kind() -> None:
    assert Encoding(a_space(), no_costs).groups.tolist() == [0, 1, 1, 1, 2, 2, 2, 2, 3, 3]
    large = load_space("mbconv", input_shape=(1, 8, 8), num_classes=10, joint=("bits",))
    encoding = Encoding(large, no_costs)
    kinds = {d.name.rpartition(".")[2] for d in large.decisions}
    assert len(np.unique(encoding.groups)) == len(kinds)


def test_rows_that_compute_the_same_are_one_point() -> None:
    class Written(Space):
        def computed(self, rows: Rows) -> Rows:
            return np.sort(rows, axis=1)

    decisions = [Decision(name, ("a", "b", "c"), ordinal=False) for name in ("x", "y")]
    space = Written(name="w", spec={}, decisions=decisions, slots=[], input_shape=(1, 8, 8), num_classes=2)
    points = Encoding(space, no_costs)(np.array([[0, 2], [2, 0], [1, 1]], dtype=np.int16))
    assert np.array_equal(points[0], points[1])
    assert not np.array_equal(points[0], points[2])
