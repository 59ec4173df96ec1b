"""Accuracy of candidates that were not trained, from some that were: a Gaussian process that states its error.

Accuracies have a long tail of failures, which a normal distribution does not expect and which matter little: whether a
network is bad or very bad. So what is more than one interquartile range below the median is compressed by a logarithm
before the process sees it (`Compression`); predictions are on that scale, too.

ChamNet (Dai et al., CVPR 2019, section 3.2) has such a process on a vector of channels, expansions and repeats, each
with a length scale. Here every kind of decision is treated as what it is and costs are coordinates, too
(`hwnas.predictors.encoding`); partial trainings are points at a fidelity below 1 (`hwnas.predictors.accuracy_kernel`).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import gpytorch
import numpy as np
import torch
from linear_operator.utils.cholesky import psd_safe_cholesky
from linear_operator.utils.errors import NanError, NotPSDError
from linear_operator.utils.warnings import NumericalWarning
from numpy.typing import NDArray
from torch import Tensor

from hwnas.predictors.accuracy_kernel import CandidateProcess
from hwnas.predictors.encoding import Floats

STEPS = 40
"""Of the search for scales."""
LEAST_RANGE = 1e-3
"""Interquartile range, so that equal accuracies have a scale."""
Scales = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Compression:
    """The scale on which accuracies are told to the process.

    Attributes:
        centre: The median, which becomes 0.
        scale: The interquartile range, which becomes 1; below -1 the scale is logarithmic.
    """

    centre: float
    scale: float

    @classmethod
    def of(cls, accuracy: Floats) -> Compression:
        """That of known accuracies (n,)."""
        low, centre, high = np.quantile(accuracy, [0.25, 0.5, 0.75])
        return cls(float(centre), max(float(high - low), LEAST_RANGE))

    def __call__(self, accuracy: Floats) -> Floats:
        """Accuracies, of any shape, on the compressed scale; infinity stays infinite."""
        scaled = (np.asarray(accuracy) - self.centre) / self.scale
        return np.where(scaled >= -1, scaled, -1 - np.log1p(np.maximum(-1 - scaled, 0)))

    def inverse(self, compressed: Floats) -> Floats:
        """The inverse."""
        scaled = np.where(compressed >= -1, compressed, -1 - np.expm1(np.maximum(-1 - compressed, 0)))
        return np.asarray(self.centre + self.scale * scaled)


class AccuracyProcess:
    """What is known of accuracies, on the scale of a `Compression`.

    Args:
        groups: See `hwnas.predictors.encoding.Encoding`.

    Attributes:
        compression: Of the accuracies that were last learnt.
        scales: Of the kernel, as plain data; empty before the first results.
    """

    def __init__(self, groups: NDArray[np.int64]) -> None:
        self.groups = groups
        self.compression = Compression(0.0, 1.0)
        self.scales: Scales = {}

    def learn(self, points: Floats, accuracy: Floats, fidelity: Floats, *, rescale: bool) -> None:
        """Takes in all results.

        Args:
            points: Of the encoding, shape (n, c + costs).
            accuracy, fidelity: Shape (n,); none of them NaN.
            rescale: Whether the scales are found anew, from where they are; that takes the time of tens of predictions.
        """
        self.compression = Compression.of(accuracy)
        x = torch.as_tensor(np.column_stack([points, fidelity]))
        y = torch.as_tensor(self.compression(accuracy))
        self._process = CandidateProcess(x, y, self.groups)
        for name, parameter in self._process.named_parameters():
            if name in self.scales:
                parameter.data = torch.tensor(self.scales[name], dtype=torch.float64).reshape(parameter.shape)
        if rescale:
            _maximise(self._process, x, y)
            named = self._process.named_parameters()
            self.scales = {name: parameter.detach().ravel().tolist() for name, parameter in named}
        self._solve(x, y)

    @torch.no_grad()
    def believe(self, points: Floats) -> None:
        """Takes points (k, c + costs) under evaluation to turn out as predicted: nothing is left to learn there.

        Holds until `learn` is called again.
        """
        if len(points):
            means, _ = self.predict(points)
            self._solve(torch.cat([self._x, _full(points)]), torch.cat([self._y, torch.as_tensor(means)]))

    @torch.no_grad()
    def predict(self, points: Floats) -> tuple[Floats, Floats]:
        """Compressed accuracies of full trainings at points (m, c + costs), and standard deviations (m,)."""
        x = _full(points)
        across = self._process.kernel(x, self._x).to_dense()
        explained = torch.linalg.solve_triangular(self._root, across.T, upper=False)
        variance = self._process.kernel.variance - explained.square().sum(dim=0)
        mean = self._process.prior(x) + across @ self._weights
        return mean.numpy(), variance.clamp_min(1e-12).sqrt().numpy()

    @torch.no_grad()
    def _solve(self, x: Tensor, y: Tensor) -> None:
        self._x, self._y = x, y
        covariance = self._process.kernel(x).to_dense()
        covariance.diagonal().add_(self._process.noise)
        self._root = psd_safe_cholesky(covariance)
        self._weights = torch.cholesky_solve((y - self._process.prior(x))[:, None], self._root)[:, 0]


def _full(points: Floats) -> Tensor:
    """Points of full trainings."""
    return torch.as_tensor(np.column_stack([points, np.ones(len(points))]))


def _maximise(process: CandidateProcess, x: Tensor, y: Tensor) -> None:
    """Brings the scales to the maximum of their posterior."""
    process.train()
    likelihood = gpytorch.mlls.ExactMarginalLogLikelihood(process.likelihood, process)
    parameters = list(process.parameters())
    before = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.LBFGS(
        parameters, lr=0.5, max_iter=STEPS, line_search_fn="strong_wolfe", tolerance_change=1e-5
    )

    def loss() -> float:
        optimizer.zero_grad()
        value = -likelihood(process(x), y)
        value.backward()
        return float(value.detach())

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NumericalWarning)  # on the way, scales may be extreme
            optimizer.step(loss)  # type: ignore[no-untyped-call]
        broken = not all(bool(torch.isfinite(p).all()) for p in parameters)
    except (NanError, NotPSDError):
        broken = True
    if broken:  # scales so extreme that rounding makes the matrix singular: those before will do
        with torch.no_grad():
            for parameter, old in zip(parameters, before, strict=True):
                parameter.copy_(old)
    process.eval()
