"""A device whose true costs are known: every term of every operator has a planted coefficient."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from hwnas.latency_tables.device import Device, Profile
from hwnas.latency_tables.plan import precision_pairs, sample_networks, uniform_precision
from hwnas.latency_tables.table import Role
from hwnas.predictors.features import Term, energy_terms, latency_terms
from hwnas.spaces import Operator, Space, load_space
from hwnas.spaces.space import Rows
from tests.synthetic_table import synthetic_table

ALL = ("bits", "sparsity", "rank")
PER_NETWORK_MS = 0.02


@cache
def digits_space(joint: tuple[str, ...] = ALL) -> Space:
    return load_space("mbconv", input_shape=(1, 8, 8), num_classes=10, joint=joint)


def planted(term: Term) -> float:
    """Milliseconds per unit of a term: nothing for a third of them, up to 1 µs for the rest."""
    digest = hashlib.sha256("/".join(term).encode()).digest()
    return 0.0 if digest[0] % 3 == 0 else 1e-3 * digest[1] / 255


def planted_ms(operators: Iterable[Operator]) -> float:
    """What a network takes."""
    return PER_NETWORK_MS + sum(planted(term) * amount for o in operators for term, amount in latency_terms(o))


def planted_mj(operators: Iterable[Operator]) -> float:
    """The energy that a network takes: 2 mJ, and 0.2 to 1.2 mJ per unit of a term."""
    return 2 + sum((0.2 + planted(term) * 1e3) * amount for o in operators for term, amount in energy_terms(o))


def noisy(values: Sequence[float], noise: float, seed: int) -> list[float]:
    """The values times random factors around one."""
    factors: NDArray[np.float64] = np.exp(noise * np.random.default_rng(seed).normal(size=len(values)))
    return [v * float(f) for v, f in zip(values, factors, strict=True)]


def networks_to_learn_from(space: Space, n: int, seed: int = 0) -> Rows:
    """As the profiler draws them: the reference in every precision, then ``n`` others."""
    pairs = precision_pairs(space)
    uniform = np.array([uniform_precision(space, *pair) for pair in pairs])
    return np.concatenate([uniform, sample_networks(space, np.random.default_rng(seed), n, [1.0] * len(pairs))])


@cache
def synthetic_device(space: Space, n: int = 200) -> Device:
    """A device that measured the space without noise: ``n`` networks to learn from, 20 to check."""
    rows: dict[Role, Rows] = {
        "fit": networks_to_learn_from(space, n),
        "check": space.sample(np.random.default_rng(1), 20),
    }
    profile = Profile(
        name="synthetic",
        simulated=True,
        runtime="onnxruntime",
        runtime_settings={},
        facts={},
        protocol={},
        probe_ms=0.1,
        registered="2026-01-01 00:00:00 UTC",
        registration_seconds=1.0,
    )
    return Device(profile, synthetic_table(space, rows, planted_ms))
