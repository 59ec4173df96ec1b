"""All networks of a space in one module: each runs with slices of the same weights.

| elastic                  | how                                                                                       |
|--------------------------|-------------------------------------------------------------------------------------------|
| width, expansion, keep   | first channels of weights, normalisations and gates (slimmable networks, once-for-all)    |
| kernel                   | centre of the largest, through learnt matrices, see `SharedUnit`                          |
| depth                    | first blocks of a stage; a skipped block's weights rest                                   |
| block, op                | one set of weights per layer of a position, whatever block it is part of; grouped layers  |
|                          | and stand-alone convolutions have their own, see `hwnas.spaces.shared.parts`              |
| rank                     | both factors have weights of their own, of which a rank takes the first directions        |
| bits                     | the same weights, rounded; a quantiser for every tensor and precision                     |
| density                  | the same weights, of which the slice's largest are kept, as in a network of its own       |

What differs from once-for-all (Cai et al., ICLR 2020): channels are not sorted by importance before they are cut, and
nothing here prescribes an order of training: see `hwnas.spaces.shared.sandwich` for which networks to train together.
What differs from FBNet's supernet (Wu et al., CVPR 2019): candidate blocks of a position share weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Size, Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from hwnas.spaces.calibration import recalibrate
from hwnas.spaces.images import fit
from hwnas.spaces.network import Network
from hwnas.spaces.operator import NETWORK_INPUT, Affine, Operator
from hwnas.spaces.quantizers import ActivationQuantizer
from hwnas.spaces.shared.mixture import Mixture, mix
from hwnas.spaces.shared.mixture_run import run_mixture
from hwnas.spaces.shared.parts import part_name, shared_parts
from hwnas.spaces.shared.shared_unit import SharedUnit
from hwnas.spaces.space import Space
from hwnas.spaces.units import UNITS, Unit
from hwnas.spaces.workload import Workload

Row = NDArray[np.integer[Any]]
"""A candidate as option indexes, shape (decisions,). Canonical or not: in a series of blocks of which some are skipped,
the others keep the weights of their own places."""


class SharedNetwork(nn.Module):
    """The networks of a space on shared weights.

    Statistics of normalisations are shared like weights: after training they are a blend of those of the networks that
    ran, so `calibrate` a candidate before it is evaluated.

    Args:
        space: Operators of one name may differ in channels, kernel, groups, precision and density.

    Attributes:
        parts: `SharedUnit` by the part's name.
        quantizers: By operator and bits, such as ``s1b1_expand_8``.
    """

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.space = space
        shared = shared_parts(space)
        units = {name: SharedUnit(part) for name, part in shared.parts.items()}
        self.parts = nn.ModuleDict({name: u for name, u in units.items() if u.state_dict()})
        self.quantizers = nn.ModuleDict(
            {_quantizer_name(name, b): ActivationQuantizer(b) for name, bits in shared.precisions.items() for b in bits}
        )

    def forward(self, images: Tensor, row: Row, probabilities: Mapping[str, Tensor] | None = None) -> Tensor:
        """The logits of one network, or of a mixture of many.

        Args:
            images: (n, channels, height, width); those of another size than the candidate's are resized.
            row: The candidate; in a mixture, what the decisions that are not mixed are.
            probabilities: For names of decisions, the weight of each option (options,), which sum to 1; see
                `run_mixture`.

        Returns:
            Logits (n, classes).

        Raises:
            UnknownNameError: A decision to mix that the space does not have.
            InvalidSpaceError: A decision that cannot be mixed, or too many at once; weights of the wrong shape.
        """
        images = fit(images, self.space.image_size_of(row))
        if probabilities:
            return run_mixture(self.run, self._mixture(row, tuple(probabilities)), images, probabilities)
        values = {NETWORK_INPUT: images}
        operators = _workload(self.space, _plain(row)).operators
        for operator in operators:
            values[operator.name] = self.run(operator, [values[name] for name in operator.inputs])
        return values[operators[-1].name]

    def run(self, operator: Operator, inputs: Iterable[Tensor], *, record: bool = True) -> Tensor:
        """What an operator makes of its inputs, with its slices of the shared weights.

        Args:
            operator: Of one of the space's networks.
            inputs: What it reads.
            record: Whether normalisations in training mode record their statistics.
        """
        unit, shapes = _template(operator, operator.affine, operator.front)
        unit.train(self.training)
        tensors = self._tensors(operator, unit, shapes)
        if not record:
            tensors |= {name: tensor.clone() for name, tensor in tensors.items() if name.startswith("norm.")}
        return cast(Tensor, functional_call(unit, tensors, tuple(inputs)))

    def tensors(self, operator: Operator) -> dict[str, Tensor]:
        """The parameters and buffers of an operator's unit, by their names in it; buffers are views."""
        return self._tensors(operator, *_template(operator, operator.affine, operator.front))

    @torch.no_grad()
    def extract(self, row: Row) -> Network:
        """A network of its own, with copies of the weights, statistics and ranges: the same outputs."""
        network = Network(_workload(self.space, _plain(row)), self.space.input_shape_of(self._options(row)))
        network.to(next(self.parameters()).device)
        for operator in network.workload.operators:
            network.unit(operator).load_state_dict(self.tensors(operator))
        return network.train(self.training)

    @torch.no_grad()
    def calibrate(self, row: Row, batches: Iterable[Tensor]) -> None:
        """Re-estimates a candidate's batch-norm statistics and quantiser ranges, as once-for-all does before it is
        evaluated. Those of candidates that share them are overwritten.

        Args:
            row: The candidate.
            batches: Images (n, channels, height, width).
        """
        network = self.extract(row)
        recalibrate(network, batches)
        for operator in network.workload.operators:
            own = self.tensors(operator)
            for name, buffer in network.unit(operator).named_buffers():
                own[name].copy_(buffer)

    # ---- internals ------------------------------------------------------------------------------------------------

    def _tensors(self, operator: Operator, unit: Unit, shapes: Mapping[str, Size]) -> dict[str, Tensor]:
        name = part_name(operator)
        tensors = cast(SharedUnit, self.parts[name]).slices(shapes) if name in self.parts else {}
        if unit.quantizer is not None:
            quantizer = self.quantizers[_quantizer_name(operator.name, operator.out_bits)]
            tensors |= {f"quantizer.{own}": buffer for own, buffer in quantizer.named_buffers()}
        return tensors

    def _mixture(self, row: Row, names: tuple[str, ...]) -> Mixture:
        rest = np.array(row)
        rest[[self.space.column(name) for name in names]] = 0
        return _mixture(self.space, _plain(rest), names)

    def _options(self, row: Row) -> dict[str, Any]:
        return {d.name: d.options[i] for d, i in zip(self.space.decisions, row, strict=True)}


@lru_cache(maxsize=4096)
def _template(operator: Operator, affine: Affine, front: int = 0) -> tuple[Unit, dict[str, Size]]:
    """The operator's unit without weights, and the shapes of its tensors, those of its quantiser left out.

    Operators that are equal but for names share it; their affine parts and fronts do not count for equality.
    """
    with torch.device("meta"), _Uninitialised():
        unit = UNITS[operator.kind](operator)
    tensors = {**dict(unit.named_parameters()), **dict(unit.named_buffers())}
    return unit, {name: t.shape for name, t in tensors.items() if not name.startswith("quantizer.")}


class _Uninitialised(TorchFunctionMode):
    """Leaves new parameters as they are: on the meta device, to initialise them takes longer than all else."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function in _INITIALISERS:
            return args[0] if args else (kwargs or {})["tensor"]
        return function(*args, **(kwargs or {}))


_INITIALISERS = {
    torch.Tensor.normal_, torch.Tensor.fill_, torch.Tensor.zero_,
    nn.init.normal_, nn.init.uniform_, nn.init.constant_, nn.init.kaiming_uniform_,
}  # fmt: skip


@lru_cache(maxsize=4096)
def _workload(space: Space, row: tuple[int, ...]) -> Workload:
    return space.workload_of_row(np.array(row, dtype=np.int16))


@lru_cache(maxsize=64)
def _mixture(space: Space, row: tuple[int, ...], names: tuple[str, ...]) -> Mixture:
    return mix(space, np.array(row, dtype=np.int16), names)


def _plain(row: Row) -> tuple[int, ...]:
    return tuple(int(i) for i in row)


def _quantizer_name(operator: str, bits: int) -> str:
    return f"{operator.replace('.', '_')}_{bits}"
