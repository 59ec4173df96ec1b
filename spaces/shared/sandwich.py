"""Which networks to train together: the sandwich rule."""

from __future__ import annotations

import numpy as np

from hwnas.spaces.space import Rows, Space
from hwnas.spaces.variation import extremes


def sandwich(space: Space, rng: np.random.Generator, n: int) -> Rows:
    """The largest network, the smallest, and ``n`` at random: those of one step, shape (2 + n, decisions).

    Their gradients are added up: the sandwich rule of universally slimmable networks (Yu and Huang, ICCV 2019). What is
    left out is their distillation from the largest: that is up to who trains.
    """
    return np.concatenate([extremes(space), space.sample(rng, n)])
