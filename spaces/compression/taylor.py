"""Taylor importance of channels, measured with gates."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from hwnas.spaces.errors import InvalidOptionError


class TaylorGates:
    """Gates on modules' output channels, and the loss's squared gradients with respect to them.

    Each channel is multiplied by a gate z of 1, which changes no output. To first order, closing the gate changes the
    loss by ∂L/∂z; the importance is its square, averaged over mini-batches (Molchanov et al., CVPR 2019,
    arXiv 1906.10771, section 3). Channels are dimension 1 of maps (n, channels, h, w), and the last
    one of features (n, channels) and tokens (n, tokens, channels). A module that runs several times in a forward pass
    has one gate, whose gradients add up. A deviation: the paper averages over prunings, too (a moving average of .9);
    here that is the caller's.

    Gates are there between `__enter__` and `__exit__`:

        with TaylorGates({"stem": network.stem.norm}) as gates:
            for images, labels in batches:
                gates.add(cross_entropy(network(images), labels))
        importance = gates.scores()["stem"]

    Args:
        modules: The modules by a name for their scores: batch normalisations, or what else writes channels.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self.modules = dict(modules)
        self.batches = 0
        self._gates: dict[str, Tensor] = {}
        self._sums: dict[str, Tensor] = {}
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> TaylorGates:
        for name, module in self.modules.items():
            self._hooks.append(module.register_forward_hook(self._gated(name)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._gates.clear()

    def _gated(self, name: str) -> Any:
        def hook(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor:
            shape = (-1, 1, 1) if output.ndim == 4 else (-1,)
            if name not in self._gates:
                channels = output.shape[-len(shape)]
                self._gates[name] = torch.ones(channels, dtype=output.dtype, device=output.device).requires_grad_()
            return output * self._gates[name].reshape(shape)

        return hook

    def add(self, loss: Tensor) -> None:
        """Takes the gates' gradients of a mini-batch's loss, shape (), and releases its graph.

        The parameters' own gradients stay as they are.

        Raises `InvalidOptionError` where no gate is behind the loss.
        """
        names = list(self._gates)
        if not names or not loss.requires_grad:
            raise InvalidOptionError(
                f"no gate of {sorted(self.modules)} took part in the loss; run the network within the `with` block, "
                "and with gradients enabled"
            )
        found = torch.autograd.grad(loss, [self._gates[n] for n in names], allow_unused=True)
        for name, gradient in zip(names, found, strict=True):
            squared = torch.zeros_like(self._gates[name]) if gradient is None else gradient.square()
            self._sums[name] = self._sums.get(name, 0) + squared.double()
        self.batches += 1

    def scores(self) -> dict[str, Tensor]:
        """The mean over the mini-batches of (∂L/∂z)², (channels,) in double precision, by module name.

        Raises `InvalidOptionError` for modules that never ran: nothing is known of them.
        """
        silent = sorted(set(self.modules) - set(self._sums))
        if silent:
            raise InvalidOptionError(
                f"the modules {silent} never ran under a loss, so their channels have no Taylor importance; leave them "
                "out, or add a loss that reads them"
            )
        return {name: self._sums[name] / self.batches for name in self.modules}
