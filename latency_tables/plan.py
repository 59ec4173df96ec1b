"""What to measure: which whole networks of a space tell most about all others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from hwnas.spaces.space import Rows, Space
from hwnas.spaces.variation import sample_coherent

ANCHORS = 6
"""Networks that are measured with every chunk to tell the machine's speed."""


def sample_networks(space: Space, rng: np.random.Generator, n: int, speeds: Sequence[float]) -> Rows:
    """At most ``n`` distinct networks to learn from. Shape (n, decisions).

    A predictor must know the mixtures that a search passes through and the coherent networks it ends with, so draws
    take turns: uniform; coherent (see `sample_coherent`); coherent and all in one precision, a fast one more often.

    Args:
        space, rng, n: As said.
        speeds: Of each of `precision_pairs`, the inverse of its latency.
    """
    kinds = (space.sample(rng, n), sample_coherent(space, rng, n), sample_coherent(space, rng, n))
    pairs = precision_pairs(space)
    weights = np.array(speeds) / np.sum(speeds)
    for row, pair in zip(kinds[2], rng.choice(len(pairs), size=n, p=weights), strict=True):
        set_precision(space, row, *pairs[pair])
    rows = np.stack(kinds, axis=1).reshape(3 * n, len(space.decisions))
    shared = [i for i, d in enumerate(space.decisions) if d.name.endswith(".shared")]
    rows[:, shared] = space.sizes[shared] - 1  # stored otherwise, what runs is the same
    rows = space.canonical(rows)
    _, first = np.unique(rows, axis=0, return_index=True)
    return rows[np.sort(first)][:n]


@lru_cache(maxsize=16)
def anchors(space: Space) -> Rows:
    """Networks that show the machine's speed: the reference in float32 first, then in other precisions.

    A machine's slow phases do not slow all kernels alike, so networks of several kinds must tell. Every registration
    measures them. Shape (at most ``ANCHORS``, decisions).
    """
    pairs = precision_pairs(space)
    chosen = np.linspace(len(pairs) - 1, 0, min(ANCHORS, len(pairs))).round().astype(int)
    rows = np.array([uniform_precision(space, *pairs[i]) for i in chosen])
    rows.flags.writeable = False  # all who ask share them
    return rows


def precision_pairs(space: Space) -> list[tuple[int, int]]:
    """Every pair of weight and activation bits that the space offers."""
    weights, activations = (
        sorted(
            {int(o) for d in space.decisions if d.name.endswith(f".{kind}") for o in d.options}
            | {int(v) for name, v in space.fixed.items() if name.endswith(f".{kind}")}
        )
        or [32]
        for kind in ("weight_bits", "act_bits")
    )
    return [(w, a) for w in weights for a in activations]


def uniform_precision(space: Space, weight_bits: int, act_bits: int) -> Rows:
    """The space's reference network all in one precision. Shape (decisions,)."""
    row = space.encode(space.reference())
    set_precision(space, row, weight_bits, act_bits)
    return np.asarray(space.canonical(row[None])[0])


def set_precision(space: Space, row: Rows, weight_bits: int, act_bits: int) -> None:
    """Puts one row (decisions,) in place into one precision; layers that lack it take the nearest they have."""
    for column, decision in enumerate(space.decisions):
        if decision.name.endswith("_bits"):
            wanted = weight_bits if decision.name.endswith(".weight_bits") else act_bits
            row[column] = int(np.argmin([abs(int(o) - wanted) for o in decision.options]))
