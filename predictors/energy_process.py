"""Energy of a space's networks from some that were measured: a robust sum over parts, and a Gaussian process.

The sum is non-negative: so much per network, and so much for each part, such as an operator or a millisecond. What it
misses, as a logarithm, is a Gaussian process over what the networks are made of (Matérn 3/2 and noise, its scales by
maximum likelihood; scikit-learn). Energies of published tables have values that nothing explains, so the sum is found
by iterated reweighting (Cauchy's weights of the relative error), and networks far from it are kept from the process.
What they show is said of networks that equal them, and of no others.

On the Raspberry Pi 5 energies of NAS-Bench-201, median relative error and Kendall's tau over 20 draws of 100 networks:

| from the architecture        |              | latency of all networks known    |              |
|------------------------------|--------------|----------------------------------|--------------|
| this                         | 4.6 %, 0.73  | this                             | 2.5 %, 0.89  |
| the sum alone                | 5.0 %, 0.66  | the sum alone                    | 2.7 %, 0.89  |
| no network is kept out       | 8.7 %, 0.71  | a process around latency, no sum | 2.6 %, 0.89  |
| boosted trees                | 9.7 %, 0.67  | boosted trees                    | 2.8 %, 0.89  |
| a process alone              | 22 %, 0.62   | extremely randomised trees       | 3.0 %, 0.88  |
| `hwnas.predictors.additive`  | 5.9 %, 0.67  |                                  |              |

Searches do not use this: `hwnas.predictors.cost` takes energy from the additive model. The exclusion was chosen on
these very draws. The table gives equal networks one measurement; without repeats of what was measured this has 4.7 %
and 0.73, the additive model 5.1 % and 0.74, and a robust line through MACs 5.3 % and 0.76; with latency known this has
2.5 % and 0.90. `hwnas bench energy` measures it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from hwnas.predictors.linear import LEAST_ERROR, LinearModel
from hwnas.spaces.errors import UnavailableError

Floats = NDArray[np.float64]

MIN_NETWORKS = 10
FAR = 6.0
"""Standard deviations, estimated from the median, beyond which a network is kept from the process."""


@dataclass(frozen=True)
class EnergyProcess:
    """A robust sum times what the process says.

    Attributes:
        total: The sum; nothing in it is negative.
        offset: Median of the logarithm of what the sum misses.
        process: Of what else it misses, on features brought to mean 0 and standard deviation 1.
        mean, std: Of the measured networks' features, shape (f,).
        known: Features of networks that the process did not see, with what the sum misses of them.
    """

    total: LinearModel
    offset: float
    process: GaussianProcessRegressor
    mean: Floats
    std: Floats
    known: tuple[tuple[Floats, float], ...]

    @classmethod
    def fit(cls, parts: Floats, features: Floats, measured: Floats) -> EnergyProcess:
        """Learns from measured networks.

        Args:
            parts: Amounts of what the networks cost for, non-negative, shape (n, p).
            features: By which networks are like each other, shape (n, f).
            measured: Their energy, positive, shape (n,).

        Raises:
            UnavailableError: Fewer than 10 networks.
        """
        if len(measured) < MIN_NETWORKS:
            raise UnavailableError(f"energy of at least {MIN_NETWORKS} networks is needed, not of {len(measured)}")
        total = LinearModel.fit_robust(parts, measured)
        missed = np.log(measured / total.predict(parts).clip(1e-300))
        offset = float(np.median(missed))
        missed = missed - offset
        mean, std = features.mean(axis=0), features.std(axis=0)
        std = np.where(std > 0, std, 1.0)
        points = (features - mean) / std
        near = np.abs(missed) <= FAR * max(1.4826 * float(np.median(np.abs(missed))), LEAST_ERROR)
        with warnings.catch_warnings():  # a scale at the end of its range is a finding, not a failure
            warnings.simplefilter("ignore", ConvergenceWarning)
            process = GaussianProcessRegressor(_kernel(), random_state=0).fit(points[near], missed[near])
        known = tuple(
            (feature, float(missed[(features == feature).all(axis=1)].mean()))
            for feature in np.unique(features[~near], axis=0)
        )
        return cls(total, offset, process, mean, std, known)

    def predict(self, parts: Floats, features: Floats) -> Floats:
        """Energy of networks, shape (n,)."""
        missed = self.process.predict((features - self.mean) / self.std)
        for feature, value in self.known:
            missed[(features == feature).all(axis=1)] = value
        return np.asarray(self.total.predict(parts) * np.exp(missed + self.offset))


def _kernel() -> WhiteKernel:
    smooth = ConstantKernel(0.01, (1e-6, 10.0)) * Matern(5.0, (1.0, 100.0), nu=1.5)
    return smooth + WhiteKernel(0.01, (1e-8, 1.0))
