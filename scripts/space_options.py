"""The options of commands that choose a space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

DEFAULTS: dict[str, Any] = {"input_shape": [3, 32, 32], "num_classes": 10}
"""Of commands that measure a space."""


def space_options(command: Any) -> Any:
    """Adds the options that say which space."""
    for option in (
        click.option("--joint", help="Dimensions of the space, or the file's (default: bits,sparsity,rank)."),
        click.option("--classes", type=int, help="Classes of the space, or the file's (default: 10)."),
        click.option("--input-shape", help="Channels, height, width, or the file's (default: 3,32,32)."),
        click.option("--space", "space_name", default="mbconv", show_default=True, help="A space, or its YAML file."),
    ):
        command = option(command)
    return command


def chosen_space(
    space_name: str,
    input_shape: str | None,
    classes: int | None,
    joint: str | None,
    defaults: Mapping[str, Any] | None = None,
) -> Any:
    """The space that the options say; what they do not say is the file's, or the default."""
    from hwnas.spaces.catalog import named_space, space_from_spec, with_settings

    shape = None
    if input_shape is not None:
        try:
            shape = [int(part) for part in input_shape.split(",")]
        except ValueError:
            raise click.BadParameter(
                f"{input_shape!r} is not channels,height,width", param_hint="--input-shape"
            ) from None
    names = None if joint is None else [part for part in joint.split(",") if part]
    given = {"input_shape": shape, "num_classes": classes, "joint": names}
    return space_from_spec(with_settings({**(defaults or {}), **named_space(space_name)}, given))
