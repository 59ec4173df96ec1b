"""Energy as a bilinear function of the widths of neighbouring layers (Yang et al., CVPR 2019, arXiv 1812.01803).

Energy-constrained compression (ECC) models a network of L layers as

    E(s) = a₀ + Σ_j a_j (s_j / u_j) (s_{j+1} / u_{j+1})

with s_j the channels that enter layer j, and u_j the most that may. Deviations:

- Least squares of the relative error, not of the absolute one: all that is compared with it is fitted so, too.
- What multiplies a coefficient is the number of a layer's two-dimensional filters that are not zero: of a convolution
  in groups there are fewer than s_j s_{j+1}, and a sparse layer has a share of them. A layer that a network lacks
  has none.
- ECC measures 10,000 networks of one architecture. With fewer networks than layers the coefficients are the least ones
  that fit.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwnas.predictors.linear import LinearModel
from hwnas.spaces.operator import Operator

Floats = NDArray[np.float64]
Layers = Mapping[Hashable, Operator]
"""A network's operators by their position."""


@dataclass(frozen=True, slots=True)
class BilinearModel:
    """One coefficient per position.

    Attributes:
        positions: Of the layers of all networks learnt from.
        line: The coefficients, of products of widths.
    """

    positions: tuple[Hashable, ...]
    line: LinearModel

    @classmethod
    def fit(cls, networks: Sequence[Layers], measured: Sequence[float] | Floats) -> BilinearModel:
        """Learns from networks, each with its energy."""
        positions = tuple(dict.fromkeys(p for layers in networks for p, o in layers.items() if o.weights))
        return cls(positions, LinearModel.fit(_products(networks, positions), np.asarray(measured, dtype=np.float64)))

    def of_networks(self, networks: Sequence[Layers]) -> Floats:
        """Energy of whole networks, shape (n,); layers at positions never seen count nothing."""
        return self.line.predict(_products(networks, self.positions))


def product_of_widths(operator: Operator) -> float:
    """Two-dimensional filters of a layer that are not zero; 0 where it has no weights."""
    return operator.weights / operator.taps * operator.density


def _products(networks: Sequence[Layers], positions: Sequence[Hashable]) -> Floats:
    index = {position: i for i, position in enumerate(positions)}
    products = np.zeros((len(networks), len(positions)))
    for row, layers in zip(products, networks, strict=True):
        for position, operator in layers.items():
            if position in index:
                row[index[position]] = product_of_widths(operator)
    return products
