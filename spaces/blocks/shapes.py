"""Sizes, channels and bytes that several blocks compute."""

from __future__ import annotations

from collections.abc import Sequence

Size = tuple[int, int]


def halved(size: Size, stride: int) -> Size:
    """Height and width after a layer of the stride."""
    return (-(-size[0] // stride), -(-size[1] // stride))


def value_bytes(bits: int) -> int:
    """Bytes of one activation in memory."""
    return 1 if bits <= 8 else 4


def tensor_bytes(channels: int, size: Size, bits: int) -> int:
    """Bytes of the activations of one image."""
    return channels * size[0] * size[1] * value_bytes(bits)


def to_multiple(channels: float, multiple: int = 8) -> int:
    """The nearest multiple, halves up, and at least one of it."""
    return max(multiple, int(channels / multiple + 0.5) * multiple)


def kept_channels(channels: int, keep: float) -> int:
    """All channels, or a share of them as a multiple of 8."""
    return channels if keep == 1 else to_multiple(channels * keep)


def shares(channels: int, keep: Sequence[float]) -> list[int]:
    """What there is to choose where several shares of the channels may be kept, in increasing order."""
    return sorted({kept_channels(channels, k) for k in keep})


def scaled(channels: int, multiplier: float) -> int:
    """Channels under a width multiplier: a multiple of 8 that does not go down by more than 10 %.

    As in the code of MobileNetV2 (Sandler et al., CVPR 2018), ``make_divisible``.
    """
    result = to_multiple(channels * multiplier)
    return result + 8 if result < 0.9 * channels * multiplier else result
