"""What the built networks of every space must keep; part of `SpaceContract`."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from hwnas.spaces import Space, Workload
from hwnas.spaces.errors import HwnasError
from hwnas.spaces.network import Network, module_name
from hwnas.spaces.operator import NETWORK_INPUT, Operator
from hwnas.spaces.space import Rows
from hwnas.spaces.variation import extremes, sample_coherent

MAX_BACKWARD_S = 5.0


def identity(workload: Workload) -> Hashable:
    """Everything that makes two workloads one network, names and wiring included.

    Blocks of a stage are numbered as they come: which of a stage's blocks are skipped makes no difference.
    """
    numbers: dict[str, dict[str, int]] = {}

    def renamed(name: str) -> str:
        block, dot, part = name.partition(".")
        stage, b, _ = block.rpartition("b")
        if not b or not stage[1:].isdigit():
            return name
        own = numbers.setdefault(stage, {})
        return f"{stage}b{own.setdefault(block, len(own) + 1)}{dot}{part}"

    return tuple(
        (o, o.affine, renamed(o.name), tuple(map(renamed, o.inputs)), o.held_bytes) for o in workload.operators
    )


@dataclass
class Recorder(TorchFunctionMode):
    """Sees what a network really computes: tensors at its units' doors, arguments of torch's own functions."""

    names: list[str] = field(default_factory=list)
    inputs: list[tuple[Tensor, ...]] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    products: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        y = func(*args, **(kwargs or {}))
        if func is torch.conv2d:
            bound = dict(zip(("x", "weight", "bias", "stride", "padding", "dilation"), args, strict=False))
            self.products.append({"y": y, "groups": 1, **bound, **(kwargs or {})})
        elif func is torch.conv_transpose2d:
            names = ("x", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
            self.products.append({"y": y, **dict(zip(names, args, strict=False)), **(kwargs or {})})
        elif func is torch.nn.functional.linear:
            self.products.append({"y": y, **dict(zip(("x", "weight", "bias"), args, strict=False))})
        return y

    def watch(self, network: Network) -> None:
        for name, unit in network.units.items():
            unit.register_forward_hook(lambda _, x, y, name=name: self._see(name, x, y))

    def _see(self, name: str, x: tuple[Tensor, ...], y: Tensor) -> None:
        self.names.append(name)
        self.inputs.append(x)
        self.outputs.append(y)


def settled(space: Space, row: Rows, seed: int = 0) -> Network:
    """A fresh network in evaluation mode whose quantisers have seen one batch."""
    torch.manual_seed(seed)
    network = space.build(space.decode(row))
    with torch.no_grad():
        network.train()(torch.rand(2, *space.input_shape))
    return network.eval()


def levels_of(tensor: Tensor) -> int:
    """How many different values a tensor holds."""
    return len(np.unique(tensor.detach().numpy()))


def between_input_and_output(workload: Workload) -> list[Operator]:
    """The operators on the paths from a network's input to its output that lead through no zeros: most often all."""
    fed, used = {NETWORK_INPUT}, {workload.operators[-1].name}
    for o in workload.operators:
        if o.kind != "zero" and not fed.isdisjoint(o.inputs):
            fed.add(o.name)
    for o in reversed(workload.operators):
        if o.kind != "zero" and o.name in used:
            used.update(o.inputs)
    return [o for o in workload.operators if o.name in fed & used and o.kind != "zero"]


def map_shape(channels: int, size: tuple[int, int]) -> tuple[int, int, int]:
    return (channels, *size)


def shown_shape(tensor: Tensor) -> tuple[int, ...]:
    """Channels, height and width of maps (n, c, h, w); of tokens (n, tokens, features) and features as they count."""
    shape = tuple(tensor.shape[1:])
    return {1: (*shape, 1, 1), 2: (*shape[::-1], 1)}.get(len(shape), shape)


def check_product(seen: dict[str, Any], operator: Operator) -> None:
    """Compares one call of a convolution or linear layer with the operator that announced it."""
    x, weight, y = seen["x"], seen["weight"], seen["y"]
    if operator.kind == "linear":
        tokens = operator.in_size[0]
        assert operator.in_size == operator.out_size == (tokens, 1)
        assert tuple(x.shape[1:]) == ((tokens,) if tokens > 1 else ()) + (operator.in_channels,)
        assert tuple(y.shape[1:]) == ((tokens,) if tokens > 1 else ()) + (operator.out_channels,)
        assert tuple(weight.shape) == (operator.out_channels, operator.in_channels)
        return
    assert tuple(x.shape[1:]) == map_shape(operator.in_channels, operator.in_size)
    assert tuple(y.shape[1:]) == map_shape(operator.out_channels, operator.out_size)
    assert tuple(weight.shape[2:]) == operator.kernel_size
    assert tuple(seen["stride"]) == (operator.stride, operator.stride)
    assert tuple(seen["dilation"]) == (operator.dilation, operator.dilation)
    assert tuple(seen["padding"]) == operator.paddings
    channels = y.shape[1] if operator.kind == "deconv" else x.shape[1]
    assert seen["groups"] == channels // weight.shape[1] == operator.groups
    assert weight.numel() == operator.weights


def check_network(network: Network, images: Tensor) -> Tensor:
    """Compares all that a network does with its workload, operator by operator, and returns its output."""
    workload = network.workload
    assert sum(p.numel() for p in network.parameters()) == workload.params
    recorder, counter = Recorder(), FlopCounterMode(display=False)
    recorder.watch(network)
    with torch.no_grad(), counter, recorder:
        logits: Tensor = network(images)
    assert logits.isfinite().all()
    assert counter.get_total_flops() == 2 * workload.macs * len(images)
    assert recorder.names == [module_name(o) for o in workload.operators]
    check_wiring(recorder, workload)
    products = [o for o in workload.operators if o.kind in ("conv", "linear", "deconv")]
    assert len(recorder.products) == len(products)
    for seen, operator in zip(recorder.products, products, strict=True):
        check_product(seen, operator)
        check_weights(seen["weight"], operator, network.unit(operator))
    return logits


def check_wiring(recorder: Recorder, workload: Workload) -> None:
    """Shapes, value ranges and identity of the tensors at every unit's doors."""
    written = dict(zip([o.name for o in workload.operators], recorder.outputs, strict=True))
    for operator, x, y in zip(workload.operators, recorder.inputs, recorder.outputs, strict=True):
        for name, tensor in zip(operator.inputs, x, strict=True):
            assert name == "input" or tensor is written[name], operator.name
        if operator.kind == "concat":
            assert sum(tensor.shape[1] for tensor in x) == operator.in_channels == operator.out_channels, operator.name
            assert {tuple(tensor.shape[2:]) for tensor in x} == {operator.in_size}, operator.name
            assert operator.out_bits <= 8 or torch.equal(torch.cat(x, 1), y), operator.name
        elif operator.kind == "call":
            assert x[0].shape[1:].numel() == math.prod(map_shape(operator.in_channels, operator.in_size)), operator.name
            assert y.shape[1:].numel() == math.prod(map_shape(operator.out_channels, operator.out_size)), operator.name
        elif operator.kind != "linear":
            assert shown_shape(x[0]) == map_shape(operator.in_channels, operator.in_size), operator.name
        if operator.kind not in ("linear", "call"):
            assert shown_shape(y) == map_shape(operator.out_channels, operator.out_size), operator.name
        if operator.out_bits <= 8:
            assert levels_of(y) <= 2**operator.out_bits, operator.name
        if operator.in_bits <= 8 and operator.kind != "add":
            read = x if operator.kind == "concat" else x[:1]
            assert max(map(levels_of, read)) <= 2**operator.in_bits, operator.name
        if operator.activation in ("relu", "relu6"):
            assert y.min() >= 0
        if operator.activation == "relu6":
            assert y.max() <= 6 + 1e-5
        if operator.kind == "pool":
            difference = pooled(x[0], operator) - y
            assert operator.out_bits <= 8 or difference.abs().max() < 1e-5 * max(1.0, float(y.abs().max()))


def pooled(x: Tensor, operator: Operator) -> Tensor:
    """Means of whole maps, or of windows: sums over windows by how many of their values are none of padding."""
    if operator.kernel_size == (1, 1):
        return x.mean((2, 3), keepdim=True)
    (height, width), stride, paddings, sizes = (
        operator.out_size, operator.stride, operator.paddings, operator.kernel_size,
    )  # fmt: skip
    means = []
    for i in range(height):
        for j in range(width):
            top, left = (max(0, k * stride - p) for k, p in zip((i, j), paddings, strict=True))
            bottom, right = (k * stride - p + n for k, p, n in zip((i, j), paddings, sizes, strict=True))
            means.append(x[:, :, top:bottom, left:right].mean((2, 3)))
    return torch.stack(means, -1).reshape(*x.shape[:2], height, width)


def check_weights(weight: Tensor, operator: Operator, unit: nn.Module) -> None:
    """How many levels the weights of a product have, and how many of them are zero."""
    if operator.kind == "deconv":  # (in, out of a group, …) to (out, in of a group, …)
        assert (
            operator.density < 1 or operator.weight_bits < 32 or any(torch.equal(weight, p) for p in unit.parameters())
        )
        groups = weight.reshape(operator.groups, -1, *weight.shape[1:])
        weight = groups.transpose(1, 2).flatten(0, 1)
    if operator.density < 1:
        check_sparsity(weight, operator)
    elif operator.weight_bits >= 32 and operator.kind != "deconv":
        assert any(weight is p for p in unit.parameters()), operator.name
    if operator.weight_bits < 32:
        levels = 2**operator.weight_bits - 1  # symmetric: one level of two's complement is left out
        assert max(map(levels_of, weight.flatten(1))) <= levels, operator.name


def check_sparsity(weight: Tensor, operator: Operator) -> None:
    """Weights that are not zero: exactly the operator's share, and fewer only where low bits round more to zero."""
    density, pattern = operator.density, operator.pattern
    if pattern:
        kept = max(1, round(density * pattern))
        for first in range(0, weight.shape[1], pattern):
            group = weight[:, first : first + pattern]
            check_count((group != 0).sum(1), -(-group.shape[1] * kept // pattern), operator)
    else:
        check_count((weight != 0).sum(), max(1, round(density * weight.numel())), operator)


def check_count(found: Tensor, expected: int, operator: Operator) -> None:
    if operator.weight_bits >= 32:
        assert bool((found == expected).all()), operator.name
    else:
        assert bool((found <= expected).all()), operator.name


class NetworkContract:
    """Wants the fixtures ``space`` and ``rng``, and ``networks``: how many to try."""

    networks: ClassVar[int] = 4

    def test_references_belong_to_the_space(self, space: Space) -> None:
        assert space.references
        assert space.reference() == space.reference(next(iter(space.references)))
        for name in space.references:
            candidate = space.reference(name)
            assert space.decode(space.encode(candidate)) == candidate
            assert space.workload(candidate).operators[-1].out_channels == space.num_classes
        with pytest.raises(HwnasError, match="known: "):
            space.reference("no such network")

    def test_workload_of_a_row_is_that_of_its_candidate(self, space: Space, rng: np.random.Generator) -> None:
        for row in space.sample(rng, 10):
            assert identity(space.workload(space.decode(row))) == identity(space.workload_of_row(row))

    def test_peak_memory_agrees_with_what_operators_say_they_hold(self, space: Space, rng: np.random.Generator) -> None:
        for row in [*extremes(space), *space.sample(rng, 60), *sample_coherent(space, rng, 20)]:
            workload = space.workload_of_row(row)
            assert workload.peak_memory_bytes == max(o.live_bytes for o in workload.operators)

    def test_built_networks_are_their_workloads(self, space: Space, rng: np.random.Generator) -> None:
        rows = [extremes(space)[1], space.encode(space.reference()), *space.sample(rng, self.networks)]
        for row in [*rows, *sample_coherent(space, rng, 2)]:
            workload, network = space.workload_of_row(row), settled(space, row)
            assert identity(network.workload) == identity(workload)
            images = torch.rand(1, *space.input_shape)
            assert check_network(network, images).shape == (1, space.num_classes)

    def test_smallest_and_largest_network_train(self, space: Space) -> None:
        for row in extremes(space):
            reached: dict[str, bool] = {}
            trained = {module_name(o) for o in between_input_and_output(space.workload_of_row(row))}
            for seed in range(6):
                torch.manual_seed(seed)
                network = space.build(space.decode(row)).train()
                start = time.process_time()
                # Of two 1×1 maps, normalisation passes no gradient at all to what is added to both.
                logits = network(torch.rand(3, *space.input_shape))
                assert logits.shape == (3, space.num_classes)
                if time.process_time() - start > MAX_BACKWARD_S / 3:
                    break  # a backward pass takes twice as long as a forward pass
                loss = nn.functional.cross_entropy(logits, torch.tensor([0, 1, 0]))
                torch.autograd.backward(loss)
                learned = {name: p for name, p in network.named_parameters() if p.requires_grad}
                unused = sum(o.unused for o in network.workload.operators)
                assert sum(p.numel() for p in learned.values()) == network.workload.params - unused
                for name, parameter in learned.items():
                    assert parameter.grad is not None, f"no gradient reaches {name}"
                    assert parameter.grad.isfinite().all(), name
                    if name.split(".")[1] in trained:
                        reached[name] = reached.get(name, False) or bool(parameter.grad.any())
                if all(reached.values()):  # a squeeze of one channel may be dead at one initialisation, not at six
                    break
            assert all(reached.values()), [name for name, alive in reached.items() if not alive]
