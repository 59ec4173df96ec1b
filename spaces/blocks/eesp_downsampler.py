"""Strided EESP units with long-range shortcuts from the image (ESPNetv2, CVPR 2019, section 3).

What entered the block is averaged over 3×3 windows at stride 2, and a pyramid of stride 2 gives the channels that the
block adds to them. Their concatenation is activated. Where it is reinforced, the image, averaged over windows until it
is as small, is added before: through a 3×3 convolution that keeps its channels, and a 1×1 convolution. Of
block ``level3down`` the decisions are those of the pyramid, see `hwnas.spaces.blocks.eesp`, and:

| decision                                          | of                                                           |
|---------------------------------------------------|--------------------------------------------------------------|
| ``.filter.weight_bits``, ``.reinforce.weight_bits`` | the weights of the two convolutions of the image           |
| ``.filter.act_bits``                              | of the tensor between them                                   |

What is concatenated and added has the precision of the output. The image keeps its own. The convolutions of the image
read few channels: they stay whole.

Deviations from the code, ``DownSampler`` in ``imagenet/Model.py``: windows average what is inside the image, where the
code counts padding as zeros; a level goes on from the image that the level before has averaged, where the code averages
it anew, to the same values; and the image is averaged before anything else, so that the larger one need not wait.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from operator import add as plus
from operator import sub as minus

from hwnas.spaces.blocks.eesp import activate, add, add_pyramid
from hwnas.spaces.blocks.shapes import Size, halved, tensor_bytes
from hwnas.spaces.builder import Builder, Tensor
from hwnas.spaces.operator import ENTRY, PREVIOUS, Operator
from hwnas.spaces.value import Constant, Value, compute


@dataclass(frozen=True, slots=True)
class Image:
    """The image, whole or averaged.

    Attributes:
        tensor: Its channels, bits and size.
        source: What an operator's inputs call it.
    """

    tensor: Tensor
    source: str

    @property
    def held(self) -> Value:
        """Its bytes."""
        return tensor_value(self.tensor)


def tensor_value(x: Tensor) -> Value:
    """Bytes of a tensor."""
    return compute(tensor_bytes, x.channels, x.size, x.bits)


def average_image(make: Builder, name: str, image: Image, x: Tensor, times: int) -> Image:
    """Adds to a block the averaging of the image, so many times, while what entered the block waits."""
    make.slot(f"{name}.image", image_pools, image.tensor.channels, image.tensor.size, image.tensor.bits,
              Constant(image.source), times, tensor_value(x))  # fmt: skip
    size = compute(_halved_times, image.tensor.size, times)
    return Image(replace(image.tensor, size=size), f"{name}.image{times}")


def add_downsampler(
    make: Builder, name: str, x: Tensor, y: Tensor, limit: Value, image: Image | None, image_channels: int, again: bool
) -> None:
    """Adds a strided unit.

    Args:
        make: Where to.
        name: Of the unit.
        x, y: What it reads and writes.
        limit: See `hwnas.spaces.blocks.eesp.dilations`.
        image: The image as small as the output, from `average_image`; None for a unit that is not reinforced.
        image_channels: Of the image. Without reinforcement its layers' parameters still exist, see `unused_parameters`.
        again: Whether a later block reads the image, too.
    """
    pooled = replace(y, channels=x.channels)
    during = image.held if image else Constant(0)
    after = during if again else Constant(0)
    held = compute(plus, during, tensor_value(pooled))
    added = compute(minus, y.channels, x.channels)
    make.slot(f"{name}.pool", pool_entered, x.channels, x.size, x.bits, y.bits, during)
    add_pyramid(make, name, x, replace(y, channels=added), limit, held, held, stride=2)
    make.slot(f"{name}.join", join, x.channels, y.channels, y.size, y.bits, during)
    if image is not None:
        first = make.layer(f"{name}.filter", ranked=False, dense=True)
        bits = make.choose(f"{name}.filter.act_bits", make.joint.act_bits)
        second = make.layer(f"{name}.reinforce", ranked=False, dense=True)
        make.slot(f"{name}.reinforce", reinforce, y.channels, y.size, y.bits, image_channels, image.tensor.bits,
                  Constant(image.source), first.weight_bits, bits, second.weight_bits, after)  # fmt: skip
    unused = compute(unused_parameters, added, y.channels, image_channels, image is not None)
    make.slot(f"{name}.activate", activate, y.channels, y.size, y.bits, after, unused)


def unused_parameters(added: int, channels: int, image_channels: int, reinforced: bool) -> int:
    """Parameters that the published unit has and counts, but does not use.

    These are the slopes of the activation that its pyramid returns before (``module_act``); and, without reinforcement,
    the two convolutions of the image with their normalisations and slopes (``inp_reinf``, at the last level).
    """
    c = image_channels
    reinforcement = 9 * c * c + 3 * c + c * channels + 2 * channels
    return added + (0 if reinforced else reinforcement)


def _halved_times(size: Size, times: int) -> Size:
    for _ in range(times):
        size = halved(size, 2)
    return size


def image_pools(
    name: str, channels: int, size: Size, act: int, source: str, times: int, waits: int
) -> tuple[Operator, ...]:
    """The image averaged over 3×3 windows at stride 2, so many times."""
    operators = []
    for number in range(1, times + 1):
        operators.append(
            Operator("pool", channels, channels, size, halved(size, 2), 3, 2, in_bits=act, out_bits=act,
                     name=f"{name}.image{number}", inputs=(source,), held_bytes=waits)
        )  # fmt: skip
        source, size = PREVIOUS, halved(size, 2)
    return tuple(operators)


def pool_entered(name: str, channels: int, size: Size, a_in: int, a_out: int, held: int) -> tuple[Operator, ...]:
    """What entered the block, averaged over 3×3 windows at stride 2."""
    return (
        Operator("pool", channels, channels, size, halved(size, 2), 3, 2, in_bits=a_in, out_bits=a_out,
                 name=f"{name}.pool", inputs=(f"{ENTRY}{name}",), held_bytes=held),
    )  # fmt: skip


def join(name: str, pooled: int, channels: int, size: Size, act: int, held: int) -> tuple[Operator, ...]:
    """The pooled channels, and those that the pyramid adds to them."""
    return (
        Operator("concat", channels, channels, size, size, in_bits=act, out_bits=act, name=f"{name}.join",
                 inputs=(f"{name}.pool", PREVIOUS), held_bytes=held),
    )  # fmt: skip


def reinforce(
    name: str, channels: int, size: Size, act: int, image_channels: int, image_act: int, image: str, w_filter: int,
    a_filter: int, w: int, after: int,
) -> tuple[Operator, ...]:  # fmt: skip
    """The image's two convolutions and their addition to what was joined."""
    joined = tensor_bytes(channels, size, act)
    return (
        Operator("conv", image_channels, image_channels, size, size, 3, weight_bits=w_filter, in_bits=image_act,
                 out_bits=a_filter, activation="prelu", affine="norm", name=f"{name}.filter", inputs=(image,),
                 held_bytes=joined),
        Operator("conv", image_channels, channels, size, size, weight_bits=w, in_bits=a_filter, out_bits=act,
                 affine="norm", name=f"{name}.reinforce", held_bytes=joined + after),
        add(f"{name}.add", channels, size, act, (PREVIOUS, f"{name}.join"), joined + after),
    )  # fmt: skip
