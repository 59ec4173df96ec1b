"""A trained model taken as it is: what it computes, what it has learnt, and the space of what can be taken away."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from safetensors.torch import load_model as load_weights
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from hwnas.spaces.catalog import JOINT, space_from_spec
from hwnas.spaces.errors import InvalidFileError, InvalidSpaceError
from hwnas.spaces.files import write_bytes
from hwnas.spaces.network import Network
from hwnas.spaces.traced.graph import Graph
from hwnas.spaces.traced.space import TracedSpace
from hwnas.spaces.traced.tracing import trace
from hwnas.spaces.traced.weights import Evidence, compressed

TOLERANCE = 1e-3
"""Of the largest output, by which the traced network may differ from the module: they add in different orders."""


@dataclass(frozen=True)
class TracedModel:
    """A trained model.

    Attributes:
        graph: What it computes.
        state: What it has learnt, by the names that the graph has.
    """

    graph: Graph
    state: Mapping[str, Tensor]

    def space(
        self,
        joint: Sequence[str] | Mapping[str, Sequence[Any]] = JOINT,
        narrow: Mapping[str, Sequence[Any]] | None = None,
    ) -> TracedSpace:
        """What can be taken away from it; see `hwnas.spaces.catalog.load_space` for the arguments."""
        spec = self.spec | {"joint": joint} | ({"narrow": dict(narrow)} if narrow else {})
        space = space_from_spec(spec)
        assert isinstance(space, TracedSpace)
        return space

    @cached_property
    def spec(self) -> dict[str, Any]:
        """What `space_from_spec` makes its space of, but for the dimensions that are searched."""
        return {
            "name": "traced",
            "graph": self.graph.to_json(),
            "input_shape": list(self.graph.input.shape),
            "num_classes": self.graph.output.channels,
        }

    @cached_property
    def network(self) -> Network:
        """The model as a network of operators, whole and in float32, in evaluation mode."""
        space = space_from_spec(self.spec | {"joint": []})
        assert isinstance(space, TracedSpace)
        return compressed(space, space.reference(), self.state, Evidence({}))

    def save(self, folder: Path, name: str) -> None:
        """Writes ``<name>.json``, the graph, and ``<name>.safetensors`` into a folder."""
        tensors = {key: tensor.contiguous() for key, tensor in self.state.items()}
        (folder / f"{name}.json").unlink(missing_ok=True)
        write_bytes(folder / f"{name}.safetensors", save(tensors))
        write_bytes(folder / f"{name}.json", json.dumps(self.graph.to_json(), indent=1).encode())

    @classmethod
    def load(cls, folder: Path, name: str) -> TracedModel:
        """What `save` wrote; raises `InvalidFileError` where it did not."""
        try:
            graph = Graph.from_json(json.loads((folder / f"{name}.json").read_text(encoding="utf-8")))
            return cls(graph, load_file(folder / f"{name}.safetensors"))
        except (OSError, ValueError, SafetensorError) as error:
            raise InvalidFileError(f"{folder} does not hold a traced model {name!r}: {error}") from error


def trace_model(module: nn.Module, example: Tensor) -> TracedModel:
    """Takes a trained module as it is.

    Args:
        module: Reads images (n, channels, height, width), and returns scores (n, classes). It is not changed.
        example: Images of the shape that it reads; random numbers are as good.

    Raises:
        InvalidSpaceError: The module cannot be followed, or the traced network computes something else.
    """
    traced = trace(module, example)
    model = TracedModel(traced.graph, traced.state)
    _check(module, model)
    return model


def load_model(
    factory: str, weights: Path | None, input_shape: Sequence[int], options: Mapping[str, Any]
) -> TracedModel:
    """As `trace_model`, of what `make_module` makes; ``input_shape`` is channels, height, width of one image."""
    return trace_model(make_module(factory, weights, options), torch.zeros(1, *input_shape))


def make_module(factory: str, weights: Path | None, options: Mapping[str, Any]) -> nn.Module:
    """A trained module that a function makes.

    Args:
        factory: ``package.module:function``; called with ``options``, it makes a `torch.nn.Module`.
        weights: A safetensors file with the module's state; None where the function loads it itself.
        options: Keywords of the function.

    Raises:
        InvalidSpaceError: The function cannot be imported, or makes no module.
        InvalidFileError: The file is not there, or holds other weights.
    """
    module_path, _, name = factory.partition(":")
    if not name:
        raise InvalidSpaceError(f"space.model must be package.module:function, and {factory!r} names no function")
    try:
        module = getattr(_imported(module_path), name)(**options)
    except Exception as error:  # whatever the user's own code raises
        raise InvalidSpaceError(
            f"space.model must be package.module:function, whose function makes a torch module; {factory!r}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(module, nn.Module):
        raise InvalidSpaceError(f"space.model {factory!r} makes {type(module).__name__}, not a torch module")
    if weights is not None:
        try:
            _give(module, weights)
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise InvalidFileError(f"{weights} does not hold the weights of {factory}: {reason}") from error
    return module


def _give(module: nn.Module, weights: Path) -> None:
    """Gives the module its weights; of tensors that layers share, the file may have one or all."""
    missing, unexpected = load_weights(module, weights, strict=False)
    unexpected = [name for name in unexpected if name not in module.state_dict()]
    if missing or unexpected:
        raise ValueError(f"missing {sorted(missing)}, unexpected {sorted(unexpected)}")


def _imported(path: str) -> ModuleType:
    """A module by its name; also one in the folder where the command runs."""
    before = list(sys.path)
    sys.path.insert(0, str(Path.cwd()))
    try:
        return import_module(path)
    finally:
        sys.path[:] = before


@torch.no_grad()
def _check(module: nn.Module, model: TracedModel) -> None:
    """Raises `InvalidSpaceError` where the traced network does not compute what the module computes."""
    modes = {name: m.training for name, m in module.named_modules()}
    module.eval()
    images = torch.randn(3, *model.graph.input.shape, generator=torch.Generator().manual_seed(0))
    try:
        (expected,) = tree_leaves(module(images))
    finally:
        for name, m in module.named_modules():
            m.training = modes[name]
    if expected.ndim == 2 and (expected >= 0).all() and (expected.sum(1) - 1).abs().max() < TOLERANCE:
        raise InvalidSpaceError(
            "the model returns probabilities, but logits are what is trained: leave out the softmax at its end"
        )
    actual = model.network(images)
    difference = float((actual - expected).abs().max()) if actual.shape == expected.shape else float("inf")
    if not difference <= TOLERANCE * float(expected.abs().max()):
        raise InvalidSpaceError(
            f"the traced network differs from the module by {difference:.3g} (outputs up to "
            f"{float(expected.abs().max()):.3g}); does the module depend on the batch, or on random numbers?"
        )
