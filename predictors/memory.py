"""Peak memory of networks as a runtime allocates it, from a few byte amounts of their operators.

ONNX Runtime takes several times the memory that lifetimes of activations ask for. Where a layer is emulated, its input
is copied to floats, its weights are, and its output is a float tensor first; float kernels copy to another layout and
back; kernels take workspaces for unfolded patches. So the peak of a network is

- the largest sum, over its operators, of the bytes that are alive while one runs: read, written, held, and copies,
- and the largest workspace, which lies beside the block that later runs keep for all tensors together,
- and a share of all emulated weights: many of them are turned into floats before the first layer runs (where floats
  are read, this is done once, when a file is loaded, and takes no memory of an inference),
- and a constant.

Each amount has a coefficient that networks measured on the device decide. That is what a maximum over slots can hold;
what it cannot: in which order weights are turned into floats, which buffers are used again, and the gaps in the block.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from hwnas.spaces.operator import Operator

Floats = NDArray[np.float64]

ALIVE = (
    "read", "written", "float copy read", "float copy written", "layout copy read", "layout copy written",
    "float weights", "gated",
)  # fmt: skip
WORKSPACE = ("float patches", "integer sums", "integer patches")
MIN_NETWORKS = 20
"""Measured networks to learn coefficients from."""
SEGMENT = 2**16
"""Float kernels unfold patches in segments of so many bytes, unless there are more filters than positions."""
TURNS = 30
TRUST = 0.01
"""How hard coefficients are drawn to what they would be if bytes were all that counts."""
NOT_EARLY = 0.5
"""What the share of the weights is drawn to."""


@dataclass(frozen=True, slots=True)
class Amounts:
    """Bytes of operators.

    Attributes:
        alive: While the operator runs, by `ALIVE`, shape (n, 8).
        workspace: Of its kernel, by `WORKSPACE`, shape (n, 3).
        early: Of its weights as floats where they are emulated, shape (n,).
    """

    alive: Floats
    workspace: Floats
    early: Floats


def amounts(operators: Sequence[Operator]) -> Amounts:
    """The bytes of operators, but for those held for later ones.

    All inputs of a concatenation are read, and the first one of an addition or a call: the others are held. Transposed
    convolutions unfold the patches that they write, all at once.
    """
    fields = [
        (o.in_channels, o.out_channels, *o.in_size, *o.out_size, o.taps, o.stride, o.groups, o.weight_bits, o.in_bits,
         o.out_bits)
        for o in operators
    ]  # fmt: skip
    columns = np.array(fields, dtype=np.float64).reshape(-1, 12).T
    cin, cout, in_height, in_width, out_height, out_width, taps, stride, groups, w_bits, in_bits, out_bits = columns
    kinds = np.array([o.kind for o in operators], dtype=np.str_)
    conv, deconv, linear, scale, quantize = (
        kinds == kind for kind in ("conv", "deconv", "linear", "scale", "quantize")
    )
    integer = np.array([o.integer for o in operators], dtype=np.bool_)
    weighted, low_in, low_out = conv | deconv | linear, in_bits <= 8, out_bits <= 8
    values_in, positions = cin * in_height * in_width, out_height * out_width
    values_out = cout * positions
    computes_floats = (~integer & ~quantize) | scale
    spatial = conv & (in_height * in_width > 1)
    emulated = weighted & ~integer & (w_bits <= 8) & low_in
    blocked = spatial & ~integer & ~emulated
    patch = taps * cin // groups * positions
    scattered = taps * (cout // groups) * in_height * in_width
    alive = (
        values_in * np.where(low_in, 1, 4),
        values_out * np.where(low_out, 1, 4),
        4 * values_in * (computes_floats & low_in),
        4 * values_out * (computes_floats & low_out),
        4 * values_in * (blocked & low_in),
        4 * values_out * (blocked & low_out),
        4 * emulated * cout * (cin // groups) * taps,
        4 * values_in * scale,
    )
    depthwise = (groups == cin) & (cin > 1)
    unfolded = taps * stride > 1
    workspace = (
        np.where(cout // groups <= positions, SEGMENT, 4 * patch) * (spatial & emulated & unfolded)
        + 4 * scattered * deconv,
        4 * values_out * (spatial & integer),
        np.where(depthwise, 8 * taps * positions, patch * (taps > 1)) * (spatial & integer),
    )
    return Amounts(np.column_stack(alive), np.column_stack(workspace), alive[6])


@dataclass(frozen=True, slots=True)
class MemoryModel:
    """Coefficients of the amounts.

    Attributes:
        held: Of the bytes held for later operators, which are alive too.
        alive, workspace: In the order of `ALIVE` and `WORKSPACE`.
        early: Of all emulated weights as floats.
        constant: Bytes of every network.
    """

    held: float
    alive: tuple[float, ...]
    workspace: tuple[float, ...]
    early: float
    constant: float

    @classmethod
    def fit(cls, networks: Sequence[Sequence[Operator]], measured: Sequence[int]) -> MemoryModel:
        """Learns non-negative coefficients by least squares of the relative error, in turns.

        Each turn takes from every network the operators that the present coefficients say are the largest, and solves
        for the coefficients as if these were known. The turn whose coefficients have the least error is kept.

        Args:
            networks: Operators of each, with what they hold, `MIN_NETWORKS` or more.
            measured: Bytes of each.
        """
        flat = [o for operators in networks for o in operators]
        own = amounts(flat)
        alive = np.column_stack([[o.held_bytes for o in flat], own.alive])
        ends = [0, *accumulate(len(operators) for operators in networks)]
        parts = [slice(*pair) for pair in pairwise(ends)]
        early = [own.early[part].sum() for part in parts]
        bytes_ = np.array(measured, dtype=np.float64)
        fixed = np.column_stack([early, np.full(len(bytes_), np.median(bytes_))])
        n_alive, n_workspace = alive.shape[1], own.workspace.shape[1]
        guess = np.concatenate([np.ones(n_alive + n_workspace), [NOT_EARLY, 0.0]])
        theta, best, least = guess, guess, np.inf
        for _ in range(TURNS):
            largest = _largest(alive, parts, theta[:n_alive])
            workspace = _largest(own.workspace, parts, theta[n_alive : n_alive + n_workspace])
            design = np.column_stack([largest, workspace, fixed])
            error = float(np.abs(design @ theta / bytes_ - 1).mean())
            if error < least:
                best, least = theta, error
            relative = design / bytes_[:, None]
            size = np.sqrt((relative**2).mean(axis=0))
            pull = np.sqrt(TRUST * len(bytes_)) * np.diag(np.where(size > 0, size, 1.0))
            target = np.concatenate([np.ones(len(bytes_)), pull @ guess])
            found, _ = nnls(np.concatenate([relative, pull]), target)
            theta = 0.6 * theta + 0.4 * found
        early_share, constant = best[n_alive + n_workspace :]
        return cls(
            held=float(best[0]),
            alive=tuple(map(float, best[1:n_alive])),
            workspace=tuple(map(float, best[n_alive : n_alive + n_workspace])),
            early=float(early_share),
            constant=float(constant * np.median(bytes_)),
        )

    @property
    def per_held(self) -> tuple[float, float]:
        """What a byte held adds to each of the `peaks` of an operator."""
        return self.held, 0.0

    def peaks(self, own: Amounts) -> Floats:
        """Of each operator: bytes alive, but for those held, and of its workspace; shape (n, 2)."""
        return np.column_stack([own.alive @ np.array(self.alive), own.workspace @ np.array(self.workspace)])

    def sums(self, own: Amounts) -> Floats:
        """What each operator adds to a network's peak whichever operator runs, shape (n,)."""
        return own.early * self.early

    def of_networks(self, networks: Iterable[Sequence[Operator]]) -> Floats:
        """Bytes of whole networks, whose operators say what they hold, shape (n,)."""
        result = []
        for operators in networks:
            own = amounts(operators)
            held = np.array([o.held_bytes for o in operators], dtype=np.float64)
            largest = (self.peaks(own) + held[:, None] * self.per_held).max(axis=0)
            result.append(self.constant + self.sums(own).sum() + largest.sum())
        return np.array(result, dtype=np.float64)


def _largest(table: Floats, parts: Sequence[slice], coefficients: Floats) -> Floats:
    """Of each part of a table's rows the one with the largest sum, shape (parts, columns)."""
    values = table @ coefficients
    return table[[part.start + int(values[part].argmax()) for part in parts]]
