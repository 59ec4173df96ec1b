"""How alike the accuracies of two candidates are: the kernel of the accuracy process, and its prior."""

from __future__ import annotations

import math
from typing import Any

import gpytorch
import numpy as np
import torch
from gpytorch.constraints import Positive
from gpytorch.distributions import MultivariateNormal
from gpytorch.kernels import Kernel
from gpytorch.likelihoods import GaussianLikelihood
from gpytorch.priors import NormalPrior
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Parameter

LEAST_NOISE = 1e-4
"""Of the variance of accuracies; keeps the kernel's matrix regular, too."""


class CandidateKernel(Kernel):  # type: ignore[misc]
    """A sum of two Matérn kernels, of choices and of costs, times one of fidelity; all with ν = 3/2: rough functions.

    In a group of coordinates the length scale is the same. Logarithms of scales and of variances have normal priors of
    standard deviation 1, of variances around a half, of length scales around the square root of the number of groups:
    so many groups differ between two candidates at random.

    Args:
        groups: The group of each coordinate of choices, shape (c,). What follows are costs, each a group of its own,
            and last the fidelity.
        costs: How many of them.
    """

    def __init__(self, groups: NDArray[np.int64], costs: int) -> None:
        super().__init__()
        of_choices = int(groups.max(initial=-1)) + 1
        self.groups = torch.as_tensor(np.concatenate([groups, of_choices + np.arange(costs)]))
        self.choices = len(groups)
        centres = [0.5 * math.log(max(1, n)) for n in (of_choices, costs) for _ in range(n)]
        self.log_lengths = Parameter(torch.tensor(centres, dtype=torch.float64))
        self.log_variances = Parameter(torch.full((2,), math.log(0.5), dtype=torch.float64))
        self.log_fidelity_length = Parameter(torch.zeros(1, dtype=torch.float64))
        for name in ("log_lengths", "log_variances", "log_fidelity_length"):
            centre = getattr(self, name).detach().clone()
            self.register_prior(f"{name}_prior", NormalPrior(centre, torch.ones_like(centre)), name)

    @property
    def variance(self) -> Tensor:
        """Of every point."""
        return self.log_variances.exp().sum()

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **params: Any) -> Tensor:
        """The kernel (n, m) of points (n, c + costs + 1) and (m, c + costs + 1); of pairs, (n,), if ``diag``."""
        fidelity = (-self.log_fidelity_length).exp()
        lengths = (-self.log_lengths).exp()[self.groups]
        parts = torch.zeros(())
        for part, variance in zip(
            (slice(None, self.choices), slice(self.choices, -1)), self.log_variances.exp(), strict=True
        ):
            scale = lengths[self.choices :] if part.start else lengths[: self.choices]
            if len(scale):
                parts = parts + variance * self._alike(x1[..., part] * scale, x2[..., part] * scale, diag)
        return parts * self._alike(x1[..., -1:] * fidelity, x2[..., -1:] * fidelity, diag)

    def _alike(self, x1: Tensor, x2: Tensor, diag: bool) -> Tensor:
        squares = self.covar_dist(x1, x2, square_dist=True, diag=diag)
        distance: Tensor = (3 * squares).clamp_min(1e-15).sqrt()  # whose gradient is finite where points are equal
        return (1 + distance) * torch.exp(-distance)


class CandidateProcess(gpytorch.models.ExactGP):  # type: ignore[misc]
    """Known points and the prior of all others.

    Args:
        x: Points (n, c + costs + 1), the last coordinate being the fidelity.
        y: Their accuracies (n,), about of mean 0 and variance 1.
        groups: See `CandidateKernel`.
    """

    def __init__(self, x: Tensor, y: Tensor, groups: NDArray[np.int64]) -> None:
        constraint = Positive(torch.exp, torch.log)
        super().__init__(x, y, GaussianLikelihood(noise_constraint=constraint))
        noise = self.likelihood.noise_covar
        noise.register_prior("noise_prior", NormalPrior(math.log(1e-2), 2.0), lambda m: m.raw_noise)
        self.kernel = CandidateKernel(groups, x.shape[1] - len(groups) - 1)
        self.constant = Parameter(torch.zeros((), dtype=torch.float64))
        self.slope = Parameter(torch.zeros((), dtype=torch.float64))
        self.register_prior("slope_prior", NormalPrior(0.0, 1.0), "slope")
        self.double()
        self.likelihood.noise = 1e-2

    def forward(self, x: Tensor) -> MultivariateNormal:
        """The prior at points (n, c + costs + 1)."""
        return MultivariateNormal(self.prior(x), self.kernel(x))

    def prior(self, x: Tensor) -> Tensor:
        """The mean before anything is known, shape (n,): what a training lacks in fidelity, it lacks in accuracy."""
        return self.constant + self.slope * (1 - x[:, -1])

    @property
    def noise(self) -> Tensor:
        """Variance of the accuracy of one network, trained twice."""
        noise: Tensor = self.likelihood.noise
        return noise + LEAST_NOISE
