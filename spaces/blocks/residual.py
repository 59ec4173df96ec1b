"""What of a block's input is added to its output: nothing, the input itself, or its average over windows of 3×3."""

from __future__ import annotations

from typing import Literal

from hwnas.spaces.blocks.shapes import Size, tensor_bytes
from hwnas.spaces.operator import ENTRY, PREVIOUS, Operator

Residual = bool | Literal["pool"]
"""False, True, or ``"pool"``: MnasNet's skip operations (Tan et al., CVPR 2019, section 4.1).

The paper says no more of the pooling than that; windows of 3×3 at a stride of 1 are ours.
"""


def adds(residual: Residual, stride: int, cin: int, cout: int) -> Residual:
    """What a block adds: nothing where stride or channels do not allow it."""
    return residual if stride == 1 and cin == cout else False


def bits_added(residual: Residual, a_in: int) -> int:
    """Bits of the input that is added; 0 where none is."""
    return a_in if residual else 0


def waits_beside(channels: int, size: Size, a_in: int, a_out: int) -> int:
    """Bytes of what is added that its operator does not count itself.

    An addition counts its first input in the wider one's bits: what that adds is taken off what is held.
    """
    entered, written, read = (tensor_bytes(channels, size, bits) for bits in (a_in, a_out, max(a_in, a_out)))
    return entered + written - read


def add_residual(
    name: str, source: str, residual: Residual, channels: int, size: Size, a_in: int, a_out: int
) -> tuple[Operator, ...]:
    """The addition to what ``source``, the operator before, wrote; none where nothing is added.

    An integer addition needs two integer inputs, so both are turned into the wider one's bits.

    Args:
        name: Of the block.
        source: Name of the operator whose output it is added to.
        residual: What is added, see `adds`.
        channels, size: Of both.
        a_in, a_out: Bits of the block's input, and of what ``source`` and the addition write.
    """
    if not residual:
        return ()
    inputs = (PREVIOUS, f"{ENTRY}{name}")
    pools: tuple[Operator, ...] = ()
    if residual == "pool":
        pools = (
            Operator("pool", channels, channels, size, size, 3, in_bits=a_in, out_bits=a_in, name=f"{name}.skip",
                     inputs=inputs[1:], held_bytes=tensor_bytes(channels, size, a_out)),
        )  # fmt: skip
        inputs = (source, PREVIOUS)
    return (
        *pools,
        Operator("add", channels, channels, size, size, in_bits=max(a_in, a_out), out_bits=a_out, name=f"{name}.add",
                 inputs=inputs, held_bytes=waits_beside(channels, size, a_in, a_out)),
    )  # fmt: skip
