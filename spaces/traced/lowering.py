"""How the steps of a traced model lower to operators, as functions of what is decided."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hwnas.spaces.blocks.shapes import tensor_bytes
from hwnas.spaces.operator import Operator
from hwnas.spaces.rank import Form, factorise
from hwnas.spaces.traced.channels import kept_bundles
from hwnas.spaces.traced.templates import INPUT

Spec = tuple[int, tuple[tuple[tuple[int, ...], int, tuple[tuple[int, int], ...]], ...]]
"""How many channels always stay; and of each width the bundles of its segments, the channels of its first writer that a
bundle is, and pairs of a segment and how many channels each of its bundles is here."""


def channels_kept(spec: Spec, *shares: float) -> int:
    """The channels of a tensor, given the shares of its widths that are kept."""
    fixed, widths = spec
    count = fixed
    for (sizes, times, parts), share in zip(widths, shares, strict=True):
        kept = kept_bundles(sizes, times, share)
        count += sum(kept[segment] * each for segment, each in parts)
    return count


def waiting_bytes(sizes: tuple[tuple[int, int], ...], *channels_and_bits: int) -> int:
    """Bytes of tensors that wait while an operator runs, from the size of each, its channels and its bits."""
    pairs = zip(channels_and_bits[::2], channels_and_bits[1::2], strict=True)
    return sum(tensor_bytes(c, size, bits) for size, (c, bits) in zip(sizes, pairs, strict=True))


def channels_there(ways: tuple[tuple[int, ...], ...], channels: int, *present: bool) -> int:
    """The channels of a tensor where all branches of one of the ways to its readers are there, else none."""
    return channels if any(all(present[i] for i in way) for way in ways) else 0


def held_beside(held: int, channels: int, size: tuple[int, int], bits: int) -> int:
    """What waits while two tensors of so many bits are added, of which the operator counts one."""
    return held + tensor_bytes(channels, size, bits)


def read_input(_name: str, channels: int, size: tuple[int, int], bits: int) -> tuple[Operator, ...]:
    """The input turned into integers, where it is not read as floats."""
    kind: Any = "identity" if bits == 32 else "quantize"
    return (Operator(kind, channels, channels, size, size, out_bits=bits, name=INPUT, inputs=("input",)),)


def product(
    name: str, template: Operator, cin: int, cout: int, w: int, shared: int, a_in: int, a_out: int,
    sparsity: tuple[float, int], factors: tuple[int, Form], held: int, after: int,
) -> tuple[Operator, ...]:  # fmt: skip
    """A convolution or linear layer, or its two factors; ``after`` bytes of its input are held for later operators."""
    shared = shared if shared <= 8 < w and sparsity[0] == 1 else 0
    groups = cin if template.groups == template.in_channels > 1 else template.groups
    layer = replace(
        template, name=name, in_channels=cin, out_channels=cout, groups=groups, weight_bits=w, in_bits=a_in,
        out_bits=a_out, density=sparsity[0], pattern=sparsity[1], held_bytes=held, shared=shared,
    )  # fmt: skip
    *first, last = factorise(layer, *factors)
    return (*first, replace(last, held_bytes=held + after) if first else last)


def step(
    name: str, template: Operator, cin: int, cout: int, front: int, a_in: int, a_out: int, held: int
) -> tuple[Operator, ...]:
    """What has no weights to quantise; ``front`` channels of zeros come first, or are left out at the beginning."""
    return (
        replace(
            template, name=name, in_channels=cin, out_channels=cout, front=front, in_bits=a_in, out_bits=a_out,
            held_bytes=held,
        ),
    )  # fmt: skip


def addition(
    name: str, template: Operator, alone: Operator, channels: int, bits: int, held: int, present: bool
) -> tuple[Operator, ...]:
    """A sum; or, where its branch is dropped, the other side in the activation that the sum would have."""
    if present:
        held = held_beside(held, channels, template.in_size, bits)
    left = template if present else alone
    return (
        replace(
            left, name=name, in_channels=channels, out_channels=channels, in_bits=bits, out_bits=bits, held_bytes=held
        ),
    )


def same(name: str, source: str, channels: int, bits: int) -> tuple[Operator, ...]:
    """Another name for a tensor."""
    return (Operator("identity", channels, channels, in_bits=bits, out_bits=bits, name=name, inputs=(source,)),)
