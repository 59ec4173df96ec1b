"""The space of ESPNetv2 (Mehta et al., CVPR 2019, arXiv 1811.11431), as its code has it (``imagenet/Model.py``).

Five levels, each of which halves the maps: a convolution, a strided unit, then three times a strided unit followed by
EESP units. A depthwise and a grouped 1×1 convolution end the last level. See `hwnas.spaces.blocks.eesp` for the units.

| decision                      | of                                                                                   |
|-------------------------------|--------------------------------------------------------------------------------------|
| ``stem.width``                | output channels of the first convolution, at most half those of level 2              |
| ``level2.width``              | output channels of level 2; twice, 4 and 8 times as many are those of levels 3 to 5, |
| ``level3.width_multiplier``, …| times a factor, to a multiple of 16                                                  |
| ``level3.depth``, …           | units of a level behind the strided one                                              |
| ``level1.receptive_limit``, … | largest receptive field of what reads a level's maps: its units and the next strided |
|                               | one; it decides their dilations                                                      |
| ``level2.act_bits``, …        | of what the units of a level write                                                   |
| ``head.width``                | output channels of the last convolution                                              |

Channels double from level to level in all published networks. The 1×1 layers are grouped, and so are their factors.

The published counts of parameters have some that nothing uses, see `unused_parameters`. Their units carry them, in
workloads and in built networks, so that parameters are those published; exported files have none of them. The published
operation counts leave out the classifier, ours do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from operator import le
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from hwnas.spaces.blocks.eesp import CHANNEL_MULTIPLE, RECEPTIVE_LIMITS, add_unit, dilations, expand_layer
from hwnas.spaces.blocks.eesp_downsampler import Image, add_downsampler, average_image
from hwnas.spaces.blocks.inverted_residual import depthwise_layer
from hwnas.spaces.blocks.plain import Convolution, add_classifier, add_input, add_pool
from hwnas.spaces.blocks.shapes import halved, to_multiple
from hwnas.spaces.builder import Builder, Tensor
from hwnas.spaces.decision import Option
from hwnas.spaces.errors import InvalidFileError
from hwnas.spaces.operator import ENTRY
from hwnas.spaces.rank import rank_of
from hwnas.spaces.space import Space
from hwnas.spaces.stage_match import LacksError
from hwnas.spaces.stage_table import NOTES
from hwnas.spaces.value import Constant, Value, compute

STEM_WIDTHS = (16, 32)
WIDTHS = (32, 48, 64, 80, 96, 128)
MULTIPLIERS = (0.75, 1.0)
HEAD_WIDTHS = (1024, 1280)
DEPTHS = {3: (2, 3, 4), 4: (5, 6, 7, 8), 5: (2, 3, 4)}
"""Units behind the strided one, by level."""
LAST_REINFORCED = 4
"""The strided units of later levels do not read the image."""

PUBLISHED = {
    "espnetv2-1.0": (32, 64, 128, 256, 512, 1024),
    "espnetv2-0.5": (16, 32, 64, 128, 256, 1024),
    "espnetv2-1.25": (32, 80, 160, 320, 640, 1024),
    "espnetv2-1.5": (32, 96, 192, 384, 768, 1024),
    "espnetv2-2.0": (32, 128, 256, 512, 1024, 1280),
}
"""Channels of the first convolution, of levels 2 to 5, and of the last convolution."""


class Variant(BaseModel):
    """A network: channels as in `PUBLISHED`, units of levels 3 to 5, and receptive limits of levels 1 to 5."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    channels: tuple[int, int, int, int, int, int]
    repeats: tuple[int, int, int] = (3, 7, 3)
    receptive_limits: tuple[int, int, int, int, int] = (13, 11, 9, 7, 5)


def espnetv2(
    make: Builder, *, name: str, spec: Mapping[str, Any], input_shape: tuple[int, int, int], num_classes: int
) -> Space:
    """The space for images of a shape."""
    whole = add_input(make, input_shape[0], Constant(input_shape[1:]))
    stem_width, base = make.choose("stem.width", STEM_WIDTHS), make.choose("level2.width", WIDTHS)
    channels = compute(stem_channels, stem_width, base)
    make.alias(stem_width, channels)
    y = Tensor(channels, None, compute(halved, whole.size, 2))
    x = Convolution(3, 2, "prelu", edge=True).add(make, "stem", whole, y)
    limit = make.choose("level1.receptive_limit", RECEPTIVE_LIMITS)
    image = Image(whole, f"{ENTRY}stem")
    for level in range(2, 6):
        multiplier = make.choose(f"level{level}.width_multiplier", MULTIPLIERS) if level > 2 else Constant(1.0)
        y = Tensor(
            compute(level_channels, base, multiplier, level),
            make.choose(f"level{level}.act_bits", make.joint.act_bits),
            compute(halved, x.size, 2),
        )
        image = _add_strided(make, level, x, y, limit, image)
        limit = make.choose(f"level{level}.receptive_limit", RECEPTIVE_LIMITS)
        if level in DEPTHS:
            _add_units(make, level, y, limit, image)
        x = y
    x = add_pool(make, _add_head(make, x))
    add_classifier(make, x, num_classes)
    return make.space(
        name=name, spec=spec, input_shape=input_shape, num_classes=num_classes, find=find_variant,
        published={title: {"channels": channels} for title, channels in PUBLISHED.items()},
    )  # fmt: skip


def _add_strided(make: Builder, level: int, x: Tensor, y: Tensor, limit: Value, image: Image) -> Image:
    """A level's strided unit; returns the image as small as its output, or as it was where it is not read."""
    name, channels = f"level{level}down", image.tensor.channels
    if level > LAST_REINFORCED:
        add_downsampler(make, name, x, y, limit, None, channels, again=False)
        return image
    image = average_image(make, name, image, x, 2 if level == 2 else 1)
    add_downsampler(make, name, x, y, limit, image, channels, again=level < LAST_REINFORCED)
    return image


def _add_units(make: Builder, level: int, x: Tensor, limit: Value, image: Image) -> None:
    depth = make.choose(f"level{level}.depth", DEPTHS[level])
    held = image.held if level < LAST_REINFORCED else Constant(0)
    for index in range(1, max(DEPTHS[level]) + 1):
        add_unit(make, f"level{level}b{index}", x, limit, held, make.where((), depth, partial(le, index)))


def _add_head(make: Builder, x: Tensor) -> Tensor:
    """A depthwise convolution, and a grouped 1×1 convolution to more channels."""
    first = make.layer("head.depthwise", ranked=False, dense=True)
    mid = make.choose("head.depthwise.act_bits", make.joint.act_bits)
    second = make.layer("head.expand")
    y = Tensor(make.choose("head.width", HEAD_WIDTHS), make.choose("head.act_bits", make.joint.act_bits), x.size)
    rank = compute(rank_of, x.channels, y.channels, second.rank)
    make.alias(second.rank, rank)
    make.slot("head.depthwise", depthwise_layer, x.channels, 3, 1, x.size, x.bits, first.weight_bits, mid, 0,
              Constant("prelu"))  # fmt: skip
    make.slot("head.expand", expand_layer, x.channels, y.channels, x.size, mid, second.weight_bits, second.sparsity,
              rank, y.bits, Constant("prelu"), 0)  # fmt: skip
    return y


def stem_channels(width: int, base: int) -> int:
    """Channels of the first convolution: at most half those of level 2, ``base``, which adds others to them."""
    return min(width, base // 2 // CHANNEL_MULTIPLE * CHANNEL_MULTIPLE)


def level_channels(base: int, multiplier: float, level: int) -> int:
    """Channels of a level: doubled from level to level, times its multiplier, to a multiple of `CHANNEL_MULTIPLE`.

    With multipliers from 0.75 to 1, each level has half as many again as the one before, or more, but for rounding.
    """
    return to_multiple(base * 2 ** (level - 2) * multiplier, CHANNEL_MULTIPLE)


def find_variant(space: Space, network: Any) -> dict[str, Option]:
    """The options of the space's decisions that make a `Variant`, in float32 and nothing removed.

    Raises:
        InvalidFileError: It is no table of a variant.
        LacksError: No candidate is the network; says which decision cannot be what it is.
    """
    try:
        variant = Variant.model_validate({k: v for k, v in dict(network).items() if k not in NOTES})
    except (TypeError, ValueError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        raise InvalidFileError(f"no variant of ESPNetv2: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    chosen: dict[str, Option] = {}
    for name, wanted, given in _wanted(variant):
        found = next((o for o in space.options[name] if given(o) == wanted), None)
        if found is None:
            offered = ", ".join(map(str, space.options[name]))
            raise LacksError(f"space {space.name!r} lacks it: {name} cannot give {wanted}; it offers {offered}", 1)
        chosen[name] = found
    return space.completed(chosen)


def _wanted(variant: Variant) -> Iterator[tuple[str, Any, Callable[[Any], Any]]]:
    """Decisions, what they are to give, and what an option gives."""
    stem, base, *levels, head = variant.channels
    yield "level2.width", base, int
    yield "stem.width", stem, partial(stem_channels, base=base)
    for level, channels in enumerate(levels, 3):
        yield f"level{level}.width_multiplier", channels, partial(level_channels, base, level=level)
    yield "head.width", head, int
    for level, depth in enumerate(variant.repeats, 3):
        yield f"level{level}.depth", depth, int
    for level, limit in enumerate(variant.receptive_limits, 1):
        yield f"level{level}.receptive_limit", dilations(limit), dilations
