"""Layers that compute each row of features by itself go by the rows, however these are arranged."""

from __future__ import annotations

import pytest
import torch

from hwnas.spaces.traced.expressions import Batch, Expression, applied
from hwnas.spaces.traced.graph import Node
from hwnas.spaces.traced.model import trace_model
from hwnas.spaces.traced.rows import rows_of
from tests.spaces.traced.models import MODELS, SHAPE, settled

TOKENS = Node("tokens", "call", (), (12, 8))
WIDE = Node("wide", "linear", ("tokens",), (12, 16))


def test_hidden_layers_on_maps_whose_channels_come_last_are_cut() -> None:
    model = trace_model(settled(MODELS["convnext"]()), torch.zeros(1, *SHAPE))
    space = model.space({"keep": [0.5, 1.0]})
    assert {"blocks.0.wide.keep", "blocks.1.wide.keep"} <= set(space.options)
    assert model.graph["blocks.0.narrow"].inputs == ("blocks.0.wide",)
    (activation,) = model.graph["blocks.1.narrow"].inputs  # of the form that has no kind of its own
    assert (model.graph[activation].inputs, model.graph[activation].shape) == (("blocks.1.wide",), (64, 64))


def test_others_are_rearranged_in_the_same_way() -> None:
    maps = applied("aten.reshape.default", TOKENS, (Batch(1), 3, 4, 8))
    turned = applied("aten.permute.default", applied("aten.transpose.int", maps, 0, -3), (0, 2, 1, 3))
    rows = rows_of(turned)
    assert rows is not None
    assert rows.node is TOKENS
    again = rows.again(WIDE)
    found = []
    while isinstance(again, Expression):
        again, *rest = again.args
        found.append(rest)
    assert again is WIDE
    assert found == [[(0, 2, 1, 3)], [0, -3], [(Batch(1), 3, 4, 16)]]


@pytest.mark.parametrize(
    "value",
    [
        TOKENS,
        torch.zeros(3),
        applied("aten.reshape.default", TOKENS, (Batch(1), 12, 2, 4)),
        applied("aten.transpose.int", TOKENS, 1, 2),
        applied("aten.transpose.int", TOKENS, 0, -1),
        applied("aten.permute.default", TOKENS, (0, 2, 1)),
        applied("aten.select.int", TOKENS, 1, 0),
        applied("aten.reshape.default", Node("maps", "conv", (), (8, 3, 4)), (Batch(1), 3, 4)),
    ],
)
def test_rows_that_are_torn_or_as_they_were_are_left(value: object) -> None:
    assert rows_of(value) is None
