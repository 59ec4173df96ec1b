"""What to measure: which whole networks of a space tell most about all others."""

from __future__ import annotations

import numpy as np
from hwnas.spaces.space import Rows, Space
from hwnas.spaces.variation import sample_coherent


def sample_networks(space: Space, rng: np.random.Generator, n: int) -> Rows:
    """At most ``n`` distinct networks, uniform and coherent draws in turn. Shape (n, decisions).

    A predictor must know both the mixtures that a search passes through and the coherent networks it ends with.
    """
    rows = np.empty((2 * n, len(space.decisions)), dtype=np.int16)
    rows[0::2], rows[1::2] = space.sample(rng, n), sample_coherent(space, rng, n)
    _, first = np.unique(rows, axis=0, return_index=True)
    return rows[np.sort(first)][:n]
