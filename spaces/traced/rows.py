"""Tensors whose rows of features were rearranged: what computes each row by itself can do so before that.

Linear layers on maps whose channels come last, as in ConvNeXt (Liu et al., CVPR 2022), read (batch, height, width,
features). As tokens, (batch, height · width, features), hwnas knows them; between two such layers and their activations
nothing needs to be brought back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hwnas.spaces.traced.expressions import Expression, applied
from hwnas.spaces.traced.graph import Node
from hwnas.spaces.traced.operations import VIEWS


@dataclass(frozen=True)
class Rows:
    """Tokens (batch, tokens, features), or vectors (batch, features), and how their rows were rearranged.

    Attributes:
        node: The tokens or vectors.
        moves: What was done with them, the first of it first.
    """

    node: Node
    moves: tuple[Expression, ...]

    def again(self, node: Node) -> Expression:
        """Others rearranged in the same way, of as many rows, but maybe of more or fewer features."""
        value: Any = node
        for move in self.moves:
            _, *rest = move.args
            if move.target in VIEWS:
                rest = [(*rest[0][:-1], node.channels)]
            value = applied(move.target, value, *rest)
        assert isinstance(value, Expression)
        return value


def rows_of(value: Any) -> Rows | None:
    """The rows in a value, which may be anything; None where they were not rearranged, or torn."""
    moves: list[Expression] = []
    while isinstance(value, Expression) and value.args:
        moves.insert(0, value)
        value = value.args[0]
    if not moves or not isinstance(value, Node) or len(value.shape) > 2 or value.shape[:-1] == (1,):
        return None
    dimensions = len(value.shape) + 1
    for move in moves:
        if not _keeps_rows(move, dimensions, value.channels):
            return None
        dimensions = len(move.args[1]) if move.target in VIEWS else dimensions
    return Rows(value, tuple(moves))


def _keeps_rows(move: Expression, dimensions: int, features: int) -> bool:
    """Whether it leaves the last of so many dimensions as it is."""
    if move.kwargs:
        return False
    match move.target, move.args[1:]:
        case target, (sizes,) if target in VIEWS:
            return bool(sizes[-1:] == (features,))
        case "aten.transpose.int", (int(a), int(b)):
            return dimensions - 1 not in (a % dimensions, b % dimensions)
        case "aten.permute.default", (order,):
            return bool(order[-1] % dimensions == dimensions - 1)
    return False
