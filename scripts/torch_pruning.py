"""A trained module pruned by Torch-Pruning, as a baseline."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from copy import deepcopy
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from hwnas.spaces.errors import HwnasError, InvalidSpaceError, UnavailableError
from hwnas.spaces.traced.making import last_layers
from hwnas.spaces.traced.model import TracedModel, trace_model

SHARE = 0.5
"""Of the MACs, that remains at most."""
MULTIPLE = 8
"""Of which the channels that remain are, where any go."""
LAYERS = (nn.Conv2d, nn.Linear)
"""Whose channels go."""
STEPS = 64
"""The ratios at which a module is pruned are so many parts of one."""


def half_pruned(module: nn.Module, example: Tensor) -> TracedModel:
    """The module with at most half its MACs, traced; the module itself is not changed.

    Torch-Pruning (Fang et al., CVPR 2023) takes one share of the channels, those whose weights have the least L2 norm,
    from each group of layers that must agree; the least share of `STEPS` that will do. Where a module does not run
    without what it took, as where its code has numbers of channels in it, only channels that one layer writes go.

    Args:
        module: Trained; see `trace_model`.
        example: Images of the shape that it reads.

    Raises:
        UnavailableError: Torch-Pruning is not installed.
        InvalidSpaceError: The module cannot be traced, or not be pruned so far, with the reason.
    """
    whole = trace_model(module, example)
    classes = {_layer(whole, name) for name in last_layers(whole.graph)}
    try:
        return _least_pruned(module, example, classes, _macs(whole))
    except InvalidSpaceError:
        return _least_pruned(module, example, classes | _tied(module, example), _macs(whole))


def _least_pruned(module: nn.Module, example: Tensor, ignored: Collection[str], macs: int) -> TracedModel:
    """By bisection: the more is taken, the fewer MACs remain."""
    few, many, found = 0, STEPS - 1, None
    while few < many:
        middle = (few + many) // 2
        pruned = _pruned(module, example, middle / STEPS, ignored)
        if _macs(pruned) <= SHARE * macs:
            many, found = middle, pruned
        else:
            few = middle + 1
    found = found or _pruned(module, example, many / STEPS, ignored)
    if _macs(found) > SHARE * macs:
        raise InvalidSpaceError(f"what Torch-Pruning can take leaves {_macs(found) / macs:.0%} of the module's MACs")
    return found


def _pruned(module: nn.Module, example: Tensor, ratio: float, ignored: Collection[str]) -> TracedModel:
    own = deepcopy(module).eval()
    with _explained():
        _pruner(own, example, ratio, ignored).step()
        own(example)
        return trace_model(own, example)


@contextmanager
def _explained() -> Iterator[None]:
    """Whatever Torch-Pruning raises, or the module without its channels, becomes an `InvalidSpaceError`."""
    try:
        yield
    except HwnasError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise InvalidSpaceError(f"Torch-Pruning cannot prune the module: {type(error).__name__}: {reason}") from error


def _pruner(module: nn.Module, example: Tensor, ratio: float, ignored: Collection[str]) -> Any:
    library = _library()
    layers = [layer for layer in module.modules() if isinstance(layer, LAYERS)]
    ratios = {layer: _to_multiple(ratio, len(layer.weight)) for layer in layers}
    return library.pruner.BasePruner(
        module, example, importance=library.importance.MagnitudeImportance(p=2), pruning_ratio=ratio,
        pruning_ratio_dict=ratios, global_pruning=False, round_to=MULTIPLE,
        ignored_layers=[module.get_submodule(name) for name in ignored],
    )  # fmt: skip


def _to_multiple(ratio: float, channels: int) -> float:
    """The ratio at which the nearest multiple of `MULTIPLE` remains, at least one: Torch-Pruning rounds down to it."""
    kept = MULTIPLE * max(1, round(channels * (1 - ratio) / MULTIPLE))
    return max(0.0, 1 - (kept + 0.5) / channels)


def _tied(module: nn.Module, example: Tensor) -> set[str]:
    """The layers whose channels other layers write, too, because both are added: their names."""
    own = deepcopy(module).eval()
    with _explained():
        graph = _pruner(own, example, 0.0, ()).DG
        groups = list(graph.get_all_groups())
    tied: set[nn.Module] = set()
    for group in groups:
        layers = {
            dependency.target.module for dependency, _ in group if graph.is_out_channel_pruning_fn(dependency.handler)
        }
        writers = {layer for layer in layers if isinstance(layer, LAYERS) and not _is_depthwise(layer)}
        tied |= writers if len(writers) > 1 else set()
    return {name for name, layer in own.named_modules() if layer in tied}


def _is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and 1 < layer.groups == layer.out_channels


def _layer(model: TracedModel, node: str) -> str:
    """The name of the module that has a node's weights."""
    return model.graph[node].parameters["weight"].rpartition(".")[0]


def _macs(model: TracedModel) -> int:
    space = model.space([])
    return space.workload(space.reference()).macs


def _library() -> Any:
    try:
        return import_module("torch_pruning")
    except ImportError as error:
        raise UnavailableError(
            f"the baseline by Torch-Pruning needs the package torch-pruning, which cannot be imported ({error}); run "
            "'pip install hwnas[bench]'"
        ) from error
